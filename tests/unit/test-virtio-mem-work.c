/*
 * virtio-mem: host work in slices, by several threads, away from the BQL
 *
 * The fake backing keeps books on which bytes it was told to work on.  It can
 * be held: then a slice ends when the test lets it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/thread-context.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "system/replay.h"
#include <dlfcn.h>
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-flight.h"
#include "hw/virtio/virtio-mem-scaling.h"
#include "hw/virtio/virtio-mem-stats.h"
#include "hw/virtio/virtio-mem-threads.h"
#include "hw/virtio/virtio-mem-work.h"

#define WORK_BLOCK (2 * MiB)
#define WORK_BLOCKS 256
#define EVERYTHING ((VirtIOMEMRange) { 0, WORK_BLOCKS })

typedef struct FakeWork {
    VirtIOMEM vmem;
    HostMemoryBackend memdev;
    uint64_t page_size;
    unsigned int nb_contexts;       /* threads created by a thread context */

    QemuMutex lock;                 /* protects the rest */
    unsigned int touched[WORK_BLOCKS];
    unsigned int nb_slices;
    uint64_t max_slice;
    uint64_t max_here;              /* the largest one in a coroutine */
    bool is_empty;                  /* the memory, as the host can tell */
    bool is_slow;                   /* each slice takes its time */
    bool is_serial;                 /* and the next one only after that */
    QemuMutex serial;
    unsigned int nb_working;        /* threads in a slice */
    unsigned int max_working;
    unsigned int refuse_at;         /* the n-th slice; 0: none */
    unsigned int drain_at;
    unsigned int wait_for;          /* so many threads to meet in a slice */
    bool held;
    QemuCond changed;
} FakeWork;

/* The host has no more threads; atomic. */
static bool no_threads;

static FakeWork *fake_work_of(HostMemoryBackend *memdev)
{
    return container_of(memdev, FakeWork, memdev);
}

/* --- what work.c needs --- */

/* In the place of the C library's, for GLib, too. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                   void *(*start)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);

    if (!real) {
        real = dlsym(RTLD_NEXT, "pthread_create");
    }
    return qatomic_read(&no_threads) ? EAGAIN : real(thread, attr, start, arg);
}

/* In the place of GLib's: the same on each host. */
guint g_get_num_processors(void)
{
    return 2;
}

size_t host_memory_backend_pagesize(HostMemoryBackend *memdev)
{
    return fake_work_of(memdev)->page_size;
}

void thread_context_create_thread(ThreadContext *tc, QemuThread *thread,
                                  const char *name,
                                  void *(*start_routine)(void *), void *arg,
                                  int mode)
{
    FakeWork *fake = (FakeWork *)tc;

    fake->nb_contexts++;
    qemu_thread_create(thread, name, start_routine, arg, mode);
}

/* What is tried in place cannot wait for others, but takes long. */
static void fake_work_wait(FakeWork *fake)
{
    if (qemu_in_coroutine() || fake->nb_slices == 1) {
        if (fake->held || fake->wait_for || fake->is_slow) {
            g_usleep(1000);
        }
        return;
    }
    if (fake->is_serial) {
        qemu_mutex_unlock(&fake->lock);
        WITH_QEMU_LOCK_GUARD(&fake->serial) {
            g_usleep(200);
        }
        qemu_mutex_lock(&fake->lock);
    } else if (fake->is_slow) {
        qemu_cond_timedwait(&fake->changed, &fake->lock, 1);
    }
    while (fake->held || fake->nb_working < fake->wait_for) {
        qemu_cond_wait(&fake->changed, &fake->lock);
    }
    fake->wait_for = 0;
}

