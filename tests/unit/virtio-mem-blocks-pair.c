/*
 * virtio-mem's set of plugged blocks beside a naive twin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-blocks-pair.h"

/* --- the twin: one bool per block, and loops --- */

void horrible_fill(HorribleBlocks *horrible, VirtIOMEMRange range,
                   bool plugged)
{
    for (uint64_t i = 0; i < range.nb_blocks; i++) {
        horrible->plugged[range.first + i] = plugged;
    }
}

static uint64_t horrible_count(const HorribleBlocks *horrible,
                               VirtIOMEMRange range)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < range.nb_blocks; i++) {
        count += horrible->plugged[range.first + i];
    }
    return count;
}

VirtIOMEMBlocksState horrible_classify(const HorribleBlocks *horrible,
                                       VirtIOMEMRange range)
{
    const uint64_t count = horrible_count(horrible, range);

    return count == range.nb_blocks ? VIRTIO_MEM_BLOCKS_PLUGGED :
           count == 0 ? VIRTIO_MEM_BLOCKS_UNPLUGGED : VIRTIO_MEM_BLOCKS_MIXED;
}

/* --- both side by side --- */

void pair_init(Pair *pair, uint64_t nb_blocks)
{
    g_assert_cmpuint(nb_blocks, <=, ARRAY_SIZE(pair->horrible.plugged));
    pair->blocks = virtio_mem_blocks_new(nb_blocks);
    pair->horrible = (HorribleBlocks) { .nb_blocks = nb_blocks };
}

void pair_destroy(Pair *pair)
{
    virtio_mem_blocks_free(pair->blocks);
}

void pair_flip(Pair *pair, VirtIOMEMRange range, bool plug)
{
    if (plug) {
        virtio_mem_blocks_set_plugged(pair->blocks, range);
    } else {
        virtio_mem_blocks_set_unplugged(pair->blocks, range);
    }
    horrible_fill(&pair->horrible, range, plug);
}

void pair_unplug_all(Pair *pair)
{
    virtio_mem_blocks_set_all_unplugged(pair->blocks);
    horrible_fill(&pair->horrible, virtio_mem_blocks_all(pair->blocks), false);
}

/* Saving shows all blocks; loading what was saved makes the same set. */
static void pair_check_saved(const Pair *pair)
{
    const HorribleBlocks *horrible = &pair->horrible;
    const uint64_t nb_bits = ROUND_UP(horrible->nb_blocks, BITS_PER_LONG);
    g_autofree unsigned long *saved = bitmap_new(nb_bits);
    g_autofree unsigned long *again = bitmap_new(nb_bits);
    VirtIOMEMBlocks *loaded = virtio_mem_blocks_new(horrible->nb_blocks);

    virtio_mem_blocks_save(pair->blocks, saved);
    for (uint64_t i = 0; i < nb_bits; i++) {
        g_assert_cmpint(test_bit(i, saved), ==,
                        i < horrible->nb_blocks && horrible->plugged[i]);
    }

    g_assert_true(virtio_mem_blocks_load(loaded, saved, horrible->nb_blocks));
    g_assert_true(virtio_mem_blocks_check(loaded));
    virtio_mem_blocks_save(loaded, again);
    g_assert_true(bitmap_equal(saved, again, nb_bits));
    virtio_mem_blocks_free(loaded);
}

void pair_check(const Pair *pair)
{
    const VirtIOMEMRange all = virtio_mem_blocks_all(pair->blocks);

    g_assert_true(virtio_mem_blocks_check(pair->blocks));
    g_assert_cmpuint(virtio_mem_blocks_nb(pair->blocks), ==,
                     pair->horrible.nb_blocks);
    g_assert_cmpuint(virtio_mem_blocks_count_plugged(pair->blocks), ==,
                     horrible_count(&pair->horrible, all));
    pair_check_saved(pair);
}

void pair_check_state(const Pair *pair, VirtIOMEMRange range)
{
    g_assert_cmpint(virtio_mem_blocks_classify(pair->blocks, range), ==,
                    horrible_classify(&pair->horrible, range));
}

/* Runs are maximal, in ascending order and complete. */
static void pair_check_runs_of(const Pair *pair, VirtIOMEMRange within,
                               bool plugged)
{
    const bool *state = pair->horrible.plugged;
    const uint64_t end = within.first + within.nb_blocks;
    uint64_t next = within.first;
    VirtIOMEMRange run;

    VIRTIO_MEM_BLOCKS_FOREACH_RUN(pair->blocks, within, plugged, run) {
        g_assert_cmpuint(run.nb_blocks, >, 0);
        for (; next < run.first; next++) {
            g_assert_cmpint(state[next], ==, !plugged);
        }
        for (; next < run.first + run.nb_blocks; next++) {
            g_assert_cmpint(state[next], ==, plugged);
        }
        g_assert_true(next == end || state[next] != plugged);
    }
    for (; next < end; next++) {
        g_assert_cmpint(state[next], ==, !plugged);
    }
}

void pair_check_runs(const Pair *pair, VirtIOMEMRange within)
{
    pair_check_runs_of(pair, within, true);
    pair_check_runs_of(pair, within, false);
}
