/*
 * Which blocks a guard keeps out of reach, and where userfaultfd watches.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-map.h"

/* Chunks: not so many that watching all as a whole exceeds the budget. */
#define GUARD_MAX_CHUNKS 4096
#define GUARD_MIN_CHUNK_BLOCKS 64

/*
 * A quarter of what Linux allows a process by default (vm.max_map_count), for
 * all guards together: each has its share.
 */
#define GUARD_MAX_MAPPINGS 16384
static unsigned int guard_map_nb;   /* atomic */

/* A chunk that is watched as a whole ends its neighbours' mappings. */
#define GUARD_WHOLE_CHUNK_EDGES 2

bool virtio_mem_guard_map_is_guarded(const VirtIOMEMGuardMap *map,
                                     uint64_t block)
{
    return test_bit(block, map->guarded);
}

bool virtio_mem_guard_map_is_armed(const VirtIOMEMGuardMap *map,
                                   uint64_t block)
{
    return test_bit(block, map->armed);
}

/* --- registration follows what is wanted --- */

static bool guard_map_wants(const VirtIOMEMGuardMap *map, uint64_t block)
{
    return !map->disarmed &&
           (test_bit(block, map->guarded) ||
            (map->nb_whole && test_bit(block / map->chunk_blocks, map->whole)));
}

static int guard_map_register(VirtIOMEMGuardMap *map, uint64_t first,
                              uint64_t nb_blocks)
{
    return uffd_register_memory(map->uffd, map->host + first * map->block_size,
                                nb_blocks * map->block_size,
                                UFFDIO_REGISTER_MODE_MISSING, NULL);
}

/* Also has everybody retry who waits there for an answer. */
static int guard_map_unregister(VirtIOMEMGuardMap *map, uint64_t first,
                                uint64_t nb_blocks)
{
    return uffd_unregister_memory(map->uffd,
                                  map->host + first * map->block_size,
                                  nb_blocks * map->block_size);
}

static int guard_map_arm(VirtIOMEMGuardMap *map, uint64_t first,
                         uint64_t nb_blocks, bool arm)
{
    const int ret = arm ? guard_map_register(map, first, nb_blocks)
                        : guard_map_unregister(map, first, nb_blocks);
    const int err = errno;

    /* Without memory for mappings, the host may stop halfway. */
    if (ret && err == ENOMEM) {
        if (arm) {
            guard_map_unregister(map, first, nb_blocks);
        } else {
            guard_map_register(map, first, nb_blocks);
        }
    }
    if (ret) {
        return -err;
    }
    if (arm) {
        bitmap_set(map->armed, first, nb_blocks);
    } else {
        bitmap_clear(map->armed, first, nb_blocks);
    }
    return 0;
}

/* Arm and disarm, in runs as long as possible, until one fails. */
static int guard_map_sync(VirtIOMEMGuardMap *map, uint64_t first, uint64_t end)
{
    uint64_t next;
    int ret;

    for (; first < end; first = next) {
        const bool want = guard_map_wants(map, first);

        next = first + 1;
        if (want == test_bit(first, map->armed)) {
            continue;
        }
        while (next < end && guard_map_wants(map, next) == want &&
               test_bit(next, map->armed) != want) {
            next++;
        }
        ret = guard_map_arm(map, first, next - first, want);
        if (ret) {
            return ret;
        }
    }
    return 0;
}

static int guard_map_sync_chunk(VirtIOMEMGuardMap *map, uint64_t chunk)
{
    const uint64_t first = chunk * map->chunk_blocks;

    return guard_map_sync(map, first,
                          MIN(first + map->chunk_blocks, map->nb_blocks));
}

/* --- the budget of mappings --- */

static uint64_t guard_map_budget(const VirtIOMEMGuardMap *map)
{
    return map->max_mappings ?:
           GUARD_MAX_MAPPINGS / qatomic_read(&guard_map_nb);
}

static uint32_t guard_map_chunk_cost(const VirtIOMEMGuardMap *map,
                                     uint64_t chunk)
{
    return test_bit(chunk, map->whole) ? GUARD_WHOLE_CHUNK_EDGES
                                       : map->edges[chunk];
}

