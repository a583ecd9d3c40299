/*
 * The request of a virtio-mem guest that is in flight.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "virtio-mem-flight.h"

bool virtio_mem_is_in_flight(const VirtIOMEM *vmem)
{
    return vmem->flight.co;
}

bool virtio_mem_is_own_flight(const VirtIOMEM *vmem)
{
    return vmem->flight.co == qemu_coroutine_self();
}

bool virtio_mem_is_draining(const VirtIOMEM *vmem)
{
    return qatomic_read(&vmem->flight.nb_drains);
}

void virtio_mem_flight_begin(VirtIOMEM *vmem)
{
    assert(bql_locked() && !vmem->flight.co);
    vmem->flight.co = qemu_coroutine_self();
}

void virtio_mem_flight_end(VirtIOMEM *vmem)
{
    assert(bql_locked() && virtio_mem_is_own_flight(vmem));
    vmem->flight.co = NULL;
}
