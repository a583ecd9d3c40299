/*
 * virtio-mem: PLUG of what must not be plugged
 *
 * All of these leave everything as it was.  ERROR comes before NACK: what
 * the specification makes a MUST, whatever the requested size is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-bad-ranges.h"

/* PLUG of all ranges of @kind, with room for more blocks, and without. */
static void expect_errors(VirtioMemGuest *vm, VirtioMemBadKind kind)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_expect_errors(vm, VIRTIO_MEM_REQ_PLUG, kind);
}

static void test_unaligned(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_UNALIGNED);
}

static void test_no_block(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_EMPTY);
}

static void test_no_block_elsewhere(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_EMPTY_ELSEWHERE);
}

static void test_below_region(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_BELOW);
}

static void test_straddles_start(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_STRADDLES_START);
}

static void test_unusable(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_UNUSABLE);
}

static void test_straddles_usable(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_STRADDLES_USABLE);
    vm_assert_state(vm, virtio_mem_usable_blocks(vm) - 1, 1, UNPLUGGED);
}

static void test_around_end(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_AROUND_END);
}

static void test_top_of_space(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_TOP_OF_SPACE);
}

static void test_wraps_into_region(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_WRAPS_INTO_REGION);
}

static void test_high_bits(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_HIGH_BITS);
}

static void test_too_many(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_TOO_MANY);
}

static void test_swapped(VirtioMemGuest *vm)
{
    expect_errors(vm, VM_BAD_SWAPPED);
}

static void test_twice(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 0, 1, ERROR);
    vm_assert_plugged(vm, 1);
}

/*
 *  block     0 1 2 3 4
 *  plugged   . . # # .
 *            [-----]       [0, 4)
 *                  [-]     [3, 5)
 *              [-]         [1, 3)
 */
static void test_overlap(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 2, 2, ACK);
    vm_assert_plug(vm, 0, 4, ERROR);
    vm_assert_plug(vm, 3, 2, ERROR);
    vm_assert_plug(vm, 1, 2, ERROR);
    vm_assert_state(vm, 0, 2, UNPLUGGED);
    vm_assert_state(vm, 4, 1, UNPLUGGED);
    vm_assert_plugged(vm, 2);
}

static void test_overlap_at_limit(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * vm->block_size);
    vm_assert_plug(vm, 0, 4, ACK);
    vm_assert_plug(vm, 3, 1, ERROR);
    vm_assert_plug(vm, 3, 2, ERROR);
    vm_assert_plugged(vm, 4);
}

static void test_bad_range_at_limit(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, vm->block_size);
    vm_assert_plug(vm, 0, 1, ACK);
    for (VirtioMemBadKind kind = 0; kind < VM_BAD__MAX; kind++) {
        virtio_mem_expect_errors(vm, VIRTIO_MEM_REQ_PLUG, kind);
    }
}

/* --- random requests against a model that is too simple to be wrong --- */

#define NB_RANDOM   10000

typedef struct Model {
    uint64_t nb_usable;
    uint64_t nb_requested;
    uint64_t nb_plugged;
    bool *plugged;
} Model;

/* With 128 bits nothing wraps, so the conditions read like the contract. */
static uint16_t model_plug(Model *model, VirtioMemGuest *vm, uint64_t addr,
                           uint16_t nb)
{
    __uint128_t start = addr, end = start + (__uint128_t)nb * vm->block_size;
    __uint128_t usable_end = (__uint128_t)vm->addr +
                             model->nb_usable * vm->block_size;
    uint64_t first;

    if (start % vm->block_size || !nb || start < vm->addr ||
        end > usable_end) {
        return VIRTIO_MEM_RESP_ERROR;
    }
    first = (addr - vm->addr) / vm->block_size;
    for (uint64_t i = first; i < first + nb; i++) {
        if (model->plugged[i]) {
            return VIRTIO_MEM_RESP_ERROR;
        }
    }
    if (model->nb_plugged + nb > model->nb_requested) {
        return VIRTIO_MEM_RESP_NACK;
    }
    memset(model->plugged + first, true, nb);
    model->nb_plugged += nb;
    return VIRTIO_MEM_RESP_ACK;
}

