/*
 * The one door: plug and unplug ranges of blocks, completely or not at all.
 *
 * Guest requests, resets and incoming migration all come through here.  The
 * order is the same for each: host work, announce, record.  A refusal on the
 * way undoes exactly what was done, so the set of plugged blocks, the memory
 * behind it, the mapped memslots and what listeners know always agree.
 * Whether a change is allowed at all is decided by the caller, before.
 *
 * All functions: BQL, on a realized device, with no request in flight but the
 * caller's own.  Functions marked coroutine_mixed_fn yield during host work if
 * the caller is a coroutine.  After each change but of _plug_loaded(), the size
 * change notifiers were called and the config generation moved.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_PLUG_H
#define HW_VIRTIO_MEM_PLUG_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-blocks.h"

/*
 * Plug @range, all of which is unplugged.  It reads as zero then, whatever was
 * written there before.  Returns 0; or a negative errno, and nothing changed,
 * when the host did not take that back, when protection would need more
 * mappings than it may have (-ENOSPC), when the host has no memory
 * ('prealloc'), when the device is drained before it has (-ECANCELED), or when
 * a listener refused.
 */
int coroutine_mixed_fn virtio_mem_plug_range(VirtIOMEM *vmem,
                                             VirtIOMEMRange range);

/*
 * Unplug @range, all of which is plugged.  Returns 0; or a negative errno when
 * protection would need more mappings than it may have (-ENOSPC), or when the
 * host did not take the memory back: all blocks stay plugged then.
 */
int coroutine_mixed_fn virtio_mem_unplug_range(VirtIOMEM *vmem,
                                               VirtIOMEMRange range);

/*
 * The same for all plugged blocks, of which there may be none; and give back
 * all memory in the others, too.  Its cost does not depend on how many runs of
 * blocks are plugged.
 */
int coroutine_mixed_fn virtio_mem_unplug_all(VirtIOMEM *vmem);

/*
 * Have the host provide memory for the blocks that are plugged in @loaded, a
 * set of the same size; what content is there stays.  Returns 0; or a negative
 * errno with an error, and part of the memory may be there.
 */
int coroutine_mixed_fn virtio_mem_populate_loaded(VirtIOMEM *vmem,
                                                  const VirtIOMEMBlocks *loaded,
                                                  Error **errp);

/*
 * Plug the blocks that are plugged in @loaded, a set of the same size, while
 * none is plugged here.  The memory's content has arrived or will arrive, so
 * none is touched.  Returns 0; or, the one exception to all or nothing, a
 * negative errno with an error, and part of it may be plugged.  Calls no size
 * change notifiers.
 */
int virtio_mem_plug_loaded(VirtIOMEM *vmem, const VirtIOMEMBlocks *loaded,
                           Error **errp);

/*
 * Have the size change notifiers called although nothing changed here: the
 * size arrived by migration.
 */
void virtio_mem_tell_size(VirtIOMEM *vmem);

/*
 * Give back whatever memory there is in unplugged blocks.  Returns 0 or a
 * negative errno.
 */
int coroutine_mixed_fn virtio_mem_discard_unplugged(VirtIOMEM *vmem);

#endif
