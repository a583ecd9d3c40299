/*
 * Turns of virtio-mem devices that shrink.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "virtio-mem-turn.h"

/* Who waited longest comes first. */
static QTAILQ_HEAD(, VirtIOMEMTurn) turns = QTAILQ_HEAD_INITIALIZER(turns);

/* Whose it is, or NULL. */
static VirtIOMEMTurn *turn_now;

void virtio_mem_turn_join(VirtIOMEMTurn *turn, QEMUBH *bh)
{
    turn->bh = bh;
    turn->is_wanted = false;
    QTAILQ_INSERT_TAIL(&turns, turn, next);
}

void virtio_mem_turn_leave(VirtIOMEMTurn *turn)
{
    virtio_mem_turn_pass(turn, false);
    QTAILQ_REMOVE(&turns, turn, next);
}

static VirtIOMEMTurn *turn_first(void)
{
    VirtIOMEMTurn *turn;

    QTAILQ_FOREACH(turn, &turns, next) {
        if (turn->is_wanted) {
            break;
        }
    }
    return turn;
}

bool virtio_mem_turn_take(VirtIOMEMTurn *turn)
{
    VirtIOMEMTurn *first = turn_now ?: turn_first();

    turn->is_wanted = true;
    if (first && first != turn) {
        return false;
    }
    turn_now = turn;
    return true;
}

bool virtio_mem_turn_is_awaited(const VirtIOMEMTurn *turn)
{
    return turn->is_wanted && turn_now != turn;
}

void virtio_mem_turn_pass(VirtIOMEMTurn *turn, bool is_wanted)
{
    VirtIOMEMTurn *other;

    turn->is_wanted = is_wanted;
    if (turn_now != turn) {
        return;
    }
    turn_now = NULL;
    QTAILQ_REMOVE(&turns, turn, next);
    QTAILQ_INSERT_TAIL(&turns, turn, next);
    QTAILQ_FOREACH(other, &turns, next) {
        if (other->is_wanted) {
            qemu_bh_schedule(other->bh);
        }
    }
}
