/*
 * Decide on the requests of a virtio-mem guest (spec: Device Operation).
 *
 * For each, one function decides (in the order: type, range, state of the
 * blocks, requested size, transient conditions), the door in virtio-mem-plug.c
 * acts, and the verdict's row in one table is the answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "trace.h"
#include "virtio-mem-config.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-region.h"
#include "virtio-mem-request.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-status.h"
#include "virtio-mem-wake.h"

typedef enum VirtIOMEMVerdict {
    VIRTIO_MEM_OK,
    VIRTIO_MEM_BAD_TYPE,
    VIRTIO_MEM_BAD_RANGE,
    VIRTIO_MEM_BAD_STATE,
    VIRTIO_MEM_OVER_REQUESTED,
    VIRTIO_MEM_MIGRATING,
    VIRTIO_MEM_HOST_REFUSED,
    VIRTIO_MEM_NO_HOST_MEMORY,
    VIRTIO_MEM_CANCELED,
} VirtIOMEMVerdict;

/*
 * What the guest hears.  ERROR is for a driver's mistakes only: Linux gives up
 * on the device for good.  The wording is for traces, the reason for the status
 * of a resize, the counter for an answer that is BUSY.
 */
static const struct {
    uint16_t response;
    VirtioMEMResizeReason reason;
    const char *why;
    VirtIOMEMCounter busy;
} request_verdicts[] = {
    [VIRTIO_MEM_OK]             = { VIRTIO_MEM_RESP_ACK,
                                    VIRTIO_MEM_NO_REASON, "done" },
    [VIRTIO_MEM_BAD_TYPE]       = { VIRTIO_MEM_RESP_ERROR,
                                    VIRTIO_MEM_NO_REASON, "unknown type" },
    [VIRTIO_MEM_BAD_RANGE]      = { VIRTIO_MEM_RESP_ERROR,
                                    VIRTIO_MEM_RESIZE_REASON_DRIVER_GAVE_UP,
                                    "not aligned, empty or not usable" },
    [VIRTIO_MEM_BAD_STATE]      = { VIRTIO_MEM_RESP_ERROR,
                                    VIRTIO_MEM_RESIZE_REASON_DRIVER_GAVE_UP,
                                    "blocks already in that state" },
    [VIRTIO_MEM_OVER_REQUESTED] = { VIRTIO_MEM_RESP_NACK,
                                    VIRTIO_MEM_NO_REASON,
                                    "more than requested-size" },
    [VIRTIO_MEM_MIGRATING]      = { VIRTIO_MEM_RESP_BUSY,
                                    VIRTIO_MEM_NO_REASON, "migration",
                                    VIRTIO_MEM_BUSY_MIGRATION },
    [VIRTIO_MEM_HOST_REFUSED]   = { VIRTIO_MEM_RESP_BUSY,
                                    VIRTIO_MEM_RESIZE_REASON_HOST_REFUSED,
                                    "host refused",
                                    VIRTIO_MEM_BUSY_REFUSED },
    [VIRTIO_MEM_NO_HOST_MEMORY] = { VIRTIO_MEM_RESP_BUSY,
                                    VIRTIO_MEM_RESIZE_REASON_HOST_MEMORY,
                                    "no host memory",
                                    VIRTIO_MEM_BUSY_HOST_MEMORY },
    [VIRTIO_MEM_CANCELED]       = { VIRTIO_MEM_RESP_BUSY,
                                    VIRTIO_MEM_NO_REASON,
                                    "device drained",
                                    VIRTIO_MEM_BUSY_DRAINED },
};

/* Whether @nb_blocks more would exceed the requested size (spec: rejected). */
static bool request_exceeds(const VirtIOMEM *vmem, uint64_t nb_blocks)
{
    const uint64_t nb_requested = vmem->asked_size / vmem->block_size;

    return virtio_mem_blocks_count_plugged(vmem->blocks) + nb_blocks >
           nb_requested;
}

/*
 * PLUG and UNPLUG.  What is wrong with the request itself comes first, also
 * while it could not be served anyway: MUST answer ERROR (spec: PLUG request,
 * UNPLUG request).
 */
