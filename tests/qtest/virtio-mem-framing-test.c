/*
 * virtio-mem: how a request and its response lie in a chain's buffers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-chains.h"

#define MAX_PIECES  (VM_REQUEST_SIZE + VM_RESPONSE_SIZE)

/* Buffers that hold PLUG of one block. */
static VirtioMemBuffers framing_put_plug(VirtioMemGuest *vm, uint64_t block)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_put(vm, buffers.req_gpa, .type = VIRTIO_MEM_REQ_PLUG,
                   .addr = virtio_mem_block_gpa(vm, block), .nb_blocks = 1);
    return buffers;
}

static void framing_check_ack(VirtioMemGuest *vm,
                              const VirtioMemSegment *segments, unsigned nb)
{
    VmAnswer answer = virtio_mem_check_served(vm, segments, nb);

    g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    g_assert_cmphex(answer.state, ==, 0);
}

/* --- split --- */

/* A list of lengths; the last one repeats. */
typedef struct Cut {
    const uint8_t *lens;
    unsigned nb;
} Cut;

#define CUT(...) ((Cut){ (const uint8_t []){ __VA_ARGS__ }, \
                         sizeof((uint8_t []){ __VA_ARGS__ }) })

static unsigned framing_cut(VirtioMemSegment *segments, VirtioMemSegment whole,
                            Cut cut)
{
    unsigned nb = 0;

    while (whole.len) {
        segments[nb] = whole;
        segments[nb].len = MIN(cut.lens[MIN(nb, cut.nb - 1)], whole.len);
        whole.addr += segments[nb].len;
        whole.len -= segments[nb].len;
        nb++;
    }
    return nb;
}

static void framing_check_cut(VirtioMemGuest *vm, uint64_t block, Cut req,
                              Cut resp)
{
    VirtioMemBuffers buffers = framing_put_plug(vm, block);
    VirtioMemSegment segments[MAX_PIECES];
    unsigned nb;

    nb = framing_cut(segments, virtio_mem_readable(vm, buffers.req_gpa,
                                                   VM_REQUEST_SIZE), req);
    nb += framing_cut(segments + nb,
                      virtio_mem_writable(vm, buffers.resp_gpa,
                                          VM_RESPONSE_SIZE), resp);
    framing_check_ack(vm, segments, nb);
    g_assert_true(virtio_mem_is_poisoned_from(vm, &buffers,
                                              VM_RESPONSE_SIZE));
    vm_assert_state(vm, block, 1, PLUGGED);
    vm_assert_plugged(vm, block + 1);
}

static void test_one_byte_descriptors(VirtioMemGuest *vm)
{
    framing_check_cut(vm, 0, CUT(1), CUT(1));
}

/* Request: type at 0-1, addr at 8-15, nb_blocks at 16-17; response: type. */
static void test_odd_splits(VirtioMemGuest *vm)
{
    framing_check_cut(vm, 0, CUT(7, 17), CUT(3, 7));
    framing_check_cut(vm, 1, CUT(1, 23), CUT(9, 1));
    framing_check_cut(vm, 2, CUT(11, 13), CUT(1, 9));
    framing_check_cut(vm, 3, CUT(17, 7), CUT(10));
    framing_check_cut(vm, 4, CUT(1, 8, 8, 7), CUT(1, 8, 1));
}

static void test_random_splits(VirtioMemGuest *vm)
{
    uint8_t lens[MAX_PIECES];

    for (int i = 0; i < 32; i++) {
        for (int j = 0; j < MAX_PIECES; j++) {
            lens[j] = g_test_rand_int_range(1, 10);
        }
        framing_check_cut(vm, i, (Cut){ lens, VM_REQUEST_SIZE },
                          (Cut){ lens + VM_REQUEST_SIZE, VM_RESPONSE_SIZE });
    }
}

/* --- too long --- */

static void test_long_request(VirtioMemGuest *vm)
{
    static const uint32_t lens[] = { 25, 32, 4096 };

    for (int i = 0; i < ARRAY_SIZE(lens); i++) {
        VirtioMemBuffers buffers = framing_put_plug(vm, i);
        VirtioMemSegment segments[] = {
            virtio_mem_readable(vm, buffers.req_gpa, lens[i]),
            virtio_mem_writable(vm, buffers.resp_gpa, VM_RESPONSE_SIZE),
        };

        framing_check_ack(vm, segments, ARRAY_SIZE(segments));
        vm_assert_state(vm, i, 1, PLUGGED);
        vm_assert_plugged(vm, i + 1);
    }
}

static void framing_check_long_response(VirtioMemGuest *vm, uint32_t len,
                                        uint32_t more)
{
    VirtioMemBuffers buffers = framing_put_plug(vm, 0);
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, buffers.req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers.resp_gpa, len),
        virtio_mem_writable(vm, buffers.resp_gpa + len, more),
    };

    framing_check_ack(vm, segments, more ? 3 : 2);
    g_assert_true(virtio_mem_is_poisoned_from(vm, &buffers,
                                              VM_RESPONSE_SIZE));
    vm_assert_unplug(vm, 0, 1, ACK);
}

static void test_long_response(VirtioMemGuest *vm)
{
    framing_check_long_response(vm, 11, 0);
    framing_check_long_response(vm, 4096, 0);
    framing_check_long_response(vm, 10, 1);
    framing_check_long_response(vm, 4, 4092);
}

