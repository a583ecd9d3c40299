/*
 * A request in flight: 128 MiB that the host, held, populates or discards.
 *
 * Layer: virtio-mem-hold below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_FLIGHT_H
#define TESTS_QTEST_VIRTIO_MEM_FLIGHT_H

#include "virtio-mem-guest.h"
#include "virtio-mem-hold.h"

#define VM_FLIGHT_BLOCKS 64
#define VM_ONE_THREAD "prealloc-threads=1"

/*
 * Send the request and return the first call for it, which is held.  For a
 * PLUG the device needs prealloc=on; UNPLUG and UNPLUG ALL (@type) find the
 * blocks plugged, with a pattern of seed 1.
 */
VirtioMemHeld virtio_mem_flight_plug(VirtioMemGuest *vm);
/* The same for a guest that is asked for enough already. */
VirtioMemHeld virtio_mem_flight_plug_asked(VirtioMemGuest *vm);
VirtioMemHeld virtio_mem_flight_unplug(VirtioMemGuest *vm, uint16_t type);

/* Wait for the answer. */
void virtio_mem_flight_assert_answer(VirtioMemGuest *vm, uint16_t response);

#endif