/* A border belongs to the chunk of the block above it. */
static uint32_t guard_map_count_edges(const VirtIOMEMGuardMap *map,
                                      uint64_t chunk)
{
    uint64_t block = MAX(chunk * map->chunk_blocks, 1) - 1;
    const uint64_t end = MIN((chunk + 1) * map->chunk_blocks, map->nb_blocks);
    bool guarded = test_bit(block, map->guarded);
    uint32_t edges = 0;

    while (true) {
        block = guarded ? find_next_zero_bit(map->guarded, end, block)
                        : find_next_bit(map->guarded, end, block);
        if (block == end) {
            return edges;
        }
        guarded = !guarded;
        edges++;
    }
}

static void guard_map_update_edges(VirtIOMEMGuardMap *map, uint64_t first,
                                   uint64_t end)
{
    const uint64_t last = MIN(end, map->nb_blocks - 1) / map->chunk_blocks;
    uint64_t chunk;

    for (chunk = first / map->chunk_blocks; chunk <= last; chunk++) {
        map->mappings -= guard_map_chunk_cost(map, chunk);
        map->edges[chunk] = guard_map_count_edges(map, chunk);
        map->mappings += guard_map_chunk_cost(map, chunk);
    }
}

static void guard_map_set_whole(VirtIOMEMGuardMap *map, uint64_t chunk,
                                bool whole)
{
    map->mappings -= guard_map_chunk_cost(map, chunk);
    if (whole) {
        set_bit(chunk, map->whole);
        map->nb_whole++;
    } else {
        clear_bit(chunk, map->whole);
        map->nb_whole--;
    }
    map->mappings += guard_map_chunk_cost(map, chunk);
}

/* Of the chunks that are (not) watched as a whole, the one most worth it. */
static bool guard_map_pick_chunk(const VirtIOMEMGuardMap *map, bool whole,
                                 uint64_t *chunk)
{
    bool found = false;
    uint64_t i;

    for (i = 0; i < map->nb_chunks; i++) {
        if (test_bit(i, map->whole) != whole) {
            continue;
        }
        if (!found || (whole ? map->edges[i] < map->edges[*chunk]
                             : map->edges[i] >= map->edges[*chunk])) {
            *chunk = i;
            found = true;
        }
    }
    return found;
}

/* Watch less exactly until the budget is kept, or the host refuses. */
static void guard_map_coarsen(VirtIOMEMGuardMap *map)
{
    const uint64_t budget = guard_map_budget(map);
    uint64_t chunk;

    while (map->mappings > budget &&
           guard_map_pick_chunk(map, false, &chunk) &&
           map->edges[chunk] > GUARD_WHOLE_CHUNK_EDGES) {
        guard_map_set_whole(map, chunk, true);
        if (guard_map_sync_chunk(map, chunk)) {
            return;
        }
    }
}

/*
 * Watch more exactly when that costs nothing, or not much compared with what
 * is left.  If the host refuses, all goes on as it is.
 */
static void guard_map_refine(VirtIOMEMGuardMap *map)
{
    const uint64_t enough = guard_map_budget(map) / 4 * 3;
    uint64_t chunk;

    while (map->nb_whole && guard_map_pick_chunk(map, true, &chunk) &&
           (map->edges[chunk] <= GUARD_WHOLE_CHUNK_EDGES ||
            map->mappings + map->edges[chunk] <= enough)) {
        guard_map_set_whole(map, chunk, false);
        if (guard_map_sync_chunk(map, chunk)) {
            guard_map_set_whole(map, chunk, true);
            guard_map_sync_chunk(map, chunk);
            return;
        }
    }
}

/* --- changes --- */

