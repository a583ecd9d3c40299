/*
 * virtio-mem: requests from wire to answer, beside a naive twin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-config.h"
#include "hw/virtio/virtio-mem-request.h"
#include "hw/virtio/virtio-mem-status.h"
#include "hw/virtio/virtio-mem-wake.h"
#include "../unit/virtio-mem-fake-host.h"
#include "../unit/virtio-mem-fuzz.h"

#define ADDR (4 * GiB)

/* --- fakes --- */

static struct {
    bool migrating;
    bool will_wake;
} world;

bool virtio_mem_migration_forbids_change(void)
{
    return world.migrating;
}

void virtio_mem_wake_later(VirtIOMEM *vmem)
{
    world.will_wake = true;
}

void virtio_mem_wake_reset_backoff(VirtIOMEM *vmem)
{
}

void virtio_mem_status_note_request(VirtIOMEM *vmem, bool wants_change,
                                    VirtioMEMResizeReason reason)
{
}

/* --- the twin --- */

typedef struct Twin {
    FakeHost host;
    bool plugged[FAKE_BLOCKS];
} Twin;

static uint64_t twin_count(const Twin *twin, uint64_t first, uint64_t nb)
{
    uint64_t count = 0;

    for (uint64_t i = first; i < first + nb; i++) {
        count += twin->plugged[i];
    }
    return count;
}

/* What to answer, if neither the host nor a migration is in the way. */
static VirtIOMEMResponse twin_answer(const Twin *twin, uint16_t type,
                                     uint64_t gpa, uint16_t nb)
{
    const uint64_t nb_usable = twin->host.vmem.usable_region_size /
                               FAKE_BLOCK_SIZE;
    const uint64_t first = (gpa - ADDR) / FAKE_BLOCK_SIZE;
    const bool is_plug = type == VIRTIO_MEM_REQ_PLUG;
    uint64_t count;

    if (type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        return (VirtIOMEMResponse) { VIRTIO_MEM_RESP_ACK };
    }
    if (type > VIRTIO_MEM_REQ_STATE || gpa < ADDR || gpa % FAKE_BLOCK_SIZE ||
        !nb || first >= nb_usable || nb > nb_usable - first) {
        return (VirtIOMEMResponse) { VIRTIO_MEM_RESP_ERROR };
    }
    count = twin_count(twin, first, nb);
    if (type == VIRTIO_MEM_REQ_STATE) {
        return (VirtIOMEMResponse) {
            VIRTIO_MEM_RESP_ACK, count == nb ? VIRTIO_MEM_STATE_PLUGGED :
            count ? VIRTIO_MEM_STATE_MIXED : VIRTIO_MEM_STATE_UNPLUGGED };
    }
    if (count != (is_plug ? 0 : nb)) {
        return (VirtIOMEMResponse) { VIRTIO_MEM_RESP_ERROR };
    }
    if (is_plug && (twin_count(twin, 0, FAKE_BLOCKS) + nb) * FAKE_BLOCK_SIZE >
                   twin->host.vmem.asked_size) {
        return (VirtIOMEMResponse) { VIRTIO_MEM_RESP_NACK };
    }
    return (VirtIOMEMResponse) { VIRTIO_MEM_RESP_ACK };
}

static void twin_change(Twin *twin, uint16_t type, uint64_t gpa, uint16_t nb)
{
    if (type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        memset(twin->plugged, false, sizeof(twin->plugged));
    } else if (type != VIRTIO_MEM_REQ_STATE) {
        memset(twin->plugged + (gpa - ADDR) / FAKE_BLOCK_SIZE,
               type == VIRTIO_MEM_REQ_PLUG, nb);
    }
}

