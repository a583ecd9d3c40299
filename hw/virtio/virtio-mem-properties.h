/*
 * The properties of a virtio-mem device: what users set and see.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_PROPERTIES_H
#define HW_VIRTIO_MEM_PROPERTIES_H

#include "hw/virtio/virtio-mem-state.h"

/* Add the properties; before any of them is used. */
void virtio_mem_properties_class_init(ObjectClass *klass);
void virtio_mem_properties_instance_init(VirtIOMEM *vmem);

#endif
