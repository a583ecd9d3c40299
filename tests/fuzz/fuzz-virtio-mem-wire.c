/*
 * virtio-mem's requests and responses, in buffers of any number and size
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../hw/virtio/virtio-mem-wire.h"
#include "../unit/virtio-mem-fuzz.h"

#define NB_IOV 8

/* Each is memory of its own, so that the sanitizer sees its ends. */
static unsigned take_buffers(FuzzInput *input, struct iovec *iov)
{
    const unsigned nb = fuzz_take(input, 1) % (NB_IOV + 1);

    for (unsigned i = 0; i < nb; i++) {
        iov[i].iov_len = fuzz_take(input, 1) % 40;
        iov[i].iov_base = g_malloc(iov[i].iov_len);
        for (size_t at = 0; at < iov[i].iov_len; at++) {
            ((uint8_t *)iov[i].iov_base)[at] = fuzz_take(input, 1);
        }
    }
    return nb;
}

static GByteArray *flat(const struct iovec *iov, unsigned nb)
{
    GByteArray *bytes = g_byte_array_new();

    for (unsigned i = 0; i < nb; i++) {
        g_byte_array_append(bytes, iov[i].iov_base, iov[i].iov_len);
    }
    return bytes;
}

static void check_request(const struct iovec *iov, unsigned nb)
{
    g_autoptr(GByteArray) bytes = flat(iov, nb);
    VirtIOMEMRequest request;

    g_assert_cmpint(virtio_mem_wire_read_request(iov, nb, &request), ==,
                    bytes->len >= 24);
    if (bytes->len < 24) {
        return;
    }
    g_assert_cmphex(request.type, ==, lduw_le_p(bytes->data));
    if (request.type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        g_assert_true(!request.gpa && !request.nb_blocks);
    } else {
        g_assert_cmphex(request.gpa, ==, ldq_le_p(bytes->data + 8));
        g_assert_cmphex(request.nb_blocks, ==, lduw_le_p(bytes->data + 16));
    }
}

static void check_response(const struct iovec *iov, unsigned nb,
                           const VirtIOMEMResponse *response)
{
    g_autoptr(GByteArray) before = flat(iov, nb);
    g_autoptr(GByteArray) after = NULL;
    uint8_t expect[10] = { 0 };

    g_assert_cmpint(virtio_mem_wire_response_fits(iov, nb), ==,
                    before->len >= sizeof(expect));
    if (before->len < sizeof(expect)) {
        return;
    }
    g_assert_cmpuint(virtio_mem_wire_write_response(iov, nb, response), ==,
                     sizeof(expect));
    after = flat(iov, nb);
    stw_le_p(expect, response->type);
    stw_le_p(expect + 8, response->state);
    memcpy(before->data, expect, sizeof(expect));
    g_assert_cmpmem(after->data, after->len, before->data, before->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    struct iovec iov[NB_IOV];
    VirtIOMEMResponse response;
    unsigned nb;

    response.type = fuzz_take(&input, 2);
    response.state = fuzz_take(&input, 2);
    nb = take_buffers(&input, iov);
    check_request(iov, nb);
    check_response(iov, nb, &response);
    for (unsigned i = 0; i < nb; i++) {
        g_free(iov[i].iov_base);
    }
    return 0;
}
