/*
 * The guard of a virtio-mem device: when it is paused, what it reports.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_PROTECT_H
#define HW_VIRTIO_MEM_PROTECT_H

#include "hw/virtio/virtio-mem-state.h"

/*
 * Why the guard is paused: memory arrives before we know which blocks are
 * plugged, or QEMU uses userfaultfd itself.
 */
typedef enum VirtIOMEMPause {
    VIRTIO_MEM_PAUSE_LOAD = 1,          /* pages arrive, blocks are not known */
    VIRTIO_MEM_PAUSE_SNAPSHOT = 2,      /* a background snapshot */
} VirtIOMEMPause;

/*
 * Protect all of the memory; before it is discarded.  False with an error if
 * that is not possible but demanded.
 */
bool virtio_mem_protect_realize(VirtIOMEM *vmem, Error **errp);
void virtio_mem_protect_unrealize(VirtIOMEM *vmem);

/*
 * pause: stop protecting.  resume: protect what is unplugged by then;
 * the caller then discards what arrived in between.  resume returns false
 * and does nothing unless the guard was paused for @why.  pause returns
 * what virtio_mem_guard_pause() does: whether memory may arrive now.
 */
int virtio_mem_protect_pause(VirtIOMEM *vmem, VirtIOMEMPause why);
bool virtio_mem_protect_resume(VirtIOMEM *vmem, VirtIOMEMPause why);

/*
 * Protection that cannot come back, or that the kernel ended, is lost: this is
 * reported, and the VM stops if "protect-unplugged" is "on".  @timer, of
 * QEMU_CLOCK_REALTIME, is set then to go off when it is time for _retry().
 * _retry() returns whether the guard protects again by it; the caller then
 * discards what arrived in between.  With the BQL held.
 */
void virtio_mem_protect_on_loss(VirtIOMEM *vmem, QEMUTimer *timer);
bool virtio_mem_protect_retry(VirtIOMEM *vmem);

/* How often unplugged memory was accessed, as far as that was noticed. */
uint64_t virtio_mem_protect_nb_accesses(const VirtIOMEM *vmem);

#endif
