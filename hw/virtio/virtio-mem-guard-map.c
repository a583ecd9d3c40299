/*
 * Which blocks of an area are kept out of reach, and what that costs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-map.h"

bool virtio_mem_guard_map_is_active(const VirtIOMEMGuardMap *map)
{
    return qatomic_read(&map->active);
}

bool virtio_mem_guard_map_is_guarded(const VirtIOMEMGuardMap *map,
                                     uint64_t block)
{
    assert(block < map->nb_blocks);
    return test_bit(block, map->guarded);
}

bool virtio_mem_guard_map_is_substituted(const VirtIOMEMGuardMap *map,
                                         uint64_t offset)
{
    const uint64_t block = offset / map->area->block_size;

    assert(block < map->nb_blocks);
    return map->substituted && test_bit(block, map->substituted);
}

bool virtio_mem_guard_map_is_mixed(const VirtIOMEMGuardMap *map,
                                   uint64_t offset)
{
    const uint64_t block_size = map->area->block_size;
    uint64_t first, end;

    if (!map->active || map->cut || !map->substituted ||
        bitmap_empty(map->substituted, map->nb_blocks)) {
        return false;
    }
    first = virtio_mem_guard_map_find_run(map, offset, 0, map->area->size,
                                          &end) / block_size;
    end /= block_size;
    return find_next_bit(map->substituted, end, first) < end &&
           find_next_zero_bit(map->substituted, end, first) < end;
}

uint64_t virtio_mem_guard_map_page_size(const VirtIOMEMGuardMap *map,
                                        uint64_t offset)
{
    return virtio_mem_guard_map_is_substituted(map, offset)
           ? qemu_real_host_page_size() : map->area->page_size;
}

uint64_t virtio_mem_guard_map_first_like(const unsigned long *bits, bool set,
                                         uint64_t min, uint64_t end)
{
    const unsigned long word = set ? ~0UL : 0;

    while (end > min) {
        if (QEMU_IS_ALIGNED(end, BITS_PER_LONG) &&
            end - min >= BITS_PER_LONG && bits[BIT_WORD(end) - 1] == word) {
            end -= BITS_PER_LONG;
        } else if (test_bit(end - 1, bits) == set) {
            end--;
        } else {
            break;
        }
    }
    return end;
}

uint64_t virtio_mem_guard_map_find_run(const VirtIOMEMGuardMap *map,
                                       uint64_t offset, uint64_t min,
                                       uint64_t max, uint64_t *end)
{
    const uint64_t block_size = map->area->block_size;
    const uint64_t block = offset / block_size;
    uint64_t first, last;

    assert(virtio_mem_guard_map_is_guarded(map, block));
    assert(min <= offset && offset < max && max <= map->area->size);
    first = virtio_mem_guard_map_first_like(map->guarded, true,
                                            min / block_size, block);
    last = find_next_zero_bit(map->guarded, DIV_ROUND_UP(max, block_size),
                              block);
    *end = MIN(last * block_size, max);
    return MAX(first * block_size, min);
}

/* --- borders --- */

/* Borders inside of the blocks from @first to @end. */
static uint64_t guard_map_count_borders(const VirtIOMEMGuardMap *map,
                                        uint64_t first, uint64_t end)
{
    uint64_t nb_borders = 0;

    assert(first < end && end <= map->nb_blocks);
    while (true) {
        first = test_bit(first, map->guarded)
                ? find_next_zero_bit(map->guarded, end, first)
                : find_next_bit(map->guarded, end, first);
        if (first >= end) {
            return nb_borders;
        }
        nb_borders++;
    }
}

/* Whether block @at begins where a mapping does when it is (not) guarded. */
static bool guard_map_will_be_border(const VirtIOMEMGuardMap *map, uint64_t at,
                                     uint64_t outside, bool guard)
{
    return at && at < map->nb_blocks &&
           test_bit(outside, map->guarded) != guard;
}

int64_t virtio_mem_guard_map_cost(const VirtIOMEMGuardMap *map, uint64_t first,
                                  uint64_t nb_blocks, bool guard)
{
    const uint64_t end = first + nb_blocks;
    const bool low = guard_map_will_be_border(map, first, first - 1, guard);
    const bool high = guard_map_will_be_border(map, end, end, guard);

    assert(nb_blocks && end <= map->nb_blocks);
    if (!map->active) {
        return 0;
    }
    if (map->cut) {
        return (low && !test_bit(first, map->cut)) +
               (high && !test_bit(end, map->cut));
    }
    return low + high -
           (int64_t)guard_map_count_borders(map, MAX(first, 1) - 1,
                                            MIN(end + 1, map->nb_blocks));
}

/* The blocks were (not) guarded: where the kernel had to cut a mapping. */
static void guard_map_cut(VirtIOMEMGuardMap *map, uint64_t first, uint64_t end,
                          bool guard)
{
    if (guard_map_will_be_border(map, first, first - 1, guard)) {
        set_bit(first, map->cut);
    }
    if (guard_map_will_be_border(map, end, end, guard)) {
        set_bit(end, map->cut);
    }
}

