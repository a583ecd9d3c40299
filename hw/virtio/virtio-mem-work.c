/*
 * Host work: populate the memory of virtio-mem blocks, or give it back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "system/replay.h"
#include "trace.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-scaling.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-threads.h"
#include "virtio-mem-work.h"

/*
 * To wake a thread and to wait costs more than to discard memory of which
 * little is populated, or which is in huge pages.  That is not known
 * beforehand, so to discard is tried in place for that long.  What is empty, as
 * the host can tell, is done in slices of any size meanwhile.
 */
#define WORK_TRY_US 500

typedef struct VirtIOMEMWorkKind {
    int (*do_slice)(const VirtIOMEM *vmem, uint64_t offset, uint64_t size,
                    Error **errp);
    VirtIOMEMCounter time;
    VirtIOMEMCounter bytes;
    bool populates;             /* long for sure; a drain may end it halfway */
} VirtIOMEMWorkKind;

/*
 * What is to be done, and how far it is.  Threads may come late, when all is
 * done: so each holds a reference.
 */
typedef struct VirtIOMEMWork {
    VirtIOMEMTask task;         /* the first member: it is the reference */

    /* Constant while anybody works. */
    const VirtIOMEMWorkKind *kind;
    VirtIOMEM *vmem;
    GThreadPool *threads;
    bool may_yield;
    bool away;                  /* a coroutine waits, not a thread */
    unsigned int nb_threads;

    Coroutine *co;              /* that waits; with the BQL */
    QemuEvent over;

    QemuMutex lock;             /* of all below */
    VirtIOMEMSlices slices;     /* their size is constant */
    unsigned int nb_working;    /* threads in a slice */
    unsigned int nb_present;    /* in one, or between two */
    unsigned int nb_recruited;  /* that take part, nb_threads at most */
    VirtIOMEMScaling *scaling;  /* how many should */
    bool is_handed_out;         /* no slice is left */
    bool is_over;               /* and none is worked on */
    int ret;                    /* the first failure ends the work */
    Error *err;
} VirtIOMEMWork;

/* --- slices --- */

/* Hand out the next slice, if there is one. */
static bool work_next(VirtIOMEMWork *work, VirtIOMEMSlice *slice)
{
    QEMU_LOCK_GUARD(&work->lock);

    if (work->is_over) {
        /* This thread came too late: neither device nor blocks may be left. */
        return false;
    }
    if (work->kind->populates && !work->ret &&
        virtio_mem_is_draining(work->vmem)) {
        work->ret = -ECANCELED;
        error_setg(&work->err, "canceled");
    }
    if (work->ret || !virtio_mem_slices_next(&work->slices, slice)) {
        work->is_handed_out = true;
        return false;
    }
    work->nb_working++;
    return true;
}

/* A slice took so long; the first failure is what counts. */
static void work_note(VirtIOMEMWork *work, int64_t us, int ret, Error *err)
{
    QEMU_LOCK_GUARD(&work->lock);

    assert(work->nb_working);
    work->nb_working--;
    virtio_mem_slices_note(&work->slices, us);
    work->ret = work->ret ?: ret;
    error_propagate(&work->err, err);
}

/* This thread was done with something else at @since. */
static void work_time(VirtIOMEMWork *work, uint64_t size, int64_t *since)
{
    const int64_t now = g_get_monotonic_time();
    QEMU_LOCK_GUARD(&work->lock);

    virtio_mem_scaling_note(work->scaling, work->nb_present, size,
                            now - *since, now);
    *since = now;
}

/*
 * False if there is no slice left for this thread; or if, @in_turns, a thread
 * will go on with it after other tasks that wait.  @since is NULL if this says
 * nothing about threads.
 */
static bool work_do_slice(VirtIOMEMWork *work, bool in_turns, int64_t *since)
{
    const int64_t start = g_get_monotonic_time();
    VirtIOMEMSlice slice;
    Error *err = NULL;
    bool is_passed_on;
    int64_t us;
    int ret;

    if (!work_next(work, &slice)) {
        return false;
    }
    ret = slice.is_empty ? 0 : work->kind->do_slice(work->vmem, slice.offset,
                                                    slice.size, &err);
    us = g_get_monotonic_time() - start;
    /* Before it counts as done: pool and device may go with the last slice. */
    if (since) {
        work_time(work, slice.size, since);
    }
    is_passed_on = in_turns && virtio_mem_threads_are_wanted(work->threads) &&
                   virtio_mem_threads_push(work->threads, &work->task);
    work_note(work, us, ret, err);
    return !is_passed_on;
}

/* Do what can be done in a short time.  False if something is left. */
static bool work_try(VirtIOMEMWork *work)
{
    const int64_t end = g_get_monotonic_time() + WORK_TRY_US;
    bool left = true;

    if (work->kind->populates) {
        return false;
    }

    virtio_mem_slices_take_empty(&work->slices, true);
    while (left && g_get_monotonic_time() < end) {
        left = work_do_slice(work, false, NULL);
    }
    virtio_mem_slices_take_empty(&work->slices, false);
    return !left;
}

