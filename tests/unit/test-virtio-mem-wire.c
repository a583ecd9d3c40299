/*
 * virtio-mem: requests and responses over all ways to cut them into buffers
 *
 * Bytes are written out, so nothing here depends on the host's endianness.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-wire.h"

#define REQUEST_SIZE 24
#define RESPONSE_SIZE 10

/* --- buffers of a guest: pieces with guard bytes around each --- */

#define GUARD 0xa5
#define GUARD_SIZE 8
#define MAX_PIECES 64

typedef struct Pieces {
    uint8_t arena[4 * KiB];
    struct iovec iov[MAX_PIECES];
    unsigned nb_iov;
    size_t used;                /* of the arena */
} Pieces;

static void pieces_init(Pieces *pieces)
{
    memset(pieces->arena, GUARD, sizeof(pieces->arena));
    pieces->nb_iov = 0;
    pieces->used = GUARD_SIZE;
}

static void pieces_add(Pieces *pieces, size_t len)
{
    g_assert_cmpuint(pieces->nb_iov, <, MAX_PIECES);
    pieces->iov[pieces->nb_iov++] = (struct iovec) {
        pieces->arena + pieces->used, len
    };
    pieces->used += len + GUARD_SIZE;
    g_assert_cmpuint(pieces->used, <=, sizeof(pieces->arena));
}

/* Byte @idx of all pieces in a row. */
static uint8_t *pieces_at(Pieces *pieces, size_t idx)
{
    for (unsigned i = 0; i < pieces->nb_iov; i++) {
        if (idx < pieces->iov[i].iov_len) {
            return (uint8_t *)pieces->iov[i].iov_base + idx;
        }
        idx -= pieces->iov[i].iov_len;
    }
    g_assert_not_reached();
}

static void pieces_put(Pieces *pieces, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        *pieces_at(pieces, i) = bytes[i];
    }
}

/* The pieces begin with @bytes, and nothing else was ever written. */
static void pieces_assert(Pieces *pieces, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t *at = pieces_at(pieces, i);

        g_assert_cmphex(*at, ==, bytes[i]);
        *at = GUARD;
    }
    for (size_t i = 0; i < sizeof(pieces->arena); i++) {
        g_assert_cmphex(pieces->arena[i], ==, GUARD);
    }
}

/*
 * Call @fn with every way to cut @total bytes in three, of which some may be
 * empty: so in one and in two, too.  And once with one byte per piece.
 */
static void foreach_cut(size_t total, void (*fn)(Pieces *, const void *),
                        const void *opaque)
{
    Pieces pieces;

    for (size_t i = 0; i <= total; i++) {
        for (size_t j = i; j <= total; j++) {
            pieces_init(&pieces);
            pieces_add(&pieces, i);
            pieces_add(&pieces, j - i);
            pieces_add(&pieces, total - j);
            fn(&pieces, opaque);
        }
    }

    pieces_init(&pieces);
    for (size_t i = 0; i < total; i++) {
        pieces_add(&pieces, 1);
    }
    fn(&pieces, opaque);
}

/* --- requests --- */

typedef struct RequestCase {
    uint8_t bytes[REQUEST_SIZE];
    VirtIOMEMRequest expect;
} RequestCase;

/* Padding, which means nothing, is 0xff everywhere. */
static const RequestCase requests[] = {
    {
        .bytes = {
            0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
            0x34, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        },
        .expect = { VIRTIO_MEM_REQ_PLUG, 0x0102030405060708, 0x1234 },
    }, {
        .bytes = {
            1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0, 0, 0, 0x40, 0x01, 0, 0, 0,
            1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        },
        .expect = { VIRTIO_MEM_REQ_UNPLUG, 0x140000000, 1 },
    }, {
        .bytes = {
            2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        },
        .expect = { VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0 },
    }, {
        .bytes = {
            3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        },
        .expect = { VIRTIO_MEM_REQ_STATE, UINT64_MAX, UINT16_MAX },
    }, {
        /* An unknown type is read like the known ones. */
        .bytes = {
            0xfe, 0xca, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0x01, 0, 0, 0, 0, 0, 0, 0x80,
            0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        },
        .expect = { 0xcafe, 0x8000000000000001, 0x8000 },
    }, {
        /* Its low byte alone would be PLUG. */
        .bytes = { 0, 1 },
        .expect = { 0x100, 0, 0 },
    },
};

