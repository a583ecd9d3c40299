/*
 * The guard of a virtio-mem device: when it is paused, what it reports.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-events-machine.h"
#include "qapi/qapi-events-run-state.h"
#include "exec/cpu-common.h"
#include "system/qtest.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-protect.h"
#include "virtio-mem-region.h"
#include "standard-headers/linux/virtio_mem.h"

#define PROTECT_EVENT_INTERVAL_MS 1000
#define PROTECT_RETRY_MIN_S 1
#define PROTECT_RETRY_MAX_S 32

typedef struct VirtIOMEMProtection {
    unsigned int paused;        /* VirtIOMEMPause: all reasons to be so */
    bool is_lost;               /* the guard could not resume, or gave up */
    QEMUBH *access_bh;
    QEMUTimer *retry_timer;     /* the caller's, see _on_loss() */
    unsigned int retry_s;
    QEMUTimer *event_timer;     /* pending: the next event has to wait */
    VirtIOMEMGuardAccess access;
    bool has_access;            /* not told by an event yet */
} VirtIOMEMProtection;

/* --- pauses --- */

int virtio_mem_protect_pause(VirtIOMEM *vmem, VirtIOMEMPause why)
{
    assert(bql_locked());
    if (!vmem->guard) {
        return 0;
    }
    trace_virtio_mem_guard_pause(why);
    vmem->protection->paused |= why;
    return virtio_mem_guard_pause(vmem->guard);
}

bool virtio_mem_protect_resume(VirtIOMEM *vmem, VirtIOMEMPause why)
{
    assert(bql_locked());
    if (!vmem->guard || !(vmem->protection->paused & why)) {
        return false;
    }
    trace_virtio_mem_guard_resume(why);
    vmem->protection->paused &= ~why;
    virtio_mem_protect_retry(vmem);
    return true;
}

/* --- lost --- */

void virtio_mem_protect_on_loss(VirtIOMEM *vmem, QEMUTimer *timer)
{
    if (vmem->protection) {
        vmem->protection->retry_timer = timer;
    }
}

/* Whether it is lost, also by event. */
static void protect_set_lost(VirtIOMEM *vmem, bool lost)
{
    DeviceState *proxy = virtio_mem_proxy(vmem);
    g_autofree char *path = object_get_canonical_path(OBJECT(proxy));

    vmem->protection->is_lost = lost;
    qapi_event_send_virtio_mem_protection_change(proxy->id, path, !lost);
}

