/*
 * virtio-mem: identity, config space and config interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci.h"
#include "libqos/fw_cfg.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-guest.h"

#define CONFIG(member) offsetof(struct virtio_mem_config, member)
#define CONFIG_SIZE sizeof(struct virtio_mem_config)
#define CONFIG_WINDOW 4096      /* what QEMU's transport maps for it */

QEMU_BUILD_BUG_ON(CONFIG_SIZE != 56);

/* --- PCI --- */

static void test_pci_ids(VirtioMemGuest *vm)
{
    QPCIDevice *pdev = vm->pci->pdev;

    g_assert_cmphex(qpci_config_readw(pdev, PCI_VENDOR_ID), ==, 0x1af4);
    g_assert_cmphex(qpci_config_readw(pdev, PCI_DEVICE_ID), ==,
                    0x1040 + VIRTIO_ID_MEM);
    g_assert_cmphex(qpci_config_readb(pdev, PCI_REVISION_ID), >=, 1);
    g_assert_cmphex(qpci_config_readw(pdev, PCI_SUBSYSTEM_ID), >=, 0x40);
}

static void test_capabilities(VirtioMemGuest *vm)
{
    QPCIDevice *pdev = vm->pci->pdev;
    uint8_t cap = qpci_config_readb(pdev, PCI_CAPABILITY_LIST);
    unsigned seen = 0;

    while (cap) {
        uint8_t type = qpci_config_readb(pdev, cap + 3);

        if (qpci_config_readb(pdev, cap) == PCI_CAP_ID_VNDR) {
            seen |= 1 << type;
            if (type == VIRTIO_PCI_CAP_DEVICE_CFG) {
                g_assert_cmphex(qpci_config_readl(pdev, cap + 8) & 3, ==, 0);
                g_assert_cmpuint(qpci_config_readl(pdev, cap + 12), >=,
                                 CONFIG_SIZE);
            }
        }
        cap = qpci_config_readb(pdev, cap + PCI_CAP_LIST_NEXT);
    }
    g_assert_cmphex(seen & 0x3e, ==, 1 << VIRTIO_PCI_CAP_COMMON_CFG |
                                     1 << VIRTIO_PCI_CAP_NOTIFY_CFG |
                                     1 << VIRTIO_PCI_CAP_ISR_CFG |
                                     1 << VIRTIO_PCI_CAP_DEVICE_CFG |
                                     1 << VIRTIO_PCI_CAP_PCI_CFG);
}

static uint16_t queue_size_of(VirtioMemGuest *vm, uint16_t index)
{
    virtio_mem_common_write(vm, offsetof(struct virtio_pci_common_cfg,
                                         queue_select), 2, index);
    return virtio_mem_common_read(vm, offsetof(struct virtio_pci_common_cfg,
                                               queue_size), 2);
}

static void test_queues(VirtioMemGuest *vm)
{
    uint16_t size = queue_size_of(vm, 0);

    g_assert_cmpuint(virtio_mem_common_read(
        vm, offsetof(struct virtio_pci_common_cfg, num_queues), 2), ==, 1);
    g_assert_cmpuint(size, >=, 2);
    g_assert_cmpuint(size & (size - 1), ==, 0);
    g_assert_cmpuint(queue_size_of(vm, 1), ==, 0);
}

/* --- config space --- */

static void read_config(VirtioMemGuest *vm, uint8_t *bytes, unsigned width)
{
    for (int i = CONFIG_SIZE - width; i >= 0; i -= width) {
        uint64_t value = virtio_mem_config_read(vm, i, width);

        for (unsigned j = 0; j < width; j++) {
            bytes[i + j] = value >> (8 * j);
        }
    }
}

static void expect_config(VirtioMemGuest *vm, const uint8_t *expected)
{
    uint8_t bytes[CONFIG_SIZE];

    read_config(vm, bytes, 1);
    g_assert_cmpmem(bytes, sizeof(bytes), expected, CONFIG_SIZE);
}

