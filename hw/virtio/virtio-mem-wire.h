/*
 * virtio-mem requests and responses: guest bytes <-> typed values.
 *
 * This layer judges form only: whether a buffer is large enough and whether a
 * request type exists.  Whether a request makes sense is not decided here.
 * All fields are little endian, as the device is a modern one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_WIRE_H
#define HW_VIRTIO_MEM_WIRE_H

#include "standard-headers/linux/virtio_mem.h"

typedef struct VirtIOMEMRequest {
    uint16_t type;              /* VIRTIO_MEM_REQ_*, or what the guest sent */
    uint64_t gpa;               /* 0 for UNPLUG ALL */
    uint16_t nb_blocks;         /* 0 for UNPLUG ALL */
} VirtIOMEMRequest;

typedef struct VirtIOMEMResponse {
    uint16_t type;              /* VIRTIO_MEM_RESP_* */
    uint16_t state;             /* VIRTIO_MEM_STATE_*, for STATE with ACK */
} VirtIOMEMResponse;

/* Whether a response fits into the @nb_iov buffers at @iov, all of it. */
bool virtio_mem_wire_response_fits(const struct iovec *iov, unsigned nb_iov);

/*
 * Read a request out of the @nb_iov buffers at @iov, once: the guest may
 * rewrite them at any time.  Bytes that carry nothing for the request's type
 * MUST be ignored (virtio 1.4, Memory Device: each request).  False when the
 * buffers are too short; an unknown type is not an error here.
 */
bool virtio_mem_wire_read_request(const struct iovec *iov, unsigned nb_iov,
                                  VirtIOMEMRequest *request);

/*
 * Write @response to the @nb_iov buffers at @iov, which it fits, and return
 * its length.  Bytes that carry nothing are zero; later ones stay untouched.
 */
size_t virtio_mem_wire_write_response(const struct iovec *iov, unsigned nb_iov,
                                      const VirtIOMEMResponse *response);

#endif
