/*
 * virtio-mem: how far a resize is, and why it goes no further
 *
 * What query-memory-devices says of the driver and the resize.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-flight.h"

#define SECOND NANOSECONDS_PER_SECOND
#define SILENCE (20 * SECOND)

#define SIZE (4 * VM_BLOCK)

/* --- what is said --- */

static void assert_driver(VirtioMemGuest *vm, const char *driver)
{
    QDict *info = virtio_mem_query(vm);

    g_assert_cmpstr(qdict_get_str(info, "driver"), ==, driver);
    qobject_unref(info);
}

static void stop(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
}

static void cont(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
}

/* --- the guest works, or is done --- */

static void test_working(VirtioMemGuest *vm)
{
    assert_driver(vm, "ready");
    virtio_mem_assert_resize(vm, "done", NULL);
    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_plug(vm, 0, 3, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_plug(vm, 3, 1, ACK);
    virtio_mem_assert_resize(vm, "done", NULL);
    virtio_mem_set_requested(vm, 0);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_assert_resize(vm, "done", NULL);
}

static void test_asked_size(VirtioMemGuest *vm)
{
    const uint64_t sizes[] = { SIZE, VM_REQUESTED, 0 };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        QDict *info;

        virtio_mem_set_requested(vm, sizes[i]);
        info = virtio_mem_query(vm);
        g_assert_cmphex(qdict_get_int(info, "asked-size"), ==, sizes[i]);
        qobject_unref(info);
    }
}

