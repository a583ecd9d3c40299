/*
 * What the properties of a virtio-mem device may be.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "exec/cpu-common.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "system/balloon.h"
#include "system/numa.h"
#include "system/system.h"
#include "virtio-mem-backing.h"
#include "virtio-mem-check.h"
#include "virtio-mem-region.h"
#include "virtio-mem-unit.h"

/* The memory map takes a 64th. */
#define CHECK_MOST_OF_BOOT 64

/* --- what is wrong --- */

static bool check_proxy(const VirtIOMEM *vmem, Error **errp)
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

/* Ordinary RAM, that no other device uses and that is not preallocated. */
static bool check_backing(HostMemoryBackend *memdev, Error **errp)
{
    const char *id;

    /* The machine has asked for its memory region before. */
    assert(memdev);
    id = object_get_canonical_path_component(OBJECT(memdev));
    if (host_memory_backend_is_mapped(memdev)) {
        error_setg(errp, "'%s' property specifies a busy memdev: %s",
                   VIRTIO_MEM_MEMDEV_PROP, id);
        return false;
    }
    if (!memory_region_is_ram(&memdev->mr) ||
        memory_region_is_rom(&memdev->mr) || !memdev->mr.ram_block) {
        error_setg(errp, "'%s' property specifies an unsupported memdev: '%s'"
                   " is not RAM that can be written", VIRTIO_MEM_MEMDEV_PROP,
                   id);
        return false;
    }
    if (memdev->prealloc) {
        error_setg(errp, "'%s' property specifies a memdev with"
                   " preallocation enabled: '%s'; set '%s' to 'on' on the"
                   " virtio-mem device instead", VIRTIO_MEM_MEMDEV_PROP, id,
                   VIRTIO_MEM_PREALLOC_PROP);
        return false;
    }
    return true;
}

static bool check_node(const VirtIOMEM *vmem, Error **errp)
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

