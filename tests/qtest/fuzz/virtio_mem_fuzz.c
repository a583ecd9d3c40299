/*
 * virtio-mem: a driver that misbehaves, on a machine
 *
 * It sends requests with and without sense in chains of any shape, accesses
 * registers, PCI configuration and unplugged memory, and is reset, while the
 * user resizes.  The device's invariants hold after each step.  Whatever
 * happened, a reset makes the device serve a driver that behaves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "hw/pci/pci_regs.h"
#include "hw/virtio/virtio-mem.h"
#include "hw/virtio/virtio-mem-blocks.h"
#include "hw/virtio/virtio-mem-region.h"
#include "qos_fuzz.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_mem.h"
#include "tests/qtest/libqos/virtio-mem.h"
#include "tests/unit/virtio-mem-fuzz.h"

#define BUFFER_SIZE 4096
#define NB_PCI_WORDS (PCI_BASE_ADDRESS_5 / 4 + 1)
#define PATIENCE_US (20 * G_USEC_PER_SEC)
#define RESPONSE (BUFFER_SIZE / 2)

static struct {
    QTestState *qts;
    QVirtioMem *mem;
    QVirtioPCIDevice *pci;
    VirtIOMEM *vmem;
    uint64_t buffer;
    uint32_t pci_words[NB_PCI_WORDS];   /* what the firmware configured */
} fuzz;

/* --- the driver --- */

/* Resets of the machine and fuzzed writes forget where the device is. */
static void restore_pci(void)
{
    for (unsigned i = NB_PCI_WORDS - 1; i >= PCI_COMMAND / 4; i--) {
        qpci_config_writel(fuzz.pci->pdev, 4 * i, fuzz.pci_words[i]);
    }
}

/* libqos's own would insist on features that the device then accepts. */
static void start_driver(uint64_t without)
{
    QVirtioDevice *dev = fuzz.mem->vdev;

    restore_pci();
    qvirtio_reset(dev);
    qvirtio_set_acknowledge(dev);
    qvirtio_set_driver(dev);
    dev->features = qvirtio_get_features(dev) & ~without;
    dev->features |= 1ull << VIRTIO_F_VERSION_1;
    dev->features_negotiated = true;
    dev->bus->set_features(dev, dev->features);
    dev->bus->set_status(dev, dev->bus->get_status(dev) |
                         VIRTIO_CONFIG_S_FEATURES_OK);
    qvirtqueue_cleanup(dev->bus, fuzz.mem->vq, fuzz_qos_alloc);
    fuzz.mem->vq = qvirtqueue_setup(dev, fuzz_qos_alloc, 0);
    dev->bus->set_status(dev, dev->bus->get_status(dev) |
                         VIRTIO_CONFIG_S_DRIVER_OK);
}

static uint32_t add_descriptor(uint64_t addr, uint32_t len, bool write,
                               bool next)
{
    QVirtQueue *vq = fuzz.mem->vq;

    vq->free_head %= vq->size;
    return qvirtqueue_add(fuzz.qts, vq, addr, len, write, next);
}

static void kick(uint32_t head)
{
    qvirtqueue_kick(fuzz.qts, fuzz.mem->vdev, fuzz.mem->vq, head);
}

static void send_request(uint16_t type, uint64_t block, uint16_t nb_blocks)
{
    const struct virtio_mem_req request = {
        .type = cpu_to_le16(type),
        .u.plug.addr = cpu_to_le64(fuzz.vmem->addr +
                                   block * fuzz.vmem->block_size),
        .u.plug.nb_blocks = cpu_to_le16(nb_blocks),
    };
    uint32_t head;

    qtest_memwrite(fuzz.qts, fuzz.buffer, &request, sizeof(request));
    head = add_descriptor(fuzz.buffer, sizeof(request), false, true);
    add_descriptor(fuzz.buffer + RESPONSE, sizeof(struct virtio_mem_resp),
                   true, false);
    kick(head);
}

