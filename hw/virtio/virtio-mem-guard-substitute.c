/*
 * Memory that stands in for pages that the host lacks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-substitute.h"

/*
 * What a thread put there before it was watched goes at once.  As QEMU does
 * with all guest memory, keep it from child processes; and it is no content
 * for a core dump.  If mmap() fails, what was there still is.
 */
static int substitute_map(VirtIOMEMGuardMap *map, uint64_t first, uint64_t end)
{
    const VirtIOMEMGuardArea *area = map->area;
    uint8_t *host = (uint8_t *)area->host + first * area->block_size;
    const uint64_t size = (end - first) * area->block_size;

    if (mmap(host, size, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
             0) == MAP_FAILED) {
        return -errno;
    }
    bitmap_set(map->substituted, first, end - first);
    if (uffd_register_memory(map->uffd, host, size,
                             UFFDIO_REGISTER_MODE_MISSING, NULL)) {
        return -errno;
    }
    qemu_madvise(host, size, QEMU_MADV_DONTNEED);
    qemu_madvise(host, size, QEMU_MADV_DONTFORK);
    qemu_madvise(host, size, QEMU_MADV_DONTDUMP);
    return 0;
}

uint64_t virtio_mem_guard_substitute_find(const VirtIOMEMGuardMap *map,
                                          uint64_t offset, uint64_t *end)
{
    const uint64_t block_size = map->area->block_size;
    const uint64_t start = virtio_mem_guard_map_find_run(map, offset, 0,
                                                         map->area->size, end);
    const uint64_t block = offset / block_size;

    if (!map->cut) {
        return start;
    }
    *end = MIN(*end, block_size * find_next_bit(map->substituted,
                                                map->nb_blocks, block));
    return block_size * virtio_mem_guard_map_first_like(
        map->substituted, false, start / block_size, block);
}

int virtio_mem_guard_substitute(VirtIOMEMGuardMap *map, uint64_t offset,
                                uint64_t size)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t first = offset / area->block_size;
    const uint64_t end = (offset + size) / area->block_size;
    int ret;

    assert(virtio_mem_guard_map_is_active(map));
    assert(map->substituted);
    assert(first < end && find_next_zero_bit(map->guarded, end, first) == end);
    ret = substitute_map(map, first, end);
    if (ret) {
        virtio_mem_guard_substitute_restore(map, offset, size);
        virtio_mem_guard_map_watch(map, first, end);
        return ret;
    }
    /* No page of the area can be seen any more: free those that there are. */
    area->discard(area->opaque, offset, size);
    uffd_wakeup(map->uffd, (uint8_t *)area->host + offset, size);
    return 0;
}

/*
 * The next run of blocks that are guarded and substituted, from @end on.  What
 * is not guarded is in use, whatever it consists of.
 */
static bool substitute_next_run(const VirtIOMEMGuardMap *map, uint64_t limit,
                                uint64_t *first, uint64_t *end)
{
    if (!map->substituted) {
        return false;
    }
    *first = *end;
    do {
        *first = find_next_bit(map->substituted, limit, *first);
        *first = find_next_bit(map->guarded, limit, *first);
        if (*first >= limit) {
            return false;
        }
    } while (!test_bit(*first, map->substituted));
    *end = MIN(find_next_zero_bit(map->substituted, limit, *first),
               find_next_zero_bit(map->guarded, limit, *first));
    return true;
}

int virtio_mem_guard_substitute_restore(VirtIOMEMGuardMap *map, uint64_t offset,
                                        uint64_t size)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t begin = offset / area->block_size;
    const uint64_t limit = (offset + size) / area->block_size;
    uint64_t first, end = begin;

    assert(limit <= map->nb_blocks);
    while (substitute_next_run(map, limit, &first, &end)) {
        const int ret = area->map(area->opaque, first * area->block_size,
                                  (end - first) * area->block_size);

        if (ret) {
            map->stuck = true;
            virtio_mem_guard_map_watch(map, begin, limit);
            return ret;
        }
        bitmap_clear(map->substituted, first, end - first);
    }
    return 0;
}

void virtio_mem_guard_substitute_clear(VirtIOMEMGuardMap *map, uint64_t offset,
                                       uint64_t size)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t limit = (offset + size) / area->block_size;
    uint64_t first, end = offset / area->block_size;

    assert(limit <= map->nb_blocks);
    while (substitute_next_run(map, limit, &first, &end)) {
        qemu_madvise((uint8_t *)area->host + first * area->block_size,
                     (end - first) * area->block_size, QEMU_MADV_DONTNEED);
    }
}
