/*
 * virtio-mem: what happens while a job resizes the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-jobs.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-snapshots.h"

#define SECOND NANOSECONDS_PER_SECOND
#define PERIOD_MS 250

/* PIIX4's register that ejects the slots of bus 0, a bit for each. */
#define ACPI_PCI_EJECT 0xae08
#define SLOT 4

#define SAFE ", \"mode\": \"safe\""

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

static const VirtioMemOptions two_devices = {
    .args = VM_BALLOON_ARGS
            " -object memory-backend-ram,id=mem1,size=4G,reserve=off"
            " -device virtio-mem-pci,id=vm1,memdev=mem1,addr=05.0",
};

static void test_stop(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 5, \"deadline\": 5");
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    qtest_clock_step(vm->qts, 6 * SECOND);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_end(safe);
}

static void test_migration_fails(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 5, \"deadline\": 5");
    virtio_mem_begin_busy(vm);
    virtio_mem_assert_resize(vm, "waiting", "migration");
    qtest_clock_step(vm->qts, 20 * SECOND);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    virtio_mem_end_busy(vm);
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_end(safe);
}

/* The guest runs on, and works on the resize when it is over. */
static void test_background_snapshot(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe;

    if (!virtio_mem_migrate_can(vm, "background-snapshot")) {
        return;
    }
    safe = virtio_mem_job_begin(vm);
    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 5, \"deadline\": 5");
    virtio_mem_begin_busy(vm);
    qtest_qmp_eventwait(vm->qts, "RESUME");
    virtio_mem_assert_resize(vm, "waiting", "migration");
    qtest_clock_step(vm->qts, 6 * SECOND);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(vm, "completed");
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_settled(vm, 0);
    virtio_mem_job_end(safe);
}

static void test_savevm(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_job_start(vm, 0, "");
    virtio_mem_safe_move(safe, GiB);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    g_assert_true(virtio_mem_job_is(vm, "running"));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_end(safe);
}

/* The loaded state wins. */
static void test_loadvm(VirtioMemGuest *vm)
{
    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    virtio_mem_job_start(vm, 128 * MiB, "");
    virtio_mem_snapshot_do(vm, "snapshot-load");
    virtio_mem_job_await_end(vm, "superseded");
    virtio_mem_job_assert_settled(vm, 0);
    virtio_mem_take_config_irq(vm);
}

/* It unplugs all at first, which is not what the job has achieved. */
static void test_loadvm_of_shrink(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    virtio_mem_job_start(vm, 0, "");
    virtio_mem_snapshot_do(vm, "snapshot-load");
    virtio_mem_job_await_end(vm, "superseded");
    virtio_mem_job_assert_settled(vm, 2 * GiB);
    virtio_mem_job_end(safe);
}

static void test_reset(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, "");
    virtio_mem_system_reset(vm);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_restart_driver(vm);
    virtio_mem_job_assert_settled(vm, 0);
    virtio_mem_job_end(safe);
}

static void test_reset_of_growth(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 3 * GiB, "");
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    g_assert_cmphex(vm_plugged_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 3 * GiB);
    virtio_mem_safe_move(safe, 3 * GiB);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_settled(vm, 3 * GiB);
    virtio_mem_job_end(safe);
}

/* It may come back, but the job does not wait for ever. */
static void test_driver_goes_away(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 5");
    virtio_mem_device_reset(vm);
    qtest_clock_step(vm->qts, 4 * SECOND);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    virtio_mem_restart_driver(vm);
    virtio_mem_safe_move(safe, GiB);
    virtio_mem_device_reset(vm);
    qtest_clock_step(vm->qts, 6 * SECOND);
    virtio_mem_job_await_end(vm, "no-driver");
    virtio_mem_restart_driver(vm);
    virtio_mem_job_assert_settled(vm, GiB);
    virtio_mem_job_end(safe);
}

static char *remove_device(VirtioMemGuest *vm)
{
    return virtio_mem_take_error(
        qtest_qmp(vm->qts, "{ 'execute': 'device_del', 'arguments': {"
                  " 'id': 'vm0' } }"));
}

