/*
 * virtio-mem: PLUG of what may be plugged, and the limit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-guest.h"

static void test_one_block(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, vm->block_size);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plugged(vm, 1);
}

static void test_all_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, virtio_mem_requested_blocks(vm), ACK);
    g_assert_cmphex(vm_plugged_size(vm), ==, VM_REQUESTED);
}

static void test_beyond_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, virtio_mem_requested_blocks(vm), ACK);
    vm_assert_plug(vm, virtio_mem_requested_blocks(vm), 1, NACK);
    g_assert_cmphex(vm_plugged_size(vm), ==, VM_REQUESTED);
    vm_assert_state(vm, virtio_mem_requested_blocks(vm), 1, UNPLUGGED);
}

static void test_partly_beyond_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * vm->block_size);
    vm_assert_plug(vm, 0, 3, ACK);
    vm_assert_plug(vm, 3, 2, NACK);
    vm_assert_state(vm, 3, 2, UNPLUGGED);
    vm_assert_plugged(vm, 3);
}

static void test_none_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_set_requested(vm, 0);
    g_assert_cmphex(virtio_mem_usable_size(vm), >, 0);
    vm_assert_plug(vm, 0, 1, NACK);
    vm_assert_plugged(vm, 0);
}

static void test_none_usable(VirtioMemGuest *vm)
{
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, 0);
    vm_assert_plug(vm, 0, 1, ERROR);
    vm_assert_plugged(vm, 0);
}

static void test_last_usable(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm) - 1, 1, ACK);
    vm_assert_plugged(vm, 1);
}

static void test_up_to_usable_end(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm) - 7, 7, ACK);
    vm_assert_plugged(vm, 7);
}

/*
 *  block     0 1 2 3 4
 *  plugged   # . # . #
 */
static void test_with_holes(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 2, 1, ACK);
    vm_assert_plug(vm, 4, 1, ACK);
    vm_assert_state(vm, 0, 5, MIXED);
    vm_assert_plugged(vm, 3);
}

static void test_fill_holes(VirtioMemGuest *vm)
{
    test_with_holes(vm);
    vm_assert_plug(vm, 1, 1, ACK);
    vm_assert_plug(vm, 3, 1, ACK);
    vm_assert_state(vm, 0, 5, PLUGGED);
    vm_assert_plugged(vm, 5);
}

/* 65535 blocks of 1 MiB: all that one request can name. */
static const VirtioMemOptions small_blocks = {
    .block_size = 1 * MiB,
    .region_size = 128 * GiB,
};

static void test_most_blocks(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 0xffff * vm->block_size);
    g_assert_cmpuint(virtio_mem_usable_blocks(vm), >=, 0xffff);
    vm_assert_plug(vm, 0, 0xffff, ACK);
    vm_assert_plugged(vm, 0xffff);
}

static void test_junk_in_padding(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < 16; i++) {
        uint16_t type = virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_PLUG,
                                       .addr = virtio_mem_block_gpa(vm, i),
                                       .nb_blocks = 1,
                                       .junk = g_test_rand_int() | 1).type;

        g_assert_cmpuint(type, ==, VIRTIO_MEM_RESP_ACK);
    }
    vm_assert_plugged(vm, 16);
}

/* The answer must not be visible before the size. */
static void test_size_before_answer(VirtioMemGuest *vm)
{
    VmRequest req = { .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr,
                             .nb_blocks = 3 };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_queue_request(vm, &req);
    virtio_mem_kick(vm);
    virtio_mem_wait_used(vm);
    vm_assert_plugged(vm, 3);
    g_assert_cmpuint(virtio_mem_read_answer(vm, 0).type, ==,
                     VIRTIO_MEM_RESP_ACK);
}

static void test_lowered_request(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 8 * vm->block_size);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_set_requested(vm, 2 * vm->block_size);
    vm_assert_plug(vm, 4, 1, NACK);
    virtio_mem_set_requested(vm, 8 * vm->block_size);
    vm_assert_plug(vm, 4, 1, ACK);
    vm_assert_plugged(vm, 5);
}

static void test_random_order(VirtioMemGuest *vm)
{
    uint32_t order[128];

    virtio_mem_set_requested(vm, VM_REQUESTED);
    g_assert_cmpuint(virtio_mem_requested_blocks(vm), ==, ARRAY_SIZE(order));
    for (int i = 0; i < ARRAY_SIZE(order); i++) {
        int j = g_test_rand_int_range(0, i + 1);

        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < ARRAY_SIZE(order); i++) {
        vm_assert_plug(vm, order[i], 1, ACK);
    }
    g_assert_cmphex(vm_plugged_size(vm), ==, VM_REQUESTED);
}

/*
 * Host memory that cannot be had: a file cut off behind the device's back.
 * Populating it then fails as if memory had run out, and works again when the
 * file has its old length.
 */
static void test_no_host_memory(VirtioMemGuest *unused)
{
    g_autofree char *path = NULL;
    g_autofree char *memdev = NULL;
    VirtioMemOptions opts = { .region_size = 1 * GiB, .requested = 1 * GiB,
                              .device = "prealloc=on" };
    VirtioMemGuest *vm;
    int fd = g_file_open_tmp("virtio-mem-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    memdev = g_strdup_printf("memory-backend-file,id=vmem0,size=1G,share=on,"
                             "mem-path=%s", path);
    opts.memdev = memdev;
    vm = virtio_mem_guest_start(&opts);
    vm_assert_plug(vm, 0, 1, ACK);

    g_assert_cmpint(ftruncate(fd, vm->block_size), ==, 0);
    vm_assert_plug(vm, 1, 2, BUSY);
    vm_assert_state(vm, 1, 2, UNPLUGGED);
    vm_assert_plugged(vm, 1);

    g_assert_cmpint(ftruncate(fd, 1 * GiB), ==, 0);
    vm_assert_plug(vm, 1, 2, ACK);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
    close(fd);
    unlink(path);
}

static void test_busy_then_woken(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 1, BUSY);
    vm_assert_plugged(vm, 0);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    g_assert_false(virtio_mem_take_config_irq(vm));
    virtio_mem_end_busy(vm);
    g_assert_true(virtio_mem_take_config_irq(vm));
    vm_assert_plug(vm, 0, 1, ACK);
}

static const VirtioMemTest tests[] = {
    { "T030", "plug/one-block", test_one_block },
    { "T031", "plug/all-that-is-requested", test_all_requested },
    { "T032", "plug/beyond-requested-size-is-nack", test_beyond_requested },
    { "T033", "plug/partly-beyond-requested-size-plugs-nothing",
      test_partly_beyond_requested },
    { "T034", "plug/nothing-requested-is-nack", test_none_requested },
    { "T034", "plug/nothing-usable-is-an-error", test_none_usable },
    { "T035", "plug/last-usable-block", test_last_usable },
    { "T036", "plug/up-to-the-usable-end", test_up_to_usable_end },
    { "T037", "plug/every-second-block", test_with_holes },
    { "T038", "plug/holes-can-be-filled", test_fill_holes },
    { "T039", "plug/most-blocks-a-request-can-name", test_most_blocks,
      .options = &small_blocks },
    { "T040", "plug/padding-is-ignored", test_junk_in_padding },
    { "T041", "plug/size-is-visible-before-the-answer",
      test_size_before_answer },
    { "T042", "plug/lowered-request-is-nack", test_lowered_request },
    { "T043", "plug/any-order", test_random_order },
    { "T044", "plug/no-host-memory-is-busy", test_no_host_memory,
      .no_guest = true },
    { "T045", "plug/guest-is-woken-after-busy", test_busy_then_woken,
      .fresh = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
