/*
 * A virtio-mem device in a model, and what stands for the rest of QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/qapi-types-migration.h"
#include "hw/resettable.h"
#include "migration/client-options.h"
#include "migration/register.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-flight.h"
#include "hw/virtio/virtio-mem-guard-faults.h"
#include "hw/virtio/virtio-mem-memslots.h"
#include "hw/virtio/virtio-mem-migration.h"
#include "hw/virtio/virtio-mem-plug.h"
#include "hw/virtio/virtio-mem-protect.h"
#include "hw/virtio/virtio-mem-rdm.h"
#include "hw/virtio/virtio-mem-region.h"
#include "hw/virtio/virtio-mem-resize.h"
#include "hw/virtio/virtio-mem-stats.h"
#include "hw/virtio/virtio-mem-status.h"
#include "hw/virtio/virtio-mem-system-reset.h"
#include "hw/virtio/virtio-mem-unit.h"
#include "hw/virtio/virtio-mem-wake.h"
#include "hw/virtio/virtio-mem-work.h"
#include "virtio-mem-model-calls.h"
#include "virtio-mem-model-device.h"

static ModelDevice device;
static HostMemoryBackend memdev;
static unsigned int paused;         /* VirtIOMEMPause: why the guard is */

VirtIOMEM model_vmem;
ModelWorld model_world;

unsigned model_plugged(void)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        const VirtIOMEMRange block = { i, 1 };

        bits |= (virtio_mem_blocks_classify(model_vmem.blocks, block) ==
                 VIRTIO_MEM_BLOCKS_PLUGGED) << i;
    }
    return bits;
}

/* --- in place of other files --- */

size_t host_memory_backend_pagesize(HostMemoryBackend *backend)
{
    return MODEL_BLOCK;
}

uint64_t memory_region_size(MemoryRegion *mr)
{
    return MODEL_BLOCKS * MODEL_BLOCK;
}

uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *backend)
{
    return MODEL_BLOCK;
}

bool virtio_mem_backing_is_ignored(HostMemoryBackend *backend)
{
    return false;
}

uint64_t virtio_mem_unit_usable_extent(void)
{
    return 0;
}

void virtio_mem_memslots_map(VirtIOMEM *unused, VirtIOMEMRange range)
{
}

void virtio_mem_memslots_unmap_empty(VirtIOMEM *unused, VirtIOMEMRange range)
{
}

bool virtio_mem_rdm_has_listeners(const VirtIOMEM *unused)
{
    return false;
}

int virtio_mem_rdm_ask_plug(VirtIOMEM *unused, VirtIOMEMRange range)
{
    return 0;
}

void virtio_mem_rdm_tell_unplug(VirtIOMEM *unused, VirtIOMEMRange range)
{
}

void virtio_mem_rdm_tell_unplug_all(VirtIOMEM *unused)
{
}

void virtio_notify_config(VirtIODevice *vdev)
{
}

void virtio_mem_status_note_request(VirtIOMEM *unused, bool wants_change,
                                    VirtioMEMResizeReason reason)
{
}

void virtio_mem_status_update(VirtIOMEM *unused)
{
}

void virtio_mem_wake_later(VirtIOMEM *unused)
{
    model_world.must_wake = true;
}

void virtio_mem_wake_reset_backoff(VirtIOMEM *unused)
{
}

void virtio_mem_wake_if_due(VirtIOMEM *unused)
{
    model_world.must_wake = false;
}

void virtio_mem_resize_leave(VirtIOMEM *unused)
{
}

void virtio_mem_resize_system_reset(VirtIOMEM *unused)
{
}

bool runstate_check(RunState state)
{
    return state == RUN_STATE_RUNNING;
}

bool virtio_mem_migration_forbids_change(void)
{
    return model_world.migrating || model_world.postcopy;
}

bool migrate_background_snapshot(void)
{
    return device.snapshot;
}

bool migration_in_incoming_postcopy(void)
{
    return model_world.postcopy;
}

int virtio_mem_protect_pause(VirtIOMEM *unused, VirtIOMEMPause why)
{
    paused |= why;
    return virtio_mem_guard_pause(model_vmem.guard);
}

bool virtio_mem_protect_resume(VirtIOMEM *unused, VirtIOMEMPause why)
{
    const bool was_paused = paused & why;

    paused &= ~why;
    return was_paused && !virtio_mem_guard_resume(model_vmem.guard);
}

static NotifierWithReturn *migration_notifier;
static MigrationNotifyFunc migration_notify;

void migration_add_notifier_mode(NotifierWithReturn *notifier,
                                 MigrationNotifyFunc notify, MigMode mode)
{
    if (mode == MIG_MODE_NORMAL) {
        migration_notifier = notifier;
        migration_notify = notify;
    }
}

static const SaveVMHandlers *load_handlers;

int model_register_savevm(const SaveVMHandlers *handlers, void *opaque)
{
    load_handlers = handlers;
    return 0;
}

static QEMUTimer *pending;

void model_timer_mod(QEMUTimer *timer)
{
    pending = timer;
}

static Object *resetter;

void qemu_register_resettable(Object *obj)
{
    resetter = obj;
}

void qemu_unregister_resettable(Object *obj)
{
    g_assert_true(obj == resetter);
}

