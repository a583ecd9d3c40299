/*
 * virtio-mem: host work away from the BQL, while a coroutine waits
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "system/replay.h"
#include "hw/virtio/virtio-mem-flight.h"
#include "virtio-mem-fake-work.h"

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
    g_assert_cmpint(fake_work_discard(&request->fake, request->range, false),
                    ==, 0);
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
    Request request = { .range = FAKE_WORK_ALL };

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
    fake_work_assert_touched(&request.fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&request.fake);
}

static void request_hold(Request *request)
{
    fake_work_init(&request->fake, 2);
    request->fake.memdev.share = true;
    request->fake.held = true;
    request->range = FAKE_WORK_ALL;
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
    fake_work_assert_touched(&request->fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&request->fake);
}

/* Two devices at once: the first one has all processors. */
static void test_no_processor(void)
{
    Request first = { }, second = { };

    fake_work_await_idle_threads();
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
    fake_work_assert_touched(&request->fake, FAKE_WORK_ALL, false);
}

/* No thread has begun yet, or some have. */
static void test_finish_first(void)
{
    Request request = { .range = FAKE_WORK_ALL };

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
    Request request = { .range = FAKE_WORK_ALL };
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
                                    uint64_t page_size, uint64_t slice)
{
    bool done = false;

    /* A busy host may take this thread's processor away in the middle. */
    for (int i = 0; i < 100 && !done; i++) {
        Request request = { .range = range };

        fake_work_init(&request.fake, 1);
        request.fake.memdev.share = share;
        request.fake.page_size = page_size;
        request_start(&request);
        done = request.done;
        AIO_WAIT_WHILE(NULL, !request.done);
        if (done) {
            g_assert_cmpuint(request.fake.max_slice, ==, slice);
        }
        fake_work_assert_touched(&request.fake, range, false);
        fake_work_destroy(&request.fake);
    }
    g_assert_true(done);
}

static void test_coroutine_short(void)
{
    const VirtIOMEMRange some = { 7, 32 };

    do_test_coroutine_short(some, false, 4 * KiB, 32 * MiB);
    do_test_coroutine_short(some, true, 4 * KiB, 4 * MiB);
    do_test_coroutine_short(some, true, 2 * MiB, 32 * MiB);
}

/* What is not there is not given back; what may be there always is. */
static void do_test_empty(uint64_t nb_empty)
{
    Request request = { .range = FAKE_WORK_ALL };
    FakeWork *fake = &request.fake;

    fake_work_init(fake, 1);
    fake->memdev.share = true;
    fake->nb_empty = nb_empty;
    request_start(&request);
    AIO_WAIT_WHILE(NULL, !request.done);
    for (uint64_t i = 0; i < FAKE_WORK_BLOCKS; i++) {
        g_assert_cmpuint(fake->touched[i], <=, 1);
        g_assert_true(i < nb_empty || fake->touched[i]);
    }
    if (nb_empty == FAKE_WORK_BLOCKS) {
        g_assert_cmpuint(fake->nb_slices, <=, FAKE_WORK_BLOCKS / 2);
    }
    fake_work_destroy(fake);
}

static void test_empty(void)
{
    for (uint64_t nb_empty = 0; nb_empty <= FAKE_WORK_BLOCKS; nb_empty++) {
        do_test_empty(nb_empty);
    }
}

/* On an idle host, a few questions do for all that is empty. */
static void test_empty_in_place(void)
{
    bool done = false;

    for (int i = 0; i < 100 && !done; i++) {
        Request request = { .range = FAKE_WORK_ALL };

        fake_work_init(&request.fake, 1);
        request.fake.memdev.share = true;
        request.fake.nb_empty = FAKE_WORK_BLOCKS;
        request_start(&request);
        done = request.done && request.fake.nb_slices == 1 &&
               request.fake.max_asked == 400 * MiB;
        AIO_WAIT_WHILE(NULL, !request.done);
        fake_work_destroy(&request.fake);
    }
    g_assert_true(done);
}

/* The main loop does not begin what may be long, however fast it was so far. */
static void test_coroutine_long(void)
{
    Request request = { .range = FAKE_WORK_ALL };

    fake_work_init(&request.fake, 1);
    request.fake.memdev.share = true;
    request_start(&request);
    AIO_WAIT_WHILE(NULL, !request.done);
    g_assert_cmpuint(request.fake.max_here, ==, 4 * MiB);
    fake_work_assert_touched(&request.fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&request.fake);
}

/* --- without threads --- */

static void test_no_threads(void)
{
    Request request = { .range = FAKE_WORK_ALL };
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
    qatomic_set(&fake_work_no_threads, true);
    for (int i = 0; i < 100; i++) {
        memset(fake->touched, 0, sizeof(fake->touched));
        request.done = false;
        request_start(&request);
        g_assert_true(request.done);
        fake_work_assert_touched(fake, FAKE_WORK_ALL, false);
    }
    g_assert_cmpuint(fake->max_working, ==, 1);
    /* What waits for a thread that may never come has a limit. */
    g_assert_cmpuint(g_thread_pool_unprocessed(fake->vmem.threads), <, 100);

    qatomic_set(&fake_work_no_threads, false);
    memset(fake->touched, 0, sizeof(fake->touched));
    g_assert_cmpint(fake_work_populate(fake, FAKE_WORK_ALL), ==, 0);
    fake_work_assert_touched(fake, FAKE_WORK_ALL, false);
    fake_work_destroy(fake);
}

/* How fast the host is must not show in what is recorded. */
static void test_replay(void)
{
    Request request = { .range = FAKE_WORK_ALL };

    fake_work_init(&request.fake, 1);
    request.fake.memdev.share = true;
    replay_mode = REPLAY_MODE_RECORD;
    request_start(&request);
    replay_mode = REPLAY_MODE_NONE;
    g_assert_true(request.done);
    fake_work_assert_touched(&request.fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&request.fake);
}

/* A migration's coroutine, that cleans up. */
static void test_coroutine_of_others(void)
{
    Request request = { .range = FAKE_WORK_ALL };

    fake_work_init(&request.fake, 1);
    qemu_coroutine_enter(qemu_coroutine_create(request_co, &request));
    g_assert_true(request.done);
    fake_work_assert_touched(&request.fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&request.fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/virtio-mem/work/no-processor-is-left",
                    test_no_processor);
    g_test_add_func("/virtio-mem/work/finish/before-it-began",
                    test_finish_first);
    g_test_add_func("/virtio-mem/work/finish/in-a-coroutine",
                    test_finish_in_coroutine);
    g_test_add_func("/virtio-mem/work/coroutine/yields-for-long-work",
                    test_coroutine_yields);
    g_test_add_func("/virtio-mem/work/coroutine/stays-for-short-work",
                    test_coroutine_short);
    g_test_add_func("/virtio-mem/work/coroutine/empty", test_empty);
    g_test_add_func("/virtio-mem/work/coroutine/empty-in-place",
                    test_empty_in_place);
    g_test_add_func("/virtio-mem/work/coroutine/leaves-what-may-be-long",
                    test_coroutine_long);
    g_test_add_func("/virtio-mem/work/coroutine/of-others-does-not-yield",
                    test_coroutine_of_others);
    g_test_add_func("/virtio-mem/work/no-threads/the-caller-does-it",
                    test_no_threads);
    g_test_add_func("/virtio-mem/work/replay/does-not-yield", test_replay);
    return g_test_run();
}
