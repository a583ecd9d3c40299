/*
 * virtio-mem: rings that no driver would build
 *
 * Most of this is decided by QEMU's common ring code.  What is tested is that
 * this device ends where that code sends it: broken, blocks as before, alive.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_ring.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-chains.h"

static const VirtioMemVariant packed = { .name = "packed", .packed = true };
static const VirtioMemOptions packed_ring = { .variant = &packed };

/* A good PLUG request, for rings that are bad around it. */
static VirtioMemBuffers malformed_put_plug(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_put(vm, buffers.req_gpa, .type = VIRTIO_MEM_REQ_PLUG,
                   .addr = vm->addr, .nb_blocks = 1);
    return buffers;
}

/* Descriptor @index: the readable request, with @flags, linked to @next. */
static void malformed_desc_request(VirtioMemGuest *vm, uint16_t index,
                                   const VirtioMemBuffers *buffers,
                                   uint16_t flags, uint16_t next)
{
    virtio_mem_ring_write_desc(&vm->ring, index,
                               virtio_mem_dma(vm, buffers->req_gpa),
                               VM_REQUEST_SIZE, flags, next);
}

static void malformed_desc_response(VirtioMemGuest *vm, uint16_t index,
                                    const VirtioMemBuffers *buffers,
                                    uint16_t flags, uint16_t next)
{
    virtio_mem_ring_write_desc(&vm->ring, index,
                               virtio_mem_dma(vm, buffers->resp_gpa),
                               VM_RESPONSE_SIZE, flags | VRING_DESC_F_WRITE,
                               next);
}

/* --- indirect tables --- */

/* A table for @buffers' request; the ring gets nothing yet. */
static uint64_t malformed_table(VirtioMemGuest *vm,
                                const VirtioMemBuffers *buffers)
{
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, buffers->req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers->resp_gpa, VM_RESPONSE_SIZE),
    };

    return virtio_mem_ring_indirect_table(&vm->ring, segments,
                                          ARRAY_SIZE(segments));
}

static void malformed_check_table_breaks(VirtioMemGuest *vm, uint64_t table,
                                         uint32_t len)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    VirtioMemSegment segment = {
        .addr = virtio_mem_dma(vm, table), .len = len,
        .flags = VRING_DESC_F_INDIRECT,
    };

    virtio_mem_ring_add(&vm->ring, &segment, 1);
    virtio_mem_check_kick_breaks(vm, before);
}

static void test_indirect_length(VirtioMemGuest *vm)
{
    static const uint32_t lens[] = { 0, 1, 8, 17, 33, UINT32_MAX };
    VirtioMemBuffers buffers = malformed_put_plug(vm);

    for (int i = 0; i < ARRAY_SIZE(lens); i++) {
        virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
        malformed_check_table_breaks(vm, malformed_table(vm, &buffers),
                                     lens[i]);
    }
}

static void test_indirect_outside_memory(VirtioMemGuest *vm)
{
    static const uint64_t gpas[] = { VM_NO_MEMORY, UINT64_MAX - 31 };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < ARRAY_SIZE(gpas); i++) {
        virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
        malformed_check_table_breaks(vm, gpas[i], 32);
    }
}

static void test_indirect_in_indirect(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    g_autoptr(VirtioMemSnapshot) before = NULL;
    VirtioMemSegment outer;

    virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    before = virtio_mem_snapshot(vm);
    outer = virtio_mem_readable(vm, malformed_table(vm, &buffers), 32);
    outer.flags = VRING_DESC_F_INDIRECT;
    virtio_mem_ring_add_indirect(&vm->ring, &outer, 1);
    virtio_mem_check_kick_harmless(vm, before);
}

/* Either it is served and says so, or the device breaks and does nothing. */
static void malformed_check_served_or_breaks(VirtioMemGuest *vm,
                                             const VirtioMemBuffers *buffers)
{
    if (virtio_mem_wait_outcome(vm, NULL)) {
        g_assert_cmpuint(virtio_mem_read_answer(vm, buffers->resp_gpa).type,
                         ==, VIRTIO_MEM_RESP_ACK);
        vm_assert_plugged(vm, 1);
        vm_assert_state(vm, 0, 1, PLUGGED);
    } else {
        virtio_mem_check_broken(vm, 0);
    }
}

