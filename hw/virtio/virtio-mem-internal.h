/*
 * Private parts of the virtio-mem device, grouped by the file that implements
 * them.  The order is that of the layers: a file calls those above it.
 *
 * In all files, @vmem is the device and @range a run of its blocks.  Sizes and
 * offsets are in bytes and count from the start of the region; a gpa is a
 * guest physical address.  Unless a comment says otherwise, functions are
 * called with the BQL held, on a realized device.
 *
 * "spec" is virtio 1.4, chapter Memory Device; what follows is a section title.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_INTERNAL_H
#define HW_VIRTIO_MEM_INTERNAL_H

#include "hw/virtio/virtio-mem.h"
#include "virtio-mem-region.h"
#include "trace.h"

/* --- virtio-mem-protect.c: the guard, whom it obeys and what it reports --- */

/*
 * Whoever must have all of the memory, unplugged or not, for a while: what
 * comes there would get lost otherwise, or userfaultfd is theirs.
 */
typedef enum VirtIOMEMAside {
    VIRTIO_MEM_ASIDE_LOAD = 1,          /* pages arrive, blocks are not known */
    VIRTIO_MEM_ASIDE_SNAPSHOT = 2,      /* a background snapshot */
} VirtIOMEMAside;

/*
 * Protect all of the memory; before it is discarded.  False with an error if
 * that is not possible but demanded.
 */
bool virtio_mem_protect_realize(VirtIOMEM *vmem, Error **errp);
void virtio_mem_protect_unrealize(VirtIOMEM *vmem);

/*
 * Protect nothing, and later what is unplugged then.  Whatever is there should
 * be discarded after that.  Unless @why was given before, come_back does
 * nothing and returns false.
 */
void virtio_mem_protect_step_aside(VirtIOMEM *vmem, VirtIOMEMAside why);
bool virtio_mem_protect_come_back(VirtIOMEM *vmem, VirtIOMEMAside why);

/* --- virtio-mem-wake.c: refuse while busy, wake the guest afterwards --- */

void virtio_mem_wake_realize(VirtIOMEM *vmem);
void virtio_mem_wake_unrealize(VirtIOMEM *vmem);

/*
 * Whether a migration forbids to change the set of plugged blocks: an outgoing
 * one (or a snapshot) has it in the stream, an incoming one in postcopy has not
 * all of its memory yet.
 */
bool virtio_mem_is_busy(void);

/*
 * Whether the guest may run, or would if it were not suspended.  Requests that
 * wait while it is stopped are part of the state that is saved.
 */
bool virtio_mem_is_live(void);

/*
 * The guest was told to wait: send a config interrupt when the cause is over
 * or may be.  Linux sleeps for minutes otherwise.
 */
void virtio_mem_wake_later(VirtIOMEM *vmem);

/*
 * The device was loaded while pages still arrive: at the end of that, give back
 * the memory of unplugged blocks and wake the guest.
 */
void virtio_mem_wake_after_postcopy(VirtIOMEM *vmem);

/* Send the interrupt that is due, if the VM runs and nothing is in the way. */
void virtio_mem_wake_if_due(VirtIOMEM *vmem);

/* The driver starts anew (device reset): it waits for nothing. */
void virtio_mem_wake_forget(VirtIOMEM *vmem);

/* A request succeeded: retry soon when the next one does not. */
void virtio_mem_wake_reset_backoff(VirtIOMEM *vmem);

/* --- virtio-mem-request.c: decide and serve the guest's requests --- */

/* The queue and its handler (spec: Device Operation). */
void virtio_mem_request_realize(VirtIOMEM *vmem);
void virtio_mem_request_unrealize(VirtIOMEM *vmem);

/* The VM runs again: serve what it left in the queue when it was stopped. */
void virtio_mem_request_resume(VirtIOMEM *vmem);

/* --- virtio-mem-vmstate.c: the migration stream --- */

extern const VMStateDescription vmstate_virtio_mem;
extern const VMStateDescription vmstate_virtio_mem_device;

/* The parts of the stream that the transport does not carry. */
void virtio_mem_vmstate_realize(VirtIOMEM *vmem);
void virtio_mem_vmstate_unrealize(VirtIOMEM *vmem);

/* --- virtio-mem-reset.c: system reset --- */

void virtio_mem_reset_realize(VirtIOMEM *vmem);
void virtio_mem_reset_unrealize(VirtIOMEM *vmem);

/* --- virtio-mem-properties.c: what users set and see --- */

/* Add the properties; before any of them is used. */
void virtio_mem_properties_class_init(ObjectClass *klass);
void virtio_mem_properties_instance_init(VirtIOMEM *vmem);

/*
 * All that can be wrong with the properties, and the memdev; settles those
 * that the user left to us.  At the begin of realize.
 */
bool virtio_mem_check_properties(VirtIOMEM *vmem, Error **errp);

#endif
