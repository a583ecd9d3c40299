/*
 * virtio-mem: a resize in mode safe, and what else happens meanwhile
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-safe.h"

#define SECOND NANOSECONDS_PER_SECOND
#define PERIOD_MS 250

/*
 * Longer than a report may be late.  Not much longer, as the machine's timer
 * catches up afterwards, and each tick goes to the test.
 */
#define PAUSE (6 * SECOND)

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

/* From 3 GiB to 0, and a step to 2176 MiB goes on. */
static VirtioMemSafe *begin_step(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 3 * GiB, GiB, 2 * GiB);

    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    return safe;
}

/*
 * And ends, while a report is on its way: that may not know of it, so that one
 * more is asked for.
 */
static void finish_step(VirtioMemSafe *safe)
{
    virtio_mem_safe_await_poll(safe);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
}

/* --- what is refused --- */

static void assert_refused(VirtioMemGuest *vm, const char *property,
                           const char *json, const char *value,
                           const char *limit)
{
    g_autofree char *error = virtio_mem_safe_set(vm, property, json);
    g_autofree char *quoted = g_strdup_printf("'%s'", property);

    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, quoted));
    g_assert_nonnull(strstr(error, value));
    g_assert_nonnull(strstr(error, limit));
}

static void test_without_balloon(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    assert_refused(vm, "resize-mode", "\"safe\"", "'safe'", "balloon");
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
}

/* The balloon may come after the device, so that is said when it counts. */
static const VirtioMemOptions safe_alone = {
    .device = "resize-mode=safe",
    .args = "-object memory-backend-ram,id=mem1,size=1G,reserve=off",
};

static void test_started_without_balloon(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    g_assert_false(virtio_mem_try_requested(vm, "134217728", &error));
    g_assert_nonnull(strstr(error, "'resize-mode' is 'safe'"));
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, 0);
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_set_requested(vm, VM_REQUESTED);
}

/* One that is added later has to find it. */
static void test_added_without_balloon(VirtioMemGuest *vm)
{
    g_autofree char *error = virtio_mem_device_add_error(vm->qts,
        "{ 'driver': 'virtio-mem-pci', 'id': 'vm1', 'memdev': 'mem1',"
        " 'resize-mode': 'safe' }");

    g_assert_nonnull(strstr(error, "'resize-mode' is 'safe', which needs a"));
}

static void test_bad_values(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    assert_refused(vm, "resize-reserve", "1099511627776", "0x10000000000",
                   "all memory");
    assert_refused(vm, "requested-size", "1", "0x1", "'block-size'");
    assert_refused(vm, "requested-size", "137438953472", "0x2000000000",
                   "backend size");
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    g_assert_cmphex(virtio_mem_qom_get(vm, "resize-reserve"), ==, 0);
    virtio_mem_safe_end(safe);
}

/* The guest may still plug: what it is asked for decides. */
static void test_removal(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 128 * MiB, GiB, MiB);
    g_autofree char *error = NULL;

    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_obey(safe);
    safe->said.oom_kills++;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 128 * MiB, "waiting", "guest-out-of-memory");
    error = virtio_mem_take_error(
        qtest_qmp(vm->qts, "{ 'execute': 'device_del', 'arguments': {"
                  " 'id': 'vm0' } }"));
    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, "'asked-size' != '0'"));
    virtio_mem_safe_end(safe);
}

/* --- the guest cannot go on --- */

static void test_stop(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    virtio_mem_safe_assert(safe, 2176 * MiB, "waiting", "guest-stopped");
    qtest_clock_step(vm->qts, PAUSE);
    virtio_mem_safe_assert_no_poll(safe);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* Also when all that is left is to see whether the guest can live with it. */
static void test_stop_at_end(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    virtio_mem_safe_wish(safe, 3 * GiB - 128 * MiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 3 * GiB - 128 * MiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_assert(safe, 3 * GiB - 128 * MiB, "done", NULL);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    qtest_clock_step(vm->qts, PAUSE);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_safe_report(safe, 0);
    safe->said.oom_kills++;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 3 * GiB, "waiting", "guest-out-of-memory");
    virtio_mem_safe_end(safe);
}

static void test_migration_fails(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    virtio_mem_begin_busy(vm);
    virtio_mem_safe_assert(safe, 2176 * MiB, "waiting", "migration");
    qtest_clock_step(vm->qts, PAUSE);
    virtio_mem_end_busy(vm);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, 0);
    finish_step(safe);
    virtio_mem_safe_end(safe);
}