static int fake_work_slice(FakeWork *fake, uint64_t offset, uint64_t size)
{
    int ret = 0;

    QEMU_LOCK_GUARD(&fake->lock);
    g_assert_true(QEMU_IS_ALIGNED(offset | size, WORK_BLOCK));
    g_assert_true(QEMU_IS_ALIGNED(offset | size, fake->page_size));
    fake->max_slice = MAX(fake->max_slice, size);
    if (qemu_in_coroutine()) {
        fake->max_here = MAX(fake->max_here, size);
    }
    fake->max_working = MAX(fake->max_working, ++fake->nb_working);
    qemu_cond_broadcast(&fake->changed);
    if (++fake->nb_slices == fake->refuse_at) {
        ret = -EIO;
    }
    if (fake->nb_slices == fake->drain_at) {
        qatomic_inc(&fake->vmem.flight.nb_drains);
    }
    fake_work_wait(fake);
    for (uint64_t at = offset; at < offset + size; at += WORK_BLOCK) {
        fake->touched[at / WORK_BLOCK]++;
    }
    fake->nb_working--;
    return ret;
}

int virtio_mem_backing_populate(const VirtIOMEM *vmem, uint64_t offset,
                                uint64_t size, Error **errp)
{
    int ret = fake_work_slice(container_of(vmem, FakeWork, vmem), offset,
                              size);

    if (ret) {
        error_setg(errp, "the fake host refuses");
    }
    return ret;
}

int virtio_mem_backing_discard(const VirtIOMEM *vmem, uint64_t offset,
                               uint64_t size)
{
    return fake_work_slice(container_of(vmem, FakeWork, vmem), offset,
                              size);
}

bool virtio_mem_backing_is_empty(const VirtIOMEM *vmem, uint64_t offset,
                                 uint64_t size)
{
    return container_of(vmem, FakeWork, vmem)->is_empty;
}

/* --- scene --- */

static void fake_work_init(FakeWork *fake, unsigned int nb_threads)
{
    rust_bql_mock_lock();
    *fake = (FakeWork) {
        .vmem.memdev = &fake->memdev,
        .vmem.block_size = WORK_BLOCK,
        .vmem.blocks = virtio_mem_blocks_new(WORK_BLOCKS),
        .vmem.prealloc_threads = nb_threads,
        .page_size = 4 * KiB,
    };
    qemu_mutex_init(&fake->lock);
    qemu_mutex_init(&fake->serial);
    qemu_cond_init(&fake->changed);
    virtio_mem_stats_realize(&fake->vmem);
    g_assert_true(virtio_mem_work_realize(&fake->vmem, &error_abort));
}

/* As if the memory backend had been so from the start. */
static void fake_work_realize_again(FakeWork *fake)
{
    virtio_mem_work_unrealize(&fake->vmem);
    g_assert_true(virtio_mem_work_realize(&fake->vmem, &error_abort));
}

/* With threads of a context that nobody has after that. */
static void fake_work_use_context(FakeWork *fake)
{
    fake->memdev.prealloc_context = (ThreadContext *)fake;
    fake_work_realize_again(fake);
    fake->memdev.prealloc_context = NULL;
    g_assert_cmpuint(fake->nb_contexts, ==, 1);
}

static void fake_work_destroy(FakeWork *fake)
{
    g_assert_cmpuint(fake->nb_working, ==, 0);
    virtio_mem_work_unrealize(&fake->vmem);
    virtio_mem_stats_unrealize(&fake->vmem);
    virtio_mem_blocks_free(fake->vmem.blocks);
    qemu_cond_destroy(&fake->changed);
    qemu_mutex_destroy(&fake->serial);
    qemu_mutex_destroy(&fake->lock);
}

static VirtIOMEMRuns fake_work_parts(FakeWork *fake, VirtIOMEMRange within,
                                      bool plugged)
{
    return (VirtIOMEMRuns) { fake->vmem.blocks, within, plugged };
}

static void fake_work_plug(FakeWork *fake, uint64_t first, uint64_t nb_blocks)
{
    virtio_mem_blocks_set_plugged(fake->vmem.blocks,
                                  (VirtIOMEMRange) { first, nb_blocks });
}

static int discard(FakeWork *fake, VirtIOMEMRange within, bool plugged)
{
    return virtio_mem_work_discard(&fake->vmem,
                                   fake_work_parts(fake, within, plugged));
}

static int populate(FakeWork *fake, VirtIOMEMRange within)
{
    Error *err = NULL;
    int ret = virtio_mem_work_populate(&fake->vmem,
                                       fake_work_parts(fake, within, false),
                                       &err);

    g_assert_cmpint(ret < 0, ==, err != NULL);
    error_free(err);
    return ret;
}

