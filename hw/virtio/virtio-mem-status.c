/*
 * How far a virtio-mem device is from the size it was asked for, and why.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/qapi-events-machine.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-region.h"
#include "virtio-mem-silence.h"
#include "virtio-mem-status.h"
#include "virtio-mem-wake.h"

/* A driver that works on a resize sends its next request sooner than that. */
#define STATUS_SILENCE_MS 20000

typedef struct VirtIOMEMSituation {
    VirtioMEMResizeStatus status;
    VirtioMEMResizeReason reason;       /* or VIRTIO_MEM_NO_REASON */
} VirtIOMEMSituation;

typedef struct VirtIOMEMStatus {
    VirtIOMEM *vmem;
    VirtIOMEMSituation told;            /* by the last event */
    bool told_obstacle;                 /* there was one then */
    QEMUBH *on_obstacle;                /* or NULL */
    VirtioMEMResizeReason held;         /* or VIRTIO_MEM_NO_REASON */
    bool features_refused;
    VirtioMEMResizeReason outcome;      /* of the last request; or the same */
    int64_t heard_ms;                   /* when it came, or could have */
    QEMUTimer *silence_timer;           /* guest time: stands still with it */
    QEMUBH *bh;
    Notifier size_notifier;
    Notifier suspend_notifier;
    Notifier wakeup_notifier;
} VirtIOMEMStatus;

/* Judge from the main loop, when all that changes has settled. */
static void status_schedule(VirtIOMEMStatus *status)
{
    qemu_bh_schedule(status->bh);
}

static int64_t status_now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

static bool status_is(const VirtIOMEMStatus *status, VirtioMEMResizeStatus is)
{
    return status->told.status == is;
}

/* --- what is in the way --- */

static VirtioMEMDriver status_driver(const VirtIOMEMStatus *status)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(status->vmem);

    if (vdev->broken) {
        return VIRTIO_MEM_DRIVER_BROKEN;
    }
    if (status->features_refused ||
        (vdev->status & VIRTIO_CONFIG_S_FAILED)) {
        return VIRTIO_MEM_DRIVER_REFUSED;
    }
    if (!(vdev->status & VIRTIO_CONFIG_S_DRIVER)) {
        return VIRTIO_MEM_DRIVER_ABSENT;
    }
    if (!(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return VIRTIO_MEM_DRIVER_STARTING;
    }
    /* Too old, or one that skips the negotiation: it is not served. */
    if (!(vdev->status & VIRTIO_CONFIG_S_FEATURES_OK) ||
        !virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        return VIRTIO_MEM_DRIVER_REFUSED;
    }
    return VIRTIO_MEM_DRIVER_READY;
}

static VirtioMEMResizeReason status_why_not_driver(VirtioMEMDriver driver)
{
    static const VirtioMEMResizeReason reasons[] = {
        [VIRTIO_MEM_DRIVER_ABSENT] = VIRTIO_MEM_RESIZE_REASON_NO_DRIVER,
        [VIRTIO_MEM_DRIVER_STARTING] = VIRTIO_MEM_RESIZE_REASON_DRIVER_STARTING,
        [VIRTIO_MEM_DRIVER_REFUSED] = VIRTIO_MEM_RESIZE_REASON_DRIVER_REFUSED,
        [VIRTIO_MEM_DRIVER_BROKEN] = VIRTIO_MEM_RESIZE_REASON_DRIVER_BROKEN,
        [VIRTIO_MEM_DRIVER_READY] = VIRTIO_MEM_NO_REASON,
    };

    return reasons[driver];
}

/* The one to remove first, of all that is in the way. */
static VirtioMEMResizeReason status_obstacle(const VirtIOMEMStatus *status)
{
    const VirtioMEMDriver driver = status_driver(status);

    if (runstate_check(RUN_STATE_SUSPENDED)) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_SUSPENDED;
    }
    if (!runstate_is_running()) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_STOPPED;
    }
    if (driver != VIRTIO_MEM_DRIVER_READY) {
        return status_why_not_driver(driver);
    }
    if (virtio_mem_migration_forbids_change()) {
        return VIRTIO_MEM_RESIZE_REASON_MIGRATION;
    }
    return status->outcome;
}

/* --- the status --- */

/* The guest has what it is asked for, which may be a step on the way. */
static bool status_has_arrived(const VirtIOMEM *vmem)
{
    return virtio_mem_plugged_size(vmem) == vmem->asked_size;
}

/* When nothing is in its way any more, the guest has all of its time again. */
static int64_t status_heard_ms(const VirtIOMEMStatus *status)
{
    return status_is(status, VIRTIO_MEM_RESIZE_STATUS_DONE) ||
           status_is(status, VIRTIO_MEM_RESIZE_STATUS_WAITING)
           ? status_now_ms() : status->heard_ms;
}

