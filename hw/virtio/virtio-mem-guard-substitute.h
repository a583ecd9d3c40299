/*
 * Memory that stands in for pages that the host lacks.
 *
 * A guard lends pages of the memory behind an area: huge pages, or those of a
 * file system that can be full.  When there is none left, the thread that waits
 * may be QEMU's main loop, or any other that must not wait for ever.  So a run
 * of blocks that are out of reach gets anonymous memory instead, watched in the
 * same way, of which a page of zeros costs nothing but page tables to read.
 * Before a block of it comes within reach, it gets the memory of its area back.
 *
 * The run was mappings of its own already: the process has no more of them.
 *
 * No lock: that of the guard.  Sizes and offsets are in bytes, from the start
 * of the area.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_SUBSTITUTE_H
#define HW_VIRTIO_MEM_GUARD_SUBSTITUTE_H

#include "virtio-mem-guard-map.h"

/*
 * What to substitute when the block at @offset is, which is guarded: all of its
 * guarded run where mappings merge; else, what of it is not substituted.  The
 * first byte, and in @end where it ends.
 */
uint64_t virtio_mem_guard_substitute_find(const VirtIOMEMGuardMap *map,
                                          uint64_t offset, uint64_t *end);

/*
 * Substitute @size bytes at @offset, guarded blocks, of which nothing may be
 * lent; some may be substituted already.  Each thread that waits there retries.
 * Returns 0; or a negative errno, and nothing is substituted, unless the kernel
 * does not let us watch that: then the map is paused.
 */
int virtio_mem_guard_substitute(VirtIOMEMGuardMap *map, uint64_t offset,
                                uint64_t size);

/*
 * Give these bytes, of which nothing may be lent, their area's memory, where
 * they are guarded and do not have it.  They are not watched then.  Returns 0;
 * or a negative errno if the host refuses: a part may have it, and all is
 * watched as before, or the map is paused.
 */
int virtio_mem_guard_substitute_restore(VirtIOMEMGuardMap *map, uint64_t offset,
                                        uint64_t size);

/*
 * Drop what these bytes, which were not watched, hold where they are guarded
 * and do not have their area's memory: to discard that would not do it.
 */
void virtio_mem_guard_substitute_clear(VirtIOMEMGuardMap *map, uint64_t offset,
                                       uint64_t size);

#endif
