/*
 * virtio-mem: the set of plugged blocks against a naive twin
 *
 * The seed of the random programs is that of GLib: it is printed first, and
 * the option --seed repeats them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-blocks-pair.h"

/* Not only the header: one test corrupts what is private. */
#include "hw/virtio/virtio-mem-blocks.c"

#define STEPS_PER_SIZE 80000

/* Both sides of word edges; with one word, two, and more. */
static const uint64_t sizes[] = { 1, 2, 63, 64, 65, 127, 128, 129, 192, 250 };

/* --- named boundaries --- */

static void test_new(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        Pair pair;

        pair_init(&pair, sizes[i]);
        pair_check(&pair);
        pair_check_runs(&pair, virtio_mem_blocks_all(pair.blocks));
        pair_destroy(&pair);
    }
    virtio_mem_blocks_free(NULL);
}

/* Plug @range and nothing else, ask about it and its neighbours, unplug it. */
static void check_range(Pair *pair, VirtIOMEMRange range)
{
    const VirtIOMEMRange all = virtio_mem_blocks_all(pair->blocks);

    pair_flip(pair, range, true);
    pair_check(pair);
    pair_check_state(pair, all);
    pair_check_state(pair, range);
    if (range.first) {
        pair_check_state(pair, (VirtIOMEMRange) { range.first - 1, 2 });
    }
    if (range.first + range.nb_blocks < all.nb_blocks) {
        pair_check_state(pair, (VirtIOMEMRange) { range.first,
                                                  range.nb_blocks + 1 });
    }
    pair_check_runs(pair, all);
    pair_flip(pair, range, false);
    g_assert_cmpuint(virtio_mem_blocks_count_plugged(pair->blocks), ==, 0);
}

static void test_every_range(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes) && sizes[i] <= 129; i++) {
        Pair pair;

        pair_init(&pair, sizes[i]);
        for (uint64_t first = 0; first < sizes[i]; first++) {
            for (uint64_t nb = 1; nb <= sizes[i] - first; nb++) {
                check_range(&pair, (VirtIOMEMRange) { first, nb });
            }
        }
        pair_check(&pair);
        pair_destroy(&pair);
    }
}

/* A set as it is drawn: '#' is plugged, anything else is not. */
static void pair_draw(Pair *pair, const char *drawing)
{
    pair_init(pair, strlen(drawing));
    for (uint64_t i = 0; drawing[i]; i++) {
        if (drawing[i] == '#') {
            pair_flip(pair, (VirtIOMEMRange) { i, 1 }, true);
        }
    }
}

/* The runs in @within as "first+nb_blocks first+nb_blocks ". */
static char *describe_runs(const Pair *pair, VirtIOMEMRange within,
                           bool plugged)
{
    GString *s = g_string_new("");
    VirtIOMEMRange run;

    VIRTIO_MEM_BLOCKS_FOREACH_RUN(pair->blocks, within, plugged, run) {
        g_string_append_printf(s, "%" PRIu64 "+%" PRIu64 " ", run.first,
                               run.nb_blocks);
    }
    return g_string_free(s, false);
}

static void assert_runs(const char *drawing, VirtIOMEMRange within,
                        const char *plugged, const char *unplugged)
{
    g_autofree char *plugged_runs = NULL;
    g_autofree char *unplugged_runs = NULL;
    Pair pair;

    pair_draw(&pair, drawing);
    plugged_runs = describe_runs(&pair, within, true);
    unplugged_runs = describe_runs(&pair, within, false);
    g_assert_cmpstr(plugged_runs, ==, plugged);
    g_assert_cmpstr(unplugged_runs, ==, unplugged);
    pair_destroy(&pair);
}

static void test_runs(void)
{
    assert_runs("#", (VirtIOMEMRange) { 0, 1 }, "0+1 ", "");
    assert_runs("........", (VirtIOMEMRange) { 0, 8 }, "", "0+8 ");
    assert_runs("########", (VirtIOMEMRange) { 0, 8 }, "0+8 ", "");
    assert_runs("#.#.#.#.", (VirtIOMEMRange) { 0, 8 },
                "0+1 2+1 4+1 6+1 ", "1+1 3+1 5+1 7+1 ");
    assert_runs("..##.###", (VirtIOMEMRange) { 0, 8 },
                "2+2 5+3 ", "0+2 4+1 ");
}

