/*
 * The tiny guest's platform: root port, vIOMMU, BARs, vectors, registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-guest-internal.h"

/* --- root port: bus 1 behind it, all of the PCI hole forwarded --- */

void virtio_mem_bridge_up(VirtioMemGuest *vm)
{
    QPCIBus *bus = vm->qs->pcibus;
    QPCIDevice *port;
    uint16_t base = bus->mmio_alloc_ptr >> 16;
    uint16_t limit = virtio_mem_machine()->bridge_limit;

    if (!vm->opts.pcie) {
        return;
    }
    qpci_secondary_buses_init(bus);
    port = qpci_device_find(bus, VM_DEVFN);
    qpci_device_enable(port);
    /* Lower half: base, upper half: limit, each in units of 1 MiB << 4. */
    qpci_config_writel(port, PCI_PREF_MEMORY_BASE, 0x0000fff0);
    qpci_config_writel(port, PCI_MEMORY_BASE,
                       (base & 0xfff0) | (uint32_t)limit << 16);
    g_free(port);
}

/*
 * --- vIOMMU: every guest physical address appears at + 256 GiB, and nothing
 *     at its own place, so that untranslated accesses fail ---
 *
 * Legacy mode, one context for all devices of bus 0 and 1, a 39-bit address
 * space of three levels, of which the top one suffices: 512 entries of 1 GiB,
 * the upper half of them present.
 */
#define VTD_BASE            0xfed90000ULL
#define VTD_GCMD            0x18
#define VTD_GSTS            0x1c
#define VTD_RTADDR          0x20
#define VTD_SRTP            (1U << 30)
#define VTD_TE              (1U << 31)
#define VTD_PRESENT         1ULL
#define VTD_RW              3ULL
#define VTD_SUPERPAGE       (1ULL << 7)
#define VTD_AW_39           1ULL
#define VTD_DOMAIN          (1ULL << 8)
#define VTD_OFFSET          (256 * GiB)

static uint64_t iommu_alloc_table(VirtioMemGuest *vm)
{
    uint64_t table = guest_alloc(&vm->qs->alloc, 4096);

    qtest_memset(vm->qts, table, 0, 4096);
    return table;
}

static uint64_t iommu_make_page_table(VirtioMemGuest *vm)
{
    uint64_t table = iommu_alloc_table(vm);
    uint64_t entries[256];

    for (unsigned i = 0; i < ARRAY_SIZE(entries); i++) {
        entries[i] = cpu_to_le64(i * GiB | VTD_SUPERPAGE | VTD_RW);
    }
    qtest_memwrite(vm->qts, table + 8 * (VTD_OFFSET / GiB), entries,
                   sizeof(entries));
    return table;
}

static void iommu_command(VirtioMemGuest *vm, uint32_t bit)
{
    uint32_t on = qtest_readl(vm->qts, VTD_BASE + VTD_GSTS) & VTD_TE;

    qtest_writel(vm->qts, VTD_BASE + VTD_GCMD, on | bit);
    g_assert_true(qtest_readl(vm->qts, VTD_BASE + VTD_GSTS) & bit);
}

void virtio_mem_iommu_up(VirtioMemGuest *vm)
{
    uint64_t root, context, pages;

    if (!vm->variant->iommu) {
        return;
    }
    root = iommu_alloc_table(vm);
    context = iommu_alloc_table(vm);
    pages = iommu_make_page_table(vm);
    for (unsigned devfn = 0; devfn < 256; devfn++) {
        qtest_writeq(vm->qts, context + 16 * devfn, pages | VTD_PRESENT);
        qtest_writeq(vm->qts, context + 16 * devfn + 8,
                     VTD_DOMAIN | VTD_AW_39);
    }
    for (unsigned bus = 0; bus < 2; bus++) {
        qtest_writeq(vm->qts, root + 16 * bus, context | VTD_PRESENT);
    }
    qtest_writeq(vm->qts, VTD_BASE + VTD_RTADDR, root);
    iommu_command(vm, VTD_SRTP);
    iommu_command(vm, VTD_TE);
    vm->dma_offset = VTD_OFFSET;
}

uint64_t virtio_mem_dma(VirtioMemGuest *vm, uint64_t gpa)
{
    return gpa + vm->dma_offset;
}

/* --- BARs and vectors --- */

void virtio_mem_pci_up(VirtioMemGuest *vm)
{
    QVirtioPCIDevice *pci = vm->pci;

    qvirtio_pci_device_enable(pci);
    pci->pdev->msix_enabled = false;
    if (vm->variant->intx) {
        return;
    }
    qpci_msix_enable(pci->pdev);
    qvirtio_pci_set_msix_configuration_vector(pci, &vm->qs->alloc,
                                              VM_MSIX_CONFIG);
    vm->vq.msix_data = 0x87654321;
    qvirtqueue_pci_msix_setup(pci, &vm->vq, &vm->qs->alloc, VM_MSIX_QUEUE);
    qtest_writel(vm->qts, pci->config_msix_addr, 0);
    qtest_writel(vm->qts, vm->vq.msix_addr, 0);
}

