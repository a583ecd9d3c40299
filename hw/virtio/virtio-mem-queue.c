/*
 * Take the requests of a virtio-mem guest and answer them.
 *
 * One request at a time, in ring order.  A coroutine serves the queue.  It
 * waits, and the main loop goes on, while the host populates or discards much
 * memory for a request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "trace.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-queue.h"
#include "virtio-mem-request.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-status.h"
#include "virtio-mem-wake.h"

/* Ring slots; Linux and Windows use two at a time. */
#define QUEUE_SIZE 128
#define QUEUE_REQUESTS_AT_ONCE 64

typedef struct VirtIOMEMQueue {
    VirtQueue *vq;
    QEMUBH *bh;                 /* goes on serving the queue */
} VirtIOMEMQueue;

static void queue_answer(VirtIOMEM *vmem, VirtQueueElement *elem,
                         const VirtIOMEMResponse *response)
{
    const size_t len = virtio_mem_wire_write_response(elem->in_sg,
                                                      elem->in_num, response);

    trace_virtio_mem_send_response(response->type);
    virtqueue_push(vmem->queue->vq, elem, len);
    virtio_notify(VIRTIO_DEVICE(vmem), vmem->queue->vq);
}

/*
 * Form first, before anything changes: a request without room for its response
 * breaks the device instead of being half served.
 */
static bool coroutine_fn queue_serve(VirtIOMEM *vmem, VirtQueueElement *elem)
{
    VirtIOMEMResponse response;
    VirtIOMEMRequest req;

    if (!virtio_mem_wire_response_fits(elem->in_sg, elem->in_num) ||
        !virtio_mem_wire_read_request(elem->out_sg, elem->out_num, &req)) {
        const size_t out_len = iov_size(elem->out_sg, elem->out_num);
        const size_t in_len = iov_size(elem->in_sg, elem->in_num);

        trace_virtio_mem_bad_frame(out_len, in_len);
        virtio_mem_stats_add(vmem, VIRTIO_MEM_BAD_REQUESTS, 1);
        virtio_error(VIRTIO_DEVICE(vmem), "virtio-mem request of %zu bytes"
                     " with room for a response of %zu bytes: at least %zu and"
                     " %zu are needed", out_len, in_len,
                     sizeof(struct virtio_mem_req),
                     sizeof(struct virtio_mem_resp));
        return false;
    }

    response = virtio_mem_request_serve(vmem, &req);
    queue_answer(vmem, elem, &response);
    return true;
}

/*
 * MUST NOT consume anything before DRIVER_OK (virtio 1.4: Device
 * Initialization).  A driver that goes on although its features were refused,
 * or that did not accept VERSION_1, is not served either.
 */
static bool queue_can_serve(VirtIODevice *vdev)
{
    const uint8_t ready = VIRTIO_CONFIG_S_FEATURES_OK |
                          VIRTIO_CONFIG_S_DRIVER_OK;

    return virtio_mem_vm_is_live() && (vdev->status & ready) == ready &&
           virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1);
}

/* Take the next request and serve it; false if there is none, or no sense. */
static bool coroutine_fn queue_serve_next(VirtIOMEM *vmem)
{
    g_autofree VirtQueueElement *elem = NULL;

    /* To pop nothing costs more than to look. */
    if (!queue_can_serve(VIRTIO_DEVICE(vmem)) ||
        virtio_queue_empty(vmem->queue->vq)) {
        return false;
    }
    elem = virtqueue_pop(vmem->queue->vq, sizeof(*elem));
    if (!elem) {
        return false;
    }
    if (!queue_serve(vmem, elem)) {
        virtqueue_detach_element(vmem->queue->vq, elem, 0);
        return false;
    }
    return true;
}

/*
 * Serve what is in the queue, but not for ever: a guest may refill it as fast
 * as it is served, while a drain or another device waits for the main loop.
 * The rest is served when the main loop comes back to us.
 */
static void coroutine_fn queue_serve_all(void *opaque)
{
    VirtIOMEM *vmem = opaque;
    int budget = QUEUE_REQUESTS_AT_ONCE;

    virtio_mem_flight_begin(vmem);
    while (budget && !virtio_mem_is_draining(vmem) &&
           queue_serve_next(vmem)) {
        budget--;
    }
    if (!budget || virtio_mem_is_draining(vmem)) {
        qemu_bh_schedule(vmem->queue->bh);
    }
    virtio_mem_flight_end(vmem);
    if (VIRTIO_DEVICE(vmem)->broken) {
        virtio_mem_status_update(vmem);
    }
}

static void queue_handle(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);

    /* A request in flight is followed by those that came meanwhile. */
    if (virtio_mem_is_in_flight(vmem) || !queue_can_serve(vdev)) {
        return;
    }
    /*
     * A device in an iothread may write to our doorbell.  Continue in the main
     * loop: the iothread would not hold the BQL when the coroutine resumes.
     */
    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        qemu_bh_schedule(vmem->queue->bh);
        return;
    }
    qemu_coroutine_enter(qemu_coroutine_create(queue_serve_all, vmem));
}

static void queue_go_on(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    queue_handle(VIRTIO_DEVICE(vmem), vmem->queue->vq);
}

void virtio_mem_queue_resume(VirtIOMEM *vmem)
{
    if (!virtio_queue_empty(vmem->queue->vq)) {
        qemu_bh_schedule(vmem->queue->bh);
    }
}

void virtio_mem_queue_realize(VirtIOMEM *vmem)
{
    VirtIOMEMQueue *queue = g_new0(VirtIOMEMQueue, 1);

    vmem->queue = queue;
    queue->vq = virtio_add_queue(VIRTIO_DEVICE(vmem), QUEUE_SIZE,
                                 queue_handle);
    /* Like the queue's handler, not inside of other devices' draining. */
    queue->bh = virtio_bh_io_new_guarded(DEVICE(vmem), queue_go_on, vmem);
}

void virtio_mem_queue_unrealize(VirtIOMEM *vmem)
{
    qemu_bh_delete(vmem->queue->bh);
    virtio_delete_queue(vmem->queue->vq);
    g_clear_pointer(&vmem->queue, g_free);
}
