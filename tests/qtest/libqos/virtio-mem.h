/*
 * libqos driver for virtio-mem-pci
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_LIBQOS_VIRTIO_MEM_H
#define TESTS_LIBQOS_VIRTIO_MEM_H

#include "qgraph.h"
#include "virtio.h"
#include "virtio-pci.h"

/* What "virtio-mem" stands for in a test of the graph: a driver set up. */
typedef struct QVirtioMem {
    QVirtioDevice *vdev;
    QVirtQueue *vq;         /* the guest-request queue */
} QVirtioMem;

typedef struct QVirtioMemPCI {
    QVirtioPCIDevice pci_vdev;
    QVirtioMem mem;
} QVirtioMemPCI;

#endif