static void test_removal(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 0");
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_start(vm, 128 * MiB, "");
    virtio_mem_job_pause(vm);
    error = remove_device(vm);
    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, "resized by job 'vm0'"));
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_take_config_irq(vm);
}

static void test_start_after_removal(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    g_assert_null(remove_device(vm));
    error = virtio_mem_job_try(vm, vm->id, 128 * MiB, "");
    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, "'size' cannot be changed if the device is"
                            " in the process of unplug"));
    g_assert_null(virtio_mem_find_job(vm, vm->id));
}

/* A guest may eject the device unasked. */
static void test_ejected(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(&with_balloon);

    virtio_mem_job_start(vm, 128 * MiB, "");
    virtio_mem_take_config_irq(vm);
    qtest_outl(vm->qts, ACPI_PCI_EJECT, 1 << SLOT);
    qtest_qmp_eventwait(vm->qts, "DEVICE_DELETED");
    virtio_mem_job_await_end(vm, "'vm0' is gone");
    virtio_mem_guest_stop(vm);
}

/* Each of two has its own; what they shrink is one guest's. */
static void test_two(VirtioMemGuest *vm)
{
    VirtioMemGuest *other = virtio_mem_guest_attach(vm, "vm1",
                                                    QPCI_DEVFN(5, 0));
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);
    VirtioMemSafe second = { .vm = other };
    g_autofree char *error = NULL;

    virtio_mem_set_requested(other, GiB);
    virtio_mem_safe_move(&second, GiB);
    safe->boot += 2 * GiB;
    virtio_mem_job_start(vm, 0, SAFE);
    error = virtio_mem_job_try(vm, "vm1", 0, SAFE);
    g_assert_nonnull(strstr(error, "Job ID 'vm0' already in use"));
    g_assert_cmphex(virtio_mem_requested_size(other), ==, GiB);
    virtio_mem_job_start(other, 0, SAFE);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_assert(&second, GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(&second, 128 * MiB, "working", NULL);
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_job_assert_settled(vm, GiB);
    g_assert_true(virtio_mem_job_is(other, "running"));
    safe->boot -= 896 * MiB;
    virtio_mem_safe_obey(&second);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(&second, 0, "working", NULL);
    virtio_mem_safe_obey(&second);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_report(safe, 2000);
    virtio_mem_job_await_end(other, "");
    virtio_mem_job_assert_settled(other, 0);
    virtio_mem_guest_stop(other);
    virtio_mem_job_end(safe);
}

/* While it waits for its turn, a job is not idle. */
static void test_waits_for_turn(VirtioMemGuest *vm)
{
    VirtioMemGuest *other = virtio_mem_guest_attach(vm, "vm1",
                                                    QPCI_DEVFN(5, 0));
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);
    VirtioMemSafe second = { .vm = other };

    virtio_mem_set_requested(other, GiB);
    virtio_mem_safe_move(&second, GiB);
    safe->boot += 2 * GiB;
    virtio_mem_job_start(vm, 0, SAFE ", \"stall-timeout\": 0");
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_job_start(other, 0, SAFE ", \"stall-timeout\": 10");
    for (int s = 0; s < 15; s++) {
        virtio_mem_safe_report(safe, 1000);
    }
    g_assert_true(virtio_mem_job_is(other, "running"));
    virtio_mem_safe_obey(safe);
    for (int s = 0; s < 9; s++) {
        virtio_mem_safe_report(safe, 1000);
    }
    virtio_mem_safe_assert(&second, 128 * MiB, "working", NULL);
    g_assert_true(virtio_mem_job_is(other, "running"));
    virtio_mem_safe_report(safe, 1000);
    virtio_mem_safe_report(safe, 1000);
    virtio_mem_job_await_end(other, "guest-silent");
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_guest_stop(other);
    virtio_mem_job_end(safe);
}

