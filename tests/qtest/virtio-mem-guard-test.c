/*
 * virtio-mem: unplugged memory is out of reach, whoever tries
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include <pwd.h>
#include "virtio-mem-host-memory.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"
#include "virtio-mem-snapshots.h"

#define ACCESS_EVENT "VIRTIO_MEM_UNPLUGGED_ACCESS"
#define EVENT_PERIOD_NS 1000000000LL

/* A machine that runs, because nothing in it does. */
static const VirtioMemOptions stop = {
    .device = "protect-unplugged=on,unplugged-access=stop",
};
static const VirtioMemOptions on = { .device = "protect-unplugged=on" };
static const VirtioMemOptions small = {
    .region_size = VM_MIGRATE_REGION, .device = "protect-unplugged=on",
};
static const VirtioMemOptions memfd = {
    .memdev = "memory-backend-memfd,id=vmem0,size=8G",
    .device = "protect-unplugged=on", .region_size = 8 * GiB,
};
static const VirtioMemOptions memslots = {
    .device = "protect-unplugged=on,dynamic-memslots=on",
};
static const VirtioMemOptions no_device = { .no_device = true };

/* --- what the guest sees --- */

static void test_absorbed(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 2, 1, ACK);
    virtio_mem_write_pattern(vm, 0, 1, 1);
    virtio_mem_write_pattern(vm, 2, 1, 2);

    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 1), 0x66, VM_BLOCK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 3, 4, 0));

    g_assert_true(virtio_mem_check_pattern(vm, 0, 1, 1));
    g_assert_true(virtio_mem_check_pattern(vm, 2, 1, 2));
    vm_assert_plugged(vm, 2);
    vm_assert_state(vm, 1, 1, UNPLUGGED);
}

static void test_new_blocks(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned i = 0; i < 8; i++) {
        virtio_mem_fill(vm, virtio_mem_block_gpa(vm, i), 0x66, 4096);
        vm_assert_plug(vm, i, 1, ACK);
        g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, i), 0,
                                           4096));
        virtio_mem_write_pattern(vm, i, 1, i);
    }
    for (unsigned i = 0; i < 8; i++) {
        g_assert_true(virtio_mem_check_pattern(vm, i, 1, i));
    }
    vm_assert_unplug_all(vm, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 8, 0));
}

/* P-3: what was never plugged needs no discard to be gone. */
static void test_reset(VirtioMemGuest *vm)
{
    const uint64_t gpa = virtio_mem_block_gpa(vm, 5);

    virtio_mem_fill(vm, gpa, 0x66, 8);
    g_assert_true(virtio_mem_is_filled(vm, gpa, 0x66, 8));
    virtio_mem_system_reset(vm);
    g_assert_true(virtio_mem_is_filled(vm, gpa, 0, 8));
    virtio_mem_driver_up(vm, virtio_mem_default_features(vm));
}

static void assert_saves_zeros(VirtioMemGuest *vm, const char *command)
{
    g_autofree char *path = virtio_mem_temp_path(command);
    g_autofree char *saved = NULL;
    gsize size;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': %s, 'arguments':"
                             " { 'val': %" PRIu64 ", 'size': %u,"
                             " 'filename': %s } }", command, vm->addr,
                             (unsigned)(16 * MiB), path);
    g_assert_true(g_file_get_contents(path, &saved, &size, NULL));
    g_assert_cmpuint(size, ==, 16 * MiB);
    g_assert_true(buffer_is_zero(saved, size));
}

/* Without paging, virtual addresses (memsave) are physical ones. */
static void test_monitor(VirtioMemGuest *vm)
{
    g_autofree char *xp = qtest_hmp(vm->qts, "xp /2xw 0x%" PRIx64, vm->addr);
    const uint64_t before = virtio_mem_host_memory(vm);

    g_assert_nonnull(strstr(xp, "0x00000000 0x00000000"));
    assert_saves_zeros(vm, "pmemsave");
    assert_saves_zeros(vm, "memsave");
    virtio_mem_assert_gain(vm, before, 1 * MiB);
}

/* --- the event --- */

static QDict *wait_access(VirtioMemGuest *vm)
{
    QDict *event = qtest_qmp_eventwait_ref(vm->qts, ACCESS_EVENT);
    QDict *data = qdict_get_qdict(event, "data");

    qobject_ref(data);
    qobject_unref(event);
    return data;
}

