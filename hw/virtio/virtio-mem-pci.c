/*
 * virtio-mem on PCI: the proxy that makes the device a memory device.
 *
 * Nothing is decided here.  Memory device methods ask the child, its
 * properties are the proxy's, and its changes of size become QMP events that
 * carry the proxy's name.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-machine.h"
#include "hw/mem/memory-device.h"
#include "hw/qdev-properties.h"
#include "virtio-mem-pci.h"

static VirtIOMEM *virtio_mem_pci_child(const void *proxy)
{
    return &VIRTIO_MEM_PCI(proxy)->vdev;
}

static void virtio_mem_pci_realize(VirtIOPCIProxy *vpci_dev, Error **errp)
{
    DeviceState *vdev = DEVICE(virtio_mem_pci_child(vpci_dev));

    if (vpci_dev->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        vpci_dev->nvectors = 2;         /* config changes, one queue */
    }
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(vdev, BUS(&vpci_dev->bus), errp);
}

/* --- memory device --- */

static uint64_t virtio_mem_pci_get_addr(const MemoryDeviceState *md)
{
    return object_property_get_uint(OBJECT(md), VIRTIO_MEM_ADDR_PROP,
                                    &error_abort);
}

static void virtio_mem_pci_set_addr(MemoryDeviceState *md, uint64_t addr,
                                    Error **errp)
{
    object_property_set_uint(OBJECT(md), VIRTIO_MEM_ADDR_PROP, addr, errp);
}

static uint64_t virtio_mem_pci_get_plugged_size(const MemoryDeviceState *md,
                                                Error **errp)
{
    return object_property_get_uint(OBJECT(md), VIRTIO_MEM_SIZE_PROP, errp);
}

static uint64_t virtio_mem_pci_get_min_alignment(const MemoryDeviceState *md)
{
    return object_property_get_uint(OBJECT(md), VIRTIO_MEM_BLOCK_SIZE_PROP,
                                    &error_abort);
}

static MemoryRegion *virtio_mem_pci_get_memory_region(MemoryDeviceState *md,
                                                      Error **errp)
{
    VirtIOMEM *vmem = virtio_mem_pci_child(md);

    return VIRTIO_MEM_GET_CLASS(vmem)->get_memory_region(vmem, errp);
}

static void virtio_mem_pci_decide_memslots(MemoryDeviceState *md,
                                           unsigned int limit)
{
    VirtIOMEM *vmem = virtio_mem_pci_child(md);

    VIRTIO_MEM_GET_CLASS(vmem)->decide_memslots(vmem, limit);
}

static unsigned int virtio_mem_pci_get_memslots(MemoryDeviceState *md)
{
    VirtIOMEM *vmem = virtio_mem_pci_child(md);

    return VIRTIO_MEM_GET_CLASS(vmem)->get_memslots(vmem);
}

static void virtio_mem_pci_fill_device_info(const MemoryDeviceState *md,
                                            MemoryDeviceInfo *info)
{
    VirtioMEMDeviceInfo *vmem_info = g_new0(VirtioMEMDeviceInfo, 1);
    const VirtIOMEM *vmem = virtio_mem_pci_child(md);

    vmem_info->id = g_strdup(DEVICE(md)->id);
    VIRTIO_MEM_GET_CLASS(vmem)->fill_device_info(vmem, vmem_info);

    info->type = MEMORY_DEVICE_INFO_KIND_VIRTIO_MEM;
    info->u.virtio_mem.data = vmem_info;
}

static void virtio_mem_pci_resize(MemoryDeviceState *md,
                                  const MemoryDeviceResize *args, Error **errp)
{
    VirtIOMEM *vmem = virtio_mem_pci_child(md);

    VIRTIO_MEM_GET_CLASS(vmem)->resize(vmem, args, errp);
}

