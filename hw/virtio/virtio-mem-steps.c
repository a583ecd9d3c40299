/*
 * The steps of a resize of a virtio-mem device in mode safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "system/balloon.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "trace.h"
#include "virtio-mem-baton.h"
#include "virtio-mem-config.h"
#include "virtio-mem-plan.h"
#include "virtio-mem-region.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-status.h"
#include "virtio-mem-steps.h"
#include "virtio-mem-unit.h"
#include "virtio-mem-work.h"

/* A report that does not come is asked for again, and may be late. */
#define STEPS_REPOLL_MS 1000

/* A driver that sleeps is reminded after that, and after twice that, ... */
#define STEPS_FIRST_REMINDER_MS 10000
#define STEPS_NB_REMINDERS 3

/* Then it is seldom asked how it is, but before a report is late. */
#define STEPS_STUCK_MS (STEPS_FIRST_REMINDER_MS << STEPS_NB_REMINDERS)
#define STEPS_STUCK_POLL_MS 4000

typedef struct VirtIOMEMSteps {
    VirtIOMEM *vmem;
    bool active;                /* a plan goes on */
    VirtIOMEMStepsEnd *end;     /* called when it ended by itself */
    VirtIOMEMPlan plan;
    int64_t late_ms;            /* by which the plan's clock is late */
    int64_t paused_ms;          /* when it was stopped; -1: it goes */
    bool step_is_over;          /* the guest has what it was asked for */
    bool should_poll;           /* ask for a report now, and else ... */
    int64_t poll_at_ms;         /* ... then */
    bool is_asked;              /* the balloon was asked for one ... */
    bool ask_is_old;            /* ... before the plugged size changed */
    bool has_report;
    bool report_is_old;         /* it was asked for before that */
    BalloonGuestStats report;
    unsigned int nb_reminders;  /* in this silence */
    QEMUTimer *timer;           /* guest time: stands still with it */
    QEMUBH *bh;
    Notifier size_notifier;
    Notifier report_notifier;
    VirtIOMEMRunner runner;
    QLIST_ENTRY(VirtIOMEMSteps) next;
} VirtIOMEMSteps;

/* All of the machine. */
static QLIST_HEAD(, VirtIOMEMSteps) steps_of_all =
    QLIST_HEAD_INITIALIZER(steps_of_all);

static const char *const steps_verdicts[] = {
    [VIRTIO_MEM_PLAN_WAIT] = "wait",
    [VIRTIO_MEM_PLAN_HOLD] = "hold",
    [VIRTIO_MEM_PLAN_DONE] = "done",
    [VIRTIO_MEM_PLAN_END] = "end",
};

static bool steps_shrinks(const VirtIOMEMSteps *steps)
{
    return steps->plan.goal.wish < steps->plan.goal.start;
}

/* --- whether, and when --- */

static bool steps_is_obstructed(const VirtIOMEMSteps *steps)
{
    return virtio_mem_status_obstacle(steps->vmem) != VIRTIO_MEM_NO_REASON;
}

/* A growth takes nothing from the others, nor does one that is there. */
static bool steps_take_baton(VirtIOMEMSteps *steps)
{
    return !steps_shrinks(steps) ||
           virtio_mem_plugged_size(steps->vmem) <= steps->plan.goal.wish ||
           virtio_mem_baton_take(&steps->runner);
}

static bool steps_guest_has_obeyed(const VirtIOMEMSteps *steps)
{
    return virtio_mem_plugged_size(steps->vmem) == steps->vmem->asked_size;
}

/* The guest does not do what it is asked for, and was reminded. */
static bool steps_is_stuck(const VirtIOMEMSteps *steps)
{
    return !steps_guest_has_obeyed(steps) &&
           virtio_mem_status_silence_ms(steps->vmem) >= STEPS_STUCK_MS;
}

/* --- time --- */

static int64_t steps_clock_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

/* For the plan, no time passes while the guest cannot go on. */
static void steps_pause(VirtIOMEMSteps *steps)
{
    if (steps->paused_ms < 0) {
        steps->paused_ms = steps_clock_ms();
        timer_del(steps->timer);
    }
    if (steps_is_obstructed(steps)) {
        virtio_mem_baton_pass(&steps->runner, false);
        steps->poll_at_ms = 0;
    }
    steps->has_report = false;
}

