/*
 * How far a virtio-mem device is from the size it was asked for, and why.
 *
 * The guest says only what it plugs and unplugs; why it does not, the device
 * can tell as far as it is the cause or sees it.  When the guest falls silent,
 * its balloon driver may know why (virtio-mem-silence.h).
 *
 * Nothing is decided here, and nothing is asked of the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_STATUS_H
#define HW_VIRTIO_MEM_STATUS_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-plan.h"

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_status_realize(VirtIOMEM *vmem);
void virtio_mem_status_unrealize(VirtIOMEM *vmem);

/*
 * Something that the status depends on has changed or is about to: the driver's
 * status, the VM's run state, a migration, the plugged size.  Looks at it from
 * the main loop, when all of that has settled.
 */
void virtio_mem_status_update(VirtIOMEM *vmem);

/* Another size is asked for: the guest has its time again, from now on. */
void virtio_mem_status_restart(VirtIOMEM *vmem);

/*
 * The guest is not asked for all that is wished for, and why; or
 * VIRTIO_MEM_NO_REASON if it is, or soon will be.
 */
void virtio_mem_status_hold(VirtIOMEM *vmem, VirtioMEMResizeReason reason);

/* Why the guest cannot change blocks now, or VIRTIO_MEM_NO_REASON. */
VirtioMEMResizeReason virtio_mem_status_obstacle(const VirtIOMEM *vmem);

/* Why the size does not come closer, as far as is known: never no reason. */
VirtioMEMResizeReason virtio_mem_status_reason(const VirtIOMEM *vmem);

/* @bh is scheduled whenever something gets in the way, or out of it. */
void virtio_mem_status_on_obstacle(VirtIOMEM *vmem, QEMUBH *bh);

/* For how long the guest could have asked for a change, and did not. */
int64_t virtio_mem_status_silence_ms(const VirtIOMEM *vmem);

/*
 * A request was answered.  @wants_change: it was one to change blocks, and
 * answers that to the size that the guest is asked for.  @reason: why blocks do
 * not change, as far as the answer says so, or VIRTIO_MEM_NO_REASON.
 */
void virtio_mem_status_note_request(VirtIOMEM *vmem, bool wants_change,
                                    VirtioMEMResizeReason reason);

/* FEATURES_OK was written, and accepted or @refused. */
void virtio_mem_status_note_features(VirtIOMEM *vmem, bool refused);

/* The driver starts anew (device reset). */
void virtio_mem_status_forget(VirtIOMEM *vmem);

/* The members of @info about the driver and the resize. */
void virtio_mem_status_fill_info(const VirtIOMEM *vmem,
                                 VirtioMEMDeviceInfo *info);

#endif
