/*
 * virtio-mem: STATE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-bad-ranges.h"

static void test_none_all_some(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_state(vm, 0, 8, UNPLUGGED);
    vm_assert_plug(vm, 0, 8, ACK);
    vm_assert_state(vm, 0, 8, PLUGGED);
    vm_assert_unplug(vm, 2, 3, ACK);
    vm_assert_state(vm, 0, 8, MIXED);
}

/* In 8 blocks of one kind, the first, a middle or the last is different. */
static void test_one_differs(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < 8; i++) {
        vm_assert_plug(vm, i, 1, ACK);
        vm_assert_state(vm, 0, 8, MIXED);
        vm_assert_unplug(vm, i, 1, ACK);
    }
    vm_assert_plug(vm, 0, 8, ACK);
    for (int i = 0; i < 8; i++) {
        vm_assert_unplug(vm, i, 1, ACK);
        vm_assert_state(vm, 0, 8, MIXED);
        vm_assert_plug(vm, i, 1, ACK);
    }
}

/* Plug every usable block with a chance of one in @n; returns the bitmap. */
static unsigned long *plug_randomly(VirtioMemGuest *vm, int n)
{
    uint64_t nb = virtio_mem_usable_blocks(vm);
    uint64_t left = virtio_mem_requested_blocks(vm);
    unsigned long *bitmap = bitmap_new(nb);

    for (uint64_t i = 0; i < nb && left > 0; i++) {
        if (g_test_rand_int_range(0, n) == 0) {
            vm_assert_plug(vm, i, 1, ACK);
            set_bit(i, bitmap);
            left--;
        }
    }
    return bitmap;
}

static bool is_plugged(VirtioMemGuest *vm, uint64_t block)
{
    VmAnswer answer = vm_state(vm, block, 1);

    g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    g_assert_cmpuint(answer.state, !=, VIRTIO_MEM_STATE_MIXED);
    return answer.state == VIRTIO_MEM_STATE_PLUGGED;
}

static void test_each_block(VirtioMemGuest *vm)
{
    g_autofree unsigned long *bitmap = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    bitmap = plug_randomly(vm, 2);
    for (uint64_t i = 0; i < virtio_mem_usable_blocks(vm); i++) {
        g_assert_cmpint(is_plugged(vm, i), ==, test_bit(i, bitmap));
    }
}

/* That the state field is 0 then is checked with every answer. */
static void test_bad_ranges(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    for (VirtioMemBadKind kind = 0; kind < VM_BAD__MAX; kind++) {
        virtio_mem_expect_errors(vm, VIRTIO_MEM_REQ_STATE, kind);
    }
}

static const VirtioMemOptions small_blocks = {
    .block_size = 1 * MiB,
    .region_size = 128 * GiB,
};

static void test_most_blocks(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 0xffff * vm->block_size);
    vm_assert_state(vm, 0, 0xffff, UNPLUGGED);
    vm_assert_plug(vm, 0xfffe, 1, ACK);
    vm_assert_state(vm, 0, 0xffff, MIXED);
    vm_assert_plug(vm, 0, 0xfffe, ACK);
    vm_assert_state(vm, 0, 0xffff, PLUGGED);
}

static void test_while_busy(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 2, 1, BUSY);
    vm_assert_state(vm, 0, 2, PLUGGED);
    vm_assert_state(vm, 0, 3, MIXED);
    vm_assert_state(vm, 2, 1, UNPLUGGED);
    virtio_mem_end_busy(vm);
    virtio_mem_take_config_irq(vm);
}

static void test_changes_nothing(VirtioMemGuest *vm)
{
    struct virtio_mem_config before, after;
    uint8_t generation;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_write_pattern(vm, 0, 4, 9);
    for (int i = 0; i < sizeof(before); i++) {
        ((uint8_t *)&before)[i] = virtio_mem_config_read(vm, i, 1);
    }
    generation = virtio_mem_config_generation(vm);
    for (int i = 0; i < 100; i++) {
        vm_state(vm, g_test_rand_int_range(0, 256),
                 g_test_rand_int_range(0, 16));
    }
    g_assert_cmpuint(virtio_mem_config_generation(vm), ==, generation);
    for (int i = 0; i < sizeof(after); i++) {
        ((uint8_t *)&after)[i] = virtio_mem_config_read(vm, i, 1);
    }
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
    g_assert_true(virtio_mem_check_pattern(vm, 0, 4, 9));
    g_assert_false(virtio_mem_take_config_irq(vm));
}

