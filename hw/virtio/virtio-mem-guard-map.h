/*
 * Which blocks a guard keeps out of reach, and where userfaultfd watches.
 *
 * A block is "guarded" if it is to be kept out of reach, "armed" if missing
 * pages in it are reported.  Armed are the guarded blocks and, to save
 * mappings, all blocks of some chunks (runs of blocks at fixed places) with
 * many borders.  Guarded implies armed, unless all is disarmed.
 *
 * No lock: that of the guard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_MAP_H
#define HW_VIRTIO_MEM_GUARD_MAP_H

typedef struct VirtIOMEMGuardMap {
    int uffd;
    uint8_t *host;
    uint64_t block_size;
    uint64_t nb_blocks;
    uint64_t max_mappings;      /* 0: a share of what all guards have */
    bool disarmed;
    unsigned long *guarded;
    unsigned long *armed;

    uint64_t chunk_blocks;
    uint64_t nb_chunks;
    uint64_t nb_whole;
    unsigned long *whole;       /* chunks of which all blocks are armed */
    uint32_t *edges;            /* by chunk: borders of guarded blocks */
    uint64_t mappings;          /* what all chunks need, at most */
} VirtIOMEMGuardMap;

/* All of the area is guarded, none of it armed: virtio_mem_guard_map_rearm() */
void virtio_mem_guard_map_init(VirtIOMEMGuardMap *map, int uffd, void *host,
                               uint64_t size, uint64_t block_size,
                               uint64_t max_mappings);
void virtio_mem_guard_map_cleanup(VirtIOMEMGuardMap *map);

/* 0, or a negative errno, and nothing changed. */
int virtio_mem_guard_map_guard(VirtIOMEMGuardMap *map, uint64_t first,
                               uint64_t nb_blocks);
void virtio_mem_guard_map_release(VirtIOMEMGuardMap *map, uint64_t first,
                                  uint64_t nb_blocks);

int virtio_mem_guard_map_rearm(VirtIOMEMGuardMap *map);
void virtio_mem_guard_map_disarm(VirtIOMEMGuardMap *map);

/*
 * Provide memory for a block that is armed but not guarded, for good: it can
 * report nothing any more.  False if the host refuses to disarm it.
 */
bool virtio_mem_guard_map_populate(VirtIOMEMGuardMap *map, uint64_t block);

bool virtio_mem_guard_map_is_guarded(const VirtIOMEMGuardMap *map,
                                     uint64_t block);
bool virtio_mem_guard_map_is_armed(const VirtIOMEMGuardMap *map,
                                   uint64_t block);

#endif
