/*
 * virtio-mem: what stops a VM whose unplugged memory is, or was, out of reach
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"
#include "virtio-mem-snapshots.h"

#define ACCESS_EVENT "VIRTIO_MEM_UNPLUGGED_ACCESS"
#define EVENT_PERIOD_NS 1000000000LL

/* A machine that runs, because nothing in it does. */
#define STOP "protect-unplugged=on,unplugged-access=stop"

static const VirtioMemOptions stop = { .device = STOP };
static const VirtioMemOptions stop_no_driver = {
    .device = STOP, .no_driver = true,
};
/* Its device does not offer VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE. */
static const VirtioMemOptions stop_7_2 = {
    .machine = "pc-i440fx-7.2", .device = STOP ",vectors=2",
};
static const VirtioMemOptions on = {
    .region_size = VM_MIGRATE_REGION, .device = "protect-unplugged=on",
};
static const VirtioMemOptions auto_ = {
    .region_size = VM_MIGRATE_REGION, .device = "protect-unplugged=auto",
};

static bool is_run_state(VirtioMemGuest *vm, const char *state)
{
    QDict *status = qtest_qmp_assert_success_ref(
        vm->qts, "{ 'execute': 'query-status' }");
    const bool ret = g_str_equal(qdict_get_str(status, "status"), state);

    qobject_unref(status);
    return ret;
}

static void assert_run_state(VirtioMemGuest *vm, const char *state)
{
    QDict *status = qtest_qmp_assert_success_ref(
        vm->qts, "{ 'execute': 'query-status' }");

    g_assert_cmpstr(qdict_get_str(status, "status"), ==, state);
    qobject_unref(status);
}

static void assert_stops(VirtioMemGuest *vm)
{
    QDict *event = qtest_qmp_eventwait_ref(vm->qts, "GUEST_PANICKED");

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(event, "data"), "action"),
                    ==, "pause");
    qobject_unref(event);
    qtest_qmp_eventwait(vm->qts, "STOP");
    assert_run_state(vm, "guest-panicked");
}

static void cont(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(vm->qts, "RESUME");
}

/* Told by the event, and nothing else happens. */
static void assert_read_is_absorbed(VirtioMemGuest *vm, unsigned int block)
{
    qtest_readb(vm->qts, vm->addr + block * VM_BLOCK);
    qtest_qmp_eventwait(vm->qts, ACCESS_EVENT);
    assert_run_state(vm, "running");
    g_assert_null(qtest_qmp_event_ref(vm->qts, "GUEST_PANICKED"));
}

static void test_write(VirtioMemGuest *vm)
{
    assert_read_is_absorbed(vm, 0);
    /* No event yet, it is too early; but a stop at once. */
    qtest_writeb(vm->qts, vm->addr + VM_BLOCK, 1);
    assert_stops(vm);
    g_assert_null(qtest_qmp_event_ref(vm->qts, ACCESS_EVENT));
    cont(vm);
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    qtest_qmp_eventwait(vm->qts, ACCESS_EVENT);
    assert_run_state(vm, "running");
    /* What was written once is not held against what is read now. */
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    assert_read_is_absorbed(vm, 2);
}

static void test_read(VirtioMemGuest *vm)
{
    g_assert_true(vm->features &
                  VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE));
    qtest_readb(vm->qts, vm->addr);
    assert_stops(vm);
    cont(vm);
}

/* Firmware, for example, has acknowledged nothing. */
static void test_read_without_driver(VirtioMemGuest *vm)
{
    assert_read_is_absorbed(vm, 0);
    g_assert_true(virtio_mem_driver_up(vm, virtio_mem_default_features(vm)));
    qtest_readb(vm->qts, vm->addr + VM_BLOCK);
    assert_stops(vm);
    cont(vm);
}

/* --- protection that is lost --- */

/* A userfaultfd of QEMU's other than @not (-1: any), by its number there. */
static int find_uffd(VirtioMemGuest *vm, int not)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (target && strstr(target, "[userfaultfd]") && atoi(name) != not) {
            return atoi(name);
        }
    }
    g_assert_not_reached();
}

static int share_fd(VirtioMemGuest *vm, int fd)
{
    const int process = syscall(SYS_pidfd_open, qtest_pid(vm->qts), 0);
    const int ours = syscall(SYS_pidfd_getfd, process, fd, 0);

    close(process);
    return ours;
}

