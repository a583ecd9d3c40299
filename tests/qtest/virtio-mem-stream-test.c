/*
 * virtio-mem: the bytes of the migration stream, true and false ones
 *
 * True ones are what QEMU 10.0 writes.  False ones, as a hostile or broken
 * source might send them, are refused with a message, and QEMU goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-mem-migrate.h"

#define BLOCKS_AT_4G    (4 * GiB)
#define EARLY           "0000:00:04.0/virtio-mem-device-early"
#define LATE            "0000:00:04.0/virtio-mem"

/* Offsets in the early payload. */
#define EARLY_ADDR      0
#define EARLY_REGION    8
#define EARLY_BLOCK     16
#define EARLY_NODE      24
#define EARLY_SIZE      28
#define EARLY_BITMAP    36

static const VirtioMemOptions small = {
    .region_size = GiB, .memaddr = BLOCKS_AT_4G,
};
static const VirtioMemOptions small_late = {
    .region_size = GiB, .memaddr = BLOCKS_AT_4G,
    .device = "x-early-migration=off",
};
/* 515 blocks: the last word of the bitmap has 61 bits too many. */
static const VirtioMemOptions odd = {
    .region_size = 1030 * MiB, .memaddr = BLOCKS_AT_4G,
};

/* --- reading --- */

/* Blocks 0, 3, 4 and 65 plugged, U 512 MiB, Q 256 MiB. */
static GByteArray *stream_make_with(const char *env,
                                    const VirtioMemOptions *opts)
{
    g_autofree char *path = virtio_mem_temp_path("true.stream");
    VirtioMemGuest *vm = virtio_mem_start_with(env, opts);
    char *bytes;
    gsize size;

    g_assert_cmphex(vm->addr, ==, BLOCKS_AT_4G);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 3, 2, ACK);
    vm_assert_plug(vm, 65, 1, ACK);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, 512 * MiB);
    virtio_mem_save(vm, path);
    virtio_mem_guest_stop(vm);
    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    return g_byte_array_new_take((uint8_t *)bytes, size);
}

static GByteArray *stream_make(const VirtioMemOptions *opts)
{
    return stream_make_with(NULL, opts);
}

static uint8_t *stream_find(GByteArray *stream, size_t from,
                            const void *what, size_t len)
{
    return memmem(stream->data + from, stream->len - from, what, len);
}

/*
 * A full section: 04, be32 id, length and idstr, be32 instance, be32 version,
 * payload, 7e, be32 id.  Returns the payload.
 */
static uint8_t *stream_section(GByteArray *stream, const char *idstr,
                               size_t *size)
{
    g_autofree char *name = g_strdup_printf("%c%s", (int)strlen(idstr),
                                            idstr);
    uint8_t *at = stream_find(stream, 0, name, strlen(name));
    uint8_t footer[5] = { 0x7e };
    uint8_t *payload, *end;

    g_assert_nonnull(at);
    g_assert_cmphex(at[-5], ==, 4);
    memcpy(footer + 1, at - 4, 4);
    payload = at + strlen(name) + 8;
    end = stream_find(stream, payload - stream->data, footer, sizeof(footer));
    g_assert_nonnull(end);
    *size = end - payload;
    return payload;
}

/* In the late section: usable and requested size, one after the other. */
static uint8_t *stream_late(GByteArray *stream)
{
    size_t size;
    uint8_t *payload = stream_section(stream, LATE, &size);
    uint8_t wanted[16], *at;

    stq_be_p(wanted, 512 * MiB);
    stq_be_p(wanted + 8, VM_REQUESTED);
    at = memmem(payload, size, wanted, sizeof(wanted));
    g_assert_nonnull(at);
    return at;
}

/* --- true --- */

static void test_early_payload(VirtioMemGuest *unused)
{
    g_autoptr(GByteArray) stream = stream_make(&small);
    uint8_t expected[EARLY_BITMAP + 64] = {};
    size_t size;
    uint8_t *payload = stream_section(stream, EARLY, &size);

    stq_be_p(expected + EARLY_ADDR, 0x100000000);
    stq_be_p(expected + EARLY_REGION, 0x40000000);
    stq_be_p(expected + EARLY_BLOCK, 0x200000);
    stq_be_p(expected + EARLY_SIZE, 0x800000);
    stq_be_p(expected + EARLY_BITMAP, 0x19);
    stq_be_p(expected + EARLY_BITMAP + 8, 0x2);
    g_assert_cmpmem(payload, size, expected, sizeof(expected));
}