/* --- by threads --- */

/* Go on with the coroutine, unless a drain did that. */
static void work_over_bh(void *opaque)
{
    VirtIOMEMWork *work = opaque;

    if (work->co) {
        qemu_coroutine_enter(g_steal_pointer(&work->co));
    }
    virtio_mem_threads_release(&work->task);
}

/* This thread is done.  The last one tells the caller, who waits. */
static void work_leave(VirtIOMEMWork *work)
{
    WITH_QEMU_LOCK_GUARD(&work->lock) {
        work->nb_present--;
        if (!work->is_handed_out || work->nb_working || work->is_over) {
            return;
        }
        work->is_over = true;
    }
    if (work->away) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), work_over_bh,
                                g_atomic_rc_box_acquire(work));
    }
    qemu_event_set(&work->over);
}

/*
 * A vCPU or the monitor may be waiting for this processor.  Not after each
 * short slice: on a busy host, it takes milliseconds to come back.
 */
static void work_yield(int64_t *yielded)
{
    const int64_t now = g_get_monotonic_time();

    if (now - *yielded >= VIRTIO_MEM_SLICES_LONG_CALL_US) {
        g_thread_yield();
        *yielded = g_get_monotonic_time();
    }
}

/* How many threads should take part.  With the work's lock, while it lasts. */
static unsigned int work_nb_wanted(const VirtIOMEMWork *work)
{
    return MIN(work->nb_threads, virtio_mem_scaling_wanted(work->scaling));
}

/* Have one more thread take part.  False if none will. */
static bool work_recruit(VirtIOMEMWork *work)
{
    WITH_QEMU_LOCK_GUARD(&work->lock) {
        if (work->is_handed_out ||
            work->nb_recruited >= work_nb_wanted(work)) {
            return false;
        }
        work->nb_recruited++;
    }
    return virtio_mem_threads_push(work->threads, &work->task);
}

/* Whether fewer threads get as much done: then this one may leave. */
static bool work_can_spare(VirtIOMEMWork *work)
{
    QEMU_LOCK_GUARD(&work->lock);

    if (work->is_handed_out || work->nb_recruited <= work_nb_wanted(work)) {
        return false;
    }
    work->nb_recruited--;
    return true;
}

/*
 * Each recruits the next one, as long as there is a processor for it: the BQL
 * is not held while a large number is woken up, and on a busy host, one does
 * the work.  Who waits for the end stays until then.
 */
static void work_do_slices(VirtIOMEMWork *work, bool in_turns)
{
    int64_t yielded = g_get_monotonic_time();
    int64_t since = yielded;

    WITH_QEMU_LOCK_GUARD(&work->lock) {
        work->nb_present++;
    }
    do {
        if (virtio_mem_threads_have_room()) {
            work_recruit(work);
        }
        work_yield(&yielded);
    } while (work_do_slice(work, in_turns, &since) &&
             !(in_turns && work_can_spare(work)));
    work_leave(work);
}

/* Do what is left of it, and wait for what others do. */
static void work_wait(VirtIOMEMWork *work)
{
    work_do_slices(work, false);
    qemu_event_wait(&work->over);
}

/* In a thread that others want, too: after a slice, it is their turn. */
static void work_run_task(VirtIOMEMTask *task)
{
    work_do_slices(container_of(task, VirtIOMEMWork, task), true);
}

/* While threads work, the BQL is free.  Without a thread, it is done here. */
static void coroutine_fn work_do_away(VirtIOMEMWork *work)
{
    VirtIOMEM *vmem = work->vmem;
    const bool of_request = virtio_mem_is_own_flight(vmem);

    work->away = true;
    if (!work_recruit(work)) {
        work_wait(work);
        return;
    }
    work->co = qemu_coroutine_self();
    if (of_request) {
        vmem->flight.work = work;
    }
    qemu_coroutine_yield();
    if (of_request) {
        vmem->flight.work = NULL;
    }
}

void virtio_mem_drain(VirtIOMEM *vmem)
{
    assert(bql_locked());
    /*
     * The response buffer may overlap this device's registers, or those of a
     * device that writes to them.  Writing the answer then resets us from
     * inside the request, when nothing is left to wait for.
     */
    if (!vmem->flight.work) {
        return;
    }

    /*
     * Do not poll for the end: we may run in a coroutine or an iothread,
     * because a guest can make any device write to our registers.
     */
    trace_virtio_mem_drain();
    qatomic_inc(&vmem->flight.nb_drains);
    work_wait(vmem->flight.work);
    /* At once, even inside of another coroutine. */
    qemu_coroutine_enter(g_steal_pointer(&vmem->flight.work->co));
    qatomic_dec(&vmem->flight.nb_drains);
    assert(!vmem->flight.co);
}

/* --- all of it --- */

static unsigned int work_max_threads(const VirtIOMEM *vmem)
{
    return MAX(1, MIN(vmem->prealloc_threads, virtio_mem_threads_max()));
}

static bool work_is_in_huge_pages(const VirtIOMEM *vmem)
{
    return host_memory_backend_pagesize(vmem->memdev) >
           qemu_real_host_page_size();
}