/* NACK answers a race, and says nothing about what comes. */
static void test_nack(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    vm_assert_plug(vm, 0, 5, NACK);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_system_reset(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_set_requested(vm, 0);
    virtio_mem_system_reset(vm);
    virtio_mem_assert_resize(vm, "done", NULL);
    assert_driver(vm, "absent");
    virtio_mem_restart_driver(vm);
}

/* --- what the device knows --- */

static void test_no_driver(VirtioMemGuest *vm)
{
    virtio_mem_device_reset(vm);
    assert_driver(vm, "absent");
    virtio_mem_assert_resize(vm, "done", NULL);
    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_assert_resize(vm, "waiting", "no-driver");
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    virtio_mem_assert_resize(vm, "waiting", "no-driver");
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_driver_starting(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_device_reset(vm);
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE |
                      VIRTIO_CONFIG_S_DRIVER);
    assert_driver(vm, "starting");
    virtio_mem_assert_resize(vm, "waiting", "driver-starting");
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_driver_refused(VirtioMemGuest *vm)
{
    const uint64_t features = virtio_mem_default_features(vm);

    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_device_reset(vm);
    g_assert_false(virtio_mem_driver_up(
        vm, features & ~VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)));
    assert_driver(vm, "refused");
    virtio_mem_assert_resize(vm, "waiting", "driver-refused");
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_driver_failed(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    vm_set_status(vm, virtio_mem_status(vm) | VIRTIO_CONFIG_S_FAILED);
    assert_driver(vm, "refused");
    virtio_mem_assert_resize(vm, "waiting", "driver-refused");
    virtio_mem_restart_driver(vm);
    assert_driver(vm, "ready");
}

/* A request without room for its answer. */
static void test_driver_broken(VirtioMemGuest *vm)
{
    const VirtioMemSegment request = {
        .addr = virtio_mem_dma(vm, vm->req_gpa),
        .len = sizeof(struct virtio_mem_req),
    };

    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_add_chain(vm, &request, 1);
    virtio_mem_kick(vm);
    vm_wait_until(virtio_mem_is_broken(vm));
    assert_driver(vm, "broken");
    virtio_mem_assert_resize(vm, "waiting", "driver-broken");
    virtio_mem_take_config_irq(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_driver_gave_up(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm), 1, ERROR);
    assert_driver(vm, "ready");
    virtio_mem_assert_resize(vm, "waiting", "driver-gave-up");
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_unplug(vm, 0, 1, ERROR);
    virtio_mem_assert_resize(vm, "waiting", "driver-gave-up");
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_guest_stopped(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    stop(vm);
    virtio_mem_assert_resize(vm, "waiting", "guest-stopped");
    cont(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_migration(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_begin_busy(vm);
    virtio_mem_assert_resize(vm, "waiting", "migration");
    virtio_mem_end_busy(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static void test_host_memory(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&(VirtioMemOptions) {
        .device = "prealloc=on," VM_ONE_THREAD });
    VirtioMemHeld held = virtio_mem_flight_plug(vm);

    virtio_mem_assert_resize(vm, "working", NULL);
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, ENOMEM);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    virtio_mem_assert_resize(vm, "waiting", "host-memory");
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    virtio_mem_assert_resize(vm, "waiting", "host-memory");
    virtio_mem_set_requested(vm, 2 * VM_REQUESTED);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
    virtio_mem_guest_stop(vm);
}

static void test_host_refused(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(NULL);
    VirtioMemHeld held = virtio_mem_flight_unplug(vm, VIRTIO_MEM_REQ_UNPLUG);

    virtio_mem_hold_end();
    virtio_mem_hold_release(held, EINVAL);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    virtio_mem_assert_resize(vm, "waiting", "host-refused");
    vm_assert_unplug(vm, 0, 1, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
    virtio_mem_guest_stop(vm);
}

/* --- silence --- */

static void test_silent(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_assert_resize(vm, "working", NULL);
    vm_assert_plug(vm, 0, 1, ACK);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_assert_resize(vm, "working", NULL);
    qtest_clock_step(vm->qts, SECOND);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    vm_assert_state(vm, 0, 1, PLUGGED);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    vm_assert_plug(vm, 1, 1, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
}

/* Each of them is a new beginning. */
static void test_silence_starts_anew(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_set_requested(vm, 2 * SIZE);
    virtio_mem_assert_resize(vm, "working", NULL);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_set_requested(vm, 2 * SIZE);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_assert_resize(vm, "working", NULL);
    stop(vm);
    virtio_mem_assert_resize(vm, "waiting", "guest-stopped");
    cont(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_assert_resize(vm, "working", NULL);
}

/* The host's time is not the guest's silence. */
static void test_in_flight(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&(VirtioMemOptions) {
        .device = "prealloc=on," VM_ONE_THREAD });
    VirtioMemHeld held = virtio_mem_flight_plug(vm);

    qtest_clock_step(vm->qts, 3 * SILENCE);
    virtio_mem_assert_resize(vm, "working", NULL);
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_guest_stop(vm);
}

/* A VM that starts with a size has a guest that does not know of it yet. */
static const VirtioMemOptions started_large = {
    .requested = VM_REQUESTED, .no_driver = true,
};

static void test_at_start(VirtioMemGuest *vm)
{
    virtio_mem_assert_resize(vm, "waiting", "no-driver");
    virtio_mem_restart_driver(vm);
    virtio_mem_assert_resize(vm, "working", NULL);
}

static const VirtioMemTest tests[] = {
    { "", "status/working-until-done", test_working },
    { "", "status/asked-size-is-what-the-guest-reads", test_asked_size },
    { "", "status/nack-is-no-reason", test_nack },
    { "", "status/system-reset-completes-a-shrink", test_system_reset },
    { "", "status/no-driver", test_no_driver },
    { "", "status/driver-starting", test_driver_starting },
    { "", "status/driver-refused", test_driver_refused, .once = true },
    { "", "status/driver-failed", test_driver_failed },
    { "", "status/driver-broken", test_driver_broken },
    { "", "status/driver-gave-up", test_driver_gave_up },
    { "", "status/guest-stopped", test_guest_stopped },
    { "", "status/migration", test_migration },
    { "", "status/host-memory", test_host_memory, .no_guest = true },
    { "", "status/host-refused", test_host_refused, .no_guest = true },
    { "", "status/guest-silent", test_silent },
    { "", "status/silence-starts-anew", test_silence_starts_anew },
    { "", "status/host-at-work-is-no-silence", test_in_flight,
      .no_guest = true },
    { "", "status/at-start", test_at_start, &started_large, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
