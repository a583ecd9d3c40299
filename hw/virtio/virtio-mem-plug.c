/*
 * The one door: plug and unplug ranges of blocks, completely or not at all.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "trace.h"
#include "virtio-mem-config.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-memslots.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-rdm.h"
#include "virtio-mem-region.h"
#include "virtio-mem-work.h"

/* The blocks of @range that are (un)plugged in @blocks. */
static VirtIOMEMRuns plug_runs(const VirtIOMEMBlocks *blocks,
                               VirtIOMEMRange range, bool plugged)
{
    return (VirtIOMEMRuns) { blocks, range, plugged };
}

/* All of @range, whatever is plugged of it. */
static VirtIOMEMRuns plug_all_of(VirtIOMEMRange range)
{
    return (VirtIOMEMRuns) { NULL, range };
}

/* --- out of reach, within reach --- */

static int plug_protect(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    return virtio_mem_guard_protect(vmem->guard,
                                    virtio_mem_range_offset(vmem, range),
                                    virtio_mem_range_size(vmem, range));
}

static int plug_release(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    return virtio_mem_guard_release(vmem->guard,
                                    virtio_mem_range_offset(vmem, range),
                                    virtio_mem_range_size(vmem, range));
}

/* What has to be so, whatever it costs: see virtio_mem_guard_force(). */
static void plug_force(VirtIOMEM *vmem, VirtIOMEMRange range, bool protect)
{
    virtio_mem_guard_force(vmem->guard, virtio_mem_range_offset(vmem, range),
                           virtio_mem_range_size(vmem, range), protect);
}

static void plug_release_runs(VirtIOMEM *vmem, VirtIOMEMRuns runs)
{
    VirtIOMEMRange run;

    VIRTIO_MEM_BLOCKS_FOREACH_RUN(runs.blocks, runs.within, runs.plugged, run) {
        plug_force(vmem, run, false);
    }
}

/*
 * Take @range out of reach and give its memory back, in this order: no access
 * can get memory in between.  Blocks of @range that are unplugged already are
 * discarded, too: without a guard, a guest may have written there, and one call
 * for all of @range costs less than one for each run of plugged blocks.
 */
static int coroutine_mixed_fn plug_take_away(VirtIOMEM *vmem,
                                             VirtIOMEMRange range)
{
    int ret = plug_protect(vmem, range);

    if (ret) {
        return ret;
    }
    ret = virtio_mem_work_discard(vmem, plug_all_of(range));
    if (ret) {
        plug_release_runs(vmem, plug_runs(vmem->blocks, range, true));
    }
    return ret;
}

void virtio_mem_tell_size(VirtIOMEM *vmem)
{
    uint64_t size;

    assert(bql_locked());
    size = virtio_mem_plugged_size(vmem);
    virtio_mem_config_bump_generation(vmem);
    notifier_list_notify(&vmem->size_change_notifiers, &size);
}

/*
 * Unplugged memory may hold what the guest wrote there while no guard kept it
 * away: in this QEMU, or in the source of a migration whose memory is shared.
 */
static int coroutine_mixed_fn plug_clean(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    return virtio_mem_guard_is_clean(vmem->guard)
           ? 0 : virtio_mem_work_discard(vmem, plug_all_of(range));
}

/* The host is short of memory: say so once, until it had some again. */
static void plug_report_populate(VirtIOMEM *vmem, const Error *err)
{
    if (err && !vmem->populate_failed) {
        warn_report("virtio-mem '%s': no host memory for blocks that the guest"
                    " wants to plug: %s", virtio_mem_name(vmem),
                    error_get_pretty(err));
    }
    vmem->populate_failed = err != NULL;
}

/* The host's part of plugging @range. */
static int coroutine_mixed_fn plug_populate(VirtIOMEM *vmem,
                                            VirtIOMEMRange range)
{
    g_autoptr(Error) err = NULL;
    int ret;

    /*
     * Listeners such as VFIO pin the memory with the BQL held, and the host
     * has to provide it then; with the guard, none of it can be there yet.  So
     * populate it first, in slices without the BQL: nothing stalls, and the
     * guest of a host that is short hears BUSY.
     */
    if (!vmem->prealloc &&
        !(vmem->guard && virtio_mem_rdm_has_listeners(vmem))) {
        return 0;
    }
    ret = virtio_mem_work_populate(vmem, plug_runs(vmem->blocks, range, false),
                                   &err);
    if (ret != -ECANCELED) {
        plug_report_populate(vmem, err);
    }
    return ret;
}

