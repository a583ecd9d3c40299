/*
 * Wake the guest of a virtio-mem device that heard BUSY.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_WAKE_H
#define HW_VIRTIO_MEM_WAKE_H

#include "hw/virtio/virtio-mem-state.h"

void virtio_mem_wake_realize(VirtIOMEM *vmem);
void virtio_mem_wake_unrealize(VirtIOMEM *vmem);

/*
 * Whether a migration forbids to change the set of plugged blocks: an outgoing
 * one (or a snapshot) has it in the stream, an incoming one in postcopy has not
 * all of its memory yet.
 */
bool virtio_mem_migration_forbids_change(void);

/*
 * Whether the guest may run, or would if it were not suspended.  Requests that
 * wait while it is stopped are part of the state that is saved.
 */
bool virtio_mem_vm_is_live(void);

/*
 * The guest was told to wait: send a config interrupt when the cause is over
 * or may be.  Linux sleeps for minutes otherwise.
 */
void virtio_mem_wake_later(VirtIOMEM *vmem);

/* Send the interrupt that is due, if the VM runs and nothing is in the way. */
void virtio_mem_wake_if_due(VirtIOMEM *vmem);

/* The driver starts anew (device reset): it waits for nothing. */
void virtio_mem_wake_forget(VirtIOMEM *vmem);

/* A request succeeded: retry soon when the next one does not. */
void virtio_mem_wake_reset_backoff(VirtIOMEM *vmem);

#endif