/* --- too short: before anything is decided, without a partial response --- */

static void framing_check_breaks(VirtioMemGuest *vm, uint16_t type,
                                 uint32_t req_len, uint32_t resp_len)
{
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    bool plugged = type == VIRTIO_MEM_REQ_UNPLUG;
    VirtioMemSegment segments[2];
    unsigned nb = 0;

    virtio_mem_put(vm, buffers.req_gpa, .type = type, .nb_blocks = 1,
                   .addr = virtio_mem_block_gpa(vm, plugged ? 1 : 0));
    if (req_len) {
        segments[nb++] = virtio_mem_readable(vm, buffers.req_gpa, req_len);
    }
    if (resp_len) {
        segments[nb++] = virtio_mem_writable(vm, buffers.resp_gpa, resp_len);
    }
    virtio_mem_check_breaks(vm, segments, nb);
    g_assert_true(virtio_mem_is_poisoned_from(vm, &buffers, 0));
}

static void framing_plug_some(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 1, 2, ACK);
}

static void test_short_request(VirtioMemGuest *vm)
{
    static const uint32_t lens[] = { 23, 18, 17, 16, 8, 2, 1 };

    framing_plug_some(vm);
    for (int i = 0; i < ARRAY_SIZE(lens); i++) {
        framing_check_breaks(vm, VIRTIO_MEM_REQ_PLUG, lens[i],
                             VM_RESPONSE_SIZE);
        framing_check_breaks(vm, VIRTIO_MEM_REQ_UNPLUG, lens[i],
                             VM_RESPONSE_SIZE);
    }
}

/* Nothing but the type matters to UNPLUG ALL, yet a request has 24 bytes. */
static void test_short_unplug_all(VirtioMemGuest *vm)
{
    framing_plug_some(vm);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_UNPLUG_ALL, 8, VM_RESPONSE_SIZE);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_UNPLUG_ALL, 2, VM_RESPONSE_SIZE);
}

static void test_no_request(VirtioMemGuest *vm)
{
    framing_plug_some(vm);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_PLUG, 0, VM_RESPONSE_SIZE);
}

static void test_no_response(VirtioMemGuest *vm)
{
    framing_plug_some(vm);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_PLUG, VM_REQUEST_SIZE, 0);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_UNPLUG_ALL, VM_REQUEST_SIZE, 0);
}

static void test_short_response(VirtioMemGuest *vm)
{
    static const uint32_t lens[] = { 9, 8, 2, 1 };

    framing_plug_some(vm);
    for (int i = 0; i < ARRAY_SIZE(lens); i++) {
        for (uint16_t type = VIRTIO_MEM_REQ_PLUG;
             type <= VIRTIO_MEM_REQ_STATE; type++) {
            framing_check_breaks(vm, type, VM_REQUEST_SIZE, lens[i]);
        }
    }
}

/* Both too short: which one is found first does not matter. */
static void test_both_short(VirtioMemGuest *vm)
{
    framing_plug_some(vm);
    framing_check_breaks(vm, VIRTIO_MEM_REQ_PLUG, 23, 9);
}

/* --- types --- */

static void framing_check_type_is_error(VirtioMemGuest *vm, uint16_t type)
{
    g_autoptr(VirtioMemSnapshot) before = virtio_mem_snapshot(vm);

    for (int block = 0; block < 2; block++) {
        VmAnswer answer = virtio_mem_req(
            vm, .type = type, .nb_blocks = 1,
            .addr = virtio_mem_block_gpa(vm, block));

        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ERROR);
    }
    virtio_mem_check_unchanged(vm, before);
}

static void test_unknown_type(VirtioMemGuest *vm)
{
    static const uint16_t types[] = { 4, 5, 0xff, 0x7fff, 0xffff };

    framing_plug_some(vm);
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        framing_check_type_is_error(vm, types[i]);
    }
}

static void test_swapped_type(VirtioMemGuest *vm)
{
    framing_plug_some(vm);
    framing_check_type_is_error(vm, 0x0100);
    framing_check_type_is_error(vm, 0x0200);
    framing_check_type_is_error(vm, 0x0300);
}

static const VirtioMemTest tests[] = {
    { "T120", "framing/one-byte-descriptors-are-served",
      test_one_byte_descriptors },
    { "T121", "framing/splits-inside-fields-are-served", test_odd_splits },
    { "T121", "framing/random-splits-are-served", test_random_splits },
    { "T122", "framing/what-follows-a-request-is-ignored", test_long_request },
    { "T123", "framing/what-follows-a-response-is-untouched",
      test_long_response },
    { "T124", "framing/short-request-breaks-the-device", test_short_request },
    { "T125", "framing/short-unplug-all-breaks-the-device",
      test_short_unplug_all },
    { "T126", "framing/no-request-breaks-the-device", test_no_request },
    { "T126", "framing/no-response-breaks-the-device", test_no_response },
    { "T127", "framing/short-response-breaks-the-device",
      test_short_response },
    { "T124 T127", "framing/short-request-and-response-break-the-device",
      test_both_short },
    { "T128", "framing/unknown-type-is-an-error", test_unknown_type },
    { "T129", "framing/byte-swapped-type-is-an-error", test_swapped_type },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
