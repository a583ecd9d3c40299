/*
 * What to ask the guest of a virtio-mem device for next.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "virtio-mem-plan.h"

#define PLAN_LEAST_RESERVE (256 * MiB)
#define PLAN_RESERVE_PART 16
#define PLAN_STEP (1 * GiB)
#define PLAN_STEP_PART 8
#define PLAN_SWAP (64 * MiB)
#define PLAN_CHECKPOINT (1 * GiB)
#define PLAN_CHECKPOINT_PART 4
/* A 64th of memory is its map, so this is a quarter of the other memory. */
#define PLAN_GROWTH_LIMIT 16

#define PLAN_POLL_MS 250
#define PLAN_LATE_MS 5000           /* a report */
#define PLAN_COOL_MS 10000          /* after giving memory back */
#define PLAN_WATCH_MS 2000          /* what a guest does that has the wish */
#define PLAN_ONLINE_MS 5000         /* for the guest to use what it plugged */
#define PLAN_HOLD_POLL_MS 2000
#define PLAN_LAST_HOLD_POLL_MS 16000

uint64_t virtio_mem_plan_reserve(uint64_t total)
{
    if (total == UINT64_MAX) {
        return PLAN_LEAST_RESERVE;
    }
    return MAX(PLAN_LEAST_RESERVE, total / PLAN_RESERVE_PART);
}

/* --- between two reports --- */

/* A guest that does not count them has had none. */
static bool plan_grew(uint64_t first, uint64_t last, uint64_t by)
{
    return first != UINT64_MAX && last != UINT64_MAX && last > first &&
           last - first >= by;
}

VirtioMEMResizeReason virtio_mem_plan_harm(const BalloonGuestStats *first,
                                           const BalloonGuestStats *last)
{
    if (plan_grew(first->oom_kills, last->oom_kills, 1)) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_OUT_OF_MEMORY;
    }
    return plan_grew(first->swap_out, last->swap_out, PLAN_SWAP)
           ? VIRTIO_MEM_RESIZE_REASON_GUEST_SWAPPING : VIRTIO_MEM_NO_REASON;
}

/* Three quarters are enough to tell: the memory map is not part of it. */
bool virtio_mem_plan_is_online(uint64_t first, uint64_t last, uint64_t grown)
{
    return first == UINT64_MAX || last == UINT64_MAX ||
           last >= first + grown / 4 * 3;
}

/* --- what is known --- */

static bool plan_shrinks(const VirtIOMEMPlan *plan)
{
    return plan->goal.wish < plan->goal.start;
}

static uint64_t plan_reserve(const VirtIOMEMPlan *plan)
{
    return plan->goal.reserve ?: virtio_mem_plan_reserve(plan->last.total);
}

static VirtioMEMResizeReason plan_harm(const VirtIOMEMPlan *plan)
{
    return virtio_mem_plan_harm(&plan->first, &plan->last);
}

static bool plan_has_oom(const VirtIOMEMPlan *plan)
{
    return plan_harm(plan) == VIRTIO_MEM_RESIZE_REASON_GUEST_OUT_OF_MEMORY;
}

static bool plan_is_late(const VirtIOMEMPlan *plan, int64_t ms)
{
    return ms - plan->due_ms >= PLAN_LATE_MS;
}

static bool plan_note_plugged(VirtIOMEMPlan *plan, const VirtIOMEMPlanNow *now)
{
    if (now->plugged == plan->plugged) {
        return false;
    }
    plan->plugged = now->plugged;
    plan->changed_ms = now->ms;
    return true;
}

/* One that does not say what matters is none. */
static void plan_note_report(VirtIOMEMPlan *plan, const VirtIOMEMPlanNow *now)
{
    const BalloonGuestStats *report = now->report;

    plan->news = report && report->available != UINT64_MAX &&
                 report->total != UINT64_MAX;
    if (!plan->news) {
        return;
    }
    if (!plan->has_first) {
        plan->has_first = true;
        plan->first = *report;
        plan->first_plugged = now->plugged;
        plan->first_others = now->others;
    }
    plan->last = *report;
}

/* --- verdicts --- */

/* Never beyond the wish, nor back behind the start. */
static void plan_set_ask(VirtIOMEMPlan *plan, uint64_t ask, int64_t ms)
{
    assert(ask >= MIN(plan->goal.start, plan->goal.wish));
    assert(ask <= MAX(plan->goal.start, plan->goal.wish));
    if (ask != plan->ask) {
        plan->ask = ask;
        plan->changed_ms = ms;
    }
}

