/*
 * virtio-mem: what stops a VM whose unplugged memory is out of reach
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-guest.h"

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
static void assert_read_is_absorbed(VirtioMemGuest *vm)
{
    qtest_readb(vm->qts, vm->addr);
    qtest_qmp_eventwait(vm->qts, ACCESS_EVENT);
    assert_run_state(vm, "running");
    g_assert_null(qtest_qmp_event_ref(vm->qts, "GUEST_PANICKED"));
}

static void test_write(VirtioMemGuest *vm)
{
    assert_read_is_absorbed(vm);
    /* No event yet, it is too early; but a stop at once. */
    qtest_writeb(vm->qts, vm->addr + VM_BLOCK, 1);
    assert_stops(vm);
    g_assert_null(qtest_qmp_event_ref(vm->qts, ACCESS_EVENT));
    cont(vm);
    qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    qtest_qmp_eventwait(vm->qts, ACCESS_EVENT);
    assert_run_state(vm, "running");
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
    assert_read_is_absorbed(vm);
    g_assert_true(virtio_mem_driver_up(vm, virtio_mem_default_features(vm)));
    qtest_readb(vm->qts, vm->addr + VM_BLOCK);
    assert_stops(vm);
    cont(vm);
}

static const VirtioMemTest tests[] = {
    { "T226", "guard/stop/write-of-a-guest-that-may-read", test_write,
      &stop_7_2, .once = true, .guard = true },
    { "T226", "guard/stop/read-of-a-guest-that-must-not", test_read, &stop,
      .once = true, .guard = true },
    { "T226", "guard/stop/no-read-before-features", test_read_without_driver,
      &stop_no_driver, .once = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