static void assert_touched(const FakeWork *fake, VirtIOMEMRange within,
                           bool plugged)
{
    for (uint64_t i = 0; i < WORK_BLOCKS; i++) {
        const VirtIOMEMRange block = { i, 1 };
        const bool is_plugged =
            virtio_mem_blocks_classify(fake->vmem.blocks, block) ==
            VIRTIO_MEM_BLOCKS_PLUGGED;
        const bool is_within = i >= within.first &&
                               i < within.first + within.nb_blocks;

        g_assert_cmpuint(fake->touched[i], ==,
                         is_within && is_plugged == plugged);
    }
}

/* A thread of the test before counts as running until it has left its task. */
static void await_idle_threads(void)
{
    GThreadPool *pool = virtio_mem_threads_new(NULL, 1, &error_abort);

    while (g_thread_pool_get_num_threads(pool)) {
        g_usleep(1000);
    }
}

/* --- claims --- */

static void test_once_each(void)
{
    for (unsigned int nb_threads = 1; nb_threads <= 4; nb_threads++) {
        const VirtIOMEMRange within = { 3, WORK_BLOCKS - 5 };

        for (int plugged = 0; plugged <= 1; plugged++) {
            FakeWork fake;

            fake_work_init(&fake, nb_threads);
            fake_work_plug(&fake, 2, 70);
            fake_work_plug(&fake, 100, 1);
            fake_work_plug(&fake, 102, 1);
            fake_work_plug(&fake, 250, 6);
            g_assert_cmpint(discard(&fake, within, plugged), ==, 0);
            assert_touched(&fake, within, plugged);
            fake_work_destroy(&fake);
        }
    }
}

static void test_nothing(void)
{
    FakeWork fake;

    fake_work_init(&fake, 2);
    g_assert_cmpint(discard(&fake, EVERYTHING, true), ==, 0);
    g_assert_cmpuint(fake.nb_slices, ==, 0);
    fake_work_destroy(&fake);
}

static void test_short_slices(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    g_assert_cmpint(populate(&fake, EVERYTHING), ==, 0);
    g_assert_cmpuint(fake.max_slice, ==, 2 * MiB);
    assert_touched(&fake, EVERYTHING, false);

    fake.max_slice = 0;
    fake.memdev.share = true;
    g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    g_assert_cmpuint(fake.max_slice, ==, 32 * MiB);
    fake_work_destroy(&fake);
}

static void test_huge_pages(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    fake.page_size = 128 * MiB;
    fake_work_plug(&fake, 64, 64);
    g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    assert_touched(&fake, EVERYTHING, false);
    fake_work_destroy(&fake);
}

/* Threads would wait for each other; until it turns out that they do not. */
static void test_huge_pages_by_one_thread(void)
{
    FakeWork fake;

    await_idle_threads();
    fake_work_init(&fake, 2);
    fake.page_size = 2 * MiB;
    fake_work_realize_again(&fake);
    fake.is_slow = true;
    g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);

    while (fake.vmem.scaling[false].nb_threads == 1) {
        g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    }
    g_assert_cmpuint(fake.max_working, ==, 2);
    fake_work_destroy(&fake);
}

/* One that only waits for the others leaves, in the middle of the work. */
static void test_threads_that_gain_nothing(void)
{
    FakeWork fake;

    await_idle_threads();
    fake_work_init(&fake, 2);
    fake.is_serial = true;
    while (fake.vmem.scaling[true].nb_threads == 2) {
        g_assert_cmpint(populate(&fake, EVERYTHING), ==, 0);
    }
    g_assert_cmpuint(fake.max_working, ==, 2);

    fake.vmem.scaling[true].next_try_us = INT64_MAX;
    fake.max_working = 0;
    g_assert_cmpint(populate(&fake, EVERYTHING), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);
    fake_work_destroy(&fake);
}

/* Each thread waits in its slice for the others. */
static void test_parallel(void)
{
    FakeWork fake;

    await_idle_threads();
    fake_work_init(&fake, 2);
    fake.wait_for = 2;
    g_assert_cmpint(populate(&fake, EVERYTHING), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 2);
    g_assert_cmpuint(fake.nb_contexts, ==, 0);

    fake.nb_slices = 0;
    fake.wait_for = 2;
    fake_work_use_context(&fake);
    g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    g_assert_cmpuint(fake.nb_contexts, ==, 1);
    fake_work_destroy(&fake);
}

