/*
 * The virtio-mem device as RamDiscardManager.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "virtio-mem-rdm.h"
#include "virtio-mem-region.h"

typedef int (*VirtIOMEMRdmFn)(MemoryRegionSection *part, void *opaque);

/* All blocks that @section touches, even if only in part. */
static VirtIOMEMRange rdm_blocks(const VirtIOMEM *vmem,
                                 const MemoryRegionSection *section)
{
    const uint64_t start = section->offset_within_region;
    const uint64_t size = int128_get64(section->size);
    const uint64_t first = start / vmem->block_size;
    const uint64_t last = (start + size - 1) / vmem->block_size;

    return (VirtIOMEMRange) { first, last - first + 1 };
}

/*
 * Set @part to what @section and @range share; false if that is nothing.  The
 * address moves with the offset, the other members are those of @section.
 */
static bool rdm_intersect(const VirtIOMEM *vmem,
                          const MemoryRegionSection *section,
                          VirtIOMEMRange range, MemoryRegionSection *part)
{
    const uint64_t section_start = section->offset_within_region;
    const uint64_t section_end = section_start + int128_get64(section->size);
    const uint64_t range_start = virtio_mem_range_offset(vmem, range);
    const uint64_t range_end = range_start + virtio_mem_range_size(vmem, range);
    const uint64_t start = MAX(section_start, range_start);
    const uint64_t end = MIN(section_end, range_end);

    if (start >= end) {
        return false;
    }
    *part = *section;
    part->offset_within_region = start;
    part->offset_within_address_space += start - section_start;
    part->size = int128_make64(end - start);
    return true;
}

/* Call @fn for each run of (un)plugged blocks in @section until it fails. */
static int rdm_foreach(const VirtIOMEM *vmem,
                       const MemoryRegionSection *section, bool plugged,
                       VirtIOMEMRdmFn fn, void *opaque)
{
    const VirtIOMEMRange within = rdm_blocks(vmem, section);
    VirtIOMEMRange run;

    VIRTIO_MEM_BLOCKS_FOREACH_RUN(vmem->blocks, within, plugged, run) {
        MemoryRegionSection part;
        bool any;
        int ret;

        any = rdm_intersect(vmem, section, run, &part);
        assert(any);
        ret = fn(&part, opaque);
        if (ret) {
            return ret;
        }
    }
    return 0;
}

static uint64_t rdm_get_min_granularity(const RamDiscardManager *rdm,
                                        const MemoryRegion *mr)
{
    const VirtIOMEM *vmem = VIRTIO_MEM(rdm);

    assert(mr == &vmem->memdev->mr);
    return vmem->block_size;
}

static bool rdm_is_populated(const RamDiscardManager *rdm,
                             const MemoryRegionSection *section)
{
    const VirtIOMEM *vmem = VIRTIO_MEM(rdm);
    const VirtIOMEMRange range = rdm_blocks(vmem, section);

    assert(section->mr == &vmem->memdev->mr);
    return virtio_mem_blocks_classify(vmem->blocks, range) ==
           VIRTIO_MEM_BLOCKS_PLUGGED;
}

static int rdm_replay_populated(const RamDiscardManager *rdm,
                                MemoryRegionSection *section,
                                ReplayRamPopulate replay_fn, void *opaque)
{
    return rdm_foreach(VIRTIO_MEM(rdm), section, true, replay_fn, opaque);
}

typedef struct VirtIOMEMRdmReplay {
    ReplayRamDiscard fn;
    void *opaque;
} VirtIOMEMRdmReplay;

static int rdm_replay_one_discarded(MemoryRegionSection *part, void *opaque)
{
    VirtIOMEMRdmReplay *replay = opaque;

    replay->fn(part, replay->opaque);
    return 0;
}

static void rdm_replay_discarded(const RamDiscardManager *rdm,
                                 MemoryRegionSection *section,
                                 ReplayRamDiscard replay_fn, void *opaque)
{
    VirtIOMEMRdmReplay replay = { replay_fn, opaque };

    rdm_foreach(VIRTIO_MEM(rdm), section, false,
                rdm_replay_one_discarded, &replay);
}

