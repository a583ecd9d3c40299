/*
 * virtio-mem: many false migration streams
 *
 * One device meets them all.  For each, a second opinion says whether it must
 * be taken or refused, and in what state the device must be afterwards.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/qdev-core.h"
#include "hw/vmstate-if.h"
#include "io/channel-buffer.h"
#include "qapi/qapi-types-migration.h"
#include "migration/client-options.h"
#include "migration/misc.h"
#include "migration/vmstate.h"
#include "system/runstate.h"
#include "../migration/qemu-file.h"
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-migration.h"
#include "hw/virtio/virtio-mem-plug.h"
#include "hw/virtio/virtio-mem-protect.h"
#include "hw/virtio/virtio-mem-resize.h"
#include "hw/virtio/virtio-mem-status.h"
#include "hw/virtio/virtio-mem-stream.h"
#include "hw/virtio/virtio-mem-wake.h"
#include "virtio-mem-streams.h"

#define NB_STREAMS      25000       /* for each of the devices */
#define TRUE_EVERY      8           /* of them, a true one */
#define USABLE_BEFORE   (3 * FAKE_BLOCK_SIZE)
#define REQUESTED_BEFORE FAKE_BLOCK_SIZE

/* --- fakes --- */

static struct {
    const VMStateDescription *early;    /* if it is registered */
    bool postcopy;                      /* incoming, and advised before */
    bool ignored;                       /* the RAM */
    unsigned nb_wakes;
    unsigned nb_resize_loads;          /* of a resize that went on */
} world;

int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *base, int alias_id,
                                   int required_for_version, Error **errp)
{
    world.early = vmsd;
    return 0;
}

void vmstate_unregister(VMStateIf *obj, const VMStateDescription *vmsd,
                        void *opaque)
{
    g_assert_true(vmsd == world.early);
    world.early = NULL;
}

void vmstate_register_ram(MemoryRegion *mr, DeviceState *dev)
{
}

void vmstate_unregister_ram(MemoryRegion *mr, DeviceState *dev)
{
}

bool migration_in_incoming_postcopy(void)
{
    return world.postcopy;
}

bool runstate_check(RunState state)
{
    return state == RUN_STATE_INMIGRATE;
}

bool migration_incoming_postcopy_advised(void)
{
    return world.postcopy;
}

bool virtio_mem_backing_is_ignored(HostMemoryBackend *memdev)
{
    return world.ignored;
}

bool virtio_mem_protect_resume(VirtIOMEM *vmem, VirtIOMEMPause why)
{
    return false;
}

int virtio_mem_protect_pause(VirtIOMEM *vmem, VirtIOMEMPause why)
{
    g_assert_not_reached();
}

bool migrate_background_snapshot(void)
{
    g_assert_not_reached();
}

void migration_add_notifier_mode(NotifierWithReturn *notifier,
                                 MigrationNotifyFunc func, MigMode mode)
{
}

void virtio_mem_wake_later(VirtIOMEM *vmem)
{
    world.nb_wakes++;
}

void virtio_mem_wake_if_due(VirtIOMEM *vmem)
{
    g_assert_not_reached();
}

void virtio_mem_resize_load(VirtIOMEM *vmem)
{
    world.nb_resize_loads++;
}

void virtio_mem_resize_leave(VirtIOMEM *vmem)
{
    g_assert_not_reached();
}

void virtio_mem_status_update(VirtIOMEM *vmem)
{
    g_assert_not_reached();
}

/* Named by vmstate_virtio_mem, which is not loaded here. */
const VMStateInfo virtio_vmstate_info;

static const TypeInfo fake_types[] = {
    {
        .name = TYPE_VMSTATE_IF,
        .parent = TYPE_INTERFACE,
        .class_size = sizeof(VMStateIfClass),
    }, {
        .name = TYPE_DEVICE,
        .parent = TYPE_OBJECT,
        .class_size = sizeof(DeviceClass),
        .interfaces = (InterfaceInfo[]) { { TYPE_VMSTATE_IF }, { } },
    }, {
        .name = TYPE_VIRTIO_MEM,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(VirtIOMEM),
    },
};

