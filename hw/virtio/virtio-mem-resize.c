/*
 * The engine of resizes of a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "system/balloon.h"
#include "trace.h"
#include "virtio-mem-config.h"
#include "virtio-mem-plan.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-status.h"
#include "virtio-mem-turn.h"
#include "virtio-mem-unit.h"
#include "virtio-mem-work.h"

/* A report that does not come is asked for again, and may be late. */
#define RESIZE_REPOLL_MS 1000

/* A driver that sleeps is reminded after that, and after twice that, ... */
#define RESIZE_FIRST_REMINDER_MS 10000
#define RESIZE_NB_REMINDERS 3

/* The memory map takes a 64th. */
#define RESIZE_MOST_OF_BOOT 64

typedef struct VirtIOMEMResize VirtIOMEMResize;

struct VirtIOMEMResize {
    VirtIOMEM *vmem;
    bool active;                /* a plan goes on */
    VirtIOMEMPlan plan;
    int64_t late_ms;            /* by which the plan's clock is late */
    int64_t paused_ms;          /* when it was stopped; -1: it goes */
    bool step_is_over;          /* the guest has what it was asked for */
    bool should_poll;           /* ask for a report now, and else ... */
    int64_t poll_at_ms;         /* ... then */
    bool is_asked;              /* the balloon was asked for one */
    bool has_report;
    VirtIOMEMPlanReport report;
    unsigned int nb_reminders;  /* in this silence */
    QEMUTimer *timer;           /* guest time: stands still with it */
    QEMUBH *bh;
    Notifier size_notifier;
    Notifier report_notifier;
    VirtIOMEMTurn turn;
    QLIST_ENTRY(VirtIOMEMResize) next;
};

/* All of the machine. */
static QLIST_HEAD(, VirtIOMEMResize) resizes =
    QLIST_HEAD_INITIALIZER(resizes);

static const char *const resize_verdicts[] = {
    [VIRTIO_MEM_PLAN_WAIT] = "wait",
    [VIRTIO_MEM_PLAN_HOLD] = "hold",
    [VIRTIO_MEM_PLAN_DONE] = "done",
    [VIRTIO_MEM_PLAN_END] = "end",
};

static VirtioMEMResizeReason resize_reason(VirtIOMEMPlanReason reason)
{
    static const VirtioMEMResizeReason reasons[] = {
        [VIRTIO_MEM_PLAN_NO_REASON] = VIRTIO_MEM_NO_REASON,
        [VIRTIO_MEM_PLAN_LOW_MEMORY] =
            VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY,
        [VIRTIO_MEM_PLAN_SWAPPING] = VIRTIO_MEM_RESIZE_REASON_GUEST_SWAPPING,
        [VIRTIO_MEM_PLAN_OUT_OF_MEMORY] =
            VIRTIO_MEM_RESIZE_REASON_GUEST_OUT_OF_MEMORY,
        [VIRTIO_MEM_PLAN_MEMORY_OFFLINE] =
            VIRTIO_MEM_RESIZE_REASON_GUEST_MEMORY_OFFLINE,
        [VIRTIO_MEM_PLAN_GROWTH_LIMIT] = VIRTIO_MEM_RESIZE_REASON_GROWTH_LIMIT,
        [VIRTIO_MEM_PLAN_NO_STATISTICS] =
            VIRTIO_MEM_RESIZE_REASON_NO_STATISTICS,
    };

    return reasons[reason];
}

static bool resize_shrinks(const VirtIOMEMResize *resize)
{
    return resize->plan.goal.wish < resize->plan.goal.start;
}

/* --- whether, and when --- */

static bool resize_is_obstructed(const VirtIOMEMResize *resize)
{
    return virtio_mem_status_obstacle(resize->vmem) != VIRTIO_MEM_NO_REASON;
}

/* A growth takes nothing from the others. */
static bool resize_take_turn(VirtIOMEMResize *resize)
{
    return !resize_shrinks(resize) || virtio_mem_turn_take(&resize->turn);
}

/* --- time --- */

static int64_t resize_clock_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

/* For the plan, no time passes while the guest cannot go on. */
static void resize_pause(VirtIOMEMResize *resize)
{
    if (resize->paused_ms < 0) {
        resize->paused_ms = resize_clock_ms();
        timer_del(resize->timer);
    }
    if (resize_is_obstructed(resize)) {
        virtio_mem_turn_pass(&resize->turn, false);
        resize->poll_at_ms = 0;
    }
    resize->is_asked = false;
    resize->has_report = false;
}

