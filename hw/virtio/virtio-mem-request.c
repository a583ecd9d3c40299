/*
 * Decide and serve the requests of a virtio-mem guest (spec: Device Operation).
 *
 * One request at a time, in ring order.  For each, one function decides (in
 * the order: type, range, state of the blocks, requested size, transient
 * conditions), the door in virtio-mem-plug.c acts, and the verdict's row in
 * one table is the answer.
 *
 * A coroutine serves the queue.  It waits, and the main loop goes on, while the
 * host populates or discards much memory for a request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "virtio-mem-config.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-internal.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-wake.h"
#include "virtio-mem-wire.h"

/* Ring slots; Linux and Windows use two at a time. */
#define VIRTIO_MEM_QUEUE_SIZE 128
#define VIRTIO_MEM_REQUESTS_PER_TURN 64

typedef enum VirtIOMEMVerdict {
    VIRTIO_MEM_OK,
    VIRTIO_MEM_BAD_TYPE,
    VIRTIO_MEM_BAD_RANGE,
    VIRTIO_MEM_BAD_STATE,
    VIRTIO_MEM_OVER_REQUESTED,
    VIRTIO_MEM_MIGRATING,
    VIRTIO_MEM_HOST_REFUSED,
    VIRTIO_MEM_CANCELED,
} VirtIOMEMVerdict;

/*
 * What the guest hears.  ERROR is for a driver's mistakes only: Linux gives up
 * on the device for good.  The wording is for traces.
 */
static const struct {
    uint16_t response;
    const char *why;
} virtio_mem_verdicts[] = {
    [VIRTIO_MEM_OK]             = { VIRTIO_MEM_RESP_ACK, "done" },
    [VIRTIO_MEM_BAD_TYPE]       = { VIRTIO_MEM_RESP_ERROR, "unknown type" },
    [VIRTIO_MEM_BAD_RANGE]      = { VIRTIO_MEM_RESP_ERROR,
                                    "not aligned, empty or not usable" },
    [VIRTIO_MEM_BAD_STATE]      = { VIRTIO_MEM_RESP_ERROR,
                                    "blocks already in that state" },
    [VIRTIO_MEM_OVER_REQUESTED] = { VIRTIO_MEM_RESP_NACK,
                                    "more than requested-size" },
    [VIRTIO_MEM_MIGRATING]      = { VIRTIO_MEM_RESP_BUSY, "migration" },
    [VIRTIO_MEM_HOST_REFUSED]   = { VIRTIO_MEM_RESP_BUSY, "host refused" },
    [VIRTIO_MEM_CANCELED]       = { VIRTIO_MEM_RESP_BUSY, "device drained" },
};

/* virtio_mem_plug_range() or virtio_mem_unplug_range(). */
typedef int coroutine_mixed_fn VirtIOMEMDoor(VirtIOMEM *vmem,
                                             VirtIOMEMRange range);

/* Whether @nb_blocks more would exceed the requested size (spec: rejected). */
static bool virtio_mem_over_requested(const VirtIOMEM *vmem,
                                      uint64_t nb_blocks)
{
    const uint64_t nb_requested = vmem->requested_size / vmem->block_size;

    return virtio_mem_blocks_count_plugged(vmem->blocks) + nb_blocks >
           nb_requested;
}

/*
 * PLUG and UNPLUG.  What is wrong with the request itself comes first, also
 * while it could not be served anyway: MUST answer ERROR (spec: PLUG request,
 * UNPLUG request).
 */
static VirtIOMEMVerdict virtio_mem_decide_change(const VirtIOMEM *vmem,
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
    if (plug && virtio_mem_over_requested(vmem, req->nb_blocks)) {
        return VIRTIO_MEM_OVER_REQUESTED;
    }
    return virtio_mem_is_busy() ? VIRTIO_MEM_MIGRATING : VIRTIO_MEM_OK;
}

/* What the door's answer means for the guest. */
static VirtIOMEMVerdict virtio_mem_judge(int ret)
{
    switch (ret) {
    case 0:
        return VIRTIO_MEM_OK;
    case -ECANCELED:
        return VIRTIO_MEM_CANCELED;
    default:
        return VIRTIO_MEM_HOST_REFUSED;
    }
}

