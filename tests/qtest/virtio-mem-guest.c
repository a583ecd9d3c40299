/*
 * A tiny guest with one virtio-mem-pci device: birth, driver, resets, death.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-guest-internal.h"

/* Enough for the largest region and for a second device beside it. */
#define VM_MAXMEM   (256 * GiB)

#define COMMON(member) offsetof(struct virtio_pci_common_cfg, member)

gint64 virtio_mem_wait_usec(void)
{
    const char *seconds = g_getenv("VIRTIO_MEM_TEST_WAIT");

    return (seconds ? atoi(seconds) : 60) * G_USEC_PER_SEC;
}

static VirtioMemOptions guest_fill_options(const VirtioMemOptions *given)
{
    VirtioMemOptions opts = given ? *given : (VirtioMemOptions){};

    opts.variant = opts.variant ?: virtio_mem_current_variant;
    if (!opts.machine) {
        opts.machine = opts.pcie || opts.variant->iommu
                       ? virtio_mem_machine()->pcie_type
                       : virtio_mem_machine()->type;
    }
    opts.block_size = opts.block_size ?: VM_BLOCK;
    opts.region_size = opts.region_size ?: VM_REGION;
    return opts;
}

static void guest_append_device(GString *cmd, const VirtioMemOptions *opts)
{
    const VirtioMemVariant *variant = opts->variant;

    g_string_append_printf(cmd, " -device virtio-mem-pci,id=vm0,memdev=vmem0,"
                           "block-size=%" PRIu64 ",requested-size=%" PRIu64
                           ",%s", opts->block_size, opts->requested,
                           opts->pcie ? "bus=rp0" : "addr=04.0");
    if (opts->memaddr) {
        g_string_append_printf(cmd, ",memaddr=%" PRIu64, opts->memaddr);
    }
    if (variant->packed) {
        g_string_append(cmd, ",packed=on");
    }
    if (variant->zeropage) {
        g_string_append(cmd, ",unplugged-inaccessible=off");
    }
    if (variant->iommu) {
        g_string_append(cmd, ",iommu_platform=on");
    }
    if (opts->device) {
        g_string_append_printf(cmd, ",%s", opts->device);
    }
}

char *virtio_mem_guest_command(const VirtioMemOptions *given)
{
    VirtioMemOptions opts = guest_fill_options(given);
    GString *cmd = g_string_new(NULL);

    g_string_append_printf(cmd, "-nodefaults -machine %s -m size=%" PRIu64
                           "B,slots=8,maxmem=%" PRIu64 "B", opts.machine,
                           (uint64_t)VM_RAM, (uint64_t)VM_MAXMEM);
    if (opts.variant->iommu) {
        g_string_append(cmd, " -device intel-iommu,intremap=off");
    }
    if (opts.pcie) {
        g_string_append(cmd, " -device pcie-root-port,id=rp0,addr=04.0,"
                        "chassis=1,slot=1");
    }
    if (opts.memdev) {
        g_string_append_printf(cmd, " -object %s", opts.memdev);
    } else {
        g_string_append_printf(cmd, " -object memory-backend-ram,id=vmem0,"
                               "reserve=off,size=%" PRIu64, opts.region_size);
    }
    if (opts.args) {
        g_string_append_printf(cmd, " %s", opts.args);
    }
    if (!opts.no_device) {
        guest_append_device(cmd, &opts);
    }
    return g_string_free(cmd, false);
}

static void guest_alloc_buffers(VirtioMemGuest *vm)
{
    vm->req_gpa = guest_alloc(&vm->qs->alloc, 4096);
    vm->resp_gpa = guest_alloc(&vm->qs->alloc, 4096);
}

static void guest_read_identity(VirtioMemGuest *vm)
{
    vm->block_size = virtio_mem_config_read(
        vm, offsetof(struct virtio_mem_config, block_size), 8);
    vm->addr = virtio_mem_config_read(
        vm, offsetof(struct virtio_mem_config, addr), 8);
    vm->region_size = virtio_mem_config_read(
        vm, offsetof(struct virtio_mem_config, region_size), 8);
}

static void guest_find_device(VirtioMemGuest *vm)
{
    QPCIAddress address = { .devfn = vm->devfn };

    vm->pci = virtio_pci_new(vm->qs->pcibus, &address);
    g_assert_nonnull(vm->pci);
    guest_alloc_buffers(vm);
    virtio_mem_pci_up(vm);
    virtio_mem_device_reset(vm);
    guest_read_identity(vm);
}

