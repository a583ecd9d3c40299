/*
 * System reset of a virtio-mem device: unplug everything.
 *
 * The device's own reset is no place for that: it also runs for a driver that
 * starts anew, for function level and for bus resets, none of which may change
 * a block (spec: Device Initialization).  So a Resettable of its own takes part
 * in the machine's reset, and in nothing else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/resettable.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-mem-config.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-system-reset.h"
#include "virtio-mem-wake.h"
#include "virtio-mem-work.h"

#define TYPE_VIRTIO_MEM_RESETTER "virtio-mem-resetter"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOMEMResetter, VIRTIO_MEM_RESETTER)

struct VirtIOMEMResetter {
    Object parent_obj;

    ResettableState reset_state;
    VirtIOMEM *vmem;            /* outlives us: no reference */
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(VirtIOMEMResetter,
                                          virtio_mem_resetter,
                                          VIRTIO_MEM_RESETTER, OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static void virtio_mem_resetter_init(Object *obj)
{
}

static void virtio_mem_resetter_finalize(Object *obj)
{
}

static ResettableState *virtio_mem_resetter_get_state(Object *obj)
{
    return &VIRTIO_MEM_RESETTER(obj)->reset_state;
}

/*
 * Around a migration, memory may hold what has arrived, or what another QEMU
 * goes on with: leave it alone, if nothing is plugged that has to go.
 */
static bool system_reset_may_discard(const VirtIOMEM *vmem)
{
    if (virtio_mem_migration_forbids_change()) {
        return false;
    }
    return virtio_mem_blocks_count_plugged(vmem->blocks) ||
           !(runstate_check(RUN_STATE_INMIGRATE) ||
             runstate_check(RUN_STATE_POSTMIGRATE));
}

/*
 * SHOULD unplug all blocks (spec: Device Operation), but may keep them if it
 * cannot: the driver that finds them plugged will ask to unplug all.
 */
static void virtio_mem_resetter_hold(Object *obj, ResetType type)
{
    VirtIOMEM *vmem = VIRTIO_MEM_RESETTER(obj)->vmem;

    /* Memory is there to survive suspend-to-RAM. */
    if (type == RESET_TYPE_WAKEUP) {
        return;
    }

    virtio_mem_drain(vmem);
    virtio_mem_guard_take_back(vmem->guard);
    if (system_reset_may_discard(vmem)) {
        virtio_mem_unplug_all(vmem);
    }
    virtio_mem_resize_system_reset(vmem);
    if (virtio_mem_blocks_count_plugged(vmem->blocks)) {
        trace_virtio_mem_reset_kept(virtio_mem_plugged_size(vmem));
        return;
    }
    virtio_mem_config_fit_usable_size(vmem);
}

static void virtio_mem_resetter_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = virtio_mem_resetter_get_state;
    rc->phases.hold = virtio_mem_resetter_hold;
}

void virtio_mem_system_reset_realize(VirtIOMEM *vmem)
{
    Object *obj = object_new(TYPE_VIRTIO_MEM_RESETTER);

    vmem->system_reset = VIRTIO_MEM_RESETTER(obj);
    vmem->system_reset->vmem = vmem;
    qemu_register_resettable(obj);
}

void virtio_mem_system_reset_unrealize(VirtIOMEM *vmem)
{
    Object *obj = OBJECT(vmem->system_reset);

    qemu_unregister_resettable(obj);
    object_unref(obj);
    vmem->system_reset = NULL;
}
