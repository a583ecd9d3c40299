/*
 * virtio-mem: a memory device that the guest grows and shrinks in blocks.
 *
 * This file is the virtio device: realize, config space, features and what a
 * proxy may ask.  What users set, and what happens on a request, a reset or a
 * migration, is in the virtio-mem-*.c files beside it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/acpi/acpi.h"
#include "hw/boards.h"
#include "hw/virtio/virtio-mem.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_mem.h"
#include "system/runstate.h"
#include "trace.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-check.h"
#include "virtio-mem-config.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-memslots.h"
#include "virtio-mem-job.h"
#include "virtio-mem-migration.h"
#include "virtio-mem-plug.h"
#include "virtio-mem-properties.h"
#include "virtio-mem-protect.h"
#include "virtio-mem-query-stats.h"
#include "virtio-mem-queue.h"
#include "virtio-mem-rdm.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"
#include "virtio-mem-stats.h"
#include "virtio-mem-status.h"
#include "virtio-mem-steps.h"
#include "virtio-mem-stream.h"
#include "virtio-mem-system-reset.h"
#include "virtio-mem-wake.h"
#include "virtio-mem-work.h"

/* --- features --- */

static uint64_t virtio_mem_get_features(VirtIODevice *vdev, uint64_t features,
                                        Error **errp)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);
    MachineState *ms = MACHINE(qdev_get_machine());

    if (ms->numa_state && acpi_builtin()) {
        virtio_add_feature(&features, VIRTIO_MEM_F_ACPI_PXM);
    }
    assert(vmem->unplugged_inaccessible != ON_OFF_AUTO_AUTO);
    if (vmem->unplugged_inaccessible == ON_OFF_AUTO_ON) {
        virtio_add_feature(&features, VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);
    }
    if (qemu_wakeup_suspend_enabled()) {
        virtio_add_feature(&features, VIRTIO_MEM_F_PERSISTENT_SUSPEND);
    }
    return features;
}

/*
 * MAY fail to operate further (spec: Device Initialization) with a driver that
 * did not promise to keep off unplugged memory.
 */
static int virtio_mem_validate_features(VirtIODevice *vdev)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);
    const bool refused =
        virtio_host_has_feature(vdev, VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE) &&
        !virtio_vdev_has_feature(vdev, VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);

    /* The node shows or hides with its feature. */
    virtio_mem_config_bump_generation(vmem);

    virtio_mem_status_note_features(vmem, refused);
    if (refused) {
        trace_virtio_mem_bad_features();
        return -EFAULT;
    }
    return 0;
}

/*
 * Device reset MUST NOT change any block (spec: Device Initialization): all
 * that ends is the request in flight and the driver's waiting.
 */
static void virtio_mem_reset(VirtIODevice *vdev)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);

    virtio_mem_drain(vmem);
    virtio_mem_wake_forget(vmem);
    virtio_mem_status_forget(vmem);
}

static void virtio_mem_queue_reset(VirtIODevice *vdev, uint32_t queue_index)
{
    virtio_mem_drain(VIRTIO_MEM(vdev));
}

/* Also called when the VM starts to run, and when it has stopped. */
static void virtio_mem_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOMEM *vmem = VIRTIO_MEM(vdev);

    virtio_mem_status_update(vmem);
    if (!virtio_mem_vm_is_live()) {
        virtio_mem_drain(vmem);
        return;
    }
    virtio_mem_wake_if_due(vmem);
    virtio_mem_queue_resume(vmem);
}

/* --- realize --- */

static void virtio_mem_begin_blocks(VirtIOMEM *vmem)
{
    vmem->blocks = virtio_mem_blocks_new(virtio_mem_region_size(vmem) /
                                         vmem->block_size);
}

static void virtio_mem_end_blocks(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->blocks, virtio_mem_blocks_free);
}

/* Memory can be given back, now and as long as the device lives. */
static bool virtio_mem_claim_discards(VirtIOMEM *vmem, Error **errp)
{
    if (ram_block_coordinated_discard_require(true)) {
        error_setg(errp, "'%s' needs to discard RAM, which another device or"
                   " accelerator forbids", TYPE_VIRTIO_MEM);
        return false;
    }
    return true;
}

static void virtio_mem_yield_discards(VirtIOMEM *vmem)
{
    ram_block_coordinated_discard_require(false);
}

/* On an incoming migration, the memory may hold content already. */
static bool virtio_mem_begin_empty(VirtIOMEM *vmem, Error **errp)
{
    if (!runstate_check(RUN_STATE_INMIGRATE) &&
        virtio_mem_discard_unplugged(vmem)) {
        error_setg(errp, "'%s' property specifies a memdev that cannot be"
                   " discarded: '%s'", VIRTIO_MEM_MEMDEV_PROP,
                   virtio_mem_name(vmem));
        return false;
    }
    return true;
}

