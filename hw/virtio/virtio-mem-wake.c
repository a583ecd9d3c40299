/*
 * Refuse changes while a migration runs, and wake the guest afterwards.
 *
 * A driver that hears BUSY waits: Linux for 50 seconds, later for 300.  A
 * config interrupt, which the device MAY send at any time (spec: Device
 * configuration layout), makes it retry at once.  So whoever heard BUSY gets
 * one when the cause is over: at the end of the migration (on the destination,
 * when the VM first runs there).  Not every end is announced, though, that of a
 * host's lack of memory never is; so there is also one as soon as no migration
 * is in the way after one second, then two, four and so on to about a minute.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qapi/qapi-types-migration.h"
#include "migration/client-options.h"
#include "migration/misc.h"
#include "system/runstate.h"
#include "virtio-mem-internal.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-work.h"

#define VIRTIO_MEM_FIRST_RETRY_MS 1000
#define VIRTIO_MEM_LAST_RETRY_MS (64 * VIRTIO_MEM_FIRST_RETRY_MS)
#define VIRTIO_MEM_POSTCOPY_POLL_MS 50

static const MigMode virtio_mem_migration_modes[] = {
    MIG_MODE_NORMAL, MIG_MODE_CPR_REBOOT, MIG_MODE_CPR_TRANSFER,
};

typedef struct VirtIOMEMMigrationNotifier {
    NotifierWithReturn notifier;
    VirtIOMEM *vmem;
} VirtIOMEMMigrationNotifier;

struct VirtIOMEMWake {
    bool pending;               /* the guest waits for an interrupt */
    int64_t retry_ms;           /* the next delay of retry_timer */
    QEMUTimer *retry_timer;     /* guest time: stands still with the VM */
    QEMUTimer *postcopy_timer;
    VirtIOMEMMigrationNotifier
        migration_notifiers[ARRAY_SIZE(virtio_mem_migration_modes)];
};

bool virtio_mem_is_busy(void)
{
    return migration_in_incoming_postcopy() || migration_is_running();
}

bool virtio_mem_is_live(void)
{
    return runstate_is_live(runstate_get());
}

/* A status write of the guest cuts its wait short, which is harmless. */
void virtio_mem_wake_if_due(VirtIOMEM *vmem)
{
    if (!vmem->wake->pending || !virtio_mem_is_live() || virtio_mem_is_busy()) {
        return;
    }
    vmem->wake->pending = false;
    trace_virtio_mem_wake();
    virtio_notify_config(VIRTIO_DEVICE(vmem));
}

void virtio_mem_wake_later(VirtIOMEM *vmem)
{
    VirtIOMEMWake *wake = vmem->wake;

    wake->pending = true;
    timer_mod(wake->retry_timer,
              qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + wake->retry_ms);
    wake->retry_ms = MIN(2 * wake->retry_ms, VIRTIO_MEM_LAST_RETRY_MS);
}

void virtio_mem_wake_reset_backoff(VirtIOMEM *vmem)
{
    vmem->wake->retry_ms = VIRTIO_MEM_FIRST_RETRY_MS;
}

void virtio_mem_wake_forget(VirtIOMEM *vmem)
{
    vmem->wake->pending = false;
    timer_del(vmem->wake->retry_timer);
    virtio_mem_wake_reset_backoff(vmem);
}

static void virtio_mem_wake_retry(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    virtio_mem_wake_if_due(vmem);
    if (vmem->wake->pending) {
        virtio_mem_wake_later(vmem);
    }
}

/*
 * At the begin, the request in flight is the last one that changes anything.
 * The end of a switch to postcopy is announced here, too, while the migration
 * still runs; the guest's turn comes with the next event then.
 */
static int virtio_mem_wake_migration_event(NotifierWithReturn *notifier,
                                           MigrationEvent *event, Error **errp)
{
    VirtIOMEM *vmem = container_of(notifier, VirtIOMEMMigrationNotifier,
                                   notifier)->vmem;

    if (event->type == MIG_EVENT_PRECOPY_SETUP) {
        virtio_mem_drain(vmem);
        if (migrate_background_snapshot()) {
            virtio_mem_protect_step_aside(vmem, VIRTIO_MEM_ASIDE_SNAPSHOT);
        }
    } else {
        /* The guest may have asked for something since the state changed. */
        virtio_mem_drain(vmem);
        if (virtio_mem_protect_come_back(vmem, VIRTIO_MEM_ASIDE_SNAPSHOT) &&
            virtio_mem_discard_unplugged(vmem)) {
            warn_report("virtio-mem '%s': cannot give back unplugged memory"
                        " that was touched during a snapshot",
                        virtio_mem_name(vmem));
        }
        virtio_mem_wake_if_due(vmem);
    }
    return 0;
}

void virtio_mem_wake_after_postcopy(VirtIOMEM *vmem)
{
    timer_mod(vmem->wake->postcopy_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              VIRTIO_MEM_POSTCOPY_POLL_MS);
}

/*
 * Memory of unplugged blocks was filled with zero pages when somebody touched
 * it.  That can only be given back when postcopy does not wait for faults any
 * more, of which the last step is announced to nobody.
 */
static void virtio_mem_wake_poll_postcopy(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    if (migration_in_incoming_postcopy()) {
        virtio_mem_wake_after_postcopy(vmem);
        return;
    }
    virtio_mem_drain(vmem);
    virtio_mem_protect_come_back(vmem, VIRTIO_MEM_ASIDE_LOAD);
    if (virtio_mem_discard_unplugged(vmem)) {
        warn_report("virtio-mem '%s': cannot give back unplugged memory that"
                    " was touched during postcopy", virtio_mem_name(vmem));
    }
    virtio_mem_wake_if_due(vmem);
}

void virtio_mem_wake_realize(VirtIOMEM *vmem)
{
    VirtIOMEMWake *wake = g_new0(VirtIOMEMWake, 1);
    size_t i;

    vmem->wake = wake;
    wake->retry_ms = VIRTIO_MEM_FIRST_RETRY_MS;
    wake->retry_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL,
                                     virtio_mem_wake_retry, vmem);
    wake->postcopy_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                        virtio_mem_wake_poll_postcopy, vmem);

    for (i = 0; i < ARRAY_SIZE(virtio_mem_migration_modes); i++) {
        wake->migration_notifiers[i].vmem = vmem;
        migration_add_notifier_mode(&wake->migration_notifiers[i].notifier,
                                    virtio_mem_wake_migration_event,
                                    virtio_mem_migration_modes[i]);
    }
}

void virtio_mem_wake_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMWake *wake = vmem->wake;
    size_t i;

    for (i = 0; i < ARRAY_SIZE(virtio_mem_migration_modes); i++) {
        migration_remove_notifier(&wake->migration_notifiers[i].notifier);
    }
    timer_free(wake->postcopy_timer);
    timer_free(wake->retry_timer);
    g_clear_pointer(&vmem->wake, g_free);
}