static void twin_check(const Twin *twin)
{
    const VirtIOMEM *vmem = &twin->host.vmem;
    char drawing[FAKE_BLOCKS + 1] = { 0 };

    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        drawing[i] = twin->plugged[i] ? '#' : '.';
        g_assert_true(!twin->plugged[i] ||
                      i * FAKE_BLOCK_SIZE < vmem->usable_region_size);
    }
    fake_host_assert_drawing(&twin->host, drawing);
    fake_host_assert_agreement(&twin->host);
    g_assert_cmphex(vmem->asked_size, <=, vmem->usable_region_size);
    g_assert_cmphex(vmem->usable_region_size, <=,
                    FAKE_BLOCKS * FAKE_BLOCK_SIZE);
}

/* --- the guest, and what happens to it --- */

/* Most are of some sense; any may come. */
static void take_request(FuzzInput *input, uint8_t *bytes)
{
    const uint8_t kind = fuzz_take(input, 1);
    const uint64_t block = fuzz_take(input, 1) % (FAKE_BLOCKS + 2);

    for (unsigned i = 0; i < 24; i++) {
        bytes[i] = kind & 1 ? 0 : fuzz_take(input, 1);
    }
    if (kind & 1) {
        stw_le_p(bytes, kind >> 1 & 3);
        stq_le_p(bytes + 8, ADDR + block * FAKE_BLOCK_SIZE);
        stw_le_p(bytes + 16, fuzz_take(input, 1) % (FAKE_BLOCKS + 2));
    }
}

static void twin_serve(Twin *twin, FuzzInput *input)
{
    VirtIOMEMResponse expected, response;
    VirtIOMEMRequest request;
    bool changes;
    uint8_t bytes[24];
    const struct iovec iov = { bytes, sizeof(bytes) };

    take_request(input, bytes);
    g_assert_true(virtio_mem_wire_read_request(&iov, 1, &request));
    expected = twin_answer(twin, lduw_le_p(bytes), ldq_le_p(bytes + 8),
                           lduw_le_p(bytes + 16));
    changes = expected.type == VIRTIO_MEM_RESP_ACK &&
              request.type != VIRTIO_MEM_REQ_STATE;
    if (changes && world.migrating &&
        (request.type != VIRTIO_MEM_REQ_UNPLUG_ALL ||
         twin_count(twin, 0, FAKE_BLOCKS))) {
        expected.type = VIRTIO_MEM_RESP_BUSY;
    }
    world.will_wake = false;
    response = virtio_mem_request_serve(&twin->host.vmem, &request);
    if (fake_host_has_refused(&twin->host)) {
        g_assert_true(changes);
        expected.type = VIRTIO_MEM_RESP_BUSY;
    }
    g_assert_cmpuint(response.type, ==, expected.type);
    g_assert_cmpuint(response.state, ==, expected.state);
    g_assert_cmpint(world.will_wake, ==, response.type == VIRTIO_MEM_RESP_BUSY);
    if (changes && response.type == VIRTIO_MEM_RESP_ACK) {
        twin_change(twin, request.type, request.gpa, request.nb_blocks);
    }
}

static void twin_ask(Twin *twin, uint64_t size)
{
    if (size != twin->host.vmem.asked_size) {
        virtio_mem_config_set_asked_size(&twin->host.vmem, size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    Twin twin;

    memset(&twin.plugged, false, sizeof(twin.plugged));
    fake_host_draw(&twin.host, FAKE_EMPTY);
    twin.host.vmem.addr = ADDR;
    fake_asks_guest = true;
    world.migrating = false;
    while (input.len) {
        const uint8_t what = fuzz_take(&input, 1);

        switch (what & 7) {
        case 0:
            twin_ask(&twin, fuzz_take(&input, 1) % (FAKE_BLOCKS + 1) *
                            FAKE_BLOCK_SIZE);
            break;
        case 1:
            world.migrating = what & 8;
            break;
        default:
            fake_host_refuse_at(&twin.host, what & 128 ? what >> 4 & 7 : 0);
            twin_serve(&twin, &input);
        }
        twin_check(&twin);
    }
    fake_host_destroy(&twin.host);
    return 0;
}
