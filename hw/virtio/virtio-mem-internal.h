/*
 * Private parts of the virtio-mem device, grouped by the file that implements
 * them.  The order is that of the layers: a file calls those above it.
 *
 * In all files, @vmem is the device and @range a run of its blocks.  Sizes and
 * offsets are in bytes and count from the start of the region; a gpa is a
 * guest physical address.  Unless a comment says otherwise, functions are
 * called with the BQL held, on a realized device.
 *
 * "spec" is virtio 1.4, chapter Memory Device; what follows is a section title.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_INTERNAL_H
#define HW_VIRTIO_MEM_INTERNAL_H

#include "hw/virtio/virtio-mem.h"
#include "virtio-mem-region.h"
#include "trace.h"

/* --- virtio-mem-vmstate.c: the migration stream --- */

extern const VMStateDescription vmstate_virtio_mem;
extern const VMStateDescription vmstate_virtio_mem_device;

/* The parts of the stream that the transport does not carry. */
void virtio_mem_vmstate_realize(VirtIOMEM *vmem);
void virtio_mem_vmstate_unrealize(VirtIOMEM *vmem);

/* --- virtio-mem-properties.c: what users set and see --- */

/* Add the properties; before any of them is used. */
void virtio_mem_properties_class_init(ObjectClass *klass);
void virtio_mem_properties_instance_init(VirtIOMEM *vmem);

#endif
