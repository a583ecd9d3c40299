/*
 * virtio-mem's plan: whatever a guest reports, and does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "../../hw/virtio/virtio-mem-plan.h"
#include "../unit/virtio-mem-fuzz.h"

/* Small ones, or any: a guest may say what it likes. */
static uint64_t take_size(FuzzInput *input)
{
    const uint8_t kind = fuzz_take(input, 1);

    if (kind < 224) {
        return fuzz_take(input, 2) * MiB;
    }
    return kind == 255 ? UINT64_MAX : fuzz_take(input, 8);
}

static BalloonGuestStats take_report(FuzzInput *input)
{
    return (BalloonGuestStats) {
        .total = take_size(input),
        .available = take_size(input),
        .swap_out = take_size(input),
        .oom_kills = take_size(input),
        .alloc_stalls = take_size(input),
    };
}

static void take_goal(FuzzInput *input, VirtIOMEMPlanGoal *goal)
{
    goal->start = fuzz_take(input, 3) * MiB;
    goal->wish = fuzz_take(input, 3) * MiB;
    goal->unit = MiB << fuzz_take(input, 1) % 12;
    goal->reserve = take_size(input);
    goal->boot = take_size(input);
}

/* What the header promises of each advice. */
static void check_advice(const VirtIOMEMPlanGoal *goal, uint64_t plugged,
                         const VirtIOMEMPlanAdvice *advice)
{
    const bool there = goal->wish < goal->start ? plugged <= goal->wish
                                                : plugged >= goal->wish;

    g_assert_cmphex(advice->ask, >=, MIN(goal->start, goal->wish));
    g_assert_cmphex(advice->ask, <=, MAX(goal->start, goal->wish));
    g_assert_cmpint(advice->poll_ms, >, 0);
    switch (advice->verdict) {
    case VIRTIO_MEM_PLAN_DONE:
        g_assert_true(there || advice->ask == goal->wish);
        /* fall through */
    case VIRTIO_MEM_PLAN_WAIT:
        g_assert_cmpint(advice->reason, ==, VIRTIO_MEM_NO_REASON);
        break;
    case VIRTIO_MEM_PLAN_HOLD:
        g_assert_cmpint(advice->reason, !=, VIRTIO_MEM_NO_REASON);
        break;
    default:
        g_assert_cmpint(advice->verdict, ==, VIRTIO_MEM_PLAN_END);
    }
}

/* A step down leaves the reserve to a guest that has what it was asked for. */
static void check_step(const VirtIOMEMPlan *plan, uint64_t plugged,
                       uint64_t before, uint64_t ask)
{
    uint64_t available, reserve;

    if (ask >= before || ask >= plugged) {
        return;
    }
    g_assert_true(virtio_mem_plan_get_available(plan, &available, &reserve));
    g_assert_cmphex(MIN(plugged, before) - ask, <=,
                    available - MIN(reserve, available));
}

/* A guest may give back all it has; what it plugs is within the ask. */
static uint64_t take_plugged(FuzzInput *input, uint64_t ask, uint64_t plugged)
{
    return MIN(fuzz_take(input, 3) * MiB, MAX(ask, plugged));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    VirtIOMEMPlanGoal goal;
    VirtIOMEMPlanAdvice advice = { .verdict = VIRTIO_MEM_PLAN_WAIT };
    VirtIOMEMPlanNow now = { .ms = 1000 };
    VirtIOMEMPlan plan;

    take_goal(&input, &goal);
    virtio_mem_plan_begin(&plan, &goal, now.ms);
    advice.ask = goal.start;
    now.plugged = goal.start;
    while (input.len && advice.verdict <= VIRTIO_MEM_PLAN_HOLD) {
        const uint8_t what = fuzz_take(&input, 1);
        const uint64_t before = advice.ask;
        BalloonGuestStats report;

        now.ms += fuzz_take(&input, what & 1 ? 2 : 1);
        if (what & 2) {
            now.plugged = what & 4 ? before : take_plugged(&input, before,
                                                           now.plugged);
        }
        if (what & 8) {
            now.others = take_size(&input);
            now.others_asked = take_size(&input);
        }
        if (what & 16) {
            report = take_report(&input);
        }
        now.report = what & 16 ? &report : NULL;
        now.report_is_old = what & 32;
        advice = virtio_mem_plan_next(&plan, &now);
        check_advice(&goal, now.plugged, &advice);
        if (goal.wish < goal.start) {
            check_step(&plan, now.plugged, before, advice.ask);
        }
    }
    return 0;
}