static unsigned int work_count_threads(const VirtIOMEMWork *work)
{
    return MIN(DIV_ROUND_UP(work->slices.size, work->slices.min_slice) ?: 1,
               work_max_threads(work->vmem));
}

static void work_clear(VirtIOMEMTask *task)
{
    VirtIOMEMWork *work = container_of(task, VirtIOMEMWork, task);

    assert(!work->co && !work->nb_working);
    qemu_mutex_destroy(&work->lock);
    qemu_event_destroy(&work->over);
    error_free(work->err);
}

/*
 * Do not yield while an incoming migration is being cleaned up in its coroutine
 * (other code would see half-destroyed state), nor while the device is drained
 * (the drainer waits for all of this work).  Nor may the host's speed decide
 * when a request ends that is recorded or replayed.
 */
static bool work_may_yield(const VirtIOMEMWorkKind *kind, const VirtIOMEM *vmem)
{
    return qemu_in_coroutine() && replay_mode == REPLAY_MODE_NONE &&
           !virtio_mem_is_draining(vmem) &&
           (kind->populates || virtio_mem_is_in_flight(vmem));
}

static VirtIOMEMWork *work_new(const VirtIOMEMWorkKind *kind, VirtIOMEM *vmem,
                               VirtIOMEMRuns runs)
{
    VirtIOMEMWork *work = g_atomic_rc_box_new0(VirtIOMEMWork);

    work->kind = kind;
    work->task = (VirtIOMEMTask) { .run = work_run_task, .clear = work_clear };
    work->vmem = vmem;
    work->threads = vmem->threads;
    work->scaling = &vmem->scaling[kind->populates];
    work->may_yield = work_may_yield(kind, vmem);
    virtio_mem_slices_init(&work->slices, vmem, runs, kind->populates,
                           work->may_yield);
    work->nb_threads = work_count_threads(work);
    qemu_mutex_init(&work->lock);
    qemu_event_init(&work->over, false);
    return work;
}

static void coroutine_mixed_fn work_do_somewhere(VirtIOMEMWork *work)
{
    assert(bql_locked());
    if (work->may_yield && work_try(work)) {
        return;
    }

    trace_virtio_mem_work_begin(work->slices.size, work->nb_threads,
                                work->may_yield);
    if (work->may_yield) {
        work_do_away(work);
    } else if (!work_try(work)) {
        work->nb_recruited = 1;     /* this thread */
        work_wait(work);
    }
    trace_virtio_mem_work_end(work->ret);
}

static int coroutine_mixed_fn work_do(const VirtIOMEMWorkKind *kind,
                                      VirtIOMEM *vmem, VirtIOMEMRuns runs,
                                      Error **errp)
{
    VirtIOMEMWork *work = work_new(kind, vmem, runs);
    const int64_t start = get_clock();
    int ret;

    work_do_somewhere(work);
    ret = work->ret;
    virtio_mem_stats_add(vmem, kind->time, get_clock() - start);
    virtio_mem_stats_add(vmem, kind->bytes, ret ? 0 : work->slices.size);
    error_propagate(errp, g_steal_pointer(&work->err));
    virtio_mem_threads_release(&work->task);
    return ret;
}

int coroutine_mixed_fn virtio_mem_work_populate(VirtIOMEM *vmem,
                                                VirtIOMEMRuns runs,
                                                Error **errp)
{
    static const VirtIOMEMWorkKind populate = {
        virtio_mem_backing_populate,
        VIRTIO_MEM_POPULATE_TIME, VIRTIO_MEM_POPULATED_BYTES, true
    };

    return work_do(&populate, vmem, runs, errp);
}

static int work_discard_slice(const VirtIOMEM *vmem, uint64_t offset,
                              uint64_t size, Error **errp)
{
    return virtio_mem_backing_discard(vmem, offset, size);
}

int coroutine_mixed_fn virtio_mem_work_discard(VirtIOMEM *vmem,
                                               VirtIOMEMRuns runs)
{
    static const VirtIOMEMWorkKind discard = {
        work_discard_slice,
        VIRTIO_MEM_DISCARD_TIME, VIRTIO_MEM_DISCARDED_BYTES
    };

    return work_do(&discard, vmem, runs, NULL);
}

/* --- life --- */

bool virtio_mem_work_realize(VirtIOMEM *vmem, Error **errp)
{
    const unsigned int max = work_max_threads(vmem);

    vmem->threads = virtio_mem_threads_new(vmem->memdev->prealloc_context, max,
                                           errp);
    if (!vmem->threads) {
        return false;
    }
    vmem->scaling = g_new(VirtIOMEMScaling, 2);
    /* Linux frees huge pages under one lock, where threads would wait. */
    virtio_mem_scaling_init(&vmem->scaling[false],
                            work_is_in_huge_pages(vmem) ? 1 : max, max);
    virtio_mem_scaling_init(&vmem->scaling[true], max, max);
    return true;
}

void virtio_mem_work_unrealize(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->threads, virtio_mem_threads_free);
    g_clear_pointer(&vmem->scaling, g_free);
}
