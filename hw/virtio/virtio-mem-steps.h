/*
 * The steps of a resize in mode safe: what the guest of a virtio-mem device is
 * asked for follows what is wished for as the plan (virtio-mem-plan.h) advises,
 * which goes by what the guest's balloon driver reports.  Reports are asked for
 * while a plan goes on, and only then.
 *
 * The ask changes from the main loop only, when nothing else is under way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_STEPS_H
#define HW_VIRTIO_MEM_STEPS_H

#include "hw/virtio/virtio-mem-state.h"

/* A plan ended by itself, with its reason or VIRTIO_MEM_NO_REASON. */
typedef void VirtIOMEMStepsEnd(VirtIOMEM *vmem, VirtioMEMResizeReason reason);

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_steps_realize(VirtIOMEM *vmem, VirtIOMEMStepsEnd *end);
void virtio_mem_steps_unrealize(VirtIOMEM *vmem);

/* Ask the guest for @size bytes, if it is not; for callers without a plan. */
void virtio_mem_steps_ask(VirtIOMEM *vmem, uint64_t size);

/*
 * Begin a plan from what is plugged to the wish, which leaves @reserve bytes
 * available to the guest; 0: by its size.
 */
void virtio_mem_steps_begin(VirtIOMEM *vmem, uint64_t reserve);

/* No plan any more.  What is asked for stays. */
void virtio_mem_steps_stop(VirtIOMEM *vmem);

bool virtio_mem_steps_are_active(const VirtIOMEM *vmem);

/* Another device of the machine shrinks, and this one waits for that. */
bool virtio_mem_steps_await_baton(const VirtIOMEM *vmem);

/*
 * What the guest had available by its last report, in bytes, and what was to
 * remain; false if there was none in the last plan.
 */
bool virtio_mem_steps_get_available(const VirtIOMEM *vmem,
                                    uint64_t *available, uint64_t *reserve);

#endif
