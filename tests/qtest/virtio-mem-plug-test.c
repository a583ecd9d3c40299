/*
 * virtio-mem: PLUG
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

static const VirtioMemTest tests[] = {
    { "T030", "plug/one-block", test_one_block },
    { "T030", "plug/one-block2", test_one_block },
    { "T030", "plug/one-block3", test_one_block },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
