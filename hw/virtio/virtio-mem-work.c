/*
 * Host work: populate the memory of virtio-mem blocks, or give it back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/thread-context.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "block/thread-pool.h"
#include "trace.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-region.h"
#include "virtio-mem-work.h"

/*
 * A slice is what one system call works on.  It may hold the process's memory
 * map for that long, and the processor, so it takes a millisecond or less, even
 * in small pages: populating is slow, and giving shared memory back is slower
 * than private memory.  But each call costs something, too, and most of a huge
 * region may not be populated: slices to discard grow with it, so that their
 * number has a limit; and beyond that while calls turn out to be short.
 */
#define VIRTIO_MEM_POPULATE_SLICE (2 * MiB)
#define VIRTIO_MEM_DISCARD_SLICE (32 * MiB)
#define VIRTIO_MEM_DISCARD_SHARED_SLICE (4 * MiB)
#define VIRTIO_MEM_DISCARD_SLICES_MAX 1024
#define VIRTIO_MEM_DISCARD_SLICES_MIN 64
#define VIRTIO_MEM_SHORT_CALL_US 100
#define VIRTIO_MEM_LONG_CALL_US 1000

/*
 * A trip through the thread pool costs more than to discard memory of which
 * little is populated, or which is in huge pages.  Nobody knows beforehand, so
 * to discard a few slices is tried in place for that long.
 */
#define VIRTIO_MEM_TRY_US 500

#define VIRTIO_MEM_WORK_MAX_THREADS 16

typedef int (*VirtIOMEMWorkFn)(HostMemoryBackend *memdev, uint64_t offset,
                               uint64_t size, Error **errp);

typedef struct VirtIOMEMWork {
    /* The task: constant while it runs. */
    VirtIOMEM *vmem;
    VirtIOMEMParts parts;
    VirtIOMEMWorkFn fn;
    bool is_long;               /* for sure; and may be given up halfway */
    uint64_t size;              /* of all parts, in bytes */
    uint64_t min_slice;
    uint64_t max_slice;
    unsigned int nb_threads;

    /* How far it is. */
    QemuMutex lock;
    VirtIOMEMRange run;         /* of blocks, being handed out */
    uint64_t offset;            /* of the next slice in it */
    uint64_t end;
    uint64_t slice;             /* how large it is, min_slice to max_slice */
    int ret;                    /* the first failure ends the work */
    Error *err;
} VirtIOMEMWork;

/*
 * The pool may be busy, or wait for the main loop to start a thread.  So
 * whoever cannot wait for it does the work instead.
 */
typedef struct VirtIOMEMTask {
    VirtIOMEMWork *work;        /* lives as long as co waits */
    Coroutine *co;              /* NULL when it does not any more */
    bool taken;                 /* somebody does it, or did; atomic */
    QemuEvent done;
} VirtIOMEMTask;

static bool virtio_mem_work_next_run(VirtIOMEMWork *work)
{
    const VirtIOMEMParts *parts = &work->parts;

    if (!parts->blocks) {
        if (work->run.nb_blocks) {
            return false;
        }
        work->run = parts->within;
    } else if (!virtio_mem_blocks_next_run(parts->blocks, parts->within,
                                           parts->plugged, &work->run)) {
        return false;
    }
    work->offset = virtio_mem_range_offset(work->vmem, work->run);
    work->end = work->offset + virtio_mem_range_size(work->vmem, work->run);
    return true;
}

/* Hand out the next slice, if there is one. */
static bool virtio_mem_work_next(VirtIOMEMWork *work, uint64_t *offset,
                                 uint64_t *size)
{
    QEMU_LOCK_GUARD(&work->lock);

    if (work->is_long && !work->ret &&
        virtio_mem_is_draining(work->vmem)) {
        work->ret = -ECANCELED;
        error_setg(&work->err, "canceled");
    }
    if (work->ret || (work->offset == work->end &&
                      !virtio_mem_work_next_run(work))) {
        return false;
    }
    *offset = work->offset;
    *size = MIN(work->slice, work->end - work->offset);
    work->offset += *size;
    return true;
}

/* A slice took so long; the first failure is what counts. */
static void virtio_mem_work_note(VirtIOMEMWork *work, int64_t us, int ret,
                                 Error *err)
{
    QEMU_LOCK_GUARD(&work->lock);

    if (us > VIRTIO_MEM_LONG_CALL_US) {
        work->slice = work->min_slice;
    } else if (us < VIRTIO_MEM_SHORT_CALL_US) {
        work->slice = MIN(2 * work->slice, work->max_slice);
    }
    work->ret = work->ret ?: ret;
    error_propagate(&work->err, err);
}

