/*
 * What of a virtio-mem device is migrated, what must match on both sides, and
 * what the destination rebuilds.
 *
 * The blocks travel in a section of their own that is sent before any page of
 * RAM ("early", the default), or with the virtio device after all of them
 * (machine types before 8.0).  The two formats are those of QEMU 5.1 to 10.0:
 * names, order and bytes of the fields must not change.
 *
 * Nothing that was loaded becomes live state before it was checked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "migration/misc.h"
#include "migration/vmstate.h"
#include "system/runstate.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-config.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-migration.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-stream.h"
#include "virtio-mem-wake.h"

/* --- what must match --- */

typedef struct VirtIOMEMSanityChecks {
    VirtIOMEM *parent;
    uint64_t addr;
    uint64_t region_size;
    uint64_t block_size;
    uint32_t node;
} VirtIOMEMSanityChecks;

static int stream_checks_pre_save(void *opaque)
{
    VirtIOMEMSanityChecks *tmp = opaque;
    VirtIOMEM *vmem = tmp->parent;

    tmp->addr = vmem->addr;
    tmp->region_size = virtio_mem_region_size(vmem);
    tmp->block_size = vmem->block_size;
    tmp->node = vmem->node;
    return 0;
}

static bool stream_check_equal(const char *property, uint64_t theirs,
                               uint64_t ours)
{
    if (theirs != ours) {
        error_report("virtio-mem: cannot load: %s of the source is 0x%" PRIx64
                     ", here it is 0x%" PRIx64, property, theirs, ours);
    }
    return theirs == ours;
}

static int stream_checks_post_load(void *opaque, int version_id)
{
    const VirtIOMEMSanityChecks *tmp = opaque;
    const VirtIOMEM *vmem = tmp->parent;

    if (stream_check_equal("'" VIRTIO_MEM_ADDR_PROP "'", tmp->addr,
                           vmem->addr) &&
        stream_check_equal("the size of '" VIRTIO_MEM_MEMDEV_PROP "'",
                           tmp->region_size,
                           virtio_mem_region_size(vmem)) &&
        stream_check_equal("'" VIRTIO_MEM_BLOCK_SIZE_PROP "'",
                           tmp->block_size, vmem->block_size) &&
        stream_check_equal("'" VIRTIO_MEM_NODE_PROP "'", tmp->node,
                           vmem->node)) {
        return 0;
    }
    return -EINVAL;
}

static const VMStateDescription vmstate_virtio_mem_sanity_checks = {
    .name = "virtio-mem-device/sanity-checks",
    .pre_save = stream_checks_pre_save,
    .post_load = stream_checks_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(addr, VirtIOMEMSanityChecks),
        VMSTATE_UINT64(region_size, VirtIOMEMSanityChecks),
        VMSTATE_UINT64(block_size, VirtIOMEMSanityChecks),
        VMSTATE_UINT32(node, VirtIOMEMSanityChecks),
        VMSTATE_END_OF_LIST(),
    },
};

/* --- between the stream and the live state --- */

static void stream_close(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->stream.bitmap, g_free);
}

static void stream_open(VirtIOMEM *vmem)
{
    stream_close(vmem);
    vmem->stream.bitmap_size = virtio_mem_blocks_nb(vmem->blocks);
    vmem->stream.bitmap = bitmap_new(vmem->stream.bitmap_size);
}

static int stream_pre_save(void *opaque)
{
    VirtIOMEM *vmem = opaque;

    assert(!virtio_mem_is_in_flight(vmem));
    /* The other side may take over the memory itself, as it is. */
    virtio_mem_guard_take_back(vmem->guard);
    stream_open(vmem);
    virtio_mem_blocks_save(vmem->blocks, vmem->stream.bitmap);
    vmem->stream.size = virtio_mem_plugged_size(vmem);
    vmem->stream.usable_region_size = vmem->usable_region_size;
    vmem->stream.requested_size = vmem->asked_size;
    return 0;
}

static int stream_post_save(void *opaque)
{
    stream_close(opaque);
    return 0;
}

static int stream_pre_load(void *opaque)
{
    stream_open(opaque);
    return 0;
}

static int stream_refuse(VirtIOMEM *vmem, Error *err)
{
    error_reportf_err(err, "virtio-mem: cannot load: ");
    stream_close(vmem);
    return -EINVAL;
}

/* The loaded set of blocks, of which none may lie at or above @limit bytes. */
static VirtIOMEMBlocks *stream_get_blocks(VirtIOMEM *vmem, uint64_t limit,
                                          Error **errp)
{
    const VirtIOMEMStream *stream = &vmem->stream;
    VirtIOMEMBlocks *loaded = virtio_mem_blocks_new(stream->bitmap_size);
    uint64_t size;

    if (!virtio_mem_blocks_load(loaded, stream->bitmap,
                                limit / vmem->block_size)) {
        error_setg(errp, "a block above 0x%" PRIx64 " is plugged", limit);
        goto fail;
    }
    size = virtio_mem_blocks_count_plugged(loaded) * vmem->block_size;
    if (size != stream->size) {
        error_setg(errp, "'size' is 0x%" PRIx64 ", but blocks of 0x%" PRIx64
                   " bytes are plugged", stream->size, size);
        goto fail;
    }
    return loaded;

fail:
    virtio_mem_blocks_free(loaded);
    return NULL;
}