static VirtIOMEMSituation status_judge(const VirtIOMEMStatus *status)
{
    const VirtIOMEM *vmem = status->vmem;
    const VirtioMEMResizeReason obstacle = status_obstacle(status);
    const int64_t silence_ms = status_now_ms() - status_heard_ms(status);

    if (status_has_arrived(vmem) && vmem->asked_size == vmem->requested_size) {
        return (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_DONE,
                                      VIRTIO_MEM_NO_REASON };
    }
    if (obstacle != VIRTIO_MEM_NO_REASON) {
        return (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_WAITING,
                                      obstacle };
    }
    if (status->held != VIRTIO_MEM_NO_REASON) {
        return (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_WAITING,
                                      status->held };
    }
    if (virtio_mem_is_in_flight(vmem) || status_has_arrived(vmem) ||
        silence_ms < STATUS_SILENCE_MS) {
        return (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_WORKING,
                                      VIRTIO_MEM_NO_REASON };
    }
    return (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_STALLED,
                                  virtio_mem_silence_reason(vmem) };
}

static void status_tell(const VirtIOMEMStatus *status)
{
    const VirtIOMEM *vmem = status->vmem;
    DeviceState *proxy = virtio_mem_proxy(vmem);
    g_autofree char *path = object_get_canonical_path(OBJECT(proxy));
    const bool has_reason = status->told.reason != VIRTIO_MEM_NO_REASON;

    trace_virtio_mem_status(
        VirtioMEMResizeStatus_str(status->told.status),
        has_reason ? VirtioMEMResizeReason_str(status->told.reason) : "");
    qapi_event_send_virtio_mem_resize_status(
        proxy->id, path, vmem->requested_size, virtio_mem_plugged_size(vmem),
        status->told.status, has_reason,
        has_reason ? status->told.reason : 0);
}

/* Judge again when the guest may have been silent for too long. */
static void status_watch_silence(VirtIOMEMStatus *status)
{
    const int64_t since_ms = virtio_mem_is_in_flight(status->vmem)
                             ? status_now_ms() : status->heard_ms;

    if (status_is(status, VIRTIO_MEM_RESIZE_STATUS_WORKING) &&
        !status_has_arrived(status->vmem)) {
        timer_mod(status->silence_timer, since_ms + STATUS_SILENCE_MS);
    } else {
        timer_del(status->silence_timer);
    }
}

/* Also if the status stays the same: a plan waits for that. */
static void status_tell_obstacle(VirtIOMEMStatus *status)
{
    const bool is_there = status_obstacle(status) != VIRTIO_MEM_NO_REASON;

    if (is_there != status->told_obstacle && status->on_obstacle) {
        qemu_bh_schedule(status->on_obstacle);
    }
    status->told_obstacle = is_there;
}

static void status_refresh(VirtIOMEMStatus *status)
{
    const VirtIOMEMSituation before = status->told;
    const bool was_stalled = before.status == VIRTIO_MEM_RESIZE_STATUS_STALLED;

    status->heard_ms = status_heard_ms(status);
    if (!was_stalled) {
        virtio_mem_silence_end(status->vmem);
    }
    status->told = status_judge(status);
    status_watch_silence(status);
    status_tell_obstacle(status);
    if (status->told.status == before.status &&
        status->told.reason == before.reason) {
        return;
    }
    status_tell(status);
    if (status_is(status, VIRTIO_MEM_RESIZE_STATUS_STALLED) && !was_stalled) {
        virtio_mem_silence_begin(status->vmem);
    }
}

static void status_handle(void *opaque)
{
    status_refresh(opaque);
}

/* --- what may change it --- */

void virtio_mem_status_update(VirtIOMEM *vmem)
{
    assert(bql_locked());
    status_schedule(vmem->status);
}

void virtio_mem_status_restart(VirtIOMEM *vmem)
{
    VirtIOMEMStatus *status = vmem->status;

    assert(bql_locked());
    /* What the host could not do was for another size. */
    if (status->outcome != VIRTIO_MEM_RESIZE_REASON_DRIVER_GAVE_UP) {
        status->outcome = VIRTIO_MEM_NO_REASON;
    }
    status->heard_ms = status_now_ms();
    status_refresh(status);
}

void virtio_mem_status_hold(VirtIOMEM *vmem, VirtioMEMResizeReason reason)
{
    assert(bql_locked());
    if (vmem->status->held != reason) {
        vmem->status->held = reason;
        virtio_mem_status_update(vmem);
    }
}

VirtioMEMResizeReason virtio_mem_status_obstacle(const VirtIOMEM *vmem)
{
    assert(bql_locked());
    return status_obstacle(vmem->status);
}

VirtioMEMResizeReason virtio_mem_status_reason(const VirtIOMEM *vmem)
{
    const VirtioMEMResizeReason reason = status_judge(vmem->status).reason;

    assert(bql_locked());
    return reason == VIRTIO_MEM_NO_REASON
           ? VIRTIO_MEM_RESIZE_REASON_GUEST_SILENT : reason;
}

