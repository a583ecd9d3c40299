/*
 * The instance of a virtio-mem device, and the names of its properties.
 *
 * Transports embed the instance, so they see this header, but its members are
 * private to the hw/virtio/virtio-mem*.c files: a proxy uses the methods and
 * properties in hw/virtio/virtio-mem.h.
 *
 * In all of those files, @vmem is the device and @range a run of its blocks.
 * Sizes and offsets are in bytes and count from the start of the region; a gpa
 * is a guest physical address.  Unless a comment says otherwise, functions are
 * called with the BQL held, on a realized device.
 *
 * "spec" is virtio 1.4, chapter Memory Device; what follows is a section title.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_STATE_H
#define HW_VIRTIO_MEM_STATE_H

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
#define VIRTIO_MEM_ASKED_SIZE_PROP "asked-size"
#define VIRTIO_MEM_BLOCK_SIZE_PROP "block-size"
#define VIRTIO_MEM_REQUESTED_SIZE_PROP "requested-size"
#define VIRTIO_MEM_RESIZE_MODE_PROP "resize-mode"
#define VIRTIO_MEM_RESIZE_RESERVE_PROP "resize-reserve"
#define VIRTIO_MEM_SIZE_PROP "size"

/* Those that no proxy cares about. */
#define VIRTIO_MEM_DYNAMIC_MEMSLOTS_PROP "dynamic-memslots"
#define VIRTIO_MEM_EARLY_MIGRATION_PROP "x-early-migration"
#define VIRTIO_MEM_MEMDEV_PROP "memdev"
#define VIRTIO_MEM_NODE_PROP "node"
#define VIRTIO_MEM_PREALLOC_PROP "prealloc"
#define VIRTIO_MEM_PREALLOC_THREADS_PROP "prealloc-threads"
#define VIRTIO_MEM_PROTECT_UNPLUGGED_PROP "protect-unplugged"
#define VIRTIO_MEM_UNPLUGGED_ACCESS_PROP "unplugged-access"
#define VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP "unplugged-inaccessible"

/*
 * What the migration stream carries: filled from the live state before saving,
 * checked before it becomes live state after loading (virtio-mem-stream.c).
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

    /* Properties that the user may change at any time. */
    uint64_t requested_size;        /* what the user wishes for */
    MemoryDeviceResizeMode resize_mode;
    uint64_t resize_reserve;        /* 0: by the size of the guest */

    /* Properties that are constant once realized. */
    HostMemoryBackend *memdev;
    uint64_t addr;
    uint64_t block_size;
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
    struct VirtIOMEMQueue *queue;
    unsigned long *holes;           /* in the file of a private copy */
    GThreadPool *threads;           /* that work for the device */
    struct VirtIOMEMScaling *scaling;   /* to discard, and to populate */
    struct {
        Coroutine *co;              /* serves the queue now */
        struct VirtIOMEMWork *work; /* what it waits for, if anything */
        unsigned int nb_drains;     /* wait for that; atomic */
    } flight;
    uint64_t asked_size;            /* what the guest reads and is migrated */
    uint64_t usable_region_size;
    struct VirtIOMEMBlocks *blocks;
    struct VirtIOMEMGuard *guard;   /* NULL: unplugged is not protected */
    struct VirtIOMEMProtection *protection;
    struct VirtIOMEMMemslots *memslots;
    struct VirtIOMEMWake *wake;
    struct VirtIOMEMStatus *status;
    struct VirtIOMEMSilence *silence;
    struct VirtIOMEMResize *resize;
    struct VirtIOMEMSteps *steps;
    struct VirtIOMEMJobs *jobs;
    struct VirtIOMEMStats *stats;
    struct VirtIOMEMMigration *migration;
    struct VirtIOMEMResetter *system_reset;
    QLIST_HEAD(, RamDiscardListener) listeners;
    NotifierList size_change_notifiers;
    bool populate_failed;
    VirtIOMEMStream stream;
};

#endif
