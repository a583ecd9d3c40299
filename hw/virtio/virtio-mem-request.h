/*
 * Decide on the requests of a virtio-mem guest (spec: Device Operation).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_REQUEST_H
#define HW_VIRTIO_MEM_REQUEST_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-wire.h"

/*
 * Do what @req asks for, if that is allowed now, and say what the guest hears.
 * A guest that hears BUSY is woken later.  BQL; yields while the host works.
 */
VirtIOMEMResponse coroutine_fn
virtio_mem_request_serve(VirtIOMEM *vmem, const VirtIOMEMRequest *req);

#endif
