/*
 * virtio-mem: why a guest does not shrink, says its balloon driver
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

/* The balloon is asked only when a shrink stalls. */
static void shrink_until_silent(VirtioMemGuest *vm, VirtioMemBalloon *balloon)
{
    virtio_mem_set_requested(vm, SIZE);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_set_requested(vm, 0);
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
    shrink_until_silent(vm, balloon);
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
    shrink_until_silent(vm, balloon);
    virtio_mem_balloon_report(balloon, 2 * GiB, 384 * MiB);
    virtio_mem_assert_resize(vm, "stalled", "guest-memory-in-use");
    virtio_mem_balloon_free(balloon);
}

/* A large guest needs more in hand: a sixteenth. */
static void test_large_guest(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon);
    virtio_mem_balloon_report(balloon, 16 * GiB, 1152 * MiB - 1);
    virtio_mem_assert_resize(vm, "stalled", "guest-low-memory");
    virtio_mem_balloon_free(balloon);
}

static void test_report_says_nothing(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report_nothing(balloon);
    shrink_until_silent(vm, balloon);
    virtio_mem_balloon_report_nothing(balloon);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    virtio_mem_balloon_free(balloon);
}

static void test_growth_asks_no_balloon(VirtioMemGuest *vm)
{
    VirtioMemBalloon *balloon = virtio_mem_balloon_start(vm);

    virtio_mem_balloon_report(balloon, 2 * GiB, 1 * MiB);
    virtio_mem_set_requested(vm, SIZE);
    qtest_clock_step(vm->qts, SILENCE);
    virtio_mem_assert_resize(vm, "stalled", "guest-silent");
    g_assert_false(virtio_mem_balloon_is_asked(balloon));
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
    shrink_until_silent(vm, balloon);
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
    { "", "status/growth-asks-no-balloon", test_growth_asks_no_balloon,
      &with_balloon, .once = true },
    { "", "status/balloon-polling-goes-on", test_polling_goes_on,
      &with_balloon, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
