/*
 * virtio-mem: requests, responses and rings in odd places of guest memory
 *
 * Where a test cannot say whether the device serves a chain, it says what must
 * hold in either case: the blocks are as before or as the answer says, and
 * after a device reset everything works.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-chains.h"

/* Somewhere inside a block. */
#define INSIDE(vm, block)   (virtio_mem_block_gpa(vm, block) + 0x1234)

/* Places that can be read but hold no request, and cannot keep a response. */
static uint64_t memory_strange_gpa(VirtioMemGuest *vm, int i)
{
    const uint64_t gpas[] = {
        VM_NO_MEMORY,
        VM_ROM,
        VM_IOAPIC,
        vm->pci->bar.addr + vm->pci->common_cfg_offset,
        vm->pci->bar.addr + vm->pci->isr_cfg_offset,
        vm->pci->bar.addr + vm->pci->device_cfg_offset,
        vm->pci->bar.addr + vm->vq.notify_offset,
        UINT64_MAX - VM_REQUEST_SIZE + 1,
        0,
    };

    return i < ARRAY_SIZE(gpas) ? gpas[i] : 0;
}

static uint64_t memory_put_request(VirtioMemGuest *vm, uint16_t type,
                                   uint64_t block)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);

    virtio_mem_put(vm, buffers.req_gpa, .type = type, .nb_blocks = 1,
                   .addr = virtio_mem_block_gpa(vm, block));
    return buffers.req_gpa;
}

/* --- inside blocks --- */

static void test_in_plugged_block(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    for (int i = 0; i < 3; i++) {
        VmAnswer answer = virtio_mem_req(
            vm, .type = VIRTIO_MEM_REQ_PLUG, .nb_blocks = 1,
            .addr = virtio_mem_block_gpa(vm, i + 1),
            .req_gpa = i != 1 ? INSIDE(vm, 0) : 0,
            .resp_gpa = i != 0 ? INSIDE(vm, 0) + 100 : 0);

        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    }
    vm_assert_plugged(vm, 4);
}

/*
 * It is not defined what the device reads in an unplugged block; it can only
 * be what was written, or zeros: PLUG of nothing at address zero.
 */
static void memory_check_request_unplugged(VirtioMemGuest *vm, uint64_t block)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, INSIDE(vm, block), VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers.resp_gpa, VM_RESPONSE_SIZE),
    };

    virtio_mem_put(vm, INSIDE(vm, block), .type = VIRTIO_MEM_REQ_STATE,
                   .addr = virtio_mem_block_gpa(vm, 1), .nb_blocks = 1);
    if (virtio_mem_send_chain(vm, segments, ARRAY_SIZE(segments), NULL)) {
        VmAnswer answer = virtio_mem_read_answer(vm, buffers.resp_gpa);

        g_assert_true(answer.type == VIRTIO_MEM_RESP_ERROR ||
                      answer.type == VIRTIO_MEM_RESP_ACK);
        g_assert_cmpuint(answer.state, ==,
                         answer.type == VIRTIO_MEM_RESP_ACK ?
                         VIRTIO_MEM_STATE_UNPLUGGED : 0);
    } else {
        virtio_mem_check_broken(vm, before->plugged_size);
    }
    virtio_mem_check_unchanged(vm, before);
}

static void test_request_in_unplugged_block(VirtioMemGuest *vm)
{
    uint64_t nb_usable;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    nb_usable = virtio_mem_usable_blocks(vm);
    memory_check_request_unplugged(vm, 1);
    memory_check_request_unplugged(vm, 2);
    memory_check_request_unplugged(vm, nb_usable - 1);
    memory_check_request_unplugged(vm, nb_usable);
    memory_check_request_unplugged(vm, vm->region_size / vm->block_size - 1);
}

/* The answer may be lost; what it says has been done, or the device broke. */
static void test_response_in_unplugged_block(VirtioMemGuest *vm)
{
    VirtioMemSegment segments[2];
    VirtioMemUsed used;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    segments[0] = virtio_mem_readable(
        vm, memory_put_request(vm, VIRTIO_MEM_REQ_PLUG, 0), VM_REQUEST_SIZE);
    segments[1] = virtio_mem_writable(vm, INSIDE(vm, 1), VM_RESPONSE_SIZE);
    if (virtio_mem_send_chain(vm, segments, 2, &used)) {
        g_assert_cmpuint(used.len, ==, VM_RESPONSE_SIZE);
        vm_assert_plugged(vm, 1);
        vm_assert_state(vm, 0, 1, PLUGGED);
    } else {
        virtio_mem_check_broken(vm, 0);
    }
    vm_assert_state(vm, 1, 1, UNPLUGGED);
}

/* The device takes away the memory in which it was to answer. */
static void memory_check_response_goes(VirtioMemGuest *vm, uint16_t type)
{
    VirtioMemSegment segments[2];
    VirtioMemUsed used;
    bool served;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    segments[0] = virtio_mem_readable(vm, memory_put_request(vm, type, 0),
                                      VM_REQUEST_SIZE);
    segments[1] = virtio_mem_writable(vm, INSIDE(vm, 0), VM_RESPONSE_SIZE);
    served = virtio_mem_send_chain(vm, segments, 2, &used);
    g_assert_true(served);
    g_assert_cmpuint(used.len, ==, VM_RESPONSE_SIZE);
    vm_assert_plugged(vm, type == VIRTIO_MEM_REQ_UNPLUG ? 1 : 0);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    virtio_mem_check_works(vm);
    vm_assert_unplug_all(vm, ACK);
}

