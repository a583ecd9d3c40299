/*
 * A fake host for tests of virtio-mem's door (hw/virtio/virtio-mem-plug.c):
 * backing, guard, memslots and listeners that keep books on what they were
 * told.
 *
 * Each call is written to a log.  The calls that may fail are counted, and
 * chosen ones refuse.  What the contracts in the device's headers demand of
 * the moment of a call (is the range recorded as plugged yet, or still?) is
 * asserted in each.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_FAKE_HOST_H
#define VIRTIO_MEM_FAKE_HOST_H

#include "hw/virtio/virtio-mem-region.h"

#define FAKE_BLOCK_SIZE (2 * MiB)
#define FAKE_BLOCKS_PER_SLOT 6
#define FAKE_SLOTS 4
#define FAKE_BLOCKS 22              /* the last slot is smaller */
#define FAKE_LISTENERS 3

/* Drawings; of the second one, the slots 0, 2 and 3 are mapped. */
#define FAKE_EMPTY  "......................"
#define FAKE_SOME   ".##...........#####..."

/* What the device's surroundings hold, block by block. */
typedef struct FakeBooks {
    bool memory[FAKE_BLOCKS];
    bool guarded[FAKE_BLOCKS];
    bool mapped[FAKE_SLOTS];
    bool known[FAKE_LISTENERS][FAKE_BLOCKS];
    uint64_t told_size;             /* by size change notifiers */
} FakeBooks;

typedef struct FakeHost {
    VirtIOMEM vmem;
    HostMemoryBackend memdev;
    Notifier size_change;

    bool has_pinned;                /* listeners that pin the memory */
    bool is_clean;                  /* unplugged memory, as the guard knows */

    FakeBooks books;
    GString *log;                   /* "populate 2+3, map 2+3, " */

    unsigned refuse_at;             /* the n-th call that may; 0: none */
    unsigned refuse_next_at;        /* and another one */
    unsigned nb_fallible;           /* calls until now that might refuse */
} FakeHost;

/* What was reported by error_report() or warn_report(), by all hosts. */
extern unsigned fake_nb_reports;
/* If set, the text of that is appended to it. */
extern GString *fake_said;

/* By which the usable region is larger than what the guest is asked for. */
extern uint64_t fake_usable_extent;

/* Whether the test asks the guest for other sizes, of which it is notified. */
extern bool fake_asks_guest;

/* A device with no block plugged, and nothing refused.  Takes the BQL. */
void fake_host_init(FakeHost *host);
void fake_host_destroy(FakeHost *host);

/* The same with the blocks plugged that are drawn as '#'. */
void fake_host_draw(FakeHost *host, const char *drawing);

/* Give the device a guard, which may refuse; there is none before. */
void fake_host_start_guard(FakeHost *host);

void fake_host_assert_drawing(const FakeHost *host, const char *expect);

/* Of the config space: how often it changed. */
uint32_t fake_host_generation(const FakeHost *host);

/* Start to count and to log anew; the n-th call from here on refuses. */
void fake_host_refuse_at(FakeHost *host, unsigned n);
bool fake_host_has_refused(const FakeHost *host);

/*
 * Whether the set, the slots, the listeners and the memory agree: a block is
 * plugged if and only if each listener knows it; a slot is mapped if and only
 * if one of its blocks is plugged; what is not plugged has no memory and is
 * guarded, if there is a guard.
 */
void fake_host_assert_agreement(const FakeHost *host);

/* The books are as before; where @may_lose, there may be less memory. */
void fake_host_assert_books(const FakeHost *host, const FakeBooks *before,
                            bool may_lose);

#endif
