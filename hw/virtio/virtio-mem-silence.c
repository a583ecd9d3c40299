/*
 * Why the guest of a virtio-mem device does not change its size.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "system/balloon.h"
#include "virtio-mem-plan.h"
#include "virtio-mem-region.h"
#include "virtio-mem-silence.h"
#include "virtio-mem-unit.h"

typedef enum SilenceReport {
    SILENCE_REPORT_NONE,            /* and none is wanted */
    SILENCE_REPORT_AWAITED,
    SILENCE_REPORT_THERE,
} SilenceReport;

typedef struct VirtIOMEMSilence {
    VirtIOMEM *vmem;
    QEMUBH *bh;
    uint64_t reserve;               /* 0: by the size of the guest */
    SilenceReport first_is;         /* of when the resize began */
    BalloonGuestStats first;
    uint64_t first_plugged;         /* when it came */
    SilenceReport last_is;          /* of now, while the guest is silent */
    BalloonGuestStats last;
    Notifier report_notifier;
} VirtIOMEMSilence;

static bool silence_shrinks(const VirtIOMEM *vmem)
{
    return virtio_mem_plugged_size(vmem) > vmem->asked_size;
}

/* --- what it says --- */

/* The balloon driver also reports when others asked: that is as good. */
static void silence_take_report(Notifier *notifier, void *data)
{
    VirtIOMEMSilence *silence = container_of(notifier, VirtIOMEMSilence,
                                             report_notifier);
    const BalloonGuestStats *report = data;

    if (silence->first_is == SILENCE_REPORT_AWAITED) {
        silence->first_is = SILENCE_REPORT_THERE;
        silence->first = *report;
        silence->first_plugged = virtio_mem_plugged_size(silence->vmem);
    }
    if (silence->last_is != SILENCE_REPORT_NONE) {
        silence->last_is = SILENCE_REPORT_THERE;
        silence->last = *report;
        qemu_bh_schedule(silence->bh);
    }
}

static void silence_ask(SilenceReport *which)
{
    *which = SILENCE_REPORT_AWAITED;
    qemu_balloon_request_stats();
}

void virtio_mem_silence_prepare(VirtIOMEM *vmem, uint64_t reserve)
{
    VirtIOMEMSilence *silence = vmem->silence;

    assert(bql_locked());
    silence->reserve = reserve;
    if (virtio_mem_plugged_size(vmem) == vmem->requested_size) {
        silence->first_is = SILENCE_REPORT_NONE;
    } else {
        silence_ask(&silence->first_is);
    }
}

void virtio_mem_silence_begin(VirtIOMEM *vmem)
{
    assert(bql_locked());
    silence_ask(&vmem->silence->last_is);
}

void virtio_mem_silence_end(VirtIOMEM *vmem)
{
    assert(bql_locked());
    vmem->silence->last_is = SILENCE_REPORT_NONE;
}

/* --- what it means --- */

/*
 * A guest that should shrink is low on memory if it cannot spare what Linux
 * takes away at a time, and has memory in use that cannot be moved otherwise.
 */
static VirtioMEMResizeReason silence_of_shrink(const VirtIOMEMSilence *silence)
{
    const uint64_t reserve = silence->reserve ?:
                             virtio_mem_plan_reserve(silence->last.total);

    if (silence->last.available == UINT64_MAX) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_SILENT;
    }
    return silence->last.available < reserve + virtio_mem_unit_of_guest()
           ? VIRTIO_MEM_RESIZE_REASON_GUEST_LOW_MEMORY
           : VIRTIO_MEM_RESIZE_REASON_GUEST_MEMORY_IN_USE;
}

/* Linux stops when 1 GiB waits to be brought online, and says nothing. */
static VirtioMEMResizeReason silence_of_growth(const VirtIOMEMSilence *silence)
{
    const BalloonGuestStats *first = &silence->first;
    const BalloonGuestStats *last = &silence->last;
    const uint64_t plugged = virtio_mem_plugged_size(silence->vmem);

    if (silence->first_is != SILENCE_REPORT_THERE ||
        plugged <= silence->first_plugged) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_SILENT;
    }
    return virtio_mem_plan_is_online(first->total, last->total,
                                     plugged - silence->first_plugged)
           ? VIRTIO_MEM_RESIZE_REASON_GUEST_SILENT
           : VIRTIO_MEM_RESIZE_REASON_GUEST_MEMORY_OFFLINE;
}

VirtioMEMResizeReason virtio_mem_silence_reason(const VirtIOMEM *vmem)
{
    const VirtIOMEMSilence *silence = vmem->silence;
    VirtioMEMResizeReason harm;

    assert(bql_locked());
    if (silence->last_is != SILENCE_REPORT_THERE) {
        return VIRTIO_MEM_RESIZE_REASON_GUEST_SILENT;
    }
    if (silence->first_is == SILENCE_REPORT_THERE) {
        harm = virtio_mem_plan_harm(&silence->first, &silence->last);
        if (harm != VIRTIO_MEM_NO_REASON) {
            return harm;
        }
    }
    return silence_shrinks(vmem) ? silence_of_shrink(silence)
                                 : silence_of_growth(silence);
}

/* --- life --- */

void virtio_mem_silence_realize(VirtIOMEM *vmem, QEMUBH *bh)
{
    VirtIOMEMSilence *silence = g_new0(VirtIOMEMSilence, 1);

    vmem->silence = silence;
    silence->vmem = vmem;
    silence->bh = bh;
    silence->report_notifier.notify = silence_take_report;
    qemu_balloon_add_stats_notifier(&silence->report_notifier);
}

void virtio_mem_silence_unrealize(VirtIOMEM *vmem)
{
    notifier_remove(&vmem->silence->report_notifier);
    g_clear_pointer(&vmem->silence, g_free);
}
