/*
 * The machines that the tiny guest can live in: a PC, and arm's virt.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/generic-pcihost.h"
#include "libqos/malloc-pc.h"
#include "virtio-mem-guest-internal.h"

/* Of virt: QEMU puts the device tree at the start of the RAM. */
#define VIRT_RAM            GiB
#define VIRT_RAM_FREE       (VIRT_RAM + 16 * MiB)
/* Of virt with highmem-ecam=off: where maxmem= does not move it. */
#define VIRT_ECAM           0x3f000000ULL
#define PAGE_SIZE           4096

static void virt_alloc_init(QGuestAllocator *alloc, QTestState *qts,
                            QAllocOpts flags)
{
    alloc_init(alloc, flags, VIRT_RAM_FREE, VIRT_RAM + VM_RAM, PAGE_SIZE);
}

static QPCIBus *virt_bus_new(QTestState *qts, QGuestAllocator *alloc)
{
    QGenericPCIBus *pci = g_new0(QGenericPCIBus, 1);

    qpci_init_generic(pci, qts, alloc, false);
    pci->ecam_alloc_ptr = VIRT_ECAM;
    return &pci->bus;
}

static void virt_bus_free(QPCIBus *bus)
{
    g_free(container_of(bus, QGenericPCIBus, bus));
}

static QOSOps virt_ops = {
    .alloc_init = virt_alloc_init,
    .qpci_new = virt_bus_new,
    .qpci_free = virt_bus_free,
};

static QOSState *virt_boot(const char *command)
{
    return qtest_boot(&virt_ops, "%s", command);
}

static QOSState *pc_boot(const char *command)
{
    return qtest_pc_boot("%s", command);
}

static const VirtioMemMachine pc = {
    .type = "pc", .pcie_type = "q35",
    /* up to 0xfebfffff, below the IOAPIC */
    .bridge_limit = 0xfeb0,
    .boot = pc_boot,
};

static const VirtioMemMachine virt = {
    .type = "virt,highmem-ecam=off -cpu cortex-a57",
    .pcie_type = "virt,highmem-ecam=off -cpu cortex-a57",
    .ram = VIRT_RAM,
    .bridge_limit = 0x2ef0,
    .boot = virt_boot,
};

bool virtio_mem_machine_is_pc(void)
{
    return !g_str_equal(qtest_get_arch(), "aarch64");
}

const VirtioMemMachine *virtio_mem_machine(void)
{
    return virtio_mem_machine_is_pc() ? &pc : &virt;
}

uint64_t virtio_mem_ram(void)
{
    return virtio_mem_machine()->ram;
}

uint64_t virtio_mem_suspend_feature(void)
{
    return virtio_mem_machine_is_pc()
           ? VM_BIT(VIRTIO_MEM_F_PERSISTENT_SUSPEND) : 0;
}