static void test_access_widths(VirtioMemGuest *vm)
{
    uint8_t expected[CONFIG_SIZE], bytes[CONFIG_SIZE];

    virtio_mem_set_requested(vm, 5 * GiB + VM_BLOCK);
    vm_assert_plug(vm, 0, 3, ACK);
    read_config(vm, expected, 1);
    for (unsigned width = 2; width <= 8; width *= 2) {
        memset(bytes, 0xee, sizeof(bytes));
        read_config(vm, bytes, width);
        g_assert_cmpmem(bytes, sizeof(bytes), expected, sizeof(expected));
    }
    g_assert_cmphex(ldq_le_p(expected + CONFIG(block_size)), ==, VM_BLOCK);
    g_assert_cmphex(ldq_le_p(expected + CONFIG(requested_size)), ==,
                    5 * GiB + VM_BLOCK);
    g_assert_cmphex(ldq_le_p(expected + CONFIG(plugged_size)), ==,
                    3 * VM_BLOCK);
}

static const VirtioMemOptions not_driven = {
    .requested = VM_REQUESTED,
    .no_driver = true,
};

static void test_before_features_ok(VirtioMemGuest *vm)
{
    uint8_t expected[CONFIG_SIZE];

    read_config(vm, expected, 1);
    g_assert_cmphex(virtio_mem_status(vm), ==, 0);
    g_assert_cmphex(vm->block_size, ==, VM_BLOCK);
    g_assert_cmphex(vm->region_size, ==, VM_REGION);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    expect_config(vm, expected);
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE |
                      VIRTIO_CONFIG_S_DRIVER);
    expect_config(vm, expected);
}

static void test_cold_start(VirtioMemGuest *vm)
{
    uint64_t b = vm->block_size;

    g_assert_cmphex(b, >, 0);
    g_assert_cmphex(b & (b - 1), ==, 0);
    g_assert_cmphex(vm_plugged_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), <=, vm->region_size);
    g_assert_cmphex((vm->addr | vm->region_size |
                     virtio_mem_usable_size(vm)) & (b - 1), ==, 0);
}

static void test_writes_are_ignored(VirtioMemGuest *vm)
{
    uint8_t expected[CONFIG_SIZE];

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    read_config(vm, expected, 1);
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (unsigned i = 0; i < CONFIG_SIZE; i += width) {
            virtio_mem_config_write(vm, i, width, 0);
            virtio_mem_config_write(vm, i, width, UINT64_MAX);
        }
        expect_config(vm, expected);
    }
    vm_assert_state(vm, 0, 2, PLUGGED);
    g_assert_false(virtio_mem_take_config_irq(vm));
}

/* Unaligned, across the last field, and all of the rest of the window. */
static void test_outside(VirtioMemGuest *vm)
{
    uint8_t expected[CONFIG_SIZE];

    virtio_mem_set_requested(vm, VM_REQUESTED);
    read_config(vm, expected, 1);
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (unsigned i = CONFIG_SIZE - 8; i < CONFIG_SIZE + 16; i++) {
            virtio_mem_config_write(vm, i, width, UINT64_MAX);
            virtio_mem_config_read(vm, i, width);
        }
        for (unsigned i = CONFIG_SIZE + 16; i < CONFIG_WINDOW; i += 97) {
            virtio_mem_config_write(vm, i, width, UINT64_MAX);
            virtio_mem_config_read(vm, i, width);
        }
        virtio_mem_config_write(vm, CONFIG_WINDOW - width, width, 0);
        expect_config(vm, expected);
    }
}

static void expect_padding_zero(VirtioMemGuest *vm)
{
    for (int i = CONFIG(node_id) + 2; i < CONFIG(addr); i++) {
        g_assert_cmphex(virtio_mem_config_read(vm, i, 1), ==, 0);
    }
}