/* With "on", the VM must not run without protection. */
static void protect_stop(VirtIOMEM *vmem, const char *reason)
{
    if (vmem->protect_unplugged != ON_OFF_AUTO_ON || !runstate_is_running()) {
        return;
    }
    error_report("virtio-mem '%s': the VM stops because unplugged memory is not"
                 " protected any more, as '%s' demands: %s; when that is over,"
                 " reset the VM and continue",
                 virtio_mem_name(vmem), VIRTIO_MEM_PROTECT_UNPLUGGED_PROP,
                 reason);
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/* Say so once, try again less and less often. */
static void protect_lose(VirtIOMEM *vmem, const char *reason)
{
    VirtIOMEMProtection *protection = vmem->protection;

    if (!protection->is_lost) {
        protect_set_lost(vmem, true);
        protection->retry_s = PROTECT_RETRY_MIN_S;
        warn_report("virtio-mem '%s': unplugged memory is not protected any"
                    " more, userfaultfd cannot watch it: %s; this is retried:"
                    " free host memory, raise vm.max_map_count, or end what"
                    " else watches it", virtio_mem_name(vmem), reason);
    }
    protect_stop(vmem, reason);
    if (protection->retry_timer) {
        timer_mod(protection->retry_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  protection->retry_s * 1000);
        protection->retry_s = MIN(protection->retry_s * 2, PROTECT_RETRY_MAX_S);
    }
}

bool virtio_mem_protect_retry(VirtIOMEM *vmem)
{
    int ret;

    assert(bql_locked());
    if (!vmem->guard || vmem->protection->paused ||
        virtio_mem_guard_is_active(vmem->guard)) {
        return false;
    }
    ret = virtio_mem_guard_resume(vmem->guard);
    if (ret) {
        protect_lose(vmem, strerror(-ret));
        return false;
    }
    if (vmem->protection->is_lost) {
        protect_set_lost(vmem, false);
        info_report("virtio-mem '%s': unplugged memory is protected again",
                    virtio_mem_name(vmem));
    }
    return true;
}

/* The guard has given up by itself, see virtio_mem_guard_force(). */
static void protect_check(VirtIOMEM *vmem)
{
    if (!vmem->protection->paused && !vmem->protection->is_lost &&
        !virtio_mem_guard_is_active(vmem->guard)) {
        protect_lose(vmem, "the kernel refused to undo a change");
    }
}

/* --- reports --- */

/* Guest time in tests, as for other events. */
static QEMUClockType protect_clock(void)
{
    return qtest_enabled() ? QEMU_CLOCK_VIRTUAL : QEMU_CLOCK_REALTIME;
}

/* The accesses since the last call, which the next event tells, too. */
static bool protect_fetch(VirtIOMEM *vmem, VirtIOMEMGuardAccess *access)
{
    VirtIOMEMProtection *protection = vmem->protection;

    if (!virtio_mem_guard_fetch(vmem->guard, access)) {
        return false;
    }
    if (!protection->has_access) {
        protection->access = *access;
        protection->has_access = true;
    }
    protection->access.count = access->count;
    return true;
}

uint64_t virtio_mem_protect_nb_accesses(const VirtIOMEM *vmem)
{
    assert(bql_locked());
    return vmem->protection ? vmem->protection->access.count : 0;
}

/* At most one event each second; what comes in between is in the next one. */
static void protect_send_event(void *opaque)
{
    VirtIOMEM *vmem = opaque;
    QEMUTimer *timer = vmem->protection->event_timer;
    const VirtIOMEMGuardAccess *access = &vmem->protection->access;
    DeviceState *proxy = virtio_mem_proxy(vmem);
    g_autofree char *path = object_get_canonical_path(OBJECT(proxy));

    if (timer_pending(timer) || !vmem->protection->has_access) {
        return;
    }
    trace_virtio_mem_bad_access(vmem->addr + access->offset, access->write,
                                access->count);
    qapi_event_send_virtio_mem_unplugged_access(proxy->id, path,
                                                vmem->addr + access->offset,
                                                access->write, access->count);
    vmem->protection->has_access = false;
    timer_mod(timer, qemu_clock_get_ms(protect_clock()) +
                     PROTECT_EVENT_INTERVAL_MS);
}

/*
 * A driver MUST NOT write to unplugged memory.  It may read there, unless it
 * has acknowledged that it MUST NOT (virtio 1.4, Memory Device: Feature bits).
 */
static bool protect_is_wrong(VirtIOMEM *vmem,
                             const VirtIOMEMGuardAccess *access)
{
    return access->any_write ||
           virtio_vdev_has_feature(VIRTIO_DEVICE(vmem),
                                   VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);
}

static void protect_handle_access(void *opaque)
{
    VirtIOMEM *vmem = opaque;
    VirtIOMEMGuardAccess access;

    protect_check(vmem);
    if (!protect_fetch(vmem, &access)) {
        return;
    }
    protect_send_event(vmem);
    if (vmem->unplugged_access == VIRTIO_MEM_UNPLUGGED_ACCESS_STOP &&
        runstate_is_running() && protect_is_wrong(vmem, &access)) {
        error_report("virtio-mem '%s': the VM stops because the guest used"
                     " memory that it has not plugged", virtio_mem_name(vmem));
        qapi_event_send_guest_panicked(GUEST_PANIC_ACTION_PAUSE, NULL);
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(RUN_STATE_GUEST_PANICKED);
    }
}

/* --- what the guard asks for, in any thread --- */

static void protect_notify(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    qemu_bh_schedule(vmem->protection->access_bh);
}

static int protect_discard(void *opaque, uint64_t offset, uint64_t size)
{
    VirtIOMEM *vmem = opaque;

    return virtio_mem_backing_discard(vmem, offset, size);
}

static int protect_map(void *opaque, uint64_t offset, uint64_t size)
{
    VirtIOMEM *vmem = opaque;

    return virtio_mem_backing_map(vmem->memdev, offset, size);
}

/* --- life --- */

static VirtIOMEMGuard *protect_start(VirtIOMEM *vmem, bool paused, Error **errp)
{
    const VirtIOMEMGuardArea area = {
        .host = memory_region_get_ram_ptr(&vmem->memdev->mr),
        .size = virtio_mem_region_size(vmem),
        .page_size = host_memory_backend_pagesize(vmem->memdev),
        .block_size = vmem->block_size,
        .shared = qemu_ram_is_shared(vmem->memdev->mr.ram_block),
        .reserved = virtio_mem_backing_has_reserve(vmem->memdev),
        .discard = protect_discard,
        .map = virtio_mem_backing_can_map(vmem->memdev) ?
               protect_map : NULL,
        .notify = protect_notify,
        .opaque = vmem,
    };

    if (virtio_mem_backing_is_private_copy(vmem->memdev)) {
        error_setg(errp, "'%s' is a private mapping of a file, whose content a"
                   " guest could copy; set its 'share' to 'on'",
                   virtio_mem_name(vmem));
        return NULL;
    }
    return virtio_mem_guard_new(&area, paused, errp);
}

bool virtio_mem_protect_realize(VirtIOMEM *vmem, Error **errp)
{
    const bool paused = runstate_check(RUN_STATE_INMIGRATE);
    Error *err = NULL;

    if (vmem->protect_unplugged == ON_OFF_AUTO_OFF) {
        return true;
    }
    vmem->protection = g_new0(VirtIOMEMProtection, 1);
    vmem->protection->paused = paused ? VIRTIO_MEM_PAUSE_LOAD : 0;
    vmem->protection->event_timer = timer_new_ms(
        protect_clock(), protect_send_event, vmem);
    vmem->protection->access_bh = virtio_bh_new_guarded(
        DEVICE(vmem), protect_handle_access, vmem);

    vmem->guard = protect_start(vmem, paused, &err);
    if (vmem->guard) {
        return true;
    }

    virtio_mem_protect_unrealize(vmem);
    if (vmem->protect_unplugged == ON_OFF_AUTO_ON) {
        error_propagate_prepend(errp, err, "'%s' property cannot be 'on': ",
                                VIRTIO_MEM_PROTECT_UNPLUGGED_PROP);
        return false;
    }
    trace_virtio_mem_unprotected(error_get_pretty(err));
    warn_report("virtio-mem '%s': unplugged memory is not protected: %s",
                virtio_mem_name(vmem), error_get_pretty(err));
    error_free(err);
    return true;
}

void virtio_mem_protect_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMProtection *protection = vmem->protection;

    if (!protection) {
        return;
    }
    g_clear_pointer(&vmem->guard, virtio_mem_guard_free);
    timer_free(protection->event_timer);
    qemu_bh_delete(protection->access_bh);
    g_clear_pointer(&vmem->protection, g_free);
}