static bool virtio_mem_begin_backing(VirtIOMEM *vmem, Error **errp)
{
    if (!virtio_mem_backing_realize(vmem, errp)) {
        return false;
    }
    host_memory_backend_set_mapped(vmem->memdev, true);
    return true;
}

static void virtio_mem_end_backing(VirtIOMEM *vmem)
{
    host_memory_backend_set_mapped(vmem->memdev, false);
    virtio_mem_backing_unrealize(vmem);
}

static void virtio_mem_begin_usable_region(VirtIOMEM *vmem)
{
    /* In mode safe, a guest that starts gets its memory in steps, too. */
    vmem->asked_size = vmem->resize_mode == MEMORY_DEVICE_RESIZE_MODE_SAFE
                       ? 0 : vmem->requested_size;
    virtio_mem_config_fit_usable_size(vmem);
}

static void virtio_mem_begin_virtio(VirtIOMEM *vmem)
{
    virtio_init(VIRTIO_DEVICE(vmem), VIRTIO_ID_MEM,
                sizeof(struct virtio_mem_config));
}

static void virtio_mem_end_virtio(VirtIOMEM *vmem)
{
    virtio_cleanup(VIRTIO_DEVICE(vmem));
}

static void virtio_mem_begin_rdm(VirtIOMEM *vmem)
{
    memory_region_set_ram_discard_manager(&vmem->memdev->mr,
                                          RAM_DISCARD_MANAGER(vmem));
}

static void virtio_mem_end_rdm(VirtIOMEM *vmem)
{
    memory_region_set_ram_discard_manager(&vmem->memdev->mr, NULL);
}

/*
 * What a device consists of, in the order in which it comes up.  It goes down
 * in the reverse order, also from the first part that fails.
 */
static const struct {
    bool (*try)(VirtIOMEM *vmem, Error **errp);     /* either this ... */
    void (*begin)(VirtIOMEM *vmem);                 /* ... or this */
    void (*end)(VirtIOMEM *vmem);
} virtio_mem_parts[] = {
    { .try = virtio_mem_check_properties },
    { .begin = virtio_mem_stats_realize, .end = virtio_mem_stats_unrealize },
    { .try = virtio_mem_work_realize, .end = virtio_mem_work_unrealize },
    { .try = virtio_mem_protect_realize, .end = virtio_mem_protect_unrealize },
    { .begin = virtio_mem_begin_blocks, .end = virtio_mem_end_blocks },
    { .try = virtio_mem_claim_discards, .end = virtio_mem_yield_discards },
    { .try = virtio_mem_begin_empty },
    { .try = virtio_mem_begin_backing, .end = virtio_mem_end_backing },
    { .begin = virtio_mem_begin_usable_region },
    { .begin = virtio_mem_begin_virtio, .end = virtio_mem_end_virtio },
    { .begin = virtio_mem_queue_realize, .end = virtio_mem_queue_unrealize },
    { .begin = virtio_mem_memslots_realize,
      .end = virtio_mem_memslots_unrealize },
    { .begin = virtio_mem_wake_realize, .end = virtio_mem_wake_unrealize },
    { .begin = virtio_mem_status_realize, .end = virtio_mem_status_unrealize },
    { .begin = virtio_mem_resize_realize, .end = virtio_mem_resize_unrealize },
    { .begin = virtio_mem_job_realize, .end = virtio_mem_job_unrealize },
    { .begin = virtio_mem_migration_realize,
      .end = virtio_mem_migration_unrealize },
    { .begin = virtio_mem_stream_realize,
      .end = virtio_mem_stream_unrealize },
    { .begin = virtio_mem_system_reset_realize,
      .end = virtio_mem_system_reset_unrealize },
    { .begin = virtio_mem_begin_rdm, .end = virtio_mem_end_rdm },
};

/* End the first @nb_parts parts. */
static void virtio_mem_end_parts(VirtIOMEM *vmem, size_t nb_parts)
{
    while (nb_parts--) {
        if (virtio_mem_parts[nb_parts].end) {
            virtio_mem_parts[nb_parts].end(vmem);
        }
    }
}

static void virtio_mem_realize(DeviceState *dev, Error **errp)
{
    VirtIOMEM *vmem = VIRTIO_MEM(dev);
    size_t i;

    for (i = 0; i < ARRAY_SIZE(virtio_mem_parts); i++) {
        if (virtio_mem_parts[i].begin) {
            virtio_mem_parts[i].begin(vmem);
        } else if (!virtio_mem_parts[i].try(vmem, errp)) {
            virtio_mem_end_parts(vmem, i);
            return;
        }
    }
}

static void virtio_mem_unrealize(DeviceState *dev)
{
    VirtIOMEM *vmem = VIRTIO_MEM(dev);

    virtio_mem_drain(vmem);
    virtio_mem_end_parts(vmem, ARRAY_SIZE(virtio_mem_parts));
}

/* --- class methods: what a proxy asks --- */