static int rdm_populate_one(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, part);
}

static int rdm_discard_one(MemoryRegionSection *part, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    rdl->notify_discard(rdl, part);
    return 0;
}

/* Have one listener drop all that it was ever told to take in. */
static void rdm_drop_all(VirtIOMEM *vmem, RamDiscardListener *rdl)
{
    if (!virtio_mem_blocks_count_plugged(vmem->blocks)) {
        return;
    }
    if (rdl->double_discard_supported) {
        rdl->notify_discard(rdl, rdl->section);
    } else {
        rdm_foreach(vmem, rdl->section, true, rdm_discard_one, rdl);
    }
}

static void rdm_register_listener(RamDiscardManager *rdm,
                                  RamDiscardListener *rdl,
                                  MemoryRegionSection *section)
{
    VirtIOMEM *vmem = VIRTIO_MEM(rdm);
    int ret;

    assert(bql_locked());
    assert(section->mr == &vmem->memdev->mr);
    rdl->section = memory_region_section_new_copy(section);
    QLIST_INSERT_HEAD(&vmem->listeners, rdl, next);

    ret = rdm_foreach(vmem, rdl->section, true, rdm_populate_one, rdl);
    if (ret) {
        error_report("a new user of the memory of '%s' refused a plugged"
                     " part: %s", VIRTIO_DEVICE(vmem)->name, strerror(-ret));
    }
}

static void rdm_unregister_listener(RamDiscardManager *rdm,
                                    RamDiscardListener *rdl)
{
    assert(bql_locked());
    rdm_drop_all(VIRTIO_MEM(rdm), rdl);
    QLIST_REMOVE(rdl, next);
    g_clear_pointer(&rdl->section, memory_region_section_free_copy);
}

/* Tell the listeners before @last, or all of them for NULL. */
static void rdm_tell_until(VirtIOMEM *vmem, VirtIOMEMRange range,
                           const RamDiscardListener *last)
{
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &vmem->listeners, next) {
        MemoryRegionSection part;

        if (rdl == last) {
            return;
        }
        if (rdm_intersect(vmem, rdl->section, range, &part)) {
            rdl->notify_discard(rdl, &part);
        }
    }
}

void virtio_mem_rdm_instance_init(VirtIOMEM *vmem)
{
    QLIST_INIT(&vmem->listeners);
}

bool virtio_mem_rdm_has_listeners(const VirtIOMEM *vmem)
{
    return !QLIST_EMPTY(&vmem->listeners);
}

int virtio_mem_rdm_ask_plug(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    RamDiscardListener *rdl;

    assert(bql_locked());
    QLIST_FOREACH(rdl, &vmem->listeners, next) {
        MemoryRegionSection part;
        int ret;

        if (!rdm_intersect(vmem, rdl->section, range, &part)) {
            continue;
        }
        ret = rdl->notify_populate(rdl, &part);
        if (ret) {
            /* The one that refused has already undone its own share. */
            rdm_tell_until(vmem, range, rdl);
            return ret;
        }
    }
    return 0;
}

void virtio_mem_rdm_tell_unplug(VirtIOMEM *vmem, VirtIOMEMRange range)
{
    assert(bql_locked());
    rdm_tell_until(vmem, range, NULL);
}

void virtio_mem_rdm_tell_unplug_all(VirtIOMEM *vmem)
{
    RamDiscardListener *rdl;

    assert(bql_locked());
    QLIST_FOREACH(rdl, &vmem->listeners, next) {
        rdm_drop_all(vmem, rdl);
    }
}

void virtio_mem_rdm_class_init(ObjectClass *klass)
{
    RamDiscardManagerClass *rdmc = RAM_DISCARD_MANAGER_CLASS(klass);

    rdmc->get_min_granularity = rdm_get_min_granularity;
    rdmc->is_populated = rdm_is_populated;
    rdmc->replay_populated = rdm_replay_populated;
    rdmc->replay_discarded = rdm_replay_discarded;
    rdmc->register_listener = rdm_register_listener;
    rdmc->unregister_listener = rdm_unregister_listener;
}
