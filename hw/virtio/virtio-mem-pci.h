/*
 * virtio-mem on PCI.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_VIRTIO_MEM_PCI_H
#define QEMU_VIRTIO_MEM_PCI_H

#include "hw/virtio/virtio-mem.h"
#include "hw/virtio/virtio-md-pci.h"

/* The abstract parent of "virtio-mem-pci". */
#define TYPE_VIRTIO_MEM_PCI "virtio-mem-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOMEMPCI, VIRTIO_MEM_PCI)

struct VirtIOMEMPCI {
    VirtIOMDPCI parent_obj;

    VirtIOMEM vdev;
    Notifier size_change_notifier;
};

#endif