static void virtio_mem_fill_device_info(const VirtIOMEM *vmem,
                                        VirtioMEMDeviceInfo *info)
{
    info->memaddr = vmem->addr;
    info->node = vmem->node;
    info->requested_size = vmem->requested_size;
    info->size = virtio_mem_plugged_size(vmem);
    info->max_size = virtio_mem_region_size(vmem);
    info->block_size = vmem->block_size;
    info->memdev = object_get_canonical_path(OBJECT(vmem->memdev));
    info->has_usable_size = true;
    info->usable_size = vmem->usable_region_size;
    info->has_q_protected = true;
    info->q_protected = virtio_mem_guard_is_active(vmem->guard);
    virtio_mem_status_fill_info(vmem, info);
    virtio_mem_job_fill_info(vmem, info);
}

static MemoryRegion *virtio_mem_get_memory_region(VirtIOMEM *vmem,
                                                  Error **errp)
{
    if (!vmem->memdev) {
        error_setg(errp, "'%s' property must be set", VIRTIO_MEM_MEMDEV_PROP);
        return NULL;
    }
    return vmem->dynamic_memslots ? virtio_mem_memslots_get_container(vmem)
                                  : &vmem->memdev->mr;
}

static void virtio_mem_add_size_change_notifier(VirtIOMEM *vmem,
                                                Notifier *notifier)
{
    notifier_list_add(&vmem->size_change_notifiers, notifier);
}

static void virtio_mem_unplug_request_check(VirtIOMEM *vmem, Error **errp)
{
    virtio_mem_drain(vmem);
    if (vmem->unplugged_inaccessible == ON_OFF_AUTO_OFF) {
        error_setg(errp, "virtio-mem device cannot get unplugged while"
                   " '%s' != 'on'", VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP);
    } else if (virtio_mem_blocks_count_plugged(vmem->blocks)) {
        error_setg(errp, "virtio-mem device cannot get unplugged while some"
                   " of its memory is still plugged");
    } else if (vmem->requested_size) {
        error_setg(errp, "virtio-mem device cannot get unplugged while"
                   " '%s' != '0'", VIRTIO_MEM_REQUESTED_SIZE_PROP);
    } else if (vmem->asked_size) {
        error_setg(errp, "virtio-mem device cannot get unplugged while"
                   " '%s' != '0'", VIRTIO_MEM_ASKED_SIZE_PROP);
    } else if (virtio_mem_job_id(vmem)) {
        error_setg(errp, "virtio-mem device cannot get unplugged while it is"
                   " resized by job '%s'", virtio_mem_job_id(vmem));
    } else {
        /* What still watches the guest might ask it to plug again. */
        virtio_mem_steps_stop(vmem);
    }
}

/* --- type --- */

static void virtio_mem_instance_init(Object *obj)
{
    VirtIOMEM *vmem = VIRTIO_MEM(obj);

    notifier_list_init(&vmem->size_change_notifiers);
    virtio_mem_rdm_instance_init(vmem);
    virtio_mem_properties_instance_init(vmem);
}

static void virtio_mem_instance_finalize(Object *obj)
{
    virtio_mem_memslots_finalize(VIRTIO_MEM(obj));
}

static void virtio_mem_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    VirtIOMEMClass *vmc = VIRTIO_MEM_CLASS(klass);

    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    virtio_mem_query_stats_register();

    dc->vmsd = &vmstate_virtio_mem;
    vdc->vmsd = &vmstate_virtio_mem_device;

    vdc->realize = virtio_mem_realize;
    vdc->reset = virtio_mem_reset;
    vdc->queue_reset = virtio_mem_queue_reset;
    vdc->set_status = virtio_mem_set_status;
    vdc->get_features = virtio_mem_get_features;
    vdc->validate_features = virtio_mem_validate_features;
    vdc->get_config = virtio_mem_config_get;
    vdc->unrealize = virtio_mem_unrealize;

    vmc->get_memory_region = virtio_mem_get_memory_region;
    vmc->decide_memslots = virtio_mem_memslots_decide;
    vmc->get_memslots = virtio_mem_memslots_count;
    vmc->unplug_request_check = virtio_mem_unplug_request_check;
    vmc->add_size_change_notifier = virtio_mem_add_size_change_notifier;
    vmc->fill_device_info = virtio_mem_fill_device_info;
    vmc->resize = virtio_mem_job_start;

    virtio_mem_properties_class_init(klass);
    virtio_mem_rdm_class_init(klass);
}

static const TypeInfo virtio_mem_info = {
    .name = TYPE_VIRTIO_MEM,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOMEM),
    .instance_init = virtio_mem_instance_init,
    .instance_finalize = virtio_mem_instance_finalize,
    .class_size = sizeof(VirtIOMEMClass),
    .class_init = virtio_mem_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_RAM_DISCARD_MANAGER },
        { }
    },
};

static void virtio_mem_register_types(void)
{
    type_register_static(&virtio_mem_info);
}

type_init(virtio_mem_register_types)