static void guest_drive(VirtioMemGuest *vm)
{
    bool up = virtio_mem_driver_up(vm, virtio_mem_default_features(vm));

    g_assert_true(up);
}

static void guest_drop_ring(VirtioMemGuest *vm)
{
    if (vm->ring.qts) {
        virtio_mem_ring_free(&vm->ring);
    }
    vm->running = false;
}

VirtioMemGuest *virtio_mem_guest_start(const VirtioMemOptions *given)
{
    VirtioMemGuest *vm = g_new0(VirtioMemGuest, 1);
    g_autofree char *cmd = NULL;

    vm->opts = guest_fill_options(given);
    vm->variant = vm->opts.variant;
    cmd = virtio_mem_guest_command(&vm->opts);
    vm->qs = virtio_mem_machine()->boot(cmd);
    vm->qts = vm->qs->qts;
    vm->first_bar = vm->qs->pcibus->mmio_alloc_ptr;
    vm->id = "vm0";
    vm->devfn = vm->opts.pcie ? VM_DEVFN_BEHIND : VM_DEVFN;
    virtio_mem_watch_events(vm);
    virtio_mem_bridge_up(vm);
    virtio_mem_iommu_up(vm);
    if (vm->opts.no_device) {
        return vm;
    }
    guest_find_device(vm);
    if (!vm->opts.no_driver) {
        guest_drive(vm);
    }
    return vm;
}

VirtioMemGuest *virtio_mem_guest_attach(VirtioMemGuest *host, const char *id,
                                        int devfn)
{
    VirtioMemGuest *vm = g_new0(VirtioMemGuest, 1);

    vm->opts = host->opts;
    vm->variant = host->variant;
    vm->qs = host->qs;
    vm->qts = host->qts;
    vm->dma_offset = host->dma_offset;
    vm->id = id;
    vm->devfn = devfn;
    vm->attached = true;
    guest_find_device(vm);
    guest_drive(vm);
    return vm;
}

void virtio_mem_guest_recycle(VirtioMemGuest *vm)
{
    virtio_mem_device_reset(vm);
    virtio_mem_set_requested(vm, 0);
    qtest_system_reset(vm->qts);
    alloc_destroy(&vm->qs->alloc);
    vm->qs->ops->alloc_init(&vm->qs->alloc, vm->qts, ALLOC_NO_FLAGS);
    vm->qs->pcibus->mmio_alloc_ptr = vm->first_bar;
    guest_alloc_buffers(vm);
    virtio_mem_iommu_up(vm);
    virtio_mem_pci_up(vm);
    virtio_mem_take_size_events(vm, NULL);
    guest_drive(vm);
    virtio_mem_take_config_irq(vm);
    virtio_mem_take_queue_irq(vm);
}

void virtio_mem_guest_stop(VirtioMemGuest *vm)
{
    guest_drop_ring(vm);
    if (vm->pci) {
        qvirtio_pci_destructor(&vm->pci->obj);
        g_free(vm->pci);
    }
    if (!vm->attached) {
        qtest_shutdown(vm->qs);
    }
    g_free(vm);
}

/* --- the driver's way up --- */

uint8_t virtio_mem_status(VirtioMemGuest *vm)
{
    return virtio_mem_common_read(vm, COMMON(device_status), 1);
}

void vm_set_status(VirtioMemGuest *vm, uint8_t status)
{
    virtio_mem_common_write(vm, COMMON(device_status), 1, status);
}

uint64_t virtio_mem_offered_features(VirtioMemGuest *vm)
{
    return vm->pci->vdev.bus->get_features(&vm->pci->vdev);
}

