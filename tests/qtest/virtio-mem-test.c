/*
 * virtio-mem in QEMU's own graph of machines and devices.
 *
 * Shows that the device serves a driver on every machine that the graph can
 * build; what exactly it answers is tested by the other virtio-mem tests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "libqtest-single.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-mem.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_mem.h"

/* VM_WAIT_USEC of the tiny guest, which the other tests have. */
#define ANSWER_USEC (60 * G_USEC_PER_SEC)

static uint64_t mem_config(QVirtioMem *mem, size_t offset)
{
    return qvirtio_config_readq(mem->vdev, offset);
}

/* Send one request for the first @nb_blocks blocks; returns the answer. */
static uint16_t mem_request(QVirtioMem *mem, QGuestAllocator *alloc,
                            uint16_t type, uint16_t nb_blocks)
{
    QTestState *qts = global_qtest;
    uint64_t req_gpa = guest_alloc(alloc, sizeof(struct virtio_mem_req));
    uint64_t resp_gpa = guest_alloc(alloc, sizeof(struct virtio_mem_resp));
    uint64_t addr = mem_config(mem, offsetof(struct virtio_mem_config, addr));
    struct virtio_mem_req req = {
        .type = cpu_to_le16(type),
        .u.plug = {
            .addr = cpu_to_le64(addr),
            .nb_blocks = cpu_to_le16(nb_blocks),
        },
    };
    struct virtio_mem_resp resp;
    uint32_t head, len;

    qtest_memwrite(qts, req_gpa, &req, sizeof(req));
    qtest_memset(qts, resp_gpa, 0xff, sizeof(resp));
    head = qvirtqueue_add(qts, mem->vq, req_gpa, sizeof(req), false, true);
    qvirtqueue_add(qts, mem->vq, resp_gpa, sizeof(resp), true, false);
    qvirtqueue_kick(qts, mem->vdev, mem->vq, head);
    qvirtio_wait_used_elem(qts, mem->vdev, mem->vq, head, &len, ANSWER_USEC);
    g_assert_cmpuint(len, ==, sizeof(resp));
    qtest_memread(qts, resp_gpa, &resp, sizeof(resp));
    guest_free(alloc, req_gpa);
    guest_free(alloc, resp_gpa);
    return le16_to_cpu(resp.type);
}

static void test_config(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioMem *mem = obj;

    g_assert_cmpuint(mem->vdev->device_type, ==, VIRTIO_ID_MEM);
    g_assert_cmphex(mem_config(mem, offsetof(struct virtio_mem_config,
                                             block_size)), ==, 2 * MiB);
    g_assert_cmphex(mem_config(mem, offsetof(struct virtio_mem_config,
                                             region_size)), ==, 1 * GiB);
    g_assert_cmphex(mem_config(mem, offsetof(struct virtio_mem_config,
                                             requested_size)), ==, 64 * MiB);
    g_assert_cmphex(mem_config(mem, offsetof(struct virtio_mem_config,
                                             plugged_size)), ==, 0);
}

static void test_plug_and_unplug(void *obj, void *data,
                                 QGuestAllocator *alloc)
{
    QVirtioMem *mem = obj;
    size_t plugged = offsetof(struct virtio_mem_config, plugged_size);

    g_assert_cmpuint(mem_request(mem, alloc, VIRTIO_MEM_REQ_PLUG, 4), ==,
                     VIRTIO_MEM_RESP_ACK);
    g_assert_cmphex(mem_config(mem, plugged), ==, 8 * MiB);
    g_assert_cmpuint(mem_request(mem, alloc, VIRTIO_MEM_REQ_UNPLUG, 4), ==,
                     VIRTIO_MEM_RESP_ACK);
    g_assert_cmphex(mem_config(mem, plugged), ==, 0);
}

static void test_memory_follows_plug(void *obj, void *data,
                                     QGuestAllocator *alloc)
{
    QVirtioMem *mem = obj;
    uint64_t addr = mem_config(mem, offsetof(struct virtio_mem_config, addr));

    g_assert_cmpuint(mem_request(mem, alloc, VIRTIO_MEM_REQ_PLUG, 1), ==,
                     VIRTIO_MEM_RESP_ACK);
    qtest_writeq(global_qtest, addr, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(global_qtest, addr), ==, 0x1122334455667788);
    g_assert_cmpuint(mem_request(mem, alloc, VIRTIO_MEM_REQ_UNPLUG_ALL, 0),
                     ==, VIRTIO_MEM_RESP_ACK);
    g_assert_cmpuint(mem_request(mem, alloc, VIRTIO_MEM_REQ_PLUG, 1), ==,
                     VIRTIO_MEM_RESP_ACK);
    g_assert_cmphex(qtest_readq(global_qtest, addr), ==, 0);
}

static void register_virtio_mem_tests(void)
{
    qos_add_test("config", "virtio-mem", test_config, NULL);
    qos_add_test("plug-and-unplug", "virtio-mem", test_plug_and_unplug, NULL);
    qos_add_test("memory-follows-plug", "virtio-mem",
                 test_memory_follows_plug, NULL);
}

libqos_init(register_virtio_mem_tests);