static void test_windows_walk(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int n = 2; n <= 64; n *= 4) {
        g_autofree unsigned long *model = plug_randomly(vm, n);
        g_autofree unsigned long *read = NULL;
        uint64_t nb;

        read = virtio_mem_read_bitmap(vm, &nb);
        g_assert_cmpuint(nb, ==, virtio_mem_usable_blocks(vm));
        g_assert_true(bitmap_equal(model, read, nb));
        vm_assert_unplug_all(vm, ACK);
    }
}

/* A crash kernel: resets, asks for sections of 128 MiB, then each block. */
static void test_linux_crash_walk(VirtioMemGuest *vm)
{
    const uint64_t section = 128 * MiB / VM_BLOCK;
    g_autofree unsigned long *model = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    model = plug_randomly(vm, 3);
    virtio_mem_restart_driver(vm);
    for (uint64_t i = 0; i < virtio_mem_usable_blocks(vm); i += section) {
        uint64_t nb = MIN(section, virtio_mem_usable_blocks(vm) - i);

        g_assert_cmpuint(vm_state(vm, i, nb).type, ==,
                         VIRTIO_MEM_RESP_ACK);
    }
    for (uint64_t i = 0; i < virtio_mem_usable_blocks(vm); i++) {
        g_assert_cmpint(is_plugged(vm, i), ==, test_bit(i, model));
    }
}

static void test_junk_in_padding(VirtioMemGuest *vm)
{
    VmRequest req = { .type = VIRTIO_MEM_REQ_STATE, .nb_blocks = 1,
                             .addr = virtio_mem_block_gpa(vm, 1) };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 1, 1, ACK);
    for (int i = 0; i < 16; i++) {
        VmAnswer answer;

        req.junk = g_test_rand_int() | 1;
        answer = virtio_mem_request(vm, &req);
        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
        g_assert_cmpuint(answer.state, ==, VIRTIO_MEM_STATE_PLUGGED);
    }
}

/* A state left over from a STATE must not leak into other answers. */
static void test_field_is_zero_elsewhere(VirtioMemGuest *vm)
{
    VmRequest req = { .nb_blocks = 1, .addr = vm->addr };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    req.type = VIRTIO_MEM_REQ_PLUG;
    g_assert_cmpuint(virtio_mem_request(vm, &req).state, ==, 0);
    vm_assert_state(vm, 0, 2, MIXED);
    req.type = VIRTIO_MEM_REQ_UNPLUG;
    g_assert_cmpuint(virtio_mem_request(vm, &req).state, ==, 0);
    vm_assert_state(vm, 0, 2, UNPLUGGED);
    g_assert_cmpuint(virtio_mem_request(vm, &req).state, ==, 0);
}

static const VirtioMemTest tests[] = {
    { "T100", "state/none-all-some", test_none_all_some },
    { "T101", "state/one-different-block-is-mixed", test_one_differs },
    { "T102", "state/one-block-is-never-mixed", test_each_block },
    { "T103", "state/bad-range-is-an-error", test_bad_ranges },
    { "T104", "state/most-blocks-a-request-can-name", test_most_blocks,
      .options = &small_blocks },
    { "T105", "state/while-migrating-is-never-busy", test_while_busy,
      .fresh = true },
    { "T106", "state/changes-nothing", test_changes_nothing },
    { "T107", "state/binary-split-finds-the-bitmap", test_windows_walk,
      .once = true },
    { "T108", "state/crash-kernel-finds-the-bitmap", test_linux_crash_walk },
    { "T109", "state/padding-is-ignored", test_junk_in_padding },
    { "T109", "state/field-is-zero-in-other-answers",
      test_field_is_zero_elsewhere },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
