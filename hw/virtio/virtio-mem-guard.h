/*
 * The guard: unplugged memory stays out of reach.
 *
 * A thread that accesses memory out of reach (a vCPU, a device, the kernel on
 * behalf of either, a monitor command) gets a page of zeros lent.  Few pages
 * are lent at a time.  So reads see zeros, writes vanish soon, and the host
 * pays for a fixed number of pages instead of all that was accessed:
 *
 *  - 96 pages of up to 64 KiB,
 *  - 16 huge pages of up to 64 MiB, and
 *  - 4 huge pages that are larger, if no other memory can be lent instead,
 *
 * and for the page tables that map them.  These are the numbers of the process,
 * for all its devices together.  Each thread has 4 pages for a turn of some
 * milliseconds at least, so an access that needs no more gets on, whatever
 * other threads do.  Memory within reach is ordinary memory and costs nothing.
 *
 * It is done with userfaultfd in the host's page tables of this process:
 * another process that maps the same memory is not kept away.  All guards share
 * one userfaultfd, one thread and one budget of mappings.
 *
 * This layer knows an area of host memory, cut into blocks of equal size, and
 * offsets into it in bytes; no guest addresses, no device.  _new() and _free()
 * are called with the BQL held, all other functions from any thread.  A caller
 * must not hold a lock that the callbacks take.
 *
 * Where a function takes a guard, NULL is a guard that is off: it protects
 * nothing and never fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_H
#define HW_VIRTIO_MEM_GUARD_H

#include "virtio-mem-guard-area.h"

typedef struct VirtIOMEMGuard VirtIOMEMGuard;

typedef struct VirtIOMEMGuardAccess {
    uint64_t offset;            /* the first one since the last fetch ... */
    bool write;                 /* ... and whether it was a write */
    bool any_write;             /* whether there was any write since then */
    uint64_t count;             /* all that were noticed, since the start */
} VirtIOMEMGuardAccess;

typedef struct VirtIOMEMGuardMappings {
    uint64_t nb;                /* mappings that all guards need now */
    uint64_t max;               /* that they may have */
    bool is_short;              /* a change was refused for lack of them */
} VirtIOMEMGuardMappings;

/*
 * Guard @area, all of which is out of reach at first.  If @paused, begin as if
 * virtio_mem_guard_pause() had been called; or else private memory is
 * discarded.  On failure, NULL with an error that says what is missing on this
 * host and how to get it.
 */
VirtIOMEMGuard *virtio_mem_guard_new(const VirtIOMEMGuardArea *area,
                                     bool paused, Error **errp);
void virtio_mem_guard_free(VirtIOMEMGuard *guard);

/*
 * Take @size bytes at @offset (whole blocks) out of reach, before they are
 * discarded.  Or bring them within reach, before anybody may use them: what was
 * lent there is gone then.
 *
 * Each border between the two is a mapping of the process, of which the host
 * allows only so many.  A change that needs more than all guards may have fails
 * (-ENOSPC); one that needs no more never does for that reason: protecting all
 * of the area is one.  0, or a negative errno, and nothing changed.
 */
int virtio_mem_guard_protect(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size);
int virtio_mem_guard_release(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size);

/*
 * The same, to undo a change or to follow what was loaded: the number of
 * mappings does not matter.  If the kernel refuses nevertheless, the guard is
 * paused, which the caller is told by area->notify.  Memory within reach is
 * then that of the area, or other memory where the host does not map that.
 */
void virtio_mem_guard_force(VirtIOMEMGuard *guard, uint64_t offset,
                            uint64_t size, bool protect);

/* Take back all that is lent. */
void virtio_mem_guard_take_back(VirtIOMEMGuard *guard);

/*
 * Pause: watch nothing, for callers that fill unplugged memory or use
 * userfaultfd themselves.  What is out of reach is still recorded.  Resume:
 * guard that again; the caller discards what came there meanwhile, afterwards.
 *
 * Pausing always works.  0; or a negative errno if the host did not map memory
 * again in place of which the guard had lent other memory: what is written
 * there now is lost when the guard resumes or the block comes within reach.
 * Resuming: 0, or a negative errno, and the guard stays paused.
 */
int virtio_mem_guard_pause(VirtIOMEMGuard *guard);
int virtio_mem_guard_resume(VirtIOMEMGuard *guard);

/* Whether the guard is there and not paused. */
bool virtio_mem_guard_is_active(VirtIOMEMGuard *guard);

/*
 * Whether what is out of reach holds nothing.  The caller says so when all of
 * that was discarded, or when that failed; the guard keeps it so, and forgets
 * it when it is paused.  With the BQL held.
 */
void virtio_mem_guard_set_clean(VirtIOMEMGuard *guard, bool clean);
bool virtio_mem_guard_is_clean(VirtIOMEMGuard *guard);

/* The accesses since the last call; false if there was none. */
bool virtio_mem_guard_fetch(VirtIOMEMGuard *guard,
                            VirtIOMEMGuardAccess *access);

/* How many pages are lent now, and were at most at a time; by all guards. */
typedef struct VirtIOMEMGuardLent {
    unsigned int nb;
    unsigned int peak;
} VirtIOMEMGuardLent;

void virtio_mem_guard_query_lent(VirtIOMEMGuardLent *lent);

/* How many mappings protection costs, and whether it needs more. */
void virtio_mem_guard_query_mappings(VirtIOMEMGuardMappings *mappings);

/* Whether all invariants hold; for tests. */
bool virtio_mem_guard_check(VirtIOMEMGuard *guard);

#endif