/* Announce the blocks of @range, whose memory is there, and record them. */
static int plug_announce(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    int ret;

    virtio_mem_memslots_map(vmem, range);
    ret = virtio_mem_rdm_ask_plug(vmem, range);
    if (ret) {
        virtio_mem_memslots_unmap_empty(vmem, range);
        return ret;
    }
    virtio_mem_blocks_set_plugged(vmem->blocks, range);
    return 0;
}

int coroutine_mixed_fn virtio_mem_plug_range(VirtIOMEM *vmem,
                                             VirtIOMEMRange range)
{
    int ret;

    assert(bql_locked());
    assert(virtio_mem_blocks_classify(vmem->blocks, range) ==
           VIRTIO_MEM_BLOCKS_UNPLUGGED);
    ret = plug_clean(vmem, range);
    if (ret) {
        return ret;
    }
    ret = plug_release(vmem, range);
    if (ret) {
        return ret;
    }
    ret = plug_populate(vmem, range);
    if (!ret) {
        ret = plug_announce(vmem, range);
    }
    if (ret) {
        plug_force(vmem, range, true);
        /* We populated it, or a listener pinned it before another refused. */
        if (virtio_mem_work_discard(vmem, plug_all_of(range))) {
            virtio_mem_guard_set_clean(vmem->guard, false);
        }
        return ret;
    }

    virtio_mem_tell_size(vmem);
    return 0;
}

int coroutine_mixed_fn virtio_mem_unplug_range(VirtIOMEM *vmem,
                                               VirtIOMEMRange range)
{
    int ret;

    assert(bql_locked());
    assert(virtio_mem_blocks_classify(vmem->blocks, range) ==
           VIRTIO_MEM_BLOCKS_PLUGGED);
    ret = plug_take_away(vmem, range);
    if (ret) {
        return ret;
    }

    virtio_mem_rdm_tell_unplug(vmem, range);
    virtio_mem_blocks_set_unplugged(vmem->blocks, range);
    virtio_mem_memslots_unmap_empty(vmem, range);
    virtio_mem_tell_size(vmem);
    return 0;
}

int coroutine_mixed_fn virtio_mem_unplug_all(VirtIOMEM *vmem)
{
    bool is_empty;
    int ret;

    assert(bql_locked());
    is_empty = !virtio_mem_blocks_count_plugged(vmem->blocks);
    virtio_mem_guard_take_back(vmem->guard);
    if (is_empty && virtio_mem_guard_is_clean(vmem->guard)) {
        return 0;
    }
    ret = plug_take_away(vmem, virtio_mem_blocks_all(vmem->blocks));
    if (ret) {
        return ret;
    }
    virtio_mem_guard_set_clean(vmem->guard, true);
    if (is_empty) {
        return 0;
    }

    virtio_mem_rdm_tell_unplug_all(vmem);
    virtio_mem_blocks_set_all_unplugged(vmem->blocks);
    virtio_mem_memslots_unmap_empty(vmem, virtio_mem_blocks_all(vmem->blocks));
    trace_virtio_mem_unplugged_all();
    virtio_mem_tell_size(vmem);
    return 0;
}

int coroutine_mixed_fn virtio_mem_populate_loaded(VirtIOMEM *vmem,
                                                  const VirtIOMEMBlocks *loaded,
                                                  Error **errp)
{
    VirtIOMEMRange all;

    assert(bql_locked());
    all = virtio_mem_blocks_all(loaded);
    return virtio_mem_work_populate(vmem, plug_runs(loaded, all, true), errp);
}

int virtio_mem_plug_loaded(VirtIOMEM *vmem, const VirtIOMEMBlocks *loaded,
                           Error **errp)
{
    VirtIOMEMRange run;

    assert(bql_locked());
    assert(!virtio_mem_blocks_count_plugged(vmem->blocks));
    VIRTIO_MEM_BLOCKS_FOREACH_RUN(loaded, virtio_mem_blocks_all(loaded), true,
                                  run) {
        int ret;

        plug_force(vmem, run, false);
        ret = plug_announce(vmem, run);
        if (ret) {
            plug_force(vmem, run, true);
            error_setg_errno(errp, -ret, "a user of the memory refused %"
                             PRIu64 " plugged blocks from block %" PRIu64,
                             run.nb_blocks, run.first);
            return ret;
        }
    }
    return 0;
}

int coroutine_mixed_fn virtio_mem_discard_unplugged(VirtIOMEM *vmem)
{
    VirtIOMEMRange all;
    int ret;

    assert(bql_locked());
    all = virtio_mem_blocks_all(vmem->blocks);
    ret = virtio_mem_work_discard(vmem, plug_runs(vmem->blocks, all, false));
    if (!ret) {
        virtio_mem_guard_set_clean(vmem->guard, true);
    }
    return ret;
}
