/*
 * Migration streams, true and false ones, and an opinion on each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "virtio-mem-streams.h"

#define SUBSECTION      0x05        /* QEMU_VM_SUBSECTION */
#define F_FOOTER        NB_FIELDS

static const int early_layout[] = {
    F_ADDR, F_REGION, F_BLOCK, F_NODE, F_SIZE, F_BITMAP, F_FOOTER,
    F_USABLE, F_REQUESTED, F_FOOTER, -1,
};

static const int late_layout[] = {
    F_ADDR, F_REGION, F_BLOCK, F_NODE, F_USABLE, F_SIZE, F_REQUESTED,
    F_BITMAP, F_FOOTER, -1,
};

static const int *stream_layout(bool early)
{
    return early ? early_layout : late_layout;
}

static size_t field_len(int field)
{
    return field == F_FOOTER ? 1 : field == F_NODE ? 4 : 8;
}

/* --- true --- */

static uint64_t random_64(void)
{
    return (uint64_t)(uint32_t)g_test_rand_int() << 32 |
           (uint32_t)g_test_rand_int();
}

static uint64_t random_below(uint64_t limit)
{
    return random_64() % limit;
}

static StreamValues values_true(void)
{
    const uint64_t usable = random_below(FAKE_BLOCKS + 1);
    const uint64_t bitmap = random_64() & ((1ULL << usable) - 1) &
                            (g_test_rand_bit() ? random_64() : UINT64_MAX);

    return (StreamValues) { {
        [F_ADDR] = STREAM_ADDR,
        [F_REGION] = STREAM_REGION,
        [F_BLOCK] = FAKE_BLOCK_SIZE,
        [F_NODE] = STREAM_NODE,
        [F_SIZE] = ctpop64(bitmap) * FAKE_BLOCK_SIZE,
        [F_BITMAP] = bitmap,
        [F_USABLE] = usable * FAKE_BLOCK_SIZE,
        [F_REQUESTED] = random_below(usable + 1) * FAKE_BLOCK_SIZE,
    } };
}

static void stream_write(Stream *stream, bool early,
                         const StreamValues *values)
{
    const int *field;

    stream->len = 0;
    for (field = stream_layout(early); *field >= 0; field++) {
        const size_t len = field_len(*field);

        stn_be_p(stream->bytes + stream->len, len,
                 *field == F_FOOTER ? STREAM_FOOTER : values->value[*field]);
        stream->len += len;
    }
}

void stream_make_true(Stream *stream, bool early)
{
    const StreamValues values = values_true();

    stream_write(stream, early, &values);
}

/* --- changed: values --- */

static uint64_t interesting(uint64_t value)
{
    const uint64_t values[] = {
        0, 1, FAKE_BLOCK_SIZE - 1, FAKE_BLOCK_SIZE, FAKE_BLOCK_SIZE / 2,
        STREAM_REGION, STREAM_REGION - FAKE_BLOCK_SIZE,
        STREAM_REGION + FAKE_BLOCK_SIZE, STREAM_ADDR,
        1ULL << 63, UINT64_MAX, -(uint64_t)FAKE_BLOCK_SIZE, UINT32_MAX,
        1ULL << (FAKE_BLOCKS - 1), 1ULL << FAKE_BLOCKS, ~value, -value,
        value + FAKE_BLOCK_SIZE, value - FAKE_BLOCK_SIZE, value + 1,
        random_64(), random_below(FAKE_BLOCKS + 2) * FAKE_BLOCK_SIZE,
    };

    return values[random_below(ARRAY_SIZE(values))];
}

static void change_a_value(StreamValues *values)
{
    uint64_t *value = &values->value[random_below(NB_FIELDS)];

    *value = interesting(*value);
}

/* Any blocks, with the size that they have. */
static void change_the_blocks(StreamValues *values)
{
    const uint64_t bitmap = random_64() >> random_below(64);

    values->value[F_BITMAP] = bitmap;
    values->value[F_SIZE] = ctpop64(bitmap) * FAKE_BLOCK_SIZE;
}

static void (*const value_changes[])(StreamValues *) = {
    change_a_value, change_the_blocks,
};

/* --- changed: bytes --- */

static void change_bits(Stream *stream)
{
    for (int i = random_below(3); i >= 0; i--) {
        stream->bytes[random_below(stream->len)] ^= 1 << random_below(8);
    }
}

static void change_bytes(Stream *stream)
{
    for (int i = random_below(5); i >= 0; i--) {
        stream->bytes[random_below(stream->len)] = random_64();
    }
}

