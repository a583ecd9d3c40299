/*
 * Dynamic memslots: map only those parts of the region that have plugged
 * blocks.
 *
 * With 'dynamic-memslots', the region of the device is an empty container, and
 * its memory is cut into memslots of equal size (the last may be smaller), at
 * least 1 GiB each.  A memslot is an alias of a part of the memory backend,
 * mapped into the container exactly while at least one of its blocks is
 * plugged.  That saves accelerators and vhost devices the metadata of memory
 * that is not there.  Without 'dynamic-memslots', the region is the backend's
 * own, one memslot, always mapped, and changing the mapping is a no-op.
 *
 * All functions: BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_MEMSLOTS_H
#define HW_VIRTIO_MEM_MEMSLOTS_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-blocks.h"

/*
 * Instance life: container and memslots outlive an unrealized device, because
 * a memory map that contains them may still be in use.
 */
void virtio_mem_memslots_finalize(VirtIOMEM *vmem);

/* Realize and unrealize: the memslots, none of them mapped. */
void virtio_mem_memslots_realize(VirtIOMEM *vmem);
void virtio_mem_memslots_unrealize(VirtIOMEM *vmem);

/* The container, made on first use; the memdev is usable. */
MemoryRegion *virtio_mem_memslots_get_container(VirtIOMEM *vmem);

/*
 * Settle for a number of memslots of 1 .. @limit; before realize, once.  @limit
 * 0 counts as 1.  Settles for 1 when realize is going to fail anyway.
 */
void virtio_mem_memslots_decide(VirtIOMEM *vmem, unsigned int limit);
unsigned int virtio_mem_memslots_count(VirtIOMEM *vmem);

/*
 * Map each memslot that overlaps @range.  Call it before the blocks of @range
 * count as plugged: a mapping announces the blocks that are plugged already.
 */
void virtio_mem_memslots_map(VirtIOMEM *vmem, VirtIOMEMRange range);

/*
 * Unmap each memslot that overlaps @range and has no plugged block left.  Call
 * it after the blocks of @range ceased to count as plugged.
 */
void virtio_mem_memslots_unmap_empty(VirtIOMEM *vmem, VirtIOMEMRange range);

#endif