/* --- registration --- */

static int guard_map_register(VirtIOMEMGuardMap *map, uint64_t first,
                              uint64_t end)
{
    const VirtIOMEMGuardArea *area = map->area;

    assert(first < end && end <= map->nb_blocks);
    return uffd_register_memory(map->uffd,
                                (uint8_t *)area->host +
                                first * area->block_size,
                                (end - first) * area->block_size,
                                UFFDIO_REGISTER_MODE_MISSING, NULL) ?
           -errno : 0;
}

/* Also has each thread retry that waits there for an answer. */
static int guard_map_unregister(VirtIOMEMGuardMap *map, uint64_t first,
                                uint64_t end)
{
    const VirtIOMEMGuardArea *area = map->area;

    assert(first < end && end <= map->nb_blocks);
    if (!uffd_unregister_memory(map->uffd,
                                (uint8_t *)area->host +
                                first * area->block_size,
                                (end - first) * area->block_size)) {
        return 0;
    }
    map->refused = true;
    return -errno;
}

/* The next run of blocks that are (not) guarded; false if there is none. */
static bool guard_map_next_run(const VirtIOMEMGuardMap *map, bool guarded,
                               uint64_t limit, uint64_t *first, uint64_t *end)
{
    *first = guarded ? find_next_bit(map->guarded, limit, *end)
                     : find_next_zero_bit(map->guarded, limit, *end);
    if (*first >= limit) {
        return false;
    }
    *end = guarded ? find_next_zero_bit(map->guarded, limit, *first)
                   : find_next_bit(map->guarded, limit, *first);
    return true;
}

/*
 * (Un)register the runs of guarded blocks between @from and @to; nothing else,
 * which may be registered with another userfaultfd.  Stops at the first one
 * that fails, which begins at @stopped, and of which a part may be done.
 */
static int guard_map_apply(VirtIOMEMGuardMap *map, uint64_t from, uint64_t to,
                           bool reg, uint64_t *stopped)
{
    uint64_t first, end = from;
    int ret = 0;

    assert(from < to && to <= map->nb_blocks);
    while (!ret && guard_map_next_run(map, true, to, &first, &end)) {
        ret = reg ? guard_map_register(map, first, end)
                  : guard_map_unregister(map, first, end);
        *stopped = ret == -ENOMEM ? end : first;
    }
    return ret;
}

/*
 * What is guarded already, in between, is registered already: the kernel skips
 * it, and one call does for all, as UNPLUG ALL needs it.
 */
static int guard_map_add(VirtIOMEMGuardMap *map, uint64_t first, uint64_t end)
{
    uint64_t from, to = first;
    int ret;

    first = find_next_zero_bit(map->guarded, end, first);
    end = virtio_mem_guard_map_first_like(map->guarded, true, first, end);
    if (first >= end) {
        return 0;
    }
    ret = guard_map_register(map, first, end);
    if (!ret) {
        bitmap_set(map->guarded, first, end - first);
        return 0;
    }
    /* Without memory for mappings, the kernel may stop halfway. */
    to = first;
    while (ret == -ENOMEM &&
           guard_map_next_run(map, false, end, &from, &to)) {
        if (guard_map_unregister(map, from, to)) {
            virtio_mem_guard_map_pause(map);
            break;
        }
    }
    return ret;
}

static int guard_map_remove(VirtIOMEMGuardMap *map, uint64_t first,
                            uint64_t end)
{
    uint64_t stopped = end;
    const int ret = guard_map_apply(map, first, end, false, &stopped);

    if (!ret) {
        bitmap_clear(map->guarded, first, end - first);
    } else if (stopped > first &&
               guard_map_apply(map, first, stopped, true, &stopped)) {
        virtio_mem_guard_map_pause(map);
    }
    return ret;
}

/* --- changes --- */

static void guard_map_set_paused(VirtIOMEMGuardMap *map, uint64_t first,
                                 uint64_t nb_blocks, bool guard)
{
    if (guard) {
        bitmap_set(map->guarded, first, nb_blocks);
    } else {
        bitmap_clear(map->guarded, first, nb_blocks);
    }
}

int virtio_mem_guard_map_set(VirtIOMEMGuardMap *map, uint64_t first,
                             uint64_t nb_blocks, bool guard)
{
    const int64_t cost = virtio_mem_guard_map_cost(map, first, nb_blocks,
                                                   guard);
    const uint64_t end = first + nb_blocks;
    int ret;

    if (!map->active) {
        guard_map_set_paused(map, first, nb_blocks, guard);
        return 0;
    }
    ret = guard ? guard_map_add(map, first, end)
                : guard_map_remove(map, first, end);
    if (ret) {
        return ret;
    }
    if (map->cut) {
        guard_map_cut(map, first, end, guard);
    }
    assert(cost >= 0 || map->nb_borders >= -cost);
    map->nb_borders += cost;
    return 0;
}

