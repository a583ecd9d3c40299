/*
 * Blocks, bytes and guest addresses of a virtio-mem region.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-region.h"

bool virtio_mem_range_from_gpa(const VirtIOMEM *vmem, uint64_t gpa,
                               uint16_t nb_blocks, VirtIOMEMRange *range)
{
    const uint64_t offset = gpa - vmem->addr;

    assert(vmem->block_size);
    assert(QEMU_IS_ALIGNED(vmem->usable_region_size, vmem->block_size));
    /* No sum can wrap: compare what is left of the region. */
    if (!nb_blocks || !QEMU_IS_ALIGNED(gpa, vmem->block_size) ||
        gpa < vmem->addr || offset >= vmem->usable_region_size ||
        nb_blocks > (vmem->usable_region_size - offset) / vmem->block_size) {
        return false;
    }
    *range = (VirtIOMEMRange) { offset / vmem->block_size, nb_blocks };
    return true;
}

void virtio_mem_settle_block_size(VirtIOMEM *vmem)
{
    if (!vmem->block_size) {
        vmem->block_size = virtio_mem_backing_default_block_size(vmem->memdev);
    }
}
