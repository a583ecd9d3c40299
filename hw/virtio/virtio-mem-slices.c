/*
 * Host work on virtio-mem blocks, cut into slices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-slices.h"

/*
 * Populating is slow, and giving small pages of shared memory back is slower
 * than others.
 */
#define SLICES_POPULATE (2 * MiB)
#define SLICES_DISCARD (32 * MiB)
#define SLICES_DISCARD_SHARED (4 * MiB)
#define SLICES_DISCARD_NB_MIN 64
#define SLICES_SHORT_CALL_US 100

static uint64_t slices_total_size(const VirtIOMEMSlices *slices)
{
    const VirtIOMEMRuns *runs = &slices->runs;
    VirtIOMEMRange run;
    uint64_t nb_blocks = 0;

    VIRTIO_MEM_BLOCKS_FOREACH_RUN(runs->blocks, runs->within, runs->plugged,
                                  run) {
        nb_blocks += run.nb_blocks;
    }
    return nb_blocks * slices->vmem->block_size;
}

static uint64_t slices_short_discard(const HostMemoryBackend *memdev,
                                     uint64_t page_size, bool others_wait)
{
    return others_wait && memdev->share &&
           page_size == qemu_real_host_page_size() ? SLICES_DISCARD_SHARED
                                                   : SLICES_DISCARD;
}

void virtio_mem_slices_init(VirtIOMEMSlices *slices, const VirtIOMEM *vmem,
                            VirtIOMEMRuns runs, bool populates,
                            bool others_wait)
{
    const uint64_t page_size = host_memory_backend_pagesize(vmem->memdev);

    *slices = (VirtIOMEMSlices) {
        .vmem = vmem,
        .runs = runs,
        .run = { runs.within.first },
    };
    slices->size = slices_total_size(slices);
    slices->min_slice = ROUND_UP(populates ? SLICES_POPULATE :
                                 slices_short_discard(vmem->memdev, page_size,
                                                      others_wait), page_size);
    slices->max_slice = populates ? slices->min_slice :
                        MAX(slices->min_slice,
                            ROUND_UP(slices->size / SLICES_DISCARD_NB_MIN,
                                     slices->min_slice));
    slices->slice = slices->min_slice;
}

static bool slices_next_run(VirtIOMEMSlices *slices)
{
    const VirtIOMEMRuns *runs = &slices->runs;
    const uint64_t block_size = slices->vmem->block_size;

    if (!virtio_mem_blocks_next_run(runs->blocks, runs->within, runs->plugged,
                                    &slices->run)) {
        return false;
    }
    slices->offset = slices->run.first * block_size;
    slices->end = slices->offset + slices->run.nb_blocks * block_size;
    return true;
}

bool virtio_mem_slices_next(VirtIOMEMSlices *slices, VirtIOMEMSlice *slice)
{
    const bool may_be_empty = slices->takes_empty &&
                              slices->slice > slices->min_slice;

    if (slices->offset == slices->end && !slices_next_run(slices)) {
        return false;
    }
    slice->offset = slices->offset;
    slice->size = MIN(slices->slice, slices->end - slices->offset);
    slice->is_empty = may_be_empty &&
                      virtio_mem_backing_is_empty(slices->vmem, slice->offset,
                                                  slice->size);
    if (may_be_empty && !slice->is_empty) {
        /* It may take long. */
        slices->slice = slices->min_slice;
        slice->size = MIN(slices->slice, slice->size);
    }
    slices->offset += slice->size;
    return true;
}

void virtio_mem_slices_note(VirtIOMEMSlices *slices, int64_t us)
{
    if (us > VIRTIO_MEM_SLICES_LONG_CALL_US) {
        slices->slice = slices->min_slice;
    } else if (us < SLICES_SHORT_CALL_US) {
        slices->slice = MIN(VIRTIO_MEM_SLICES_LONG_CALL_US /
                            SLICES_SHORT_CALL_US * slices->slice,
                            slices->takes_empty ? slices->size
                                                : slices->max_slice);
    }
}

void virtio_mem_slices_take_empty(VirtIOMEMSlices *slices, bool takes_empty)
{
    slices->takes_empty = takes_empty;
    if (!takes_empty) {
        slices->slice = MIN(slices->slice, slices->max_slice);
    }
}