static bool virtio_mem_work_do_slice(VirtIOMEMWork *work)
{
    uint64_t offset, size;
    Error *err = NULL;
    int64_t start;
    int ret;

    if (!virtio_mem_work_next(work, &offset, &size)) {
        return false;
    }
    start = g_get_monotonic_time();
    ret = work->fn(work->vmem->memdev, offset, size, &err);
    virtio_mem_work_note(work, g_get_monotonic_time() - start, ret, err);
    return true;
}

static void *virtio_mem_work_take_part(void *opaque)
{
    while (virtio_mem_work_do_slice(opaque)) {
        /* A vCPU or the monitor may be waiting for this processor. */
        g_thread_yield();
    }
    return NULL;
}

/* Do what can be done in a short time.  False if something is left. */
static bool virtio_mem_work_try(VirtIOMEMWork *work)
{
    const int64_t end = g_get_monotonic_time() + VIRTIO_MEM_TRY_US;
    bool left = true;

    if (work->size > VIRTIO_MEM_DISCARD_SLICES_MIN * work->min_slice) {
        return false;
    }
    while (left && g_get_monotonic_time() < end) {
        left = virtio_mem_work_do_slice(work);
    }
    return !left;
}

static void virtio_mem_work_start_thread(VirtIOMEMWork *work,
                                         QemuThread *thread)
{
    ThreadContext *tc = work->vmem->memdev->prealloc_context;

    if (tc) {
        thread_context_create_thread(tc, thread, "virtio-mem",
                                     virtio_mem_work_take_part, work,
                                     QEMU_THREAD_JOINABLE);
    } else {
        qemu_thread_create(thread, "virtio-mem", virtio_mem_work_take_part,
                           work, QEMU_THREAD_JOINABLE);
    }
}

/* In this thread and as many others as the task deserves. */
static void virtio_mem_work_do(VirtIOMEMWork *work)
{
    QemuThread threads[VIRTIO_MEM_WORK_MAX_THREADS];
    unsigned int i;

    for (i = 1; i < work->nb_threads; i++) {
        virtio_mem_work_start_thread(work, &threads[i]);
    }
    virtio_mem_work_take_part(work);
    for (i = 1; i < work->nb_threads; i++) {
        qemu_thread_join(&threads[i]);
    }
}

/* --- through the thread pool --- */

static int virtio_mem_task_do(void *opaque)
{
    VirtIOMEMTask *task = opaque;

    if (!qatomic_xchg(&task->taken, true)) {
        virtio_mem_work_do(task->work);
        qemu_event_set(&task->done);
    }
    return 0;
}

/* Enter the coroutine at once, even inside of another: somebody waits. */
static void virtio_mem_task_go_on(VirtIOMEMTask *task)
{
    qemu_coroutine_enter(g_steal_pointer(&task->co));
}

static void virtio_mem_task_end(void *opaque, int ret)
{
    VirtIOMEMTask *task = opaque;

    if (task->co) {
        virtio_mem_task_go_on(task);
    }
    qemu_event_destroy(&task->done);
    g_free(task);
}

/*
 * Have the end of @task, which a request waits for, and go on with the request.
 */
static void virtio_mem_work_finish(VirtIOMEMTask *task)
{
    virtio_mem_task_do(task);
    qemu_event_wait(&task->done);
    virtio_mem_task_go_on(task);
}

void virtio_mem_drain(VirtIOMEM *vmem)
{
    /*
     * A guest may have its answer written to the registers of this very
     * device, or of one that writes there.  That resets it while its request
     * does nothing but end.
     */
    if (!vmem->request_task) {
        return;
    }

    /*
     * Nothing else happens meanwhile: a guest can have any device write to our
     * registers, in a coroutine or an iothread, where nobody may poll.
     */
    trace_virtio_mem_drain();
    qatomic_inc(&vmem->nb_drains);
    virtio_mem_work_finish(vmem->request_task);
    qatomic_dec(&vmem->nb_drains);
    assert(!vmem->request_co);
}

static void coroutine_fn virtio_mem_work_do_in_pool(VirtIOMEMWork *work)
{
    VirtIOMEM *vmem = work->vmem;
    const bool of_request = virtio_mem_is_own_flight(vmem);
    VirtIOMEMTask *task = g_new(VirtIOMEMTask, 1);

    *task = (VirtIOMEMTask) { .work = work, .co = qemu_coroutine_self() };
    qemu_event_init(&task->done, false);
    if (of_request) {
        vmem->request_task = task;
    }
    thread_pool_submit_aio(virtio_mem_task_do, task, virtio_mem_task_end, task);
    qemu_coroutine_yield();
    if (of_request) {
        vmem->request_task = NULL;
    }
}

