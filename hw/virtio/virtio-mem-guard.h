/*
 * The guard: unplugged memory stays out of reach.
 *
 * Whoever touches memory that is out of reach (a vCPU, a device, the kernel on
 * behalf of either, a monitor command) gets a page of zeros lent.  Only few
 * pages are lent at a time, the oldest are taken back first.  So nobody ever
 * waits for more than a page, reads see zeros, writes vanish soon, and the host
 * pays for a fixed number of pages instead of all that was touched.  Memory
 * within reach is ordinary memory and costs nothing.
 *
 * It is done with userfaultfd in the host's page tables of this process:
 * another process that maps the same memory is not kept away.
 *
 * This layer knows an area of host memory, cut into blocks of equal size, and
 * offsets into it in bytes; no guest addresses, no device.  All functions may
 * be called from any thread, with or without the BQL.  A caller must not hold a
 * lock that the callbacks take.
 *
 * Where a function takes a guard, NULL is a guard that is off: it protects
 * nothing and never fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_H
#define HW_VIRTIO_MEM_GUARD_H

typedef struct VirtIOMEMGuard VirtIOMEMGuard;

/* What to guard, and whom to tell. */
typedef struct VirtIOMEMGuardArea {
    void *host;
    uint64_t size;
    uint64_t page_size;         /* of the host, in this area */
    uint64_t block_size;        /* a multiple of page_size */
    bool shared;                /* the mapping: content survives without it */
    uint64_t max_mappings;      /* see below; 0: a share of all guards' */

    /*
     * Both are called by the guard's thread and by its callers' threads.
     * Give back the memory of a range that is out of reach: 0, or negative.
     */
    int (*discard)(void *opaque, uint64_t offset, uint64_t size);
    /* Something out of reach was accessed; virtio_mem_guard_fetch() knows. */
    void (*notify)(void *opaque);
    void *opaque;
} VirtIOMEMGuardArea;

typedef struct VirtIOMEMGuardAccess {
    uint64_t offset;            /* the first one since the last fetch ... */
    bool write;                 /* ... and whether it was a write */
    uint64_t count;             /* all that were noticed, since the start */
} VirtIOMEMGuardAccess;

/*
 * Guard @area, all of which is out of reach at first.  If @aside, begin as if
 * virtio_mem_guard_step_aside() had been called.  On failure, NULL with an
 * error that says what is missing on this host and how to get it.
 */
VirtIOMEMGuard *virtio_mem_guard_new(const VirtIOMEMGuardArea *area,
                                     bool aside, Error **errp);
void virtio_mem_guard_free(VirtIOMEMGuard *guard);

/*
 * Take @size bytes at @offset (whole blocks) out of reach, before they are
 * discarded: 0, or a negative errno, and nothing changed.  Or bring them within
 * reach, before anybody may use them: what was lent there is gone then.
 *
 * Each border between the two is a mapping of the process, of which the host
 * allows only so many.  Beyond max_mappings, the most fragmented parts of the
 * area are watched as a whole.  What is within reach there stays so, but its
 * first use takes longer: it gets memory for the whole block then.
 */
int virtio_mem_guard_protect(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size);
void virtio_mem_guard_release(VirtIOMEMGuard *guard, uint64_t offset,
                              uint64_t size);

/* Take back all that is lent. */
void virtio_mem_guard_take_back(VirtIOMEMGuard *guard);

/*
 * Step aside: keep nobody away, for those who fill unplugged memory or use
 * userfaultfd themselves.  What is out of reach is still recorded.  Come back:
 * guard that again; the caller discards whatever came there meanwhile,
 * afterwards.  0, or a negative errno, and the guard stays aside.
 */
void virtio_mem_guard_step_aside(VirtIOMEMGuard *guard);
int virtio_mem_guard_come_back(VirtIOMEMGuard *guard);

/* Whether the guard is there and not aside. */
bool virtio_mem_guard_is_active(VirtIOMEMGuard *guard);

/* The accesses since the last call; false if there was none. */
bool virtio_mem_guard_fetch(VirtIOMEMGuard *guard,
                            VirtIOMEMGuardAccess *access);

#endif
