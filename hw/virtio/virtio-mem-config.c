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

void virtio_mem_config_bump_generation(VirtIOMEM *vmem)
{
    assert(bql_locked());
    vmem->parent_obj.generation++;
}

void virtio_mem_config_get(VirtIODevice *vdev, uint8_t *data)
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

/* How much is usable of the region when @asked_size is asked for. */
static uint64_t config_usable_size(const VirtIOMEM *vmem, uint64_t asked_size)
{
    const uint64_t extent = virtio_mem_unit_usable_extent();

    return asked_size ? MIN(virtio_mem_region_size(vmem),
                            ROUND_UP(asked_size + extent, vmem->block_size))
                      : 0;
}

static void config_set_usable_size(VirtIOMEM *vmem, uint64_t size)
{
    if (size != vmem->usable_region_size) {
        trace_virtio_mem_resized_usable_region(vmem->usable_region_size, size);
        vmem->usable_region_size = size;
        virtio_mem_config_bump_generation(vmem);
    }
}

void virtio_mem_config_fit_usable_size(VirtIOMEM *vmem)
{
    const uint64_t size = config_usable_size(vmem, vmem->asked_size);

    assert(bql_locked());
    assert(size >= vmem->usable_region_size ||
           !virtio_mem_blocks_count_plugged(vmem->blocks));
    config_set_usable_size(vmem, size);
}

void virtio_mem_config_set_asked_size(VirtIOMEM *vmem, uint64_t size)
{
    assert(bql_locked());
    assert(size != vmem->asked_size);
    trace_virtio_mem_resize(vmem->asked_size, size);
    config_set_usable_size(vmem, MAX(vmem->usable_region_size,
                                     config_usable_size(vmem, size)));
    vmem->asked_size = size;
    /* For a driver that is not ready yet, and gets no notification. */
    virtio_mem_config_bump_generation(vmem);
    virtio_notify_config(&vmem->parent_obj);
}

void virtio_mem_config_load(VirtIOMEM *vmem, uint64_t usable_region_size,
                            uint64_t asked_size)
{
    assert(bql_locked());
    vmem->usable_region_size = usable_region_size;
    vmem->asked_size = asked_size;
    vmem->requested_size = asked_size;
}
