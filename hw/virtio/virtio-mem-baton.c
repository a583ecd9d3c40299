/*
 * The baton of virtio-mem devices that shrink.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "virtio-mem-baton.h"

/* The one that has waited longest comes first. */
static QTAILQ_HEAD(, VirtIOMEMRunner) runners =
    QTAILQ_HEAD_INITIALIZER(runners);

/* The one that has the baton, or NULL. */
static VirtIOMEMRunner *baton_runner;

void virtio_mem_baton_join(VirtIOMEMRunner *runner, QEMUBH *bh)
{
    runner->bh = bh;
    runner->wants_it = false;
    QTAILQ_INSERT_TAIL(&runners, runner, next);
}

void virtio_mem_baton_leave(VirtIOMEMRunner *runner)
{
    virtio_mem_baton_pass(runner, false);
    QTAILQ_REMOVE(&runners, runner, next);
}

static VirtIOMEMRunner *baton_first(void)
{
    VirtIOMEMRunner *runner;

    QTAILQ_FOREACH(runner, &runners, next) {
        if (runner->wants_it) {
            break;
        }
    }
    return runner;
}

bool virtio_mem_baton_take(VirtIOMEMRunner *runner)
{
    VirtIOMEMRunner *first = baton_runner ?: baton_first();

    runner->wants_it = true;
    if (first && first != runner) {
        return false;
    }
    baton_runner = runner;
    return true;
}

bool virtio_mem_baton_is_awaited(const VirtIOMEMRunner *runner)
{
    return runner->wants_it && baton_runner != runner;
}

void virtio_mem_baton_pass(VirtIOMEMRunner *runner, bool wants_it)
{
    VirtIOMEMRunner *other;

    runner->wants_it = wants_it;
    if (baton_runner != runner) {
        return;
    }
    baton_runner = NULL;
    QTAILQ_REMOVE(&runners, runner, next);
    QTAILQ_INSERT_TAIL(&runners, runner, next);
    QTAILQ_FOREACH(other, &runners, next) {
        if (other->wants_it) {
            qemu_bh_schedule(other->bh);
        }
    }
}