/* Bit by bit: QEMU's copy to an offset clears what follows in the word. */
static void guard_map_restore(VirtIOMEMGuardMap *map,
                              const unsigned long *before, uint64_t first,
                              uint64_t nb_blocks)
{
    uint64_t i;

    bitmap_clear(map->guarded, first, nb_blocks);
    for (i = find_first_bit(before, nb_blocks); i < nb_blocks;
         i = find_next_bit(before, nb_blocks, i + 1)) {
        set_bit(first + i, map->guarded);
    }
}

int virtio_mem_guard_map_guard(VirtIOMEMGuardMap *map, uint64_t first,
                               uint64_t nb_blocks)
{
    g_autofree unsigned long *before = bitmap_new(nb_blocks);
    int ret;

    bitmap_copy_with_src_offset(before, map->guarded, first, nb_blocks);
    bitmap_set(map->guarded, first, nb_blocks);
    ret = guard_map_sync(map, first, first + nb_blocks);
    if (ret) {
        guard_map_restore(map, before, first, nb_blocks);
        guard_map_sync(map, first, first + nb_blocks);
        return ret;
    }
    guard_map_update_edges(map, first, first + nb_blocks);
    guard_map_coarsen(map);
    guard_map_refine(map);
    return 0;
}

/* Where the host refuses to disarm, faults are answered for good. */
void virtio_mem_guard_map_release(VirtIOMEMGuardMap *map, uint64_t first,
                                  uint64_t nb_blocks)
{
    bitmap_clear(map->guarded, first, nb_blocks);
    guard_map_update_edges(map, first, first + nb_blocks);
    guard_map_coarsen(map);
    guard_map_sync(map, first, first + nb_blocks);
    guard_map_refine(map);
}

int virtio_mem_guard_map_rearm(VirtIOMEMGuardMap *map)
{
    int ret;

    qatomic_set(&map->disarmed, false);
    ret = guard_map_sync(map, 0, map->nb_blocks);
    if (ret) {
        virtio_mem_guard_map_disarm(map);
    }
    return ret;
}

void virtio_mem_guard_map_disarm(VirtIOMEMGuardMap *map)
{
    /* Others may watch this memory since. */
    if (map->disarmed) {
        return;
    }
    qatomic_set(&map->disarmed, true);
    /* One call for all, which needs no new mapping and so cannot fail. */
    guard_map_arm(map, 0, map->nb_blocks, false);
}

bool virtio_mem_guard_map_populate(VirtIOMEMGuardMap *map, uint64_t block)
{
    void *host = map->host + block * map->block_size;

    if (guard_map_arm(map, block, 1, false)) {
        return false;
    }
    /*
     * If there is no memory, who touches the block shall hear of it, as from
     * any other memory.  So do not arm it again before its next change.
     */
    if (!qemu_madvise(host, map->block_size, QEMU_MADV_POPULATE_WRITE)) {
        guard_map_sync(map, block, block + 1);
    }
    return true;
}

/* --- life --- */

void virtio_mem_guard_map_init(VirtIOMEMGuardMap *map, int uffd, void *host,
                               uint64_t size, uint64_t block_size,
                               uint64_t max_mappings)
{
    map->uffd = uffd;
    map->host = host;
    map->block_size = block_size;
    map->nb_blocks = size / block_size;
    map->max_mappings = max_mappings;
    map->disarmed = true;
    map->guarded = bitmap_new(map->nb_blocks);
    map->armed = bitmap_new(map->nb_blocks);
    bitmap_set(map->guarded, 0, map->nb_blocks);

    map->chunk_blocks = MAX(GUARD_MIN_CHUNK_BLOCKS,
                            DIV_ROUND_UP(map->nb_blocks, GUARD_MAX_CHUNKS));
    map->nb_chunks = DIV_ROUND_UP(map->nb_blocks, map->chunk_blocks);
    map->whole = bitmap_new(map->nb_chunks);
    map->edges = g_new0(uint32_t, map->nb_chunks);
    qatomic_inc(&guard_map_nb);
}

void virtio_mem_guard_map_cleanup(VirtIOMEMGuardMap *map)
{
    qatomic_dec(&guard_map_nb);
    g_free(map->guarded);
    g_free(map->armed);
    g_free(map->whole);
    g_free(map->edges);
}
