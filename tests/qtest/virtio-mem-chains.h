/*
 * Chains that no well-behaved driver would send, and what becomes of them.
 *
 * The device may serve such a chain or declare itself broken, and nothing
 * else.  A test takes a snapshot of the blocks, builds a chain or a ring, and
 * says which of the two it expects.
 *
 * Layer: the tiny guest below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_CHAINS_H
#define TESTS_QTEST_VIRTIO_MEM_CHAINS_H

#include "virtio-mem-guest.h"

#define VM_REQUEST_SIZE     24
#define VM_RESPONSE_SIZE    10
#define VM_POISON           0xa5

/* Nothing there: above all memory, below the end of x86's address space. */
#define VM_NO_MEMORY        (1 * TiB)
#define VM_ROM              0xffff0000ULL
#define VM_IOAPIC           0xfec00000ULL

/* Which blocks are plugged. */
typedef struct VirtioMemSnapshot {
    uint64_t plugged_size;
    uint64_t nb_blocks;         /* usable when it was taken */
    unsigned long *bitmap;
} VirtioMemSnapshot;

VirtioMemSnapshot *virtio_mem_snapshot(VirtioMemGuest *vm);
void virtio_mem_snapshot_free(VirtioMemSnapshot *snapshot);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VirtioMemSnapshot, virtio_mem_snapshot_free)
/* Same blocks plugged as then.  The usable region may have another size. */
void virtio_mem_check_unchanged(VirtioMemGuest *vm,
                                const VirtioMemSnapshot *snapshot);

/* A request and a response that the guest's ordinary ones leave alone. */
typedef struct VirtioMemBuffers {
    uint64_t req_gpa;           /* 4096 bytes, 0xff */
    uint64_t resp_gpa;          /* 4096 bytes, poisoned */
} VirtioMemBuffers;

VirtioMemBuffers virtio_mem_alloc_buffers(VirtioMemGuest *vm);
/* Is the response area as it was but for the first @len bytes? */
bool virtio_mem_is_poisoned_from(VirtioMemGuest *vm,
                                 const VirtioMemBuffers *buffers,
                                 uint32_t len);
#define virtio_mem_put(vm, gpa, ...) \
    virtio_mem_write_request(vm, gpa, &(VmRequest){ __VA_ARGS__ })

/* Pieces of a chain in guest memory. */
VirtioMemSegment virtio_mem_readable(VirtioMemGuest *vm, uint64_t gpa,
                                     uint32_t len);
VirtioMemSegment virtio_mem_writable(VirtioMemGuest *vm, uint64_t gpa,
                                     uint32_t len);

/* True when the chain comes back (@used may be NULL), false when it breaks. */
bool virtio_mem_wait_outcome(VirtioMemGuest *vm, VirtioMemUsed *used);
/* Publish as the variant does it, kick, wait. */
bool virtio_mem_send_chain(VirtioMemGuest *vm,
                           const VirtioMemSegment *segments, unsigned nb,
                           VirtioMemUsed *used);
/*
 * A chain that is served; its writable pieces must follow each other in
 * memory.  Checks the used entry and the form of the answer.
 */
VmAnswer virtio_mem_check_served(VirtioMemGuest *vm,
                                 const VirtioMemSegment *segments,
                                 unsigned nb);
/* A chain that breaks the device and does nothing else; the device heals. */
void virtio_mem_check_breaks(VirtioMemGuest *vm,
                             const VirtioMemSegment *segments, unsigned nb);
/* The same for whatever the test has put into the ring since @snapshot. */
void virtio_mem_check_kick_breaks(VirtioMemGuest *vm,
                                  const VirtioMemSnapshot *snapshot);
/* Kick; breaks or comes back, in either case without effect on blocks. */
void virtio_mem_check_kick_harmless(VirtioMemGuest *vm,
                                    const VirtioMemSnapshot *snapshot);

/* Where a ring lies. */
typedef struct VirtioMemRingAreas {
    uint64_t desc;
    uint64_t driver;
    uint64_t device;
} VirtioMemRingAreas;

/*
 * Device reset, then driver up with the ring at @areas, which the caller has
 * cleared where there is memory.  Hand the result to _leave_ring, which resets
 * the device: the driver is then not up.
 */
VirtioMemRingAreas virtio_mem_drive_ring_at(VirtioMemGuest *vm,
                                            VirtioMemRingAreas areas);
void virtio_mem_leave_ring(VirtioMemGuest *vm, VirtioMemRingAreas home);

/* Device reset, then driver up with @features besides the variant's. */
void virtio_mem_restart_with(VirtioMemGuest *vm, uint64_t features);

/* Let the device handle whatever was kicked: registers and QMP rounds. */
void virtio_mem_settle(VirtioMemGuest *vm);
/* Nothing has come back that has not been taken. */
bool virtio_mem_is_idle(VirtioMemGuest *vm);

/* The device still serves: P and UP of the first free block. */
void virtio_mem_check_works(VirtioMemGuest *vm);

#endif
