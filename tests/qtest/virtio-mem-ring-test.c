/*
 * virtio-mem: the virtqueue as good drivers use it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-mem-chains.h"

/* More than one round of any ring this device offers. */
#define MANY_REQUESTS   1200

/* The other tests are worth nothing if a variant does not do what it says. */
static void test_variant(VirtioMemGuest *vm)
{
    const VirtioMemVariant *variant = vm->variant;
    uint64_t offered = virtio_mem_offered_features(vm);

    g_assert_cmphex(vm->features & ~offered, ==, 0);
    g_assert_cmpint(!!(vm->features & VM_BIT(VIRTIO_F_RING_PACKED)), ==,
                    variant->packed);
    g_assert_cmpint(!!(vm->features & VM_BIT(VIRTIO_RING_F_INDIRECT_DESC)),
                    ==, variant->indirect);
    g_assert_cmpint(!!(vm->features & VM_BIT(VIRTIO_RING_F_EVENT_IDX)), ==,
                    variant->event_idx);
    g_assert_cmpint(!!(vm->features & VM_BIT(VIRTIO_F_ACCESS_PLATFORM)), ==,
                    variant->iommu);
    g_assert_cmpint(!!(offered & VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)),
                    ==, !variant->zeropage);
    g_assert_cmpint(vm->pci->pdev->msix_enabled, ==, !variant->intx);
    g_assert_cmpint(vm->dma_offset != 0, ==, variant->iommu);
}

/* With a vIOMMU the device must not reach memory at its physical address. */
static void test_untranslated(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemSegment segments[] = {
        { .addr = buffers.req_gpa, .len = VM_REQUEST_SIZE },
        { .addr = buffers.resp_gpa, .len = VM_RESPONSE_SIZE,
          .writable = true },
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_put(vm, buffers.req_gpa, .type = VIRTIO_MEM_REQ_PLUG,
                   .addr = vm->addr, .nb_blocks = 1);
    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
    virtio_mem_check_kick_harmless(vm, before);
    g_assert_true(virtio_mem_is_poisoned_from(vm, &buffers, 0));
}

/* --- indirect --- */

static void ring_check_indirect(VirtioMemGuest *vm, uint64_t block,
                                bool writable)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemSegment pieces[] = {
        virtio_mem_readable(vm, buffers.req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers.resp_gpa, VM_RESPONSE_SIZE),
    };
    VirtioMemSegment table = {
        .addr = virtio_mem_dma(vm, virtio_mem_ring_indirect_table(
                                       &vm->ring, pieces, 2)),
        .len = 32, .writable = writable, .flags = VRING_DESC_F_INDIRECT,
    };
    VirtioMemUsed used;
    uint16_t id;

    virtio_mem_put(vm, buffers.req_gpa, .type = VIRTIO_MEM_REQ_PLUG,
                   .addr = virtio_mem_block_gpa(vm, block), .nb_blocks = 1);
    id = virtio_mem_ring_add(&vm->ring, &table, 1);
    virtio_mem_kick(vm);
    used = virtio_mem_wait_used(vm);
    g_assert_cmpuint(used.id, ==, id);
    g_assert_cmpuint(used.len, ==, VM_RESPONSE_SIZE);
    g_assert_cmpuint(virtio_mem_read_answer(vm, buffers.resp_gpa).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    vm_assert_state(vm, block, 1, PLUGGED);
}

static void test_indirect(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    ring_check_indirect(vm, 0, false);
    ring_check_indirect(vm, 1, false);
    vm_assert_plugged(vm, 2);
}

static void test_indirect_write_flag(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    ring_check_indirect(vm, 0, true);
    vm_assert_plugged(vm, 1);
}

/* --- sizes --- */

/* Driver up with a queue of @size; returns the size the device agrees to. */
static uint16_t ring_drive_with_size(VirtioMemGuest *vm, uint64_t features,
                                     uint16_t size)
{
    bool ok;

    virtio_mem_device_reset(vm);
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE |
                      VIRTIO_CONFIG_S_DRIVER);
    ok = virtio_mem_negotiate(vm, virtio_mem_default_features(vm) | features);
    g_assert_true(ok);
    virtio_mem_queue_up(vm, size);
    virtio_mem_driver_ok(vm);
    return vm->ring.opts.size;
}