static bool check_inaccessible(const VirtIOMEM *vmem, Error **errp)
{
    if (vmem->unplugged_inaccessible == ON_OFF_AUTO_OFF &&
        !virtio_mem_backing_has_shared_zeropage(vmem->memdev)) {
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

static bool check_block_size(const VirtIOMEM *vmem, Error **errp)
{
    const uint64_t page_size = host_memory_backend_pagesize(vmem->memdev);
    uint64_t preferred;

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

bool virtio_mem_check_requested_size(const VirtIOMEM *vmem, const char *name,
                                     uint64_t size, Error **errp)
{
    const uint64_t region_size = virtio_mem_region_size(vmem);

    if (!QEMU_IS_ALIGNED(size, vmem->block_size)) {
        error_setg(errp, "'%s' has to be multiples of '%s' (0x%" PRIx64
                   "), 0x%" PRIx64 " is not", name,
                   VIRTIO_MEM_BLOCK_SIZE_PROP, vmem->block_size, size);
        return false;
    }
    if (size > region_size) {
        error_setg(errp, "'%s' cannot exceed the memory backend size(0x%"
                   PRIx64 "), 0x%" PRIx64 " does", name, region_size, size);
        return false;
    }
    return true;
}

/*
 * A device that is going away agreed to be unplugged because its requested size
 * is 0: a guest that saw another one could plug memory before it handles the
 * unplug.
 */
bool virtio_mem_check_stays(const VirtIOMEM *vmem, const char *name,
                            Error **errp)
{
    if (virtio_mem_proxy(vmem)->pending_deleted_event) {
        error_setg(errp, "'%s' cannot be changed if the device is in the"
                   " process of unplug", name);
        return false;
    }
    return true;
}

bool virtio_mem_check_reserve(const char *name, uint64_t reserve,
                              Error **errp)
{
    const uint64_t all = MACHINE(qdev_get_machine())->maxram_size;

    if (reserve > all) {
        error_setg(errp, "'%s' cannot exceed all memory that the guest may"
                   " have (0x%" PRIx64 "), 0x%" PRIx64 " does", name, all,
                   reserve);
        return false;
    }
    return true;
}

bool virtio_mem_check_mode(const char *name, MemoryDeviceResizeMode mode,
                           Error **errp)
{
    if (mode == MEMORY_DEVICE_RESIZE_MODE_SAFE &&
        !qemu_balloon_has_stats_source()) {
        error_setg(errp, "'%s' is 'safe', which needs a balloon device whose"
                   " driver tells what the guest can spare, and there is none;"
                   " add one, such as virtio-balloon-pci, or set it to"
                   " 'plain'", name);
        return false;
    }
    return true;
}

/* At the start of QEMU, the balloon device may come later than this one. */
static bool check_mode_at_start(const VirtIOMEM *vmem, Error **errp)
{
    return !phase_check(PHASE_MACHINE_READY) ||
           virtio_mem_check_mode(VIRTIO_MEM_RESIZE_MODE_PROP,
                                 vmem->resize_mode, errp);
}

static bool check_sizes(const VirtIOMEM *vmem, Error **errp)
{
    const uint64_t region_size = virtio_mem_region_size(vmem);

    /* So it was placed, or refused, by the machine. */
    assert(QEMU_IS_ALIGNED(vmem->addr, vmem->block_size));
    if (!QEMU_IS_ALIGNED(region_size, vmem->block_size)) {
        error_setg(errp, "'%s' property: memdev size 0x%" PRIx64 " has to be"
                   " multiples of '%s' (0x%" PRIx64 ")",
                   VIRTIO_MEM_MEMDEV_PROP, region_size,
                   VIRTIO_MEM_BLOCK_SIZE_PROP, vmem->block_size);
        return false;
    }
    if (!virtio_mem_check_requested_size(vmem, VIRTIO_MEM_REQUESTED_SIZE_PROP,
                                         vmem->requested_size, errp)) {
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

/* The properties to change for a region of @size at @addr; caller frees. */
static char *check_advise(const VirtIOMEM *vmem, uint64_t addr,
                          uint64_t size)
{
    GString *advice = g_string_new(NULL);

    if (addr != vmem->addr) {
        g_string_append_printf(advice, "'%s' 0x%" PRIx64 " instead of 0x%"
                               PRIx64, VIRTIO_MEM_ADDR_PROP, addr, vmem->addr);
    }
    if (size != virtio_mem_region_size(vmem)) {
        g_string_append_printf(advice, "%sa '%s' with 'size' 0x%" PRIx64,
                               advice->len ? " and " : "",
                               VIRTIO_MEM_MEMDEV_PROP, size);
    }
    return g_string_free(advice, false);
}

/*
 * Say what of the region the guest can never plug, and which value would let
 * it: neither the size nor the address is the device's to choose, as both have
 * to be the same on the other side of a migration.
 */
static void check_usable(const VirtIOMEM *vmem)
{
    const uint64_t unit = MAX(virtio_mem_unit_of_guest(), vmem->block_size);
    const uint64_t size = virtio_mem_region_size(vmem);
    const uint64_t first = ROUND_UP(vmem->addr, unit);
    const uint64_t end = QEMU_ALIGN_DOWN(vmem->addr + size, unit);
    const uint64_t usable = end > first ? end - first : 0;
    g_autofree char *advice = NULL;

    if (usable == size) {
        return;
    }
    advice = check_advise(vmem, first, ROUND_UP(size, unit));
    warn_report("virtio-mem '%s': Linux can use 0x%" PRIx64 " of 0x%" PRIx64
                " bytes, as it adds memory in this machine in aligned units of"
                " 0x%" PRIx64 "; use %s", virtio_mem_name(vmem), usable, size,
                unit, advice);
}

static int check_add_region(Object *obj, void *opaque)
{
    Object *device = object_dynamic_cast(obj, TYPE_VIRTIO_MEM);
    uint64_t *sum = opaque;

    if (device && DEVICE(device)->realized) {
        *sum += virtio_mem_region_size(VIRTIO_MEM(device));
    }
    return 0;
}

/* Warned of once: with the device with which it becomes too much. */
static void check_size_of_all(const VirtIOMEM *vmem)
{
    const uint64_t boot = MACHINE(qdev_get_machine())->ram_size;
    uint64_t others = 0, all;

    object_child_foreach_recursive(object_get_root(), check_add_region,
                                   &others);
    all = others + virtio_mem_region_size(vmem);
    if (all / CHECK_MOST_OF_BOOT > boot &&
        others / CHECK_MOST_OF_BOOT <= boot) {
        warn_report("virtio-mem '%s': with it, such devices have 0x%" PRIx64
                    " bytes, more than %d times the boot memory (0x%" PRIx64
                    "): no Linux that brings all of that online as movable can"
                    " use it, as the memory map does not fit",
                    virtio_mem_name(vmem), all, CHECK_MOST_OF_BOOT, boot);
    }
}

static bool check_mlock(Error **errp)
{
    if (should_mlock(mlock_state)) {
        error_setg(errp, "'%s' is incompatible with locked memory"
                   " (-overcommit mem-lock): unplugged memory could not be"
                   " given back", TYPE_VIRTIO_MEM);
        return false;
    }
    return true;
}

/* --- what the user left to us, once the backing is known to be good --- */

static void check_settle(VirtIOMEM *vmem)
{
    virtio_mem_settle_block_size(vmem);
    /* As many threads as would preallocate the backend. */
    if (!vmem->prealloc_threads) {
        vmem->prealloc_threads = vmem->memdev->prealloc_threads;
    }
    if (vmem->unplugged_inaccessible == ON_OFF_AUTO_AUTO) {
        vmem->unplugged_inaccessible =
            virtio_mem_backing_has_shared_zeropage(vmem->memdev)
            ? ON_OFF_AUTO_OFF : ON_OFF_AUTO_ON;
    }
}

bool virtio_mem_check_properties(VirtIOMEM *vmem, Error **errp)
{
    if (!check_proxy(vmem, errp) || !check_backing(vmem->memdev, errp)) {
        return false;
    }
    check_settle(vmem);
    if (!check_node(vmem, errp) || !check_mlock(errp) ||
        !check_inaccessible(vmem, errp) || !check_block_size(vmem, errp) ||
        !check_sizes(vmem, errp) || !check_mode_at_start(vmem, errp)) {
        return false;
    }
    check_usable(vmem);
    check_size_of_all(vmem);
    return true;
}
