/*
 * The baton of virtio-mem devices that shrink: their guest has only one amount
 * of available memory to spend, so only the one that has the baton goes on.
 *
 * All functions are called with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_BATON_H
#define HW_VIRTIO_MEM_BATON_H

#include "qemu/queue.h"

/* One that may take the baton.  Private to virtio-mem-baton.c. */
typedef struct VirtIOMEMRunner {
    QEMUBH *bh;
    bool wants_it;
    QTAILQ_ENTRY(VirtIOMEMRunner) next;
} VirtIOMEMRunner;

/* @bh is scheduled when the baton may be free. */
void virtio_mem_baton_join(VirtIOMEMRunner *runner, QEMUBH *bh);
void virtio_mem_baton_leave(VirtIOMEMRunner *runner);

/* True if @runner has the baton now, and until it passes that. */
bool virtio_mem_baton_take(VirtIOMEMRunner *runner);

/* Whether @runner did not get the baton when it asked last, and waits. */
bool virtio_mem_baton_is_awaited(const VirtIOMEMRunner *runner);

/*
 * If @runner has the baton, the runner that has waited longest may take it.
 * @wants_it: @runner waits for it again, after the others.
 */
void virtio_mem_baton_pass(VirtIOMEMRunner *runner, bool wants_it);

#endif