/* Decide on a PLUG or UNPLUG, and go through the door that was asked for. */
static VirtIOMEMVerdict coroutine_fn
virtio_mem_request_change(VirtIOMEM *vmem, const VirtIOMEMRequest *req,
                          VirtIOMEMDoor *door)
{
    VirtIOMEMVerdict verdict;
    VirtIOMEMRange range;

    verdict = virtio_mem_decide_change(vmem, req, &range);
    if (verdict != VIRTIO_MEM_OK) {
        return verdict;
    }
    return virtio_mem_judge(door(vmem, range));
}

/* With nothing plugged there is nothing that a migration could mind. */
static VirtIOMEMVerdict coroutine_fn
virtio_mem_request_unplug_all(VirtIOMEM *vmem)
{
    if (virtio_mem_blocks_count_plugged(vmem->blocks)) {
        if (virtio_mem_is_busy()) {
            return VIRTIO_MEM_MIGRATING;
        }
        if (virtio_mem_unplug_all(vmem)) {
            return VIRTIO_MEM_HOST_REFUSED;
        }
    }
    virtio_mem_resize_usable_region(vmem, vmem->requested_size, true);
    return VIRTIO_MEM_OK;
}

/* MUST answer (spec: STATE request), so it is never BUSY. */
static VirtIOMEMVerdict virtio_mem_request_state(VirtIOMEM *vmem,
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
virtio_mem_execute(VirtIOMEM *vmem, const VirtIOMEMRequest *req,
                   uint16_t *state)
{
    switch (req->type) {
    case VIRTIO_MEM_REQ_PLUG:
        trace_virtio_mem_plug_request(req->gpa, req->nb_blocks);
        return virtio_mem_request_change(vmem, req, virtio_mem_plug_range);
    case VIRTIO_MEM_REQ_UNPLUG:
        trace_virtio_mem_unplug_request(req->gpa, req->nb_blocks);
        return virtio_mem_request_change(vmem, req, virtio_mem_unplug_range);
    case VIRTIO_MEM_REQ_UNPLUG_ALL:
        trace_virtio_mem_unplug_all_request();
        return virtio_mem_request_unplug_all(vmem);
    case VIRTIO_MEM_REQ_STATE:
        trace_virtio_mem_state_request(req->gpa, req->nb_blocks);
        return virtio_mem_request_state(vmem, req, state);
    default:
        return VIRTIO_MEM_BAD_TYPE;
    }
}

/* Whoever is told to wait gets woken; whoever misbehaves shows in a trace. */
static void virtio_mem_note_verdict(VirtIOMEM *vmem,
                                    const VirtIOMEMRequest *req,
                                    VirtIOMEMVerdict verdict)
{
    const char *why = virtio_mem_verdicts[verdict].why;

    switch (verdict) {
    case VIRTIO_MEM_OK:
        if (req->type != VIRTIO_MEM_REQ_STATE) {
            virtio_mem_wake_reset_backoff(vmem);
        }
        break;
    case VIRTIO_MEM_MIGRATING:
    case VIRTIO_MEM_HOST_REFUSED:
    case VIRTIO_MEM_CANCELED:
        trace_virtio_mem_busy(req->type, why);
        virtio_mem_wake_later(vmem);
        break;
    default:
        trace_virtio_mem_bad_request(req->type, req->gpa, req->nb_blocks, why);
    }
}

static void virtio_mem_answer(VirtIOMEM *vmem, VirtQueueElement *elem,
                              const VirtIOMEMResponse *response)
{
    const size_t len = virtio_mem_wire_write_response(elem->in_sg,
                                                      elem->in_num, response);

    trace_virtio_mem_send_response(response->type);
    virtqueue_push(vmem->vq, elem, len);
    virtio_notify(VIRTIO_DEVICE(vmem), vmem->vq);
}

/*
 * Form first, before anything changes: a request without room for its response
 * breaks the device instead of being half served.
 */
static bool coroutine_fn virtio_mem_serve(VirtIOMEM *vmem,
                                          VirtQueueElement *elem)
{
    VirtIOMEMResponse response = { 0 };
    VirtIOMEMVerdict verdict;
    VirtIOMEMRequest req;

    if (!virtio_mem_wire_response_fits(elem->in_sg, elem->in_num) ||
        !virtio_mem_wire_read_request(elem->out_sg, elem->out_num, &req)) {
        const size_t out_len = iov_size(elem->out_sg, elem->out_num);
        const size_t in_len = iov_size(elem->in_sg, elem->in_num);

        trace_virtio_mem_bad_frame(out_len, in_len);
        virtio_error(VIRTIO_DEVICE(vmem), "virtio-mem request of %zu bytes"
                     " with room for a response of %zu bytes: at least %zu and"
                     " %zu are needed", out_len, in_len,
                     sizeof(struct virtio_mem_req),
                     sizeof(struct virtio_mem_resp));
        return false;
    }

    verdict = virtio_mem_execute(vmem, &req, &response.state);
    virtio_mem_note_verdict(vmem, &req, verdict);
    response.type = virtio_mem_verdicts[verdict].response;
    virtio_mem_answer(vmem, elem, &response);
    return true;
}

/*
 * MUST NOT consume anything before DRIVER_OK (virtio 1.4: Device
 * Initialization).  A driver that goes on although its features were refused,
 * or that did not accept VERSION_1, is not served either.
 */
static bool virtio_mem_can_serve(VirtIODevice *vdev)
{
    const uint8_t ready = VIRTIO_CONFIG_S_FEATURES_OK |
                          VIRTIO_CONFIG_S_DRIVER_OK;

    return virtio_mem_is_live() && (vdev->status & ready) == ready &&
           virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1);
}

