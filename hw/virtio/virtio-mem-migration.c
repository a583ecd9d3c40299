/*
 * What a migration or a snapshot asks of a virtio-mem device.
 *
 * Two kinds of users need all of the memory for a while, so the guard pauses
 * for them.  A load fills it before the blocks are known, and memory that the
 * guard keeps out of reach would lose what arrives.  Background snapshots and
 * postcopy watch all of it by userfaultfd themselves, which only one may do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-types-migration.h"
#include "migration/client-options.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "system/runstate.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-migration.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-protect.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-status.h"
#include "virtio-mem-wake.h"
#include "virtio-mem-work.h"

#define VIRTIO_MEM_SAVEVM_ID "virtio-mem-guard"
#define VIRTIO_MEM_POSTCOPY_POLL_MS 10

static const MigMode virtio_mem_migration_modes[] = {
    MIG_MODE_NORMAL, MIG_MODE_CPR_REBOOT, MIG_MODE_CPR_TRANSFER,
};

typedef struct VirtIOMEMMigrationNotifier {
    NotifierWithReturn notifier;
    VirtIOMEM *vmem;
} VirtIOMEMMigrationNotifier;

typedef struct VirtIOMEMMigration {
    QEMUTimer *postcopy_timer;
    QEMUTimer *retry_timer;
    VMChangeStateEntry *vm_change;
    VirtIOMEMMigrationNotifier
        notifiers[ARRAY_SIZE(virtio_mem_migration_modes)];
} VirtIOMEMMigration;

/*
 * Resume the guard, and give back what arrived in unplugged memory meanwhile;
 * @touched: something may have arrived although there was no guard.  Memory
 * that is not migrated is not ours to discard.  False if the host did not take
 * it back.
 */
static bool migration_settle(VirtIOMEM *vmem, VirtIOMEMPause why, bool touched)
{
    const bool is_ours = why == VIRTIO_MEM_PAUSE_SNAPSHOT ||
                         !virtio_mem_backing_is_ignored(vmem->memdev);

    touched |= virtio_mem_protect_resume(vmem, why);
    return !touched || !is_ours || !virtio_mem_discard_unplugged(vmem);
}

/* --- outgoing --- */

/* The request in flight is the last one that changes anything. */
static void migration_begin(VirtIOMEM *vmem)
{
    virtio_mem_drain(vmem);
    if (migrate_background_snapshot()) {
        /* Unplugged memory is not saved: whatever is mapped there will do. */
        virtio_mem_protect_pause(vmem, VIRTIO_MEM_PAUSE_SNAPSHOT);
    }
}

/*
 * Also called when a switch to postcopy is done, while the migration still
 * runs; the guest's turn comes with the next event then.
 */
static void migration_end(VirtIOMEM *vmem)
{
    /* The guest may have asked for something since the state changed. */
    virtio_mem_drain(vmem);
    if (!migration_settle(vmem, VIRTIO_MEM_PAUSE_SNAPSHOT, false)) {
        warn_report("virtio-mem '%s': cannot give back unplugged memory"
                    " that was touched during a snapshot",
                    virtio_mem_name(vmem));
    }
    virtio_mem_wake_if_due(vmem);
}

static int migration_event(NotifierWithReturn *notifier,
                           MigrationEvent *event, Error **errp)
{
    VirtIOMEM *vmem = container_of(notifier, VirtIOMEMMigrationNotifier,
                                   notifier)->vmem;

    if (event->type == MIG_EVENT_PRECOPY_SETUP) {
        migration_begin(vmem);
    } else {
        migration_end(vmem);
    }
    if (event->type == MIG_EVENT_PRECOPY_DONE &&
        !migrate_background_snapshot()) {
        virtio_mem_resize_leave(vmem);
    }
    virtio_mem_status_update(vmem);
    return 0;
}

/* --- incoming --- */

/*
 * Of a migration or a snapshot: before the first page arrives.  This is the
 * only hook that comes that early for both.
 */
static int migration_load_setup(QEMUFile *f, void *opaque, Error **errp)
{
    VirtIOMEM *vmem = opaque;
    const int ret = virtio_mem_protect_pause(vmem, VIRTIO_MEM_PAUSE_LOAD);

    if (ret) {
        error_setg_errno(errp, -ret, "virtio-mem '%s': the host does not map"
                         " the huge pages again that memory is loaded to; free"
                         " host memory, or raise vm.max_map_count",
                         virtio_mem_name(vmem));
    }
    return ret;
}