static void assert_access(VirtioMemGuest *vm, uint64_t gpa, bool write,
                          uint64_t count)
{
    QDict *data = wait_access(vm);

    g_assert_cmphex(qdict_get_int(data, "address"), ==, gpa);
    g_assert_cmpint(qdict_get_bool(data, "write"), ==, write);
    g_assert_cmpuint(qdict_get_int(data, "count"), ==, count);
    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "vm0");
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==,
                    "/machine/peripheral/vm0");
    qobject_unref(data);
}

static void assert_no_access(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    g_assert_null(qtest_qmp_event_ref(vm->qts, ACCESS_EVENT));
}

static void test_event(VirtioMemGuest *vm)
{
    const uint64_t gpa = vm->addr + 3 * GiB;

    qtest_writeb(vm->qts, gpa, 1);
    assert_access(vm, gpa, true, 1);
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    assert_no_access(vm);
    qtest_readb(vm->qts, gpa + GiB);
    assert_access(vm, gpa + GiB, false, 2);
}

static void test_event_rate(VirtioMemGuest *vm)
{
    qtest_writeb(vm->qts, vm->addr, 1);
    assert_access(vm, vm->addr, true, 1);
    for (unsigned i = 1; i <= 100; i++) {
        qtest_writeb(vm->qts, vm->addr + i * VM_BLOCK, 1);
    }
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS / 2);
    assert_no_access(vm);
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS / 2);
    /* The first of those that had to wait, and how many there are now. */
    assert_access(vm, vm->addr + VM_BLOCK, true, 101);
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS);
    assert_no_access(vm);
}

static void test_plugged_is_no_event(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 8, ACK);
    virtio_mem_fill(vm, vm->addr, 0x44, 8 * VM_BLOCK);
    assert_no_access(vm);
    vm_assert_unplug(vm, 1, 1, ACK);
    qtest_readb(vm->qts, virtio_mem_block_gpa(vm, 1));
    assert_access(vm, virtio_mem_block_gpa(vm, 1), false, 1);
}

/* --- stop --- */

static void test_stop(VirtioMemGuest *vm)
{
    QDict *status;

    for (unsigned i = 1; i <= 3; i++) {
        qtest_writeb(vm->qts, vm->addr + i * GiB, 1);
        assert_access(vm, vm->addr + i * GiB, true, i);
        qtest_qmp_eventwait(vm->qts, "STOP");
        status = qtest_qmp_assert_success_ref(
            vm->qts, "{ 'execute': 'query-status' }");
        g_assert_cmpstr(qdict_get_str(status, "status"), ==,
                        "guest-panicked");
        qobject_unref(status);

        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
        qtest_qmp_eventwait(vm->qts, "RESUME");
        qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    }
}

/* --- refused, or off by itself --- */

static void assert_device(VirtioMemGuest *vm, const char *memdev,
                          const char *reason)
{
    g_autofree char *text = virtio_mem_device_add_error(
        vm->qts, "{ 'driver': 'virtio-mem-pci', 'id': 'vm0', 'memdev': %s,"
        " 'protect-unplugged': 'on' }", memdev);

    g_assert_nonnull(strstr(text, "'protect-unplugged' property cannot be"));
    g_assert_nonnull(strstr(text, reason));
    qtest_qmp_device_add(vm->qts, "virtio-mem-pci", "vm0",
                         "{ 'memdev': %s }", memdev);
    g_assert_false(virtio_mem_is_protected(vm));
}

static void test_file(VirtioMemGuest *vm)
{
    g_autofree char *path = virtio_mem_temp_path("memdev");

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add',"
                             " 'arguments': { 'qom-type':"
                             " 'memory-backend-file', 'id': 'file0',"
                             " 'size': %u, 'mem-path': %s, 'share': true } }",
                             (unsigned)(1 * GiB), path);
    assert_device(vm, "file0", "has to be anonymous memory");
}

static void test_no_rights(VirtioMemGuest *unused)
{
    g_autofree char *log = virtio_mem_temp_path("no-rights.log");
    g_autofree char *args = g_strdup_printf("-run-with user=nobody 2> %s",
                                            log);
    g_autofree char *said = NULL;
    VirtioMemGuest *vm;

    if (getuid() || !getpwnam("nobody")) {
        g_test_skip("only root can start a QEMU without rights");
        return;
    }
    vm = virtio_mem_guest_start(&(VirtioMemOptions) {
        .no_device = true, .args = args });
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add',"
                             " 'arguments': { 'qom-type':"
                             " 'memory-backend-ram', 'id': 'ram0',"
                             " 'size': %u, 'reserve': false } }",
                             (unsigned)(1 * GiB));
    assert_device(vm, "ram0", "let it open /dev/userfaultfd");
    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_assert_nonnull(strstr(said, "unplugged memory is not protected: this"));
    virtio_mem_guest_stop(vm);
}