static void check_request(Pieces *pieces, const void *opaque)
{
    const RequestCase *c = opaque;
    VirtIOMEMRequest request;

    pieces_put(pieces, c->bytes, REQUEST_SIZE);
    memset(&request, GUARD, sizeof(request));
    g_assert_true(virtio_mem_wire_read_request(pieces->iov, pieces->nb_iov,
                                               &request));
    g_assert_cmphex(request.type, ==, c->expect.type);
    g_assert_cmphex(request.gpa, ==, c->expect.gpa);
    g_assert_cmphex(request.nb_blocks, ==, c->expect.nb_blocks);
    pieces_assert(pieces, c->bytes, REQUEST_SIZE);
}

static void test_request_cuts(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        foreach_cut(REQUEST_SIZE, check_request, &requests[i]);
    }
}

static void test_request_long(void)
{
    for (size_t len = REQUEST_SIZE + 1; len <= REQUEST_SIZE + 8; len++) {
        foreach_cut(len, check_request, &requests[0]);
    }
}

static void check_request_refused(Pieces *pieces, const void *opaque)
{
    VirtIOMEMRequest request;

    g_assert_false(virtio_mem_wire_read_request(pieces->iov, pieces->nb_iov,
                                                &request));
    pieces_assert(pieces, NULL, 0);
}

static void test_request_short(void)
{
    for (size_t len = 0; len < REQUEST_SIZE; len++) {
        foreach_cut(len, check_request_refused, NULL);
    }
    g_assert_false(virtio_mem_wire_read_request(NULL, 0,
                                                &(VirtIOMEMRequest) { 0 }));
}

/* --- responses --- */

typedef struct ResponseCase {
    VirtIOMEMResponse response;
    uint8_t bytes[RESPONSE_SIZE];
} ResponseCase;

static const ResponseCase responses[] = {
    { { VIRTIO_MEM_RESP_ACK, 0 }, { 0 } },
    { { VIRTIO_MEM_RESP_NACK, 0 }, { 1 } },
    { { VIRTIO_MEM_RESP_BUSY, 0 }, { 2 } },
    { { VIRTIO_MEM_RESP_ERROR, 0 }, { 3 } },
    { { VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_STATE_UNPLUGGED },
      { 0, 0, 0, 0, 0, 0, 0, 0, 1, 0 } },
    { { VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_STATE_MIXED },
      { 0, 0, 0, 0, 0, 0, 0, 0, 2, 0 } },
    /* No such values exist, but each byte has its place. */
    { { 0x0201, 0x0403 }, { 1, 2, 0, 0, 0, 0, 0, 0, 3, 4 } },
};

static void check_response(Pieces *pieces, const void *opaque)
{
    const ResponseCase *c = opaque;

    g_assert_true(virtio_mem_wire_response_fits(pieces->iov, pieces->nb_iov));
    g_assert_cmpuint(virtio_mem_wire_write_response(pieces->iov,
                                                    pieces->nb_iov,
                                                    &c->response), ==,
                     RESPONSE_SIZE);
    pieces_assert(pieces, c->bytes, RESPONSE_SIZE);
}

static void test_response_cuts(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(responses); i++) {
        foreach_cut(RESPONSE_SIZE, check_response, &responses[i]);
    }
}

static void test_response_long(void)
{
    for (size_t len = RESPONSE_SIZE + 1; len <= RESPONSE_SIZE + 16; len++) {
        foreach_cut(len, check_response, &responses[6]);
    }
}

static void check_does_not_fit(Pieces *pieces, const void *opaque)
{
    g_assert_false(virtio_mem_wire_response_fits(pieces->iov, pieces->nb_iov));
}

static void test_response_short(void)
{
    for (size_t len = 0; len < RESPONSE_SIZE; len++) {
        foreach_cut(len, check_does_not_fit, NULL);
    }
    g_assert_false(virtio_mem_wire_response_fits(NULL, 0));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/wire/request/every-cut", test_request_cuts);
    g_test_add_func("/virtio-mem/wire/request/longer-buffers",
                    test_request_long);
    g_test_add_func("/virtio-mem/wire/request/short-is-refused",
                    test_request_short);
    g_test_add_func("/virtio-mem/wire/response/every-cut", test_response_cuts);
    g_test_add_func("/virtio-mem/wire/response/longer-buffers-stay-untouched",
                    test_response_long);
    g_test_add_func("/virtio-mem/wire/response/short-does-not-fit",
                    test_response_short);
    return g_test_run();
}
