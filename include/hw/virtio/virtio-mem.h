/*
 * virtio-mem: a memory device that the guest grows and shrinks in blocks.
 *
 * This header is what transports (PCI, CCW) and machines may know: the type,
 * the names of the properties they forward, and the class methods through
 * which a proxy acts as a memory device.  Everything else is private to the
 * hw/virtio/virtio-mem*.c files; start reading at docs/devel/virtio-mem.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_H
#define HW_VIRTIO_MEM_H

#include "hw/virtio/virtio.h"
#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-machine.h"
#include "qemu/coroutine.h"
#include "qemu/notify.h"
#include "qom/object.h"
#include "system/hostmem.h"

#define TYPE_VIRTIO_MEM "virtio-mem"

OBJECT_DECLARE_TYPE(VirtIOMEM, VirtIOMEMClass, VIRTIO_MEM)

/* The properties of the device that a proxy reads, writes or forwards. */
#define VIRTIO_MEM_ADDR_PROP "memaddr"
#define VIRTIO_MEM_BLOCK_SIZE_PROP "block-size"
#define VIRTIO_MEM_REQUESTED_SIZE_PROP "requested-size"
#define VIRTIO_MEM_SIZE_PROP "size"

/*
 * What the migration stream carries: filled from the live state before saving,
 * checked before it becomes live state after loading (virtio-mem-vmstate.c).
 * Member names are the field names that tools read from the stream.
 */
typedef struct VirtIOMEMStream {
    uint64_t size;
    uint64_t usable_region_size;
    uint64_t requested_size;
    int32_t bitmap_size;
    unsigned long *bitmap;
} VirtIOMEMStream;

struct VirtIOMEM {
    VirtIODevice parent_obj;

    /* Properties: constant once realized, but for requested_size. */
    HostMemoryBackend *memdev;
    uint64_t addr;
    uint64_t block_size;
    uint64_t requested_size;
    uint32_t node;
    bool prealloc;
    uint32_t prealloc_threads;
    bool early_migration;
    bool dynamic_memslots;
    OnOffAuto unplugged_inaccessible;
    OnOffAuto protect_unplugged;
    VirtioMEMUnpluggedAccess unplugged_access;

    /*
     * State, changed with the BQL held.  The blocks are also read without it,
     * by the threads that work for the request in flight and by those of a
     * migration; nothing changes them then.
     */
    VirtQueue *vq;
    QEMUBH *request_bh;             /* goes on serving the queue */
    Coroutine *request_co;          /* serves it now */
    struct VirtIOMEMTask *request_task;     /* what it waits for, if anything */
    unsigned int nb_drains;         /* wait for that; atomic */
    uint64_t usable_extent;         /* of the usable region over the request */
    uint64_t usable_region_size;
    struct VirtIOMEMBlocks *blocks;
    struct VirtIOMEMGuard *guard;   /* NULL: unplugged is not protected */
    struct VirtIOMEMProtection *protection;
    struct VirtIOMEMMemslots *memslots;
    struct VirtIOMEMWake *wake;
    struct VirtIOMEMMachineReset *machine_reset;
    QLIST_HEAD(, RamDiscardListener) listeners;
    NotifierList size_change_notifiers;
    bool populate_failed;
    VirtIOMEMStream stream;
};

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
    void (*remove_size_change_notifier)(VirtIOMEM *vmem, Notifier *notifier);

    /*
     * Fill in all members of @info but the id, which is the proxy's;
     * members that are pointers are newly allocated.
     */
    void (*fill_device_info)(const VirtIOMEM *vmem, VirtioMEMDeviceInfo *info);
};

#endif
