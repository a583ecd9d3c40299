/*
 * Wake the guest of a virtio-mem device that heard BUSY.
 *
 * A driver that hears BUSY waits: Linux for 50 seconds, later for 300.  A
 * config interrupt, which the device MAY send at any time (spec: Device
 * configuration layout), makes it retry at once.  So a guest that heard BUSY
 * gets one when the cause is over: at the end of the migration (on the
 * destination, when the VM first runs there).  Some causes end without notice,
 * such as a lack of host memory.  So we also retry from a timer, after 1, 2, 4
 * ... 64 seconds, unless a migration is running.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-wake.h"

#define WAKE_FIRST_RETRY_MS 1000
#define WAKE_LAST_RETRY_MS (64 * WAKE_FIRST_RETRY_MS)

typedef struct VirtIOMEMWake {
    bool pending;               /* the guest waits for an interrupt */
    int64_t retry_ms;           /* the next delay of retry_timer */
    QEMUTimer *retry_timer;     /* guest time: stands still with the VM */
} VirtIOMEMWake;

bool virtio_mem_migration_forbids_change(void)
{
    return migration_in_incoming_postcopy() || migration_is_running();
}

bool virtio_mem_vm_is_live(void)
{
    return runstate_is_live(runstate_get());
}

/* A status write of the guest cuts its wait short, which is harmless. */
void virtio_mem_wake_if_due(VirtIOMEM *vmem)
{
    assert(bql_locked());
    if (!vmem->wake->pending || !virtio_mem_vm_is_live() ||
        virtio_mem_migration_forbids_change()) {
        return;
    }
    vmem->wake->pending = false;
    virtio_mem_stats_add(vmem, VIRTIO_MEM_WAKES, 1);
    trace_virtio_mem_wake();
    virtio_notify_config(VIRTIO_DEVICE(vmem));
}

void virtio_mem_wake_later(VirtIOMEM *vmem)
{
    VirtIOMEMWake *wake = vmem->wake;

    assert(bql_locked());
    wake->pending = true;
    timer_mod(wake->retry_timer,
              qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + wake->retry_ms);
    wake->retry_ms = MIN(2 * wake->retry_ms, WAKE_LAST_RETRY_MS);
}

void virtio_mem_wake_reset_backoff(VirtIOMEM *vmem)
{
    vmem->wake->retry_ms = WAKE_FIRST_RETRY_MS;
}

void virtio_mem_wake_forget(VirtIOMEM *vmem)
{
    assert(bql_locked());
    vmem->wake->pending = false;
    timer_del(vmem->wake->retry_timer);
    virtio_mem_wake_reset_backoff(vmem);
}

static void wake_retry(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    virtio_mem_wake_if_due(vmem);
    if (vmem->wake->pending) {
        virtio_mem_wake_later(vmem);
    }
}

void virtio_mem_wake_realize(VirtIOMEM *vmem)
{
    VirtIOMEMWake *wake = g_new0(VirtIOMEMWake, 1);

    vmem->wake = wake;
    wake->retry_ms = WAKE_FIRST_RETRY_MS;
    wake->retry_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, wake_retry, vmem);
}

void virtio_mem_wake_unrealize(VirtIOMEM *vmem)
{
    timer_free(vmem->wake->retry_timer);
    g_clear_pointer(&vmem->wake, g_free);
}