static void test_driver_goes_away(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    virtio_mem_device_reset(vm);
    virtio_mem_safe_assert(safe, 2176 * MiB, "waiting", "no-driver");
    qtest_clock_step(vm->qts, PAUSE);
    virtio_mem_restart_driver(vm);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    finish_step(safe);
    virtio_mem_safe_end(safe);
}

/* --- the guest starts anew, or elsewhere --- */

static void test_reset_of_shrink(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm);

    virtio_mem_balloon_free(safe->balloon);
    virtio_mem_system_reset(vm);
    virtio_mem_safe_assert(safe, 0, "done", NULL);
    virtio_mem_restart_driver(vm);
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert(safe, 0, "done", NULL);
    g_free(safe);
}

/* One that was too much does not become one that ends the guest at its boot. */
static void test_reset_of_growth(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 64 * MiB, 0);

    virtio_mem_safe_wish(safe, 32 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, GiB, "waiting", "growth-limit");
    virtio_mem_balloon_free(safe->balloon);
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, 32 * GiB);
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_take_config_irq(vm);
    g_free(safe);
}

/* What the stream carries is what the guest was asked for. */
static void check_migration(const char *env)
{
    const VirtioMemOptions ours = {
        .region_size = VM_MIGRATE_REGION, .args = VM_BALLOON_ARGS,
    };
    VirtioMemGuest *from = virtio_mem_guest_start(&ours);
    VirtioMemGuest *to = virtio_mem_target_with(env, &ours);
    VirtioMemSafe *safe = begin_step(from);

    virtio_mem_safe_move(safe, 2600 * MiB);
    virtio_mem_balloon_free(safe->balloon);
    virtio_mem_migrate(from, to);
    g_assert_cmphex(virtio_mem_qom_get(from, "asked-size"), ==, 2176 * MiB);
    g_assert_cmphex(virtio_mem_requested_size(to), ==, 2176 * MiB);
    g_assert_cmphex(virtio_mem_qom_get(to, "requested-size"), ==, 2176 * MiB);
    qtest_clock_step(to->qts, 60 * SECOND);
    g_assert_cmphex(virtio_mem_requested_size(to), ==, 2176 * MiB);
    g_free(safe);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_migration(VirtioMemGuest *unused)
{
    check_migration(NULL);
}

static void test_migration_to_stock(VirtioMemGuest *unused)
{
    if (virtio_mem_have_stock()) {
        check_migration(VM_STOCK_BINARY);
    }
}

/* A file that was saved is a backup: the guest and its wish are still here. */
static void test_save_and_continue(VirtioMemGuest *vm)
{
    g_autofree char *path = virtio_mem_temp_path("backup.stream");
    VirtioMemSafe *safe = begin_step(vm);

    virtio_mem_save(vm, path);
    unlink(path);
    virtio_mem_safe_assert(safe, 2176 * MiB, "waiting", "guest-stopped");
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, 0);
    qtest_clock_step(vm->qts, PAUSE);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    finish_step(safe);
    virtio_mem_safe_end(safe);
}

/* --- several devices --- */

/* PIIX4's register that ejects the slots of bus 0, a bit for each. */
#define ACPI_PCI_EJECT 0xae08
#define SECOND_SLOT 5

static const VirtioMemOptions two_devices = {
    .args = VM_BALLOON_ARGS
            " -object memory-backend-ram,id=vmem1,size=4G,reserve=off"
            " -device virtio-mem-pci,id=vm1,memdev=vmem1,block-size=2M,"
            "addr=05.0,resize-mode=safe",
};

/* The second has 1 GiB, which counts as the first one's boot memory. */
static VirtioMemSafe *begin_two(VirtioMemGuest *vm, VirtioMemSafe *second)
{
    VirtioMemGuest *other = virtio_mem_guest_attach(vm, "vm1",
                                                    QPCI_DEVFN(5, 0));
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 2 * GiB, 2 * GiB, 2 * GiB);

    *second = (VirtioMemSafe) { .vm = other, .balloon = safe->balloon };
    virtio_mem_safe_set_mode(other, "plain");
    virtio_mem_set_requested(other, GiB);
    virtio_mem_safe_move(second, GiB);
    safe->boot += GiB;
    virtio_mem_safe_set_mode(other, "safe");
    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_wish(second, 0);
    virtio_mem_safe_report(safe, 0);
    return safe;
}

