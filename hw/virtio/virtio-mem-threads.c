/*
 * The threads that work for virtio-mem devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "virtio-mem-threads.h"

/* Tasks that wait while there is not even one thread. */
#define THREADS_MAX_STRANDED 64

static GThreadPool *threads_common;

/* Tasks that run; atomic. */
static unsigned int threads_nb_running;

static void threads_clear(void *opaque)
{
    VirtIOMEMTask *task = opaque;

    task->clear(task);
}

void virtio_mem_threads_release(VirtIOMEMTask *task)
{
    g_atomic_rc_box_release_full(task, threads_clear);
}

static void threads_run(void *data, void *unused)
{
    VirtIOMEMTask *task = data;

    qatomic_inc(&threads_nb_running);
    task->run(task);
    qatomic_dec(&threads_nb_running);
    virtio_mem_threads_release(task);
}

bool virtio_mem_threads_push(GThreadPool *pool, VirtIOMEMTask *task)
{
    if (!g_thread_pool_get_num_threads(pool) &&
        g_thread_pool_unprocessed(pool) >= THREADS_MAX_STRANDED) {
        /* It tries to start threads, as a push would. */
        g_thread_pool_set_max_threads(pool, VIRTIO_MEM_THREADS_MAX, NULL);
        return false;
    }
    /* A task stays in the queue, even if no thread could be started for it. */
    g_thread_pool_push(pool, g_atomic_rc_box_acquire(task), NULL);
    return g_thread_pool_get_num_threads(pool);
}

bool virtio_mem_threads_are_wanted(GThreadPool *pool)
{
    return g_thread_pool_unprocessed(pool);
}

unsigned int virtio_mem_threads_max(void)
{
    static gsize max;

    /* To count processors means to read a file: not for each request. */
    if (g_once_init_enter(&max)) {
        g_once_init_leave(&max, MIN(g_get_num_processors(),
                                    VIRTIO_MEM_THREADS_MAX));
    }
    return max;
}

bool virtio_mem_threads_have_room(void)
{
    return qatomic_read(&threads_nb_running) < virtio_mem_threads_max();
}

/* --- life --- */

typedef struct ThreadsNew {
    unsigned int nb_threads;
    bool exclusive;
    GThreadPool *pool;
    GError *err;
} ThreadsNew;

/* GLib's threads inherit signals and processors from the pool's creator. */
static void *threads_create(void *opaque)
{
    ThreadsNew *new = opaque;
    sigset_t all, before;

    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    new->pool = g_thread_pool_new(threads_run, NULL, new->nb_threads,
                                  new->exclusive, &new->err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return NULL;
}

static GThreadPool *threads_get_common(void)
{
    ThreadsNew new = { .nb_threads = VIRTIO_MEM_THREADS_MAX };

    if (!threads_common) {
        threads_create(&new);
        threads_common = new.pool;
    }
    return threads_common;
}

GThreadPool *virtio_mem_threads_new(ThreadContext *context,
                                    unsigned int nb_threads, Error **errp)
{
    ThreadsNew new = { .nb_threads = nb_threads, .exclusive = true };
    QemuThread thread;

    assert(nb_threads && nb_threads <= VIRTIO_MEM_THREADS_MAX);

    if (!context) {
        return threads_get_common();
    }
    thread_context_create_thread(context, &thread, "virtio-mem",
                                 threads_create, &new, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
    if (new.err) {
        error_setg(errp, "cannot create %u threads of the memdev's"
                   " 'prealloc-context': %s", nb_threads, new.err->message);
        g_error_free(new.err);
        g_thread_pool_free(new.pool, true, true);
        return NULL;
    }
    return new.pool;
}

void virtio_mem_threads_free(GThreadPool *pool)
{
    if (pool && pool != threads_common) {
        g_thread_pool_free(pool, false, true);
    }
}
