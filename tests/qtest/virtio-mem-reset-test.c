/*
 * virtio-mem: resets of device, queue, bus and machine
 *
 * A device reset (status, FLR, bus reset, D3hot) keeps everything: the
 * crash-dump kernel and every driver that resumes depend on it.  A system
 * reset unplugs everything.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

#define QUEUE_RESET (VIRTIO_PCI_COMMON_Q_RESET)

/* --- device reset --- */

static void test_device_reset(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_device_reset(vm);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, scene->usable);
    g_assert_cmphex(vm_plugged_size(vm), ==, scene->plugged);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, scene->requested);
    virtio_mem_restart_driver(vm);
    virtio_mem_scene_check(vm, scene);
}

/* Growth then less demand: U stays larger than what Q alone would give. */
static void test_device_reset_usable(VirtioMemGuest *vm)
{
    uint64_t usable;

    virtio_mem_set_requested(vm, GiB);
    usable = virtio_mem_usable_size(vm);
    virtio_mem_set_requested(vm, 0);
    virtio_mem_restart_driver(vm);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
}

static void reset_assert_untouched(VirtioMemGuest *vm, uint64_t gpa,
                                   const void *before, size_t size)
{
    g_autofree void *now = g_malloc(size);

    qtest_memread(vm->qts, gpa, now, size);
    g_assert_cmpmem(now, size, before, size);
}

static void test_dropped_requests(VirtioMemGuest *vm)
{
    size_t size = 4 + 8 * vm->ring.opts.size;
    g_autofree void *used = g_malloc(size);
    uint64_t used_gpa = vm->ring.device;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_queue_request(vm, &(VmRequest){
        .type = VIRTIO_MEM_REQ_PLUG,
        .addr = virtio_mem_block_gpa(vm, 1), .nb_blocks = 1,
    });
    qtest_memread(vm->qts, used_gpa, used, size);
    virtio_mem_device_reset(vm);
    virtio_mem_kick_force(vm);
    virtio_mem_let_main_loop_turn(vm);
    reset_assert_untouched(vm, used_gpa, used, size);
    g_assert_true(virtio_mem_is_filled(vm, vm->resp_gpa, 0xa5, 64));
    virtio_mem_restart_driver(vm);
    vm_assert_plugged(vm, 1);
    vm_assert_state(vm, 1, 1, UNPLUGGED);
}

#define PENDING 32

static void reset_queue_plugs(VirtioMemGuest *vm, uint64_t page)
{
    for (int i = 0; i < PENDING; i++) {
        virtio_mem_queue_request(vm, &(VmRequest){
            .type = VIRTIO_MEM_REQ_PLUG,
            .addr = virtio_mem_block_gpa(vm, i), .nb_blocks = 1,
            .req_gpa = page + 64 * i, .resp_gpa = page + 64 * i + 32,
        });
    }
}

/* Everything up to some request is done, the rest is not. */
static void reset_assert_prefix(VirtioMemGuest *vm, unsigned nb_answered)
{
    uint64_t nb = vm_plugged_size(vm) / vm->block_size;

    g_assert_cmpuint(nb, >=, nb_answered);
    g_assert_cmpuint(nb, <=, PENDING);
    if (nb) {
        vm_assert_state(vm, 0, nb, PLUGGED);
    }
    if (nb < PENDING) {
        vm_assert_state(vm, nb, PENDING - nb, UNPLUGGED);
    }
}

static void test_reset_while_pending(VirtioMemGuest *vm)
{
    uint64_t page = guest_alloc(&vm->qs->alloc, 4096);
    uint8_t answers[64 * PENDING];
    unsigned nb_answered = 0;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    reset_queue_plugs(vm, page);
    virtio_mem_kick(vm);
    virtio_mem_device_reset(vm);
    qtest_memread(vm->qts, page, answers, sizeof(answers));
    for (int i = 0; i < PENDING; i++) {
        nb_answered += answers[64 * i + 32] == VIRTIO_MEM_RESP_ACK;
    }
    virtio_mem_let_main_loop_turn(vm);
    reset_assert_untouched(vm, page, answers, sizeof(answers));
    virtio_mem_restart_driver(vm);
    reset_assert_prefix(vm, nb_answered);
}

static void test_requested_during_reset(VirtioMemGuest *vm)
{
    virtio_mem_device_reset(vm);
    virtio_mem_set_requested(vm, 8 * MiB);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 8 * MiB);
    qvirtio_set_acknowledge(&vm->pci->vdev);
    qvirtio_set_driver(&vm->pci->vdev);
    virtio_mem_negotiate(vm, virtio_mem_default_features(vm));
    virtio_mem_queue_up(vm, 0);
    virtio_mem_set_requested(vm, 2 * GiB);
    virtio_mem_driver_ok(vm);
    g_assert_false(virtio_mem_take_config_irq(vm));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 2 * GiB);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, 2 * GiB);
    vm_assert_plug(vm, GiB / vm->block_size, 1, ACK);
}