static void test_runs_are_cut(void)
{
    assert_runs("..##.###", (VirtIOMEMRange) { 3, 3 }, "3+1 5+1 ", "4+1 ");
    assert_runs("########", (VirtIOMEMRange) { 2, 4 }, "2+4 ", "");
    assert_runs("#......#", (VirtIOMEMRange) { 1, 6 }, "", "1+6 ");
    assert_runs("..##.###", (VirtIOMEMRange) { 7, 1 }, "7+1 ", "");
}

static void test_all_unplugged(void)
{
    Pair pair;

    pair_draw(&pair, "#.##.####.#");
    pair_unplug_all(&pair);
    pair_check(&pair);
    pair_destroy(&pair);
}

/* --- loading --- */

static void assert_load(Pair *pair, uint64_t bit, uint64_t limit, bool expect)
{
    const uint64_t nb_blocks = pair->horrible.nb_blocks;
    g_autofree unsigned long *bitmap = bitmap_new(nb_blocks);

    set_bit(bit, bitmap);
    g_assert_cmpint(virtio_mem_blocks_load(pair->blocks, bitmap, limit), ==,
                    expect);
    if (expect) {
        horrible_fill(&pair->horrible, virtio_mem_blocks_all(pair->blocks),
                      false);
        pair->horrible.plugged[bit] = true;
    }
    pair_check(pair);
}

static void test_load_limit(void)
{
    for (uint64_t limit = 0; limit <= 130; limit++) {
        for (uint64_t bit = 0; bit < 130; bit++) {
            Pair pair;

            pair_init(&pair, 130);
            pair_flip(&pair, (VirtIOMEMRange) { 60, 10 }, true);
            assert_load(&pair, bit, limit, bit < limit);
            pair_destroy(&pair);
        }
    }
}

static void test_load_beyond_last(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        const uint64_t nb_bits = ROUND_UP(sizes[i], BITS_PER_LONG);

        for (uint64_t bit = sizes[i]; bit < nb_bits; bit++) {
            Pair pair;

            pair_init(&pair, sizes[i]);
            pair_flip(&pair, (VirtIOMEMRange) { sizes[i] - 1, 1 }, true);
            assert_load(&pair, bit, sizes[i], false);
            pair_destroy(&pair);
        }
    }
}

static void test_load_nothing(void)
{
    unsigned long nothing[1] = { 0 };
    Pair pair;

    pair_draw(&pair, "..####.#");
    g_assert_true(virtio_mem_blocks_load(pair.blocks, nothing, 0));
    g_assert_cmpuint(virtio_mem_blocks_count_plugged(pair.blocks), ==, 0);
    g_assert_true(virtio_mem_blocks_check(pair.blocks));
    pair_destroy(&pair);
}

/* --- the largest set --- */

static void test_max(void)
{
    const uint64_t last = VIRTIO_MEM_BLOCKS_MAX - 1;
    VirtIOMEMBlocks *blocks = virtio_mem_blocks_new(VIRTIO_MEM_BLOCKS_MAX);
    const VirtIOMEMRange all = virtio_mem_blocks_all(blocks);
    VirtIOMEMRange run = { 1, 0 };

    virtio_mem_blocks_set_plugged(blocks, (VirtIOMEMRange) { 0, 1 });
    virtio_mem_blocks_set_plugged(blocks, (VirtIOMEMRange) { last, 1 });
    g_assert_cmpuint(virtio_mem_blocks_count_plugged(blocks), ==, 2);
    g_assert_cmpint(virtio_mem_blocks_classify(blocks, all), ==,
                    VIRTIO_MEM_BLOCKS_MIXED);
    g_assert_true(virtio_mem_blocks_next_run(blocks, all, true, &run));
    g_assert_true(run.first == last && run.nb_blocks == 1);
    g_assert_false(virtio_mem_blocks_next_run(blocks, all, true, &run));
    g_assert_true(virtio_mem_blocks_check(blocks));
    virtio_mem_blocks_free(blocks);
}

/* --- random programs --- */

/* Short ranges more often than long ones, at any place. */
static VirtIOMEMRange random_range(uint64_t nb_blocks)
{
    const uint64_t first = g_test_rand_int_range(0, nb_blocks);
    const uint64_t max = g_test_rand_int_range(0, nb_blocks - first) + 1;

    return (VirtIOMEMRange) { first, g_test_rand_int_range(0, max) + 1 };
}

