/*
 * Driver side of one virtqueue in guest memory, split or packed.
 *
 * Positions only ever go forward: a descriptor is used again when the ring
 * comes round to it, so a test may have at most ring-size descriptors in
 * flight.  Nothing is checked that the device should check.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-mem-ring.h"

/* struct vring_desc and struct vring_packed_desc agree on size only. */
#define DESC_SIZE   16
QEMU_BUILD_BUG_ON(sizeof(struct vring_desc) != DESC_SIZE);
QEMU_BUILD_BUG_ON(sizeof(struct vring_packed_desc) != DESC_SIZE);

#define PACKED_AVAIL    (1 << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED     (1 << VRING_PACKED_DESC_F_USED)

static uint64_t split_used_event_gpa(VirtioMemRing *ring)
{
    return ring->driver + 4 + 2 * ring->opts.size;
}

static uint64_t split_avail_event_gpa(VirtioMemRing *ring)
{
    return ring->device + 4 + sizeof(struct vring_used_elem) * ring->opts.size;
}

void virtio_mem_ring_init(VirtioMemRing *ring, QTestState *qts,
                          QGuestAllocator *alloc,
                          const VirtioMemRingOptions *opts)
{
    /* The largest areas: 2 bytes of event index after each split ring. */
    size_t desc_size = DESC_SIZE * opts->size;
    size_t driver_size = 6 + 2 * opts->size;
    size_t device_size = 6 + sizeof(struct vring_used_elem) * opts->size;

    *ring = (VirtioMemRing){
        .qts = qts,
        .alloc = alloc,
        .opts = *opts,
        .desc = guest_alloc(alloc, desc_size),
        .driver = guest_alloc(alloc, driver_size),
        .device = guest_alloc(alloc, device_size),
        .avail_wrap = true,
        .used_wrap = true,
        .chain_len = g_new0(uint16_t, opts->size),
    };
    qtest_memset(qts, ring->desc, 0, desc_size);
    qtest_memset(qts, ring->driver, 0, driver_size);
    qtest_memset(qts, ring->device, 0, device_size);
}

void virtio_mem_ring_free(VirtioMemRing *ring)
{
    guest_free(ring->alloc, ring->desc);
    guest_free(ring->alloc, ring->driver);
    guest_free(ring->alloc, ring->device);
    g_free(ring->chain_len);
    *ring = (VirtioMemRing){};
}

static void ring_format_split(uint8_t *bytes, uint64_t addr, uint32_t len,
                              uint16_t flags, uint16_t next)
{
    stq_le_p(bytes, addr);
    stl_le_p(bytes + 8, len);
    stw_le_p(bytes + 12, flags);
    stw_le_p(bytes + 14, next);
}

static void ring_format_packed(uint8_t *bytes, uint64_t addr, uint32_t len,
                               uint16_t id, uint16_t flags)
{
    stq_le_p(bytes, addr);
    stl_le_p(bytes + 8, len);
    stw_le_p(bytes + 12, id);
    stw_le_p(bytes + 14, flags);
}

static uint16_t ring_segment_flags(const VirtioMemSegment *seg)
{
    return seg->flags | (seg->writable ? VRING_DESC_F_WRITE : 0);
}

static uint16_t ring_packed_avail_flags(bool wrap)
{
    return wrap ? PACKED_AVAIL : PACKED_USED;
}

/* The wrap counter that belongs to @slot, at or after the free position. */
static bool ring_packed_wrap_of(VirtioMemRing *ring, unsigned slot)
{
    return slot >= ring->next_free ? ring->avail_wrap : !ring->avail_wrap;
}

static void ring_advance(VirtioMemRing *ring, uint16_t nb)
{
    ring->next_free += nb;
    if (ring->next_free >= ring->opts.size) {
        ring->next_free -= ring->opts.size;
        ring->avail_wrap = !ring->avail_wrap;
    }
}

void virtio_mem_ring_write_desc(VirtioMemRing *ring, uint16_t index,
                                uint64_t addr, uint32_t len,
                                uint16_t flags, uint16_t link)
{
    uint8_t bytes[DESC_SIZE];

    if (ring->opts.packed) {
        ring_format_packed(bytes, addr, len, link, flags);
    } else {
        ring_format_split(bytes, addr, len, flags, link);
    }
    qtest_memwrite(ring->qts, ring->desc + index * DESC_SIZE, bytes,
                   sizeof(bytes));
}

void virtio_mem_ring_set_avail_idx(VirtioMemRing *ring, uint16_t idx)
{
    g_assert_false(ring->opts.packed);
    ring->avail_idx = idx;
    qtest_writew(ring->qts, ring->driver + 2, idx);
}

