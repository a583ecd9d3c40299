/*
 * The device as RamDiscardManager: code that maps or pins guest memory (VFIO,
 * dump, migration) asks here which of it exists, and is asked and told about
 * changes.
 *
 * Answers come from the set of plugged blocks alone: the usable region is part
 * of a later migration section than the blocks, and postcopy asks in between.
 *
 * Listeners come, go and are called with the BQL held.  The questions
 * (is_populated, replay) come without it from migration threads, while nothing
 * changes the blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_RDM_H
#define HW_VIRTIO_MEM_RDM_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-blocks.h"

/* Set the methods of the interface that the device class implements. */
void virtio_mem_rdm_class_init(ObjectClass *klass);

/* Nothing listens yet: called before anything else here, with the BQL held. */
void virtio_mem_rdm_instance_init(VirtIOMEM *vmem);

/* Whether anything maps or pins the memory, and so listens. */
bool virtio_mem_rdm_has_listeners(const VirtIOMEM *vmem);

/*
 * Ask all listeners to take in the blocks of @range, before they count as
 * plugged.  Returns 0 when all agreed; else the negative errno of the one that
 * refused, after those that had agreed were told to drop the blocks again.
 */
int virtio_mem_rdm_ask_plug(VirtIOMEM *vmem, VirtIOMEMRange range);

/*
 * Tell all listeners to drop the blocks of @range: their memory is gone, but
 * they still count as plugged.
 */
void virtio_mem_rdm_tell_unplug(VirtIOMEM *vmem, VirtIOMEMRange range);

/* The same for all plugged blocks, in one call where the listener can. */
void virtio_mem_rdm_tell_unplug_all(VirtIOMEM *vmem);

#endif