static void test_no_node(VirtioMemGuest *vm)
{
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(node_id), 2), ==, 0);
    expect_padding_zero(vm);
}

static const VirtioMemOptions on_node_1 = {
    .device = "node=1",
    .args = "-object memory-backend-ram,id=ram0,size=256M "
            "-numa node,nodeid=0,memdev=ram0 -numa node,nodeid=1",
};

static void test_node(VirtioMemGuest *vm)
{
    g_assert_true(vm->features & VM_BIT(VIRTIO_MEM_F_ACPI_PXM));
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(node_id), 2), ==, 1);
    expect_padding_zero(vm);
}

static void test_node_not_negotiated(VirtioMemGuest *vm)
{
    uint64_t features = virtio_mem_default_features(vm) &
                        ~VM_BIT(VIRTIO_MEM_F_ACPI_PXM);
    bool up;

    virtio_mem_device_reset(vm);
    up = virtio_mem_driver_up(vm, features);
    g_assert_true(up);
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(node_id), 2), ==, 0);
    expect_padding_zero(vm);
}

/* --- the generation --- */

static void expect_generation_follows_request(VirtioMemGuest *vm)
{
    uint8_t before, after;

    before = virtio_mem_config_generation(vm);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    after = virtio_mem_config_generation(vm);
    g_assert_cmpuint(after, !=, before);
}

static const VirtioMemOptions only_found = { .no_driver = true };

static void test_generation_early(VirtioMemGuest *vm)
{
    expect_generation_follows_request(vm);
}

static void test_generation(VirtioMemGuest *vm)
{
    expect_generation_follows_request(vm);
}

static void test_generation_of_plugged(VirtioMemGuest *vm)
{
    uint8_t before, after;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plugged(vm, 0);
    before = virtio_mem_config_generation(vm);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plugged(vm, 1);
    after = virtio_mem_config_generation(vm);
    g_assert_cmpuint(after, !=, before);
    g_assert_false(virtio_mem_take_config_irq(vm));
}

/* --- beside other memory --- */

static const VirtioMemOptions two_devices = {
    .args = "-object memory-backend-ram,id=vmem1,size=1G,reserve=off "
            "-device virtio-mem-pci,id=vm1,memdev=vmem1,addr=05.0,"
            "requested-size=64M,block-size=2M",
    .variant = &(VirtioMemVariant){ .name = "" },
};

static void test_two_devices(VirtioMemGuest *vm)
{
    VirtioMemGuest *other = virtio_mem_guest_attach(vm, "vm1",
                                                    QPCI_DEVFN(5, 0));

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 2, ACK);
    virtio_mem_write_pattern(vm, 0, 2, 7);
    vm_assert_plugged(other, 0);
    vm_assert_state(other, 0, 2, UNPLUGGED);
    vm_assert_plug(other, 0, 1, ACK);
    virtio_mem_write_pattern(other, 0, 1, 8);
    vm_assert_plugged(vm, 2);
    g_assert_true(virtio_mem_check_pattern(vm, 0, 2, 7));
    vm_assert_unplug_all(other, ACK);
    vm_assert_plugged(vm, 2);
    g_assert_true(virtio_mem_check_pattern(vm, 0, 2, 7));
    virtio_mem_check_invariants(other);
    virtio_mem_guest_stop(other);
}

typedef struct QEMU_PACKED E820Entry {
    uint64_t address;
    uint64_t length;
    uint32_t type;
} E820Entry;

static void test_memory_map(VirtioMemGuest *vm)
{
    QFWCFG *fw_cfg = pc_fw_cfg_init(vm->qts);
    E820Entry entries[64] = {};
    size_t size = qfw_cfg_get_file(fw_cfg, "etc/e820", entries,
                                   sizeof(entries));

    g_assert_cmpuint(size, >, 0);
    g_assert_cmpuint(size, <=, sizeof(entries));
    for (int i = 0; i < size / sizeof(E820Entry); i++) {
        uint64_t start = le64_to_cpu(entries[i].address);
        uint64_t end = start + le64_to_cpu(entries[i].length);

        g_assert_true(end <= vm->addr || start >= vm->addr + vm->region_size);
    }
    pc_fw_cfg_uninit(fw_cfg);
}

