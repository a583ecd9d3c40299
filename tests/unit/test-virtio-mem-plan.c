/*
 * virtio-mem: what to ask a guest for next, tried on a model of a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-mem-plan-guest.h"

#define MS_HOUR 3600000

static void assert_advice(VirtIOMEMPlanAdvice advice,
                          VirtIOMEMPlanVerdict verdict,
                          VirtioMEMResizeReason reason, uint64_t ask)
{
    g_assert_cmpint(advice.verdict, ==, verdict);
    g_assert_cmpint(advice.reason, ==, reason);
    g_assert_cmphex(advice.ask, ==, ask);
}

#define assert_wait(advice, ask) \
    assert_advice(advice, VIRTIO_MEM_PLAN_WAIT, VIRTIO_MEM_NO_REASON, ask)
#define assert_hold(advice, reason, ask) \
    assert_advice(advice, VIRTIO_MEM_PLAN_HOLD, \
                  VIRTIO_MEM_RESIZE_REASON_##reason, ask)
#define assert_end(advice, reason, ask) \
    assert_advice(advice, VIRTIO_MEM_PLAN_END, \
                  VIRTIO_MEM_RESIZE_REASON_##reason, ask)
#define assert_done(advice, ask) \
    assert_advice(advice, VIRTIO_MEM_PLAN_DONE, VIRTIO_MEM_NO_REASON, ask)

/* --- shrinking, a branch each --- */

static void test_no_report_no_step(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 4 * GiB, 0, GiB);
    assert_wait(plan_guest_next(&guest, false), 4 * GiB);
    guest.ms += 4999;
    assert_wait(plan_guest_next(&guest, false), 4 * GiB);
    guest.ms++;
    assert_hold(plan_guest_next(&guest, false), NO_STATISTICS, 4 * GiB);
    guest.ms += MS_HOUR;
    assert_hold(plan_guest_next(&guest, false), NO_STATISTICS, 4 * GiB);
}

/* One that is silent about what matters is no report. */
static void test_empty_report(void)
{
    const BalloonGuestStats nothing = {
        .total = 4 * GiB, .available = UINT64_MAX,
    };
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 4 * GiB, 0, GiB);
    guest.ms += 5000;
    assert_hold(virtio_mem_plan_next(&guest.plan, &(VirtIOMEMPlanNow) {
        .ms = guest.ms, .plugged = guest.plugged, .report = &nothing }),
        NO_STATISTICS, 4 * GiB);
}

/* A 16th of the guest's memory; of a small or silent guest's, 256 MiB. */
static void test_reserve(void)
{
    g_assert_cmphex(virtio_mem_plan_reserve(64 * GiB), ==, 4 * GiB);
    g_assert_cmphex(virtio_mem_plan_reserve(4 * GiB + 16), ==, 256 * MiB + 1);
    g_assert_cmphex(virtio_mem_plan_reserve(4 * GiB - 16), ==, 256 * MiB);
    g_assert_cmphex(virtio_mem_plan_reserve(0), ==, 256 * MiB);
    g_assert_cmphex(virtio_mem_plan_reserve(UINT64_MAX), ==, 256 * MiB);
}

/* Half of what is above the reserve, in units, and a GiB at most. */
static void test_step(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 3 * GiB, 0, 2 * GiB);
    assert_wait(plan_guest_report(&guest, 3), 3 * GiB - 896 * MiB);
    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_begin(&guest, GiB, 63 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 55 * GiB);
    plan_guest_begin(&guest, GiB, 3 * GiB, 3 * GiB - 10 * MiB, GiB);
    assert_wait(plan_guest_report(&guest, 3), 3 * GiB - 10 * MiB);
}

/*
 * The next step follows from a report that was asked for after the last change,
 * and at once: a guest may answer within the clock's millisecond.
 */
static void test_one_verdict(void)
{
    PlanGuest guest;
    VirtIOMEMPlanAdvice advice;
    uint64_t ask;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    ask = plan_guest_report(&guest, 3).ask;
    assert_wait(plan_guest_report(&guest, 250), ask);
    assert_wait(plan_guest_obey(&guest, ask), ask);
    guest.is_outdated = true;
    assert_wait(plan_guest_report(&guest, 3), ask);
    guest.is_outdated = false;
    advice = plan_guest_next(&guest, true);
    g_assert_cmphex(advice.ask, <, ask);

    /* One that comes with the change itself. */
    guest.plugged = ask = advice.ask;
    assert_wait(plan_guest_report(&guest, 3), ask);
}