static void test_many_resets(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);
    uint64_t before = 0;

    for (int i = 0; i < 1000; i++) {
        virtio_mem_restart_driver(vm);
        if (i == 100) {
            before = virtio_mem_host_memory(vm);
        }
    }
    virtio_mem_assert_gain(vm, before, 2 * MiB);
    virtio_mem_scene_check(vm, scene);
}

/* --- resets of the PCI function --- */

static void test_flr(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_flr(vm);
    g_assert_cmpint(virtio_mem_status(vm), ==, 0);
    virtio_mem_restart_driver(vm);
    virtio_mem_scene_check(vm, scene);
}

static void test_bus_reset(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);
    QPCIDevice *port = qpci_device_find(vm->qs->pcibus, QPCI_DEVFN(4, 0));
    uint16_t control = qpci_config_readw(port, PCI_BRIDGE_CONTROL);

    qpci_config_writew(port, PCI_BRIDGE_CONTROL,
                       control | PCI_BRIDGE_CTL_BUS_RESET);
    qpci_config_writew(port, PCI_BRIDGE_CONTROL, control);
    g_free(port);
    virtio_mem_pci_up(vm);
    g_assert_cmpint(virtio_mem_status(vm), ==, 0);
    virtio_mem_restart_driver(vm);
    virtio_mem_scene_check(vm, scene);
}

static uint8_t reset_pm_control(VirtioMemGuest *vm)
{
    uint8_t cap = qpci_find_capability(vm->pci->pdev, PCI_CAP_ID_PM, 0);

    g_assert_cmpuint(cap, !=, 0);
    return cap + PCI_PM_CTRL;
}

static void test_d3hot(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);
    uint8_t reg = reset_pm_control(vm);

    qpci_config_writew(vm->pci->pdev, reg, 3);
    g_assert_cmpuint(qpci_config_readw(vm->pci->pdev, reg) & 3, ==, 3);
    qpci_config_writew(vm->pci->pdev, reg, 0);
    virtio_mem_pci_up(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_scene_check(vm, scene);
}

/* Linux would skip its whole resume if the bit were set. */
static void test_no_soft_reset_bit(VirtioMemGuest *vm)
{
    uint8_t reg = reset_pm_control(vm);

    g_assert_cmphex(qpci_config_readw(vm->pci->pdev, reg) &
                    PCI_PM_CTRL_NO_SOFT_RESET, ==, 0);
}

/* --- queue reset --- */

static void test_queue_reset(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = NULL;
    uint64_t features = virtio_mem_default_features(vm) |
                        VM_BIT(VIRTIO_F_RING_RESET);

    virtio_mem_device_reset(vm);
    g_assert_true(virtio_mem_driver_up(vm, features));
    g_assert_cmphex(vm->features & VM_BIT(VIRTIO_F_RING_RESET), !=, 0);
    scene = virtio_mem_scene_make(vm);
    virtio_mem_queue_request(vm, &(VmRequest){
        .type = VIRTIO_MEM_REQ_UNPLUG_ALL });
    virtio_mem_common_write(vm, QUEUE_RESET, 2, 1);
    g_assert_cmpuint(virtio_mem_common_read(vm, QUEUE_RESET, 2), ==, 0);
    virtio_mem_kick_force(vm);
    g_assert_false(virtio_mem_is_broken(vm));
    g_assert_cmphex(vm_plugged_size(vm), ==, scene->plugged);
    g_assert_true(virtio_mem_is_filled(vm, vm->resp_gpa, 0xa5, 138));
    virtio_mem_ring_free(&vm->ring);
    virtio_mem_queue_up(vm, 16);
    g_assert_cmpuint(vm->ring.opts.size, ==, 16);
    virtio_mem_scene_check(vm, scene);
}

/* --- system reset --- */

static void test_system_reset(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_system_reset(vm);
    g_assert_cmphex(vm_plugged_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, scene->requested);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, scene->requested);
    virtio_mem_restart_driver(vm);
    vm_assert_state(vm, 0, virtio_mem_usable_blocks(vm), UNPLUGGED);
    vm_assert_plug(vm, 0, 1, ACK);
}

/* PC21: usable region again as for growth from requested-size. */
static void test_system_reset_usable(VirtioMemGuest *vm)
{
    uint64_t small;

    virtio_mem_set_requested(vm, 8 * MiB);
    small = virtio_mem_usable_size(vm);
    virtio_mem_set_requested(vm, GiB);
    virtio_mem_set_requested(vm, 8 * MiB);
    g_assert_cmphex(virtio_mem_usable_size(vm), >, small);
    virtio_mem_system_reset(vm);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, small);
}

