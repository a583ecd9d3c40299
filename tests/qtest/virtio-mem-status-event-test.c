/*
 * virtio-mem: the event that tells how far a resize is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-guest.h"

#define SECOND NANOSECONDS_PER_SECOND
#define SILENCE (20 * SECOND)
#define EVENT "VIRTIO_MEM_RESIZE_STATUS"

#define SIZE (4 * VM_BLOCK)

/* How many there were since last asked; @last is the last one's data. */
static unsigned int take_events(VirtioMemGuest *vm, QDict **last)
{
    unsigned int nb = 0;
    QDict *event;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    while ((event = qtest_qmp_event_ref(vm->qts, EVENT))) {
        nb++;
        qobject_unref(*last);
        *last = qobject_ref(qdict_get_qdict(event, "data"));
        qobject_unref(event);
    }
    return nb;
}

/* One that comes soon, and no other. */
static void assert_event(VirtioMemGuest *vm, uint64_t requested, uint64_t size,
                         const char *status, const char *reason)
{
    QDict *data = NULL;
    unsigned int nb;

    vm_wait_until((nb = take_events(vm, &data)));
    g_assert_cmpuint(nb, ==, 1);
    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "vm0");
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==,
                    "/machine/peripheral/vm0");
    g_assert_cmphex(qdict_get_int(data, "requested-size"), ==, requested);
    g_assert_cmphex(qdict_get_int(data, "size"), ==, size);
    g_assert_cmpstr(qdict_get_str(data, "status"), ==, status);
    g_assert_cmpstr(qdict_get_try_str(data, "reason"), ==, reason);
    qobject_unref(data);
}

static void assert_no_event(VirtioMemGuest *vm)
{
    QDict *data = NULL;

    g_assert_cmpuint(take_events(vm, &data), ==, 0);
}

/* Let the limit of the rate pass, and what it held back. */
static void forget_events(VirtioMemGuest *vm)
{
    QDict *data = NULL;

    do {
        qtest_clock_step(vm->qts, SECOND + 1);
    } while (take_events(vm, &data));
    qobject_unref(data);
}

static void test_event(VirtioMemGuest *vm)
{
    forget_events(vm);
    virtio_mem_set_requested(vm, SIZE);
    assert_event(vm, SIZE, 0, "working", NULL);
    forget_events(vm);
    vm_assert_plug(vm, 0, 3, ACK);
    assert_no_event(vm);
    qtest_clock_step(vm->qts, SILENCE);
    assert_event(vm, SIZE, 3 * VM_BLOCK, "stalled", "guest-silent");
    forget_events(vm);
    vm_assert_plug(vm, 3, 1, ACK);
    assert_event(vm, SIZE, SIZE, "done", NULL);
    qtest_clock_step(vm->qts, 10 * SILENCE);
    assert_no_event(vm);
}

static void test_event_of_reason(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    virtio_mem_device_reset(vm);
    forget_events(vm);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    assert_event(vm, SIZE, 0, "waiting", "guest-stopped");
    forget_events(vm);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    assert_event(vm, SIZE, 0, "waiting", "no-driver");
    virtio_mem_restart_driver(vm);
}

/* A mistake of the driver; and it goes on all the same. */
static void test_event_of_mistake(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    forget_events(vm);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm), 1, ERROR);
    assert_event(vm, SIZE, 0, "waiting", "driver-gave-up");
    forget_events(vm);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    assert_event(vm, SIZE, 0, "working", NULL);
}

/* A request without room for its answer. */
static void test_event_of_broken(VirtioMemGuest *vm)
{
    const VirtioMemSegment request = {
        .addr = virtio_mem_dma(vm, vm->req_gpa),
        .len = sizeof(struct virtio_mem_req),
    };

    virtio_mem_set_requested(vm, SIZE);
    forget_events(vm);
    virtio_mem_add_chain(vm, &request, 1);
    virtio_mem_kick(vm);
    assert_event(vm, SIZE, 0, "waiting", "driver-broken");
    virtio_mem_take_config_irq(vm);
    virtio_mem_restart_driver(vm);
}

/* A guest that plugs and unplugs: one event a second, and the last of all. */
static void test_event_rate(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_BLOCK);
    forget_events(vm);
    for (int i = 0; i < 100; i++) {
        vm_assert_plug(vm, 0, 1, ACK);
        vm_assert_unplug(vm, 0, 1, ACK);
    }
    vm_assert_plug(vm, 0, 1, ACK);
    assert_event(vm, VM_BLOCK, VM_BLOCK, "done", NULL);
    vm_assert_unplug(vm, 0, 1, ACK);
    assert_no_event(vm);
    qtest_clock_step(vm->qts, SECOND + 1);
    assert_event(vm, VM_BLOCK, 0, "working", NULL);
    qtest_clock_step(vm->qts, SECOND + 1);
    assert_no_event(vm);
}

/* A query is no change. */
static void test_query_sends_nothing(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, SIZE);
    forget_events(vm);
    for (int i = 0; i < 10; i++) {
        virtio_mem_assert_resize(vm, "working", NULL);
    }
    assert_no_event(vm);
}

static const VirtioMemTest tests[] = {
    { "", "status-event/each-change", test_event, .once = true },
    { "", "status-event/each-reason", test_event_of_reason, .once = true },
    { "", "status-event/mistake", test_event_of_mistake, .once = true },
    { "", "status-event/broken", test_event_of_broken, .once = true },
    { "", "status-event/one-a-second-and-the-last", test_event_rate,
      .once = true },
    { "", "status-event/not-by-query", test_query_sends_nothing,
      .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
