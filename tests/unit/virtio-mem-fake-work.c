/*
 * A fake host for tests of virtio-mem's host work
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/thread-context.h"
#include "qapi/error.h"
#include <dlfcn.h>
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-stats.h"
#include "hw/virtio/virtio-mem-threads.h"
#include "virtio-mem-fake-work.h"

bool fake_work_no_threads;

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
    return qatomic_read(&fake_work_no_threads)
           ? EAGAIN : real(thread, attr, start, arg);
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
    g_assert_true(QEMU_IS_ALIGNED(offset | size, FAKE_WORK_BLOCK));
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
    for (uint64_t at = offset; at < offset + size; at += FAKE_WORK_BLOCK) {
        fake->touched[at / FAKE_WORK_BLOCK]++;
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
    FakeWork *fake = container_of(vmem, FakeWork, vmem);

    fake->max_asked = MAX(fake->max_asked, size);
    return offset + size <= fake->nb_empty * FAKE_WORK_BLOCK;
}

/* --- scene --- */

void fake_work_init(FakeWork *fake, unsigned int nb_threads)
{
    rust_bql_mock_lock();
    *fake = (FakeWork) {
        .vmem.memdev = &fake->memdev,
        .vmem.block_size = FAKE_WORK_BLOCK,
        .vmem.blocks = virtio_mem_blocks_new(FAKE_WORK_BLOCKS),
        .vmem.prealloc_threads = nb_threads,
        .page_size = 4 * KiB,
    };
    qemu_mutex_init(&fake->lock);
    qemu_mutex_init(&fake->serial);
    qemu_cond_init(&fake->changed);
    virtio_mem_stats_realize(&fake->vmem);
    g_assert_true(virtio_mem_work_realize(&fake->vmem, &error_abort));
}

void fake_work_realize_again(FakeWork *fake)
{
    virtio_mem_work_unrealize(&fake->vmem);
    g_assert_true(virtio_mem_work_realize(&fake->vmem, &error_abort));
}

void fake_work_use_context(FakeWork *fake)
{
    fake->memdev.prealloc_context = (ThreadContext *)fake;
    fake_work_realize_again(fake);
    fake->memdev.prealloc_context = NULL;
    g_assert_cmpuint(fake->nb_contexts, ==, 1);
}

void fake_work_destroy(FakeWork *fake)
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

void fake_work_plug(FakeWork *fake, uint64_t first, uint64_t nb_blocks)
{
    virtio_mem_blocks_set_plugged(fake->vmem.blocks,
                                  (VirtIOMEMRange) { first, nb_blocks });
}

int fake_work_discard(FakeWork *fake, VirtIOMEMRange within, bool plugged)
{
    return virtio_mem_work_discard(&fake->vmem,
                                   fake_work_parts(fake, within, plugged));
}

int fake_work_populate(FakeWork *fake, VirtIOMEMRange within)
{
    Error *err = NULL;
    int ret = virtio_mem_work_populate(&fake->vmem,
                                       fake_work_parts(fake, within, false),
                                       &err);

    g_assert_cmpint(ret < 0, ==, err != NULL);
    error_free(err);
    return ret;
}

void fake_work_assert_touched(const FakeWork *fake, VirtIOMEMRange within,
                           bool plugged)
{
    for (uint64_t i = 0; i < FAKE_WORK_BLOCKS; i++) {
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

void fake_work_await_idle_threads(void)
{
    GThreadPool *pool = virtio_mem_threads_new(NULL, 1, &error_abort);

    while (g_thread_pool_get_num_threads(pool)) {
        g_usleep(1000);
    }
}