/* The specification wants this served; QEMU's common ring code does not. */
static void test_direct_then_indirect(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    VirtioMemSegment answer = virtio_mem_writable(vm, buffers.resp_gpa,
                                                  VM_RESPONSE_SIZE);
    VirtioMemSegment segments[2] = {
        virtio_mem_readable(vm, buffers.req_gpa, VM_REQUEST_SIZE),
    };

    virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    segments[1] = virtio_mem_readable(
        vm, virtio_mem_ring_indirect_table(&vm->ring, &answer, 1), 16);
    segments[1].flags = VRING_DESC_F_INDIRECT;
    virtio_mem_ring_add(&vm->ring, segments, ARRAY_SIZE(segments));
    virtio_mem_kick_force(vm);
    malformed_check_served_or_breaks(vm, &buffers);
}

static void test_indirect_not_negotiated(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    VirtioMemSegment segment;

    virtio_mem_device_reset(vm);
    g_assert_true(virtio_mem_driver_up(
        vm, virtio_mem_default_features(vm) &
            ~VM_BIT(VIRTIO_RING_F_INDIRECT_DESC)));
    segment = virtio_mem_readable(vm, malformed_table(vm, &buffers), 32);
    segment.flags = VRING_DESC_F_INDIRECT;
    virtio_mem_ring_add(&vm->ring, &segment, 1);
    virtio_mem_kick_force(vm);
    malformed_check_served_or_breaks(vm, &buffers);
}

/* --- chains --- */

static void test_writable_first(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    VirtioMemSegment request = virtio_mem_readable(vm, buffers.req_gpa,
                                                   VM_REQUEST_SIZE);
    VirtioMemSegment response = virtio_mem_writable(vm, buffers.resp_gpa,
                                                    VM_RESPONSE_SIZE);
    VirtioMemSegment between = virtio_mem_readable(vm, buffers.req_gpa + 512,
                                                   8);

    virtio_mem_check_breaks(
        vm, (VirtioMemSegment []){ response, request }, 2);
    virtio_mem_check_breaks(
        vm, (VirtioMemSegment []){ request, response, between }, 3);
}

static void test_zero_length(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    VirtioMemSegment request = virtio_mem_readable(vm, buffers.req_gpa,
                                                   VM_REQUEST_SIZE);
    VirtioMemSegment response = virtio_mem_writable(vm, buffers.resp_gpa,
                                                    VM_RESPONSE_SIZE);
    VirtioMemSegment no_request = virtio_mem_readable(vm, buffers.req_gpa, 0);
    VirtioMemSegment no_response = virtio_mem_writable(vm, buffers.resp_gpa,
                                                       0);

    virtio_mem_check_breaks(
        vm, (VirtioMemSegment []){ no_request, request, response }, 3);
    virtio_mem_check_breaks(
        vm, (VirtioMemSegment []){ request, no_request, response }, 3);
    virtio_mem_check_breaks(
        vm, (VirtioMemSegment []){ request, response, no_response }, 3);
    virtio_mem_check_breaks(vm, (VirtioMemSegment []){ no_request }, 1);
}

/* More pieces than the ring code maps at once, in an indirect table. */
static void test_too_many_pieces(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    g_autofree VirtioMemSegment *segments = g_new(VirtioMemSegment, 1100);

    for (int i = 0; i < 1100; i++) {
        segments[i] = i < 1099 ? virtio_mem_readable(vm, buffers.req_gpa, 24)
                               : virtio_mem_writable(vm, buffers.resp_gpa, 10);
    }
    virtio_mem_restart_with(vm, VM_BIT(VIRTIO_RING_F_INDIRECT_DESC));
    virtio_mem_check_breaks(vm, segments, 1100);
}

/* --- split rings --- */

static void test_loop(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    uint16_t head = vm->ring.next_free;

    malformed_desc_request(vm, head, &buffers, VRING_DESC_F_NEXT, head + 1);
    malformed_desc_request(vm, head + 1, &buffers, VRING_DESC_F_NEXT, head);
    virtio_mem_ring_publish(&vm->ring, head, 2);
    virtio_mem_check_kick_breaks(vm, before);
}

static void test_loop_to_itself(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    uint16_t head = vm->ring.next_free;

    malformed_desc_request(vm, head, &buffers, VRING_DESC_F_NEXT, head + 1);
    malformed_desc_response(vm, head + 1, &buffers, VRING_DESC_F_NEXT,
                            head + 1);
    virtio_mem_ring_publish(&vm->ring, head, 2);
    virtio_mem_check_kick_breaks(vm, before);
}

