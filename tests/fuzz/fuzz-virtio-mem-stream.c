/*
 * virtio-mem: migration streams of any bytes, and a second opinion on each
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* The device, its surroundings and the opinion are those of the unit test. */
#define main test_virtio_mem_stream_main
#include "../unit/test-virtio-mem-stream.c"
#undef main
#include "../unit/virtio-mem-fuzz.h"

/* A device for each format. */
static FakeHost hosts[2];
static const VMStateDescription *early_vmsd;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    module_call_init(MODULE_INIT_QOM);
    init_clocks(NULL);
    host_init(&hosts[false], false);
    host_reset(&hosts[false]);
    host_init(&hosts[true], true);
    host_reset(&hosts[true]);
    early_vmsd = world.early;
    return 0;
}

/* Both formats begin with what must be the device's own. */
static void put_device(Stream *stream)
{
    stq_be_p(stream->bytes, STREAM_ADDR);
    stq_be_p(stream->bytes + 8, STREAM_REGION);
    stq_be_p(stream->bytes + 16, FAKE_BLOCK_SIZE);
    stl_be_p(stream->bytes + 24, STREAM_NODE);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    const uint8_t how = fuzz_take(&input, 1);
    FakeHost *host = &hosts[how & 1];
    Stream stream;

    world.early = how & 1 ? early_vmsd : NULL;
    world.postcopy = how & 2;
    world.ignored = how & 4;
    /* In the other format there is a warning, too. */
    host->vmem.prealloc = (how & 9) == 9;
    stream.len = MIN(input.len, sizeof(stream.bytes));
    memcpy(stream.bytes, input.bytes, stream.len);
    if (how & 16) {
        put_device(&stream);
    }
    check_stream(host, &stream);
    return 0;
}
