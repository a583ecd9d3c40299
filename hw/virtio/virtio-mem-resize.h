/*
 * What the user wishes a virtio-mem device's guest to have.
 *
 * Three sizes: the wish ("requested-size"), the ask ("asked-size": what the
 * guest reads, and what is migrated) and what is plugged ("size").  In mode
 * plain the ask is the wish.  In mode safe it follows the wish in steps
 * (virtio-mem-steps.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_RESIZE_H
#define HW_VIRTIO_MEM_RESIZE_H

#include "hw/virtio/virtio-mem-state.h"

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_resize_realize(VirtIOMEM *vmem);
void virtio_mem_resize_unrealize(VirtIOMEM *vmem);

/*
 * The user wishes for @size bytes, which was checked.  The same size again is a
 * reminder of the guest.  False with an error if the mode is not possible.
 */
bool virtio_mem_resize_wish(VirtIOMEM *vmem, uint64_t size, Error **errp);

/*
 * The properties for mode and reserve have changed: begin anew with the same
 * wish, unless it was ordered with its own.
 */
void virtio_mem_resize_restart(VirtIOMEM *vmem);

/*
 * An order is a wish with a mode and a reserve of its own, until _release().
 * @over is called at most once before that: when the plan has ended, with its
 * reason or VIRTIO_MEM_NO_REASON; when another wish replaces the order; or when
 * the guest has left.  In mode plain there is no plan.  After _settle(), the
 * caller may order again to go on.  Only one order may stand.
 */
typedef void VirtIOMEMResizeOver(void *opaque, VirtioMEMResizeReason reason);

typedef struct VirtIOMEMResizeOrder {
    uint64_t size;                  /* checked before, as are these */
    MemoryDeviceResizeMode mode;
    uint64_t reserve;
    VirtIOMEMResizeOver *over;
    void *opaque;
} VirtIOMEMResizeOrder;

void virtio_mem_resize_order(VirtIOMEM *vmem,
                             const VirtIOMEMResizeOrder *order);

/* Whether the guest has what is wished for, and no plan watches it still. */
bool virtio_mem_resize_is_done(const VirtIOMEM *vmem);

/* No order any more: from now on its wish is one as any other. */
void virtio_mem_resize_release(VirtIOMEM *vmem);

/* Wish and ask for what is plugged, and nothing more.  An order stays. */
void virtio_mem_resize_settle(VirtIOMEM *vmem);

/* A state is being loaded, which wins over all that goes on here. */
void virtio_mem_resize_load(VirtIOMEM *vmem);

/*
 * The guest was sent elsewhere, where only what it was asked for is known.  An
 * order is over then.  A wish stands, as the guest may go on here all the same:
 * the stream may be a file, which is kept as a backup.
 */
void virtio_mem_resize_leave(VirtIOMEM *vmem);

/*
 * During a system reset, after everything was unplugged.  That completes a
 * shrink, as nothing runs in the guest that could suffer; a growth begins anew.
 */
void virtio_mem_resize_system_reset(VirtIOMEM *vmem);

#endif