/* Works in any thread. */
static void migration_await_postcopy(VirtIOMEM *vmem)
{
    timer_mod(vmem->migration->postcopy_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              VIRTIO_MEM_POSTCOPY_POLL_MS);
}

/*
 * Memory of unplugged blocks was filled with zero pages when it was touched.
 * That is given back when postcopy does not wait for faults any more.
 */
static void migration_poll_postcopy(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    if (migration_in_incoming_postcopy()) {
        migration_await_postcopy(vmem);
        return;
    }
    virtio_mem_drain(vmem);
    if (!migration_settle(vmem, VIRTIO_MEM_PAUSE_LOAD, true)) {
        warn_report("virtio-mem '%s': cannot give back unplugged memory that"
                    " was touched during postcopy", virtio_mem_name(vmem));
    }
    virtio_mem_wake_if_due(vmem);
    virtio_mem_status_update(vmem);
}

/*
 * At the end of all, also for a device that nothing was loaded for.  That of
 * postcopy is in the last thread that is left of it, which is about to say
 * that it is over.
 */
static int migration_load_cleanup(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    if (migration_in_incoming_postcopy()) {
        migration_await_postcopy(vmem);
    } else {
        migration_settle(vmem, VIRTIO_MEM_PAUSE_LOAD, false);
    }
    return 0;
}

static const SaveVMHandlers virtio_mem_migration_handlers = {
    .load_setup = migration_load_setup,
    .load_cleanup = migration_load_cleanup,
};

bool virtio_mem_migration_loaded(VirtIOMEM *vmem, Error **errp)
{
    if (migration_in_incoming_postcopy()) {
        return true;
    }
    if (!migration_settle(vmem, VIRTIO_MEM_PAUSE_LOAD, true)) {
        error_setg(errp, "cannot discard unplugged memory");
        return false;
    }
    return true;
}

/* --- protection that was lost --- */

static void migration_retry(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    virtio_mem_drain(vmem);
    if (virtio_mem_protect_retry(vmem) &&
        !virtio_mem_backing_is_ignored(vmem->memdev) &&
        virtio_mem_discard_unplugged(vmem)) {
        warn_report("virtio-mem '%s': cannot give back unplugged memory that"
                    " was touched while it was not protected",
                    virtio_mem_name(vmem));
    }
    virtio_mem_wake_if_due(vmem);
}

/* Protection may have been lost while the VM did not run: retry, or stop it. */
static void migration_on_vm_change(void *opaque, bool running, RunState state)
{
    if (running) {
        migration_retry(opaque);
    }
}

/* --- life --- */

void virtio_mem_migration_realize(VirtIOMEM *vmem)
{
    VirtIOMEMMigration *migration = g_new0(VirtIOMEMMigration, 1);
    size_t i;

    vmem->migration = migration;
    migration->postcopy_timer = timer_new_ms(
        QEMU_CLOCK_REALTIME, migration_poll_postcopy, vmem);
    migration->retry_timer = timer_new_ms(
        QEMU_CLOCK_REALTIME, migration_retry, vmem);
    virtio_mem_protect_on_loss(vmem, migration->retry_timer);
    migration->vm_change = qemu_add_vm_change_state_handler(
        migration_on_vm_change, vmem);
    for (i = 0; i < ARRAY_SIZE(migration->notifiers); i++) {
        migration->notifiers[i].vmem = vmem;
        migration_add_notifier_mode(&migration->notifiers[i].notifier,
                                    migration_event,
                                    virtio_mem_migration_modes[i]);
    }
    register_savevm_live(VIRTIO_MEM_SAVEVM_ID, VMSTATE_INSTANCE_ID_ANY, 1,
                         &virtio_mem_migration_handlers, vmem);
}

void virtio_mem_migration_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMMigration *migration = vmem->migration;
    size_t i;

    unregister_savevm(NULL, VIRTIO_MEM_SAVEVM_ID, vmem);
    for (i = 0; i < ARRAY_SIZE(migration->notifiers); i++) {
        migration_remove_notifier(&migration->notifiers[i].notifier);
    }
    qemu_del_vm_change_state_handler(migration->vm_change);
    virtio_mem_protect_on_loss(vmem, NULL);
    timer_free(migration->retry_timer);
    timer_free(migration->postcopy_timer);
    g_clear_pointer(&vmem->migration, g_free);
}
