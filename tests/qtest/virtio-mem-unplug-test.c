/*
 * virtio-mem: UNPLUG and UNPLUG ALL
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-bad-ranges.h"

/* --- UNPLUG --- */

static void test_middle(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    vm_assert_unplug(vm, 1, 2, ACK);
    vm_assert_plugged(vm, 2);
    vm_assert_state(vm, 0, 4, MIXED);
    vm_assert_state(vm, 1, 2, UNPLUGGED);
}

static void test_unplugged(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_unplug(vm, 0, 1, ERROR);
    vm_assert_plugged(vm, 0);
}

/*
 *  block     0 1 2 3 4 5
 *  plugged   . . # # . .
 */
static void test_half_plugged(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 2, 2, ACK);
    vm_assert_unplug(vm, 0, 4, ERROR);
    vm_assert_unplug(vm, 2, 4, ERROR);
    vm_assert_unplug(vm, 1, 4, ERROR);
    vm_assert_state(vm, 2, 2, PLUGGED);
    vm_assert_plugged(vm, 2);
}

static void test_bad_ranges(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm) - 1, 1, ACK);
    for (VirtioMemBadKind kind = 0; kind < VM_BAD__MAX; kind++) {
        virtio_mem_expect_errors(vm, VIRTIO_MEM_REQ_UNPLUG, kind);
    }
}

static void test_across_requests(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    vm_assert_plug(vm, 2, 2, ACK);
    vm_assert_unplug(vm, 0, 4, ACK);
    vm_assert_plugged(vm, 0);
}

static void test_below_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 2 * vm->block_size);
    vm_assert_plug(vm, 0, 2, ACK);
    vm_assert_unplug(vm, 0, 1, ACK);
    vm_assert_unplug(vm, 1, 1, ACK);
    vm_assert_plugged(vm, 0);
}

static void test_and_plug_again(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 3, 2, ACK);
    vm_assert_unplug(vm, 3, 2, ACK);
    vm_assert_plug(vm, 3, 2, ACK);
    vm_assert_plugged(vm, 2);
}

static void test_twice(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_unplug(vm, 0, 1, ACK);
    vm_assert_unplug(vm, 0, 1, ERROR);
    vm_assert_plugged(vm, 0);
}

static void test_one_by_one_to_zero(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 32 * vm->block_size);
    vm_assert_plug(vm, 0, 32, ACK);
    virtio_mem_set_requested(vm, 0);
    for (int i = 31; i >= 0; i--) {
        vm_assert_unplug(vm, i, 1, ACK);
        vm_assert_plugged(vm, i);
    }
}

static void test_while_busy(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    virtio_mem_write_pattern(vm, 0, 2, 1);
    virtio_mem_begin_busy(vm);
    vm_assert_unplug(vm, 0, 1, BUSY);
    vm_assert_state(vm, 0, 2, PLUGGED);
    vm_assert_plugged(vm, 2);
    g_assert_true(virtio_mem_check_pattern(vm, 0, 2, 1));
    virtio_mem_end_busy(vm);
    virtio_mem_take_config_irq(vm);
    vm_assert_unplug(vm, 0, 1, ACK);
}

static void test_junk_in_padding(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 16, ACK);
    for (int i = 0; i < 16; i++) {
        uint16_t type = virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_UNPLUG,
                                       .addr = virtio_mem_block_gpa(vm, i),
                                       .nb_blocks = 1,
                                       .junk = g_test_rand_int() | 1).type;

        g_assert_cmpuint(type, ==, VIRTIO_MEM_RESP_ACK);
    }
    vm_assert_plugged(vm, 0);
}

static const VirtioMemOptions small_blocks = {
    .block_size = 1 * MiB,
    .region_size = 128 * GiB,
};

static void test_most_blocks(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 0xffff * vm->block_size);
    vm_assert_plug(vm, 0, 0xffff, ACK);
    vm_assert_unplug(vm, 0, 0xffff, ACK);
    vm_assert_plugged(vm, 0);
}

/* --- UNPLUG ALL --- */

static void test_all_of_nothing(VirtioMemGuest *vm)
{
    vm_assert_unplug_all(vm, ACK);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plugged(vm, 0);
}

static void plug_scattered(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 5, 3, ACK);
    vm_assert_plug(vm, 100, 20, ACK);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm) - 1, 1, ACK);
}

static void test_all_scattered(VirtioMemGuest *vm)
{
    plug_scattered(vm);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plugged(vm, 0);
    vm_assert_state(vm, 0, virtio_mem_usable_blocks(vm), UNPLUGGED);
}

static void test_all_with_junk(VirtioMemGuest *vm)
{
    VmAnswer answer;

    plug_scattered(vm);
    answer = virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_UNPLUG_ALL,
                            .addr = 0xdeadbeefdeadbeef, .nb_blocks = 0xbabe,
                            .junk = 0xff);
    g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    vm_assert_plugged(vm, 0);
}