static void ring_publish_packed(VirtioMemRing *ring, uint16_t head,
                                uint16_t nb)
{
    uint64_t gpa = ring->desc + head * DESC_SIZE;
    uint16_t id = qtest_readw(ring->qts, gpa + 12);
    uint16_t flags = qtest_readw(ring->qts, gpa + 14);

    if (id < ring->opts.size) {
        ring->chain_len[id] = nb;
    }
    flags |= ring_packed_avail_flags(ring_packed_wrap_of(ring, head));
    qtest_writew(ring->qts, gpa + 14, flags);
    ring->nb_added += nb;
}

void virtio_mem_ring_publish(VirtioMemRing *ring, uint16_t head, uint16_t nb)
{
    uint16_t slot = ring->avail_idx & (ring->opts.size - 1);

    if (ring->opts.packed) {
        ring_publish_packed(ring, head, nb);
    } else {
        qtest_writew(ring->qts, ring->driver + 4 + 2 * slot, head);
        virtio_mem_ring_set_avail_idx(ring, ring->avail_idx + 1);
        ring->nb_added++;
    }
    ring_advance(ring, nb);
}

/* The head last: until its flags are there, the device sees nothing. */
static uint16_t ring_add_packed(VirtioMemRing *ring,
                                const VirtioMemSegment *segments, unsigned nb)
{
    uint16_t head = ring->next_free;

    for (unsigned i = nb; i-- > 0; ) {
        uint16_t slot = (head + i) % ring->opts.size;
        uint16_t flags = ring_segment_flags(&segments[i]);

        flags |= i + 1 < nb ? VRING_DESC_F_NEXT : 0;
        if (i > 0) {
            flags |= ring_packed_avail_flags(ring_packed_wrap_of(ring, slot));
        }
        virtio_mem_ring_write_desc(ring, slot, segments[i].addr,
                                   segments[i].len, flags, head);
    }
    virtio_mem_ring_publish(ring, head, nb);
    return head;
}

static uint16_t ring_add_split(VirtioMemRing *ring,
                               const VirtioMemSegment *segments, unsigned nb)
{
    uint16_t head = ring->next_free;

    for (unsigned i = 0; i < nb; i++) {
        uint16_t slot = (head + i) % ring->opts.size;
        uint16_t next = (slot + 1) % ring->opts.size;
        uint16_t flags = ring_segment_flags(&segments[i]);

        flags |= i + 1 < nb ? VRING_DESC_F_NEXT : 0;
        virtio_mem_ring_write_desc(ring, slot, segments[i].addr,
                                   segments[i].len, flags, next);
    }
    virtio_mem_ring_publish(ring, head, nb);
    return head;
}

uint16_t virtio_mem_ring_add(VirtioMemRing *ring,
                             const VirtioMemSegment *segments, unsigned nb)
{
    g_assert_cmpuint(nb, <=, ring->opts.size);
    if (ring->opts.packed) {
        return ring_add_packed(ring, segments, nb);
    }
    return ring_add_split(ring, segments, nb);
}

/* In a packed table the order is the position: no NEXT flag, no id. */
uint64_t virtio_mem_ring_indirect_table(VirtioMemRing *ring,
                                        const VirtioMemSegment *segments,
                                        unsigned nb)
{
    uint64_t table = guest_alloc(ring->alloc, nb * DESC_SIZE);
    g_autofree uint8_t *bytes = g_malloc0(nb * DESC_SIZE);

    for (unsigned i = 0; i < nb; i++) {
        uint16_t flags = ring_segment_flags(&segments[i]);

        if (ring->opts.packed) {
            ring_format_packed(bytes + i * DESC_SIZE, segments[i].addr,
                               segments[i].len, 0, flags);
        } else {
            flags |= i + 1 < nb ? VRING_DESC_F_NEXT : 0;
            ring_format_split(bytes + i * DESC_SIZE, segments[i].addr,
                              segments[i].len, flags, i + 1);
        }
    }
    qtest_memwrite(ring->qts, table, bytes, nb * DESC_SIZE);
    return table;
}

uint16_t virtio_mem_ring_add_indirect(VirtioMemRing *ring,
                                      const VirtioMemSegment *segments,
                                      unsigned nb)
{
    uint64_t table = virtio_mem_ring_indirect_table(ring, segments, nb);
    VirtioMemSegment segment = {
        .addr = table + ring->opts.dma_offset,
        .len = nb * DESC_SIZE,
        .flags = VRING_DESC_F_INDIRECT,
    };

    return virtio_mem_ring_add(ring, &segment, 1);
}