static void test_next_too_large(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    const uint16_t nexts[] = { vm->ring.opts.size, 0x8000, 0xffff };

    for (int i = 0; i < ARRAY_SIZE(nexts); i++) {
        g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
        uint16_t head = vm->ring.next_free;

        malformed_desc_request(vm, head, &buffers, VRING_DESC_F_NEXT,
                               nexts[i]);
        virtio_mem_ring_publish(&vm->ring, head, 1);
        virtio_mem_check_kick_breaks(vm, before);
    }
}

static void test_head_too_large(VirtioMemGuest *vm)
{
    const uint16_t heads[] = { vm->ring.opts.size, 0x8000, 0xffff };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < ARRAY_SIZE(heads); i++) {
        g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);

        virtio_mem_ring_publish(&vm->ring, heads[i], 1);
        virtio_mem_check_kick_breaks(vm, before);
    }
}

/*
 * The specification leaves open what happens, and QEMU's ring code serves the
 * entries it finds, once more: here all of them are STATE.
 */
static void malformed_check_index_jump(VirtioMemGuest *vm, uint16_t jump)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    uint64_t used_idx_gpa = vm->ring.device + 2;

    virtio_mem_ring_set_avail_idx(&vm->ring, vm->ring.avail_idx + jump);
    virtio_mem_kick_force(vm);
    vm_wait_until(virtio_mem_is_broken(vm) ||
                  qtest_readw(vm->qts, used_idx_gpa) == vm->ring.avail_idx);
    virtio_mem_restart_driver(vm);
    virtio_mem_take_config_irq(vm);
    virtio_mem_check_unchanged(vm, before);
    virtio_mem_check_works(vm);
}

static void test_index_jump(VirtioMemGuest *vm)
{
    uint16_t size = vm->ring.opts.size;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 1, 1, ACK);
    malformed_check_index_jump(vm, size + 1);
    malformed_check_index_jump(vm, 0x8000);
    malformed_check_index_jump(vm, 0xffff);
}

/* --- packed rings --- */

/* Every descriptor says that another follows: the chain closes on itself. */
static void test_packed_loop(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    uint16_t head = vm->ring.next_free;

    for (unsigned i = 0; i < vm->ring.opts.size; i++) {
        malformed_desc_request(vm, (head + i) % vm->ring.opts.size, &buffers,
                               VRING_DESC_F_NEXT, 0);
    }
    virtio_mem_ring_publish(&vm->ring, head, 1);
    virtio_mem_check_kick_breaks(vm, before);
}

/* The id is the driver's own affair: the device gives back what it got. */
static void test_packed_id(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = malformed_put_plug(vm);
    uint16_t head = vm->ring.next_free;
    uint16_t id = vm->ring.opts.size - 1;
    VirtioMemUsed used;
    bool served;

    malformed_desc_response(vm, head + 1, &buffers, 0, id);
    qtest_writew(vm->qts, vm->ring.desc + (head + 1) * 16 + 14,
                 VRING_DESC_F_WRITE | 1 << VRING_PACKED_DESC_F_AVAIL);
    malformed_desc_request(vm, head, &buffers, VRING_DESC_F_NEXT, id);
    virtio_mem_ring_publish(&vm->ring, head, 2);
    virtio_mem_kick_force(vm);
    served = virtio_mem_wait_outcome(vm, &used);
    g_assert_true(served);
    g_assert_cmpuint(used.id, ==, id);
    vm_assert_plugged(vm, 1);
}

/* --- ring addresses --- */

/* A ring with one request in it, of whose areas @which lie at @bad instead. */
static void malformed_check_ring_at(VirtioMemGuest *vm, uint64_t bad,
                                    unsigned which)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, vm->req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, vm->resp_gpa, VM_RESPONSE_SIZE),
    };
    VirtioMemRingAreas areas, home;
    VirtioMemRing ring;

    virtio_mem_ring_init(&ring, vm->qts, &vm->qs->alloc, &vm->ring.opts);
    virtio_mem_put(vm, vm->req_gpa, .type = VIRTIO_MEM_REQ_STATE,
                   .addr = vm->addr, .nb_blocks = 1);
    virtio_mem_ring_add(&ring, segments, ARRAY_SIZE(segments));
    areas = (VirtioMemRingAreas){
        .desc = which & 1 ? bad : ring.desc,
        .driver = which & 2 ? bad : ring.driver,
        .device = which & 4 ? bad : ring.device,
    };
    home = virtio_mem_drive_ring_at(vm, areas);
    for (int i = 0; i < 3; i++) {
        virtio_mem_kick_force(vm);
        virtio_mem_status(vm);
    }
    virtio_mem_leave_ring(vm, home);
    virtio_mem_ring_free(&ring);
    virtio_mem_restart_driver(vm);
    virtio_mem_check_unchanged(vm, before);
    virtio_mem_check_works(vm);
}