/* Sanity checks, usable, size, requested, bitmap, all in the one section. */
static void test_late_payload(VirtioMemGuest *unused)
{
    g_autoptr(GByteArray) stream = stream_make(&small_late);
    uint8_t expected[28 + 24 + 64] = {};
    size_t size;
    uint8_t *payload = stream_section(stream, LATE, &size);

    stq_be_p(expected, 0x100000000);
    stq_be_p(expected + 8, 0x40000000);
    stq_be_p(expected + 16, 0x200000);
    stq_be_p(expected + 28, 0x20000000);
    stq_be_p(expected + 36, 0x800000);
    stq_be_p(expected + 44, 0x10000000);
    stq_be_p(expected + 52, 0x19);
    stq_be_p(expected + 60, 0x2);
    g_assert_nonnull(memmem(payload, size, expected, sizeof(expected)));
    g_assert_null(stream_find(stream, 0, "device-early", 12));
}

/* Tools decode streams by this description. */
static void test_description(VirtioMemGuest *unused)
{
    static const char expected[] =
        "{\"name\": \"" EARLY "\", \"instance_id\": 0, "
        "\"vmsd_name\": \"virtio-mem-device-early\", \"version\": 1, "
        "\"fields\": [{\"name\": \"tmp\", \"type\": \"tmp\", "
        "\"vmsd_name\": \"virtio-mem-device/sanity-checks\", "
        "\"version\": 0, \"fields\": ["
        "{\"name\": \"addr\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"region_size\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"block_size\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"node\", \"type\": \"uint32\", \"size\": 4}], "
        "\"size\": 28}, "
        "{\"name\": \"size\", \"type\": \"uint64\", \"size\": 8}, "
        "{\"name\": \"bitmap\", \"type\": \"bitmap\", \"size\": 64}]}";
    g_autoptr(GByteArray) stream = stream_make(&small);

    g_assert_nonnull(stream_find(stream, 0, expected, strlen(expected)));
}

static void stream_check_same(GByteArray *a, GByteArray *b, const char *idstr)
{
    size_t size_a, size_b;
    uint8_t *payload_a = stream_section(a, idstr, &size_a);
    uint8_t *payload_b = stream_section(b, idstr, &size_b);

    g_assert_cmpmem(payload_a, size_a, payload_b, size_b);
}

static void stream_check_stock(const char *idstr)
{
    const VirtioMemOptions opts = virtio_mem_with_stock(&small);
    g_autoptr(GByteArray) ours = NULL;
    g_autoptr(GByteArray) theirs = NULL;

    if (!virtio_mem_have_stock()) {
        return;
    }
    ours = stream_make(&opts);
    theirs = stream_make_with(VM_STOCK_BINARY, &opts);
    stream_check_same(ours, theirs, idstr);
}

static void test_same_early_as_stock(VirtioMemGuest *unused)
{
    stream_check_stock(EARLY);
}

/*
 * Down to the transport, the ring and the vectors: so this is for stock of our
 * own series only.
 */
static void test_same_as_stock(VirtioMemGuest *unused)
{
    stream_check_stock(LATE);
}

/* --- false --- */

typedef struct StreamPatch {
    unsigned offset;        /* in the early payload, or LATE_* */
    uint64_t value;
    bool is_32_bit;
} StreamPatch;

/* Offsets that mean the late section. */
#define LATE_USABLE     0x10000
#define LATE_REQUESTED  0x10008

static void stream_apply(GByteArray *stream, const StreamPatch *patch,
                         uint8_t *early, uint8_t *late)
{
    uint8_t *at = patch->offset >= LATE_USABLE
        ? late + patch->offset - LATE_USABLE : early + patch->offset;

    if (patch->is_32_bit) {
        stl_be_p(at, patch->value);
    } else {
        stq_be_p(at, patch->value);
    }
}

static bool stream_load(const VirtioMemOptions *opts, const uint8_t *bytes,
                        size_t size, VirtioMemGuest **to, char **error)
{
    g_autofree char *path = virtio_mem_temp_path("false.stream");

    g_assert_true(g_file_set_contents(path, (const char *)bytes, size, NULL));
    return virtio_mem_load(opts, path, to, error);
}

/* An error that names what is wrong: more than "Invalid argument". */
static void stream_assert_refused(const VirtioMemOptions *opts,
                                  const uint8_t *bytes, size_t size,
                                  const char *pattern)
{
    g_autofree char *error = NULL;
    VirtioMemGuest *to;
    bool loaded = stream_load(opts, bytes, size, &to, &error);

    qtest_qmp_assert_success(to->qts, "{ 'execute': 'query-status' }");
    virtio_mem_guest_stop(to);
    g_assert_false(loaded);
    if (!g_regex_match_simple(pattern, error, G_REGEX_CASELESS, 0)) {
        g_test_message("no '%s' in: %s", pattern, error);
        g_test_fail();
    }
}