static VirtIOMEMPlanAdvice plan_advise(const VirtIOMEMPlan *plan,
                                       VirtIOMEMPlanVerdict verdict,
                                       VirtioMEMResizeReason reason)
{
    return (VirtIOMEMPlanAdvice) { verdict, reason, plan->ask, PLAN_POLL_MS };
}

static VirtIOMEMPlanAdvice plan_wait(VirtIOMEMPlan *plan)
{
    plan->hold_poll_ms = PLAN_HOLD_POLL_MS;
    return plan_advise(plan, VIRTIO_MEM_PLAN_WAIT, VIRTIO_MEM_NO_REASON);
}

/* What is plugged is within bounds, even if the guest did not obey. */
static uint64_t plan_settled(const VirtIOMEMPlan *plan)
{
    const VirtIOMEMPlanGoal *goal = &plan->goal;

    return MIN(MAX(plan->plugged, MIN(goal->start, goal->wish)),
               MAX(goal->start, goal->wish));
}

/* An end in which nothing more is asked of the guest. */
static VirtIOMEMPlanAdvice plan_end(VirtIOMEMPlan *plan,
                                    VirtioMEMResizeReason reason, int64_t ms)
{
    plan_set_ask(plan, plan_settled(plan), ms);
    return plan_advise(plan, VIRTIO_MEM_PLAN_END, reason);
}

/* Have reports asked for less and less often while nothing changes. */
static VirtIOMEMPlanAdvice plan_hold(VirtIOMEMPlan *plan,
                                     VirtioMEMResizeReason reason)
{
    VirtIOMEMPlanAdvice advice = plan_advise(plan, VIRTIO_MEM_PLAN_HOLD,
                                             reason);

    assert(reason != VIRTIO_MEM_NO_REASON);
    assert(plan->hold_poll_ms >= PLAN_HOLD_POLL_MS);
    advice.poll_ms = plan->hold_poll_ms;
    plan->hold_poll_ms = MIN(2 * plan->hold_poll_ms, PLAN_LAST_HOLD_POLL_MS);
    return advice;
}

/* The wish is there: see for a while whether the guest can live with it. */
static VirtIOMEMPlanAdvice plan_watch(VirtIOMEMPlan *plan, int64_t ms)
{
    assert(plan_shrinks(plan) && plan->plugged <= plan->goal.wish);
    if (plan->reached_ms < 0) {
        plan->reached_ms = ms;
    }
    return plan_advise(plan, ms - plan->reached_ms >= PLAN_WATCH_MS
                             ? VIRTIO_MEM_PLAN_DONE : VIRTIO_MEM_PLAN_WAIT,
                       VIRTIO_MEM_NO_REASON);
}

/* --- shrinking --- */

/* The guest took what the shrink counted on: let it have that back. */
static VirtIOMEMPlanAdvice plan_give_back(VirtIOMEMPlan *plan, int64_t ms)
{
    const uint64_t reserve = plan_reserve(plan);
    const uint64_t lack = reserve - MIN(reserve, plan->last.available);
    const uint64_t more = ROUND_UP(MAX(lack, 1), plan->goal.unit);
    const uint64_t ask = MAX(plan->ask, plan_settled(plan) + more);
    const VirtioMEMResizeReason reason =
        plan_has_oom(plan) ? VIRTIO_MEM_RESIZE_REASON_GUEST_OUT_OF_MEMORY
                           : VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY;

    assert(plan_shrinks(plan) && plan->has_first);
    plan_set_ask(plan, MIN(plan->goal.start, ask), ms);
    plan->cool_ms = ms + PLAN_COOL_MS;
    plan->first.oom_kills = plan->last.oom_kills;
    plan->reached_ms = -1;
    return plan_hold(plan, reason);
}

/* How much to ask the guest for less; 0: nothing. */
static uint64_t plan_step_down(const VirtIOMEMPlan *plan)
{
    const VirtIOMEMPlanGoal *goal = &plan->goal;
    const uint64_t reserve = plan_reserve(plan);
    const uint64_t left = plan_settled(plan) - goal->wish;
    uint64_t surplus, step;

    assert(plan->plugged > goal->wish);
    if (plan->last.available <= reserve) {
        return 0;
    }
    surplus = plan->last.available - reserve;
    step = MIN(surplus / 2, MAX(PLAN_STEP, plan->last.total / PLAN_STEP_PART));
    step = ROUND_DOWN(MIN(step, left), goal->unit);
    /* Half a unit of hysteresis, so that a guest at the edge is left alone. */
    if (!step && surplus >= goal->unit + goal->unit / 2) {
        step = MIN(goal->unit, left);
    }
    assert(step <= surplus && step <= left);
    return step;
}