/* That of a background snapshot, which outlives it.  -1: not possible here. */
static int share_snapshot_uffd(VirtioMemGuest *vm)
{
    const int guard = find_uffd(vm, -1);
    int fd;

    migrate_set_capability(vm->qts, "background-snapshot", true);
    virtio_mem_begin_busy(vm);
    qtest_qmp_eventwait(vm->qts, "RESUME");
    fd = share_fd(vm, find_uffd(vm, guard));
    migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(vm, "completed");
    migrate_set_capability(vm->qts, "background-snapshot", false);
    vm_wait_until(virtio_mem_is_protected(vm));
    return fd;
}

static uint64_t host_address(VirtioMemGuest *vm, uint64_t gpa)
{
    g_autofree char *text = qtest_hmp(vm->qts, "gpa2hva 0x%" PRIx64, gpa);
    const char *is = strstr(text, " is ");

    g_assert_nonnull(is);
    return g_ascii_strtoull(is + 4, NULL, 16);
}

typedef struct Watch {
    int fd;
    struct uffdio_register block;
    bool done;
} Watch;

/* As soon as the guard is paused. */
static void *watch_block(void *opaque)
{
    Watch *watch = opaque;

    while (ioctl(watch->fd, UFFDIO_REGISTER, &watch->block)) {
        g_assert_cmpint(errno, ==, EBUSY);
    }
    qatomic_set(&watch->done, true);
    return NULL;
}

/* Another userfaultfd watches a block that the guard must watch again. */
static void lose(VirtioMemGuest *vm, int fd)
{
    Watch watch = {
        .fd = fd,
        .block.range.start = host_address(vm, vm->addr + VM_BLOCK),
        .block.range.len = VM_BLOCK,
        .block.mode = UFFDIO_REGISTER_MODE_WP,
    };
    GThread *thread;

    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    thread = g_thread_new("watch", watch_block, &watch);
    while (!qatomic_read(&watch.done)) {
        virtio_mem_snapshot_do(vm, "snapshot-load");
    }
    g_thread_join(thread);
}

/* The VM may be reset and continued, but it does not run unprotected. */
static void assert_stays_stopped(VirtioMemGuest *vm)
{
    virtio_mem_system_reset(vm);
    cont(vm);
    /* The main loop stops it before it listens to the monitor again. */
    is_run_state(vm, "running");
    g_assert_true(is_run_state(vm, "internal-error"));
    g_assert_false(virtio_mem_is_protected(vm));
}

static void check_lost(VirtioMemGuest *vm, const char *state, bool stops)
{
    const int fd = share_snapshot_uffd(vm);

    if (fd < 0) {
        g_test_skip("cannot share a file descriptor of QEMU (pidfd_getfd)");
        return;
    }
    lose(vm, fd);
    vm_wait_until(is_run_state(vm, state));
    vm_wait_until(!virtio_mem_is_protected(vm));
    if (stops) {
        assert_stays_stopped(vm);
    }
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 9), 0x66, VM_BLOCK);

    close(fd);
    vm_wait_until(virtio_mem_is_protected(vm));
    g_assert_true(is_run_state(vm, state));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 9, 1, 0));

    virtio_mem_system_reset(vm);
    if (!is_run_state(vm, "running")) {
        cont(vm);
    }
    g_assert_true(virtio_mem_driver_up(vm, virtio_mem_default_features(vm)));
}

static void test_lost_on(VirtioMemGuest *vm)
{
    check_lost(vm, "internal-error", true);
}

static void test_lost_auto(VirtioMemGuest *vm)
{
    check_lost(vm, "running", false);
}

static const VirtioMemTest tests[] = {
    { "T226", "guard/stop/write-of-a-guest-that-may-read", test_write,
      &stop_7_2, .once = true, .guard = true },
    { "T226", "guard/stop/read-of-a-guest-that-must-not", test_read, &stop,
      .once = true, .guard = true },
    { "T226", "guard/stop/no-read-before-features", test_read_without_driver,
      &stop_no_driver, .once = true, .guard = true },
    { "T227", "guard/stop/on-does-not-run-unprotected", test_lost_on, &on,
      .once = true, .guard = true },
    { "T227", "guard/stop/auto-is-protected-again", test_lost_auto, &auto_,
      .once = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
