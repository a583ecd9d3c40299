/*
 * Ranges of blocks that every request with a range must answer with ERROR.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "virtio-mem-bad-ranges.h"

static void bad_add(GArray *ranges, uint64_t addr, uint16_t nb_blocks)
{
    VirtioMemBadRange range = { .addr = addr, .nb_blocks = nb_blocks };

    g_array_append_val(ranges, range);
}

/*
 * addr + nb * B = 2^64 + end, for the longest requests, with @end at the
 * start, inside and at the end of the usable region.  Only ranges that are
 * aligned as seen from A can be told from VM_BAD_UNALIGNED; A is a multiple
 * of B, so all of them are.
 */
static void bad_add_wrapping(VirtioMemGuest *vm, GArray *ranges)
{
    uint64_t usable = virtio_mem_usable_size(vm);
    const uint64_t ends[] = { vm->addr, vm->addr + vm->block_size,
                              vm->addr + usable };

    for (int i = 0; i < ARRAY_SIZE(ends); i++) {
        for (uint32_t nb = 0xffff; nb > 0xfff0; nb--) {
            bad_add(ranges, ends[i] - nb * vm->block_size, nb);
        }
    }
}

/* Requests that are wrong wherever the region is, and odd numbers. */
static bool bad_add_numbers(VirtioMemGuest *vm, VirtioMemBadKind kind,
                            GArray *r)
{
    const uint64_t b = vm->block_size, a = vm->addr;

    switch (kind) {
    case VM_BAD_UNALIGNED:
        bad_add(r, a + 1, 1);
        bad_add(r, a + b / 2, 1);
        bad_add(r, a + 4096, 1);
        bad_add(r, a + b - 1, 1);
        return true;
    case VM_BAD_EMPTY:
        bad_add(r, a, 0);
        return true;
    case VM_BAD_TOP_OF_SPACE:
        bad_add(r, -b, 1);
        bad_add(r, -b, 2);
        return true;
    case VM_BAD_HIGH_BITS:
        bad_add(r, UINT64_MAX, 1);
        bad_add(r, a | 1ULL << 63, 1);
        return true;
    case VM_BAD_TOO_MANY:
        bad_add(r, a, 0xffff);
        return true;
    case VM_BAD_SWAPPED:
        bad_add(r, bswap64(a), bswap16(1));
        bad_add(r, bswap64(a + b), 1);
        return true;
    default:
        return false;
    }
}

/* Requests that miss the usable region [a, a_u) of the region [a, a_r). */
static bool bad_add_places(VirtioMemGuest *vm, VirtioMemBadKind kind,
                           GArray *r)
{
    const uint64_t b = vm->block_size, a = vm->addr;
    const uint64_t a_u = a + virtio_mem_usable_size(vm);
    const uint64_t a_r = a + vm->region_size;

    switch (kind) {
    case VM_BAD_EMPTY_ELSEWHERE:
        bad_add(r, 0, 0);
        bad_add(r, a + 1, 0);
        bad_add(r, a_u, 0);
        bad_add(r, a_r, 0);
        bad_add(r, UINT64_MAX, 0);
        return true;
    case VM_BAD_BELOW:
        bad_add(r, a - b, 1);
        bad_add(r, 0, 1);
        bad_add(r, 16 * MiB, 1);
        return true;
    case VM_BAD_STRADDLES_START:
        bad_add(r, a - b, 2);
        return true;
    case VM_BAD_UNUSABLE:
        bad_add(r, a_u, 1);
        bad_add(r, a_u + b, 1);
        return true;
    case VM_BAD_STRADDLES_USABLE:
        bad_add(r, a_u - b, 2);
        return true;
    case VM_BAD_AROUND_END:
        bad_add(r, a_r - b, 1);
        bad_add(r, a_r, 1);
        bad_add(r, a_r - b, 2);
        return true;
    case VM_BAD_WRAPS_INTO_REGION:
        bad_add_wrapping(vm, r);
        return true;
    default:
        return false;
    }
}

GArray *virtio_mem_bad_ranges(VirtioMemGuest *vm, VirtioMemBadKind kind)
{
    GArray *ranges = g_array_new(false, false, sizeof(VirtioMemBadRange));
    bool known = bad_add_numbers(vm, kind, ranges) ||
                 bad_add_places(vm, kind, ranges);

    g_assert_true(known);
    return ranges;
}

void virtio_mem_expect_errors(VirtioMemGuest *vm, uint16_t type,
                              VirtioMemBadKind kind)
{
    g_autoptr(GArray) ranges = virtio_mem_bad_ranges(vm, kind);
    uint64_t plugged = vm_plugged_size(vm), nb, nb_after;
    g_autofree unsigned long *before = virtio_mem_read_bitmap(vm, &nb);
    g_autofree unsigned long *after = NULL;

    for (guint i = 0; i < ranges->len; i++) {
        const VirtioMemBadRange *bad = &g_array_index(ranges,
                                                      VirtioMemBadRange, i);
        VmAnswer answer = virtio_mem_req(vm, .type = type,
                                         .addr = bad->addr,
                                         .nb_blocks = bad->nb_blocks);

        g_test_message("type %u addr 0x%" PRIx64 " nb %u: answer %u", type,
                       bad->addr, bad->nb_blocks, answer.type);
        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ERROR);
        g_assert_cmphex(vm_plugged_size(vm), ==, plugged);
    }
    after = virtio_mem_read_bitmap(vm, &nb_after);
    g_assert_cmpuint(nb_after, ==, nb);
    g_assert_true(bitmap_equal(before, after, nb));
}
