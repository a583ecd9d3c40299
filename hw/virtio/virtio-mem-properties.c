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
#include "virtio-mem-properties.h"
#include "virtio-mem-region.h"
#include "virtio-mem-resize.h"

/* --- sizes, which are no plain members: what they are, and their change --- */

typedef struct PropertiesSize {
    const char *name;
    uint64_t (*read)(const VirtIOMEM *vmem);
    void (*write)(VirtIOMEM *vmem, const char *name, uint64_t value,
                  Error **errp);
} PropertiesSize;

static uint64_t properties_read_size(const VirtIOMEM *vmem)
{
    return vmem->blocks ? virtio_mem_plugged_size(vmem) : 0;
}

static uint64_t properties_read_block_size(const VirtIOMEM *vmem)
{
    return vmem->block_size ?:
           virtio_mem_backing_default_block_size(vmem->memdev);
}

static void properties_write_block_size(VirtIOMEM *vmem, const char *name,
                                        uint64_t value, Error **errp)
{
    if (DEVICE(vmem)->realized) {
        error_setg(errp, "'%s' cannot be changed", name);
    } else if (value < VIRTIO_MEM_MIN_BLOCK_SIZE) {
        error_setg(errp, "'%s' property has to be at least 0x%" PRIx64
                   ", 0x%" PRIx64 " is not", name,
                   (uint64_t)VIRTIO_MEM_MIN_BLOCK_SIZE, value);
    } else if (!is_power_of_2(value)) {
        error_setg(errp, "'%s' property has to be a power of two, 0x%" PRIx64
                   " is not", name, value);
    } else {
        vmem->block_size = value;
    }
}

static uint64_t properties_read_requested_size(const VirtIOMEM *vmem)
{
    return vmem->requested_size;
}

static void properties_write_requested_size(VirtIOMEM *vmem, const char *name,
                                            uint64_t value, Error **errp)
{
    if (!DEVICE(vmem)->realized) {
        vmem->requested_size = value;
    } else if (virtio_mem_check_stays(vmem, name, errp) &&
               virtio_mem_check_requested_size(vmem, name, value, errp)) {
        virtio_mem_resize_wish(vmem, value, errp);
    }
}

static uint64_t properties_read_asked_size(const VirtIOMEM *vmem)
{
    return vmem->asked_size;
}

static uint64_t properties_read_reserve(const VirtIOMEM *vmem)
{
    return vmem->resize_reserve;
}

static void properties_write_reserve(VirtIOMEM *vmem, const char *name,
                                     uint64_t value, Error **errp)
{
    if (virtio_mem_check_reserve(name, value, errp)) {
        vmem->resize_reserve = value;
        if (DEVICE(vmem)->realized) {
            virtio_mem_resize_restart(vmem);
        }
    }
}

static const PropertiesSize properties_sizes[] = {
    { VIRTIO_MEM_ASKED_SIZE_PROP, properties_read_asked_size },
    { VIRTIO_MEM_BLOCK_SIZE_PROP, properties_read_block_size,
      properties_write_block_size },
    { VIRTIO_MEM_REQUESTED_SIZE_PROP, properties_read_requested_size,
      properties_write_requested_size },
    { VIRTIO_MEM_RESIZE_RESERVE_PROP, properties_read_reserve,
      properties_write_reserve },
    { VIRTIO_MEM_SIZE_PROP, properties_read_size },
};

static void properties_get(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    const PropertiesSize *size = opaque;
    uint64_t value = size->read(VIRTIO_MEM(obj));

    visit_type_size(v, name, &value, errp);
}

static void properties_set(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    const PropertiesSize *size = opaque;
    uint64_t value;

    if (visit_type_size(v, name, &value, errp)) {
        size->write(VIRTIO_MEM(obj), name, value, errp);
    }
}

/* --- the mode, which is one to change at any time --- */

static int properties_get_mode(Object *obj, Error **errp)
{
    return VIRTIO_MEM(obj)->resize_mode;
}

static void properties_set_mode(Object *obj, int mode, Error **errp)
{
    VirtIOMEM *vmem = VIRTIO_MEM(obj);

    if (!DEVICE(vmem)->realized) {
        vmem->resize_mode = mode;
    } else if (virtio_mem_check_mode(VIRTIO_MEM_RESIZE_MODE_PROP, mode, errp)) {
        vmem->resize_mode = mode;
        virtio_mem_resize_restart(vmem);
    }
}

/* --- the others --- */

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
    size_t i;

    /* Also where that is no property. */
    vmem->unplugged_inaccessible = ON_OFF_AUTO_ON;

    for (i = 0; i < ARRAY_SIZE(properties_sizes); i++) {
        const PropertiesSize *size = &properties_sizes[i];

        object_property_add(OBJECT(vmem), size->name, "size", properties_get,
                            size->write ? properties_set : NULL, NULL,
                            (void *)size);
    }
    object_property_add_enum(OBJECT(vmem), VIRTIO_MEM_RESIZE_MODE_PROP,
                             "MemoryDeviceResizeMode",
                             &MemoryDeviceResizeMode_lookup,
                             properties_get_mode, properties_set_mode);
}