static void change_all(Stream *stream)
{
    stream->len = random_below(STREAM_MAX + 1);
    for (size_t i = 0; i < stream->len; i++) {
        stream->bytes[i] = random_64();
    }
}

static void truncate_it(Stream *stream)
{
    stream->len = random_below(stream->len);
}

static void insert_bytes(Stream *stream)
{
    const size_t at = random_below(stream->len);
    const size_t nb = 1 + random_below(8);

    memmove(stream->bytes + at + nb, stream->bytes + at, stream->len - at);
    stream->len += nb;
}

static void remove_bytes(Stream *stream)
{
    const size_t at = random_below(stream->len);
    const size_t nb = MIN(1 + random_below(8), stream->len - at);

    memmove(stream->bytes + at, stream->bytes + at + nb,
            stream->len - at - nb);
    stream->len -= nb;
}

static void copy_bytes(Stream *stream)
{
    const size_t from = random_below(stream->len - 8);
    const size_t to = random_below(stream->len - 8);

    memmove(stream->bytes + to, stream->bytes + from, 8);
}

static void (*const byte_changes[])(Stream *) = {
    change_bits, change_bytes, change_all, truncate_it, insert_bytes,
    remove_bytes, copy_bytes,
};

void stream_make_changed(Stream *stream, bool early)
{
    const size_t nb_values = ARRAY_SIZE(value_changes);
    const size_t what = random_below(nb_values + ARRAY_SIZE(byte_changes));
    StreamValues values = values_true();

    if (what < nb_values) {
        value_changes[what](&values);
    }
    stream_write(stream, early, &values);
    if (what >= nb_values) {
        byte_changes[what - nb_values](stream);
    }
}

/* --- opinion --- */

static bool same_machine(const StreamValues *v)
{
    return v->value[F_ADDR] == STREAM_ADDR &&
           v->value[F_REGION] == STREAM_REGION &&
           v->value[F_BLOCK] == FAKE_BLOCK_SIZE &&
           v->value[F_NODE] == STREAM_NODE;
}

static bool good_blocks(const StreamValues *v)
{
    return !(v->value[F_BITMAP] >> FAKE_BLOCKS) &&
           v->value[F_SIZE] == ctpop64(v->value[F_BITMAP]) * FAKE_BLOCK_SIZE;
}

static bool good_sizes(const StreamValues *v)
{
    const uint64_t usable = v->value[F_USABLE];
    const uint64_t requested = v->value[F_REQUESTED];

    return !((usable | requested) % FAKE_BLOCK_SIZE) &&
           usable <= STREAM_REGION && requested <= usable &&
           !(v->value[F_BITMAP] >> (usable / FAKE_BLOCK_SIZE));
}

/* Whether the device goes on when it has read up to @field. */
static bool device_goes_on(StreamOpinion *opinion, const int *field)
{
    const StreamValues *values = &opinion->values;
    const bool last = field[1] < 0;

    if (*field == F_NODE) {
        return same_machine(values);
    }
    if (*field != F_FOOTER) {
        return true;
    }
    if ((!opinion->blocks_loaded && !good_blocks(values)) ||
        (last && !good_sizes(values))) {
        return false;
    }
    opinion->blocks_loaded = true;
    return true;
}

/* Whether the reader takes what comes next for a subsection. */
static bool subsection_at(const Stream *stream, size_t at)
{
    return at < stream->len && stream->bytes[at] == SUBSECTION;
}

/*
 * A missing footer reads as 0; it is looked for when the device is done.
 * Before it, and behind what must match, there may be subsections.
 */
void stream_form_opinion(StreamOpinion *opinion, const Stream *stream,
                         bool early)
{
    const int *field;
    size_t at = 0;

    *opinion = (StreamOpinion) { .verdict = REFUSED_BY_READER };
    for (field = stream_layout(early); *field >= 0; field++) {
        const size_t len = field_len(*field);
        const bool here = at + len <= stream->len;
        const uint64_t value = here ? ldn_be_p(stream->bytes + at, len) : 0;

        opinion->unclear =
            (*field == F_FOOTER && subsection_at(stream, at)) ||
            (*field == F_NODE && subsection_at(stream, at + len));
        at += len;
        if (*field != F_FOOTER && here) {
            opinion->values.value[*field] = value;
        }
        if (opinion->unclear || (*field != F_FOOTER && !here)) {
            return;
        }
        if (!device_goes_on(opinion, field)) {
            opinion->verdict = REFUSED_BY_DEVICE;
            return;
        }
        if (*field == F_FOOTER && value != STREAM_FOOTER) {
            return;
        }
    }
    opinion->verdict = TAKEN;
}
