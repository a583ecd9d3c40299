/*
 * virtio-mem requests and responses: guest bytes <-> typed values.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "virtio-mem-wire.h"

QEMU_BUILD_BUG_ON(sizeof(struct virtio_mem_req) != 24);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_mem_resp) != 10);

bool virtio_mem_wire_response_fits(const struct iovec *iov, unsigned nb_iov)
{
    return iov_size(iov, nb_iov) >= sizeof(struct virtio_mem_resp);
}

bool virtio_mem_wire_read_request(const struct iovec *iov, unsigned nb_iov,
                                  VirtIOMEMRequest *request)
{
    struct virtio_mem_req req;

    if (iov_to_buf(iov, nb_iov, 0, &req, sizeof(req)) < sizeof(req)) {
        return false;
    }

    *request = (VirtIOMEMRequest) { .type = le16_to_cpu(req.type) };
    if (request->type != VIRTIO_MEM_REQ_UNPLUG_ALL) {
        /* PLUG, UNPLUG and STATE share one layout. */
        request->gpa = le64_to_cpu(req.u.plug.addr);
        request->nb_blocks = le16_to_cpu(req.u.plug.nb_blocks);
    }
    return true;
}

size_t virtio_mem_wire_write_response(const struct iovec *iov, unsigned nb_iov,
                                      const VirtIOMEMResponse *response)
{
    const struct virtio_mem_resp resp = {
        .type = cpu_to_le16(response->type),
        .u.state.state = cpu_to_le16(response->state),
    };

    return iov_from_buf(iov, nb_iov, 0, &resp, sizeof(resp));
}