static void stream_check_refused(const VirtioMemOptions *opts,
                                 const StreamPatch *patches, size_t nb,
                                 const char *pattern)
{
    g_autoptr(GByteArray) stream = stream_make(opts);
    size_t size;
    uint8_t *early = stream_section(stream, EARLY, &size);
    uint8_t *late = stream_late(stream);

    for (size_t i = 0; i < nb; i++) {
        stream_apply(stream, &patches[i], early, late);
    }
    stream_assert_refused(opts, stream->data, stream->len, pattern);
}

#define REFUSED(name, opts, pattern, ...) \
    static void test_##name(VirtioMemGuest *unused) \
    { \
        static const StreamPatch patches[] = { __VA_ARGS__ }; \
        stream_check_refused(&opts, patches, ARRAY_SIZE(patches), pattern); \
    }

REFUSED(addr, small, "addr", { EARLY_ADDR, BLOCKS_AT_4G + VM_BLOCK })
REFUSED(region, small, "region|memdev", { EARLY_REGION, 2 * GiB })
REFUSED(block, small, "block", { EARLY_BLOCK, 4 * MiB })
REFUSED(node, small, "node", { EARLY_NODE, 1, true })
REFUSED(size_zero, small, "size", { EARLY_SIZE, 0 })
REFUSED(size_larger, small, "size", { EARLY_SIZE, 10 * MiB })
REFUSED(size_huge, small, "size", { EARLY_SIZE, UINT64_MAX })
REFUSED(bit_more, small, "size", { EARLY_BITMAP, 0x1b })
REFUSED(bit_less, small, "size", { EARLY_BITMAP, 0x18 })
REFUSED(bit_beyond_last, odd, "bitmap|block",
        { EARLY_BITMAP + 64, 1ULL << 63 }, { EARLY_SIZE, 10 * MiB })
REFUSED(bit_beyond_last_uncounted, odd, "bitmap|block",
        { EARLY_BITMAP + 64, 1ULL << 3 })
REFUSED(bit_beyond_usable, small, "usable",
        { EARLY_BITMAP + 56, 1ULL << 63 }, { EARLY_SIZE, 10 * MiB })
REFUSED(usable_below_plugged, small, "usable",
        { LATE_USABLE, 128 * MiB }, { LATE_REQUESTED, 64 * MiB })
REFUSED(usable_zero, small, "usable",
        { LATE_USABLE, 0 }, { LATE_REQUESTED, 0 })
REFUSED(usable_unaligned, small, "usable", { LATE_USABLE, 513 * MiB })
REFUSED(usable_above_region, small, "usable", { LATE_USABLE, 2 * GiB })
REFUSED(usable_huge, small, "usable", { LATE_USABLE, UINT64_MAX })
REFUSED(requested_unaligned, small, "requested", { LATE_REQUESTED, 257 * MiB })
REFUSED(requested_above_usable, small, "requested|usable",
        { LATE_REQUESTED, 768 * MiB })
REFUSED(requested_above_region, small, "requested", { LATE_REQUESTED, 2 * GiB })
REFUSED(requested_huge, small, "requested",
        { LATE_REQUESTED, -(uint64_t)VM_BLOCK })

static void test_late_size(VirtioMemGuest *unused)
{
    g_autoptr(GByteArray) stream = stream_make(&small_late);
    uint8_t sizes[24], *at;

    stq_be_p(sizes, 512 * MiB);
    stq_be_p(sizes + 8, 8 * MiB);
    stq_be_p(sizes + 16, VM_REQUESTED);
    at = stream_find(stream, 0, sizes, sizeof(sizes));
    g_assert_nonnull(at);
    stq_be_p(at + 8, 16 * MiB);
    stream_assert_refused(&small_late, stream->data, stream->len, "size");
}

static void test_truncated(VirtioMemGuest *unused)
{
    g_autoptr(GByteArray) stream = stream_make(&small);
    size_t size;
    uint8_t *early = stream_section(stream, EARLY, &size);
    uint8_t *late = stream_late(stream);

    stream_assert_refused(&small, stream->data,
                          early - stream->data + EARLY_SIZE + 3, ".");
    stream_assert_refused(&small, stream->data,
                          early - stream->data + EARLY_BITMAP + 40, ".");
    stream_assert_refused(&small, stream->data, late - stream->data + 12,
                          ".");
}

/* --- random --- */

