/*
 * virtio-mem: a shrink in mode safe leaves the guest what it cannot do without
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-safe.h"

#define SECOND NANOSECONDS_PER_SECOND
#define PERIOD_MS 250

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

/* 3 GiB beside 1 GiB, half of it in use. */
static VirtioMemSafe *begin(VirtioMemGuest *vm)
{
    return virtio_mem_safe_begin(vm, 3 * GiB, GiB, 2 * GiB);
}

/* The first step is for 896 MiB: half of what is above 256 MiB, in units. */
static VirtioMemSafe *begin_step(VirtioMemGuest *vm, uint64_t wish)
{
    VirtioMemSafe *safe = begin(vm);

    virtio_mem_safe_wish(safe, wish);
    virtio_mem_safe_assert(safe, 3 * GiB, "working", NULL);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    return safe;
}

static void step(VirtioMemSafe *safe, uint64_t next)
{
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, next, "working", NULL);
}

/* --- how it goes --- */

static void test_steps(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 2 * GiB);

    virtio_mem_safe_move(safe, 2600 * MiB);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    step(safe, 2 * GiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_assert(safe, 2 * GiB, "done", NULL);
    for (int ms = 0; ms <= 2000; ms += PERIOD_MS) {
        virtio_mem_safe_report(safe, PERIOD_MS);
    }
    qtest_clock_step(vm->qts, PERIOD_MS * SCALE_MS);
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_assert(safe, 2 * GiB, "done", NULL);
    virtio_mem_safe_end(safe);
}

/* Down to where another unit would be too much; and on, when there is more. */
static void test_hold(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    step(safe, 1792 * MiB);
    step(safe, 1536 * MiB);
    step(safe, 1408 * MiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1408 * MiB, "waiting", "guest-low-memory");
    for (int ms = 2000; ms <= 16000; ms *= 2) {
        qtest_clock_step(vm->qts, (ms - 1) * (int64_t)SCALE_MS);
        virtio_mem_safe_assert_no_poll(safe);
        virtio_mem_safe_report(safe, 1);
        virtio_mem_safe_assert(safe, 1408 * MiB, "waiting",
                               "guest-low-memory");
    }
    safe->used -= GiB;
    virtio_mem_safe_report(safe, 16000);
    virtio_mem_safe_assert(safe, 896 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* A guest that answers at once is not made to wait for the next report. */
static void test_no_pause(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 1536 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

static void test_stop(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_move(safe, 2600 * MiB);
    safe->used = GiB + 2600 * MiB - 256 * MiB + 1;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 2600 * MiB, "waiting", "guest-low-memory");
    virtio_mem_safe_end(safe);
}

/* What it lacks of the reserve, in units; and no shrinking for 10 s. */
static void test_give_back(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_obey(safe);
    safe->used = GiB + 2176 * MiB - 100 * MiB;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 2432 * MiB, "waiting", "guest-low-memory");
    virtio_mem_safe_obey(safe);
    safe->used = GiB;
    virtio_mem_safe_report(safe, 2000);
    virtio_mem_safe_assert(safe, 2432 * MiB, "waiting", "guest-low-memory");
    virtio_mem_safe_report(safe, 8000);
    virtio_mem_safe_assert(safe, 1408 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* Even when all is done, for two seconds. */
static void test_give_back_at_end(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 2176 * MiB);

    virtio_mem_safe_obey(safe);
    virtio_mem_safe_assert(safe, 2176 * MiB, "done", NULL);
    safe->said.oom_kills++;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 2304 * MiB, "waiting", "guest-out-of-memory");
    virtio_mem_safe_end(safe);
}

static void test_swapping(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_obey(safe);
    safe->said.swap_out = 64 * MiB - 1;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    safe->said.swap_out++;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1792 * MiB, "waiting", "guest-swapping");
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_end(safe);
}

/* A driver that cannot unplug sleeps for long, so it is reminded. */
static void test_reminders(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);
    static const int reminded_s[] = { 10, 20, 40 };
    int at = 0, nb_polls = 0;

    virtio_mem_take_config_irq(vm);
    for (int s = 1; s <= 80; s++) {
        const bool now = at < ARRAY_SIZE(reminded_s) && s == reminded_s[at];

        for (int ms = 0; ms < 1000; ms += PERIOD_MS) {
            virtio_mem_safe_report(safe, PERIOD_MS);
        }
        qobject_unref(virtio_mem_query(vm));
        g_assert_cmpint(virtio_mem_take_config_irq(vm), ==, now);
        at += now;
    }
    virtio_mem_safe_assert(safe, 2176 * MiB, "stalled", "guest-memory-in-use");
    /* It is in no hurry: from now on, it need not tell but each 4 s. */
    for (int s = 81; s <= 123; s++) {
        qtest_clock_step(vm->qts, SECOND);
        qobject_unref(virtio_mem_query(vm));
        if (virtio_mem_balloon_is_asked(safe->balloon)) {
            virtio_mem_safe_report(safe, 0);
            nb_polls++;
        }
    }
    g_assert_cmpint(nb_polls, ==, 10);
    virtio_mem_safe_assert(safe, 2176 * MiB, "stalled", "guest-memory-in-use");
    virtio_mem_safe_end(safe);
}

