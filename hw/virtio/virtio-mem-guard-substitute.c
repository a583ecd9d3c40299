/*
 * Ordinary memory that stands in for huge pages that the host lacks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-substitute.h"

/* The blocks around @block that are guarded and have their area's memory. */
static void substitute_find_run(const VirtIOMEMGuardMap *map, uint64_t block,
                                uint64_t *first, uint64_t *end)
{
    uint64_t limit = find_next_zero_bit(map->guarded, map->nb_blocks, block);

    limit = MIN(limit, find_next_bit(map->substituted, map->nb_blocks, block));
    while (block && test_bit(block - 1, map->guarded) &&
           !test_bit(block - 1, map->substituted)) {
        block--;
    }
    *first = block;
    *end = limit;
}

/*
 * What a thread put there before it was watched goes at once.  As QEMU does
 * with all guest memory, keep it from child processes; and it is no content
 * for a core dump.
 */
static int substitute_map(const VirtIOMEMGuardMap *map, uint8_t *host,
                          uint64_t size)
{
    if (mmap(host, size, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
             0) == MAP_FAILED) {
        return -errno;
    }
    if (uffd_register_memory(map->uffd, host, size,
                             UFFDIO_REGISTER_MODE_MISSING, NULL)) {
        return -errno;
    }
    qemu_madvise(host, size, QEMU_MADV_DONTNEED);
    qemu_madvise(host, size, QEMU_MADV_DONTFORK);
    qemu_madvise(host, size, QEMU_MADV_DONTDUMP);
    return 0;
}

int virtio_mem_guard_substitute(VirtIOMEMGuardMap *map, uint64_t offset,
                                uint64_t *start, uint64_t *end)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t block = offset / area->block_size;
    uint64_t first, last;
    int ret;

    assert(virtio_mem_guard_map_is_active(map));
    assert(virtio_mem_guard_map_is_guarded(map, block));
    if (!map->substituted || test_bit(block, map->substituted)) {
        return -ENOTSUP;
    }
    substitute_find_run(map, block, &first, &last);
    *start = first * area->block_size;
    *end = last * area->block_size;

    ret = substitute_map(map, (uint8_t *)area->host + *start, *end - *start);
    bitmap_set(map->substituted, first, last - first);
    if (ret) {
        virtio_mem_guard_restore(map, *start, *end - *start);
        return ret;
    }
    /* No page of the area can be seen any more: free those that there are. */
    area->discard(area->opaque, *start, *end - *start);
    uffd_wakeup(map->uffd, (uint8_t *)area->host + *start, *end - *start);
    return 0;
}

int virtio_mem_guard_restore(VirtIOMEMGuardMap *map, uint64_t offset,
                             uint64_t size)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t limit = (offset + size) / area->block_size;
    uint64_t first = offset / area->block_size;

    assert(limit <= map->nb_blocks);
    while (map->substituted) {
        uint64_t end;
        int ret;

        first = find_next_bit(map->substituted, limit, first);
        if (first >= limit) {
            break;
        }
        end = find_next_zero_bit(map->substituted, limit, first);
        ret = area->map(area->opaque, first * area->block_size,
                        (end - first) * area->block_size);
        if (ret) {
            return ret;
        }
        bitmap_clear(map->substituted, first, end - first);
    }
    return 0;
}