static void stream_mutate(GByteArray *stream)
{
    size_t size;
    uint8_t *early = stream_section(stream, EARLY, &size);
    uint8_t *late = stream_late(stream);
    int nb = g_test_rand_int_range(1, 4);

    for (int i = 0; i < nb; i++) {
        int at = g_test_rand_int_range(0, size + 16);
        uint8_t *byte = at < size ? early + at : late + at - size;

        *byte = g_test_rand_bit() ? *byte ^ (1 << g_test_rand_int_range(0, 8))
                                  : g_test_rand_int_range(0, 256);
    }
}

/* Whatever was let in must make sense. */
static void stream_check_sane(VirtioMemGuest *to)
{
    QDict *device;
    uint64_t size, requested;

    to->id = "vm0";
    device = virtio_mem_query(to);
    size = qdict_get_int(device, "size");
    requested = qdict_get_int(device, "requested-size");
    g_assert_cmphex(size, <=, GiB);
    g_assert_cmphex(requested, <=, GiB);
    g_assert_cmphex((size | requested) & (VM_BLOCK - 1), ==, 0);
    qobject_unref(device);
    qtest_system_reset(to->qts);
    g_assert_cmphex(virtio_mem_qom_get(to, "size"), ==, 0);
}

static void test_random(VirtioMemGuest *unused)
{
    g_autoptr(GByteArray) good = stream_make(&small);

    for (unsigned i = g_test_slow() ? 3000 : 150; i > 0; i--) {
        g_autoptr(GByteArray) bad = g_byte_array_new();
        g_autofree char *error = NULL;
        VirtioMemGuest *to;

        g_byte_array_append(bad, good->data, good->len);
        stream_mutate(bad);
        if (stream_load(&small, bad->data, bad->len, &to, &error)) {
            stream_check_sane(to);
        }
        qtest_qmp_assert_success(to->qts, "{ 'execute': 'query-status' }");
        virtio_mem_guest_stop(to);
    }
}

/* Two QEMUs of their own; rings and interrupts do not matter. */
#define STREAM .once = true, .no_guest = true

static const VirtioMemTest tests[] = {
    { "T240", "stream/early-payload", test_early_payload, STREAM },
    { "T240", "stream/late-payload", test_late_payload, STREAM },
    { "T240", "stream/description", test_description, STREAM },
    { "T240", "stream/same-early-bytes-as-stock",
      test_same_early_as_stock, STREAM },
    { "T240", "stream/same-bytes-as-stock", test_same_as_stock, STREAM },
    { "T242", "stream/other-address-is-refused", test_addr, STREAM },
    { "T242", "stream/other-region-is-refused", test_region, STREAM },
    { "T242", "stream/other-block-size-is-refused", test_block, STREAM },
    { "T242", "stream/other-node-is-refused", test_node, STREAM },
    { "T243", "stream/size-zero-is-refused", test_size_zero, STREAM },
    { "T243", "stream/size-above-bitmap-is-refused",
      test_size_larger, STREAM },
    { "T243", "stream/size-near-2-64-is-refused", test_size_huge, STREAM },
    { "T243", "stream/bit-too-many-is-refused", test_bit_more, STREAM },
    { "T243", "stream/bit-too-few-is-refused", test_bit_less, STREAM },
    { "T243 R-4", "stream/bit-beyond-last-block-is-refused",
      test_bit_beyond_last, STREAM },
    { "T243 R-4", "stream/uncounted-bit-beyond-last-block-is-refused",
      test_bit_beyond_last_uncounted, STREAM },
    { "T243 R-4", "stream/block-beyond-usable-region-is-refused",
      test_bit_beyond_usable, STREAM },
    { "T243 R-4", "stream/usable-below-plugged-is-refused",
      test_usable_below_plugged, STREAM },
    { "T243 R-4", "stream/usable-zero-is-refused", test_usable_zero, STREAM },
    { "T243 R-4", "stream/usable-unaligned-is-refused",
      test_usable_unaligned, STREAM },
    { "T243 R-4", "stream/usable-above-region-is-refused",
      test_usable_above_region, STREAM },
    { "T243 R-4", "stream/usable-near-2-64-is-refused",
      test_usable_huge, STREAM },
    { "T243 R-4", "stream/requested-unaligned-is-refused",
      test_requested_unaligned, STREAM },
    { "T243 R-4", "stream/requested-above-usable-is-refused",
      test_requested_above_usable, STREAM },
    { "T243 R-4", "stream/requested-above-region-is-refused",
      test_requested_above_region, STREAM },
    { "T243 R-4", "stream/requested-near-2-64-is-refused",
      test_requested_huge, STREAM },
    { "T243 R-4", "stream/size-in-late-format-is-refused",
      test_late_size, STREAM },
    { "T243", "stream/truncated-is-refused", test_truncated, STREAM },
    { "T243", "stream/random-changes-do-no-harm", test_random, STREAM },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
