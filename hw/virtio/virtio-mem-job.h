/*
 * The job "memory-device-resize" of a virtio-mem device: a wish that is
 * followed until it is fulfilled, given up or taken back.  In the end nothing
 * more is asked of the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_JOB_H
#define HW_VIRTIO_MEM_JOB_H

#include "hw/virtio/virtio-mem-state.h"

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_job_realize(VirtIOMEM *vmem);
void virtio_mem_job_unrealize(VirtIOMEM *vmem);

/*
 * Start the job that @args describes, which is checked.  Not from a coroutine.
 * An error is set, and nothing was started, if a value is wrong, another job
 * resizes the device, it is going away, or the mode is not possible.
 */
void virtio_mem_job_start(VirtIOMEM *vmem, const MemoryDeviceResize *args,
                          Error **errp);

/* The ID of the job that resizes the device, or NULL. */
const char *virtio_mem_job_id(const VirtIOMEM *vmem);

/* The members of @info about the job and the last one. */
void virtio_mem_job_fill_info(const VirtIOMEM *vmem, VirtioMEMDeviceInfo *info);

#endif