/* No thread without a slice for it, and none beyond what was asked for. */
static void test_one_thread(void)
{
    FakeWork fake;

    fake_work_init(&fake, 8);
    g_assert_cmpint(populate(&fake, (VirtIOMEMRange) { 1, 1 }), ==, 0);
    fake.vmem.prealloc_threads = 1;
    g_assert_cmpint(populate(&fake, EVERYTHING), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);
    fake_work_destroy(&fake);
}

static void test_failure_ends_it(void)
{
    for (unsigned int nb_threads = 1; nb_threads <= 2; nb_threads++) {
        FakeWork fake;

        fake_work_init(&fake, nb_threads);
        fake.refuse_at = 3;
        g_assert_cmpint(populate(&fake, EVERYTHING), ==, -EIO);
        g_assert_cmpuint(fake.nb_slices, >=, 3);
        g_assert_cmpuint(fake.nb_slices, <, 3 + nb_threads);
        fake_work_destroy(&fake);
    }
}

/* What was begun to be given back is given back, whoever waits. */
static void test_drain(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    fake.drain_at = 2;
    g_assert_cmpint(populate(&fake, EVERYTHING), ==, -ECANCELED);
    g_assert_cmpuint(fake.nb_slices, ==, 2);

    memset(fake.touched, 0, sizeof(fake.touched));
    g_assert_cmpint(discard(&fake, EVERYTHING, false), ==, 0);
    assert_touched(&fake, EVERYTHING, false);
    fake_work_destroy(&fake);
}

/* --- in a coroutine --- */

typedef struct Request {
    FakeWork fake;
    VirtIOMEMRange range;
    bool in_flight;
    bool done;
} Request;

static void coroutine_fn request_co(void *opaque)
{
    Request *request = opaque;

    if (request->in_flight) {
        virtio_mem_flight_begin(&request->fake.vmem);
    }
    g_assert_cmpint(discard(&request->fake, request->range, false), ==, 0);
    if (request->in_flight) {
        virtio_mem_flight_end(&request->fake.vmem);
    }
    request->done = true;
    aio_wait_kick();
}

static void request_start(Request *request)
{
    request->in_flight = true;
    qemu_coroutine_enter(qemu_coroutine_create(request_co, request));
}

/* The main loop has its thread back while the host works. */
static void test_coroutine_yields(void)
{
    Request request = { .range = EVERYTHING };

    fake_work_init(&request.fake, 1);
    request.fake.memdev.share = true;
    request.fake.held = true;
    request_start(&request);
    g_assert_false(request.done);

    WITH_QEMU_LOCK_GUARD(&request.fake.lock) {
        request.fake.held = false;
        qemu_cond_broadcast(&request.fake.changed);
    }
    AIO_WAIT_WHILE(NULL, !request.done);
    /* They grow when the host turns out to be fast. */
    g_assert_cmpuint(request.fake.max_slice, >=, 4 * MiB);
    g_assert_cmpuint(request.fake.max_slice, <=, 8 * MiB);
    assert_touched(&request.fake, EVERYTHING, false);
    fake_work_destroy(&request.fake);
}

static void request_hold(Request *request)
{
    fake_work_init(&request->fake, 2);
    request->fake.memdev.share = true;
    request->fake.held = true;
    request->range = EVERYTHING;
    request_start(request);
}

static void request_wait_working(Request *request, unsigned int nb_threads)
{
    WITH_QEMU_LOCK_GUARD(&request->fake.lock) {
        while (request->fake.nb_working < nb_threads) {
            qemu_cond_wait(&request->fake.changed, &request->fake.lock);
        }
    }
}

static void request_let_go(Request *request)
{
    WITH_QEMU_LOCK_GUARD(&request->fake.lock) {
        request->fake.held = false;
        qemu_cond_broadcast(&request->fake.changed);
    }
    AIO_WAIT_WHILE(NULL, !request->done);
    assert_touched(&request->fake, EVERYTHING, false);
    fake_work_destroy(&request->fake);
}

