/*
 * virtio-mem: a host that refuses
 *
 * It gives no memory, takes none back or watches none.  The guest hears BUSY,
 * keeps what it has, and gets on when the host does; users hear what failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-hold.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"
#include "virtio-mem-snapshots.h"

static char *refused_log;

/* What QEMU says goes to a file. */
static VirtioMemGuest *
refused_start(const VirtioMemOptions *given,
              VirtioMemGuest *(*start)(const VirtioMemOptions *opts))
{
    VirtioMemOptions opts = *given;
    g_autofree char *args = NULL;

    g_free(refused_log);
    refused_log = virtio_mem_temp_path("refused.log");
    args = g_strdup_printf("%s 2> %s", given->args ?: "", refused_log);
    opts.args = args;
    return start(&opts);
}

static bool refused_has_said(const char *what)
{
    g_autofree char *said = NULL;

    return g_file_get_contents(refused_log, &said, NULL, NULL) &&
           strstr(said, what);
}

/* If not yet, then soon. */
static void refused_assert_said(const char *what)
{
    g_test_message("waiting for: %s", what);
    vm_wait_until(refused_has_said(what));
}

static const VirtioMemOptions small = { .region_size = VM_MIGRATE_REGION };

/* --- realize --- */

static const VirtioMemOptions no_device = {
    .region_size = GiB, .no_device = true,
};

static void test_realize(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&no_device);
    g_autofree char *error = NULL;

    virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
    error = virtio_mem_device_add_error(vm->qts, "{ 'driver': 'virtio-mem-pci',"
                                        " 'id': 'vm0', 'memdev': 'vmem0' }");
    g_assert_nonnull(strstr(error, "cannot be discarded: '"));
    virtio_mem_hold_refuse(NULL);
    qtest_qmp_device_add(vm->qts, "virtio-mem-pci", "vm0",
                         "{ 'memdev': 'vmem0' }");
    virtio_mem_guest_stop(vm);
}

/* Then the host's architecture says how large huge pages are. */
static void test_huge_pages_unknown(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = refused_start(&no_device, virtio_mem_hold_start);

    virtio_mem_hold_refuse(VM_REFUSE_THP);
    qtest_qmp_device_add(vm->qts, "virtio-mem-pci", "vm0",
                         "{ 'memdev': 'vmem0' }");
#ifdef __x86_64__
    g_assert_cmphex(virtio_mem_qom_get(vm, "block-size"), ==, 2 * MiB);
#endif
    refused_assert_said("cannot read the size of transparent huge pages");
    virtio_mem_hold_refuse(NULL);
    virtio_mem_guest_stop(vm);
}

/* --- what the guest asks for --- */

