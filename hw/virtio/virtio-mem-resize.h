/*
 * The engine of resizes: moves what the guest of a virtio-mem device is asked
 * for towards what the user wishes for.
 *
 * Three sizes: the wish ("requested-size"), the ask ("asked-size": what the
 * guest reads, and what is migrated) and what is plugged ("size").  In mode
 * plain the ask is the wish.  In mode safe it follows the wish in steps, as
 * the plan (virtio-mem-plan.h) advises: it goes by what the guest's balloon
 * driver reports.  Reports are asked for while a plan goes on, and only then.
 *
 * The ask changes from the main loop only, when nothing else is under way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_RESIZE_H
#define HW_VIRTIO_MEM_RESIZE_H

#include "hw/virtio/virtio-mem-state.h"

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_resize_realize(VirtIOMEM *vmem);
void virtio_mem_resize_unrealize(VirtIOMEM *vmem);

/* Whether @mode is possible in this machine. */
bool virtio_mem_resize_check_mode(MemoryDeviceResizeMode mode, Error **errp);

/*
 * The user wishes for @size bytes, which was checked.  The same size again is a
 * reminder of the guest.  False with an error if the mode is not possible.
 */
bool virtio_mem_resize_wish(VirtIOMEM *vmem, uint64_t size, Error **errp);

/* The mode or the reserve have changed: begin anew with the same wish. */
void virtio_mem_resize_restart(VirtIOMEM *vmem);

/* Ask for nothing more.  The wish stays, and so does what is asked for. */
void virtio_mem_resize_stop(VirtIOMEM *vmem);

/*
 * The guest goes on elsewhere, where only what it was asked for is known: that
 * is the wish from now on, also if the guest comes back.
 */
void virtio_mem_resize_leave(VirtIOMEM *vmem);

/*
 * During a system reset, after everything was unplugged.  That completes a
 * shrink, as nothing runs in the guest that could suffer; a growth begins anew.
 */
void virtio_mem_resize_system_reset(VirtIOMEM *vmem);

#endif