/* A device reset unmaps the vectors; the table in the BAR stays. */
void virtio_mem_vectors_up(VirtioMemGuest *vm)
{
    if (vm->pci->pdev->msix_enabled) {
        vm->pci->msix_ops->set_config_vector(vm->pci, VM_MSIX_CONFIG);
        vm->pci->msix_ops->set_queue_vector(vm->pci, 0, VM_MSIX_QUEUE);
    }
}

static bool pci_take_message(VirtioMemGuest *vm, uint64_t gpa, uint32_t data)
{
    if (qtest_readl(vm->qts, gpa) != data) {
        return false;
    }
    qtest_writel(vm->qts, gpa, 0);
    return true;
}

void virtio_mem_collect_irqs(VirtioMemGuest *vm)
{
    QVirtioPCIDevice *pci = vm->pci;
    uint8_t isr;

    if (pci->pdev->msix_enabled) {
        vm->config_irq |= pci_take_message(vm, pci->config_msix_addr,
                                           pci->config_msix_data);
        vm->queue_irq |= pci_take_message(vm, vm->vq.msix_addr,
                                          vm->vq.msix_data);
    } else {
        isr = qpci_io_readb(pci->pdev, pci->bar, pci->isr_cfg_offset);
        vm->config_irq |= isr & 2;
        vm->queue_irq |= isr & 1;
    }
}

bool virtio_mem_take_config_irq(VirtioMemGuest *vm)
{
    bool seen;

    virtio_mem_collect_irqs(vm);
    seen = vm->config_irq;
    vm->config_irq = false;
    return seen;
}

bool virtio_mem_take_queue_irq(VirtioMemGuest *vm)
{
    bool seen;

    virtio_mem_collect_irqs(vm);
    seen = vm->queue_irq;
    vm->queue_irq = false;
    return seen;
}

/* --- registers --- */

static uint64_t pci_bar_read(VirtioMemGuest *vm, uint64_t offset,
                             unsigned width)
{
    QPCIDevice *pdev = vm->pci->pdev;

    switch (width) {
    case 1:
        return qpci_io_readb(pdev, vm->pci->bar, offset);
    case 2:
        return qpci_io_readw(pdev, vm->pci->bar, offset);
    case 4:
        return qpci_io_readl(pdev, vm->pci->bar, offset);
    case 8:
        return qpci_io_readq(pdev, vm->pci->bar, offset);
    default:
        g_assert_not_reached();
    }
}

static void pci_bar_write(VirtioMemGuest *vm, uint64_t offset,
                          unsigned width, uint64_t value)
{
    QPCIDevice *pdev = vm->pci->pdev;

    switch (width) {
    case 1:
        qpci_io_writeb(pdev, vm->pci->bar, offset, value);
        break;
    case 2:
        qpci_io_writew(pdev, vm->pci->bar, offset, value);
        break;
    case 4:
        qpci_io_writel(pdev, vm->pci->bar, offset, value);
        break;
    case 8:
        qpci_io_writeq(pdev, vm->pci->bar, offset, value);
        break;
    default:
        g_assert_not_reached();
    }
}

uint64_t virtio_mem_config_read(VirtioMemGuest *vm, unsigned offset,
                                unsigned width)
{
    return pci_bar_read(vm, vm->pci->device_cfg_offset + offset, width);
}

void virtio_mem_config_write(VirtioMemGuest *vm, unsigned offset,
                             unsigned width, uint64_t value)
{
    pci_bar_write(vm, vm->pci->device_cfg_offset + offset, width, value);
}

uint64_t virtio_mem_common_read(VirtioMemGuest *vm, unsigned offset,
                                unsigned width)
{
    return pci_bar_read(vm, vm->pci->common_cfg_offset + offset, width);
}

void virtio_mem_common_write(VirtioMemGuest *vm, unsigned offset,
                             unsigned width, uint64_t value)
{
    pci_bar_write(vm, vm->pci->common_cfg_offset + offset, width, value);
}

uint8_t virtio_mem_config_generation(VirtioMemGuest *vm)
{
    return virtio_mem_common_read(
        vm, offsetof(struct virtio_pci_common_cfg, config_generation), 1);
}

/* --- another device --- */

QVirtioPCIDevice *virtio_mem_neighbour_start(VirtioMemGuest *vm, int slot)
{
    QPCIAddress address = { .devfn = QPCI_DEVFN(slot, 0) };
    QVirtioPCIDevice *dev = virtio_pci_new(vm->qs->pcibus, &address);

    g_assert_nonnull(dev);
    qvirtio_pci_device_enable(dev);
    qvirtio_start_device(&dev->vdev);
    qvirtio_set_features(&dev->vdev, VM_BIT(VIRTIO_F_VERSION_1));
    return dev;
}

void virtio_mem_neighbour_go(QVirtioPCIDevice *dev, QVirtQueue *vq)
{
    dev->vdev.bus->queue_select(&dev->vdev, 0);
    dev->vdev.bus->set_queue_address(&dev->vdev, vq);
    qpci_io_writew(dev->pdev, dev->bar, dev->common_cfg_offset +
                   offsetof(struct virtio_pci_common_cfg, queue_enable), 1);
    qvirtio_set_driver_ok(&dev->vdev);
}

void virtio_mem_neighbour_free(QVirtioPCIDevice *dev)
{
    qvirtio_pci_destructor(&dev->obj);
    g_free(dev);
}
