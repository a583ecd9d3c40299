/*
 * Pages that the guard lends to threads that access memory out of reach.
 *
 * A ring is cut into slots of 4 pages: as many as one access touches at most.
 * A slot belongs to the thread that faulted, for one turn at least, and all
 * that this thread needs is lent inside of it: nothing that other threads do
 * takes those pages away meanwhile.  A thread that needs more than 4 pages
 * gives its own oldest one back.  A slot whose turn is over goes to the next
 * thread that needs one.
 *
 * No lock: that of the guard.  Times are in microseconds, monotonic.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_RING_H
#define HW_VIRTIO_MEM_GUARD_RING_H

#include "virtio-mem-guard-map.h"

#define VIRTIO_MEM_GUARD_SLOT_PAGES 4
#define VIRTIO_MEM_GUARD_MAX_SLOTS 24

/* Kinds of rings, by the size of pages: ordinary, huge, and larger ones. */
#define VIRTIO_MEM_GUARD_RINGS 3

typedef struct VirtIOMEMGuardPage {
    VirtIOMEMGuardMap *map;
    uint64_t offset;
} VirtIOMEMGuardPage;

typedef struct VirtIOMEMGuardSlot {
    uint32_t thread;            /* valid if there are pages */
    int64_t turn_end;
    unsigned int nb_pages;
    VirtIOMEMGuardPage pages[VIRTIO_MEM_GUARD_SLOT_PAGES];  /* oldest first */
} VirtIOMEMGuardSlot;

typedef struct VirtIOMEMGuardRing {
    int uffd;
    unsigned int nb_slots;
    int64_t turn;               /* how long a thread keeps its slot at least */
    bool is_slow;               /* to lend takes long: better lend others */
    unsigned int nb_lent;       /* pages, now ... */
    unsigned int peak_lent;     /* ... and at most */
    VirtIOMEMGuardSlot slots[VIRTIO_MEM_GUARD_MAX_SLOTS];
} VirtIOMEMGuardRing;

/* The kind of the ring that lends pages of @page_size bytes. */
unsigned int virtio_mem_guard_ring_kind(uint64_t page_size);

void virtio_mem_guard_ring_init(VirtIOMEMGuardRing *ring, int uffd,
                                unsigned int kind);

/*
 * The slot in which @thread may be lent a page at the time @now: its own if its
 * turn is not over.  If @may_begin, or else one whose turn may begin.  NULL if
 * there is none before virtio_mem_guard_ring_next_turn().
 */
VirtIOMEMGuardSlot *virtio_mem_guard_ring_find(VirtIOMEMGuardRing *ring,
                                               uint32_t thread, int64_t now,
                                               bool may_begin);
int64_t virtio_mem_guard_ring_next_turn(const VirtIOMEMGuardRing *ring);

/*
 * Answer the fault of @thread at @offset, which is out of reach, with a page of
 * zeros in @slot.  0; or a negative errno if the host has none: the thread that
 * waits there has to be told to retry.
 */
int virtio_mem_guard_ring_lend(VirtIOMEMGuardRing *ring,
                               VirtIOMEMGuardSlot *slot,
                               VirtIOMEMGuardMap *map, uint64_t offset,
                               uint32_t thread, int64_t now);

/* Take back all that is lent in a range of @map. */
void virtio_mem_guard_ring_take_back(VirtIOMEMGuardRing *ring,
                                     const VirtIOMEMGuardMap *map,
                                     uint64_t offset, uint64_t size);

/* Whether all invariants hold; for tests. */
bool virtio_mem_guard_ring_check(const VirtIOMEMGuardRing *ring);

#endif
