/*
 * Pages that the guard lends to threads that access memory out of reach.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-ring.h"
#include <sys/ioctl.h>

/*
 * Slots and the length of a turn: long enough that a thread that was woken runs
 * and gets on, also on a busy host; and so short that each of many threads has
 * its turn soon.  To clear a page of 1 GiB alone takes a good part of a second.
 */
static const struct {
    uint64_t max_page_size;
    unsigned int nb_slots;
    int64_t turn;
    bool is_slow;
} guard_rings[VIRTIO_MEM_GUARD_RINGS] = {
    { 64 * KiB, VIRTIO_MEM_GUARD_MAX_SLOTS, 4000 },
    { 64 * MiB, 4, 4000 },
    { UINT64_MAX, 1, 4000000, true },
};

static bool guard_ring_is_huge(uint64_t page_size)
{
    return page_size > qemu_real_host_page_size();
}

/* --- taking back --- */

static bool guard_ring_has_page(const VirtIOMEMGuardRing *ring,
                                const VirtIOMEMGuardMap *map, uint64_t first,
                                uint64_t end)
{
    unsigned int i, j;

    assert(first < end && end <= map->area->size);
    for (i = 0; i < ring->nb_slots; i++) {
        const VirtIOMEMGuardSlot *slot = &ring->slots[i];

        for (j = 0; j < slot->nb_pages; j++) {
            if (slot->pages[j].map == map && slot->pages[j].offset >= first &&
                slot->pages[j].offset < end) {
                return true;
            }
        }
    }
    return false;
}

/*
 * Linux frees a page table (since 6.14, on x86-64) when all that it maps is
 * given back at once.  Private memory loses its content by that, so only what
 * is out of reach and not lent may go.  Shared memory keeps its content, but
 * what had to stay in its place would not.
 */
static void guard_ring_drop_table(const VirtIOMEMGuardRing *ring,
                                  VirtIOMEMGuardMap *map, uint64_t offset)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uintptr_t host = (uintptr_t)area->host;
    const uint64_t page_size = virtio_mem_guard_map_page_size(map, offset);
    /* One page table has 8 bytes for each page. */
    const uint64_t table_size = page_size * (page_size / 8);
    const uintptr_t table = QEMU_ALIGN_DOWN(host + offset, table_size);
    uint64_t first = MAX(table, host) - host;
    uint64_t end = MIN(table + table_size - host, area->size);

    if (guard_ring_is_huge(area->page_size)) {
        /* Or what stands in for one huge page. */
        first = QEMU_ALIGN_DOWN(offset, area->page_size);
        end = first + area->page_size;
    }
    if (guard_ring_has_page(ring, map, first, end)) {
        return;
    }
    if (!area->shared || map->stuck) {
        first = virtio_mem_guard_map_find_run(map, offset, first, end, &end);
    }
    assert(first <= offset && offset < end);
    qemu_madvise((uint8_t *)area->host + first, end - first,
                 QEMU_MADV_DONTNEED);
}

/* A page that the host does not take back is no reason to keep others out. */
static void guard_ring_take_back_page(VirtIOMEMGuardRing *ring,
                                      VirtIOMEMGuardSlot *slot, unsigned int i)
{
    const VirtIOMEMGuardPage page = slot->pages[i];
    const VirtIOMEMGuardArea *area = page.map->area;
    const uint64_t size = virtio_mem_guard_map_page_size(page.map,
                                                         page.offset);

    assert(i < slot->nb_pages);
    assert(QEMU_IS_ALIGNED(page.offset, size));
    slot->nb_pages--;
    ring->nb_lent--;
    memmove(&slot->pages[i], &slot->pages[i + 1],
            (slot->nb_pages - i) * sizeof(slot->pages[0]));
    if (virtio_mem_guard_map_is_substituted(page.map, page.offset)) {
        qemu_madvise((uint8_t *)area->host + page.offset, size,
                     QEMU_MADV_DONTNEED);
    } else if (area->discard(area->opaque, page.offset, size)) {
        warn_report_once("virtio-mem: the host did not take back unplugged"
                         " memory at offset 0x%" PRIx64, page.offset);
    }
    guard_ring_drop_table(ring, page.map, page.offset);
}

static void guard_ring_empty_slot(VirtIOMEMGuardRing *ring,
                                  VirtIOMEMGuardSlot *slot)
{
    while (slot->nb_pages) {
        guard_ring_take_back_page(ring, slot, 0);
    }
}