/* --- interrupts --- */

static const VirtioMemOptions with_intx = {
    .variant = &(VirtioMemVariant){ .name = "", .intx = true },
};

static void test_intx(VirtioMemGuest *vm)
{
    QVirtioPCIDevice *pci = vm->pci;
    uint16_t status;

    g_assert_true(virtio_mem_try_requested(vm, "268435456", NULL));
    status = qpci_config_readw(pci->pdev, PCI_STATUS);
    g_assert_true(status & PCI_STATUS_INTERRUPT);
    /* QEMU's transport sets the queue bit as well, which is allowed. */
    g_assert_true(qpci_io_readb(pci->pdev, pci->bar, pci->isr_cfg_offset) & 2);
    g_assert_cmphex(qpci_io_readb(pci->pdev, pci->bar, pci->isr_cfg_offset),
                    ==, 0);
    status = qpci_config_readw(pci->pdev, PCI_STATUS);
    g_assert_false(status & PCI_STATUS_INTERRUPT);
}

static void test_no_vector(VirtioMemGuest *vm)
{
    virtio_mem_common_write(vm, offsetof(struct virtio_pci_common_cfg,
                                         msix_config), 2,
                            VIRTIO_MSI_NO_VECTOR);
    g_assert_true(virtio_mem_try_requested(vm, "268435456", NULL));
    g_assert_false(virtio_mem_take_config_irq(vm));
    g_assert_false(virtio_mem_take_queue_irq(vm));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
}

/* Users see why a guest cannot plug a block: not usable yet. */
static void test_usable_shown(VirtioMemGuest *vm)
{
    QDict *info;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    info = virtio_mem_query(vm);
    g_assert_cmphex(qdict_get_int(info, "usable-size"), ==,
                    virtio_mem_usable_size(vm));
    qobject_unref(info);
}

static const VirtioMemTest tests[] = {
    { "T001", "config/pci-identity", test_pci_ids, .once = true },
    { "T002", "config/pci-capabilities", test_capabilities, .once = true },
    { "T004", "config/one-queue", test_queues },
    { "T005", "config/any-access-width", test_access_widths, .once = true },
    { "T006", "config/readable-before-features-ok", test_before_features_ok,
      .options = &not_driven, .once = true },
    { "T007", "config/cold-start", test_cold_start, .options = &not_driven },
    { "T007", "config/usable-size-is-shown-by-qmp", test_usable_shown,
      .once = true },
    { "T008", "config/writes-are-ignored", test_writes_are_ignored,
      .once = true },
    { "T009", "config/outside-is-harmless", test_outside, .once = true },
    { "T010", "config/no-node-reads-zero", test_no_node, .once = true },
    { "T010", "config/node-is-readable", test_node, .options = &on_node_1,
      .once = true },
    { "T010", "config/node-reads-zero-unless-negotiated",
      test_node_not_negotiated, .options = &on_node_1, .once = true },
    { "T011", "config/generation-follows-requested-size", test_generation },
    { "T011", "config/generation-counts-before-driver-ok",
      test_generation_early, .options = &only_found },
    { "T012", "config/generation-follows-plugged-size",
      test_generation_of_plugged },
    { "T014", "config/two-devices-are-independent", test_two_devices,
      .options = &two_devices, .once = true },
    { "T015", "config/memory-map-leaves-region-out", test_memory_map,
      .once = true, .pc = true },
    { "T016", "config/intx-is-acknowledged-by-isr", test_intx,
      .options = &with_intx, .once = true },
    { "T017", "config/no-vector-no-interrupt", test_no_vector,
      .once = true, .fresh = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
