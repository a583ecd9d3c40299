/*
 * Ranges of blocks that every request with a range must answer with ERROR.
 *
 *      0        A                        A+U            A+R      2^64
 *      |........|========usable==========|---unusable---|........|
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_BAD_RANGES_H
#define TESTS_QTEST_VIRTIO_MEM_BAD_RANGES_H

#include "virtio-mem-guest.h"

typedef struct VirtioMemBadRange {
    uint64_t addr;
    uint16_t nb_blocks;
} VirtioMemBadRange;

typedef enum VirtioMemBadKind {
    VM_BAD_UNALIGNED,           /* addr is no multiple of B from A */
    VM_BAD_EMPTY,               /* nb_blocks 0 at a good address */
    VM_BAD_EMPTY_ELSEWHERE,     /* nb_blocks 0 at a bad one */
    VM_BAD_BELOW,               /* completely below A */
    VM_BAD_STRADDLES_START,
    VM_BAD_UNUSABLE,            /* from A+U on */
    VM_BAD_STRADDLES_USABLE,    /* last usable block and the next */
    VM_BAD_AROUND_END,          /* at and around A+R */
    VM_BAD_TOP_OF_SPACE,        /* last block below 2^64, and wrapping to 0 */
    VM_BAD_WRAPS_INTO_REGION,   /* end, modulo 2^64, is in [A, A+U] */
    VM_BAD_HIGH_BITS,           /* all ones; A with the top bit set */
    VM_BAD_TOO_MANY,            /* nb_blocks 0xffff, fewer usable */
    VM_BAD_SWAPPED,             /* a good range in big endian */
    VM_BAD__MAX,
} VirtioMemBadKind;

/* The ranges of one kind; the guest needs U < R and nU < 65535. */
GArray *virtio_mem_bad_ranges(VirtioMemGuest *vm, VirtioMemBadKind kind);

/*
 * Send @type for each range of @kind: all must get ERROR, with the plugged
 * size and the state of the usable region as before.
 */
void virtio_mem_expect_errors(VirtioMemGuest *vm, uint16_t type,
                              VirtioMemBadKind kind);

#endif