/* Take the next request and serve it; false if there is none, or no sense. */
static bool coroutine_fn virtio_mem_serve_next(VirtIOMEM *vmem)
{
    g_autofree VirtQueueElement *elem = NULL;

    /* To pop nothing costs more than to look. */
    if (!virtio_mem_can_serve(VIRTIO_DEVICE(vmem)) ||
        virtio_queue_empty(vmem->vq)) {
        return false;
    }
    elem = virtqueue_pop(vmem->vq, sizeof(*elem));
    if (!elem) {
        return false;
    }
    if (!virtio_mem_serve(vmem, elem)) {
        virtqueue_detach_element(vmem->vq, elem, 0);
        return false;
    }
    return true;
}

/*
 * Serve what is in the queue, but not for ever: a guest may refill it as fast
 * as it is served, and whoever drains the device waits.  The rest is served
 * after everybody else had a turn.
 */
static void coroutine_fn virtio_mem_serve_queue(void *opaque)
{
    VirtIOMEM *vmem = opaque;
    int budget = VIRTIO_MEM_REQUESTS_PER_TURN;

    virtio_mem_flight_begin(vmem);
    while (budget && !virtio_mem_is_draining(vmem) &&
           virtio_mem_serve_next(vmem)) {
        budget--;
    }
    if (!budget || virtio_mem_is_draining(vmem)) {
        qemu_bh_schedule(vmem->request_bh);
    }
    virtio_mem_flight_end(vmem);
}

static void virtio_mem_handle_requests(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);

    /* A request in flight is followed by those that came meanwhile. */
    if (virtio_mem_is_in_flight(vmem) || !virtio_mem_can_serve(vdev)) {
        return;
    }
    /* An iothread's device may write to the doorbell; it has no BQL later. */
    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        qemu_bh_schedule(vmem->request_bh);
        return;
    }
    qemu_coroutine_enter(qemu_coroutine_create(virtio_mem_serve_queue, vmem));
}

static void virtio_mem_go_on(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    virtio_mem_handle_requests(VIRTIO_DEVICE(vmem), vmem->vq);
}

void virtio_mem_request_resume(VirtIOMEM *vmem)
{
    if (!virtio_queue_empty(vmem->vq)) {
        qemu_bh_schedule(vmem->request_bh);
    }
}

void virtio_mem_request_realize(VirtIOMEM *vmem)
{
    vmem->vq = virtio_add_queue(VIRTIO_DEVICE(vmem), VIRTIO_MEM_QUEUE_SIZE,
                                virtio_mem_handle_requests);
    /* Like the queue's handler, not inside of other devices' draining. */
    vmem->request_bh = virtio_bh_io_new_guarded(DEVICE(vmem), virtio_mem_go_on,
                                                vmem);
}

void virtio_mem_request_unrealize(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->request_bh, qemu_bh_delete);
    virtio_delete_queue(vmem->vq);
}
