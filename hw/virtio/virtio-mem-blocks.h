/*
 * The set of plugged blocks of a virtio-mem device.
 *
 * A device's region is cut into blocks of equal size, numbered from 0.  Each
 * is plugged or unplugged.  One bit per block represents that, set = plugged,
 * beside a count of the set bits; so 1 TiB in blocks of 2 MiB takes 64 KiB.
 * Range operations cost a pass over the range's words, the count is O(1).
 *
 * This layer knows block numbers only: no guest addresses, no sizes in bytes,
 * no host memory, no device.  It depends on qemu/bitmap.h alone.
 *
 * Invariants, recomputed by virtio_mem_blocks_check():
 *  - nb_plugged is the number of set bits below nb_blocks;
 *  - no bit at or above nb_blocks is set.
 *
 * Locking: none here.  Writers hold the BQL.  Readers without it (migration
 * threads) see a consistent set only while nothing is plugged or unplugged.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_BLOCKS_H
#define HW_VIRTIO_MEM_BLOCKS_H

/*
 * The migration stream counts the bits of the set in an int32_t, which limits
 * the region to 2 PiB in blocks of 1 MiB.
 */
#define VIRTIO_MEM_BLOCKS_MAX ((uint64_t)INT32_MAX)

/* Blocks first .. first + nb_blocks - 1. */
typedef struct VirtIOMEMRange {
    uint64_t first;
    uint64_t nb_blocks;
} VirtIOMEMRange;

typedef enum VirtIOMEMBlocksState {
    VIRTIO_MEM_BLOCKS_PLUGGED,
    VIRTIO_MEM_BLOCKS_UNPLUGGED,
    VIRTIO_MEM_BLOCKS_MIXED,
} VirtIOMEMBlocksState;

typedef struct VirtIOMEMBlocks VirtIOMEMBlocks;

/*
 * A new set of @nb_blocks unplugged blocks (1 .. VIRTIO_MEM_BLOCKS_MAX), to be
 * released by virtio_mem_blocks_free(), which accepts NULL.
 */
VirtIOMEMBlocks *virtio_mem_blocks_new(uint64_t nb_blocks);
void virtio_mem_blocks_free(VirtIOMEMBlocks *blocks);

/* Questions.  Ranges are not empty and lie inside the set. */
uint64_t virtio_mem_blocks_nb(const VirtIOMEMBlocks *blocks);
uint64_t virtio_mem_blocks_count_plugged(const VirtIOMEMBlocks *blocks);
VirtIOMEMRange virtio_mem_blocks_all(const VirtIOMEMBlocks *blocks);
VirtIOMEMBlocksState virtio_mem_blocks_classify(const VirtIOMEMBlocks *blocks,
                                                VirtIOMEMRange range);

/*
 * Step @run to the next maximal run of @plugged (or unplugged) blocks inside
 * @within, in ascending order; false, with @run undefined, after the last one.
 * Start with *run = { within.first, 0 }.  Maximal means: inside @within, the
 * blocks on both sides of the run are in the other state.  Without @blocks, all
 * of @within is one run.
 */
bool virtio_mem_blocks_next_run(const VirtIOMEMBlocks *blocks,
                                VirtIOMEMRange within, bool plugged,
                                VirtIOMEMRange *run);

#define VIRTIO_MEM_BLOCKS_FOREACH_RUN(blocks, within, plugged, run)         \
    for ((run) = (VirtIOMEMRange) { (within).first, 0 };                    \
         virtio_mem_blocks_next_run((blocks), (within), (plugged), &(run));)

/* Changes.  The whole range must be in the other state. */
void virtio_mem_blocks_set_plugged(VirtIOMEMBlocks *blocks,
                                   VirtIOMEMRange range);
void virtio_mem_blocks_set_unplugged(VirtIOMEMBlocks *blocks,
                                     VirtIOMEMRange range);
void virtio_mem_blocks_set_all_unplugged(VirtIOMEMBlocks *blocks);

/*
 * Copy the set from or to a bitmap of virtio_mem_blocks_nb() bits, rounded
 * up to longs.  Loading refuses, and changes nothing, when a bit is set at or
 * above @limit (0 .. count) or beyond the last block.
 */
void virtio_mem_blocks_save(const VirtIOMEMBlocks *blocks,
                            unsigned long *bitmap);
bool virtio_mem_blocks_load(VirtIOMEMBlocks *blocks,
                            const unsigned long *bitmap, uint64_t limit);

/* Whether all invariants hold; for tests, costs a pass over the set. */
bool virtio_mem_blocks_check(const VirtIOMEMBlocks *blocks);

#endif