/* Elsewhere, nothing is asked but what was asked here; the job ends here. */
static void test_migrated(VirtioMemGuest *unused)
{
    const VirtioMemOptions ours = { .region_size = VM_MIGRATE_REGION };
    VirtioMemGuest *from = virtio_mem_guest_start(&ours);
    VirtioMemGuest *to = virtio_mem_target_with(NULL, &ours);

    virtio_mem_job_start(from, 128 * MiB, "");
    virtio_mem_take_config_irq(from);
    virtio_mem_migrate(from, to);
    virtio_mem_job_await_end(from, "migrated");
    g_assert_cmphex(virtio_mem_qom_get(to, "requested-size"), ==, 128 * MiB);
    g_assert_null(virtio_mem_find_job(to, to->id));
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* The same as soon as the guest runs there, whatever becomes of the rest. */
static void test_postcopy(VirtioMemGuest *unused)
{
    const VirtioMemOptions ours = { .region_size = VM_MIGRATE_REGION };
    VirtioMemGuest *from = virtio_mem_guest_start(&ours);
    VirtioMemGuest *to = virtio_mem_target_with(NULL, &ours);
    g_autofree char *path = virtio_mem_temp_path("job.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    if (virtio_mem_migrate_can(to, "postcopy-ram") &&
        virtio_mem_migrate_can(from, "postcopy-ram")) {
        migrate_set_parameter_int(from->qts, "max-postcopy-bandwidth",
                                  64 * KiB);
        virtio_mem_job_start(from, 128 * MiB, "");
        virtio_mem_take_config_irq(from);
        virtio_mem_migrate_listen(to, uri);
        virtio_mem_migrate_hold(from, uri);
        g_assert_true(virtio_mem_job_is(from, "running"));
        qtest_qmp_assert_success(from->qts,
                                 "{ 'execute': 'migrate-start-postcopy' }");
        qtest_qmp_eventwait(to->qts, "RESUME");
        virtio_mem_job_await_end(from, "migrated");
        virtio_mem_take_over(to, from);
        g_assert_cmphex(virtio_mem_qom_get(to, "requested-size"), ==,
                        128 * MiB);
        g_assert_null(virtio_mem_find_job(to, to->id));
        migrate_set_parameter_int(from->qts, "max-postcopy-bandwidth", GiB);
        virtio_mem_migrate_wait(from, "completed");
        virtio_mem_migrate_wait(to, "completed");
        virtio_mem_take_config_irq(to);
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* QEMU ends, and does not wait for the guest. */
static void test_quit(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(&with_balloon);

    virtio_mem_job_start(vm, 128 * MiB, ", \"stall-timeout\": 0");
    virtio_mem_take_config_irq(vm);
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "", "job/two-devices", test_two, &two_devices, .once = true },
    { "", "job/waits-for-its-turn", test_waits_for_turn, &two_devices,
      .once = true },
    { "", "job/stands-still-with-the-vm", test_stop, .once = true },
    { "", "job/migration-that-fails", test_migration_fails, .once = true },
    { "", "job/background-snapshot", test_background_snapshot,
      .once = true },
    { "", "job/savevm", test_savevm, .once = true, .fresh = true },
    { "", "job/loadvm", test_loadvm, .once = true, .fresh = true },
    { "", "job/loadvm-of-a-shrink", test_loadvm_of_shrink, .once = true,
      .fresh = true },
    { "", "job/reset-completes-a-shrink", test_reset, .once = true },
    { "", "job/reset-lets-a-growth-go-on", test_reset_of_growth,
      .once = true },
    { "", "job/driver-goes-away", test_driver_goes_away, .once = true },
    { "", "job/removal-is-refused", test_removal, .once = true },
    { "", "job/not-after-removal", test_start_after_removal, .once = true },
    { "", "job/ejected", test_ejected, .no_guest = true },
    { "", "job/migrated", test_migrated, .no_guest = true },
    { "", "job/postcopy", test_postcopy, .no_guest = true },
    { "", "job/quit", test_quit, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
