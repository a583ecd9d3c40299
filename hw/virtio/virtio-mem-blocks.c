/*
 * The set of plugged blocks of a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-blocks.h"

struct VirtIOMEMBlocks {
    uint64_t nb_blocks;
    uint64_t nb_plugged;
    unsigned long *bitmap;
};

VirtIOMEMBlocks *virtio_mem_blocks_new(uint64_t nb_blocks)
{
    VirtIOMEMBlocks *blocks;

    assert(nb_blocks && nb_blocks <= VIRTIO_MEM_BLOCKS_MAX);

    blocks = g_new0(VirtIOMEMBlocks, 1);
    blocks->nb_blocks = nb_blocks;
    blocks->bitmap = bitmap_new(nb_blocks);
    return blocks;
}

void virtio_mem_blocks_free(VirtIOMEMBlocks *blocks)
{
    if (blocks) {
        g_free(blocks->bitmap);
        g_free(blocks);
    }
}

uint64_t virtio_mem_blocks_nb(const VirtIOMEMBlocks *blocks)
{
    return blocks->nb_blocks;
}

uint64_t virtio_mem_blocks_count_plugged(const VirtIOMEMBlocks *blocks)
{
    return blocks->nb_plugged;
}

VirtIOMEMRange virtio_mem_blocks_all(const VirtIOMEMBlocks *blocks)
{
    return (VirtIOMEMRange) { 0, blocks->nb_blocks };
}

/* Written so that no sum can wrap, whatever the range. */
static bool blocks_contain(const VirtIOMEMBlocks *blocks, VirtIOMEMRange range)
{
    return range.nb_blocks && range.first < blocks->nb_blocks &&
           range.nb_blocks <= blocks->nb_blocks - range.first;
}

/* The first block at or after @from, but before @end, in the wanted state. */
static uint64_t blocks_find(const VirtIOMEMBlocks *blocks, uint64_t from,
                            uint64_t end, bool plugged)
{
    return plugged ? find_next_bit(blocks->bitmap, end, from)
                   : find_next_zero_bit(blocks->bitmap, end, from);
}

VirtIOMEMBlocksState virtio_mem_blocks_classify(const VirtIOMEMBlocks *blocks,
                                                VirtIOMEMRange range)
{
    const uint64_t end = range.first + range.nb_blocks;
    bool plugged;

    assert(blocks_contain(blocks, range));

    plugged = test_bit(range.first, blocks->bitmap);
    if (blocks_find(blocks, range.first, end, !plugged) < end) {
        return VIRTIO_MEM_BLOCKS_MIXED;
    }
    return plugged ? VIRTIO_MEM_BLOCKS_PLUGGED : VIRTIO_MEM_BLOCKS_UNPLUGGED;
}

bool virtio_mem_blocks_next_run(const VirtIOMEMBlocks *blocks,
                                VirtIOMEMRange within, bool plugged,
                                VirtIOMEMRange *run)
{
    const uint64_t end = within.first + within.nb_blocks;
    uint64_t first;

    if (!blocks) {
        const bool is_first = !run->nb_blocks && within.nb_blocks;

        *run = within;
        return is_first;
    }
    assert(blocks_contain(blocks, within));

    first = blocks_find(blocks, run->first + run->nb_blocks, end, plugged);
    if (first >= end) {
        return false;
    }
    run->first = first;
    run->nb_blocks = blocks_find(blocks, first, end, !plugged) -
                     first;
    return true;
}

void virtio_mem_blocks_set_plugged(VirtIOMEMBlocks *blocks,
                                   VirtIOMEMRange range)
{
    assert(virtio_mem_blocks_classify(blocks, range) ==
           VIRTIO_MEM_BLOCKS_UNPLUGGED);

    bitmap_set(blocks->bitmap, range.first, range.nb_blocks);
    blocks->nb_plugged += range.nb_blocks;
}

void virtio_mem_blocks_set_unplugged(VirtIOMEMBlocks *blocks,
                                     VirtIOMEMRange range)
{
    assert(virtio_mem_blocks_classify(blocks, range) ==
           VIRTIO_MEM_BLOCKS_PLUGGED);

    bitmap_clear(blocks->bitmap, range.first, range.nb_blocks);
    blocks->nb_plugged -= range.nb_blocks;
}

void virtio_mem_blocks_set_all_unplugged(VirtIOMEMBlocks *blocks)
{
    bitmap_zero(blocks->bitmap, blocks->nb_blocks);
    blocks->nb_plugged = 0;
}

void virtio_mem_blocks_save(const VirtIOMEMBlocks *blocks,
                            unsigned long *bitmap)
{
    bitmap_copy(bitmap, blocks->bitmap, blocks->nb_blocks);
}

bool virtio_mem_blocks_load(VirtIOMEMBlocks *blocks,
                            const unsigned long *bitmap, uint64_t limit)
{
    /* Whole words were read: look at their last bits, too. */
    const uint64_t nb_bits = BITS_TO_LONGS(blocks->nb_blocks) * BITS_PER_LONG;

    assert(limit <= blocks->nb_blocks);

    if (find_next_bit(bitmap, nb_bits, limit) < nb_bits) {
        return false;
    }
    bitmap_copy(blocks->bitmap, bitmap, blocks->nb_blocks);
    blocks->nb_plugged = bitmap_count_one(bitmap, blocks->nb_blocks);
    return true;
}

bool virtio_mem_blocks_check(const VirtIOMEMBlocks *blocks)
{
    const uint64_t nb_bits = BITS_TO_LONGS(blocks->nb_blocks) * BITS_PER_LONG;

    return find_next_bit(blocks->bitmap, nb_bits, blocks->nb_blocks) >= nb_bits
           && bitmap_count_one(blocks->bitmap, blocks->nb_blocks) ==
              blocks->nb_plugged;
}