DEFINE_TYPES(fake_types)

/* --- loading --- */

static bool load_section(QEMUFile *file, VirtIOMEM *vmem,
                         const VMStateDescription *vmsd)
{
    return !vmstate_load_state(file, vmsd, vmem, vmsd->version_id) &&
           qemu_get_byte(file) == STREAM_FOOTER && !qemu_file_get_error(file);
}

static bool load(VirtIOMEM *vmem, const Stream *stream)
{
    QIOChannelBuffer *channel = qio_channel_buffer_new(STREAM_MAX);
    QEMUFile *file;
    bool ok;

    memcpy(channel->data, stream->bytes, stream->len);
    channel->usage = stream->len;
    file = qemu_file_new_input(QIO_CHANNEL(channel));
    object_unref(OBJECT(channel));
    ok = (!world.early || load_section(file, vmem, world.early)) &&
         load_section(file, vmem, &vmstate_virtio_mem_device);
    qemu_fclose(file);
    return ok;
}

static uint64_t host_bitmap(const FakeHost *host)
{
    unsigned long bitmap = 0;

    virtio_mem_blocks_save(host->vmem.blocks, &bitmap);
    return bitmap;
}

static void check_sizes(const FakeHost *host, uint64_t usable,
                        uint64_t requested)
{
    g_assert_cmphex(host->vmem.usable_region_size, ==, usable);
    g_assert_cmphex(host->vmem.requested_size, ==, requested);
    g_assert_cmphex(host->vmem.asked_size, ==, requested);
}

static void check_taken(const FakeHost *host, const StreamValues *values)
{
    check_sizes(host, values->value[F_USABLE], values->value[F_REQUESTED]);
    g_assert_cmphex(host_bitmap(host), ==, values->value[F_BITMAP]);
    g_assert_cmphex(host->books.told_size, ==, values->value[F_SIZE]);
    g_assert_cmpuint(world.nb_wakes, ==, 1);
    g_assert_cmpuint(world.nb_resize_loads, ==, 1);
    g_assert_cmpstr(fake_said->str, ==, "");
}

/*
 * Nothing of it became live state but, perhaps, good blocks that came early;
 * these are usable, as all plugged blocks are.
 */
static void check_refused(const FakeHost *host, const StreamOpinion *opinion)
{
    const VirtIOMEM *vmem = &host->vmem;
    const bool early_loaded = opinion->blocks_loaded && vmem->early_migration;

    if (opinion->unclear) {
        return;
    }
    g_assert_cmphex(host_bitmap(host), ==, opinion->blocks_loaded
                    ? opinion->values.value[F_BITMAP] : 0);
    if (opinion->verdict == REFUSED_BY_DEVICE) {
        g_assert_nonnull(strstr(fake_said->str, "virtio-mem: cannot load: "));
    }
    /* A footer is missed when the last section is loaded already. */
    if (opinion->verdict == REFUSED_BY_DEVICE || !opinion->blocks_loaded) {
        check_sizes(host, early_loaded ? STREAM_REGION : USABLE_BEFORE,
                    REQUESTED_BEFORE);
        g_assert_cmpuint(world.nb_wakes, ==, 0);
        g_assert_cmpuint(world.nb_resize_loads, ==, 0);
    }
}

/* Back to where a system reset leaves it. */
static void host_reset(FakeHost *host)
{
    VirtIOMEM *vmem = &host->vmem;

    virtio_mem_tell_size(vmem);
    if (world.postcopy || world.ignored || vmem->prealloc) {
        /* Memory of a load that failed, or that comes later. */
        memset(host->books.memory, 0, sizeof(host->books.memory));
    }
    fake_host_assert_agreement(host);
    g_assert_cmpint(virtio_mem_unplug_all(vmem), ==, 0);
    fake_host_assert_agreement(host);
    vmem->usable_region_size = USABLE_BEFORE;
    vmem->requested_size = REQUESTED_BEFORE;
    vmem->asked_size = REQUESTED_BEFORE;
    host->books.told_size = 0;
    g_string_truncate(host->log, 0);
    g_string_truncate(fake_said, 0);
    world.nb_wakes = 0;
    world.nb_resize_loads = 0;
}

