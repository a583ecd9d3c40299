/*
 * virtio-mem: suspend to RAM, and what the machine can do of it
 *
 * The guest sleeps the way its firmware would: by the sleep register of the
 * PC's power management.  Waking resets every device, yet is no system reset:
 * what was plugged stays plugged if the driver was promised so.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-guest-internal.h"
#include "virtio-mem-jobs.h"
#include "virtio-mem-scene.h"

#define PM_BASE         0x600
#define PM1_CONTROL     (PM_BASE + 4)
#define SLP_TYP_S3      (1 << 10)
#define SLP_EN          (1 << 13)

/* PIIX4 is function 3 of slot 1: base in 0x40, enable in 0x80. */
static void suspend_enable_piix4(VirtioMemGuest *vm)
{
    QPCIDevice *pm = qpci_device_find(vm->qs->pcibus, QPCI_DEVFN(1, 3));

    qpci_config_writel(pm, 0x40, PM_BASE);
    qpci_config_writeb(pm, 0x80, 1);
    g_free(pm);
}

/* ICH9's LPC bridge is slot 31: base in 0x40, enable in bit 7 of 0x44. */
static void suspend_enable_ich9(VirtioMemGuest *vm)
{
    QPCIDevice *lpc = qpci_device_find(vm->qs->pcibus, QPCI_DEVFN(31, 0));

    qpci_config_writel(lpc, 0x40, PM_BASE);
    qpci_config_writeb(lpc, 0x44, 0x80);
    g_free(lpc);
}

static void suspend_sleep(VirtioMemGuest *vm)
{
    if (g_str_equal(vm->opts.machine, "q35")) {
        suspend_enable_ich9(vm);
    } else {
        suspend_enable_piix4(vm);
    }
    qtest_outw(vm->qts, PM1_CONTROL, SLP_TYP_S3 | SLP_EN);
    qtest_qmp_eventwait(vm->qts, "SUSPEND");
}

static void suspend_wake(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'system_wakeup' }");
    qtest_qmp_eventwait(vm->qts, "WAKEUP");
}

static void suspend_and_wake(VirtioMemGuest *vm)
{
    virtio_mem_device_reset(vm);
    suspend_sleep(vm);
    suspend_wake(vm);
    virtio_mem_iommu_up(vm);
    virtio_mem_pci_up(vm);
    g_assert_cmpint(virtio_mem_status(vm), ==, 0);
}

static void test_kept(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    g_assert_cmphex(vm->features & VM_BIT(VIRTIO_MEM_F_PERSISTENT_SUSPEND),
                    !=, 0);
    virtio_mem_take_size_events(vm, NULL);
    suspend_and_wake(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_scene_check(vm, scene);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, NULL), ==, 0);
}

/* Even lowered demand must not make the wake-up shrink anything. */
static void test_kept_beyond_requested(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_set_requested(vm, 0);
    suspend_and_wake(vm);
    virtio_mem_restart_driver(vm);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, scene->usable);
    virtio_mem_scene_check_blocks(vm, scene);
}

/* A guest that sleeps is not silent, however long. */
static void test_status(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    suspend_sleep(vm);
    virtio_mem_assert_resize(vm, "waiting", "guest-suspended");
    qtest_clock_step(vm->qts, 60 * NANOSECONDS_PER_SECOND);
    virtio_mem_assert_resize(vm, "waiting", "guest-suspended");
    suspend_wake(vm);
    virtio_mem_iommu_up(vm);
    virtio_mem_pci_up(vm);
    virtio_mem_assert_resize(vm, "waiting", "no-driver");
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

/* Nor does a job's time pass. */
static void test_job(VirtioMemGuest *vm)
{
    virtio_mem_job_start(vm, VM_REQUESTED,
                         ", \"stall-timeout\": 5, \"deadline\": 5");
    suspend_sleep(vm);
    qtest_clock_step(vm->qts, 60 * NANOSECONDS_PER_SECOND);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    suspend_wake(vm);
    virtio_mem_iommu_up(vm);
    virtio_mem_pci_up(vm);
    virtio_mem_restart_driver(vm);
    vm_assert_plug(vm, 0, VM_REQUESTED / vm->block_size, ACK);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_settled(vm, VM_REQUESTED);
}

/* A device that came while the guest slept is served when it is awake. */
static void test_plugged_asleep(VirtioMemGuest *host)
{
    VirtioMemGuest *vm;

    suspend_sleep(host);
    qtest_qmp_device_add(host->qts, "virtio-mem-pci", "vm0",
                         "{ 'memdev': 'vmem0', 'addr': '4', "
                         "'requested-size': 67108864 }");
    suspend_wake(host);
    vm = virtio_mem_guest_attach(host, "vm0", QPCI_DEVFN(4, 0));
    vm_assert_plug(vm, 0, 8, ACK);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

/* Without the promise: everything or nothing, but no mixture. */
static void test_without_promise(VirtioMemGuest *vm)
{
    uint64_t features = virtio_mem_default_features(vm) &
                        ~VM_BIT(VIRTIO_MEM_F_PERSISTENT_SUSPEND);
    g_autoptr(VirtioMemScene) scene = NULL;

    virtio_mem_device_reset(vm);
    g_assert_true(virtio_mem_driver_up(vm, features));
    scene = virtio_mem_scene_make(vm);
    suspend_and_wake(vm);
    g_assert_true(virtio_mem_driver_up(vm, features));
    if (vm_plugged_size(vm)) {
        virtio_mem_scene_check(vm, scene);
    } else {
        vm_assert_state(vm, 0, virtio_mem_usable_blocks(vm), UNPLUGGED);
    }
}

static bool suspend_offered(VirtioMemGuest *vm)
{
    return virtio_mem_offered_features(vm) &
           VM_BIT(VIRTIO_MEM_F_PERSISTENT_SUSPEND);
}

static bool suspend_supported(VirtioMemGuest *vm)
{
    QDict *machine = qtest_qmp_assert_success_ref(
        vm->qts, "{ 'execute': 'query-current-machine' }");
    bool supported = qdict_get_bool(machine, "wakeup-suspend-support");

    qobject_unref(machine);
    return supported;
}

static void test_offered(VirtioMemGuest *vm)
{
    g_assert_true(suspend_supported(vm));
    g_assert_true(suspend_offered(vm));
}

static void test_not_offered(VirtioMemGuest *vm)
{
    g_assert_false(suspend_supported(vm));
    g_assert_false(suspend_offered(vm));
}

static const VirtioMemOptions q35 = { .machine = "q35" };
static const VirtioMemOptions no_acpi = { .machine = "pc,acpi=off" };
static const VirtioMemOptions no_device = { .no_device = true };

static const VirtioMemTest tests[] = {
    { "T187", "suspend/keeps-everything", test_kept },
    { "T187", "suspend/keeps-everything-on-q35", test_kept, &q35,
      .once = true },
    { "T187", "suspend/keeps-more-than-requested",
      test_kept_beyond_requested, .once = true },
    { "T188", "suspend/without-promise-keeps-all-or-nothing",
      test_without_promise, .once = true },
    { "T187", "suspend/device-plugged-meanwhile-is-served",
      test_plugged_asleep, &no_device, .once = true },
    { "", "suspend/is-a-reason-not-to-resize", test_status },
    { "", "suspend/holds-a-job", test_job, .once = true },
    { "T189", "suspend/promised-by-pc", test_offered, .once = true },
    { "T189", "suspend/promised-by-q35", test_offered, &q35, .once = true },
    { "T189", "suspend/not-promised-by-a-machine-that-cannot",
      test_not_offered, &no_acpi, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
