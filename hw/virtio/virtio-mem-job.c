/*
 * The job "memory-device-resize" of a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/job.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-machine.h"
#include "system/runstate.h"
#include "virtio-mem-check.h"
#include "virtio-mem-job.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-status.h"
#include "virtio-mem-steps.h"

/* How often it looks at its limits, which are seconds. */
#define JOB_TICK_MS 1000

#define JOB_STALL_TIMEOUT_S 60

typedef struct VirtIOMEMResizeJob {
    Job common;
    VirtIOMEM *vmem;                /* NULL: gone */
    MemoryDeviceResize args;        /* with all defaults filled in */
    uint64_t start;                 /* plugged then */
    uint64_t best;                  /* the largest way from there so far */
    int64_t seen_ms;                /* when it looked last */
    int64_t elapsed_ms;             /* guest time in which it could go on */
    int64_t idle_ms;                /* since it came closer, but for waits */
    bool is_over;
    VirtioMEMResizeReason reason;   /* why it failed; or VIRTIO_MEM_NO_REASON */
    bool is_settled;                /* the wish is not the job's any more */
} VirtIOMEMResizeJob;

/* What a device has for its jobs. */
typedef struct VirtIOMEMJobs {
    VirtIOMEMResizeJob *now;        /* or NULL */
    VirtioMEMLastResize *last;      /* or NULL */
    QEMUTimer *timer;               /* guest time: stands still with it */
    QEMUBH *bh;
    Notifier size_notifier;
} VirtIOMEMJobs;

static int64_t job_clock_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

/* --- what the coroutine is woken by --- */

/* Entering a paused job resumes it, so do that only to end it. */
static void job_handle(void *opaque)
{
    VirtIOMEM *vmem = opaque;
    VirtIOMEMResizeJob *job = vmem->jobs->now;

    if (job && (job->is_over || !job_is_paused(&job->common))) {
        job_enter(&job->common);
    }
}

static void job_handle_size(Notifier *notifier, void *data)
{
    VirtIOMEMJobs *jobs = container_of(notifier, VirtIOMEMJobs, size_notifier);

    if (jobs->now) {
        qemu_bh_schedule(jobs->bh);
    }
}

static void job_end(VirtIOMEMResizeJob *job, VirtioMEMResizeReason reason)
{
    job->is_over = true;
    job->reason = reason;
}

/* The wish is not the job's any more, unless it was fulfilled. */
static void job_handle_over(void *opaque, VirtioMEMResizeReason reason)
{
    VirtIOMEMResizeJob *job = opaque;

    job->is_settled = reason != VIRTIO_MEM_NO_REASON;
    if (!job->is_over) {
        job_end(job, reason);
    }
    qemu_bh_schedule(job->vmem->jobs->bh);
}

/* --- while it runs --- */

/* What stops the guest stops the job's clock. */
static bool job_stands_still(const VirtIOMEMResizeJob *job)
{
    switch (virtio_mem_status_obstacle(job->vmem)) {
    case VIRTIO_MEM_RESIZE_REASON_GUEST_STOPPED:
    case VIRTIO_MEM_RESIZE_REASON_GUEST_SUSPENDED:
    case VIRTIO_MEM_RESIZE_REASON_MIGRATION:
        return true;
    default:
        return false;
    }
}

/* No tick comes while the VM is stopped. */
static void job_note_time(VirtIOMEMResizeJob *job)
{
    const int64_t now_ms = job_clock_ms();
    const int64_t passed_ms = MIN(now_ms - job->seen_ms, JOB_TICK_MS);

    if (!job_stands_still(job)) {
        job->elapsed_ms += passed_ms;
        if (!virtio_mem_steps_await_baton(job->vmem)) {
            job->idle_ms += passed_ms;
        }
    }
    job->seen_ms = now_ms;
}