static void test_survivors(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_begin_busy(vm);
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    g_assert_cmphex(vm_plugged_size(vm), ==, scene->plugged);
    virtio_mem_scene_check_blocks(vm, scene);
    vm_assert_unplug_all(vm, BUSY);
    virtio_mem_end_busy(vm);
    virtio_mem_wait_config_irq(vm);
    virtio_mem_restart_driver(vm);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plugged(vm, 0);
}

/* RAM that was not written to reads as zero; anything else is old data. */
static void test_no_old_data(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 8, ACK);
    virtio_mem_fill(vm, vm->addr, 0xc3, 8 * vm->block_size);
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    vm_assert_plug(vm, 0, 8, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 8, 0));
}

/* The monitor waits meanwhile, so it is done as fast as UNPLUG ALL. */
static void test_system_reset_threads(VirtioMemGuest *unused)
{
    g_autofree char *path = virtio_mem_temp_path("work");
    g_autofree char *args = g_strdup_printf("-trace virtio_mem_work_begin "
                                            "-D %s", path);
    const VirtioMemOptions opts = { .device = "prealloc-threads=2",
                                    .args = args };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);
    g_autofree char *expected = g_strdup_printf(
        "virtio_mem_work_begin size=0x%" PRIx64 " nb_threads=%u away=0",
        (uint64_t)VM_REGION, MIN(2, g_get_num_processors()));
    g_autofree char *before = NULL, *log = NULL;
    gsize len;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, VM_REQUESTED / VM_BLOCK, ACK);
    g_assert_true(g_file_get_contents(path, &before, &len, NULL));
    virtio_mem_system_reset(vm);
    g_assert_true(g_file_get_contents(path, &log, NULL, NULL));
    g_test_message("%s", log + len);
    g_assert_nonnull(strstr(log + len, expected));
    virtio_mem_guest_stop(vm);
}

static void test_system_reset_heals(VirtioMemGuest *vm)
{
    VirtioMemSegment half_request = {
        .addr = virtio_mem_dma(vm, vm->req_gpa), .len = 8,
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_add_chain(vm, &half_request, 1);
    virtio_mem_kick(vm);
    g_assert_true(virtio_mem_is_broken(vm));
    g_assert_true(virtio_mem_take_config_irq(vm));
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    g_assert_false(virtio_mem_is_broken(vm));
    vm_assert_plugged(vm, 0);
    vm_assert_plug(vm, 0, 4, ACK);
}

static const VirtioMemOptions pcie = { .pcie = true };
static const VirtioMemOptions shared = {
    .memdev = "memory-backend-memfd,id=vmem0,share=on,reserve=off,size=4G",
};

static const VirtioMemTest tests[] = {
    { "T180", "reset/device-reset-keeps-everything", test_device_reset },
    { "T180", "reset/device-reset-keeps-the-usable-region",
      test_device_reset_usable, .once = true },
    { "T181", "reset/drops-requests-that-were-not-kicked",
      test_dropped_requests },
    { "T182", "reset/while-requests-are-pending", test_reset_while_pending },
    { "T191", "reset/requested-size-changes-during-it",
      test_requested_during_reset },
    { "T192", "reset/many-of-them", test_many_resets, .once = true },
    { "T183", "reset/function-level-keeps-everything", test_flr, &pcie,
      .once = true },
    { "T183", "reset/secondary-bus-keeps-everything", test_bus_reset, &pcie,
      .once = true },
    { "T183", "reset/d3hot-keeps-everything", test_d3hot, &pcie,
      .once = true },
    { "T195", "reset/no-soft-reset-is-not-advertised", test_no_soft_reset_bit,
      &pcie, .once = true },
    { "T190", "queue-reset/drops-requests-and-keeps-blocks",
      test_queue_reset },
    { "T184", "system-reset/unplugs-everything", test_system_reset },
    { "T184", "system-reset/shrinks-the-usable-region",
      test_system_reset_usable, .once = true },
    { "T185", "system-reset/survivors-are-reported", test_survivors,
      .once = true },
    { "T186", "system-reset/leaves-no-old-data", test_no_old_data,
      .once = true },
    { "T186", "system-reset/leaves-no-old-data-in-memfd", test_no_old_data,
      &shared, .once = true },
    { "T184", "system-reset/uses-several-threads", test_system_reset_threads,
      .no_guest = true },
    { "T193", "system-reset/heals-a-broken-device",
      test_system_reset_heals },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