static void test_ring_addresses(VirtioMemGuest *vm)
{
    const uint64_t gpas[] = {
        VM_NO_MEMORY, VM_ROM, VM_IOAPIC, UINT64_MAX - 15, 1,
        virtio_mem_ram() + VM_RAM - 16,
        vm->pci->bar.addr + vm->pci->common_cfg_offset,
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    for (int i = 0; i < ARRAY_SIZE(gpas); i++) {
        malformed_check_ring_at(vm, gpas[i], 1);
        malformed_check_ring_at(vm, gpas[i], 2);
        malformed_check_ring_at(vm, gpas[i], 4);
        malformed_check_ring_at(vm, gpas[i], 1 | 2 | 4);
    }
}

/* --- broken --- */

static void malformed_break(VirtioMemGuest *vm)
{
    VirtioMemSegment too_short = virtio_mem_readable(vm, vm->req_gpa, 1);
    bool served = virtio_mem_send_chain(vm, &too_short, 1, NULL);
    bool notified = virtio_mem_take_config_irq(vm);

    g_assert_false(served);
    g_assert_true(notified);
}

static void test_broken_is_deaf(VirtioMemGuest *vm)
{
    VmRequest plug = {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr, .nb_blocks = 1,
    };
    bool ok;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    malformed_break(vm);
    for (int i = 0; i < 10; i++) {
        virtio_mem_queue_request(vm, &plug);
        virtio_mem_kick_force(vm);
    }
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
    g_assert_true(virtio_mem_is_broken(vm));
    vm_assert_plugged(vm, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    ok = virtio_mem_try_requested(vm, "1073741824", NULL);
    g_assert_true(ok);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, GiB);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, GiB);
    virtio_mem_take_config_irq(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_take_config_irq(vm);
}

static void test_broken_heals(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemSnapshot) before = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 3, 2, ACK);
    virtio_mem_write_pattern(vm, 3, 2, 42);
    before = virtio_mem_snapshot(vm);
    for (int i = 0; i < 20; i++) {
        malformed_break(vm);
        virtio_mem_restart_driver(vm);
        virtio_mem_check_unchanged(vm, before);
    }
    g_assert_true(virtio_mem_check_pattern(vm, 3, 2, 42));
    virtio_mem_check_works(vm);
}

static const VirtioMemTest tests[] = {
    { "T152", "ring/indirect-table-of-odd-length-breaks-the-device",
      test_indirect_length },
    { "T152", "ring/indirect-table-outside-memory-breaks-the-device",
      test_indirect_outside_memory },
    { "T153", "ring/indirect-in-indirect-is-harmless",
      test_indirect_in_indirect },
    { "T154", "ring/direct-then-indirect-is-served-or-breaks",
      test_direct_then_indirect },
    { "T155", "ring/loop-breaks-the-device", test_loop, .once = true },
    { "T155", "ring/loop-to-itself-breaks-the-device", test_loop_to_itself,
      .once = true },
    { "T155", "ring/next-beyond-the-ring-breaks-the-device",
      test_next_too_large, .once = true },
    { "T155", "ring/head-beyond-the-ring-breaks-the-device",
      test_head_too_large, .once = true },
    { "T155", "ring/packed-loop-breaks-the-device", test_packed_loop,
      .once = true, .options = &packed_ring },
    { "T155", "ring/packed-id-is-given-back", test_packed_id,
      .once = true, .options = &packed_ring },
    { "T156", "ring/index-jump-is-harmless", test_index_jump,
      .once = true },
    { "T157", "ring/writable-before-readable-breaks-the-device",
      test_writable_first },
    { "T158", "ring/zero-length-breaks-the-device", test_zero_length },
    { "T158", "ring/too-many-pieces-break-the-device", test_too_many_pieces },
    { "T159", "ring/indirect-without-the-feature-is-served-or-breaks",
      test_indirect_not_negotiated },
    { "T166", "ring/broken-device-is-deaf-and-readable", test_broken_is_deaf },
    { "T167", "ring/broken-device-heals-by-reset", test_broken_heals },
    { "T168", "ring/strange-ring-addresses-are-harmless",
      test_ring_addresses },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