/* What was put off for longer than that is due now. */
static void resize_unpause(VirtIOMEMResize *resize)
{
    if (resize->paused_ms >= 0) {
        resize->late_ms += resize_clock_ms() - resize->paused_ms;
        resize->paused_ms = -1;
        resize->should_poll = resize_clock_ms() >= resize->poll_at_ms;
    }
}

/* --- how --- */

static void resize_ask(VirtIOMEM *vmem, uint64_t size)
{
    if (size != vmem->asked_size) {
        virtio_mem_change_asked_size(vmem, size);
        virtio_mem_status_restart(vmem);
    }
}

void virtio_mem_resize_stop(VirtIOMEM *vmem)
{
    VirtIOMEMResize *resize = vmem->resize;

    timer_del(resize->timer);
    resize->active = false;
    virtio_mem_status_hold(vmem, VIRTIO_MEM_NO_REASON);
    virtio_mem_turn_pass(&resize->turn, false);
}

static uint64_t resize_size_of_others(const VirtIOMEMResize *resize)
{
    const VirtIOMEMResize *other;
    uint64_t size = 0;

    QLIST_FOREACH(other, &resizes, next) {
        if (other != resize) {
            size += virtio_mem_plugged_size(other->vmem);
        }
    }
    return size;
}

static void resize_begin(VirtIOMEMResize *resize)
{
    VirtIOMEM *vmem = resize->vmem;
    const VirtIOMEMPlanGoal goal = {
        .start = virtio_mem_plugged_size(vmem),
        .wish = vmem->requested_size,
        .unit = MAX(virtio_mem_unit_of_guest(), vmem->block_size),
        .reserve = vmem->resize_reserve,
        .others = resize_size_of_others(resize),
    };

    trace_virtio_mem_resize_begin(goal.start, goal.wish, goal.reserve);
    virtio_mem_plan_begin(&resize->plan, &goal, resize_clock_ms());
    resize->active = true;
    resize->late_ms = 0;
    resize->paused_ms = -1;
    resize->is_asked = false;
    resize->has_report = false;
    resize->step_is_over = false;
    resize->should_poll = true;
    resize->nb_reminders = 0;
    /* An older wish may not have been fulfilled yet. */
    resize_ask(vmem, goal.start);
    qemu_bh_schedule(resize->bh);
}

/*
 * The plan is over.  What is plugged stays, and a request in flight may still
 * change that.
 */
static void resize_end(VirtIOMEMResize *resize,
                       const VirtIOMEMPlanAdvice *advice)
{
    VirtIOMEM *vmem = resize->vmem;
    uint64_t ask = advice->ask;

    virtio_mem_resize_stop(vmem);
    if (advice->verdict == VIRTIO_MEM_PLAN_DONE) {
        ask = vmem->requested_size;
    } else if (ask == virtio_mem_plugged_size(vmem)) {
        virtio_mem_drain(vmem);
        ask = virtio_mem_plugged_size(vmem);
    }
    resize_ask(vmem, ask);
    virtio_mem_status_hold(vmem, resize_reason(advice->reason));
}

/* Linux sleeps for long after it failed, although it could go on now. */
static void resize_remind(VirtIOMEMResize *resize)
{
    VirtIOMEM *vmem = resize->vmem;
    const int64_t silence_ms = virtio_mem_status_silence_ms(vmem);

    if (virtio_mem_plugged_size(vmem) == vmem->asked_size ||
        silence_ms < RESIZE_FIRST_REMINDER_MS) {
        resize->nb_reminders = 0;
    } else if (resize->nb_reminders < RESIZE_NB_REMINDERS &&
               silence_ms >= RESIZE_FIRST_REMINDER_MS <<
                             resize->nb_reminders) {
        resize->nb_reminders++;
        trace_virtio_mem_resize_remind(silence_ms);
        virtio_notify_config(VIRTIO_DEVICE(vmem));
    }
}

static void resize_follow(VirtIOMEMResize *resize,
                          const VirtIOMEMPlanAdvice *advice)
{
    VirtIOMEM *vmem = resize->vmem;

    if (advice->verdict > VIRTIO_MEM_PLAN_HOLD) {
        resize_end(resize, advice);
        return;
    }
    resize_ask(vmem, advice->ask);
    virtio_mem_status_hold(vmem, resize_reason(advice->reason));
    resize_remind(resize);
}