static uint64_t virtio_mem_parts_size(const VirtIOMEM *vmem,
                                      const VirtIOMEMParts *parts)
{
    VirtIOMEMRange run;
    uint64_t size = 0;

    if (!parts->blocks) {
        return virtio_mem_range_size(vmem, parts->within);
    }
    VIRTIO_MEM_BLOCKS_FOREACH_RUN(parts->blocks, parts->within,
                                  parts->plugged, run) {
        size += virtio_mem_range_size(vmem, run);
    }
    return size;
}

static unsigned int virtio_mem_work_count_threads(const VirtIOMEMWork *work)
{
    const uint64_t nb_slices = DIV_ROUND_UP(work->size, work->min_slice);
    const uint64_t max = MIN(g_get_num_processors(),
                             VIRTIO_MEM_WORK_MAX_THREADS);

    return MAX(1, MIN(nb_slices, MIN(max, work->vmem->prealloc_threads)));
}

static int coroutine_mixed_fn virtio_mem_work_run(VirtIOMEMWork *work)
{
    /*
     * Who cleans up after a migration in its coroutine must not yield there:
     * others would go on with what is half destroyed.  Nor who is drained:
     * somebody waits for all of it.
     */
    const bool may_yield = qemu_in_coroutine() &&
        !virtio_mem_is_draining(work->vmem) &&
        (work->is_long || virtio_mem_is_in_flight(work->vmem));

    if (!may_yield && !work->is_long) {
        /* Everybody waits for the end, whatever happens in between. */
        work->min_slice = MAX(work->min_slice, VIRTIO_MEM_DISCARD_SLICE);
    }
    work->max_slice = MAX(work->max_slice, work->min_slice);
    work->slice = work->min_slice;
    work->run = (VirtIOMEMRange) { work->parts.within.first, 0 };
    qemu_mutex_init(&work->lock);

    if (!may_yield || work->is_long || !virtio_mem_work_try(work)) {
        work->nb_threads = virtio_mem_work_count_threads(work);
        trace_virtio_mem_work_begin(work->size, work->nb_threads, may_yield);
        if (may_yield) {
            virtio_mem_work_do_in_pool(work);
        } else {
            virtio_mem_work_do(work);
        }
        trace_virtio_mem_work_end(work->ret);
    }

    qemu_mutex_destroy(&work->lock);
    return work->ret;
}

int coroutine_mixed_fn virtio_mem_work_populate(VirtIOMEM *vmem,
                                                VirtIOMEMParts parts,
                                                Error **errp)
{
    VirtIOMEMWork work = {
        .vmem = vmem,
        .parts = parts,
        .fn = virtio_mem_backing_populate,
        .is_long = true,
        .size = virtio_mem_parts_size(vmem, &parts),
        .min_slice = ROUND_UP(VIRTIO_MEM_POPULATE_SLICE,
                              host_memory_backend_pagesize(vmem->memdev)),
    };
    const int ret = virtio_mem_work_run(&work);

    error_propagate(errp, work.err);
    return ret;
}

static int virtio_mem_work_discard_slice(HostMemoryBackend *memdev,
                                         uint64_t offset, uint64_t size,
                                         Error **errp)
{
    return virtio_mem_backing_discard(memdev, offset, size);
}

/* What slices are multiples of. */
static uint64_t virtio_mem_discard_unit(HostMemoryBackend *memdev)
{
    return ROUND_UP(memdev->share ? VIRTIO_MEM_DISCARD_SHARED_SLICE
                                  : VIRTIO_MEM_DISCARD_SLICE,
                    host_memory_backend_pagesize(memdev));
}

int coroutine_mixed_fn virtio_mem_work_discard(VirtIOMEM *vmem,
                                               VirtIOMEMParts parts)
{
    const uint64_t size = virtio_mem_parts_size(vmem, &parts);
    const uint64_t unit = virtio_mem_discard_unit(vmem->memdev);
    VirtIOMEMWork work = {
        .vmem = vmem,
        .parts = parts,
        .fn = virtio_mem_work_discard_slice,
        .size = size,
        .min_slice = ROUND_UP(MAX(size / VIRTIO_MEM_DISCARD_SLICES_MAX, 1),
                              unit),
        .max_slice = ROUND_UP(size / VIRTIO_MEM_DISCARD_SLICES_MIN, unit),
    };

    return virtio_mem_work_run(&work);
}
