/*
 * What files of virtio-mem call when they run in a model: included before all
 * else when they are compiled for it, see virtio-mem-model-host.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_MODEL_CALLS_H
#define VIRTIO_MEM_MODEL_CALLS_H

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/ioctl.h>
#include "block/aio.h"
#include "migration/register.h"
#include "qemu/madvise.h"
#include "qemu/thread.h"
#include "qemu/timer.h"

int model_poll(struct pollfd *fds, int timeout);
void model_sleep(void);
GThread *model_thread_start(void *(*run)(void *));
void model_thread_join(void);
int64_t model_now(void);
int model_ioctl(unsigned long request, void *arg);
int model_madvise(void *host, uint64_t size, int advice);
void model_schedule(void (*run)(void *), void *opaque);
void model_event_wait(QemuEvent *event);
void model_timer_mod(QEMUTimer *timer);
int model_register_savevm(const SaveVMHandlers *handlers, void *opaque);

#define poll(fds, nb, timeout) model_poll(fds, timeout)
#define g_usleep(us) model_sleep()
#define g_thread_try_new(name, run, opaque, err) model_thread_start(run)
#define g_thread_join(thread) ((void)(thread), model_thread_join())
#define g_get_monotonic_time() model_now()
#define ioctl(fd, request, arg) model_ioctl(request, arg)
#define qemu_madvise(host, size, advice) model_madvise(host, size, advice)
#undef aio_bh_schedule_oneshot
#define aio_bh_schedule_oneshot(ctx, run, opaque) \
    ((void)(ctx), model_schedule(run, opaque))
#define qemu_event_wait(event) model_event_wait(event)
#define timer_mod(timer, ms) model_timer_mod(timer)
#define register_savevm_live(id, instance, version, handlers, opaque) \
    model_register_savevm(handlers, opaque)

#endif