static void resize_poll(VirtIOMEMResize *resize)
{
    resize->should_poll = false;
    resize->poll_at_ms = resize_clock_ms() + RESIZE_REPOLL_MS;
    resize->is_asked = qemu_balloon_request_stats();
    trace_virtio_mem_resize_poll(resize->is_asked);
}

/* With the report, if one came: what comes next. */
static void resize_advance(VirtIOMEMResize *resize)
{
    const bool news = resize->has_report;
    const VirtIOMEMPlanNow now = {
        .ms = resize_clock_ms() - resize->late_ms,
        .plugged = virtio_mem_plugged_size(resize->vmem),
        .report = news ? &resize->report : NULL,
    };
    const VirtIOMEMPlanAdvice advice = virtio_mem_plan_next(&resize->plan,
                                                            &now);
    const char *reason = "";

    resize->has_report = false;
    if (news) {
        resize->poll_at_ms = resize_clock_ms() + advice.poll_ms;
    }
    if (advice.reason != VIRTIO_MEM_PLAN_NO_REASON) {
        reason = VirtioMEMResizeReason_str(resize_reason(advice.reason));
    }
    trace_virtio_mem_resize_advice(resize_verdicts[advice.verdict], reason,
                                   advice.ask);
    resize_follow(resize, &advice);
}

static void resize_go_on(VirtIOMEMResize *resize)
{
    if (resize->step_is_over) {
        resize->step_is_over = false;
        virtio_mem_turn_pass(&resize->turn, true);
        qemu_bh_schedule(resize->bh);
        return;
    }
    if (resize->should_poll) {
        resize_poll(resize);
    }
    timer_mod(resize->timer, resize->poll_at_ms);
    /* It waits for the guest to have more, which may be long. */
    if (resize->plan.advice.verdict == VIRTIO_MEM_PLAN_HOLD) {
        virtio_mem_turn_pass(&resize->turn, false);
    }
}

static void resize_handle(void *opaque)
{
    VirtIOMEMResize *resize = opaque;

    if (!resize->active) {
        return;
    }
    if (resize_is_obstructed(resize) || !resize_take_turn(resize)) {
        resize_pause(resize);
        return;
    }
    resize_unpause(resize);
    resize_advance(resize);
    if (resize->active) {
        resize_go_on(resize);
    }
}

static void resize_handle_timer(void *opaque)
{
    VirtIOMEMResize *resize = opaque;

    resize->should_poll = true;
    resize_handle(resize);
}

/* A step is complete: see at once what it came to. */
static void resize_handle_size(Notifier *notifier, void *data)
{
    VirtIOMEMResize *resize = container_of(notifier, VirtIOMEMResize,
                                           size_notifier);
    const uint64_t *size = data;

    if (resize->active && *size == resize->vmem->asked_size) {
        resize->step_is_over = true;
        resize->should_poll = true;
        qemu_bh_schedule(resize->bh);
    }
}

/* What was not asked for costs nothing, however often it comes. */
static void resize_take_report(Notifier *notifier, void *data)
{
    VirtIOMEMResize *resize = container_of(notifier, VirtIOMEMResize,
                                           report_notifier);
    const BalloonGuestStats *stats = data;

    if (!resize->active || !resize->is_asked) {
        return;
    }
    trace_virtio_mem_resize_report(stats->total, stats->available);
    resize->is_asked = false;
    resize->has_report = true;
    resize->report = (VirtIOMEMPlanReport) {
        .total = stats->total,
        .available = stats->available,
        .swap_out = stats->swap_out,
        .oom_kills = stats->oom_kills,
        .alloc_stalls = stats->alloc_stalls,
    };
    qemu_bh_schedule(resize->bh);
}

/* --- what others want --- */

bool virtio_mem_resize_check_mode(MemoryDeviceResizeMode mode, Error **errp)
{
    if (mode == MEMORY_DEVICE_RESIZE_MODE_SAFE &&
        !qemu_balloon_has_stats_source()) {
        error_setg(errp, "'%s' is 'safe', which needs a balloon device whose"
                   " driver tells what the guest can spare, and there is none;"
                   " add one, such as virtio-balloon-pci, or set it to"
                   " 'plain'", VIRTIO_MEM_RESIZE_MODE_PROP);
        return false;
    }
    return true;
}