static void test_last_unit(void)
{
    PlanGuest guest;

    /* A unit and a half are needed to take a unit. */
    plan_guest_begin(&guest, GiB, GiB, 0, 2 * GiB - RESERVE - 192 * MiB);
    assert_wait(plan_guest_report(&guest, 3), GiB - UNIT);
    plan_guest_begin(&guest, GiB, GiB, 0, 2 * GiB - RESERVE - 192 * MiB + 1);
    assert_hold(plan_guest_report(&guest, 3), GUEST_LOW_MEMORY, GiB);
}

static void test_stop(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    guest.plugged = 7 * GiB - 256 * MiB;
    guest.used = plan_guest_total(&guest) - RESERVE;
    assert_wait(plan_guest_report(&guest, 250), 6 * GiB);
    guest.used++;
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY,
                7 * GiB - 256 * MiB);
}

static void test_give_back(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_obey(&guest, 6 * GiB);
    guest.used = plan_guest_total(&guest) - RESERVE / 2;
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY, 6 * GiB);
    guest.used++;
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY,
                6 * GiB + 256 * MiB);
    /* Nothing is taken for ten seconds, whatever the guest says. */
    plan_guest_obey(&guest, 6 * GiB + 256 * MiB);
    guest.used = GiB;
    for (int i = 0; i < 9; i++) {
        assert_hold(plan_guest_report(&guest, 1000), GUEST_LOW_MEMORY,
                    6 * GiB + 256 * MiB);
    }
    assert_wait(plan_guest_report(&guest, 1000), 5 * GiB + 256 * MiB);
}

/* What it was promised, it can count on. */
static void test_give_back_twice(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    guest.goal.reserve = GiB;
    virtio_mem_plan_begin(&guest.plan, &guest.goal, guest.ms);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_obey(&guest, 6 * GiB);
    guest.used = plan_guest_total(&guest);
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY, 7 * GiB);
    guest.used -= 400 * MiB;
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY, 7 * GiB);
}

/* No more than was there at the begin. */
static void test_give_back_all(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), GiB - 384 * MiB);
    plan_guest_obey(&guest, GiB - UNIT);
    guest.used = 64 * GiB;
    assert_hold(plan_guest_report(&guest, 250), GUEST_LOW_MEMORY, GiB);
}

static void test_oom_kill(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_obey(&guest, 6 * GiB);
    guest.said.oom_kills = 1;
    assert_hold(plan_guest_report(&guest, 250), GUEST_OUT_OF_MEMORY,
                6 * GiB + UNIT);
    /* That is over then. */
    plan_guest_obey(&guest, 6 * GiB + UNIT);
    assert_hold(plan_guest_report(&guest, 9000), GUEST_LOW_MEMORY,
                6 * GiB + UNIT);
    assert_wait(plan_guest_report(&guest, 1000), 5 * GiB + UNIT);
}

static void test_swap(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    guest.said.swap_out = 5 * GiB;
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_obey(&guest, 6 * GiB);
    guest.said.swap_out += 64 * MiB - 1;
    assert_wait(plan_guest_report(&guest, 250), 5 * GiB);
    plan_guest_obey(&guest, 5 * GiB);
    guest.said.swap_out++;
    assert_end(plan_guest_report(&guest, 250), GUEST_SWAPPING, 5 * GiB);
}

static void test_done(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, GiB, 512 * MiB, GiB / 2);
    assert_wait(plan_guest_report(&guest, 3), 512 * MiB);
    assert_wait(plan_guest_obey(&guest, 512 * MiB), 512 * MiB);
    assert_wait(plan_guest_report(&guest, 250), 512 * MiB);
    assert_wait(plan_guest_report(&guest, 1999), 512 * MiB);
    assert_done(plan_guest_report(&guest, 1), 512 * MiB);
}

/* Each time later, until the guest has memory again. */
static void test_hold(void)
{
    static const int64_t polls[] = { 2000, 4000, 8000, 16000, 16000 };
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 3 * GiB, 0, 4 * GiB - 300 * MiB);
    for (int i = 0; i < ARRAY_SIZE(polls); i++) {
        VirtIOMEMPlanAdvice advice = plan_guest_report(&guest, i ? 1 : 3);

        assert_hold(advice, GUEST_LOW_MEMORY, 3 * GiB);
        g_assert_cmpint(advice.poll_ms, ==, polls[i]);
        /* It is not late as long as it was not asked for. */
        guest.ms += polls[i];
        assert_hold(plan_guest_next(&guest, false), GUEST_LOW_MEMORY, 3 * GiB);
    }
    guest.used = GiB;
    assert_wait(plan_guest_report(&guest, 1), 2 * GiB);
}

/* What was in flight is called off. */
static void test_late(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, GiB, 7 * GiB, 0, GiB);
    assert_wait(plan_guest_report(&guest, 3), 6 * GiB);
    plan_guest_obey(&guest, 7 * GiB - UNIT);
    guest.ms += 5250;
    assert_hold(plan_guest_next(&guest, false), NO_STATISTICS, 7 * GiB - UNIT);
    assert_wait(plan_guest_report(&guest, 100), 6 * GiB - UNIT);
}