/* It has got on meanwhile, so it has all of its time again. */
static void test_reminders_begin_anew(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    for (int n = 0; n < 3; n++) {
        virtio_mem_safe_move(safe, 2600 * MiB - n * 128 * MiB);
        for (int s = 0; s < 9; s++) {
            virtio_mem_safe_report(safe, 1000);
        }
        qobject_unref(virtio_mem_query(vm));
        g_assert_false(virtio_mem_take_config_irq(vm));
        virtio_mem_safe_report(safe, 1000);
        qobject_unref(virtio_mem_query(vm));
        g_assert_true(virtio_mem_take_config_irq(vm));
    }
    virtio_mem_safe_end(safe);
}

/* --- reports --- */

static void test_no_report(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin(vm);

    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_await_poll(safe);
    qtest_clock_step(vm->qts, 5 * SECOND - 1);
    virtio_mem_safe_assert(safe, 3 * GiB, "working", NULL);
    qtest_clock_step(vm->qts, 1);
    virtio_mem_safe_assert(safe, 3 * GiB, "waiting", "no-statistics");
    virtio_mem_safe_report(safe, 60000);
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    virtio_mem_safe_move(safe, 2600 * MiB);
    qtest_clock_step(vm->qts, 6 * SECOND);
    virtio_mem_safe_assert(safe, 2600 * MiB, "waiting", "no-statistics");
    virtio_mem_safe_end(safe);
}

/* One that does not say what is available is none. */
static void test_empty_report(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin(vm);

    virtio_mem_safe_wish(safe, 0);
    for (int ms = 0; ms < 5000; ms += PERIOD_MS) {
        virtio_mem_safe_await_poll(safe);
        virtio_mem_balloon_report_nothing(safe->balloon);
        qtest_clock_step(vm->qts, PERIOD_MS * SCALE_MS);
    }
    virtio_mem_safe_assert(safe, 3 * GiB, "waiting", "no-statistics");
    virtio_mem_safe_end(safe);
}

/* Those of a host that polls, or of a guest that likes to tell. */
static void test_unasked_report(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine/peripheral/balloon0',"
                             " 'property': 'guest-stats-polling-interval',"
                             " 'value': 1 } }");
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_report(safe, 1000);
    virtio_mem_safe_report(safe, 1000);
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* In mode plain one report, for what is compared with if the guest stalls. */
static void test_nothing_is_polled(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin(vm);

    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_wish(safe, 3 * GiB);
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_safe_wish(safe, 2 * GiB);
    virtio_mem_safe_assert(safe, 2 * GiB, "working", NULL);
    virtio_mem_safe_report(safe, 0);
    qtest_clock_step(vm->qts, 19 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_end(safe);
}

/* --- what users set meanwhile --- */

static void test_reserve(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin(vm);

    g_assert_null(virtio_mem_safe_set(vm, "resize-reserve", "1610612736"));
    virtio_mem_safe_wish(safe, 0);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 2816 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

static void test_same_wish(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_take_config_irq(vm);
    virtio_mem_safe_wish(safe, 0);
    g_assert_true(virtio_mem_take_config_irq(vm));
    virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

/* An older wish is not pending any more. */
static void test_other_wish(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_move(safe, 2600 * MiB);
    virtio_mem_safe_wish(safe, GiB);
    virtio_mem_safe_assert(safe, 2600 * MiB, "working", NULL);
    virtio_mem_safe_wish(safe, 2600 * MiB);
    virtio_mem_safe_assert(safe, 2600 * MiB, "done", NULL);
    virtio_mem_safe_end(safe);
}

static void test_modes(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_step(vm, 0);

    virtio_mem_safe_move(safe, 2600 * MiB);
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_move(safe, 2500 * MiB);
    virtio_mem_safe_set_mode(vm, "safe");
    virtio_mem_safe_assert(safe, 2500 * MiB, "working", NULL);
    virtio_mem_safe_end(safe);
}

static const VirtioMemTest tests[] = {
    { "", "safe-shrink/in-steps-until-done", test_steps, &with_balloon,
      .once = true },
    { "", "safe-shrink/holds-above-the-reserve", test_hold, &with_balloon,
      .once = true },
    { "", "safe-shrink/no-pause-between-steps", test_no_pause, &with_balloon,
      .once = true },
    { "", "safe-shrink/stops-a-step", test_stop, &with_balloon,
      .once = true },
    { "", "safe-shrink/gives-back", test_give_back, &with_balloon,
      .once = true },
    { "", "safe-shrink/gives-back-after-the-end", test_give_back_at_end,
      &with_balloon, .once = true },
    { "", "safe-shrink/ends-when-the-guest-swaps", test_swapping,
      &with_balloon, .once = true },
    { "", "safe-shrink/reminds-a-silent-driver", test_reminders,
      &with_balloon, .once = true },
    { "", "safe-shrink/reminds-again-in-another-silence",
      test_reminders_begin_anew, &with_balloon, .once = true },
    { "", "safe-shrink/no-statistics", test_no_report, &with_balloon,
      .once = true },
    { "", "safe-shrink/empty-statistics", test_empty_report, &with_balloon,
      .once = true },
    { "", "safe-shrink/ignores-what-it-did-not-ask", test_unasked_report,
      &with_balloon, .once = true },
    { "", "safe-shrink/polls-only-while-it-lasts", test_nothing_is_polled,
      &with_balloon, .once = true },
    { "", "safe-shrink/reserve-of-the-user", test_reserve, &with_balloon,
      .once = true },
    { "", "safe-shrink/same-wish-is-a-reminder", test_same_wish,
      &with_balloon, .once = true },
    { "", "safe-shrink/other-wish-starts-from-what-is-plugged",
      test_other_wish, &with_balloon, .once = true },
    { "", "safe-shrink/mode-changes-at-any-time", test_modes, &with_balloon,
      .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
