/*
 * The properties of a virtio-mem device: what they may be, and what changing
 * the requested size does.
 *
 * A message names the property, the value and the limit.  Management tools
 * match some of the words, which are those of QEMU since 5.1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "hw/qdev-properties.h"
#include "hw/core/qdev-prop-internal.h"
#include "hw/virtio/virtio-mem.h"
#include "system/numa.h"
#include "system/system.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-config.h"
#include "virtio-mem-internal.h"
#include "virtio-mem-plug.h"

/*
 * Only x86 has guests that were written before the device could tell them not
 * to read unplugged memory.
 */
#if defined(TARGET_X86_64) || defined(TARGET_I386)
#define VIRTIO_MEM_HAS_LEGACY_GUESTS 1
#else
#define VIRTIO_MEM_HAS_LEGACY_GUESTS 0
#endif

/* --- before realize --- */

static bool virtio_mem_check_proxy(VirtIOMEM *vmem, Error **errp)
{
    DeviceState *proxy = virtio_mem_proxy(vmem);
    const char *type = object_get_typename(OBJECT(proxy));

    if (!object_dynamic_cast(OBJECT(proxy), TYPE_MEMORY_DEVICE)) {
        error_setg(errp, "'%s' is not a memory device, so nothing would map"
                   " the memory of '%s'; use a device such as virtio-mem-pci",
                   type, TYPE_VIRTIO_MEM);
        return false;
    }
    if (!qdev_get_machine_hotplug_handler(proxy)) {
        error_setg(errp, "this machine has no place for the memory of a '%s';"
                   " use a machine such as q35", type);
        return false;
    }
    return true;
}

static bool virtio_mem_check_node(const VirtIOMEM *vmem, Error **errp)
{
    const NumaState *numa = MACHINE(qdev_get_machine())->numa_state;
    const int nb_nodes = numa ? numa->num_nodes : 0;

    if (vmem->node && vmem->node >= nb_nodes) {
        error_setg(errp, "'%s' property has value '%" PRIu32 "', which exceeds"
                   " the number of numa nodes: %d", VIRTIO_MEM_NODE_PROP,
                   vmem->node, nb_nodes ?: 1);
        return false;
    }
    return true;
}

static bool virtio_mem_settle_inaccessible(VirtIOMEM *vmem, Error **errp)
{
    const bool zeropage = virtio_mem_backing_has_shared_zeropage(vmem->memdev);

    if (!VIRTIO_MEM_HAS_LEGACY_GUESTS) {
        vmem->unplugged_inaccessible = ON_OFF_AUTO_ON;
    } else if (vmem->unplugged_inaccessible == ON_OFF_AUTO_AUTO) {
        vmem->unplugged_inaccessible = zeropage ? ON_OFF_AUTO_OFF
                                                : ON_OFF_AUTO_ON;
    } else if (vmem->unplugged_inaccessible == ON_OFF_AUTO_OFF && !zeropage) {
        warn_report("'%s' property set to 'off', but reading unplugged memory"
                    " of the memdev consumes host memory",
                    VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP);
    }

    if (vmem->dynamic_memslots &&
        vmem->unplugged_inaccessible != ON_OFF_AUTO_ON) {
        error_setg(errp, "'%s' property set to 'on' requires '%s' to be 'on'",
                   VIRTIO_MEM_DYNAMIC_MEMSLOTS_PROP,
                   VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP);
        return false;
    }
    return true;
}

static bool virtio_mem_check_block_size(VirtIOMEM *vmem, Error **errp)
{
    const uint64_t page_size = host_memory_backend_pagesize(vmem->memdev);
    uint64_t preferred;

    virtio_mem_settle_block_size(vmem);
    if (vmem->block_size < page_size) {
        error_setg(errp, "'%s' property has value 0x%" PRIx64 ", which is"
                   " smaller than the page size of the memdev: 0x%" PRIx64,
                   VIRTIO_MEM_BLOCK_SIZE_PROP, vmem->block_size, page_size);
        return false;
    }

    preferred = virtio_mem_backing_default_block_size(vmem->memdev);
    if (vmem->block_size < preferred) {
        warn_report("'%s' property is smaller than the default 0x%" PRIx64
                    " for this memdev: huge pages cannot be used or unplugging"
                    " may give no memory back", VIRTIO_MEM_BLOCK_SIZE_PROP,
                    preferred);
    }
    return true;
}

static bool virtio_mem_check_aligned(const VirtIOMEM *vmem, const char *what,
                                     uint64_t value, Error **errp)
{
    if (!QEMU_IS_ALIGNED(value, vmem->block_size)) {
        error_setg(errp, "%s 0x%" PRIx64 " has to be multiples of '%s' (0x%"
                   PRIx64 ")", what, value, VIRTIO_MEM_BLOCK_SIZE_PROP,
                   vmem->block_size);
        return false;
    }
    return true;
}

