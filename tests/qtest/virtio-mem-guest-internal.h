/*
 * What the files of the tiny guest share and tests do not need.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_GUEST_INTERNAL_H
#define TESTS_QTEST_VIRTIO_MEM_GUEST_INTERNAL_H

#include "virtio-mem-guest.h"

/* virtio-mem-guest-runner.c: the variant that the running test gets */
extern const VirtioMemVariant *virtio_mem_current_variant;

/* virtio-mem-guest-machine.c: what depends on the emulator under test */
typedef struct VirtioMemMachine {
    const char *type;           /* -machine argument */
    const char *pcie_type;      /* of one with PCI Express */
    uint64_t ram;               /* where VM_RAM bytes of RAM begin */
    uint16_t bridge_limit;      /* the last MiB for BARs, in units of 64 KiB */
    QOSState *(*boot)(const char *command);
} VirtioMemMachine;
const VirtioMemMachine *virtio_mem_machine(void);

/* virtio-mem-guest-pci.c: bridge, IOMMU, BARs and vectors */
#define VM_DEVFN            QPCI_DEVFN(4, 0)
#define VM_DEVFN_BEHIND     (1 << 8)        /* bus 1, slot 0 */
#define VM_MSIX_CONFIG      0
#define VM_MSIX_QUEUE       1
void virtio_mem_bridge_up(VirtioMemGuest *vm);
void virtio_mem_iommu_up(VirtioMemGuest *vm);
void virtio_mem_vectors_up(VirtioMemGuest *vm);
/* Move what the hardware signals into vm->config_irq and vm->queue_irq. */
void virtio_mem_collect_irqs(VirtioMemGuest *vm);

/* virtio-mem-guest-host.c: count size events from now on */
void virtio_mem_watch_events(VirtioMemGuest *vm);

#endif