/*
 * For 'prealloc': make sure that the host has memory for what was plugged.  For
 * postcopy this only tests that the memory exists; it is given back, because
 * postcopy needs the page faults.  Nothing else may be discarded here, pages
 * may have been loaded already (mapped-ram).
 */
static bool stream_prealloc(VirtIOMEM *vmem, const VirtIOMEMBlocks *loaded,
                            Error **errp)
{
    if (virtio_mem_populate_loaded(vmem, loaded, errp)) {
        return false;
    }
    /* Nothing is plugged yet.  A snapshot may follow a migration. */
    if (runstate_check(RUN_STATE_INMIGRATE) &&
        migration_incoming_postcopy_advised() &&
        virtio_mem_discard_unplugged(vmem)) {
        error_setg(errp, "cannot discard memory for postcopy");
        return false;
    }
    return true;
}

/*
 * Plug what was plugged on the source.  This needs a device in its reset state:
 * nothing plugged.
 */
static bool stream_restore_blocks(VirtIOMEM *vmem, uint64_t limit,
                                  bool prealloc, Error **errp)
{
    VirtIOMEMBlocks *loaded;
    bool ok;

    if (virtio_mem_blocks_count_plugged(vmem->blocks)) {
        error_setg(errp, "0x%" PRIx64 " bytes are plugged here already",
                   virtio_mem_plugged_size(vmem));
        return false;
    }
    loaded = stream_get_blocks(vmem, limit, errp);
    if (!loaded) {
        return false;
    }
    ok = (!prealloc || stream_prealloc(vmem, loaded, errp)) &&
         !virtio_mem_plug_loaded(vmem, loaded, errp);
    virtio_mem_blocks_free(loaded);
    return ok;
}

/* --- early section: the blocks, before the RAM --- */

static int stream_early_post_load(void *opaque, int version_id)
{
    VirtIOMEM *vmem = opaque;
    const bool prealloc = vmem->prealloc &&
                          !virtio_mem_backing_is_ignored(vmem->memdev);
    Error *err = NULL;

    /* The usable region comes late: only the region is a limit. */
    if (!stream_restore_blocks(vmem, virtio_mem_region_size(vmem),
                               prealloc, &err)) {
        return stream_refuse(vmem, err);
    }
    /*
     * Until the late section is accepted, treat the whole region as usable, so
     * that every plugged block lies in it.
     */
    virtio_mem_config_load(vmem, virtio_mem_region_size(vmem),
                           vmem->asked_size);
    stream_close(vmem);
    return 0;
}

/* Fields by the names that the stream's description shows to tools. */
#define STREAM_UINT64(_field, _test) {                                      \
    .name = stringify(_field),                                              \
    .field_exists = (_test),                                                \
    .size = sizeof(uint64_t),                                               \
    .info = &vmstate_info_uint64,                                           \
    .flags = VMS_SINGLE,                                                    \
    .offset = vmstate_offset_value(VirtIOMEM, stream._field, uint64_t),     \
}

#define STREAM_BITMAP(_test) {                                              \
    .name = "bitmap",                                                       \
    .field_exists = (_test),                                                \
    .size_offset = vmstate_offset_value(VirtIOMEM, stream.bitmap_size,      \
                                        int32_t),                           \
    .info = &vmstate_info_bitmap,                                           \
    .flags = VMS_VBUFFER | VMS_POINTER,                                     \
    .offset = offsetof(VirtIOMEM, stream.bitmap),                           \
}

static const VMStateDescription vmstate_virtio_mem_device_early = {
    .name = "virtio-mem-device-early",
    .version_id = 1,
    .minimum_version_id = 1,
    .early_setup = true,
    .pre_load = stream_pre_load,
    .post_load = stream_early_post_load,
    .pre_save = stream_pre_save,
    .post_save = stream_post_save,
    .fields = (const VMStateField[]) {
        VMSTATE_WITH_TMP(VirtIOMEM, VirtIOMEMSanityChecks,
                         vmstate_virtio_mem_sanity_checks),
        STREAM_UINT64(size, NULL),
        STREAM_BITMAP(NULL),
        VMSTATE_END_OF_LIST(),
    },
};

/* --- late section: sizes, and the blocks if they did not come early --- */

static bool stream_blocks_came_late(void *opaque, int version_id)
{
    const VirtIOMEM *vmem = opaque;

    return !vmem->early_migration;
}

