/*
 * Turns of virtio-mem devices that shrink: their guest has only one amount of
 * available memory to spend, so only one of them goes on at a time.
 *
 * All functions are called with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_TURN_H
#define HW_VIRTIO_MEM_TURN_H

#include "qemu/queue.h"

/* Private to virtio-mem-turn.c. */
typedef struct VirtIOMEMTurn {
    QEMUBH *bh;
    bool is_wanted;
    QTAILQ_ENTRY(VirtIOMEMTurn) next;
} VirtIOMEMTurn;

/* @bh is scheduled when @turn may be free. */
void virtio_mem_turn_join(VirtIOMEMTurn *turn, QEMUBH *bh);
void virtio_mem_turn_leave(VirtIOMEMTurn *turn);

/* True if it is @turn's now, and until that is passed. */
bool virtio_mem_turn_take(VirtIOMEMTurn *turn);

/* Whether @turn was not free when it was taken last, and is waited for. */
bool virtio_mem_turn_is_awaited(const VirtIOMEMTurn *turn);

/*
 * The turn, if it is @turn's, goes to the first that wants it; those that only
 * want to look do not.  @is_wanted: also @turn wants it, after the others.
 */
void virtio_mem_turn_pass(VirtIOMEMTurn *turn, bool is_wanted);

#endif