static void test_response_in_block_going(VirtioMemGuest *vm)
{
    memory_check_response_goes(vm, VIRTIO_MEM_REQ_UNPLUG);
    memory_check_response_goes(vm, VIRTIO_MEM_REQ_UNPLUG_ALL);
}

/* Of the two, the request's own memory is read before anything is decided. */
static void test_request_in_block_going(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, INSIDE(vm, 0), VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers.resp_gpa, VM_RESPONSE_SIZE),
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    virtio_mem_put(vm, INSIDE(vm, 0), .type = VIRTIO_MEM_REQ_UNPLUG,
                   .addr = virtio_mem_block_gpa(vm, 0), .nb_blocks = 1);
    g_assert_cmpuint(virtio_mem_check_served(vm, segments, 2).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    vm_assert_plugged(vm, 1);
    vm_assert_state(vm, 0, 2, MIXED);
}

/* --- the ring inside a block --- */

/* The ring's memory goes with the request: what comes back is not defined. */
static void memory_check_ring_goes(VirtioMemGuest *vm, uint16_t type)
{
    uint64_t gpa = virtio_mem_block_gpa(vm, 0);
    VirtioMemRingAreas areas = { gpa, gpa + 64 * KiB, gpa + 128 * KiB };
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, memory_put_request(vm, type, 0),
                            VM_REQUEST_SIZE),
        virtio_mem_writable(vm, vm->resp_gpa, VM_RESPONSE_SIZE),
    };
    VirtioMemRingAreas home;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_fill(vm, gpa, 0, 192 * KiB);
    home = virtio_mem_drive_ring_at(vm, areas);
    vm_assert_state(vm, 0, 1, PLUGGED);
    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
    virtio_mem_kick_force(vm);
    vm_wait_until(vm_plugged_size(vm) == 0);
    virtio_mem_kick_force(vm);
    virtio_mem_leave_ring(vm, home);
    virtio_mem_restart_driver(vm);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    virtio_mem_check_works(vm);
}

static void test_ring_in_block_going(VirtioMemGuest *vm)
{
    memory_check_ring_goes(vm, VIRTIO_MEM_REQ_UNPLUG);
    memory_check_ring_goes(vm, VIRTIO_MEM_REQ_UNPLUG_ALL);
}

/* --- outside of memory --- */

static void memory_check_request_at(VirtioMemGuest *vm, uint64_t gpa)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers.resp_gpa, VM_RESPONSE_SIZE),
    };

    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
    virtio_mem_check_kick_harmless(vm, before);
}

static void test_request_outside_memory(VirtioMemGuest *vm)
{
    uint64_t gpa;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    for (int i = 0; (gpa = memory_strange_gpa(vm, i)); i++) {
        memory_check_request_at(vm, gpa);
    }
}

/*
 * The request is executed, or the device breaks, or (the response being
 * written to its own registers) it is reset, whichever comes first.
 */
static void memory_check_response_at(VirtioMemGuest *vm, uint64_t gpa)
{
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, memory_put_request(vm, VIRTIO_MEM_REQ_PLUG, 0),
                            VM_REQUEST_SIZE),
        virtio_mem_writable(vm, gpa, VM_RESPONSE_SIZE),
    };
    VirtioMemUsed used;
    bool served;

    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
    virtio_mem_kick_force(vm);
    vm_wait_until((served = virtio_mem_ring_poll(&vm->ring, &used)) ||
                  virtio_mem_is_broken(vm) || !virtio_mem_status(vm));
    virtio_mem_device_reset(vm);
    virtio_mem_restart_driver(vm);
    virtio_mem_take_config_irq(vm);
    g_assert_cmphex(vm_plugged_size(vm), <=, vm->block_size);
    if (served) {
        vm_assert_plugged(vm, 1);
    }
    virtio_mem_check_invariants(vm);
    vm_assert_unplug_all(vm, ACK);
}

static void test_response_outside_memory(VirtioMemGuest *vm)
{
    uint64_t gpa;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; (gpa = memory_strange_gpa(vm, i)); i++) {
        memory_check_response_at(vm, gpa);
    }
}

/* Ten zeros, ACK, written over the status register are a device reset. */
static void test_response_resets_device(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    memory_check_response_at(vm, vm->pci->bar.addr +
                             vm->pci->common_cfg_offset +
                             VIRTIO_PCI_COMMON_STATUS);
    virtio_mem_check_works(vm);
}

/* --- overlap --- */