void virtio_mem_guard_ring_take_back(VirtIOMEMGuardRing *ring,
                                     const VirtIOMEMGuardMap *map,
                                     uint64_t offset, uint64_t size)
{
    unsigned int i, j;

    assert(size <= map->area->size && offset <= map->area->size - size);
    for (i = 0; i < ring->nb_slots; i++) {
        VirtIOMEMGuardSlot *slot = &ring->slots[i];

        for (j = slot->nb_pages; j > 0; j--) {
            const VirtIOMEMGuardPage *page = &slot->pages[j - 1];

            if (page->map == map && page->offset >= offset &&
                page->offset - offset < size) {
                guard_ring_take_back_page(ring, slot, j - 1);
            }
        }
    }
}

/* --- slots --- */

static VirtIOMEMGuardSlot *guard_ring_find_own(VirtIOMEMGuardRing *ring,
                                               uint32_t thread)
{
    unsigned int i;

    for (i = 0; i < ring->nb_slots; i++) {
        if (ring->slots[i].nb_pages && ring->slots[i].thread == thread) {
            return &ring->slots[i];
        }
    }
    return NULL;
}

/* The slot that is free, or of which the turn ends first. */
static const VirtIOMEMGuardSlot *
guard_ring_find_next(const VirtIOMEMGuardRing *ring)
{
    const VirtIOMEMGuardSlot *next = &ring->slots[0];
    unsigned int i;

    assert(ring->nb_slots);
    for (i = 0; i < ring->nb_slots; i++) {
        const VirtIOMEMGuardSlot *slot = &ring->slots[i];

        if (!slot->nb_pages) {
            return slot;
        }
        if (slot->turn_end < next->turn_end) {
            next = slot;
        }
    }
    return next;
}

int64_t virtio_mem_guard_ring_next_turn(const VirtIOMEMGuardRing *ring)
{
    const VirtIOMEMGuardSlot *slot = guard_ring_find_next(ring);

    return slot->nb_pages ? slot->turn_end : 0;
}

VirtIOMEMGuardSlot *virtio_mem_guard_ring_find(VirtIOMEMGuardRing *ring,
                                               uint32_t thread, int64_t now,
                                               bool may_begin)
{
    VirtIOMEMGuardSlot *slot = guard_ring_find_own(ring, thread);

    if (slot && (now < slot->turn_end || may_begin)) {
        return slot;
    }
    if (!may_begin || virtio_mem_guard_ring_next_turn(ring) > now) {
        return NULL;
    }
    return (VirtIOMEMGuardSlot *)guard_ring_find_next(ring);
}

/* --- lending --- */

/* Both are 0 or a negative errno. */
static int guard_ring_zero(VirtIOMEMGuardRing *ring, uint8_t *page,
                           uint64_t size)
{
    struct uffdio_zeropage arg = {
        .range.start = (uintptr_t)page,
        .range.len = size,
    };

    return ioctl(ring->uffd, UFFDIO_ZEROPAGE, &arg) ? -errno : 0;
}