/* What was put off for longer than that is due now. */
static void steps_unpause(VirtIOMEMSteps *steps)
{
    if (steps->paused_ms >= 0) {
        steps->late_ms += steps_clock_ms() - steps->paused_ms;
        steps->paused_ms = -1;
        steps->should_poll = steps_clock_ms() >= steps->poll_at_ms;
    }
}

/* --- how --- */

void virtio_mem_steps_ask(VirtIOMEM *vmem, uint64_t size)
{
    if (size != vmem->asked_size) {
        virtio_mem_config_set_asked_size(vmem, size);
        virtio_mem_status_restart(vmem);
    }
}

void virtio_mem_steps_stop(VirtIOMEM *vmem)
{
    VirtIOMEMSteps *steps = vmem->steps;

    timer_del(steps->timer);
    steps->active = false;
    virtio_mem_status_hold(vmem, VIRTIO_MEM_NO_REASON);
    virtio_mem_baton_pass(&steps->runner, false);
}

/* All that the machine has and no device of this kind. */
static uint64_t steps_other_memory(void)
{
    uint64_t size = MACHINE(qdev_get_machine())->ram_size +
                    get_plugged_memory_size();
    const VirtIOMEMSteps *each;

    QLIST_FOREACH(each, &steps_of_all, next) {
        size -= virtio_mem_plugged_size(each->vmem);
    }
    return size;
}

void virtio_mem_steps_begin(VirtIOMEM *vmem, uint64_t reserve)
{
    VirtIOMEMSteps *steps = vmem->steps;
    VirtIOMEMPlanGoal goal = {
        .wish = vmem->requested_size,
        .unit = MAX(virtio_mem_unit_of_guest(), vmem->block_size),
        .reserve = reserve,
        .boot = steps_other_memory(),
    };

    /* Nothing may come on top of what is asked for then. */
    virtio_mem_drain(vmem);
    goal.start = virtio_mem_plugged_size(vmem);
    trace_virtio_mem_resize_begin(goal.start, goal.wish, goal.reserve);
    virtio_mem_plan_begin(&steps->plan, &goal, steps_clock_ms());
    steps->active = true;
    steps->late_ms = 0;
    steps->paused_ms = -1;
    steps->is_asked = false;
    steps->has_report = false;
    steps->step_is_over = false;
    steps->should_poll = true;
    steps->nb_reminders = 0;
    /* An older wish may not have been fulfilled yet. */
    virtio_mem_steps_ask(vmem, goal.start);
    qemu_bh_schedule(steps->bh);
}

/*
 * The plan is over.  What is plugged stays, and a request in flight may still
 * change that.
 */
static void steps_end(VirtIOMEMSteps *steps, const VirtIOMEMPlanAdvice *advice)
{
    VirtIOMEM *vmem = steps->vmem;
    uint64_t ask = advice->ask;

    virtio_mem_steps_stop(vmem);
    if (advice->verdict == VIRTIO_MEM_PLAN_DONE) {
        ask = vmem->requested_size;
    } else if (ask == virtio_mem_plugged_size(vmem)) {
        virtio_mem_drain(vmem);
        ask = virtio_mem_plugged_size(vmem);
    }
    virtio_mem_steps_ask(vmem, ask);
    virtio_mem_status_hold(vmem, advice->reason);
    steps->end(vmem, advice->reason);
}

/* Linux sleeps for long after it failed, although it could go on now. */
static void steps_remind(VirtIOMEMSteps *steps)
{
    VirtIOMEM *vmem = steps->vmem;
    const int64_t silence_ms = virtio_mem_status_silence_ms(vmem);

    if (steps_guest_has_obeyed(steps) ||
        silence_ms < STEPS_FIRST_REMINDER_MS) {
        steps->nb_reminders = 0;
    } else if (steps->nb_reminders < STEPS_NB_REMINDERS &&
               silence_ms >= STEPS_FIRST_REMINDER_MS <<
                             steps->nb_reminders) {
        steps->nb_reminders++;
        virtio_mem_stats_add(vmem, VIRTIO_MEM_REMINDERS, 1);
        trace_virtio_mem_resize_remind(silence_ms);
        virtio_notify_config(VIRTIO_DEVICE(vmem));
    }
}