/* A few blocks or bytes around an edge, or a block somewhere. */
static uint64_t random_addr(VirtioMemGuest *vm)
{
    const uint64_t edges[] = {
        0, 1ULL << 32, 1ULL << 63, vm->addr,
        vm->addr + virtio_mem_usable_size(vm), vm->addr + vm->region_size,
    };
    uint64_t edge = edges[g_test_rand_int_range(0, ARRAY_SIZE(edges))];
    int64_t off = g_test_rand_int_range(-4, 5);

    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        return edge + off;
    case 1:
        return edge + off * (int64_t)vm->block_size;
    case 2:
        return (edge | 1ULL << 63) + off * (int64_t)vm->block_size;
    default:
        return virtio_mem_block_gpa(vm, g_test_rand_int_range(0, 256));
    }
}

static uint16_t random_nb(void)
{
    const uint16_t nb[] = { 0, 1, 1, 1, 2, 2, 3, 4, 127, 128, 0x8000, 0xffff };

    return nb[g_test_rand_int_range(0, ARRAY_SIZE(nb))];
}

static void test_random(VirtioMemGuest *vm)
{
    Model model = {};

    virtio_mem_set_requested(vm, VM_REQUESTED);
    model.nb_usable = virtio_mem_usable_blocks(vm);
    model.nb_requested = virtio_mem_requested_blocks(vm);
    model.plugged = g_new0(bool, model.nb_usable);
    for (int i = 0; i < NB_RANDOM; i++) {
        uint64_t addr = random_addr(vm);
        uint16_t nb = random_nb();
        uint16_t expected = model_plug(&model, vm, addr, nb);
        uint16_t got = virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_PLUG,
                                      .addr = addr, .nb_blocks = nb).type;

        if (got != expected) {
            g_test_message("addr 0x%" PRIx64 " nb %u", addr, nb);
        }
        g_assert_cmpuint(got, ==, expected);
        if (i % 100 == 99) {
            vm_assert_plugged(vm, model.nb_plugged);
            vm_assert_unplug_all(vm, ACK);
            memset(model.plugged, false, model.nb_usable);
            model.nb_plugged = 0;
        }
    }
    g_free(model.plugged);
}

static const VirtioMemTest tests[] = {
    { "T050", "plug/unaligned-address-is-an-error", test_unaligned },
    { "T051", "plug/no-block-is-an-error", test_no_block },
    { "T052", "plug/no-block-elsewhere-is-an-error", test_no_block_elsewhere },
    { "T053", "plug/below-the-region-is-an-error", test_below_region },
    { "T054", "plug/across-the-start-is-an-error", test_straddles_start },
    { "T055", "plug/unusable-block-is-an-error", test_unusable },
    { "T056", "plug/across-the-usable-end-is-an-error",
      test_straddles_usable },
    { "T057", "plug/around-the-region-end-is-an-error", test_around_end },
    { "T058", "plug/top-of-address-space-is-an-error", test_top_of_space },
    { "T059", "plug/wrapping-into-the-region-is-an-error",
      test_wraps_into_region },
    { "T060", "plug/high-address-bits-are-not-ignored", test_high_bits },
    { "T061", "plug/more-blocks-than-usable-is-an-error", test_too_many },
    { "T062", "plug/plugged-block-is-an-error", test_twice },
    { "T063", "plug/overlap-is-an-error-and-plugs-nothing", test_overlap },
    { "T064", "plug/overlap-beats-requested-size", test_overlap_at_limit },
    { "T065", "plug/bad-range-beats-requested-size",
      test_bad_range_at_limit },
    { "T066", "plug/big-endian-is-an-error", test_swapped },
    { "T067", "plug/random-ranges-match-a-model", test_random, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