/* Memory that was never written costs nothing but page tables to read. */
static int guard_ring_copy(VirtIOMEMGuardRing *ring, uint8_t *page,
                           uint64_t size)
{
    void *zeros = mmap(NULL, size, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct uffdio_copy arg = {
        .dst = (uintptr_t)page,
        .src = (uintptr_t)zeros,
        .len = size,
    };
    int ret;

    if (zeros == MAP_FAILED) {
        return -errno;
    }
    qemu_madvise(zeros, size, QEMU_MADV_HUGEPAGE);
    ret = ioctl(ring->uffd, UFFDIO_COPY, &arg) ? -errno : 0;
    munmap(zeros, size);
    return ret;
}

/* Whether this process has a page there; the kernel knows best. */
static bool guard_ring_is_present(uint8_t *page)
{
    unsigned char present = 0;

    return !mincore(page, qemu_real_host_page_size(), &present) && present & 1;
}

/*
 * Some kernels (seen with Linux 6.18) say EEXIST where a huge page does not
 * exist, but there is none left to be had.
 */
static int guard_ring_provide(VirtIOMEMGuardRing *ring, uint8_t *page,
                              uint64_t size)
{
    int ret;

    assert(QEMU_PTR_IS_ALIGNED(page, size));
    do {
        ret = guard_ring_is_huge(size) ? guard_ring_copy(ring, page, size)
                                       : guard_ring_zero(ring, page, size);
    } while (ret == -EAGAIN || ret == -EINTR);
    return ret == -EEXIST && guard_ring_is_huge(size) &&
           !guard_ring_is_present(page) ? -ENOMEM : ret;
}

/* One page back may be enough for the host; the oldest turn ends early. */
static int guard_ring_provide_somehow(VirtIOMEMGuardRing *ring, uint8_t *page,
                                      uint64_t size)
{
    unsigned int i;
    int ret = guard_ring_provide(ring, page, size);

    for (i = 0; ret && ret != -EEXIST && i < ring->nb_slots; i++) {
        if (ring->slots[i].nb_pages) {
            guard_ring_empty_slot(ring, &ring->slots[i]);
            ret = guard_ring_provide(ring, page, size);
        }
    }
    return ret;
}

int virtio_mem_guard_ring_lend(VirtIOMEMGuardRing *ring,
                               VirtIOMEMGuardSlot *slot,
                               VirtIOMEMGuardMap *map, uint64_t offset,
                               uint32_t thread, int64_t now)
{
    const VirtIOMEMGuardArea *area = map->area;
    const uint64_t page_size = virtio_mem_guard_map_page_size(map, offset);
    const uint64_t page = QEMU_ALIGN_DOWN(offset, page_size);
    uint8_t *host = (uint8_t *)area->host + page;
    int ret;

    assert(slot >= ring->slots && slot < ring->slots + ring->nb_slots);
    assert(offset < area->size);
    assert(virtio_mem_guard_map_is_active(map));
    assert(virtio_mem_guard_map_is_guarded(map, offset / area->block_size));
    if (slot->nb_pages && slot->thread != thread) {
        guard_ring_empty_slot(ring, slot);
    }
    if (slot->nb_pages == VIRTIO_MEM_GUARD_SLOT_PAGES) {
        guard_ring_take_back_page(ring, slot, 0);
    }
    if (!slot->nb_pages || now >= slot->turn_end) {
        slot->thread = thread;
        slot->turn_end = now + ring->turn;
    }

    ret = guard_ring_provide_somehow(ring, host, page_size);
    assert(slot->nb_pages < VIRTIO_MEM_GUARD_SLOT_PAGES);
    if (!ret) {
        slot->pages[slot->nb_pages++] = (VirtIOMEMGuardPage) { map, page };
        ring->peak_lent = MAX(ring->peak_lent, ++ring->nb_lent);
    } else if (ret == -EEXIST) {
        /* A page that came from elsewhere leaves it to us to wake. */
        uffd_wakeup(ring->uffd, host, page_size);
        ret = 0;
    }
    return ret;
}

bool virtio_mem_guard_ring_check(const VirtIOMEMGuardRing *ring)
{
    unsigned int nb_lent = 0;
    unsigned int i, j;

    for (i = 0; i < ring->nb_slots; i++) {
        const VirtIOMEMGuardSlot *slot = &ring->slots[i];

        if (slot->nb_pages > VIRTIO_MEM_GUARD_SLOT_PAGES) {
            return false;
        }
        nb_lent += slot->nb_pages;
        for (j = 0; j < slot->nb_pages; j++) {
            const VirtIOMEMGuardPage *page = &slot->pages[j];

            if (!virtio_mem_guard_map_is_active(page->map) ||
                !virtio_mem_guard_map_is_guarded(page->map, page->offset /
                                                 page->map->area->block_size)) {
                return false;
            }
        }
        for (j = 0; j < i; j++) {
            if (slot->nb_pages && ring->slots[j].nb_pages &&
                slot->thread == ring->slots[j].thread) {
                return false;
            }
        }
    }
    return nb_lent == ring->nb_lent && nb_lent <= ring->peak_lent;
}

/* --- life --- */

unsigned int virtio_mem_guard_ring_kind(uint64_t page_size)
{
    unsigned int kind = 0;

    assert(is_power_of_2(page_size));
    while (page_size > guard_rings[kind].max_page_size) {
        kind++;
    }
    return kind;
}

void virtio_mem_guard_ring_init(VirtIOMEMGuardRing *ring, int uffd,
                                unsigned int kind)
{
    assert(kind < VIRTIO_MEM_GUARD_RINGS);
    *ring = (VirtIOMEMGuardRing) {
        .uffd = uffd,
        .nb_slots = guard_rings[kind].nb_slots,
        .turn = guard_rings[kind].turn,
        .is_slow = guard_rings[kind].is_slow,
    };
    assert(ring->nb_slots && ring->nb_slots <= VIRTIO_MEM_GUARD_MAX_SLOTS);
}