/* The guest has what it was asked for, and said what it can spare then. */
static VirtIOMEMPlanAdvice plan_decide_down(VirtIOMEMPlan *plan, int64_t ms)
{
    uint64_t step;

    assert(plan->plugged <= plan->ask);
    if (plan_harm(plan) == VIRTIO_MEM_RESIZE_REASON_GUEST_SWAPPING) {
        return plan_end(plan, VIRTIO_MEM_RESIZE_REASON_GUEST_SWAPPING, ms);
    }
    if (plan->plugged <= plan->goal.wish) {
        return plan_watch(plan, ms);
    }
    plan->reached_ms = -1;
    step = ms < plan->cool_ms ? 0 : plan_step_down(plan);
    if (!step) {
        return plan_hold(plan, VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY);
    }
    plan_set_ask(plan, plan_settled(plan) - step, ms);
    return plan_wait(plan);
}

static VirtIOMEMPlanAdvice plan_shrink(VirtIOMEMPlan *plan, int64_t ms)
{
    const uint64_t available = plan->last.available;

    if (plan->news &&
        (available < plan_reserve(plan) / 2 || plan_has_oom(plan))) {
        return plan_give_back(plan, ms);
    }
    if (plan->plugged > plan->ask) {
        if (plan->news && available < plan_reserve(plan)) {
            plan_set_ask(plan, plan_settled(plan), ms);
            return plan_hold(plan, VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY);
        }
        return plan_wait(plan);
    }
    return plan->is_fresh ? plan_decide_down(plan, ms) : plan_wait(plan);
}

/* --- growing --- */

/* The largest size whose memory map the rest of the guest's memory can bear. */
static uint64_t plan_growth_limit(const VirtIOMEMPlan *plan)
{
    const VirtIOMEMPlanGoal *goal = &plan->goal;
    const uint64_t ours = plan->first_plugged + plan->first_others;
    const uint64_t rest = plan->has_first
                          ? plan->first.total - MIN(plan->first.total, ours)
                          : goal->boot;
    const uint64_t all = rest > UINT64_MAX / PLAN_GROWTH_LIMIT
                         ? UINT64_MAX : rest * PLAN_GROWTH_LIMIT;
    const uint64_t limit = all - MIN(all, plan->others_asked);

    return MIN(goal->wish, ROUND_DOWN(limit, goal->unit));
}

/* Other devices may shrink meanwhile. */
static bool plan_is_used(const VirtIOMEMPlan *plan)
{
    const uint64_t grown = plan->plugged - MIN(plan->plugged,
                                               plan->first_plugged);
    const uint64_t gone = plan->first_others - MIN(plan->first_others,
                                                   plan->others);

    return virtio_mem_plan_is_online(plan->first.total,
                                     plan->last.total + gone, grown);
}

/* What came last was too much.  A guest may have less by now, unasked. */
static VirtIOMEMPlanAdvice plan_take_back(VirtIOMEMPlan *plan, int64_t ms)
{
    assert(!plan_shrinks(plan));
    plan_set_ask(plan, MIN(plan->checkpoint, plan->ask), ms);
    return plan_advise(plan, VIRTIO_MEM_PLAN_END,
                       VIRTIO_MEM_RESIZE_REASON_GUEST_OUT_OF_MEMORY);
}

static VirtIOMEMPlanAdvice plan_step_up(VirtIOMEMPlan *plan, int64_t ms)
{
    const uint64_t limit = plan_growth_limit(plan);
    const uint64_t step = ROUND_UP(MAX(PLAN_CHECKPOINT, plan->last.total /
                                       PLAN_CHECKPOINT_PART),
                                   plan->goal.unit);

    assert(!plan_shrinks(plan) && plan->plugged >= plan->ask);
    plan->checkpoint = plan_settled(plan);
    if (plan->checkpoint >= limit) {
        return plan_end(plan, VIRTIO_MEM_RESIZE_REASON_GROWTH_LIMIT, ms);
    }
    plan_set_ask(plan, plan->checkpoint + MIN(step, limit - plan->checkpoint),
                 ms);
    return plan_wait(plan);
}

/* Bringing memory online takes a guest some moments. */
static VirtIOMEMPlanAdvice plan_await_use(VirtIOMEMPlan *plan, int64_t ms)
{
    return ms - plan->changed_ms < PLAN_ONLINE_MS
           ? plan_wait(plan)
           : plan_end(plan, VIRTIO_MEM_RESIZE_REASON_GUEST_MEMORY_OFFLINE, ms);
}

