/*
 * The migration stream of a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_STREAM_H
#define HW_VIRTIO_MEM_STREAM_H

#include "hw/virtio/virtio-mem-state.h"

extern const VMStateDescription vmstate_virtio_mem;
extern const VMStateDescription vmstate_virtio_mem_device;

/* The parts of the stream that the transport does not carry. */
void virtio_mem_stream_realize(VirtIOMEM *vmem);
void virtio_mem_stream_unrealize(VirtIOMEM *vmem);

#endif
