/*
 * Host work: populate the memory of virtio-mem blocks, or give it back.
 *
 * The work is cut into slices, which several threads take one after the other:
 * no system call is long, and a drain need not wait for all of it.  Called in a
 * request's coroutine, work that may take long is done by threads
 * (virtio-mem-threads.h) while the coroutine waits, so that the BQL is free; so
 * is populating in any coroutine.  Called elsewhere, or while a drain waits, or
 * when the host has no thread, or when execution is recorded or replayed, it is
 * done when the function returns.
 *
 * In both cases the caller holds the BQL, and sees to it that nothing is
 * plugged or unplugged meanwhile.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_WORK_H
#define HW_VIRTIO_MEM_WORK_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-slices.h"

/*
 * Have the host provide memory for @runs; content that is there stays.
 * Returns 0; or a negative errno with an error, and part of it may be there:
 * -ENOMEM, or -ECANCELED when the device is drained (virtio_mem_drain()).
 */
int coroutine_mixed_fn virtio_mem_work_populate(VirtIOMEM *vmem,
                                                VirtIOMEMRuns runs,
                                                Error **errp);

/*
 * Give the memory of @runs back to the host.  Returns 0; or a negative value
 * with an error reported, and part of it may be given back.
 */
int coroutine_mixed_fn virtio_mem_work_discard(VirtIOMEM *vmem,
                                               VirtIOMEMRuns runs);

/*
 * Wait until no request is in flight, and serve none meanwhile.  Whatever was
 * done for it is done and answered; memory that is being populated is given
 * back, and the guest hears BUSY.  With the BQL, in any thread and coroutine.
 */
void virtio_mem_drain(VirtIOMEM *vmem);

/*
 * The threads of the device; before any of the above.  False with an error if
 * those of the memdev's 'prealloc-context' cannot be created.
 */
bool virtio_mem_work_realize(VirtIOMEM *vmem, Error **errp);
void virtio_mem_work_unrealize(VirtIOMEM *vmem);

#endif
