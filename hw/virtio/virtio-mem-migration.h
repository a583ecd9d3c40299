/*
 * What a migration or a snapshot asks of a virtio-mem device before, during and
 * after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_MIGRATION_H
#define HW_VIRTIO_MEM_MIGRATION_H

#include "hw/virtio/virtio-mem-state.h"

/* After those of the guard and of waking. */
void virtio_mem_migration_realize(VirtIOMEM *vmem);
void virtio_mem_migration_unrealize(VirtIOMEM *vmem);

/*
 * All of the device was loaded: unplugged memory is protected again, and what
 * loading left there is given back.  Both happen at the end of a postcopy that
 * still runs.  False with an error if the host did not take it back.
 */
bool virtio_mem_migration_loaded(VirtIOMEM *vmem, Error **errp);

#endif