static bool ring_need_kick_split(VirtioMemRing *ring, uint16_t nb_added)
{
    uint16_t new = ring->avail_idx;

    if (ring->opts.event_idx) {
        uint16_t event = qtest_readw(ring->qts, split_avail_event_gpa(ring));

        return vring_need_event(event, new, new - nb_added);
    }
    return !(qtest_readw(ring->qts, ring->device) & VRING_USED_F_NO_NOTIFY);
}

static bool ring_need_kick_packed(VirtioMemRing *ring, uint16_t nb_added)
{
    uint16_t off_wrap = qtest_readw(ring->qts, ring->device);
    uint16_t flags = qtest_readw(ring->qts, ring->device + 2);
    uint16_t event = off_wrap & ~(1 << VRING_PACKED_EVENT_F_WRAP_CTR);
    bool wrap = off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR;
    uint16_t new = ring->next_free;

    if (flags != VRING_PACKED_EVENT_FLAG_DESC) {
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    }
    if (wrap != ring->avail_wrap) {
        event -= ring->opts.size;
    }
    return vring_need_event(event, new, new - nb_added);
}

bool virtio_mem_ring_need_kick(VirtioMemRing *ring)
{
    uint16_t nb_added = ring->nb_added;

    ring->nb_added = 0;
    if (ring->opts.packed) {
        return ring_need_kick_packed(ring, nb_added);
    }
    return ring_need_kick_split(ring, nb_added);
}

static bool ring_poll_split(VirtioMemRing *ring, VirtioMemUsed *used)
{
    uint16_t slot = ring->used_idx & (ring->opts.size - 1);
    uint64_t gpa = ring->device + 4 + slot * sizeof(struct vring_used_elem);
    uint64_t elem;

    if (qtest_readw(ring->qts, ring->device + 2) == ring->used_idx) {
        return false;
    }
    elem = qtest_readq(ring->qts, gpa);
    used->id = elem;
    used->len = elem >> 32;
    ring->used_idx++;
    return true;
}

static bool ring_poll_packed(VirtioMemRing *ring, VirtioMemUsed *used)
{
    uint64_t gpa = ring->desc + ring->used_idx * DESC_SIZE;
    uint64_t len_id_flags = qtest_readq(ring->qts, gpa + 8);
    uint16_t flags = len_id_flags >> 48;
    bool is_avail = flags & PACKED_AVAIL;
    bool is_used = flags & PACKED_USED;

    if (is_avail != is_used || is_used != ring->used_wrap) {
        return false;
    }
    used->len = len_id_flags;
    used->id = (uint16_t)(len_id_flags >> 32);
    g_assert_cmpuint(used->id, <, ring->opts.size);
    g_assert_cmpuint(ring->chain_len[used->id], >, 0);
    ring->used_idx += ring->chain_len[used->id];
    ring->chain_len[used->id] = 0;
    if (ring->used_idx >= ring->opts.size) {
        ring->used_idx -= ring->opts.size;
        ring->used_wrap = !ring->used_wrap;
    }
    return true;
}

bool virtio_mem_ring_poll(VirtioMemRing *ring, VirtioMemUsed *used)
{
    bool found = ring->opts.packed ? ring_poll_packed(ring, used)
                                   : ring_poll_split(ring, used);

    if (found && ring->opts.event_idx && !ring->opts.packed && !ring->quiet) {
        qtest_writew(ring->qts, split_used_event_gpa(ring), ring->used_idx);
    }
    return found;
}

void virtio_mem_ring_set_interrupts(VirtioMemRing *ring, bool enable)
{
    ring->quiet = !enable;
    if (ring->opts.packed) {
        qtest_writew(ring->qts, ring->driver + 2,
                     enable ? VRING_PACKED_EVENT_FLAG_ENABLE
                            : VRING_PACKED_EVENT_FLAG_DISABLE);
    } else {
        qtest_writew(ring->qts, ring->driver,
                     enable ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
    }
}

void virtio_mem_ring_set_used_event(VirtioMemRing *ring, uint16_t nb_more)
{
    uint32_t slot = ring->used_idx + nb_more;
    bool wrap = ring->used_wrap;

    g_assert_true(ring->opts.event_idx);
    ring->quiet = true;
    if (!ring->opts.packed) {
        qtest_writew(ring->qts, split_used_event_gpa(ring), slot);
        return;
    }
    if (slot >= ring->opts.size) {
        slot -= ring->opts.size;
        wrap = !wrap;
    }
    qtest_writew(ring->qts, ring->driver,
                 slot | wrap << VRING_PACKED_EVENT_F_WRAP_CTR);
    qtest_writew(ring->qts, ring->driver + 2, VRING_PACKED_EVENT_FLAG_DESC);
}
