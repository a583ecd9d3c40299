/*
 * What the user wishes a virtio-mem device's guest to have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/system.h"
#include "virtio-mem-check.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-silence.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-status.h"
#include "virtio-mem-steps.h"
#include "virtio-mem-work.h"

typedef struct VirtIOMEMResize {
    VirtIOMEM *vmem;
    MemoryDeviceResizeMode mode;        /* of the present wish */
    uint64_t reserve;                   /* the same */
    VirtIOMEMResizeOver *over;          /* of an order, or NULL */
    void *over_opaque;
    int64_t begin_ms;                   /* of the wish; -1: it was fulfilled */
    Notifier size_notifier;
    Notifier machine_done;
} VirtIOMEMResize;

/* Tell the caller of _order(), once. */
static void resize_tell_over(VirtIOMEMResize *resize,
                             VirtioMEMResizeReason reason)
{
    VirtIOMEMResizeOver *over = resize->over;

    resize->over = NULL;
    if (over) {
        over(resize->over_opaque, reason);
    }
}

/* Anew, with the same wish. */
static void resize_restart(VirtIOMEMResize *resize)
{
    VirtIOMEM *vmem = resize->vmem;

    virtio_mem_steps_stop(vmem);
    virtio_mem_silence_prepare(vmem, resize->reserve);
    if (resize->mode == MEMORY_DEVICE_RESIZE_MODE_PLAIN ||
        virtio_mem_plugged_size(vmem) == vmem->requested_size) {
        virtio_mem_steps_ask(vmem, vmem->requested_size);
    } else {
        virtio_mem_steps_begin(vmem, resize->reserve);
    }
    virtio_mem_status_restart(vmem);
}

static void resize_take_properties(VirtIOMEMResize *resize)
{
    resize->mode = resize->vmem->resize_mode;
    resize->reserve = resize->vmem->resize_reserve;
}

void virtio_mem_resize_restart(VirtIOMEM *vmem)
{
    if (!vmem->resize->over) {
        resize_take_properties(vmem->resize);
        resize_restart(vmem->resize);
    }
}

/* --- how long it takes: guest time --- */

static int64_t resize_clock_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

static void resize_count_end(VirtIOMEMResize *resize)
{
    if (resize->begin_ms >= 0) {
        virtio_mem_stats_add(resize->vmem, VIRTIO_MEM_RESIZES_FAILED, 1);
        resize->begin_ms = -1;
    }
}

static void resize_count_begin(VirtIOMEMResize *resize)
{
    VirtIOMEM *vmem = resize->vmem;

    resize_count_end(resize);
    virtio_mem_stats_add(vmem, VIRTIO_MEM_RESIZES, 1);
    if (virtio_mem_plugged_size(vmem) != vmem->requested_size) {
        resize->begin_ms = resize_clock_ms();
    }
}

static void resize_handle_size(Notifier *notifier, void *data)
{
    VirtIOMEMResize *resize = container_of(notifier, VirtIOMEMResize,
                                           size_notifier);
    const uint64_t *size = data;

    if (resize->begin_ms >= 0 && *size == resize->vmem->requested_size) {
        virtio_mem_stats_note_time(resize->vmem, VIRTIO_MEM_RESIZE_TIME,
                                   resize_clock_ms() - resize->begin_ms);
        resize->begin_ms = -1;
    }
}

/* --- wishes --- */

/* The guest is reminded, even if it is asked for the same. */
static void resize_wish(VirtIOMEMResize *resize, uint64_t size)
{
    VirtIOMEM *vmem = resize->vmem;
    const uint64_t before = vmem->asked_size;

    vmem->requested_size = size;
    resize_count_begin(resize);
    resize_restart(resize);
    if (vmem->asked_size == before) {
        virtio_notify_config(VIRTIO_DEVICE(vmem));
    }
}

bool virtio_mem_resize_wish(VirtIOMEM *vmem, uint64_t size, Error **errp)
{
    VirtIOMEMResize *resize = vmem->resize;
    const bool goes_on = virtio_mem_steps_are_active(vmem) || resize->over;

    if (size == vmem->requested_size && goes_on) {
        virtio_notify_config(VIRTIO_DEVICE(vmem));
        return true;
    }
    if (!virtio_mem_check_mode(VIRTIO_MEM_RESIZE_MODE_PROP,
                               vmem->resize_mode, errp)) {
        return false;
    }
    resize_tell_over(resize, VIRTIO_MEM_RESIZE_REASON_SUPERSEDED);
    resize_take_properties(resize);
    resize_wish(resize, size);
    return true;
}