/* Plug and unplug until the ring has gone round several times. */
static void ring_check_rounds(VirtioMemGuest *vm, unsigned nb_requests)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned i = 0; i < nb_requests; i += 2) {
        vm_assert_plug(vm, i % 7, 1, ACK);
        vm_assert_unplug(vm, i % 7, 1, ACK);
    }
    vm_assert_plugged(vm, 0);
}

static void test_small_sizes(VirtioMemGuest *vm)
{
    static const uint16_t sizes[] = { 2, 4, 8 };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_assert_cmpuint(ring_drive_with_size(vm, 0, sizes[i]), ==, sizes[i]);
        ring_check_rounds(vm, 6 * sizes[i]);
    }
}

static void test_size_one(VirtioMemGuest *vm)
{
    uint64_t features = VM_BIT(VIRTIO_RING_F_INDIRECT_DESC);

    g_assert_cmpuint(ring_drive_with_size(vm, features, 1), ==, 1);
    ring_check_rounds(vm, 6);
}

static void test_largest_size(VirtioMemGuest *vm)
{
    uint16_t size = vm->ring.opts.size;

    g_assert_cmpuint(size, >=, 2);
    g_assert_cmpuint(size & (size - 1), ==, 0);
    g_assert_cmpuint(ring_drive_with_size(vm, 0, size), ==, size);
    ring_check_rounds(vm, 2 * size + 4);
}

/* Whatever the device makes of them, it stays alive and recovers. */
static void test_refused_sizes(VirtioMemGuest *vm)
{
    static const uint16_t sizes[] = { 3, 5, 1023, 1025, 0x8000, 0xffff };
    uint16_t max = vm->ring.opts.size;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_assert_cmpuint(ring_drive_with_size(vm, 0, sizes[i]), <=, max);
        virtio_mem_kick_force(vm);
        virtio_mem_settle(vm);
        g_assert_true(virtio_mem_is_idle(vm));
        virtio_mem_restart_driver(vm);
        virtio_mem_check_works(vm);
    }
}

/* A packed ring may have any size. */
static void test_packed_odd_sizes(VirtioMemGuest *vm)
{
    static const uint16_t sizes[] = { 3, 5, 7, 100 };

    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_assert_cmpuint(ring_drive_with_size(vm, 0, sizes[i]), ==, sizes[i]);
        ring_check_rounds(vm, 6 * sizes[i]);
    }
}

/* --- many requests --- */

/*
 * PLUG and UNPLUG of one block in turn: each of them is an ACK only if all
 * before it have been executed, in order.
 */
static void ring_queue_toggle(VirtioMemGuest *vm, uint64_t gpa, unsigned i)
{
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, gpa + 64 * i, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, gpa + 64 * i + 32, VM_RESPONSE_SIZE),
    };

    virtio_mem_put(vm, gpa + 64 * i, .addr = vm->addr, .nb_blocks = 1,
                   .type = i % 2 ? VIRTIO_MEM_REQ_UNPLUG
                                 : VIRTIO_MEM_REQ_PLUG);
    virtio_mem_fill(vm, gpa + 64 * i + 32, VM_POISON, 32);
    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
}