/* --- growing, a branch each --- */

static void test_checkpoints(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 4 * GiB, 0, 8 * GiB, GiB);
    assert_wait(plan_guest_report(&guest, 3), GiB);
    assert_wait(plan_guest_report(&guest, 250), GiB);
    plan_guest_obey(&guest, GiB);
    assert_wait(plan_guest_report(&guest, 250), 2 * GiB + 256 * MiB);
    assert_done(plan_guest_obey(&guest, 8 * GiB), 2 * GiB + 256 * MiB);
}

/* A guest without a balloon driver: by arithmetic, and in the same steps. */
static void test_growth_unseen(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 128 * MiB, 0, 64 * GiB, 0);
    guest.ms += 4999;
    assert_wait(plan_guest_next(&guest, false), 0);
    guest.ms++;
    assert_wait(plan_guest_next(&guest, false), GiB);
    assert_wait(plan_guest_next(&guest, false), GiB);
    assert_wait(plan_guest_obey(&guest, GiB), 2 * GiB);
    assert_end(plan_guest_obey(&guest, 2 * GiB), GROWTH_LIMIT, 2 * GiB);
    plan_guest_begin(&guest, GiB, 0, UNIT, 0);
    guest.ms += 5000;
    assert_wait(plan_guest_next(&guest, false), UNIT);
    assert_done(plan_guest_obey(&guest, UNIT), UNIT);
}

/* From then on what it says counts, by what is plugged then. */
static void test_growth_seen_late(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 128 * MiB, 0, 64 * GiB, 0);
    guest.goal.boot = 256 * MiB;
    virtio_mem_plan_begin(&guest.plan, &guest.goal, guest.ms);
    guest.ms += 5000;
    assert_wait(plan_guest_next(&guest, false), GiB);
    plan_guest_obey(&guest, GiB);
    assert_wait(plan_guest_report(&guest, 250), 2 * GiB);
    guest.offline = GiB;
    plan_guest_obey(&guest, 2 * GiB);
    guest.ms += 5000;
    assert_end(plan_guest_next(&guest, true), GUEST_MEMORY_OFFLINE, 2 * GiB);
}

static void test_growth_limit(void)
{
    PlanGuest guest;
    uint64_t ask = 0;

    plan_guest_begin(&guest, 128 * MiB, 0, 64 * GiB, 0);
    for (int i = 0; i < 2; i++) {
        ask = plan_guest_report(&guest, 250).ask;
        plan_guest_obey(&guest, ask);
    }
    g_assert_cmphex(ask, ==, 2 * GiB);
    assert_end(plan_guest_report(&guest, 250), GROWTH_LIMIT, 2 * GiB);
}

/* All of them share what is not theirs. */
static void test_growth_limit_of_all(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 3 * GiB + 128 * MiB, 0, 64 * GiB, 0);
    guest.others = 3 * GiB;
    assert_end(plan_guest_report(&guest, 3), GROWTH_LIMIT, 0);
}

/* Two that grow at once: what the other one has by now is not left. */
static void test_growth_limit_moves(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 128 * MiB, 0, 64 * GiB, 0);
    assert_wait(plan_guest_report(&guest, 3), GiB);
    plan_guest_obey(&guest, GiB);
    guest.others = GiB;
    guest.boot += GiB;
    assert_end(plan_guest_report(&guest, 250), GROWTH_LIMIT, GiB);
}

/* What another device loses meanwhile is not memory that stays unused. */
static void test_growth_beside_shrink(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 4 * GiB, 0, 2 * GiB, GiB);
    guest.others = 2 * GiB;
    assert_wait(plan_guest_report(&guest, 3), GiB);
    plan_guest_obey(&guest, GiB);
    guest.others -= GiB;
    guest.boot -= GiB;
    assert_wait(plan_guest_report(&guest, 250), 2 * GiB);
}

/* Three quarters of what was plugged, to the byte; or it is not known. */
static void test_online(void)
{
    g_assert_true(virtio_mem_plan_is_online(GiB, 4 * GiB, 4 * GiB));
    g_assert_false(virtio_mem_plan_is_online(GiB, 4 * GiB - 1, 4 * GiB));
    g_assert_true(virtio_mem_plan_is_online(GiB, GiB, 0));
    g_assert_true(virtio_mem_plan_is_online(UINT64_MAX, 0, GiB));
    g_assert_true(virtio_mem_plan_is_online(GiB, UINT64_MAX, GiB));
}

