/*
 * Host work on virtio-mem blocks, cut into slices.
 *
 * A slice is what one system call works on.  It may hold the process's memory
 * map for that long, and the processor, so it takes a millisecond or less, even
 * in small pages.  But each call costs something, too, and most of a huge
 * region may not be populated: slices to discard grow while calls turn out to
 * be short, so far that a region has some dozens of them.
 *
 * No lock: that of the work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_SLICES_H
#define HW_VIRTIO_MEM_SLICES_H

#include "hw/virtio/virtio-mem-state.h"
#include "virtio-mem-blocks.h"

/* A call that takes longer is a long one. */
#define VIRTIO_MEM_SLICES_LONG_CALL_US 1000

/*
 * What to work on: the blocks inside @within that are (un)plugged in @blocks;
 * or, without @blocks, all inside @within.
 */
typedef struct VirtIOMEMRuns {
    const VirtIOMEMBlocks *blocks;
    VirtIOMEMRange within;
    bool plugged;
} VirtIOMEMRuns;

typedef struct VirtIOMEMSlice {
    uint64_t offset;
    uint64_t size;
    bool is_empty;              /* for sure: there is nothing to give back */
} VirtIOMEMSlice;

typedef struct VirtIOMEMSlices {
    const VirtIOMEM *vmem;
    VirtIOMEMRuns runs;
    uint64_t size;              /* of all runs */
    uint64_t min_slice;
    uint64_t max_slice;
    bool takes_empty;           /* in slices of any size, and others in short */

    VirtIOMEMRange run;         /* of blocks, being handed out */
    uint64_t offset;            /* of the next slice in it */
    uint64_t end;
    uint64_t slice;             /* how large it is, min_slice to max_slice */
} VirtIOMEMSlices;

/*
 * Cut @runs, to be populated or discarded.  Unless @others_wait, short calls
 * would only cost time.
 */
void virtio_mem_slices_init(VirtIOMEMSlices *slices, const VirtIOMEM *vmem,
                            VirtIOMEMRuns runs, bool populates,
                            bool others_wait);

/* Hand out the next slice; false if all is handed out. */
bool virtio_mem_slices_next(VirtIOMEMSlices *slices, VirtIOMEMSlice *slice);

/* The call for a slice took so long. */
void virtio_mem_slices_note(VirtIOMEMSlices *slices, int64_t us);

/*
 * From now on, while @takes_empty, a slice has what is empty, as the host can
 * tell, of any size; or it is a short one.
 */
void virtio_mem_slices_take_empty(VirtIOMEMSlices *slices, bool takes_empty);

#endif
