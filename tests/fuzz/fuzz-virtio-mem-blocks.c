/*
 * virtio-mem: the set of plugged blocks against a naive twin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "../unit/virtio-mem-blocks-pair.h"
#include "../unit/virtio-mem-fuzz.h"

static VirtIOMEMRange take_range(FuzzInput *input, uint64_t nb_blocks)
{
    const uint64_t first = fuzz_take(input, 1) % nb_blocks;

    return (VirtIOMEMRange) {
        first, 1 + fuzz_take(input, 1) % (nb_blocks - first) };
}

/* Any bits, of which some may be where no block is, or beyond the limit. */
static void load_any(Pair *pair, FuzzInput *input)
{
    const uint64_t nb = pair->horrible.nb_blocks;
    const uint64_t nb_bits = ROUND_UP(nb, BITS_PER_LONG);
    const uint64_t limit = fuzz_take(input, 1) % (nb + 1);
    g_autofree unsigned long *bitmap = bitmap_new(nb_bits);
    bool fits;

    for (uint64_t i = 0; i < nb_bits / BITS_PER_LONG; i++) {
        bitmap[i] = fuzz_take(input, sizeof(bitmap[i]));
    }
    fits = find_next_bit(bitmap, nb_bits, limit) >= nb_bits;
    g_assert_cmpint(virtio_mem_blocks_load(pair->blocks, bitmap, limit), ==,
                    fits);
    for (uint64_t i = 0; fits && i < nb; i++) {
        pair->horrible.plugged[i] = test_bit(i, bitmap);
    }
}

static void act(Pair *pair, FuzzInput *input)
{
    const uint8_t what = fuzz_take(input, 1);
    const VirtIOMEMRange range = take_range(input, pair->horrible.nb_blocks);

    switch (what % 5) {
    case 0:
    case 1:
        if (horrible_classify(&pair->horrible, range) ==
            (what % 5 ? VIRTIO_MEM_BLOCKS_UNPLUGGED
                      : VIRTIO_MEM_BLOCKS_PLUGGED)) {
            pair_flip(pair, range, what % 5);
        }
        break;
    case 2:
        load_any(pair, input);
        break;
    case 3:
        pair_check_state(pair, range);
        pair_check_runs(pair, range);
        break;
    case 4:
        if (what > 240) {
            pair_unplug_all(pair);
        }
    }
    pair_check(pair);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    Pair pair;

    pair_init(&pair, 1 + fuzz_take(&input, 1) % 250);
    while (input.len) {
        act(&pair, &input);
    }
    pair_destroy(&pair);
    return 0;
}
