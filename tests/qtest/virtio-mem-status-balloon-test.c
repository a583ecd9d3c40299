/*
 * virtio-mem: why a guest does not change its size, says its balloon driver
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-balloon.h"

#define SECOND NANOSECONDS_PER_SECOND
#define SILENCE (20 * SECOND)

#define SIZE (4 * VM_BLOCK)

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

/* Request a size; the balloon is asked for what is compared with later. */
static void request(VirtioMemGuest *vm, VirtioMemBalloon *balloon,
                    uint64_t size, const VirtioMemReport *report)
{
    virtio_mem_set_requested(vm, size);
    vm_wait_until(virtio_mem_balloon_is_asked(balloon));
    if (report) {
        virtio_mem_balloon_report_all(balloon, report);
    } else {
        virtio_mem_balloon_report_nothing(balloon);
    }
}

/* After that, the balloon is asked only when the resize stalls. */
static void shrink_until_silent(VirtioMemGuest *vm, VirtioMemBalloon *balloon,
                                const VirtioMemReport *report)
{
    request(vm, balloon, SIZE, NULL);
    vm_assert_plug(vm, 0, 4, ACK);
    request(vm, balloon, 0, report);
    qtest_clock_step(vm->qts, SILENCE - SECOND);
    virtio_mem_assert_resize(vm, "working", NULL);
    g_assert_false(virtio_mem_balloon_is_asked(balloon));
    qtest_clock_step(vm->qts, SECOND);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    g_assert_true(virtio_mem_balloon_is_asked(balloon));
}

static void test_low_memory(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report(balloon, 2 * GiB, 2 * GiB);
    shrink_until_silent(vm, balloon, NULL);
    virtio_mem_balloon_report(balloon, 2 * GiB, 384 * MiB - 1);
    virtio_mem_assert_resize(vm, "stalled", "guest-low-memory");
    qtest_clock_step(vm->qts, SILENCE);
    g_assert_false(virtio_mem_balloon_is_asked(balloon));
    vm_assert_unplug(vm, 0, 1, ACK);
    virtio_mem_assert_resize(vm, "working", NULL);
    /* What was true then need not be now. */
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_balloon_free(balloon);
}

static void test_memory_in_use(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon, NULL);
    virtio_mem_balloon_report(balloon, 2 * GiB, 384 * MiB);
    virtio_mem_assert_resize(vm, "stalled", "guest-memory-in-use");
    virtio_mem_balloon_free(balloon);
}

/* A large guest needs more in hand: a sixteenth. */
static void test_large_guest(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon, NULL);
    virtio_mem_balloon_report(balloon, 16 * GiB, 1152 * MiB - 1);
    virtio_mem_assert_resize(vm, "stalled", "guest-low-memory");
    virtio_mem_balloon_free(balloon);
}

static void test_report_says_nothing(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon, NULL);
    virtio_mem_balloon_report_nothing(balloon);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_balloon_free(balloon);
}

/* What happened since the shrink was requested comes before what is. */
static void test_harm(VirtioMemGuest *vm)
{
    const VirtioMemReport first = {
        .total = 2 * GiB, .available = GiB, .swap_out = GiB, .oom_kills = 5,
    };
    VirtioMemReport last = first;
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon, &first);
    last.swap_out += 64 * MiB;
    virtio_mem_balloon_report_all(balloon, &last);
    virtio_mem_assert_resize(vm, "stalled", "guest-swapping");
    vm_assert_unplug(vm, 0, 1, ACK);
    qtest_clock_step(vm->qts, SILENCE);
    vm_wait_until(virtio_mem_balloon_is_asked(balloon));
    last.oom_kills++;
    virtio_mem_balloon_report_all(balloon, &last);
    virtio_mem_assert_resize(vm, "stalled", "guest-out-of-memory");
    virtio_mem_balloon_free(balloon);
}

/* Three quarters of what it plugged have to show. */
static void test_growth(VirtioMemGuest *vm)
{
    VirtioMemReport report = { .total = 2 * GiB, .available = GiB };
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    request(vm, balloon, 2 * SIZE, &report);
    vm_assert_plug(vm, 0, 4, ACK);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    report.total += SIZE / 4 * 3;
    vm_wait_until(virtio_mem_balloon_is_asked(balloon));
    virtio_mem_balloon_report_all(balloon, &report);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    vm_assert_plug(vm, 4, 1, ACK);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    vm_wait_until(virtio_mem_balloon_is_asked(balloon));
    virtio_mem_balloon_report_all(balloon, &report);
    virtio_mem_assert_resize(vm, "stalled", "guest-memory-offline");
    virtio_mem_balloon_free(balloon);
}

/* Without a report of the begin, the same numbers tell nothing. */
static void test_growth_seen_late(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report(balloon, 2 * GiB, GiB);
    virtio_mem_set_requested(vm, 2 * SIZE);
    vm_assert_plug(vm, 0, 4, ACK);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_balloon_report(balloon, 2 * GiB, GiB);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_balloon_free(balloon);
}

#define AVAILABLE "stat-available-memory"

/* A host that polls notices nothing of what the device asks in between. */
static void test_polling_goes_on(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);
    QDict *response;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine/peripheral/balloon0',"
                             " 'property': 'guest-stats-polling-interval',"
                             " 'value': 30 } }");
    virtio_mem_balloon_report(balloon, 2 * GiB, 3 * MiB);
    g_assert_cmpint(virtio_mem_balloon_stat(balloon, AVAILABLE), ==, 3 * MiB);
    shrink_until_silent(vm, balloon, NULL);
    virtio_mem_balloon_report(balloon, 2 * GiB, 5 * MiB);
    g_assert_cmpint(virtio_mem_balloon_stat(balloon, AVAILABLE), ==, 5 * MiB);
    virtio_mem_assert_resize(vm, "stalled", "guest-low-memory");
    response = qtest_qmp(vm->qts, "{ 'execute': 'qom-get', 'arguments': {"
                         " 'path': '/machine/peripheral/balloon0',"
                         " 'property': 'guest-stats-polling-interval' } }");
    g_assert_cmpint(qdict_get_int(response, "return"), ==, 30);
    qobject_unref(response);
    qtest_clock_step(vm->qts, 29 * SECOND);
    g_assert_false(virtio_mem_balloon_is_asked(balloon));
    qtest_clock_step(vm->qts, SECOND);
    g_assert_true(virtio_mem_balloon_is_asked(balloon));
    virtio_mem_balloon_free(balloon);
}

static const VirtioMemTest tests[] = {
    { "", "status/guest-low-memory", test_low_memory, &with_balloon,
      .once = true },
    { "", "status/guest-memory-in-use", test_memory_in_use, &with_balloon,
      .once = true },
    { "", "status/large-guest-needs-more", test_large_guest, &with_balloon,
      .once = true },
    { "", "status/report-says-nothing", test_report_says_nothing,
      &with_balloon, .once = true },
    { "", "status/guest-swapping-and-out-of-memory", test_harm,
      &with_balloon, .once = true },
    { "", "status/guest-memory-offline", test_growth, &with_balloon,
      .once = true },
    { "", "status/growth-seen-late", test_growth_seen_late, &with_balloon,
      .once = true },
    { "", "status/balloon-polling-goes-on", test_polling_goes_on,
      &with_balloon, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