static void test_full_ring(VirtioMemGuest *vm)
{
    bool indirect = vm->features & VM_BIT(VIRTIO_RING_F_INDIRECT_DESC);
    unsigned nb_desc = indirect ? 1 : 2;
    unsigned nb = vm->ring.opts.size / nb_desc;
    uint64_t gpa = guest_alloc(&vm->qs->alloc, 64 * nb);
    uint16_t head = vm->ring.next_free;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned i = 0; i < nb; i++) {
        ring_queue_toggle(vm, gpa, i);
    }
    g_assert_true(virtio_mem_is_idle(vm));
    virtio_mem_kick(vm);
    for (unsigned i = 0; i < nb; i++) {
        VirtioMemUsed used = virtio_mem_wait_used(vm);

        g_assert_cmpuint(used.id, ==,
                         (head + nb_desc * i) % vm->ring.opts.size);
        g_assert_cmpuint(virtio_mem_read_answer(vm, gpa + 64 * i + 32).type,
                         ==, VIRTIO_MEM_RESP_ACK);
    }
    g_assert_true(virtio_mem_is_idle(vm));
    vm_assert_plugged(vm, nb % 2);
}

static void test_many_requests(VirtioMemGuest *vm)
{
    ring_check_rounds(vm, MANY_REQUESTS);
}

/* Make the available index go on by @nb, over entries that stand there. */
static void ring_publish_again(VirtioMemGuest *vm, uint16_t nb)
{
    VirtioMemRing *ring = &vm->ring;

    virtio_mem_ring_set_avail_idx(ring, ring->avail_idx + nb);
    virtio_mem_kick_force(vm);
    vm_wait_until(qtest_readw(vm->qts, ring->device + 2) == ring->avail_idx ||
                  virtio_mem_is_broken(vm));
    g_assert_false(virtio_mem_is_broken(vm));
    ring->used_idx = ring->avail_idx;
}

/*
 * More requests than the ring's index can count.  Half a ring of chains is
 * prepared, stands twice in the available ring, and is published again and
 * again.  Its last request is an UNPLUG: ACK if all before it were executed.
 */
static void test_index_wraps(VirtioMemGuest *vm)
{
    uint16_t nb = ring_drive_with_size(vm, 0, 0) / 2;
    uint64_t gpa = guest_alloc(&vm->qs->alloc, 64 * nb);
    uint64_t last_gpa = gpa + 64 * (nb - 1) + 32;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned i = 0; i < nb; i++) {
        ring_queue_toggle(vm, gpa, i);
        qtest_writew(vm->qts, vm->ring.driver + 4 + 2 * (nb + i), 2 * i);
    }
    virtio_mem_ring_set_avail_idx(&vm->ring, 0);
    for (unsigned done = 0; done <= 0x10000 + nb; done += nb) {
        virtio_mem_fill(vm, last_gpa, VM_POISON, VM_RESPONSE_SIZE);
        ring_publish_again(vm, nb);
        g_assert_cmpuint(virtio_mem_read_answer(vm, last_gpa).type, ==,
                         VIRTIO_MEM_RESP_ACK);
    }
    vm_assert_plugged(vm, 0);
}

static const VirtioMemVariant packed = { .packed = true };
static const VirtioMemVariant iommu = { .iommu = true, .intx = true };

static const VirtioMemOptions on_packed = { .variant = &packed };
static const VirtioMemOptions on_iommu = { .variant = &iommu };

static const VirtioMemTest tests[] = {
    { "T027", "ring/variant-is-what-it-says", test_variant },
    { "T135", "ring/untranslated-address-is-not-reached", test_untranslated,
      .once = true, .options = &on_iommu },
    { "T150", "ring/indirect-table-is-served", test_indirect },
    { "T151", "ring/write-flag-on-indirect-table-is-ignored",
      test_indirect_write_flag },
    { "T160", "ring/small-queues-work", test_small_sizes },
    { "T160", "ring/queue-of-one-works-with-indirect", test_size_one },
    { "T160", "ring/largest-queue-works", test_largest_size, .once = true },
    { "T160", "ring/odd-split-sizes-are-harmless", test_refused_sizes,
      .once = true },
    { "T160", "ring/odd-packed-sizes-work", test_packed_odd_sizes,
      .once = true, .options = &on_packed },
    { "T161", "ring/full-ring-is-answered-in-order", test_full_ring },
    { "T162", "ring/goes-round-and-round", test_many_requests },
    { "T162", "ring/index-wraps", test_index_wraps, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