/* Progress never falls, also if the guest goes back or reboots. */
static void job_note_progress(VirtIOMEMResizeJob *job)
{
    const uint64_t plugged = virtio_mem_plugged_size(job->vmem);
    uint64_t way = 0;

    if (job->args.size < job->start) {
        way = job->start - MAX(job->args.size, MIN(job->start, plugged));
    } else {
        way = MIN(job->args.size, MAX(job->start, plugged)) - job->start;
    }
    if (way > job->best) {
        job_progress_update(&job->common, way - job->best);
        job->best = way;
        job->idle_ms = 0;
    }
}

static bool job_has_plan(const VirtIOMEMResizeJob *job)
{
    return job->args.mode == MEMORY_DEVICE_RESIZE_MODE_SAFE &&
           job->args.size != job->start;
}

/* The guest's balloon driver has reported nothing since the job began. */
static bool job_is_unanswered(const VirtIOMEMResizeJob *job)
{
    uint64_t available, reserve;

    return job_has_plan(job) &&
           virtio_mem_status_reason(job->vmem) ==
           VIRTIO_MEM_RESIZE_REASON_NO_STATISTICS &&
           !virtio_mem_steps_get_available(job->vmem, &available, &reserve);
}

static bool job_is_past(int64_t ms, uint32_t limit_s)
{
    return limit_s && ms >= (int64_t)limit_s * 1000;
}

static void job_look(VirtIOMEMResizeJob *job)
{
    job_note_time(job);
    job_note_progress(job);
    /* What is unplugged before a state is loaded says nothing yet. */
    if (job->is_over || runstate_check(RUN_STATE_RESTORE_VM)) {
        return;
    }
    if (virtio_mem_resize_is_done(job->vmem)) {
        job_end(job, VIRTIO_MEM_NO_REASON);
    } else if (job_is_unanswered(job)) {
        job_end(job, VIRTIO_MEM_RESIZE_REASON_NO_STATISTICS);
    } else if (job_is_past(job->elapsed_ms, job->args.deadline)) {
        job_end(job, VIRTIO_MEM_RESIZE_REASON_DEADLINE);
    } else if (job_is_past(job->idle_ms, job->args.stall_timeout)) {
        job_end(job, virtio_mem_status_reason(job->vmem));
    }
}

static void coroutine_fn job_follow(VirtIOMEMResizeJob *job)
{
    while (job->vmem && !job->is_over && !job_is_cancelled(&job->common)) {
        job_look(job);
        if (!job->is_over) {
            timer_mod(job->vmem->jobs->timer, job_clock_ms() + JOB_TICK_MS);
            job_yield(&job->common);
        }
    }
}

static void job_order(VirtIOMEMResizeJob *job)
{
    const VirtIOMEMResizeOrder order = {
        .size = job->args.size,
        .mode = job->args.mode,
        .reserve = job->args.reserve,
        .over = job_handle_over,
        .opaque = job,
    };

    virtio_mem_resize_order(job->vmem, &order);
}

/* Nothing is asked of the guest meanwhile. */
static void coroutine_fn job_handle_pause(Job *common)
{
    VirtIOMEMResizeJob *job = container_of(common, VirtIOMEMResizeJob, common);

    if (!job->vmem) {
        return;
    }
    job_look(job);
    if (job->is_over) {
        qemu_bh_schedule(job->vmem->jobs->bh);
        return;
    }
    timer_del(job->vmem->jobs->timer);
    virtio_mem_resize_settle(job->vmem);
    job->is_settled = true;
}

static void coroutine_fn job_handle_resume(Job *common)
{
    VirtIOMEMResizeJob *job = container_of(common, VirtIOMEMResizeJob, common);

    if (!job->vmem || job->is_over || job_is_cancelled(common)) {
        return;
    }
    job->seen_ms = job_clock_ms();
    job->is_settled = false;
    job_order(job);
}

/* --- its end --- */