static bool stream_check_sizes(const VirtIOMEM *vmem, Error **errp)
{
    const VirtIOMEMStream *stream = &vmem->stream;
    const uint64_t region_size = virtio_mem_region_size(vmem);

    if (!QEMU_IS_ALIGNED(stream->usable_region_size, vmem->block_size) ||
        stream->usable_region_size > region_size) {
        error_setg(errp, "the usable region size 0x%" PRIx64 " has to be a"
                   " multiple of 'block-size' (0x%" PRIx64 ") and at most 0x%"
                   PRIx64, stream->usable_region_size, vmem->block_size,
                   region_size);
        return false;
    }
    if (!QEMU_IS_ALIGNED(stream->requested_size, vmem->block_size) ||
        stream->requested_size > stream->usable_region_size) {
        error_setg(errp, "'requested-size' 0x%" PRIx64 " has to be a multiple"
                   " of 'block-size' (0x%" PRIx64 ") and at most the usable"
                   " region size 0x%" PRIx64, stream->requested_size,
                   vmem->block_size, stream->usable_region_size);
        return false;
    }
    return true;
}

/* The blocks that came early must lie in the usable region that came late. */
static bool stream_check_usable(const VirtIOMEM *vmem, Error **errp)
{
    const uint64_t nb_blocks = virtio_mem_blocks_nb(vmem->blocks);
    const uint64_t nb_usable = vmem->stream.usable_region_size /
                               vmem->block_size;
    const VirtIOMEMRange above = { nb_usable, nb_blocks - nb_usable };

    if (above.nb_blocks && virtio_mem_blocks_classify(vmem->blocks, above) !=
                           VIRTIO_MEM_BLOCKS_UNPLUGGED) {
        error_setg(errp, "a block above the usable region size 0x%" PRIx64
                   " is plugged", vmem->stream.usable_region_size);
        return false;
    }
    return true;
}

static bool stream_load_late(VirtIOMEM *vmem, Error **errp)
{
    if (!stream_check_sizes(vmem, errp)) {
        return false;
    }
    if (vmem->early_migration) {
        return stream_check_usable(vmem, errp);
    }
    return stream_restore_blocks(vmem, vmem->stream.usable_region_size,
                                 false, errp);
}

static int stream_post_load(void *opaque, int version_id)
{
    VirtIOMEM *vmem = opaque;
    Error *err = NULL;

    if (!stream_load_late(vmem, &err)) {
        return stream_refuse(vmem, err);
    }
    if (vmem->prealloc && !vmem->early_migration &&
        !virtio_mem_backing_is_ignored(vmem->memdev)) {
        warn_report("virtio-mem: '%s' is without effect for memory plugged"
                    " before migration with '%s' off",
                    VIRTIO_MEM_PREALLOC_PROP, VIRTIO_MEM_EARLY_MIGRATION_PROP);
    }
    if (!virtio_mem_migration_loaded(vmem, &err)) {
        return stream_refuse(vmem, err);
    }

    /* Whatever was going on here: the loaded state wins. */
    virtio_mem_resize_load(vmem);
    virtio_mem_config_load(vmem, vmem->stream.usable_region_size,
                           vmem->stream.requested_size);
    stream_close(vmem);
    virtio_mem_tell_size(vmem);

    /* The guest may have heard BUSY on the source. */
    virtio_mem_wake_later(vmem);
    return 0;
}

/* Part of the virtio device's section. */
const VMStateDescription vmstate_virtio_mem_device = {
    .name = "virtio-mem-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = stream_pre_load,
    .post_load = stream_post_load,
    .pre_save = stream_pre_save,
    .post_save = stream_post_save,
    .fields = (const VMStateField[]) {
        VMSTATE_WITH_TMP_TEST(VirtIOMEM, stream_blocks_came_late,
                              VirtIOMEMSanityChecks,
                              vmstate_virtio_mem_sanity_checks),
        STREAM_UINT64(usable_region_size, NULL),
        STREAM_UINT64(size, stream_blocks_came_late),
        STREAM_UINT64(requested_size, NULL),
        STREAM_BITMAP(stream_blocks_came_late),
        VMSTATE_END_OF_LIST(),
    },
};

const VMStateDescription vmstate_virtio_mem = {
    .name = "virtio-mem",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST(),
    },
};

/* --- life --- */

void virtio_mem_stream_realize(VirtIOMEM *vmem)
{
    /* The name of the RAM block is part of the stream: path and memdev. */
    vmstate_register_ram(&vmem->memdev->mr, DEVICE(vmem));
    if (vmem->early_migration) {
        vmstate_register_any(VMSTATE_IF(vmem),
                             &vmstate_virtio_mem_device_early, vmem);
    }
}

void virtio_mem_stream_unrealize(VirtIOMEM *vmem)
{
    if (vmem->early_migration) {
        vmstate_unregister(VMSTATE_IF(vmem),
                           &vmstate_virtio_mem_device_early, vmem);
    }
    vmstate_unregister_ram(&vmem->memdev->mr, DEVICE(vmem));
    stream_close(vmem);
}