/* Two devices at once: the first one has all processors. */
static void test_no_processor(void)
{
    Request first = { }, second = { };

    await_idle_threads();
    request_hold(&first);
    request_wait_working(&first, 2);
    request_hold(&second);
    request_wait_working(&second, 1);
    request_let_go(&first);
    g_assert_cmpuint(second.fake.max_working, ==, 1);
    request_let_go(&second);
}

/* What a drain does. */
static void request_finish(Request *request)
{
    g_assert_false(request->done);
    virtio_mem_drain(&request->fake.vmem);
    g_assert_true(request->done);
    g_assert_null(request->fake.vmem.flight.work);
    assert_touched(&request->fake, EVERYTHING, false);
}

/* No thread has begun yet, or some have. */
static void test_finish_first(void)
{
    Request request = { .range = EVERYTHING };

    fake_work_init(&request.fake, 1);
    request.fake.held = true;
    request_start(&request);
    WITH_QEMU_LOCK_GUARD(&request.fake.lock) {
        request.fake.held = false;
        qemu_cond_broadcast(&request.fake.changed);
    }
    request_finish(&request);
    fake_work_destroy(&request.fake);
}

static void *release_thread(void *opaque)
{
    FakeWork *fake = opaque;

    WITH_QEMU_LOCK_GUARD(&fake->lock) {
        while (!fake->nb_working) {
            qemu_cond_wait(&fake->changed, &fake->lock);
        }
        fake->held = false;
        qemu_cond_broadcast(&fake->changed);
    }
    return NULL;
}

static void coroutine_fn finish_co(void *opaque)
{
    request_finish(opaque);
}

/* The pool works on it; and somebody else's coroutine cannot wait. */
static void test_finish_in_coroutine(void)
{
    Request request = { .range = EVERYTHING };
    GThread *thread;

    fake_work_init(&request.fake, 1);
    request.fake.held = true;
    request_start(&request);
    while (!qatomic_read(&request.fake.nb_working)) {
        aio_poll(qemu_get_aio_context(), false);
    }
    thread = g_thread_new("release", release_thread, &request.fake);
    qemu_coroutine_enter(qemu_coroutine_create(finish_co, &request));
    g_thread_join(thread);
    fake_work_destroy(&request.fake);
}

static void do_test_coroutine_short(VirtIOMEMRange range, bool share,
                                    uint64_t page_size, bool is_empty,
                                    uint64_t slice)
{
    bool done = false;

    /* A busy host may take this thread's processor away in the middle. */
    for (int i = 0; i < 100 && !done; i++) {
        Request request = { .range = range };

        fake_work_init(&request.fake, 1);
        request.fake.memdev.share = share;
        request.fake.page_size = page_size;
        request.fake.is_empty = is_empty;
        request_start(&request);
        done = request.done;
        AIO_WAIT_WHILE(NULL, !request.done);
        if (done) {
            g_assert_cmpuint(request.fake.max_slice, ==, slice);
        }
        assert_touched(&request.fake, range, false);
        fake_work_destroy(&request.fake);
    }
    g_assert_true(done);
}

static void test_coroutine_short(void)
{
    const VirtIOMEMRange some = { 7, 32 };

    do_test_coroutine_short(some, false, 4 * KiB, false, 32 * MiB);
    do_test_coroutine_short(some, true, 4 * KiB, false, 4 * MiB);
    do_test_coroutine_short(some, true, 2 * MiB, false, 32 * MiB);
    do_test_coroutine_short(EVERYTHING, true, 4 * KiB, true, 400 * MiB);
}

/* The main loop does not begin what may be long, however fast it was so far. */
static void test_coroutine_long(void)
{
    Request request = { .range = EVERYTHING };

    fake_work_init(&request.fake, 1);
    request.fake.memdev.share = true;
    request_start(&request);
    AIO_WAIT_WHILE(NULL, !request.done);
    g_assert_cmpuint(request.fake.max_here, ==, 4 * MiB);
    assert_touched(&request.fake, EVERYTHING, false);
    fake_work_destroy(&request.fake);
}