/* Flip a run in a random range, or everything once in a while. */
static void random_step(Pair *pair)
{
    const uint64_t nb_blocks = pair->horrible.nb_blocks;
    const VirtIOMEMRange within = random_range(nb_blocks);
    const bool plugged = g_test_rand_bit();
    VirtIOMEMRange run = { within.first, 0 };

    if (g_test_rand_int_range(0, 1000) == 0) {
        pair_unplug_all(pair);
    } else if (virtio_mem_blocks_next_run(pair->blocks, within, plugged,
                                          &run)) {
        pair_flip(pair, run, !plugged);
    }

    pair_check(pair);
    pair_check_state(pair, within);
    pair_check_state(pair, random_range(nb_blocks));
    pair_check_runs(pair, random_range(nb_blocks));
}

static void test_random(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        Pair pair;

        pair_init(&pair, sizes[i]);
        for (unsigned step = 0; step < STEPS_PER_SIZE; step++) {
            random_step(&pair);
        }
        pair_destroy(&pair);
    }
}

/* --- faults are noticed --- */

static void test_fault(void)
{
    Pair pair;

    pair_draw(&pair, "##..#");
    pair.blocks->nb_plugged++;
    g_assert_false(virtio_mem_blocks_check(pair.blocks));
    pair.blocks->nb_plugged--;

    for (unsigned bit = 0; bit < BITS_PER_LONG; bit++) {
        change_bit(bit, pair.blocks->bitmap);
        g_assert_false(virtio_mem_blocks_check(pair.blocks));
        change_bit(bit, pair.blocks->bitmap);
    }

    g_assert_true(virtio_mem_blocks_check(pair.blocks));
    pair_destroy(&pair);
}

/* --- misuse, of which only the device is capable --- */

typedef struct Misuse {
    const char *claim;
    void (*fn)(VirtIOMEMBlocks *blocks, VirtIOMEMRange range);
    VirtIOMEMRange range;
} Misuse;

static void misuse_new(VirtIOMEMBlocks *blocks, VirtIOMEMRange range)
{
    virtio_mem_blocks_free(virtio_mem_blocks_new(range.nb_blocks));
}

static void misuse_classify(VirtIOMEMBlocks *blocks, VirtIOMEMRange range)
{
    virtio_mem_blocks_classify(blocks, range);
}

/* Of a set "##..#". */
static const Misuse misuses[] = {
    { "new-empty", misuse_new, { 0, 0 } },
    { "new-beyond-max", misuse_new, { 0, VIRTIO_MEM_BLOCKS_MAX + 1 } },
    { "plug-plugged", virtio_mem_blocks_set_plugged, { 0, 3 } },
    { "unplug-unplugged", virtio_mem_blocks_set_unplugged, { 0, 3 } },
    { "classify-beyond-last", misuse_classify, { 4, 2 } },
    { "classify-wrapping", misuse_classify, { 2, UINT64_MAX } },
    { "classify-nothing", misuse_classify, { 2, 0 } },
};

static void test_misuse(gconstpointer opaque)
{
    const Misuse *misuse = opaque;

    if (g_test_subprocess()) {
        Pair pair;

        pair_draw(&pair, "##..#");
        misuse->fn(pair.blocks, misuse->range);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*Assertion*failed*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/blocks/new-ones-are-unplugged", test_new);
    g_test_add_func("/virtio-mem/blocks/every-range", test_every_range);
    g_test_add_func("/virtio-mem/blocks/runs-are-maximal", test_runs);
    g_test_add_func("/virtio-mem/blocks/runs-end-with-the-range",
                    test_runs_are_cut);
    g_test_add_func("/virtio-mem/blocks/set-all-unplugged",
                    test_all_unplugged);
    g_test_add_func("/virtio-mem/blocks/load-refuses-bits-at-the-limit",
                    test_load_limit);
    g_test_add_func("/virtio-mem/blocks/load-refuses-bits-beyond-the-last",
                    test_load_beyond_last);
    g_test_add_func("/virtio-mem/blocks/load-of-nothing", test_load_nothing);
    g_test_add_func("/virtio-mem/blocks/largest-set", test_max);
    g_test_add_func("/virtio-mem/blocks/random-programs", test_random);
    g_test_add_func("/virtio-mem/blocks/check-notices-faults", test_fault);
    for (size_t i = 0; i < ARRAY_SIZE(misuses); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-mem/blocks/asserts/%s",
                                                misuses[i].claim);

        g_test_add_data_func(path, &misuses[i], test_misuse);
    }
    return g_test_run();
}