/* The reason, and in mode safe what it was decided by. */
static char *job_explain(const VirtIOMEMResizeJob *job)
{
    const char *name = VirtioMEMResizeReason_str(job->reason);
    uint64_t available, reserve;

    if (job->reason == VIRTIO_MEM_RESIZE_REASON_GROWTH_LIMIT) {
        return g_strdup_printf("%s (the memory map of more would take too much"
                               " of the rest of the guest's memory; with"
                               " 'auto-movable' in the guest, mode 'plain'"
                               " goes on)", name);
    }
    if (job->reason == VIRTIO_MEM_RESIZE_REASON_NO_STATISTICS) {
        return g_strdup_printf("%s (the guest's balloon driver does not tell"
                               " what it can spare; load it, or use mode"
                               " 'plain')", name);
    }
    if (job_has_plan(job) &&
        (job->reason == VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY ||
         job->reason == VIRTIO_MEM_RESIZE_REASON_GUEST_MEMORY_IN_USE) &&
        virtio_mem_steps_get_available(job->vmem, &available, &reserve)) {
        return g_strdup_printf("%s (the guest has %" PRIu64 " bytes available"
                               " and its reserve is %" PRIu64 ")", name,
                               available, reserve);
    }
    return g_strdup(name);
}

static void job_tell_failure(const VirtIOMEMResizeJob *job, Error **errp)
{
    g_autofree char *reason = job_explain(job);

    error_setg(errp, "'%s' stays at %" PRIu64 " of %" PRIu64 " bytes requested:"
               " %s", job->args.id, virtio_mem_plugged_size(job->vmem),
               job->args.size, reason);
}

static void job_remember(const VirtIOMEMResizeJob *job)
{
    VirtioMEMLastResize *last = g_new0(VirtioMEMLastResize, 1);

    last->requested_size = job->args.size;
    last->size = virtio_mem_plugged_size(job->vmem);
    last->mode = job->args.mode;
    last->seconds = job->elapsed_ms / 1000;
    last->has_reason = job->reason != VIRTIO_MEM_NO_REASON;
    last->reason = last->has_reason ? job->reason : 0;
    last->has_available = last->has_reserve =
        job_has_plan(job) &&
        virtio_mem_steps_get_available(job->vmem, &last->available,
                                       &last->reserve);
    qapi_free_VirtioMEMLastResize(job->vmem->jobs->last);
    job->vmem->jobs->last = last;
}

/* The device keeps what was achieved, and is left alone. */
static int job_conclude(VirtIOMEMResizeJob *job, Error **errp)
{
    VirtIOMEMJobs *jobs = job->vmem->jobs;
    int ret = 0;

    if (!job->is_over) {
        job_end(job, VIRTIO_MEM_RESIZE_REASON_CANCELLED);
    }
    if (job->reason != VIRTIO_MEM_NO_REASON) {
        ret = -ECANCELED;
        if (!job->is_settled) {
            virtio_mem_resize_settle(job->vmem);
        }
        job_tell_failure(job, errp);
    }
    virtio_mem_resize_release(job->vmem);
    job_remember(job);
    timer_del(jobs->timer);
    jobs->now = NULL;
    return ret;
}

static int coroutine_fn job_run(Job *common, Error **errp)
{
    VirtIOMEMResizeJob *job = container_of(common, VirtIOMEMResizeJob, common);

    job_follow(job);
    if (!job->vmem) {
        error_setg(errp, "the device '%s' is gone", job->args.id);
        return -ENODEV;
    }
    return job_conclude(job, errp);
}

static void job_free(Job *common)
{
    VirtIOMEMResizeJob *job = container_of(common, VirtIOMEMResizeJob, common);

    g_free(job->args.job_id);
    g_free(job->args.id);
}

static const JobDriver job_driver = {
    .instance_size = sizeof(VirtIOMEMResizeJob),
    .job_type = JOB_TYPE_MEMORY_DEVICE_RESIZE,
    .run = job_run,
    .pause = job_handle_pause,
    .resume = job_handle_resume,
    .free = job_free,
};