void virtio_mem_resize_restart(VirtIOMEM *vmem)
{
    virtio_mem_resize_stop(vmem);
    if (vmem->resize_mode == MEMORY_DEVICE_RESIZE_MODE_PLAIN ||
        virtio_mem_plugged_size(vmem) == vmem->requested_size) {
        resize_ask(vmem, vmem->requested_size);
    } else {
        resize_begin(vmem->resize);
    }
    virtio_mem_status_restart(vmem);
}

/* Also in mode safe, if all that is wished for is asked for already. */
static void resize_wish_plain(VirtIOMEM *vmem)
{
    virtio_mem_resize_stop(vmem);
    virtio_mem_change_asked_size(vmem, vmem->requested_size);
    virtio_mem_status_restart(vmem);
}

bool virtio_mem_resize_wish(VirtIOMEM *vmem, uint64_t size, Error **errp)
{
    const bool is_new = size != vmem->requested_size;

    if (!virtio_mem_resize_check_mode(vmem->resize_mode, errp)) {
        return false;
    }
    vmem->requested_size = size;
    if (vmem->resize_mode == MEMORY_DEVICE_RESIZE_MODE_PLAIN ||
        size == virtio_mem_plugged_size(vmem)) {
        resize_wish_plain(vmem);
    } else if (is_new || !vmem->resize->active) {
        virtio_mem_resize_restart(vmem);
    } else {
        virtio_notify_config(VIRTIO_DEVICE(vmem));
    }
    return true;
}

void virtio_mem_resize_leave(VirtIOMEM *vmem)
{
    virtio_mem_resize_stop(vmem);
    vmem->requested_size = vmem->asked_size;
    virtio_mem_status_update(vmem);
}

void virtio_mem_resize_system_reset(VirtIOMEM *vmem)
{
    if (vmem->asked_size < vmem->requested_size) {
        virtio_mem_resize_restart(vmem);
    } else {
        virtio_mem_resize_stop(vmem);
        resize_ask(vmem, vmem->requested_size);
    }
}

/* --- life --- */

/* Said once: of the device with which it became too much. */
static void resize_warn_of_size(const VirtIOMEM *vmem)
{
    const uint64_t boot = MACHINE(qdev_get_machine())->ram_size;
    const VirtIOMEMResize *resize;
    uint64_t others = 0, all;

    QLIST_FOREACH(resize, &resizes, next) {
        others += virtio_mem_region_size(resize->vmem);
    }
    all = others + virtio_mem_region_size(vmem);
    if (all / RESIZE_MOST_OF_BOOT > boot &&
        others / RESIZE_MOST_OF_BOOT <= boot) {
        warn_report("virtio-mem '%s': with it, such devices have 0x%" PRIx64
                    " bytes, more than %d times the boot memory (0x%" PRIx64
                    "): no Linux that brings all of that online as movable can"
                    " use it, as the memory map does not fit",
                    virtio_mem_name(vmem), all, RESIZE_MOST_OF_BOOT, boot);
    }
}

void virtio_mem_resize_realize(VirtIOMEM *vmem)
{
    VirtIOMEMResize *resize = g_new0(VirtIOMEMResize, 1);

    resize_warn_of_size(vmem);
    vmem->resize = resize;
    resize->vmem = vmem;
    resize->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, resize_handle_timer,
                                 resize);
    resize->bh = virtio_bh_new_guarded(DEVICE(vmem), resize_handle, resize);
    virtio_mem_status_on_obstacle(vmem, resize->bh);
    resize->size_notifier.notify = resize_handle_size;
    notifier_list_add(&vmem->size_change_notifiers, &resize->size_notifier);
    resize->report_notifier.notify = resize_take_report;
    qemu_balloon_add_stats_notifier(&resize->report_notifier);
    virtio_mem_turn_join(&resize->turn, resize->bh);
    QLIST_INSERT_HEAD(&resizes, resize, next);
    if (vmem->asked_size != vmem->requested_size) {
        resize_begin(resize);
    }
}

void virtio_mem_resize_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMResize *resize = vmem->resize;

    virtio_mem_resize_stop(vmem);
    virtio_mem_turn_leave(&resize->turn);
    QLIST_REMOVE(resize, next);
    notifier_remove(&resize->report_notifier);
    notifier_remove(&resize->size_notifier);
    virtio_mem_status_on_obstacle(vmem, NULL);
    qemu_bh_delete(resize->bh);
    timer_free(resize->timer);
    g_clear_pointer(&vmem->resize, g_free);
}