static void memory_check_overlap(VirtioMemGuest *vm, unsigned offset)
{
    uint64_t req_gpa = memory_put_request(vm, VIRTIO_MEM_REQ_PLUG, 3);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, req_gpa + offset, VM_RESPONSE_SIZE),
    };

    g_assert_cmpuint(virtio_mem_check_served(vm, segments, 2).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    vm_assert_state(vm, 3, 1, PLUGGED);
    vm_assert_plugged(vm, 1);
    vm_assert_unplug(vm, 3, 1, ACK);
}

static void test_overlap(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned offset = 0; offset < VM_REQUEST_SIZE; offset++) {
        memory_check_overlap(vm, offset);
    }
}

/* --- across regions: the end of a DIMM and the block that follows it --- */

#define DIMM_GPA    (4 * GiB)
#define DIMM_SIZE   (128 * MiB)

static const VirtioMemOptions behind_dimm = {
    .memaddr = DIMM_GPA + DIMM_SIZE,
    .args = "-object memory-backend-ram,id=dimm0,size=128M "
            "-device pc-dimm,memdev=dimm0,addr=0x100000000",
};

static void memory_check_across(VirtioMemGuest *vm, uint64_t req_gpa,
                                uint64_t resp_gpa, uint64_t block)
{
    VmAnswer answer = virtio_mem_req(
        vm, .type = VIRTIO_MEM_REQ_PLUG, .nb_blocks = 1,
        .addr = virtio_mem_block_gpa(vm, block), .req_gpa = req_gpa,
        .resp_gpa = resp_gpa);

    g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    vm_assert_state(vm, block, 1, PLUGGED);
    vm_assert_plugged(vm, block + 1);
}

static void test_across_regions(VirtioMemGuest *vm)
{
    uint64_t border = virtio_mem_block_gpa(vm, 0);

    g_assert_cmphex(border, ==, DIMM_GPA + DIMM_SIZE);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    memory_check_across(vm, border - 12, 0, 1);
    memory_check_across(vm, border - 1, 0, 2);
    memory_check_across(vm, border - 23, 0, 3);
    memory_check_across(vm, 0, border - 5, 4);
    memory_check_across(vm, 0, border - 1, 5);
    memory_check_across(vm, 0, border - 9, 6);
}

/* The region's own memory consists of slots of which each is a region. */
static const VirtioMemOptions with_memslots = {
    .device = "dynamic-memslots=on",
};

static void test_across_memslots(VirtioMemGuest *vm)
{
    uint64_t nb_slot_blocks = GiB / vm->block_size;
    uint64_t border = virtio_mem_block_gpa(vm, nb_slot_blocks);

    virtio_mem_set_requested(vm, 2 * GiB);
    vm_assert_plug(vm, 0, 2 * nb_slot_blocks - 2, ACK);
    g_assert_cmpuint(
        virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_PLUG, .nb_blocks = 1,
                       .addr = border + GiB - vm->block_size,
                       .req_gpa = border - 11,
                       .resp_gpa = border - 100).type, ==,
        VIRTIO_MEM_RESP_ACK);
    g_assert_cmpuint(
        virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_PLUG, .nb_blocks = 1,
                       .addr = border + GiB - 2 * vm->block_size,
                       .req_gpa = border - 100,
                       .resp_gpa = border - 7).type, ==,
        VIRTIO_MEM_RESP_ACK);
    vm_assert_plugged(vm, 2 * nb_slot_blocks);
}

static const VirtioMemTest tests[] = {
    { "T130", "framing/buffers-in-a-plugged-block-work",
      test_in_plugged_block },
    { "T131", "framing/request-in-an-unplugged-block-is-harmless",
      test_request_in_unplugged_block },
    { "T131", "framing/request-in-an-unmapped-slot-is-harmless",
      test_request_in_unplugged_block, .once = true,
      .options = &with_memslots },
    { "T132", "framing/response-in-an-unplugged-block-is-harmless",
      test_response_in_unplugged_block },
    { "T132", "framing/response-in-an-unmapped-slot-is-harmless",
      test_response_in_unplugged_block, .once = true,
      .options = &with_memslots },
    { "T133", "framing/response-in-a-vanishing-block-is-harmless",
      test_response_in_block_going },
    { "T133", "framing/response-in-a-vanishing-slot-is-harmless",
      test_response_in_block_going, .once = true,
      .options = &with_memslots },
    { "T133", "framing/request-in-a-vanishing-block-is-executed",
      test_request_in_block_going },
    { "T134", "framing/ring-in-a-vanishing-block-is-harmless",
      test_ring_in_block_going },
    { "T134", "framing/ring-in-a-vanishing-slot-is-harmless",
      test_ring_in_block_going, .once = true,
      .options = &with_memslots },
    { "T135", "framing/request-outside-memory-is-harmless",
      test_request_outside_memory },
    { "T136", "framing/response-outside-memory-is-harmless",
      test_response_outside_memory },
    { "T136", "framing/response-may-reset-the-device",
      test_response_resets_device },
    { "T137", "framing/request-is-read-before-the-response-is-written",
      test_overlap },
    { "T139", "framing/buffers-across-two-regions-are-served",
      test_across_regions, .options = &behind_dimm, .pc = true },
    { "T139", "framing/buffers-across-two-memslots-are-served",
      test_across_memslots, .once = true,
      .options = &with_memslots },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