static const TypeInfo resettable_type = {
    .name = TYPE_RESETTABLE_INTERFACE,
    .parent = TYPE_INTERFACE,
    .class_size = sizeof(ResettableClass),
};

/* --- life --- */

static int area_discard(void *opaque, uint64_t offset, uint64_t size)
{
    model_discard(offset, size);
    return 0;
}

static void area_notify(void *opaque)
{
}

static void hear_size(Notifier *notifier, void *data)
{
    model_world.told = *(uint64_t *)data;
}

void model_device_begin(const ModelDevice *what)
{
    static Notifier notifier = { .notify = hear_size };
    const VirtIOMEMGuardArea area = {
        .host = MODEL_HOST,
        .size = MODEL_BLOCKS * MODEL_BLOCK,
        .page_size = 4 * KiB,
        .block_size = MODEL_BLOCK,
        .discard = area_discard,
        .notify = area_notify,
    };

    device = *what;
    paused = 0;
    pending = NULL;
    memset(&model_world, 0, sizeof(model_world));
    memset(&model_vmem, 0, sizeof(model_vmem));
    memdev.share = true;        /* a slice is one block */
    model_vmem.memdev = &memdev;
    model_vmem.addr = MODEL_ADDR;
    model_vmem.block_size = MODEL_BLOCK;
    model_vmem.prealloc = device.prealloc;
    model_vmem.prealloc_threads = 2;
    model_vmem.asked_size = MODEL_BLOCKS * MODEL_BLOCK;
    model_vmem.usable_region_size = model_vmem.asked_size;
    model_vmem.blocks = virtio_mem_blocks_new(MODEL_BLOCKS);
    virtio_mem_stats_realize(&model_vmem);
    virtio_mem_work_realize(&model_vmem, &error_abort);
    notifier_list_init(&model_vmem.size_change_notifiers);
    notifier_list_add(&model_vmem.size_change_notifiers, &notifier);
    model_vmem.guard = virtio_mem_guard_new(&area, false, &error_abort);
    virtio_mem_guard_set_clean(model_vmem.guard, true);
    virtio_mem_migration_realize(&model_vmem);
    virtio_mem_system_reset_realize(&model_vmem);
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (extract32(device.plugged, i, 1)) {
            virtio_mem_plug_range(&model_vmem, (VirtIOMEMRange) { i, 1 });
        }
    }
}

void model_device_end(void)
{
    virtio_mem_system_reset_unrealize(&model_vmem);
    virtio_mem_migration_unrealize(&model_vmem);
    virtio_mem_guard_free(model_vmem.guard);
    virtio_mem_work_unrealize(&model_vmem);
    virtio_mem_stats_unrealize(&model_vmem);
    virtio_mem_blocks_free(model_vmem.blocks);
}

void model_device_register(void)
{
    rust_bql_mock_lock();
    module_call_init(MODULE_INIT_QOM);
    type_register_static(&resettable_type);
}

/* --- events --- */

void model_device_reset(void)
{
    RESETTABLE_GET_CLASS(resetter)->phases.hold(resetter, RESET_TYPE_COLD);
}

void model_device_notify(MigrationEventType type)
{
    MigrationEvent event = { .type = type };

    migration_notify(migration_notifier, &event, NULL);
}

void model_device_load_setup(void)
{
    g_assert_cmpint(load_handlers->load_setup(NULL, &model_vmem, &error_abort),
                    ==, 0);
}

void model_device_load_cleanup(void)
{
    g_assert_cmpint(load_handlers->load_cleanup(&model_vmem), ==, 0);
}

bool model_timer_is_pending(void)
{
    return pending;
}

void model_timer_expire(void)
{
    QEMUTimer *timer = g_steal_pointer(&pending);

    timer->cb(timer->opaque);
}

/* --- what must be true --- */

static void check_guarded(void)
{
    const unsigned set = model_plugged();
    unsigned nb_lent = 0;

    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        const ModelPage *page = &model.pages[i];
        const bool is_plugged = extract32(set, i, 1);

        nb_lent += page->lent;
        if (page->watched == is_plugged) {
            model_fail("I13: what is unplugged is watched, and nothing else");
        }
        if (!is_plugged && page->present && !page->lent) {
            model_fail("I4: an unplugged block has memory");
        }
        if (is_plugged && page->lent) {
            model_fail("a plugged block has a page that was lent");
        }
    }
    if (nb_lent > virtio_mem_guard_shared.desks[0].ring.nb_lent) {
        model_fail("a page is lent that is not counted");
    }
}

void model_device_check(bool is_whole)
{
    if (!virtio_mem_blocks_check(model_vmem.blocks)) {
        model_fail("I1: the set is wrong");
    }
    if (!virtio_mem_guard_check(model_vmem.guard)) {
        model_fail("the guard's checker complains");
    }
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (model.pages[i].owned && !model.pages[i].present) {
            model_fail("what the guest had is lost");
        }
    }
    if (!is_whole || virtio_mem_is_in_flight(&model_vmem)) {
        return;
    }
    if (model_world.told != virtio_mem_plugged_size(&model_vmem)) {
        model_fail("I2: another size was told");
    }
    if (virtio_mem_guard_is_active(model_vmem.guard)) {
        check_guarded();
    }
}