/* The user resizes; a size may be too large. */
static void resize(const char *mode, uint64_t size)
{
    Object *proxy = OBJECT(fuzz.vmem)->parent;

    object_property_set_str(proxy, VIRTIO_MEM_RESIZE_MODE_PROP, mode,
                            &error_abort);
    object_property_set_uint(proxy, VIRTIO_MEM_REQUESTED_SIZE_PROP, size, NULL);
}

/* --- steps --- */

static void step_request(FuzzInput *input)
{
    const uint16_t type = fuzz_take(input, 1) % (VIRTIO_MEM_REQ_STATE + 2);
    const uint64_t block = fuzz_take(input, 2);

    send_request(type, block, fuzz_take(input, 1));
}

static uint64_t take_address(FuzzInput *input)
{
    switch (fuzz_take(input, 1) % 4) {
    case 0:
        return fuzz_take(input, 8);
    case 1:
        return fuzz.vmem->addr + fuzz_take(input, 4);
    case 2:
        return fuzz.mem->vq->desc + fuzz_take(input, 2);
    default:
        return fuzz.buffer + fuzz_take(input, 1);
    }
}

static void step_chain(FuzzInput *input)
{
    const unsigned nb = fuzz_take(input, 1) % 8 + 1;
    const uint32_t head = fuzz.mem->vq->free_head % fuzz.mem->vq->size;

    for (unsigned i = 0; i < nb; i++) {
        const uint8_t how = fuzz_take(input, 1);
        const uint64_t addr = take_address(input);

        add_descriptor(addr, fuzz_take(input, how & 4 ? 4 : 1), how & 1,
                       how & 2);
    }
    kick(head);
}

static void step_buffer(FuzzInput *input)
{
    uint8_t bytes[24];

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = fuzz_take(input, 1);
    }
    qtest_memwrite(fuzz.qts, fuzz.buffer, bytes, sizeof(bytes));
}

static void step_ring(FuzzInput *input)
{
    const uint64_t addr = fuzz.mem->vq->desc +
                          fuzz_take(input, 2) % (2 * fuzz.mem->vq->align);

    qtest_writew(fuzz.qts, addr, fuzz_take(input, 2));
    kick(fuzz_take(input, 1));
}

static void step_register(FuzzInput *input)
{
    const uint16_t where = fuzz_take(input, 2);
    const uint64_t offset = where & 0x3fff;
    QPCIDevice *pdev = fuzz.pci->pdev;

    switch (where >> 14) {
    case 0:
        qpci_io_readl(pdev, fuzz.pci->bar, offset);
        break;
    case 1:
        qpci_io_writeb(pdev, fuzz.pci->bar, offset, fuzz_take(input, 1));
        break;
    case 2:
        qpci_io_writew(pdev, fuzz.pci->bar, offset, fuzz_take(input, 2));
        break;
    default:
        qpci_io_writel(pdev, fuzz.pci->bar, offset, fuzz_take(input, 4));
    }
}

static void step_pci(FuzzInput *input)
{
    const uint8_t offset = fuzz_take(input, 1);

    qpci_config_readl(fuzz.pci->pdev, offset & ~3);
    if (offset & 3) {
        qpci_config_writel(fuzz.pci->pdev, offset & ~3, fuzz_take(input, 4));
    }
}

static void step_memory(FuzzInput *input)
{
    const uint64_t where = fuzz_take(input, 4);
    const uint64_t addr = fuzz.vmem->addr +
                          where % virtio_mem_region_size(fuzz.vmem);

    if (where & 1) {
        qtest_readb(fuzz.qts, addr);
    } else {
        qtest_writeb(fuzz.qts, addr, 1);
    }
}

static void step_resize(FuzzInput *input)
{
    const uint16_t size = fuzz_take(input, 2);

    resize(size & 1 ? "safe" : "plain", (uint64_t)(size >> 1) * MiB);
}

