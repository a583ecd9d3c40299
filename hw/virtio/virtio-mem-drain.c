/*
 * The request in flight, and how to wait for its end.
 *
 * While the host works for a request, the BQL is free and everything else goes
 * on.  What needs a device that stands still drains it first: VM stop, resets,
 * unrealize, migration and snapshots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-internal.h"
#include "virtio-mem-work.h"

bool virtio_mem_is_in_flight(const VirtIOMEM *vmem)
{
    return vmem->request_co;
}

bool virtio_mem_is_draining(const VirtIOMEM *vmem)
{
    return qatomic_read(&vmem->nb_drains);
}

void virtio_mem_flight_begin(VirtIOMEM *vmem)
{
    assert(!vmem->request_co);
    vmem->request_co = qemu_coroutine_self();
}

void virtio_mem_flight_end(VirtIOMEM *vmem)
{
    vmem->request_co = NULL;
}

void virtio_mem_drain(VirtIOMEM *vmem)
{
    /*
     * A guest may have its answer written to the registers of this very
     * device, or of one that writes there.  That resets it while its request
     * does nothing but end.
     */
    if (!vmem->request_task) {
        return;
    }

    /*
     * Nothing else happens meanwhile: a guest can have any device write to our
     * registers, in a coroutine or an iothread, where nobody may poll.
     */
    trace_virtio_mem_drain();
    qatomic_inc(&vmem->nb_drains);
    virtio_mem_work_finish(vmem->request_task);
    qatomic_dec(&vmem->nb_drains);
    assert(!vmem->request_co);
}