/* A guest that had too little before waits for memory, whatever we do. */
static bool plan_growth_hurts(const VirtIOMEMPlan *plan)
{
    return plan->first.available >= plan_reserve(plan) &&
           plan_grew(plan->first.alloc_stalls, plan->last.alloc_stalls, 1);
}

static VirtIOMEMPlanAdvice plan_grow(VirtIOMEMPlan *plan, int64_t ms)
{
    if (plan_has_oom(plan) || plan_growth_hurts(plan)) {
        return plan_take_back(plan, ms);
    }
    if (plan->plugged >= plan->goal.wish) {
        return plan_advise(plan, VIRTIO_MEM_PLAN_DONE,
                           VIRTIO_MEM_NO_REASON);
    }
    if (!plan->is_fresh) {
        return plan_wait(plan);
    }
    if (!plan_is_used(plan)) {
        return plan_await_use(plan, ms);
    }
    return plan->plugged < plan->ask ? plan_wait(plan)
                                     : plan_step_up(plan, ms);
}

/* The guest has no balloon driver, or not yet: the limit holds all the same. */
static VirtIOMEMPlanAdvice plan_grow_unseen(VirtIOMEMPlan *plan, int64_t ms)
{
    assert(!plan_shrinks(plan) && !plan->has_first);
    if (plan->plugged >= plan->goal.wish) {
        return plan_advise(plan, VIRTIO_MEM_PLAN_DONE,
                           VIRTIO_MEM_NO_REASON);
    }
    return plan->plugged < plan->ask ? plan_wait(plan)
                                     : plan_step_up(plan, ms);
}

/* --- both --- */

/* What is not known cannot be judged; at the goal, it need not be. */
static VirtIOMEMPlanAdvice plan_fall_silent(VirtIOMEMPlan *plan, int64_t ms)
{
    if (!plan->has_first && !plan_shrinks(plan)) {
        return plan_grow_unseen(plan, ms);
    }
    plan_set_ask(plan, plan_settled(plan), ms);
    return plan->ask == plan->goal.wish
           ? plan_advise(plan, VIRTIO_MEM_PLAN_DONE, VIRTIO_MEM_NO_REASON)
           : plan_hold(plan, VIRTIO_MEM_RESIZE_REASON_NO_STATISTICS);
}

static VirtIOMEMPlanAdvice plan_judge(VirtIOMEMPlan *plan, bool moved,
                                      int64_t ms)
{
    if (plan_is_late(plan, ms)) {
        return plan_fall_silent(plan, ms);
    }
    if (!plan->has_first || !(plan->news || moved)) {
        return plan->advice;
    }
    return plan_shrinks(plan) ? plan_shrink(plan, ms) : plan_grow(plan, ms);
}

void virtio_mem_plan_begin(VirtIOMEMPlan *plan, const VirtIOMEMPlanGoal *goal,
                           int64_t ms)
{
    assert(is_power_of_2(goal->unit));
    *plan = (VirtIOMEMPlan) {
        .goal = *goal, .ask = goal->start, .checkpoint = goal->start,
        .plugged = goal->start,
        .changed_ms = ms, .due_ms = ms, .cool_ms = ms, .reached_ms = -1,
    };
    plan->advice = plan_wait(plan);
}

VirtIOMEMPlanAdvice virtio_mem_plan_next(VirtIOMEMPlan *plan,
                                         const VirtIOMEMPlanNow *now)
{
    bool moved;

    assert(plan->advice.verdict <= VIRTIO_MEM_PLAN_HOLD);
    plan->others = now->others;
    plan->others_asked = now->others_asked;
    moved = plan_note_plugged(plan, now);
    plan_note_report(plan, now);
    plan->is_fresh = plan->news && !moved && !now->report_is_old;
    if (plan->news) {
        /* In time, for what follows. */
        plan->due_ms = now->ms;
    }
    plan->advice = plan_judge(plan, moved, now->ms);
    assert(plan->advice.ask == plan->ask && plan->advice.poll_ms > 0);
    if (plan->news) {
        plan->due_ms = now->ms + plan->advice.poll_ms;
    }
    return plan->advice;
}

bool virtio_mem_plan_get_available(const VirtIOMEMPlan *plan,
                                   uint64_t *available, uint64_t *reserve)
{
    if (!plan->has_first) {
        return false;
    }
    *available = plan->last.available;
    *reserve = plan_reserve(plan);
    return true;
}