void virtio_mem_status_on_obstacle(VirtIOMEM *vmem, QEMUBH *bh)
{
    assert(bql_locked());
    vmem->status->on_obstacle = bh;
}

int64_t virtio_mem_status_silence_ms(const VirtIOMEM *vmem)
{
    assert(bql_locked());
    return status_now_ms() - vmem->status->heard_ms;
}

/*
 * Called for each request, so nothing is done about one that only shows that
 * the guest is still at work.
 */
void virtio_mem_status_note_request(VirtIOMEM *vmem, bool wants_change,
                                    VirtioMEMResizeReason reason)
{
    VirtIOMEMStatus *status = vmem->status;

    assert(bql_locked());
    if (!wants_change) {
        /* The driver has not given up, then. */
        if (status->outcome == VIRTIO_MEM_RESIZE_REASON_DRIVER_GAVE_UP) {
            status->outcome = VIRTIO_MEM_NO_REASON;
            virtio_mem_status_update(vmem);
        }
        return;
    }
    status->heard_ms = status_now_ms();
    if (reason != status->outcome ||
        status_is(status, VIRTIO_MEM_RESIZE_STATUS_STALLED)) {
        status->outcome = reason;
        virtio_mem_status_update(vmem);
    }
}

void virtio_mem_status_note_features(VirtIOMEM *vmem, bool refused)
{
    assert(bql_locked());
    vmem->status->features_refused = refused;
    virtio_mem_status_update(vmem);
}

void virtio_mem_status_forget(VirtIOMEM *vmem)
{
    assert(bql_locked());
    vmem->status->features_refused = false;
    vmem->status->outcome = VIRTIO_MEM_NO_REASON;
    virtio_mem_status_update(vmem);
}

/* A guest that is at work and has not arrived changes nothing. */
static void status_handle_size(Notifier *notifier, void *data)
{
    VirtIOMEMStatus *status = container_of(notifier, VirtIOMEMStatus,
                                           size_notifier);
    const uint64_t *size = data;

    if (*size == status->vmem->asked_size ||
        !status_is(status, VIRTIO_MEM_RESIZE_STATUS_WORKING)) {
        status_schedule(status);
    }
}

/* QEMU sets the run state "suspended" only after it has called this. */
static void status_handle_suspend(Notifier *notifier, void *data)
{
    status_schedule(container_of(notifier, VirtIOMEMStatus,
                                 suspend_notifier));
}

static void status_handle_wakeup(Notifier *notifier, void *data)
{
    status_schedule(container_of(notifier, VirtIOMEMStatus,
                                 wakeup_notifier));
}

void virtio_mem_status_fill_info(const VirtIOMEM *vmem,
                                 VirtioMEMDeviceInfo *info)
{
    const VirtIOMEMStatus *status = vmem->status;
    const VirtIOMEMSituation now = status_judge(status);

    assert(bql_locked());
    info->has_asked_size = true;
    info->asked_size = vmem->asked_size;
    info->has_driver = true;
    info->driver = status_driver(status);
    info->has_resize_mode = true;
    info->resize_mode = vmem->resize_mode;
    info->has_resize_status = true;
    info->resize_status = now.status;
    if (now.reason != VIRTIO_MEM_NO_REASON) {
        info->has_resize_reason = true;
        info->resize_reason = now.reason;
    }
}

/* --- life --- */

static void status_listen(VirtIOMEMStatus *status)
{
    status->size_notifier.notify = status_handle_size;
    notifier_list_add(&status->vmem->size_change_notifiers,
                      &status->size_notifier);
    status->suspend_notifier.notify = status_handle_suspend;
    qemu_register_suspend_notifier(&status->suspend_notifier);
    status->wakeup_notifier.notify = status_handle_wakeup;
    qemu_register_wakeup_notifier(&status->wakeup_notifier);
}

void virtio_mem_status_realize(VirtIOMEM *vmem)
{
    VirtIOMEMStatus *status = g_new0(VirtIOMEMStatus, 1);

    vmem->status = status;
    status->vmem = vmem;
    status->told = (VirtIOMEMSituation) { VIRTIO_MEM_RESIZE_STATUS_DONE,
                                          VIRTIO_MEM_NO_REASON };
    status->held = VIRTIO_MEM_NO_REASON;
    status->outcome = VIRTIO_MEM_NO_REASON;
    status->silence_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, status_handle,
                                         status);
    status->bh = virtio_bh_new_guarded(DEVICE(vmem), status_handle, status);
    virtio_mem_silence_realize(vmem, status->bh);
    status_listen(status);
}

void virtio_mem_status_unrealize(VirtIOMEM *vmem)
{
    VirtIOMEMStatus *status = vmem->status;

    notifier_remove(&status->wakeup_notifier);
    notifier_remove(&status->suspend_notifier);
    notifier_remove(&status->size_notifier);
    virtio_mem_silence_unrealize(vmem);
    qemu_bh_delete(status->bh);
    timer_free(status->silence_timer);
    g_clear_pointer(&vmem->status, g_free);
}