uint64_t virtio_mem_default_features(VirtioMemGuest *vm)
{
    const VirtioMemVariant *variant = vm->variant;

    return VM_BIT(VIRTIO_F_VERSION_1) |
           VM_BIT(VIRTIO_MEM_F_ACPI_PXM) |
           VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE) |
           virtio_mem_suspend_feature() |
           (variant->packed ? VM_BIT(VIRTIO_F_RING_PACKED) : 0) |
           (variant->indirect ? VM_BIT(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
           (variant->event_idx ? VM_BIT(VIRTIO_RING_F_EVENT_IDX) : 0) |
           (variant->iommu ? VM_BIT(VIRTIO_F_ACCESS_PLATFORM) : 0);
}

void virtio_mem_write_features(VirtioMemGuest *vm, uint64_t features)
{
    for (unsigned half = 0; half < 2; half++) {
        virtio_mem_common_write(vm, COMMON(guest_feature_select), 4, half);
        virtio_mem_common_write(vm, COMMON(guest_feature), 4,
                                (uint32_t)(features >> (32 * half)));
    }
    vm->features = features;
    vm->pci->vdev.features = features;
}

bool virtio_mem_negotiate(VirtioMemGuest *vm, uint64_t accept)
{
    uint8_t status = virtio_mem_status(vm) | VIRTIO_CONFIG_S_FEATURES_OK;

    virtio_mem_write_features(vm, accept & virtio_mem_offered_features(vm));
    vm_set_status(vm, status);
    vm->pci->vdev.features_negotiated = true;
    return virtio_mem_status(vm) == status;
}

void virtio_mem_queue_up(VirtioMemGuest *vm, uint16_t size)
{
    const QVirtioBus *bus = vm->pci->vdev.bus;
    VirtioMemRingOptions opts = {
        .packed = vm->features & VM_BIT(VIRTIO_F_RING_PACKED),
        .event_idx = vm->features & VM_BIT(VIRTIO_RING_F_EVENT_IDX),
        .dma_offset = vm->dma_offset,
    };

    bus->queue_select(&vm->pci->vdev, 0);
    if (size) {
        virtio_mem_common_write(vm, COMMON(queue_size), 2, size);
    }
    opts.size = bus->get_queue_size(&vm->pci->vdev);
    virtio_mem_ring_init(&vm->ring, vm->qts, &vm->qs->alloc, &opts);
    vm->vq.vq.desc = virtio_mem_dma(vm, vm->ring.desc);
    vm->vq.vq.avail = virtio_mem_dma(vm, vm->ring.driver);
    vm->vq.vq.used = virtio_mem_dma(vm, vm->ring.device);
    bus->set_queue_address(&vm->pci->vdev, &vm->vq.vq);
    vm->vq.notify_offset = vm->pci->notify_cfg_offset +
        virtio_mem_common_read(vm, COMMON(queue_notify_off), 2) *
        vm->pci->notify_off_multiplier;
    virtio_mem_vectors_up(vm);
    virtio_mem_common_write(vm, COMMON(queue_enable), 2, 1);
}

void virtio_mem_driver_ok(VirtioMemGuest *vm)
{
    vm_set_status(vm, virtio_mem_status(vm) |
                      VIRTIO_CONFIG_S_DRIVER_OK);
    vm->running = true;
}

bool virtio_mem_driver_up(VirtioMemGuest *vm, uint64_t accept)
{
    qvirtio_set_acknowledge(&vm->pci->vdev);
    qvirtio_set_driver(&vm->pci->vdev);
    if (!virtio_mem_negotiate(vm, accept)) {
        return false;
    }
    vm->node_id = virtio_mem_config_read(
        vm, offsetof(struct virtio_mem_config, node_id), 2);
    virtio_mem_queue_up(vm, vm->opts.ring_size);
    virtio_mem_driver_ok(vm);
    return true;
}

/* --- resets --- */

void virtio_mem_device_reset(VirtioMemGuest *vm)
{
    vm_set_status(vm, 0);
    vm_wait_until(virtio_mem_status(vm) == 0);
    guest_drop_ring(vm);
}

void virtio_mem_system_reset(VirtioMemGuest *vm)
{
    qtest_system_reset(vm->qts);
    guest_drop_ring(vm);
    vm->qs->pcibus->mmio_alloc_ptr = vm->first_bar;
    virtio_mem_bridge_up(vm);
    virtio_mem_iommu_up(vm);
    virtio_mem_pci_up(vm);
}

void virtio_mem_flr(VirtioMemGuest *vm)
{
    uint8_t cap = qpci_find_capability(vm->pci->pdev, PCI_CAP_ID_EXP, 0);
    uint16_t control;

    g_assert_cmpuint(cap, !=, 0);
    g_assert_true(qpci_config_readl(vm->pci->pdev, cap + PCI_EXP_DEVCAP) &
                  PCI_EXP_DEVCAP_FLR);
    control = qpci_config_readw(vm->pci->pdev, cap + PCI_EXP_DEVCTL);
    qpci_config_writew(vm->pci->pdev, cap + PCI_EXP_DEVCTL,
                       control | PCI_EXP_DEVCTL_BCR_FLR);
    guest_drop_ring(vm);
    virtio_mem_pci_up(vm);
}

void virtio_mem_restart_driver(VirtioMemGuest *vm)
{
    virtio_mem_device_reset(vm);
    guest_drive(vm);
}
