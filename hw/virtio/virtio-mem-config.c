/*
 * The config space of a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "standard-headers/linux/virtio_mem.h"
#include "trace.h"
#include "virtio-mem-config.h"
#include "virtio-mem-region.h"
#include "virtio-mem-unit.h"

void virtio_mem_bump_config_generation(VirtIOMEM *vmem)
{
    assert(bql_locked());
    vmem->parent_obj.generation++;
}

void virtio_mem_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);
    const bool has_node = virtio_vdev_has_feature(vdev,
                                                  VIRTIO_MEM_F_ACPI_PXM);
    const struct virtio_mem_config config = {
        .block_size = cpu_to_le64(vmem->block_size),
        .node_id = cpu_to_le16(has_node ? vmem->node : 0),
        .addr = cpu_to_le64(vmem->addr),
        .region_size = cpu_to_le64(virtio_mem_region_size(vmem)),
        .usable_region_size = cpu_to_le64(vmem->usable_region_size),
        .plugged_size = cpu_to_le64(virtio_mem_plugged_size(vmem)),
        .requested_size = cpu_to_le64(vmem->asked_size),
    };

    assert(bql_locked());
    memcpy(data, &config, sizeof(config));
}

void virtio_mem_resize_usable_region(VirtIOMEM *vmem, uint64_t asked_size,
                                     bool can_shrink)
{
    const uint64_t old_size = vmem->usable_region_size;
    const uint64_t region_size = virtio_mem_region_size(vmem);
    uint64_t size = 0;

    assert(bql_locked());
    /* asked_size <= region_size, so the sum cannot wrap. */
    if (asked_size) {
        size = MIN(region_size,
                   ROUND_UP(asked_size + virtio_mem_unit_usable_extent(),
                            vmem->block_size));
    }
    if (size == old_size || (size < old_size && !can_shrink)) {
        return;
    }

    assert(size > old_size || !virtio_mem_blocks_count_plugged(vmem->blocks));
    trace_virtio_mem_resized_usable_region(old_size, size);
    vmem->usable_region_size = size;
    virtio_mem_bump_config_generation(vmem);
}

void virtio_mem_change_asked_size(VirtIOMEM *vmem, uint64_t size)
{
    assert(bql_locked());
    assert(size != vmem->asked_size);
    trace_virtio_mem_resize(vmem->asked_size, size);
    virtio_mem_resize_usable_region(vmem, size, false);
    vmem->asked_size = size;
    /* For a driver that is not ready yet, and gets no notification. */
    virtio_mem_bump_config_generation(vmem);
    virtio_notify_config(VIRTIO_DEVICE(vmem));
}

void virtio_mem_config_load(VirtIOMEM *vmem, uint64_t usable_region_size,
                            uint64_t asked_size)
{
    assert(bql_locked());
    vmem->usable_region_size = usable_region_size;
    vmem->asked_size = asked_size;
    vmem->requested_size = asked_size;
}