/* --- pauses --- */

static void assert_guarded(VirtioMemGuest *vm)
{
    const uint64_t gpa = vm->addr + 3 * GiB;
    const uint64_t before = virtio_mem_host_memory(vm);

    g_assert_true(virtio_mem_is_protected(vm));
    qtest_memset(vm->qts, gpa, 0x55, 64 * MiB);
    virtio_mem_assert_gain(vm, before, 2 * MiB);
}

static void test_background_snapshot(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    migrate_set_capability(vm->qts, "background-snapshot", true);
    g_assert_true(virtio_mem_is_protected(vm));
    virtio_mem_begin_busy(vm);
    g_assert_false(virtio_mem_is_protected(vm));
    qtest_qmp_eventwait(vm->qts, "RESUME");
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 9), 0x66, VM_BLOCK);

    migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(vm, "completed");
    /* That end is told a moment before the guard hears of it. */
    vm_wait_until(virtio_mem_is_protected(vm));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 9, 1, 0));
    assert_guarded(vm);
}

static void test_snapshot(VirtioMemGuest *vm)
{
    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 3, 4, ACK);
    virtio_mem_write_pattern(vm, 3, 4, 7);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    assert_guarded(vm);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    /* As after any load: the guest may have been told to wait. */
    virtio_mem_wait_config_irq(vm);
    g_assert_true(virtio_mem_check_pattern(vm, 3, 4, 7));
    assert_guarded(vm);
}

static void check_migration(const VirtioMemOptions *opts,
                            void (*migrate)(VirtioMemGuest *from,
                                            VirtioMemGuest *to))
{
    VirtioMemGuest *from = virtio_mem_guest_start(opts);
    VirtioMemGuest *to = virtio_mem_target(opts);

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 3, 4, ACK);
    virtio_mem_write_pattern(from, 3, 4, 7);
    g_assert_false(virtio_mem_is_protected(to));
    migrate(from, to);
    g_assert_true(virtio_mem_check_pattern(to, 3, 4, 7));
    assert_guarded(to);
    g_assert_true(virtio_mem_is_protected(from));
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_migration(VirtioMemGuest *unused)
{
    check_migration(&small, virtio_mem_migrate);
}

/* Pages arrive before the blocks are known. */
static void test_late_migration(VirtioMemGuest *unused)
{
    static const VirtioMemOptions late = {
        .region_size = VM_MIGRATE_REGION,
        .device = "protect-unplugged=on,x-early-migration=off",
    };

    check_migration(&late, virtio_mem_migrate_file);
}

static const VirtioMemTest tests[] = {
    { "T224 T226", "guard/access-is-absorbed", test_absorbed, &on,
      .guard = true },
    { "T226", "guard/access-is-absorbed-with-memslots", test_absorbed,
      &memslots, .once = true, .guard = true },
    { "T222", "guard/new-blocks-are-zero", test_new_blocks, &on, .once = true,
      .guard = true },
    { "P-3", "guard/reset-leaves-no-rogue-data", test_reset, &on, .once = true,
      .guard = true },
    { "T226", "guard/monitor-reads-zeros", test_monitor, &on, .once = true,
      .guard = true },
    { "T226 T227", "guard/monitor-reads-zeros-of-memfd", test_monitor, &memfd,
      .once = true, .guard = true },
    { "T226", "guard/event-tells-address", test_event, &on, .once = true,
      .guard = true },
    { "T226", "guard/event-once-a-second", test_event_rate, &on, .once = true,
      .guard = true },
    { "T226", "guard/no-event-for-plugged", test_plugged_is_no_event, &on,
      .once = true, .guard = true },
    { "T226", "guard/access-stops-the-machine", test_stop, &stop, .once = true,
      .guard = true },
    { "T226", "guard/refused-for-a-file", test_file, &no_device, .once = true,
      .guard = true, .pc = true },
    { "T226", "guard/refused-without-rights", test_no_rights, .no_guest = true,
      .pc = true },
    { "T227", "guard/back-after-background-snapshot", test_background_snapshot,
      &small, .once = true, .guard = true },
    { "T227", "guard/back-after-snapshots", test_snapshot, &small,
      .once = true, .guard = true },
    { "T227", "guard/back-after-migration", test_migration, .no_guest = true,
      .guard = true },
    { "T240 T227", "guard/back-after-migration-in-late-format",
      test_late_migration, .no_guest = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
