/*
 * An area of host memory that virtio-mem's guard keeps out of reach.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_AREA_H
#define HW_VIRTIO_MEM_GUARD_AREA_H

/* What to guard, and how to act on it.  Sizes and offsets are in bytes. */
typedef struct VirtIOMEMGuardArea {
    void *host;
    uint64_t size;              /* a multiple of block_size */
    uint64_t page_size;         /* of the host, in this area */
    uint64_t block_size;        /* a multiple of page_size */
    bool shared;                /* the mapping: content survives without it */
    bool reserved;              /* pages, for the mapping: lost without it */
    uint64_t max_mappings;      /* for tests; 0: what the process may have */

    /*
     * The guard's thread and the threads of its callers call both.
     * Give back the memory of a range that is out of reach: 0, or negative.
     */
    int (*discard)(void *opaque, uint64_t offset, uint64_t size);
    /*
     * Map the area's memory where other memory was mapped meanwhile: 0, or a
     * negative errno.  NULL if that cannot be.
     */
    int (*map)(void *opaque, uint64_t offset, uint64_t size);
    /*
     * Memory out of reach was accessed, see virtio_mem_guard_fetch(), or the
     * protection was lost, see virtio_mem_guard_is_active().
     */
    void (*notify)(void *opaque);
    void *opaque;
} VirtIOMEMGuardArea;

#endif