static void refused_check_unplug(const char *memdev)
{
    const VirtioMemOptions opts = {
        .region_size = VM_MIGRATE_REGION, .memdev = memdev,
    };
    VirtioMemGuest *vm = virtio_mem_hold_start(&opts);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
    vm_assert_unplug(vm, 0, 1, BUSY);
    vm_assert_unplug_all(vm, BUSY);
    virtio_mem_scene_check(vm, scene);
    virtio_mem_hold_refuse(NULL);
    vm_assert_unplug(vm, 0, 1, ACK);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plugged(vm, 0);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static void test_unplug(VirtioMemGuest *unused)
{
    refused_check_unplug(NULL);
    refused_check_unplug("memory-backend-memfd,id=vmem0,size=4G,reserve=off");
    refused_check_unplug("memory-backend-memfd,id=vmem0,size=4G,reserve=off,"
                         "share=off");
}

/* Then each page is touched. */
static void test_advice(VirtioMemGuest *unused)
{
    const VirtioMemOptions opts = { .device = "prealloc=on" };
    VirtioMemGuest *vm = virtio_mem_hold_start(&opts);
    uint64_t before;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_hold_refuse(VM_REFUSE_ADVICE);
    before = virtio_mem_host_memory(vm);
    vm_assert_plug(vm, 0, 32, ACK);
    /* QEMU may not need all that it started with. */
    g_assert_cmphex(virtio_mem_host_memory(vm), >=,
                    before + 24 * vm->block_size);
    virtio_mem_hold_refuse(NULL);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

/* The driver that finds blocks plugged after a reset asks to unplug all. */
static void test_system_reset(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&small);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
    virtio_mem_system_reset(vm);
    virtio_mem_hold_refuse(NULL);
    virtio_mem_driver_up(vm, virtio_mem_default_features(vm));
    vm_assert_plugged(vm, 4);
    vm_assert_state(vm, 0, 4, PLUGGED);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

/* A snapshot has a reset before it: one that keeps blocks is in the way. */
static void test_snapshot_load(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = refused_start(&small, virtio_mem_hold_start);
    g_autofree char *error = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
    error = virtio_mem_snapshot_try(vm, "snapshot-load");
    g_assert_nonnull(error);
    refused_assert_said("0x200000 bytes are plugged here already");
    virtio_mem_hold_refuse(NULL);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    vm_assert_plugged(vm, 1);
    virtio_mem_guest_stop(vm);
}

/* --- migration --- */

static void refused_check_target(const char *properties, const char *word,
                                 const char *said)
{
    const VirtioMemOptions opts = {
        .region_size = VM_MIGRATE_REGION, .device = properties,
    };
    g_autofree char *path = virtio_mem_temp_path("refused.stream");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    VirtioMemGuest *from = virtio_mem_guest_start(&opts), *to;

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, 4, ACK);
    virtio_mem_save(from, path);
    to = refused_start(&opts, virtio_mem_hold_target);
    virtio_mem_hold_refuse(word);
    migrate_incoming_qmp(to->qts, uri, NULL, "{ 'exit-on-error': false }");
    virtio_mem_migrate_wait(to, "failed");
    refused_assert_said(said);
    virtio_mem_hold_refuse(NULL);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_target(VirtioMemGuest *unused)
{
    refused_check_target("prealloc=on", VM_REFUSE_POPULATE,
                         "virtio-mem: cannot load: ");
    refused_check_target("prealloc=off", VM_REFUSE_DISCARD,
                         "cannot load: cannot discard unplugged memory");
}

/* A snapshot that is done is good; what was touched meanwhile is said. */
static void test_background(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = refused_start(&small, virtio_mem_hold_start);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    if (virtio_mem_migrate_can(vm, "background-snapshot")) {
        virtio_mem_begin_busy(vm);
        qtest_qmp_eventwait(vm->qts, "RESUME");
        virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
        migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
        virtio_mem_migrate_wait(vm, "completed");
        refused_assert_said("cannot give back unplugged memory that was"
                            " touched during a snapshot");
        virtio_mem_hold_refuse(NULL);
        g_assert_true(virtio_mem_is_protected(vm));
        vm_assert_plug(vm, 1, 1, ACK);
    }
    virtio_mem_guest_stop(vm);
}

/* --- the guard --- */

static void assert_protection_event(VirtioMemGuest *vm, bool is_protected)
{
    QDict *event = qtest_qmp_eventwait_ref(vm->qts,
                                           "VIRTIO_MEM_PROTECTION_CHANGE");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "vm0");
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==,
                    "/machine/peripheral/vm0");
    g_assert_cmpint(qdict_get_bool(data, "protected"), ==, is_protected);
    qobject_unref(event);
}

static void assert_runs(VirtioMemGuest *vm)
{
    QDict *status = qtest_qmp_assert_success_ref(
        vm->qts, "{ 'execute': 'query-status' }");

    g_assert_cmpstr(qdict_get_str(status, "status"), ==, "running");
    qobject_unref(status);
}

/*
 * Nor does it watch again what it gave up: the guard is tried again later.  A
 * guest that used no such memory is not to blame.
 */
static void test_watch(VirtioMemGuest *unused)
{
    const VirtioMemOptions opts = {
        .region_size = VM_MIGRATE_REGION, .device = "unplugged-access=stop",
    };
    VirtioMemGuest *vm = refused_start(&opts, virtio_mem_hold_start);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_hold_refuse(VM_REFUSE_WATCH);
    vm_assert_plug(vm, 3, 1, BUSY);
    vm_assert_plugged(vm, 1);
    g_assert_false(virtio_mem_is_protected(vm));
    assert_protection_event(vm, false);
    refused_assert_said("the kernel refused to undo a change");
    assert_runs(vm);
    virtio_mem_hold_refuse(NULL);
    assert_protection_event(vm, true);
    g_assert_true(virtio_mem_is_protected(vm));
    refused_assert_said("unplugged memory is protected again");
    virtio_mem_wait_config_irq(vm);
    vm_assert_plug(vm, 3, 1, ACK);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "", "refused/realize", test_realize, .no_guest = true },
    { "", "refused/huge-pages-unknown", test_huge_pages_unknown,
      .no_guest = true },
    { "", "refused/unplug-is-busy", test_unplug, .no_guest = true },
    { "", "refused/advice-to-populate", test_advice, .no_guest = true },
    { "", "refused/system-reset-keeps-blocks", test_system_reset,
      .no_guest = true },
    { "", "refused/snapshot-needs-reset", test_snapshot_load,
      .no_guest = true },
    { "", "refused/target-fails", test_target, .no_guest = true },
    { "", "refused/background-snapshot-goes-on", test_background,
      .no_guest = true, .guard = true },
    { "", "refused/guard-comes-back", test_watch, .no_guest = true,
      .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