/* --- its begin --- */

static void job_fill_args(const VirtIOMEM *vmem, const MemoryDeviceResize *from,
                          MemoryDeviceResize *args)
{
    *args = *from;
    if (!args->has_mode) {
        args->mode = vmem->resize_mode;
    }
    if (!args->has_reserve) {
        args->reserve = vmem->resize_reserve;
    }
    if (!args->has_stall_timeout) {
        args->stall_timeout = JOB_STALL_TIMEOUT_S;
    }
}

static bool job_check(const VirtIOMEM *vmem, const MemoryDeviceResize *args,
                      Error **errp)
{
    const char *running = virtio_mem_job_id(vmem);

    if (running) {
        error_setg(errp, "'%s' is resized by job '%s' already", args->id,
                   running);
        return false;
    }
    return virtio_mem_check_stays(vmem, "size", errp) &&
           virtio_mem_check_requested_size(vmem, "size", args->size, errp) &&
           virtio_mem_check_reserve("reserve", args->reserve, errp) &&
           virtio_mem_check_mode("mode", args->mode, errp);
}

void virtio_mem_job_start(VirtIOMEM *vmem, const MemoryDeviceResize *from,
                          Error **errp)
{
    const uint64_t plugged = virtio_mem_plugged_size(vmem);
    MemoryDeviceResize args;
    VirtIOMEMResizeJob *job;

    job_fill_args(vmem, from, &args);
    if (!job_check(vmem, &args, errp)) {
        return;
    }
    job = job_create(from->job_id, &job_driver, NULL, qemu_get_aio_context(),
                     JOB_MANUAL_DISMISS, NULL, NULL, errp);
    if (!job) {
        return;
    }
    job->vmem = vmem;
    job->args = args;
    job->args.job_id = g_strdup(from->job_id);
    job->args.id = g_strdup(from->id);
    job->start = plugged;
    job->seen_ms = job_clock_ms();
    job->reason = VIRTIO_MEM_NO_REASON;
    job_progress_set_remaining(&job->common, args.size > plugged
                                             ? args.size - plugged
                                             : plugged - args.size);
    vmem->jobs->now = job;
    job_order(job);
    job_start(&job->common);
}

/* --- what others see --- */

const char *virtio_mem_job_id(const VirtIOMEM *vmem)
{
    return vmem->jobs->now ? vmem->jobs->now->args.job_id : NULL;
}

void virtio_mem_job_fill_info(const VirtIOMEM *vmem, VirtioMEMDeviceInfo *info)
{
    info->resize_job = g_strdup(virtio_mem_job_id(vmem));
    if (vmem->jobs->last) {
        info->last_resize = QAPI_CLONE(VirtioMEMLastResize, vmem->jobs->last);
    }
}

/* --- life --- */

void virtio_mem_job_realize(VirtIOMEM *vmem)
{
    VirtIOMEMJobs *jobs = g_new0(VirtIOMEMJobs, 1);

    vmem->jobs = jobs;
    jobs->timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, job_handle, vmem);
    jobs->bh = virtio_bh_new_guarded(DEVICE(vmem), job_handle, vmem);
    jobs->size_notifier.notify = job_handle_size;
    notifier_list_add(&vmem->size_change_notifiers, &jobs->size_notifier);
}

/* A device that is removed by surprise may have a job still. */
void virtio_mem_job_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMJobs *jobs = vmem->jobs;
    VirtIOMEMResizeJob *job = jobs->now;

    notifier_remove(&jobs->size_notifier);
    qemu_bh_delete(jobs->bh);
    timer_free(jobs->timer);
    qapi_free_VirtioMEMLastResize(jobs->last);
    g_clear_pointer(&vmem->jobs, g_free);
    if (job) {
        virtio_mem_resize_settle(vmem);
        virtio_mem_resize_release(vmem);
        job->vmem = NULL;
        job_enter(&job->common);
    }
}