/* A step towards the wish, or back: the latter counts from what is plugged. */
static void steps_count(const VirtIOMEMSteps *steps, uint64_t ask)
{
    VirtIOMEM *vmem = steps->vmem;
    const uint64_t plugged = virtio_mem_plugged_size(vmem);

    if (ask == vmem->asked_size) {
        return;
    }
    if (ask > plugged && steps_shrinks(steps)) {
        virtio_mem_stats_add(vmem, VIRTIO_MEM_GIVEN_BACK_BYTES, ask - plugged);
    } else if (ask < plugged && !steps_shrinks(steps)) {
        virtio_mem_stats_add(vmem, VIRTIO_MEM_GIVEN_BACK_BYTES, plugged - ask);
    } else if (ask != plugged) {
        virtio_mem_stats_add(vmem, VIRTIO_MEM_STEPS, 1);
    }
}

static void steps_follow(VirtIOMEMSteps *steps,
                         const VirtIOMEMPlanAdvice *advice)
{
    VirtIOMEM *vmem = steps->vmem;

    steps_count(steps, advice->ask);
    if (advice->verdict > VIRTIO_MEM_PLAN_HOLD) {
        steps_end(steps, advice);
        return;
    }
    virtio_mem_steps_ask(vmem, advice->ask);
    virtio_mem_status_hold(vmem, advice->reason);
    steps_remind(steps);
}

/* How long to wait for a report, before it is asked for again. */
static int64_t steps_repoll_ms(const VirtIOMEMSteps *steps)
{
    const VirtIOMEMPlanAdvice *advice = &steps->plan.advice;

    if (steps_is_stuck(steps)) {
        return STEPS_STUCK_POLL_MS;
    }
    return advice->verdict == VIRTIO_MEM_PLAN_HOLD ? advice->poll_ms
                                                   : STEPS_REPOLL_MS;
}

static void steps_poll(VirtIOMEMSteps *steps)
{
    steps->should_poll = false;
    steps->poll_at_ms = steps_clock_ms() + steps_repoll_ms(steps);
    /* One that is on its way is not asked for again. */
    steps->ask_is_old = steps->ask_is_old && steps->is_asked;
    steps->is_asked = qemu_balloon_request_stats();
    trace_virtio_mem_resize_poll(steps->is_asked);
}

static VirtIOMEMPlanNow steps_look(const VirtIOMEMSteps *steps)
{
    const VirtIOMEMSteps *other;
    VirtIOMEMPlanNow now = {
        .ms = steps_clock_ms() - steps->late_ms,
        .plugged = virtio_mem_plugged_size(steps->vmem),
        .report = steps->has_report ? &steps->report : NULL,
        .report_is_old = steps->report_is_old,
    };

    QLIST_FOREACH(other, &steps_of_all, next) {
        if (other != steps) {
            const uint64_t plugged = virtio_mem_plugged_size(other->vmem);

            now.others += plugged;
            now.others_asked += MAX(plugged, other->vmem->asked_size);
        }
    }
    return now;
}

/* With the report, if one came: what comes next. */
static VirtIOMEMPlanAdvice steps_plan(VirtIOMEMSteps *steps)
{
    const VirtIOMEMPlanNow now = steps_look(steps);

    steps->has_report = false;
    return virtio_mem_plan_next(&steps->plan, &now);
}

static void steps_advance(VirtIOMEMSteps *steps)
{
    const bool news = steps->has_report;
    const bool is_outdated = news && steps->report_is_old &&
                         steps_guest_has_obeyed(steps);
    VirtIOMEMPlanAdvice advice = steps_plan(steps);
    const char *reason = "";

    /* What is being plugged counts, or the guest would unplug it at once. */
    if (advice.verdict == VIRTIO_MEM_PLAN_HOLD &&
        advice.ask < steps->vmem->asked_size) {
        virtio_mem_drain(steps->vmem);
        advice = steps_plan(steps);
    }
    if (news && !steps_is_stuck(steps)) {
        steps->poll_at_ms = steps_clock_ms() + advice.poll_ms;
    }
    if (is_outdated && advice.verdict == VIRTIO_MEM_PLAN_WAIT) {
        /* The step is over, and this one does not know of its end. */
        steps->should_poll = true;
    }
    if (advice.reason != VIRTIO_MEM_NO_REASON) {
        reason = VirtioMEMResizeReason_str(advice.reason);
    }
    trace_virtio_mem_resize_advice(steps_verdicts[advice.verdict], reason,
                                   advice.ask);
    steps_follow(steps, &advice);
}

