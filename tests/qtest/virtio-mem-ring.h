/*
 * Driver side of one virtqueue in guest memory, split or packed.
 *
 * A chain is an array of segments, published as direct descriptors or as one
 * indirect table; the caller kicks and polls.  Well-formed chains need only
 * add, poll and need_kick.  The functions on single descriptors write whatever
 * they are told, so that a test can build a ring no driver would build.
 *
 * Addresses: @ring members are guest physical; segments and everything that
 * goes into a descriptor are addresses as the device sees them, that is
 * guest physical + dma_offset (zero without a vIOMMU).
 *
 * Layer: libqtest and the libqos allocator below, nothing of virtio-mem.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_RING_H
#define TESTS_QTEST_VIRTIO_MEM_RING_H

#include "libqtest.h"
#include "libqos/libqos-malloc.h"

/* What shape the ring has; fixed when the ring is made. */
typedef struct VirtioMemRingOptions {
    uint16_t size;          /* number of descriptors */
    bool packed;            /* VIRTIO_F_RING_PACKED was negotiated */
    bool event_idx;         /* VIRTIO_RING_F_EVENT_IDX was negotiated */
    uint64_t dma_offset;    /* device address - guest physical address */
} VirtioMemRingOptions;

/* One piece of a chain. */
typedef struct VirtioMemSegment {
    uint64_t addr;          /* device address */
    uint32_t len;           /* bytes */
    bool writable;          /* the device may write, not read */
    uint16_t flags;         /* further VRING_DESC_F_* to set, normally 0 */
} VirtioMemSegment;

/* What the device said about a chain it has finished. */
typedef struct VirtioMemUsed {
    uint32_t id;            /* what _add returned */
    uint32_t len;           /* bytes the device claims to have written */
} VirtioMemUsed;

typedef struct VirtioMemRing {
    QTestState *qts;
    QGuestAllocator *alloc;
    VirtioMemRingOptions opts;

    uint64_t desc;          /* split: table; packed: descriptor ring */
    uint64_t driver;        /* split: available ring; packed: driver events */
    uint64_t device;        /* split: used ring; packed: device events */

    /* position of the next descriptor and of the next used entry */
    uint16_t next_free;     /* descriptor that the next chain starts with */
    uint16_t avail_idx;     /* split only: free running */
    uint16_t nb_added;      /* since need_kick was asked last */
    uint16_t used_idx;      /* split: free running; packed: slot */
    bool avail_wrap;        /* packed only */
    bool used_wrap;         /* packed only */
    bool quiet;             /* the test decides about interrupts */
    uint16_t *chain_len;    /* packed only: slots taken by the chain @id */
} VirtioMemRing;

/* Allocate and clear the three areas.  Tells the device nothing. */
void virtio_mem_ring_init(VirtioMemRing *ring, QTestState *qts,
                          QGuestAllocator *alloc,
                          const VirtioMemRingOptions *opts);
void virtio_mem_ring_free(VirtioMemRing *ring);

/* Publish a chain as direct descriptors.  Returns its id. */
uint16_t virtio_mem_ring_add(VirtioMemRing *ring,
                             const VirtioMemSegment *segments, unsigned nb);
/*
 * Publish a chain as one descriptor that points to an indirect table.  The
 * table is taken from the allocator and stays there until the guest stops.
 */
uint16_t virtio_mem_ring_add_indirect(VirtioMemRing *ring,
                                      const VirtioMemSegment *segments,
                                      unsigned nb);
/* Write an indirect table; returns its guest physical address. */
uint64_t virtio_mem_ring_indirect_table(VirtioMemRing *ring,
                                        const VirtioMemSegment *segments,
                                        unsigned nb);

/* True when the device wants to hear about what was added since last asked. */
bool virtio_mem_ring_need_kick(VirtioMemRing *ring);
/* Take the next used entry, if there is one. */
bool virtio_mem_ring_poll(VirtioMemRing *ring, VirtioMemUsed *used);

/*
 * Suppress (or ask for) interrupts by flag.  Without effect, by definition,
 * on a split ring with event_idx: use _set_used_event there.
 */
void virtio_mem_ring_set_interrupts(VirtioMemRing *ring, bool enable);
/*
 * With event_idx: interrupt when the entry @nb_more after the next one is
 * used (0: at the next one).  A new ring asks for the next one, always.
 */
void virtio_mem_ring_set_used_event(VirtioMemRing *ring, uint16_t nb_more);

/*
 * Single descriptors, for malformed rings.
 *
 * split:  @link is the next index; publish puts any @head in the avail ring.
 * packed: @link is the buffer id; @flags without AVAIL/USED bits, which
 *         _publish adds to slot @head, making it visible.  It moves the
 *         ring's position by @nb slots.
 */
void virtio_mem_ring_write_desc(VirtioMemRing *ring, uint16_t index,
                                uint64_t addr, uint32_t len,
                                uint16_t flags, uint16_t link);
void virtio_mem_ring_publish(VirtioMemRing *ring, uint16_t head, uint16_t nb);
/* Split only: make the avail index jump. */
void virtio_mem_ring_set_avail_idx(VirtioMemRing *ring, uint16_t idx);

#endif
