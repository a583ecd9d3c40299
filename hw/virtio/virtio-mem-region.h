/*
 * The region of a virtio-mem device: the only place where blocks, bytes and
 * guest addresses meet.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_REGION_H
#define HW_VIRTIO_MEM_REGION_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-blocks.h"

static inline uint64_t virtio_mem_region_size(const VirtIOMEM *vmem)
{
    return memory_region_size(&vmem->memdev->mr);
}

static inline uint64_t virtio_mem_plugged_size(const VirtIOMEM *vmem)
{
    return virtio_mem_blocks_count_plugged(vmem->blocks) * vmem->block_size;
}

static inline uint64_t virtio_mem_range_offset(const VirtIOMEM *vmem,
                                               VirtIOMEMRange range)
{
    return range.first * vmem->block_size;
}

static inline uint64_t virtio_mem_range_size(const VirtIOMEM *vmem,
                                             VirtIOMEMRange range)
{
    return range.nb_blocks * vmem->block_size;
}

/* How messages name the device: libvirt and users know the memdev's id. */
static inline const char *virtio_mem_name(const VirtIOMEM *vmem)
{
    return object_get_canonical_path_component(OBJECT(vmem->memdev));
}

/* The device that the user added, and that the guest sees. */
static inline DeviceState *virtio_mem_proxy(const VirtIOMEM *vmem)
{
    return qdev_get_parent_bus(DEVICE(vmem))->parent;
}

/*
 * The blocks at @gpa; false unless @gpa is aligned to a block, @nb_blocks is
 * not 0 and all of them lie in the usable region: PLUG, UNPLUG and STATE MUST
 * fail otherwise (spec: PLUG, UNPLUG, STATE request).
 */
bool virtio_mem_range_from_gpa(const VirtIOMEM *vmem, uint64_t gpa,
                               uint16_t nb_blocks, VirtIOMEMRange *range);

/* Choose the block size now if the user did not; also before realize. */
void virtio_mem_settle_block_size(VirtIOMEM *vmem);

#endif