static void steps_go_on(VirtIOMEMSteps *steps)
{
    if (steps->step_is_over) {
        steps->step_is_over = false;
        virtio_mem_baton_pass(&steps->runner, true);
        qemu_bh_schedule(steps->bh);
        return;
    }
    if (steps->should_poll) {
        steps_poll(steps);
    }
    timer_mod(steps->timer, steps->poll_at_ms);
    /* It waits for the guest, which may be long. */
    if (steps->plan.advice.verdict == VIRTIO_MEM_PLAN_HOLD ||
        steps_is_stuck(steps)) {
        virtio_mem_baton_pass(&steps->runner, false);
    }
}

static void steps_handle(void *opaque)
{
    VirtIOMEMSteps *steps = opaque;

    if (!steps->active) {
        return;
    }
    if (steps_is_obstructed(steps) || !steps_take_baton(steps)) {
        steps_pause(steps);
        return;
    }
    steps_unpause(steps);
    steps_advance(steps);
    if (steps->active) {
        steps_go_on(steps);
    }
}

static void steps_handle_timer(void *opaque)
{
    VirtIOMEMSteps *steps = opaque;

    steps->should_poll = true;
    steps_handle(steps);
}

/* A step is complete: see at once what it came to. */
static void steps_handle_size(Notifier *notifier, void *data)
{
    VirtIOMEMSteps *steps = container_of(notifier, VirtIOMEMSteps,
                                         size_notifier);
    const uint64_t *size = data;

    /* What the guest says, or has said, may be from before. */
    steps->ask_is_old = true;
    steps->report_is_old = true;
    if (steps->active && *size == steps->vmem->asked_size) {
        steps->step_is_over = true;
        steps->should_poll = true;
        qemu_bh_schedule(steps->bh);
    }
}

/* What was not asked for costs nothing, however often it comes. */
static void steps_take_report(Notifier *notifier, void *data)
{
    VirtIOMEMSteps *steps = container_of(notifier, VirtIOMEMSteps,
                                         report_notifier);
    const BalloonGuestStats *report = data;

    if (!steps->active || !steps->is_asked) {
        return;
    }
    steps->is_asked = false;
    if (steps->paused_ms >= 0) {
        return;
    }
    trace_virtio_mem_resize_report(report->total, report->available);
    steps->has_report = true;
    steps->report_is_old = steps->ask_is_old;
    steps->report = *report;
    qemu_bh_schedule(steps->bh);
}

/* --- begin and end --- */

bool virtio_mem_steps_are_active(const VirtIOMEM *vmem)
{
    return vmem->steps->active;
}

bool virtio_mem_steps_await_baton(const VirtIOMEM *vmem)
{
    return virtio_mem_baton_is_awaited(&vmem->steps->runner);
}

bool virtio_mem_steps_get_available(const VirtIOMEM *vmem,
                                    uint64_t *available, uint64_t *reserve)
{
    return virtio_mem_plan_get_available(&vmem->steps->plan, available,
                                         reserve);
}

void virtio_mem_steps_realize(VirtIOMEM *vmem, VirtIOMEMStepsEnd *end)
{
    VirtIOMEMSteps *steps = g_new0(VirtIOMEMSteps, 1);

    vmem->steps = steps;
    steps->vmem = vmem;
    steps->end = end;
    steps->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, steps_handle_timer,
                                steps);
    steps->bh = virtio_bh_new_guarded(DEVICE(vmem), steps_handle, steps);
    virtio_mem_status_on_obstacle(vmem, steps->bh);
    steps->size_notifier.notify = steps_handle_size;
    notifier_list_add(&vmem->size_change_notifiers, &steps->size_notifier);
    steps->report_notifier.notify = steps_take_report;
    qemu_balloon_add_stats_notifier(&steps->report_notifier);
    virtio_mem_baton_join(&steps->runner, steps->bh);
    QLIST_INSERT_HEAD(&steps_of_all, steps, next);
}

void virtio_mem_steps_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMSteps *steps = vmem->steps;

    virtio_mem_steps_stop(vmem);
    virtio_mem_baton_leave(&steps->runner);
    QLIST_REMOVE(steps, next);
    notifier_remove(&steps->report_notifier);
    notifier_remove(&steps->size_notifier);
    virtio_mem_status_on_obstacle(vmem, NULL);
    qemu_bh_delete(steps->bh);
    timer_free(steps->timer);
    g_clear_pointer(&vmem->steps, g_free);
}
