/*
 * A request in flight: 128 MiB that the host, held, populates or discards.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-flight.h"

static VirtioMemHeld flight_begin(VirtioMemGuest *vm, uint16_t type,
                                  VirtioMemHostCall call)
{
    virtio_mem_hold_begin();
    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = type, .addr = vm->addr, .nb_blocks = VM_FLIGHT_BLOCKS });
    virtio_mem_kick(vm);
    /* Without a guard, PLUG discards before it populates. */
    return virtio_mem_hold_skip_to(call);
}

VirtioMemHeld virtio_mem_flight_plug_asked(VirtioMemGuest *vm)
{
    return flight_begin(vm, VIRTIO_MEM_REQ_PLUG, VM_HOST_POPULATE);
}

VirtioMemHeld virtio_mem_flight_plug(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    return virtio_mem_flight_plug_asked(vm);
}

VirtioMemHeld virtio_mem_flight_unplug(VirtioMemGuest *vm, uint16_t type)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_write_pattern(vm, 0, VM_FLIGHT_BLOCKS, 1);
    return flight_begin(vm, type, VM_HOST_DISCARD);
}

void virtio_mem_flight_assert_answer(VirtioMemGuest *vm, uint16_t response)
{
    virtio_mem_wait_used(vm);
    g_assert_cmpuint(virtio_mem_read_answer(vm, 0).type, ==,
                     response);
}