static VirtIOMEMVerdict request_decide(const VirtIOMEM *vmem,
                                       const VirtIOMEMRequest *req,
                                       VirtIOMEMRange *range)
{
    const bool plug = req->type == VIRTIO_MEM_REQ_PLUG;

    if (!virtio_mem_range_from_gpa(vmem, req->gpa, req->nb_blocks, range)) {
        return VIRTIO_MEM_BAD_RANGE;
    }
    if (virtio_mem_blocks_classify(vmem->blocks, *range) !=
        (plug ? VIRTIO_MEM_BLOCKS_UNPLUGGED : VIRTIO_MEM_BLOCKS_PLUGGED)) {
        return VIRTIO_MEM_BAD_STATE;
    }
    if (plug && request_exceeds(vmem, req->nb_blocks)) {
        return VIRTIO_MEM_OVER_REQUESTED;
    }
    return virtio_mem_migration_forbids_change() ? VIRTIO_MEM_MIGRATING
                                                 : VIRTIO_MEM_OK;
}

/* What the door's answer means for the guest. */
static VirtIOMEMVerdict request_judge(int ret)
{
    switch (ret) {
    case 0:
        return VIRTIO_MEM_OK;
    case -ECANCELED:
        return VIRTIO_MEM_CANCELED;
    case -ENOMEM:
        return VIRTIO_MEM_NO_HOST_MEMORY;
    default:
        return VIRTIO_MEM_HOST_REFUSED;
    }
}

/* Decide on a PLUG or UNPLUG, and go through the door. */
static VirtIOMEMVerdict coroutine_fn
request_change(VirtIOMEM *vmem, const VirtIOMEMRequest *req)
{
    const bool plug = req->type == VIRTIO_MEM_REQ_PLUG;
    VirtIOMEMVerdict verdict;
    VirtIOMEMRange range;
    int64_t start;

    verdict = request_decide(vmem, req, &range);
    if (verdict != VIRTIO_MEM_OK) {
        return verdict;
    }
    start = get_clock();
    verdict = request_judge(plug ? virtio_mem_plug_range(vmem, range)
                                 : virtio_mem_unplug_range(vmem, range));
    virtio_mem_stats_note_time(vmem, plug ? VIRTIO_MEM_PLUG_LATENCY
                                          : VIRTIO_MEM_UNPLUG_LATENCY,
                               get_clock() - start);
    if (verdict == VIRTIO_MEM_OK) {
        virtio_mem_stats_add(vmem, plug ? VIRTIO_MEM_PLUGGED_BYTES
                                        : VIRTIO_MEM_UNPLUGGED_BYTES,
                             virtio_mem_range_size(vmem, range));
    }
    return verdict;
}

/*
 * With nothing plugged, UNPLUG ALL changes nothing, so a running migration does
 * not matter.
 */
static VirtIOMEMVerdict coroutine_fn
request_unplug_all(VirtIOMEM *vmem)
{
    const uint64_t size = virtio_mem_plugged_size(vmem);

    if (virtio_mem_migration_forbids_change()) {
        if (virtio_mem_blocks_count_plugged(vmem->blocks)) {
            return VIRTIO_MEM_MIGRATING;
        }
    } else if (virtio_mem_unplug_all(vmem)) {
        return VIRTIO_MEM_HOST_REFUSED;
    }
    virtio_mem_stats_add(vmem, VIRTIO_MEM_UNPLUGGED_BYTES, size);
    virtio_mem_config_fit_usable_size(vmem);
    return VIRTIO_MEM_OK;
}

/* MUST answer (spec: STATE request), so it is never BUSY. */
static VirtIOMEMVerdict request_state(VirtIOMEM *vmem,
                                      const VirtIOMEMRequest *req,
                                      uint16_t *state)
{
    static const uint16_t wire_states[] = {
        [VIRTIO_MEM_BLOCKS_PLUGGED]   = VIRTIO_MEM_STATE_PLUGGED,
        [VIRTIO_MEM_BLOCKS_UNPLUGGED] = VIRTIO_MEM_STATE_UNPLUGGED,
        [VIRTIO_MEM_BLOCKS_MIXED]     = VIRTIO_MEM_STATE_MIXED,
    };
    VirtIOMEMRange range;

    if (!virtio_mem_range_from_gpa(vmem, req->gpa, req->nb_blocks, &range)) {
        return VIRTIO_MEM_BAD_RANGE;
    }
    *state = wire_states[virtio_mem_blocks_classify(vmem->blocks, range)];
    trace_virtio_mem_state_response(*state);
    return VIRTIO_MEM_OK;
}