/* Leave U larger than Q needs; returns U. */
static uint64_t make_surplus(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 8 * GiB);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    return virtio_mem_usable_size(vm);
}

static void test_all_shrinks_usable(VirtioMemGuest *vm)
{
    uint64_t old = make_surplus(vm);
    uint64_t new;

    g_assert_cmphex(old, >=, 8 * GiB);
    vm_assert_unplug_all(vm, ACK);
    new = virtio_mem_usable_size(vm);
    g_assert_cmphex(new, >=, VM_REQUESTED);
    g_assert_cmphex(new, <=, old);
    g_assert_cmphex(new & (vm->block_size - 1), ==, 0);
    g_assert_false(virtio_mem_take_config_irq(vm));
}

/* Not the verb: config space is read before anything else happens. */
static void test_all_is_final_when_answered(VirtioMemGuest *vm)
{
    VmRequest req = { .type = VIRTIO_MEM_REQ_UNPLUG_ALL };
    uint64_t plugged, usable;

    make_surplus(vm);
    vm_assert_plug(vm, 3, 5, ACK);
    virtio_mem_queue_request(vm, &req);
    virtio_mem_kick(vm);
    virtio_mem_wait_used(vm);
    plugged = vm_plugged_size(vm);
    usable = virtio_mem_usable_size(vm);
    g_assert_cmpuint(virtio_mem_read_answer(vm, 0).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    g_assert_cmphex(plugged, ==, 0);
    qtest_clock_step(vm->qts, NANOSECONDS_PER_SECOND);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
}

static void test_all_while_busy(VirtioMemGuest *vm)
{
    uint64_t usable = make_surplus(vm);

    vm_assert_plug(vm, 0, 2, ACK);
    virtio_mem_write_pattern(vm, 0, 2, 1);
    virtio_mem_begin_busy(vm);
    vm_assert_unplug_all(vm, BUSY);
    vm_assert_state(vm, 0, 2, PLUGGED);
    vm_assert_plugged(vm, 2);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
    g_assert_true(virtio_mem_check_pattern(vm, 0, 2, 1));
    virtio_mem_end_busy(vm);
    virtio_mem_take_config_irq(vm);
    vm_assert_unplug_all(vm, ACK);
}

static void test_all_and_plug_again(VirtioMemGuest *vm)
{
    plug_scattered(vm);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plugged(vm, 1);
}

static void test_all_keeps_requested(VirtioMemGuest *vm)
{
    plug_scattered(vm);
    virtio_mem_set_requested(vm, vm->block_size);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plugged(vm, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, vm->block_size);
}

static void test_all_makes_surplus_unusable(VirtioMemGuest *vm)
{
    uint64_t old = make_surplus(vm) / vm->block_size;
    uint64_t new;

    vm_assert_unplug_all(vm, ACK);
    new = virtio_mem_usable_blocks(vm);
    g_assert_cmpuint(new, <, old);
    for (uint64_t i = new; i < old; i += old - 1 - new) {
        vm_assert_plug(vm, i, 1, ERROR);
        g_assert_cmpuint(vm_state(vm, i, 1).type, ==,
                         VIRTIO_MEM_RESP_ERROR);
    }
}

static const VirtioMemTest tests[] = {
    { "T070", "unplug/some-of-many", test_middle },
    { "T071", "unplug/unplugged-block-is-an-error", test_unplugged },
    { "T072", "unplug/mixed-range-is-an-error", test_half_plugged },
    { "T073", "unplug/bad-range-is-an-error", test_bad_ranges },
    { "T074", "unplug/across-earlier-requests", test_across_requests },
    { "T075", "unplug/below-the-requested-size", test_below_requested },
    { "T076", "unplug/then-plug-again", test_and_plug_again },
    { "T077", "unplug/twice-is-an-error", test_twice },
    { "T078", "unplug/one-by-one-to-zero", test_one_by_one_to_zero },
    { "T079", "unplug/while-migrating-is-busy", test_while_busy,
      .fresh = true },
    { "T080", "unplug/padding-is-ignored", test_junk_in_padding },
    { "T081", "unplug/most-blocks-a-request-can-name", test_most_blocks,
      .options = &small_blocks },
    { "T090", "unplug-all/nothing-plugged", test_all_of_nothing },
    { "T091", "unplug-all/scattered-blocks", test_all_scattered },
    { "T092", "unplug-all/only-the-type-counts", test_all_with_junk },
    { "T093", "unplug-all/shrinks-the-usable-region-silently",
      test_all_shrinks_usable },
    { "T094", "unplug-all/sizes-are-final-when-answered",
      test_all_is_final_when_answered },
    { "T095", "unplug-all/while-migrating-is-busy", test_all_while_busy,
      .fresh = true },
    { "T096", "unplug-all/then-plug-again", test_all_and_plug_again },
    { "T097", "unplug-all/keeps-the-requested-size",
      test_all_keeps_requested },
    { "T098", "unplug-all/given-up-blocks-are-an-error",
      test_all_makes_surplus_unusable },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
