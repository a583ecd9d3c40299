/*
 * What virtio-mem-migration.c asks of QEMU where nothing comes of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "hw/virtio/virtio-mem-protect.h"

/* No protection is ever lost. */
void virtio_mem_protect_on_loss(VirtIOMEM *vmem, QEMUTimer *timer)
{
}

bool virtio_mem_protect_retry(VirtIOMEM *vmem)
{
    g_assert_not_reached();
}

void migration_remove_notifier(NotifierWithReturn *notifier)
{
}

int register_savevm_live(const char *idstr, uint32_t instance_id,
                         int version_id, const SaveVMHandlers *ops,
                         void *opaque)
{
    return 0;
}

void unregister_savevm(VMStateIf *obj, const char *idstr, void *opaque)
{
}
