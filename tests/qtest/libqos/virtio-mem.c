/*
 * libqos driver for virtio-mem-pci
 *
 * The smallest driver: VERSION_1, the split ring without indirect tables and
 * event index, and whatever the device type offers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../libqtest.h"
#include "qemu/module.h"
#include "standard-headers/linux/virtio_ring.h"
#include "qgraph.h"
#include "virtio-mem.h"

static QGuestAllocator *alloc;

static void *qvirtio_mem_pci_get_driver(void *object, const char *interface)
{
    QVirtioMemPCI *mem_pci = object;

    if (!g_strcmp0(interface, "pci-device")) {
        return mem_pci->pci_vdev.pdev;
    }
    if (!g_strcmp0(interface, "virtio")) {
        return mem_pci->mem.vdev;
    }
    if (!g_strcmp0(interface, "virtio-mem")) {
        return &mem_pci->mem;
    }

    fprintf(stderr, "%s not present in virtio-mem-pci\n", interface);
    g_assert_not_reached();
}

static void qvirtio_mem_pci_destructor(QOSGraphObject *obj)
{
    QVirtioMemPCI *mem_pci = (QVirtioMemPCI *)obj;

    qvirtqueue_cleanup(mem_pci->mem.vdev->bus, mem_pci->mem.vq, alloc);
    qvirtio_pci_destructor(&mem_pci->pci_vdev.obj);
}

static void qvirtio_mem_pci_start_hw(QOSGraphObject *obj)
{
    QVirtioMemPCI *mem_pci = (QVirtioMemPCI *)obj;
    QVirtioMem *mem = &mem_pci->mem;
    uint64_t features;

    qvirtio_pci_start_hw(&mem_pci->pci_vdev.obj);
    features = qvirtio_get_features(mem->vdev);
    features &= ~(QVIRTIO_F_BAD_FEATURE |
                  (1ull << VIRTIO_RING_F_INDIRECT_DESC) |
                  (1ull << VIRTIO_RING_F_EVENT_IDX));
    qvirtio_set_features(mem->vdev, features);
    mem->vq = qvirtqueue_setup(mem->vdev, alloc, 0);
    qvirtio_set_driver_ok(mem->vdev);
}

static void *virtio_mem_pci_create(void *pci_bus, QGuestAllocator *t_alloc,
                                   void *addr)
{
    QVirtioMemPCI *mem_pci = g_new0(QVirtioMemPCI, 1);
    QOSGraphObject *obj = &mem_pci->pci_vdev.obj;

    virtio_pci_init(&mem_pci->pci_vdev, pci_bus, addr);
    mem_pci->mem.vdev = &mem_pci->pci_vdev.vdev;
    alloc = t_alloc;

    obj->get_driver = qvirtio_mem_pci_get_driver;
    obj->start_hw = qvirtio_mem_pci_start_hw;
    obj->destructor = qvirtio_mem_pci_destructor;
    return obj;
}

/*
 * The allocator of the aarch64 machine assumes at least 512 MiB of RAM; 1 GiB
 * for the region because there the usable part exceeds the request by that.
 */
static void virtio_mem_register_nodes(void)
{
    QPCIAddress addr = {
        .devfn = QPCI_DEVFN(4, 0),
    };
    QOSGraphEdgeOptions opts = {
        .before_cmd_line = "-m 512M,maxmem=4G "
                           "-object memory-backend-ram,id=vmem0,size=1G,"
                           "reserve=off",
        .extra_device_opts = "addr=04.0,id=vm0,memdev=vmem0,block-size=2M,"
                             "requested-size=64M",
    };

    add_qpci_address(&opts, &addr);
    qos_node_create_driver("virtio-mem-pci", virtio_mem_pci_create);
    qos_node_consumes("virtio-mem-pci", "pci-bus", &opts);
    qos_node_produces("virtio-mem-pci", "pci-device");
    qos_node_produces("virtio-mem-pci", "virtio");
    qos_node_produces("virtio-mem-pci", "virtio-mem");
}

libqos_init(virtio_mem_register_nodes);
