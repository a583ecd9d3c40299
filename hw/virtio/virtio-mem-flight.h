/*
 * The request in flight: which it is, and whether its end is waited for.
 *
 * While the host works for a request, the BQL is free and everything else goes
 * on.  What needs a device that stands still drains it first
 * (virtio_mem_drain()): VM stop, resets, unrealize, migration and snapshots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_FLIGHT_H
#define HW_VIRTIO_MEM_FLIGHT_H

#include "hw/virtio/virtio-mem-state.h"

/* Around serving the queue, in the coroutine that does. */
void virtio_mem_flight_begin(VirtIOMEM *vmem);
void virtio_mem_flight_end(VirtIOMEM *vmem);

bool virtio_mem_is_in_flight(const VirtIOMEM *vmem);

/* Whether the caller is what serves the request in flight. */
bool virtio_mem_is_own_flight(const VirtIOMEM *vmem);

/* Whether a drain waits; no lock needed. */
bool virtio_mem_is_draining(const VirtIOMEM *vmem);

#endif
