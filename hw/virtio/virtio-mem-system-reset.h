/*
 * System reset of a virtio-mem device: unplug everything.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_SYSTEM_RESET_H
#define HW_VIRTIO_MEM_SYSTEM_RESET_H

#include "hw/virtio/virtio-mem-state.h"

void virtio_mem_system_reset_realize(VirtIOMEM *vmem);
void virtio_mem_system_reset_unrealize(VirtIOMEM *vmem);

#endif