static void step_clock(FuzzInput *input)
{
    qtest_clock_step(fuzz.qts, 1 + fuzz_take(input, 4));
}

static void step_driver(FuzzInput *input)
{
    start_driver(fuzz_take(input, 5));
}

static void step_reset(FuzzInput *input)
{
    fuzz_reset(fuzz.qts);
    start_driver(0);
}

/* --- the target --- */

static void check_invariants(void)
{
    g_assert_true(virtio_mem_blocks_check(fuzz.vmem->blocks));
    g_assert_cmphex(fuzz.vmem->asked_size, <=, fuzz.vmem->usable_region_size);
    g_assert_cmphex(fuzz.vmem->usable_region_size, <=,
                    virtio_mem_region_size(fuzz.vmem));
}

static uint16_t wait_for_answer(void)
{
    const gint64 limit = g_get_monotonic_time() + PATIENCE_US;
    uint32_t head;

    while (!qvirtqueue_get_buf(fuzz.qts, fuzz.mem->vq, &head, NULL)) {
        main_loop_wait(true);
        g_assert_cmpint(g_get_monotonic_time(), <, limit);
    }
    return qtest_readw(fuzz.qts, fuzz.buffer + RESPONSE);
}

/* What is left of the guest's doings after a reset: nothing. */
static void check_recovery(void)
{
    g_assert_cmphex(virtio_mem_plugged_size(fuzz.vmem), ==, 0);
    resize("plain", 64 * MiB);
    start_driver((1ull << VIRTIO_RING_F_INDIRECT_DESC) |
                 (1ull << VIRTIO_RING_F_EVENT_IDX) |
                 (1ull << VIRTIO_F_RING_PACKED) | QVIRTIO_F_BAD_FEATURE);
    send_request(VIRTIO_MEM_REQ_STATE, 0, 1);
    g_assert_cmphex(wait_for_answer(), ==, VIRTIO_MEM_RESP_ACK);
}

static void virtio_mem_fuzz(QTestState *s, const unsigned char *data,
                            size_t size)
{
    static void (*const steps[])(FuzzInput *) = {
        step_request, step_request, step_request, step_chain, step_buffer,
        step_ring, step_register, step_pci, step_memory, step_resize,
        step_clock, step_driver, step_reset,
    };
    FuzzInput input = { data, size };

    while (input.len) {
        steps[fuzz_take(&input, 1) % ARRAY_SIZE(steps)](&input);
        flush_events(s);
        check_invariants();
    }
    fuzz_reset(s);
    check_recovery();
}

static void virtio_mem_pre_fuzz(QTestState *s)
{
    qos_init_path(s);
    fuzz.qts = s;
    fuzz.mem = fuzz_qos_obj;
    fuzz.pci = &container_of(fuzz.mem, QVirtioMemPCI, mem)->pci_vdev;
    fuzz.vmem = VIRTIO_MEM(object_resolve_path_type("", TYPE_VIRTIO_MEM, NULL));
    fuzz.buffer = guest_alloc(fuzz_qos_alloc, BUFFER_SIZE);
    for (unsigned i = 0; i < NB_PCI_WORDS; i++) {
        fuzz.pci_words[i] = qpci_config_readl(fuzz.pci->pdev, 4 * i);
    }
}

/* Mode safe asks for it. */
static void *add_balloon(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line, " -device virtio-balloon-pci ");
    return arg;
}

static void register_virtio_mem_fuzz_targets(void)
{
    fuzz_add_qos_target(&(FuzzTarget) {
        .name = "virtio-mem",
        .description = "Fuzz virtio-mem: driver, registers, resizes",
        .pre_fuzz = virtio_mem_pre_fuzz,
        .fuzz = virtio_mem_fuzz,
    }, "virtio-mem", &(QOSGraphTestOptions) { .before = add_balloon });
}

fuzz_target_init(register_virtio_mem_fuzz_targets);