static void virtio_mem_pci_unplug_request_check(VirtIOMDPCI *vmd, Error **errp)
{
    VirtIOMEM *vmem = virtio_mem_pci_child(vmd);

    VIRTIO_MEM_GET_CLASS(vmem)->unplug_request_check(vmem, errp);
}

static void virtio_mem_pci_size_change_notify(Notifier *notifier, void *data)
{
    VirtIOMEMPCI *proxy = container_of(notifier, VirtIOMEMPCI,
                                       size_change_notifier);
    g_autofree char *qom_path = object_get_canonical_path(OBJECT(proxy));
    const uint64_t *size = data;

    qapi_event_send_memory_device_size_change(DEVICE(proxy)->id, *size,
                                              qom_path);
}

/* --- properties --- */

static const Property virtio_mem_pci_class_properties[] = {
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

/* Those of the child that are no qdev properties. */
static const char *const virtio_mem_pci_aliases[] = {
    VIRTIO_MEM_BLOCK_SIZE_PROP,
    VIRTIO_MEM_SIZE_PROP,
    VIRTIO_MEM_ASKED_SIZE_PROP,
    VIRTIO_MEM_REQUESTED_SIZE_PROP,
    VIRTIO_MEM_RESIZE_MODE_PROP,
    VIRTIO_MEM_RESIZE_RESERVE_PROP,
};

static void virtio_mem_pci_instance_init(Object *obj)
{
    VirtIOMEMPCI *proxy = VIRTIO_MEM_PCI(obj);
    VirtIOMEM *vmem = &proxy->vdev;

    virtio_instance_init_common(obj, vmem, sizeof(*vmem), TYPE_VIRTIO_MEM);

    proxy->size_change_notifier.notify = virtio_mem_pci_size_change_notify;
    VIRTIO_MEM_GET_CLASS(vmem)->add_size_change_notifier(
        vmem, &proxy->size_change_notifier);

    for (size_t i = 0; i < ARRAY_SIZE(virtio_mem_pci_aliases); i++) {
        object_property_add_alias(obj, virtio_mem_pci_aliases[i],
                                  OBJECT(vmem), virtio_mem_pci_aliases[i]);
    }
}

static void virtio_mem_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    MemoryDeviceClass *mdc = MEMORY_DEVICE_CLASS(klass);

    VIRTIO_PCI_CLASS(klass)->realize = virtio_mem_pci_realize;
    VIRTIO_MD_PCI_CLASS(klass)->unplug_request_check =
        virtio_mem_pci_unplug_request_check;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, virtio_mem_pci_class_properties);
    pc->revision = VIRTIO_PCI_ABI_VERSION;
    pc->class_id = PCI_CLASS_OTHERS;

    mdc->get_addr = virtio_mem_pci_get_addr;
    mdc->set_addr = virtio_mem_pci_set_addr;
    mdc->get_plugged_size = virtio_mem_pci_get_plugged_size;
    mdc->get_min_alignment = virtio_mem_pci_get_min_alignment;
    mdc->get_memory_region = virtio_mem_pci_get_memory_region;
    mdc->decide_memslots = virtio_mem_pci_decide_memslots;
    mdc->get_memslots = virtio_mem_pci_get_memslots;
    mdc->fill_device_info = virtio_mem_pci_fill_device_info;
    mdc->resize = virtio_mem_pci_resize;
}

static const VirtioPCIDeviceTypeInfo virtio_mem_pci_info = {
    .base_name = TYPE_VIRTIO_MEM_PCI,
    .generic_name = "virtio-mem-pci",
    .parent = TYPE_VIRTIO_MD_PCI,
    .instance_size = sizeof(VirtIOMEMPCI),
    .instance_init = virtio_mem_pci_instance_init,
    .class_init = virtio_mem_pci_class_init,
};

static void virtio_mem_pci_register_types(void)
{
    virtio_pci_types_register(&virtio_mem_pci_info);
}

type_init(virtio_mem_pci_register_types)
