/*
 * What libFuzzer gives, as a row of numbers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_FUZZ_H
#define VIRTIO_MEM_FUZZ_H

#include "qemu/bswap.h"

typedef struct FuzzInput {
    const uint8_t *bytes;
    size_t len;
} FuzzInput;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* The next number of @len bytes; zeroes follow the last one. */
static inline uint64_t fuzz_take(FuzzInput *input, size_t len)
{
    uint8_t value[8] = { 0 };
    const size_t nb = MIN(len, input->len);

    memcpy(value, input->bytes, nb);
    input->bytes += nb;
    input->len -= nb;
    return ldq_le_p(value);
}

#endif
