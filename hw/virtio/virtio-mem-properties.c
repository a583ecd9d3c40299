/*
 * The properties of a virtio-mem device: what users set and see.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-check.h"
#include "virtio-mem-config.h"
#include "virtio-mem-properties.h"
#include "virtio-mem-region.h"
#include "virtio-mem-status.h"

static void virtio_mem_get_size(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    const VirtIOMEM *vmem = VIRTIO_MEM(obj);
    uint64_t value = vmem->blocks ? virtio_mem_plugged_size(vmem) : 0;

    visit_type_size(v, name, &value, errp);
}

static void virtio_mem_get_block_size(Object *obj, Visitor *v,
                                      const char *name, void *opaque,
                                      Error **errp)
{
    const VirtIOMEM *vmem = VIRTIO_MEM(obj);
    uint64_t value = vmem->block_size ?:
                     virtio_mem_backing_default_block_size(vmem->memdev);

    visit_type_size(v, name, &value, errp);
}

static void virtio_mem_set_block_size(Object *obj, Visitor *v,
                                      const char *name, void *opaque,
                                      Error **errp)
{
    VirtIOMEM *vmem = VIRTIO_MEM(obj);
    uint64_t value;

    if (DEVICE(obj)->realized) {
        error_setg(errp, "'%s' cannot be changed", name);
        return;
    }
    if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (value < VIRTIO_MEM_MIN_BLOCK_SIZE) {
        error_setg(errp, "'%s' property has to be at least 0x%" PRIx64
                   ", 0x%" PRIx64 " is not", name,
                   (uint64_t)VIRTIO_MEM_MIN_BLOCK_SIZE, value);
        return;
    }
    if (!is_power_of_2(value)) {
        error_setg(errp, "'%s' property has to be a power of two, 0x%" PRIx64
                   " is not", name, value);
        return;
    }
    vmem->block_size = value;
}

static void virtio_mem_get_requested_size(Object *obj, Visitor *v,
                                          const char *name, void *opaque,
                                          Error **errp)
{
    uint64_t value = VIRTIO_MEM(obj)->requested_size;

    visit_type_size(v, name, &value, errp);
}

/*
 * The device agreed to be unplugged because its requested size is 0: a guest
 * that saw another one could plug memory before it handles the unplug.
 */
static bool virtio_mem_is_going_away(VirtIOMEM *vmem)
{
    return virtio_mem_proxy(vmem)->pending_deleted_event;
}

static void virtio_mem_set_requested_size(Object *obj, Visitor *v,
                                          const char *name, void *opaque,
                                          Error **errp)
{
    VirtIOMEM *vmem = VIRTIO_MEM(obj);
    uint64_t value;

    if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (!DEVICE(obj)->realized) {
        vmem->requested_size = value;
        return;
    }
    if (virtio_mem_is_going_away(vmem)) {
        error_setg(errp, "'%s' cannot be changed if the device is in the"
                   " process of unplug", name);
        return;
    }
    if (virtio_mem_check_requested_size(vmem, value, errp)) {
        virtio_mem_change_requested_size(vmem, value);
        virtio_mem_status_restart(vmem);
    }
}

static const Property virtio_mem_properties[] = {
    DEFINE_PROP_LINK(VIRTIO_MEM_MEMDEV_PROP, VirtIOMEM, memdev,
                     TYPE_MEMORY_BACKEND, HostMemoryBackend *),
    DEFINE_PROP_UINT64(VIRTIO_MEM_ADDR_PROP, VirtIOMEM, addr, 0),
    DEFINE_PROP_UINT32(VIRTIO_MEM_NODE_PROP, VirtIOMEM, node, 0),
    DEFINE_PROP_BOOL(VIRTIO_MEM_DYNAMIC_MEMSLOTS_PROP, VirtIOMEM,
                     dynamic_memslots, false),
    DEFINE_PROP_BOOL(VIRTIO_MEM_PREALLOC_PROP, VirtIOMEM, prealloc, false),
    DEFINE_PROP_UINT32(VIRTIO_MEM_PREALLOC_THREADS_PROP, VirtIOMEM,
                       prealloc_threads, 0),
    /*
     * Only x86 has guests that were written before the device could tell them
     * not to read unplugged memory.
     */
#if defined(TARGET_X86_64) || defined(TARGET_I386)
    DEFINE_PROP_ON_OFF_AUTO(VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP, VirtIOMEM,
                            unplugged_inaccessible, ON_OFF_AUTO_ON),
#endif
    DEFINE_PROP_ON_OFF_AUTO(VIRTIO_MEM_PROTECT_UNPLUGGED_PROP, VirtIOMEM,
                            protect_unplugged, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_VIRTIO_MEM_UNPLUGGED_ACCESS(
        VIRTIO_MEM_UNPLUGGED_ACCESS_PROP, VirtIOMEM, unplugged_access,
        VIRTIO_MEM_UNPLUGGED_ACCESS_ABSORB),
    DEFINE_PROP_BOOL(VIRTIO_MEM_EARLY_MIGRATION_PROP, VirtIOMEM,
                     early_migration, true),
};

void virtio_mem_properties_class_init(ObjectClass *klass)
{
    device_class_set_props(DEVICE_CLASS(klass), virtio_mem_properties);
}

void virtio_mem_properties_instance_init(VirtIOMEM *vmem)
{
    Object *obj = OBJECT(vmem);

    /* Also where that is no property. */
    vmem->unplugged_inaccessible = ON_OFF_AUTO_ON;

    object_property_add(obj, VIRTIO_MEM_BLOCK_SIZE_PROP, "size",
                        virtio_mem_get_block_size,
                        virtio_mem_set_block_size, NULL, NULL);
    object_property_add(obj, VIRTIO_MEM_REQUESTED_SIZE_PROP, "size",
                        virtio_mem_get_requested_size,
                        virtio_mem_set_requested_size, NULL, NULL);
    object_property_add(obj, VIRTIO_MEM_SIZE_PROP, "size",
                        virtio_mem_get_size, NULL, NULL, NULL);
}