void virtio_mem_resize_order(VirtIOMEM *vmem,
                             const VirtIOMEMResizeOrder *order)
{
    VirtIOMEMResize *resize = vmem->resize;

    assert(!resize->over || resize->over_opaque == order->opaque);
    resize->mode = order->mode;
    resize->reserve = order->reserve;
    resize->over = order->over;
    resize->over_opaque = order->opaque;
    resize_wish(resize, order->size);
}

bool virtio_mem_resize_is_done(const VirtIOMEM *vmem)
{
    return !virtio_mem_steps_are_active(vmem) &&
           vmem->asked_size == vmem->requested_size &&
           vmem->asked_size == virtio_mem_plugged_size(vmem);
}

void virtio_mem_resize_release(VirtIOMEM *vmem)
{
    vmem->resize->over = NULL;
    resize_take_properties(vmem->resize);
}

void virtio_mem_resize_settle(VirtIOMEM *vmem)
{
    virtio_mem_steps_stop(vmem);
    virtio_mem_drain(vmem);
    resize_count_end(vmem->resize);
    vmem->requested_size = virtio_mem_plugged_size(vmem);
    virtio_mem_steps_ask(vmem, vmem->requested_size);
    virtio_mem_status_restart(vmem);
}

void virtio_mem_resize_load(VirtIOMEM *vmem)
{
    virtio_mem_steps_stop(vmem);
    resize_count_end(vmem->resize);
    resize_tell_over(vmem->resize, VIRTIO_MEM_RESIZE_REASON_SUPERSEDED);
}

void virtio_mem_resize_leave(VirtIOMEM *vmem)
{
    if (!vmem->resize->over) {
        return;
    }
    virtio_mem_steps_stop(vmem);
    resize_count_end(vmem->resize);
    vmem->requested_size = vmem->asked_size;
    resize_tell_over(vmem->resize, VIRTIO_MEM_RESIZE_REASON_MIGRATED);
}

void virtio_mem_resize_system_reset(VirtIOMEM *vmem)
{
    if (vmem->asked_size < vmem->requested_size) {
        resize_restart(vmem->resize);
    } else {
        virtio_mem_steps_stop(vmem);
        virtio_mem_steps_ask(vmem, vmem->requested_size);
    }
}

/*
 * An order ends with its plan.  What that asked for last holds on: it may have
 * given a step back, for which the guest needs its time.
 */
static void resize_handle_end(VirtIOMEM *vmem, VirtioMEMResizeReason reason)
{
    if (reason != VIRTIO_MEM_NO_REASON) {
        resize_count_end(vmem->resize);
    }
    if (vmem->resize->over && reason != VIRTIO_MEM_NO_REASON) {
        vmem->requested_size = vmem->asked_size;
        virtio_mem_status_restart(vmem);
    }
    resize_tell_over(vmem->resize, reason);
}

/* All devices of the command line are there.  A balloon may still be added. */
static void resize_handle_machine_done(Notifier *notifier, void *data)
{
    const VirtIOMEMResize *resize = container_of(notifier, VirtIOMEMResize,
                                                 machine_done);
    Error *err = NULL;

    if (!virtio_mem_check_mode(VIRTIO_MEM_RESIZE_MODE_PROP,
                               resize->vmem->resize_mode, &err)) {
        warn_reportf_err(err, "virtio-mem '%s': ",
                         virtio_mem_name(resize->vmem));
    }
}

void virtio_mem_resize_realize(VirtIOMEM *vmem)
{
    VirtIOMEMResize *resize = g_new0(VirtIOMEMResize, 1);

    vmem->resize = resize;
    resize->vmem = vmem;
    resize_take_properties(resize);
    resize->begin_ms = -1;
    resize->size_notifier.notify = resize_handle_size;
    notifier_list_add(&vmem->size_change_notifiers, &resize->size_notifier);
    resize->machine_done.notify = resize_handle_machine_done;
    qemu_add_machine_init_done_notifier(&resize->machine_done);
    virtio_mem_steps_realize(vmem, resize_handle_end);
    if (vmem->asked_size != vmem->requested_size) {
        virtio_mem_steps_begin(vmem, resize->reserve);
    }
}

void virtio_mem_resize_unrealize(VirtIOMEM *vmem)
{
    virtio_mem_steps_unrealize(vmem);
    notifier_remove(&vmem->resize->size_notifier);
    qemu_remove_machine_init_done_notifier(&vmem->resize->machine_done);
    g_clear_pointer(&vmem->resize, g_free);
}
