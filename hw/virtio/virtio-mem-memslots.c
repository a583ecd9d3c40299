/*
 * Dynamic memslots: map only those parts of the region that have plugged
 * blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "trace.h"
#include "virtio-mem-memslots.h"
#include "virtio-mem-region.h"

#define MEMSLOTS_MIN_SIZE (1 * GiB)

/*
 * Invariant, once realized: aliases[i] is mapped if and only if a block of
 * memslot i is plugged, except inside a change of the range it belongs to.
 */
typedef struct VirtIOMEMMemslots {
    MemoryRegion container;
    MemoryRegion *aliases;      /* nb_memslots of them, since realize */
    unsigned int nb_memslots;
    uint64_t memslot_size;      /* bytes, multiple of the block size */
} VirtIOMEMMemslots;

MemoryRegion *virtio_mem_memslots_get_container(VirtIOMEM *vmem)
{
    MemoryRegion *mr = &vmem->memdev->mr;

    if (!vmem->memslots) {
        vmem->memslots = g_new0(VirtIOMEMMemslots, 1);
        memory_region_init(&vmem->memslots->container, OBJECT(vmem),
                           "virtio-mem", memory_region_size(mr));
        /* Decides the address, so it must not depend on dynamic-memslots. */
        vmem->memslots->container.align = memory_region_get_alignment(mr);
    }
    return &vmem->memslots->container;
}

void virtio_mem_memslots_finalize(VirtIOMEM *vmem)
{
    if (vmem->memslots) {
        g_free(vmem->memslots->aliases);
        g_clear_pointer(&vmem->memslots, g_free);
    }
}

static bool memslots_can_split(const VirtIOMEM *vmem)
{
    HostMemoryBackend *memdev = vmem->memdev;

    return vmem->block_size >= host_memory_backend_pagesize(memdev) &&
           QEMU_IS_ALIGNED(memory_region_size(&memdev->mr), vmem->block_size);
}

void virtio_mem_memslots_decide(VirtIOMEM *vmem, unsigned int limit)
{
    VirtIOMEMMemslots *memslots = vmem->memslots;
    uint64_t region_size, memslot_size;

    if (!vmem->dynamic_memslots || memslots->aliases) {
        return;
    }

    region_size = memory_region_size(&vmem->memdev->mr);
    memslots->nb_memslots = 1;
    memslots->memslot_size = region_size;
    if (limit <= 1) {
        return;
    }

    virtio_mem_settle_block_size(vmem);
    if (!memslots_can_split(vmem)) {
        return;
    }

    memslot_size = ROUND_UP(DIV_ROUND_UP(region_size, limit),
                            vmem->block_size);
    memslot_size = MAX(memslot_size, MAX(vmem->block_size, MEMSLOTS_MIN_SIZE));
    memslots->nb_memslots = DIV_ROUND_UP(region_size, memslot_size);
    if (memslots->nb_memslots > 1) {
        memslots->memslot_size = memslot_size;
    }
}

unsigned int virtio_mem_memslots_count(VirtIOMEM *vmem)
{
    return vmem->dynamic_memslots ? vmem->memslots->nb_memslots : 1;
}

void virtio_mem_memslots_realize(VirtIOMEM *vmem)
{
    VirtIOMEMMemslots *memslots = vmem->memslots;
    MemoryRegion *mr = &vmem->memdev->mr;
    unsigned int i;

    if (!vmem->dynamic_memslots || memslots->aliases) {
        return;
    }

    memslots->aliases = g_new0(MemoryRegion, memslots->nb_memslots);
    for (i = 0; i < memslots->nb_memslots; i++) {
        const uint64_t offset = i * memslots->memslot_size;
        g_autofree char *name = g_strdup_printf("memslot-%u", i);

        memory_region_init_alias(&memslots->aliases[i], OBJECT(vmem), name, mr,
                                 offset, MIN(memslots->memslot_size,
                                             memory_region_size(mr) - offset));
        /* Merged memslots could no longer be unmapped one by one. */
        memory_region_set_unmergeable(&memslots->aliases[i], true);
    }
}

static void memslots_set_mapped(VirtIOMEM *vmem, unsigned int idx, bool mapped)
{
    VirtIOMEMMemslots *memslots = vmem->memslots;
    MemoryRegion *alias = &memslots->aliases[idx];

    if (memory_region_is_mapped(alias) == mapped) {
        return;
    }
    trace_virtio_mem_memslot(idx, mapped);
    if (mapped) {
        memory_region_add_subregion(&memslots->container,
                                    idx * memslots->memslot_size, alias);
    } else {
        memory_region_del_subregion(&memslots->container, alias);
    }
}

void virtio_mem_memslots_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMMemslots *memslots = vmem->memslots;
    unsigned int i;

    if (!vmem->dynamic_memslots) {
        return;
    }

    for (i = 0; i < memslots->nb_memslots; i++) {
        /* A guest may eject the device without being asked, blocks and all. */
        memslots_set_mapped(vmem, i, false);
    }
}

/* The blocks of memslot @idx; the last memslot may have fewer. */
static VirtIOMEMRange memslots_blocks(const VirtIOMEM *vmem, unsigned int idx)
{
    const uint64_t nb_blocks = vmem->memslots->memslot_size / vmem->block_size;
    const uint64_t first = idx * nb_blocks;

    return (VirtIOMEMRange) {
        first, MIN(nb_blocks, virtio_mem_blocks_nb(vmem->blocks) - first)
    };
}

static bool memslots_is_empty(const VirtIOMEM *vmem, unsigned int idx)
{
    return virtio_mem_blocks_classify(vmem->blocks,
                                      memslots_blocks(vmem, idx)) ==
           VIRTIO_MEM_BLOCKS_UNPLUGGED;
}

/*
 * One transaction for all memslots of @range.  It may register and unregister
 * listeners at its end.
 */
static void memslots_update(VirtIOMEM *vmem, VirtIOMEMRange range, bool map)
{
    uint64_t nb_blocks;
    unsigned int i, last;

    assert(bql_locked());
    if (!vmem->dynamic_memslots) {
        return;
    }

    nb_blocks = vmem->memslots->memslot_size / vmem->block_size;
    last = (range.first + range.nb_blocks - 1) / nb_blocks;
    assert(last < vmem->memslots->nb_memslots);

    memory_region_transaction_begin();
    for (i = range.first / nb_blocks; i <= last; i++) {
        if (map || memslots_is_empty(vmem, i)) {
            memslots_set_mapped(vmem, i, map);
        }
    }
    memory_region_transaction_commit();
}

void virtio_mem_memslots_map(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    memslots_update(vmem, range, true);
}

void virtio_mem_memslots_unmap_empty(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    memslots_update(vmem, range, false);
}