static bool virtio_mem_check_requested_size(const VirtIOMEM *vmem,
                                            uint64_t size, Error **errp)
{
    const uint64_t region_size = virtio_mem_region_size(vmem);

    if (!QEMU_IS_ALIGNED(size, vmem->block_size)) {
        error_setg(errp, "'%s' has to be multiples of '%s' (0x%" PRIx64
                   "), 0x%" PRIx64 " is not", VIRTIO_MEM_REQUESTED_SIZE_PROP,
                   VIRTIO_MEM_BLOCK_SIZE_PROP, vmem->block_size, size);
        return false;
    }
    if (size > region_size) {
        error_setg(errp, "'%s' cannot exceed the memory backend size(0x%"
                   PRIx64 "), 0x%" PRIx64 " does",
                   VIRTIO_MEM_REQUESTED_SIZE_PROP, region_size, size);
        return false;
    }
    return true;
}

static bool virtio_mem_check_sizes(const VirtIOMEM *vmem, Error **errp)
{
    const uint64_t region_size = virtio_mem_region_size(vmem);

    if (!virtio_mem_check_aligned(vmem, "'" VIRTIO_MEM_ADDR_PROP "' property",
                                  vmem->addr, errp) ||
        !virtio_mem_check_aligned(vmem, "'" VIRTIO_MEM_MEMDEV_PROP
                                  "' property: memdev size", region_size,
                                  errp) ||
        !virtio_mem_check_requested_size(vmem, vmem->requested_size, errp)) {
        return false;
    }
    if (region_size / vmem->block_size > VIRTIO_MEM_BLOCKS_MAX) {
        error_setg(errp, "'%s' property has value 0x%" PRIx64 ", which cuts"
                   " the memdev of size 0x%" PRIx64 " into more than %" PRIu64
                   " blocks", VIRTIO_MEM_BLOCK_SIZE_PROP, vmem->block_size,
                   region_size, VIRTIO_MEM_BLOCKS_MAX);
        return false;
    }
    return true;
}

/* Unset: as many threads as would preallocate the backend. */
static void virtio_mem_settle_threads(VirtIOMEM *vmem)
{
    if (!vmem->prealloc_threads) {
        vmem->prealloc_threads = vmem->memdev->prealloc_threads;
    }
}

bool virtio_mem_check_properties(VirtIOMEM *vmem, Error **errp)
{
    if (!virtio_mem_check_proxy(vmem, errp) ||
        !virtio_mem_backing_check(vmem->memdev, errp) ||
        !virtio_mem_check_node(vmem, errp)) {
        return false;
    }
    if (should_mlock(mlock_state)) {
        error_setg(errp, "'%s' is incompatible with locked memory"
                   " (-overcommit mem-lock): unplugged memory could not be"
                   " given back", TYPE_VIRTIO_MEM);
        return false;
    }
    virtio_mem_settle_threads(vmem);
    return virtio_mem_settle_inaccessible(vmem, errp) &&
           virtio_mem_check_block_size(vmem, errp) &&
           virtio_mem_check_sizes(vmem, errp);
}

/* --- accessors --- */

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
    }
}

static const PropertyInfo virtio_mem_prop_unplugged_access = {
    .type = "VirtioMEMUnpluggedAccess",
    .description = "absorb/stop",
    .enum_table = &VirtioMEMUnpluggedAccess_lookup,
    .get = qdev_propinfo_get_enum,
    .set = qdev_propinfo_set_enum,
    .set_default_value = qdev_propinfo_set_default_value_enum,
};

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
#if VIRTIO_MEM_HAS_LEGACY_GUESTS
    DEFINE_PROP_ON_OFF_AUTO(VIRTIO_MEM_UNPLUGGED_INACCESSIBLE_PROP, VirtIOMEM,
                            unplugged_inaccessible, ON_OFF_AUTO_ON),
#endif
    DEFINE_PROP_ON_OFF_AUTO(VIRTIO_MEM_PROTECT_UNPLUGGED_PROP, VirtIOMEM,
                            protect_unplugged, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_SIGNED(VIRTIO_MEM_UNPLUGGED_ACCESS_PROP, VirtIOMEM,
                       unplugged_access, VIRTIO_MEM_UNPLUGGED_ACCESS_ABSORB,
                       virtio_mem_prop_unplugged_access,
                       VirtioMEMUnpluggedAccess),
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

    object_property_add(obj, VIRTIO_MEM_BLOCK_SIZE_PROP, "size",
                        virtio_mem_get_block_size,
                        virtio_mem_set_block_size, NULL, NULL);
    object_property_add(obj, VIRTIO_MEM_REQUESTED_SIZE_PROP, "size",
                        virtio_mem_get_requested_size,
                        virtio_mem_set_requested_size, NULL, NULL);
    object_property_add(obj, VIRTIO_MEM_SIZE_PROP, "size",
                        virtio_mem_get_size, NULL, NULL, NULL);
}