/* Load a stream, judge what the device made of it, and reset the device. */
static StreamVerdict check_stream(FakeHost *host, const Stream *stream)
{
    StreamOpinion opinion;
    bool taken;

    stream_form_opinion(&opinion, stream, host->vmem.early_migration);
    taken = load(&host->vmem, stream);
    g_assert_cmpint(taken, ==, opinion.verdict == TAKEN);
    if (taken) {
        check_taken(host, &opinion.values);
    } else {
        check_refused(host, &opinion);
    }
    host_reset(host);
    return opinion.verdict;
}

/* After whatever came before, a true stream is loaded as ever. */
static void check_true_stream(FakeHost *host)
{
    Stream stream;

    stream_make_true(&stream, host->vmem.early_migration);
    g_assert_cmpint(check_stream(host, &stream), ==, TAKEN);
}

static void check_many(FakeHost *host)
{
    unsigned nb[NB_VERDICTS] = { 0 };

    host_reset(host);
    for (unsigned i = 0; i < NB_STREAMS; i++) {
        Stream stream;

        stream_make_changed(&stream, host->vmem.early_migration);
        nb[check_stream(host, &stream)]++;
        if (i % TRUE_EVERY == 0) {
            check_true_stream(host);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(nb); i++) {
        g_assert_cmpuint(nb[i], >, NB_STREAMS / 50);
    }
}

static void host_init(FakeHost *host, bool early)
{
    fake_said = g_string_new("");
    fake_host_draw(host, FAKE_EMPTY);
    OBJECT(&host->vmem)->class = object_class_by_name(TYPE_VIRTIO_MEM);
    host->vmem.addr = STREAM_ADDR;
    host->vmem.node = STREAM_NODE;
    host->vmem.early_migration = early;
    virtio_mem_migration_realize(&host->vmem);
    virtio_mem_stream_realize(&host->vmem);
    g_assert_true(early == !!world.early);
}

static void host_destroy(FakeHost *host)
{
    virtio_mem_stream_unrealize(&host->vmem);
    virtio_mem_migration_unrealize(&host->vmem);
    fake_host_destroy(host);
    g_string_free(g_steal_pointer(&fake_said), true);
    memset(&world, 0, sizeof(world));
}

/* --- tests --- */

static void test_early(void)
{
    FakeHost host;

    host_init(&host, true);
    check_many(&host);
    host_destroy(&host);
}

static void test_late(void)
{
    FakeHost host;

    host_init(&host, false);
    check_many(&host);
    host_destroy(&host);
}

static void test_prealloc(void)
{
    FakeHost host;

    host_init(&host, true);
    host.vmem.prealloc = true;
    check_many(&host);
    host_destroy(&host);
}

static void test_postcopy(void)
{
    FakeHost host;

    host_init(&host, true);
    host.vmem.prealloc = true;
    world.postcopy = true;
    check_many(&host);
    host_destroy(&host);
}

static void test_ignored(void)
{
    FakeHost host;

    host_init(&host, true);
    world.ignored = true;
    check_many(&host);
    host_destroy(&host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);
    init_clocks(NULL);
    g_test_add_func("/virtio-mem/stream/early", test_early);
    g_test_add_func("/virtio-mem/stream/late", test_late);
    g_test_add_func("/virtio-mem/stream/prealloc", test_prealloc);
    g_test_add_func("/virtio-mem/stream/postcopy", test_postcopy);
    g_test_add_func("/virtio-mem/stream/ram-is-ignored", test_ignored);
    return g_test_run();
}
