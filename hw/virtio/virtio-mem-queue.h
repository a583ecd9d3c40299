/*
 * The queue of a virtio-mem device, and its handler (spec: Device Operation).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_QUEUE_H
#define HW_VIRTIO_MEM_QUEUE_H

#include "hw/virtio/virtio-mem-state.h"

/* After virtio_init(), and before virtio_cleanup(). */
void virtio_mem_queue_realize(VirtIOMEM *vmem);
void virtio_mem_queue_unrealize(VirtIOMEM *vmem);

/* The VM runs again: serve what it left in the queue when it was stopped. */
void virtio_mem_queue_resume(VirtIOMEM *vmem);

#endif