void virtio_mem_guard_map_pause(VirtIOMEMGuardMap *map)
{
    uint64_t stopped;

    if (!map->active) {
        return;
    }
    qatomic_set(&map->active, false);
    /* Whole mappings, so that none has to be split and nothing can fail. */
    guard_map_apply(map, 0, map->nb_blocks, false, &stopped);
    if (!map->cut) {
        map->nb_borders = 0;
    }
}

void virtio_mem_guard_map_let_go(VirtIOMEMGuardMap *map, uint64_t block)
{
    assert(block < map->nb_blocks);
    if (map->refused) {
        guard_map_unregister(map, block, block + 1);
    }
}

/* After all has been registered. */
static void guard_map_count_all(VirtIOMEMGuardMap *map)
{
    uint64_t first, end = 0;

    if (!map->cut) {
        map->nb_borders = guard_map_count_borders(map, 0, map->nb_blocks);
        return;
    }
    while (guard_map_next_run(map, true, map->nb_blocks, &first, &end)) {
        guard_map_cut(map, first, end, true);
    }
    map->nb_borders = bitmap_count_one(map->cut, map->nb_blocks);
}

int virtio_mem_guard_map_resume(VirtIOMEMGuardMap *map)
{
    uint64_t stopped = 0;
    int ret;

    if (map->active) {
        return 0;
    }
    ret = guard_map_apply(map, 0, map->nb_blocks, true, &stopped);
    if (ret && stopped) {
        guard_map_apply(map, 0, stopped, false, &stopped);
    }
    if (!ret) {
        guard_map_count_all(map);
        qatomic_set(&map->active, true);
    }
    return ret;
}

void virtio_mem_guard_map_watch(VirtIOMEMGuardMap *map, uint64_t first,
                                uint64_t end)
{
    uint64_t stopped;

    if (map->active && guard_map_apply(map, first, end, true, &stopped)) {
        virtio_mem_guard_map_pause(map);
    }
}

static bool guard_map_check_substituted(const VirtIOMEMGuardMap *map)
{
    g_autofree unsigned long *wrong = bitmap_new(map->nb_blocks);
    uint64_t first, end = 0;

    while (guard_map_next_run(map, true, map->nb_blocks, &first, &end)) {
        if (virtio_mem_guard_map_is_mixed(map, first * map->area->block_size)) {
            return false;
        }
    }
    bitmap_andnot(wrong, map->substituted, map->guarded, map->nb_blocks);
    return bitmap_empty(map->active ? wrong : map->substituted,
                        map->nb_blocks);
}

bool virtio_mem_guard_map_check(const VirtIOMEMGuardMap *map)
{
    uint64_t first, end = 0;

    if (map->substituted && !map->stuck && !guard_map_check_substituted(map)) {
        return false;
    }
    if (!map->cut) {
        return map->nb_borders ==
               (map->active ? guard_map_count_borders(map, 0, map->nb_blocks)
                            : 0);
    }
    while (map->active &&
           guard_map_next_run(map, true, map->nb_blocks, &first, &end)) {
        if ((first && !test_bit(first, map->cut)) ||
            (end < map->nb_blocks && !test_bit(end, map->cut))) {
            return false;
        }
    }
    return !test_bit(0, map->cut) &&
           map->nb_borders == bitmap_count_one(map->cut, map->nb_blocks);
}

/* --- life --- */

/*
 * The kernel merges mappings of private memory only if they have the same
 * anon_vma.  A mapping gets one when it is first written to.  So let all of the
 * area, which is one mapping now, have one, before it is in pieces: pieces
 * inherit it.  The page that this takes is the caller's to discard.
 *
 * False where the kernel does not merge.
 */
static bool guard_map_let_merge(const VirtIOMEMGuardArea *area)
{
    if (area->page_size != qemu_real_host_page_size()) {
        return false;
    }
    if (area->shared ||
        !qemu_madvise(area->host, area->page_size, QEMU_MADV_POPULATE_WRITE)) {
        return true;
    }
    /* Before Linux 5.14: write what is there. */
    if (errno == EINVAL) {
        qatomic_fetch_add((uint8_t *)area->host, 0);
        return true;
    }
    return false;
}

void virtio_mem_guard_map_init(VirtIOMEMGuardMap *map, int uffd,
                               const VirtIOMEMGuardArea *area)
{
    assert(QEMU_IS_ALIGNED(area->size, area->block_size));
    assert(QEMU_IS_ALIGNED(area->block_size, area->page_size));
    *map = (VirtIOMEMGuardMap) {
        .area = area,
        .uffd = uffd,
        .nb_blocks = area->size / area->block_size,
    };
    map->guarded = bitmap_new(map->nb_blocks);
    bitmap_set(map->guarded, 0, map->nb_blocks);
    if (!guard_map_let_merge(area)) {
        map->cut = bitmap_new(map->nb_blocks);
    }
    if (area->map) {
        map->substituted = bitmap_new(map->nb_blocks);
    }
}

void virtio_mem_guard_map_cleanup(VirtIOMEMGuardMap *map)
{
    assert(!map->active);
    g_free(map->guarded);
    g_free(map->cut);
    g_free(map->substituted);
}