static void end_two(VirtioMemSafe *safe, VirtioMemSafe *second)
{
    virtio_mem_safe_set_mode(second->vm, "plain");
    virtio_mem_take_config_irq(second->vm);
    virtio_mem_safe_end(safe);
    virtio_mem_guest_stop(second->vm);
}

/* They spend the same available memory, so one goes on at a time. */
static void test_turns(VirtioMemGuest *vm)
{
    VirtioMemSafe second;
    VirtioMemSafe *safe = begin_two(vm, &second);

    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_assert(&second, GiB, "working", NULL);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(&second, GiB, "working", NULL);
    /* The first one's step is over: the second one's turn. */
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(&second, 128 * MiB, "working", NULL);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_obey(&second);
    safe->boot -= 896 * MiB;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 640 * MiB, "working", NULL);
    /* One that cannot go on leaves the turn to the other. */
    safe->used += 900 * MiB;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, GiB, "waiting", "guest-low-memory");
    end_two(safe, &second);
}

/* A step that the guest does not take ends the turn, too. */
static void test_turn_of_stuck(VirtioMemGuest *vm)
{
    VirtioMemSafe second;
    VirtioMemSafe *safe = begin_two(vm, &second);

    for (int s = 0; s < 80; s++) {
        virtio_mem_safe_report(safe, 1000);
    }
    for (int i = 0; i < 3; i++) {
        virtio_mem_safe_report(safe, 4000);
    }
    virtio_mem_safe_assert(safe, GiB, "stalled", "guest-memory-in-use");
    virtio_mem_safe_assert(&second, 0, "working", NULL);
    end_two(safe, &second);
}

/* A guest may eject it unasked: the other one goes on. */
static void test_ejected_in_turn(VirtioMemGuest *vm)
{
    VirtioMemSafe second;
    VirtioMemSafe *safe = begin_two(vm, &second);

    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(&second, 128 * MiB, "working", NULL);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    qtest_outl(vm->qts, ACPI_PCI_EJECT, 1 << SECOND_SLOT);
    qtest_qmp_eventwait(vm->qts, "DEVICE_DELETED");
    virtio_mem_guest_stop(second.vm);
    safe->boot -= GiB;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 640 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* It is only watched any more, and that ends when it leaves. */
static void test_removal_while_watched(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 128 * MiB, GiB, MiB);

    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_obey(safe);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'device_del',"
                             " 'arguments': { 'id': 'vm0' } }");
    safe->said.oom_kills++;
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert_no_poll(safe);
    qtest_clock_step(vm->qts, 5 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    virtio_mem_safe_end(safe);
}

static const VirtioMemTest tests[] = {
    { "", "safe/without-balloon-is-refused", test_without_balloon,
      .once = true },
    { "", "safe/started-without-balloon", test_started_without_balloon,
      &safe_alone, .once = true },
    { "", "safe/added-without-balloon", test_added_without_balloon,
      &safe_alone, .once = true },
    { "", "safe/bad-values-change-nothing", test_bad_values, &with_balloon,
      .once = true },
    { "", "safe/removal-while-something-is-asked", test_removal,
      &with_balloon, .once = true },
    { "", "safe/stands-still-with-the-vm", test_stop, &with_balloon,
      .once = true },
    { "", "safe/stands-still-at-its-end", test_stop_at_end, &with_balloon,
      .once = true },
    { "", "safe/goes-on-after-a-migration-that-failed", test_migration_fails,
      &with_balloon, .once = true },
    { "", "safe/goes-on-after-it-was-saved", test_save_and_continue,
      &with_balloon, .once = true },
    { "", "safe/driver-goes-away", test_driver_goes_away, &with_balloon,
      .once = true },
    { "", "safe/reset-completes-a-shrink", test_reset_of_shrink,
      &with_balloon, .once = true },
    { "", "safe/reset-begins-a-growth-anew", test_reset_of_growth,
      &with_balloon, .once = true },
    { "", "safe/migrates-what-is-asked", test_migration, .no_guest = true },
    { "", "safe/migrates-to-stock", test_migration_to_stock, .no_guest = true },
    { "", "safe/devices-take-turns", test_turns, &two_devices,
      .once = true },
    { "", "safe/turn-of-a-device-that-is-stuck", test_turn_of_stuck,
      &two_devices, .once = true },
    { "", "safe/ejected-in-its-turn", test_ejected_in_turn, &two_devices,
      .once = true },
    { "", "safe/removal-while-watched", test_removal_while_watched,
      &with_balloon, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
