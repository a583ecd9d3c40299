/*
 * The threads that work for virtio-mem devices.
 *
 * One pool serves all devices of the process.  It starts threads when there is
 * something to do, a fixed number at most, and they end when there was nothing
 * for some seconds.  A device whose memory backend has a 'prealloc-context' has
 * a pool of its own, whose threads are there as long as the device: they are
 * created by the context, when the user creates the device, so that they run
 * on the processors that the context names.
 *
 * A guest can have work done whenever it likes.  That the host has no thread
 * for it is no error: fewer threads do it then, or the caller alone.
 *
 * This layer knows no device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_THREADS_H
#define HW_VIRTIO_MEM_THREADS_H

#include "qemu/thread-context.h"

/* Of the common pool, and of each other one. */
#define VIRTIO_MEM_THREADS_MAX 16

/*
 * Something to do, allocated by g_atomic_rc_box_alloc().  Each push has @run
 * called once, by a thread without the BQL; the last release of the task calls
 * @clear.
 */
typedef struct VirtIOMEMTask VirtIOMEMTask;
struct VirtIOMEMTask {
    void (*run)(VirtIOMEMTask *task);
    void (*clear)(VirtIOMEMTask *task);
};

/*
 * The common pool without a @context; with one, a new pool of @nb_threads (1 to
 * VIRTIO_MEM_THREADS_MAX).  NULL with an error if they cannot be created.  To
 * be given back by _free(), which waits for tasks that run.  With the BQL.
 */
GThreadPool *virtio_mem_threads_new(ThreadContext *context,
                                    unsigned int nb_threads, Error **errp);
void virtio_mem_threads_free(GThreadPool *pool);

/*
 * Have a thread run @task, in the order of pushes.  False without a
 * thread: then it will not run soon, or not at all.  In any thread.
 */
bool virtio_mem_threads_push(GThreadPool *pool, VirtIOMEMTask *task);

/* Whether a task waits for a thread: one that takes long lets others pass. */
bool virtio_mem_threads_are_wanted(GThreadPool *pool);

/*
 * How many threads can work at the same time: as many as the process had
 * processors when this was first called, 1 to VIRTIO_MEM_THREADS_MAX.  And
 * whether one more could now, whatever pool it is of.  In any thread.
 */
unsigned int virtio_mem_threads_max(void);
bool virtio_mem_threads_have_room(void);

void virtio_mem_threads_release(VirtIOMEMTask *task);

#endif