static void test_offline(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 4 * GiB, 0, 8 * GiB, GiB);
    assert_wait(plan_guest_report(&guest, 3), GiB);
    guest.offline = GiB;
    plan_guest_obey(&guest, GiB);
    for (int i = 0; i < 4; i++) {
        assert_wait(plan_guest_report(&guest, 1000), GiB);
    }
    assert_end(plan_guest_report(&guest, 1000), GUEST_MEMORY_OFFLINE, GiB);
}

static void test_growth_hurts(void)
{
    PlanGuest guest;

    for (int i = 0; i < 2; i++) {
        plan_guest_begin(&guest, 4 * GiB, 0, 8 * GiB, GiB);
        assert_wait(plan_guest_report(&guest, 3), GiB);
        plan_guest_obey(&guest, GiB);
        assert_wait(plan_guest_report(&guest, 250), 2 * GiB + 256 * MiB);
        plan_guest_obey(&guest, 2 * GiB);
        *(i ? &guest.said.oom_kills : &guest.said.alloc_stalls) += 1;
        assert_end(plan_guest_report(&guest, 250), GUEST_OUT_OF_MEMORY, GiB);
    }
}

/* What a silent guest unplugged meanwhile is not asked for again. */
static void test_growth_hurts_less_is_plugged(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 4 * GiB, 0, 8 * GiB, GiB);
    assert_wait(plan_guest_report(&guest, 3), GiB);
    plan_guest_obey(&guest, GiB);
    assert_wait(plan_guest_report(&guest, 250), 2 * GiB + 256 * MiB);
    assert_wait(plan_guest_obey(&guest, UNIT), 2 * GiB + 256 * MiB);
    guest.ms += 5250;
    assert_hold(plan_guest_next(&guest, false), NO_STATISTICS, UNIT);
    guest.said.oom_kills += 1;
    assert_end(plan_guest_report(&guest, 100), GUEST_OUT_OF_MEMORY, UNIT);
}

/* Memory for a guest that waits for some already is what it needs. */
static void test_growth_helps(void)
{
    PlanGuest guest;

    plan_guest_begin(&guest, 4 * GiB, 0, GiB, 4 * GiB - 16 * MiB);
    assert_wait(plan_guest_report(&guest, 3), GiB);
    guest.said.alloc_stalls += 1;
    assert_wait(plan_guest_report(&guest, 250), GiB);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/plan/no-report-no-step",
                    test_no_report_no_step);
    g_test_add_func("/virtio-mem/plan/report-says-nothing", test_empty_report);
    g_test_add_func("/virtio-mem/plan/reserve", test_reserve);
    g_test_add_func("/virtio-mem/plan/half-of-the-surplus", test_step);
    g_test_add_func("/virtio-mem/plan/one-step-one-verdict", test_one_verdict);
    g_test_add_func("/virtio-mem/plan/last-unit", test_last_unit);
    g_test_add_func("/virtio-mem/plan/stop", test_stop);
    g_test_add_func("/virtio-mem/plan/give-back", test_give_back);
    g_test_add_func("/virtio-mem/plan/give-back-twice", test_give_back_twice);
    g_test_add_func("/virtio-mem/plan/give-back-all", test_give_back_all);
    g_test_add_func("/virtio-mem/plan/oom-kill", test_oom_kill);
    g_test_add_func("/virtio-mem/plan/swap", test_swap);
    g_test_add_func("/virtio-mem/plan/done", test_done);
    g_test_add_func("/virtio-mem/plan/hold", test_hold);
    g_test_add_func("/virtio-mem/plan/late-report", test_late);
    g_test_add_func("/virtio-mem/plan/checkpoints", test_checkpoints);
    g_test_add_func("/virtio-mem/plan/growth-limit", test_growth_limit);
    g_test_add_func("/virtio-mem/plan/growth-unseen", test_growth_unseen);
    g_test_add_func("/virtio-mem/plan/growth-seen-late",
                    test_growth_seen_late);
    g_test_add_func("/virtio-mem/plan/growth-limit-of-all",
                    test_growth_limit_of_all);
    g_test_add_func("/virtio-mem/plan/growth-limit-moves",
                    test_growth_limit_moves);
    g_test_add_func("/virtio-mem/plan/growth-beside-shrink",
                    test_growth_beside_shrink);
    g_test_add_func("/virtio-mem/plan/memory-online", test_online);
    g_test_add_func("/virtio-mem/plan/memory-offline", test_offline);
    g_test_add_func("/virtio-mem/plan/growth-hurts", test_growth_hurts);
    g_test_add_func("/virtio-mem/plan/growth-hurts-less-is-plugged",
                    test_growth_hurts_less_is_plugged);
    g_test_add_func("/virtio-mem/plan/growth-helps", test_growth_helps);
    return g_test_run();
}
