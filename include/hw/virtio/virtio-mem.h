/*
 * virtio-mem: a memory device that the guest grows and shrinks in blocks.
 *
 * This header is what transports (PCI, CCW) and machines may know: the type,
 * the names of the properties they forward (virtio-mem-state.h, which is there
 * because a proxy embeds the instance), and the class methods through which a
 * proxy acts as a memory device.  Everything else is private to the
 * hw/virtio/virtio-mem*.c files; start reading at docs/devel/virtio-mem.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_H
#define HW_VIRTIO_MEM_H

#include "hw/virtio/virtio-mem-state.h"

/*
 * All methods are called with the BQL held.  The memory of a device that is
 * being plugged is mapped by the machine, so a proxy asks for it before its
 * child is realized: the methods marked "early" answer then, too.
 */
struct VirtIOMEMClass {
    /* private */
    VirtioDeviceClass parent_class;

    /* public */

    /*
     * Early.  The region to map at "memaddr", always the same one; NULL with
     * an error without a usable memdev.
     */
    MemoryRegion *(*get_memory_region)(VirtIOMEM *vmem, Error **errp);

    /*
     * Early.  The number of memslots the device may use, at most the limit
     * given once before: the share of the machine's memslots it may take.
     */
    unsigned int (*get_memslots)(VirtIOMEM *vmem);
    void (*decide_memslots)(VirtIOMEM *vmem, unsigned int limit);

    /* Set an error if unplugging the device now would take memory in use. */
    void (*unplug_request_check)(VirtIOMEM *vmem, Error **errp);

    /*
     * Early.  Have @notifier called with a pointer to the new plugged size
     * (uint64_t, bytes) after each change.
     */
    void (*add_size_change_notifier)(VirtIOMEM *vmem, Notifier *notifier);

    /*
     * Fill in all members of @info but the id, which is the proxy's;
     * members that are pointers are newly allocated.
     */
    void (*fill_device_info)(const VirtIOMEM *vmem, VirtioMEMDeviceInfo *info);

    /* Start the job that @args describes, or set an error. */
    void (*resize)(VirtIOMEM *vmem, const MemoryDeviceResize *args,
                   Error **errp);
};

#endif
