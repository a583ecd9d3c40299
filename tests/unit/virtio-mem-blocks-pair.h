/*
 * virtio-mem's set of plugged blocks beside a naive twin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_BLOCKS_PAIR_H
#define VIRTIO_MEM_BLOCKS_PAIR_H

#include "../../hw/virtio/virtio-mem-blocks.h"

typedef struct HorribleBlocks {
    uint64_t nb_blocks;
    bool plugged[256];
} HorribleBlocks;

typedef struct Pair {
    VirtIOMEMBlocks *blocks;
    HorribleBlocks horrible;
} Pair;

void horrible_fill(HorribleBlocks *horrible, VirtIOMEMRange range,
                   bool plugged);
VirtIOMEMBlocksState horrible_classify(const HorribleBlocks *horrible,
                                       VirtIOMEMRange range);

void pair_init(Pair *pair, uint64_t nb_blocks);
void pair_destroy(Pair *pair);

/* Change both. */
void pair_flip(Pair *pair, VirtIOMEMRange range, bool plug);
void pair_unplug_all(Pair *pair);

/* What both say of all blocks, of a range, and of the runs in one. */
void pair_check(const Pair *pair);
void pair_check_state(const Pair *pair, VirtIOMEMRange range);
void pair_check_runs(const Pair *pair, VirtIOMEMRange within);

#endif