/* --- without threads --- */

static void test_no_threads(void)
{
    Request request = { .range = EVERYTHING };
    FakeWork *fake = &request.fake;

    fake_work_init(fake, 2);
    fake->memdev.share = true;
    /* Those that idle would do it, too. */
    g_thread_pool_stop_unused_threads();
    while (g_thread_pool_get_num_threads(fake->vmem.threads) ||
           g_thread_pool_get_num_unused_threads()) {
        g_usleep(1000);
        g_thread_pool_stop_unused_threads();
    }
    qatomic_set(&no_threads, true);
    for (int i = 0; i < 100; i++) {
        memset(fake->touched, 0, sizeof(fake->touched));
        request.done = false;
        request_start(&request);
        g_assert_true(request.done);
        assert_touched(fake, EVERYTHING, false);
    }
    g_assert_cmpuint(fake->max_working, ==, 1);
    /* What waits for a thread that may never come has a limit. */
    g_assert_cmpuint(g_thread_pool_unprocessed(fake->vmem.threads), <, 100);

    qatomic_set(&no_threads, false);
    memset(fake->touched, 0, sizeof(fake->touched));
    g_assert_cmpint(populate(fake, EVERYTHING), ==, 0);
    assert_touched(fake, EVERYTHING, false);
    fake_work_destroy(fake);
}

/* How fast the host is must not show in what is recorded. */
static void test_replay(void)
{
    Request request = { .range = EVERYTHING };

    fake_work_init(&request.fake, 1);
    request.fake.memdev.share = true;
    replay_mode = REPLAY_MODE_RECORD;
    request_start(&request);
    replay_mode = REPLAY_MODE_NONE;
    g_assert_true(request.done);
    assert_touched(&request.fake, EVERYTHING, false);
    fake_work_destroy(&request.fake);
}

/* A migration's coroutine, that cleans up. */
static void test_coroutine_of_others(void)
{
    Request request = { .range = EVERYTHING };

    fake_work_init(&request.fake, 1);
    qemu_coroutine_enter(qemu_coroutine_create(request_co, &request));
    g_assert_true(request.done);
    assert_touched(&request.fake, EVERYTHING, false);
    fake_work_destroy(&request.fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/virtio-mem/work/each-part-once", test_once_each);
    g_test_add_func("/virtio-mem/work/nothing-to-do", test_nothing);
    g_test_add_func("/virtio-mem/work/short-slices", test_short_slices);
    g_test_add_func("/virtio-mem/work/slices-are-whole-pages",
                    test_huge_pages);
    g_test_add_func("/virtio-mem/work/huge-pages-by-one-thread",
                    test_huge_pages_by_one_thread);
    g_test_add_func("/virtio-mem/work/several-threads", test_parallel);
    g_test_add_func("/virtio-mem/work/threads-that-gain-nothing",
                    test_threads_that_gain_nothing);
    g_test_add_func("/virtio-mem/work/no-idle-threads", test_one_thread);
    g_test_add_func("/virtio-mem/work/no-processor-is-left",
                    test_no_processor);
    g_test_add_func("/virtio-mem/work/failure-ends-it", test_failure_ends_it);
    g_test_add_func("/virtio-mem/work/drain-cancels-populating-only",
                    test_drain);
    g_test_add_func("/virtio-mem/work/finish/before-it-began",
                    test_finish_first);
    g_test_add_func("/virtio-mem/work/finish/in-a-coroutine",
                    test_finish_in_coroutine);
    g_test_add_func("/virtio-mem/work/coroutine/yields-for-long-work",
                    test_coroutine_yields);
    g_test_add_func("/virtio-mem/work/coroutine/stays-for-short-work",
                    test_coroutine_short);
    g_test_add_func("/virtio-mem/work/coroutine/leaves-what-may-be-long",
                    test_coroutine_long);
    g_test_add_func("/virtio-mem/work/coroutine/of-others-does-not-yield",
                    test_coroutine_of_others);
    g_test_add_func("/virtio-mem/work/no-threads/the-caller-does-it",
                    test_no_threads);
    g_test_add_func("/virtio-mem/work/replay/does-not-yield", test_replay);
    return g_test_run();
}
