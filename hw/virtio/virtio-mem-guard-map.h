/*
 * Which blocks of an area are kept out of reach, and what that costs.
 *
 * A block is "guarded" if it is to be kept out of reach.  While the map is
 * active, exactly the guarded blocks are registered with userfaultfd, so that
 * the kernel reports missing pages there; while it is paused, none is.
 *
 * The kernel has a mapping of its own for each run of blocks that are alike:
 * one, and one more for each border between guarded and other blocks.  It
 * merges mappings again when the border between them goes.  Mappings of huge
 * pages it never merges (VM_DONTEXPAND): a border there stays, "cut", for good.
 * Other memory that stands in for the area's is a mapping of its own, too: so
 * where the kernel merges, all of a guarded run has it, or nothing.
 *
 * No lock: that of the guard.  Blocks count from the start of the area.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_MAP_H
#define HW_VIRTIO_MEM_GUARD_MAP_H

#include "virtio-mem-guard-area.h"

typedef struct VirtIOMEMGuardMap {
    const VirtIOMEMGuardArea *area;
    int uffd;
    uint64_t nb_blocks;
    bool active;                /* written under the lock, read without */
    unsigned long *guarded;
    unsigned long *cut;         /* at the start of a block; NULL: all merge */
    unsigned long *substituted; /* NULL: none can be */
    bool stuck;                 /* some are, where they should not be */
    bool refused;               /* the kernel has, to let some memory go */
    uint64_t nb_borders;        /* the area's mappings beyond the first one */
} VirtIOMEMGuardMap;

/*
 * All of @area is guarded, and the map is paused.  @area stays the caller's and
 * must live as long.  Touches the first page of private memory, without
 * changing its content: see guard_map_let_merge().
 */
void virtio_mem_guard_map_init(VirtIOMEMGuardMap *map, int uffd,
                               const VirtIOMEMGuardArea *area);
void virtio_mem_guard_map_cleanup(VirtIOMEMGuardMap *map);

/* How many mappings more there are when these blocks are (not) guarded. */
int64_t virtio_mem_guard_map_cost(const VirtIOMEMGuardMap *map, uint64_t first,
                                  uint64_t nb_blocks, bool guard);

/*
 * Guard these blocks, or no longer.  0; or a negative errno when the kernel
 * refuses, and nothing changed, unless it did not let us go back: then the map
 * is paused.
 */
int virtio_mem_guard_map_set(VirtIOMEMGuardMap *map, uint64_t first,
                             uint64_t nb_blocks, bool guard);

/*
 * A thread has met a fault in @block, which is not guarded: it is not to be
 * registered, and still is if the kernel has refused that once.
 */
void virtio_mem_guard_map_let_go(VirtIOMEMGuardMap *map, uint64_t block);

/* Register nothing, until resumed; 0, or a negative errno and still paused. */
void virtio_mem_guard_map_pause(VirtIOMEMGuardMap *map);
int virtio_mem_guard_map_resume(VirtIOMEMGuardMap *map);

/*
 * Of the blocks from @first to @end, register again what is guarded but is not
 * registered since something else was mapped there.  If the kernel refuses, the
 * map is paused.
 */
void virtio_mem_guard_map_watch(VirtIOMEMGuardMap *map, uint64_t first,
                                uint64_t end);

bool virtio_mem_guard_map_is_active(const VirtIOMEMGuardMap *map);
bool virtio_mem_guard_map_is_guarded(const VirtIOMEMGuardMap *map,
                                     uint64_t block);

/* Whether other memory than the area's is mapped at @offset. */
bool virtio_mem_guard_map_is_substituted(const VirtIOMEMGuardMap *map,
                                         uint64_t offset);

/*
 * Whether that is true of a part of the run of guarded blocks around @offset,
 * so that the run is several mappings, which are not counted.
 */
bool virtio_mem_guard_map_is_mixed(const VirtIOMEMGuardMap *map,
                                   uint64_t offset);

/* The pages that can be lent around @offset: those of what is mapped there. */
uint64_t virtio_mem_guard_map_page_size(const VirtIOMEMGuardMap *map,
                                        uint64_t offset);

/*
 * The first of the bits that are all like @set, from @min on and up to @end, a
 * word at a time: a device may have millions of blocks.
 */
uint64_t virtio_mem_guard_map_first_like(const unsigned long *bits, bool set,
                                         uint64_t min, uint64_t end);

/*
 * The guarded bytes around @offset, which is guarded, between @min and @max:
 * the first one, and in @end where they end.
 */
uint64_t virtio_mem_guard_map_find_run(const VirtIOMEMGuardMap *map,
                                       uint64_t offset, uint64_t min,
                                       uint64_t max, uint64_t *end);

/* Whether all that can be computed anew is as it should be; for tests. */
bool virtio_mem_guard_map_check(const VirtIOMEMGuardMap *map);

#endif