static VirtIOMEMVerdict coroutine_fn
request_execute(VirtIOMEM *vmem, const VirtIOMEMRequest *req, uint16_t *state)
{
    switch (req->type) {
    case VIRTIO_MEM_REQ_PLUG:
        trace_virtio_mem_plug_request(req->gpa, req->nb_blocks);
        return request_change(vmem, req);
    case VIRTIO_MEM_REQ_UNPLUG:
        trace_virtio_mem_unplug_request(req->gpa, req->nb_blocks);
        return request_change(vmem, req);
    case VIRTIO_MEM_REQ_UNPLUG_ALL:
        trace_virtio_mem_unplug_all_request();
        return request_unplug_all(vmem);
    case VIRTIO_MEM_REQ_STATE:
        trace_virtio_mem_state_request(req->gpa, req->nb_blocks);
        return request_state(vmem, req, state);
    default:
        return VIRTIO_MEM_BAD_TYPE;
    }
}

/* That a STATE was answered says nothing about what blocks will do. */
static void request_note_outcome(VirtIOMEM *vmem, const VirtIOMEMRequest *req,
                                 VirtIOMEMVerdict verdict)
{
    virtio_mem_status_note_request(vmem,
                                   req->type != VIRTIO_MEM_REQ_STATE &&
                                   verdict != VIRTIO_MEM_BAD_TYPE,
                                   request_verdicts[verdict].reason);
}

static void request_count(VirtIOMEM *vmem, const VirtIOMEMRequest *req,
                          VirtIOMEMVerdict verdict)
{
    const uint16_t response = request_verdicts[verdict].response;

    virtio_mem_stats_note_answer(vmem, req->type, response);
    if (response == VIRTIO_MEM_RESP_BUSY) {
        virtio_mem_stats_add(vmem, request_verdicts[verdict].busy, 1);
    }
}

/* A mistake of the driver, or that it has to wait, shows in a trace. */
static void request_trace(const VirtIOMEMRequest *req,
                          VirtIOMEMVerdict verdict)
{
    const char *why = request_verdicts[verdict].why;

    if (request_verdicts[verdict].response == VIRTIO_MEM_RESP_BUSY) {
        trace_virtio_mem_busy(req->type, why);
    } else if (verdict != VIRTIO_MEM_OK) {
        trace_virtio_mem_bad_request(req->type, req->gpa, req->nb_blocks, why);
    }
}

/* A guest that is told to wait gets woken; one that gets on, soon again. */
static void request_schedule_wake(VirtIOMEM *vmem, VirtIOMEMVerdict verdict)
{
    if (request_verdicts[verdict].response == VIRTIO_MEM_RESP_BUSY) {
        virtio_mem_wake_later(vmem);
    } else if (verdict == VIRTIO_MEM_OK) {
        virtio_mem_wake_reset_backoff(vmem);
    }
}

static void request_note(VirtIOMEM *vmem, const VirtIOMEMRequest *req,
                         VirtIOMEMVerdict verdict)
{
    request_note_outcome(vmem, req, verdict);
    /* A guest looks at all of its memory by STATE: lose no time with that. */
    if (req->type != VIRTIO_MEM_REQ_STATE || verdict != VIRTIO_MEM_OK) {
        request_trace(req, verdict);
        request_schedule_wake(vmem, verdict);
        request_count(vmem, req, verdict);
    }
}

VirtIOMEMResponse coroutine_fn
virtio_mem_request_serve(VirtIOMEM *vmem, const VirtIOMEMRequest *req)
{
    VirtIOMEMResponse response = { 0 };
    const VirtIOMEMVerdict verdict = request_execute(vmem, req,
                                                     &response.state);

    request_note(vmem, req, verdict);
    response.type = request_verdicts[verdict].response;
    return response;
}
