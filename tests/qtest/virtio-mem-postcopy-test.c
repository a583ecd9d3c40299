/*
 * virtio-mem: postcopy, where the guest runs before its memory is there
 *
 * The target knows the plugged blocks early and the usable region late, and
 * whoever touches memory in between must get what the source has.  Touching
 * unplugged memory must not leave anything behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-hold.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

static const VirtioMemOptions plain = { .region_size = VM_MIGRATE_REGION };
static const VirtioMemOptions prealloc = {
    .region_size = VM_MIGRATE_REGION, .device = "prealloc=on",
};
static const VirtioMemOptions memslots = {
    .region_size = VM_MIGRATE_REGION, .device = "dynamic-memslots=on",
};

/* --- start and end --- */

/*
 * Both machines are before the switch: most of the pages are still missing.
 * False, and the test skipped, if the host cannot do it.
 */
static bool postcopy_prepare(VirtioMemGuest *from, VirtioMemGuest *to)
{
    g_autofree char *path = virtio_mem_temp_path("postcopy.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    if (!virtio_mem_migrate_can(to, "postcopy-ram") ||
        !virtio_mem_migrate_can(from, "postcopy-ram")) {
        return false;
    }
    migrate_set_parameter_int(from->qts, "max-postcopy-bandwidth", 64 * KiB);
    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_hold(from, uri);
    return true;
}

static void postcopy_switch(VirtioMemGuest *from, VirtioMemGuest *to)
{
    qtest_qmp_assert_success(from->qts,
                             "{ 'execute': 'migrate-start-postcopy' }");
    qtest_qmp_eventwait(to->qts, "RESUME");
    virtio_mem_take_over(to, from);
}

/* The same, and the target runs. */
static bool postcopy_begin(VirtioMemGuest *from, VirtioMemGuest *to)
{
    if (!postcopy_prepare(from, to)) {
        return false;
    }
    postcopy_switch(from, to);
    return true;
}

static void postcopy_complete(VirtioMemGuest *from, VirtioMemGuest *to)
{
    migrate_set_parameter_int(from->qts, "max-postcopy-bandwidth", GiB);
    virtio_mem_migrate_wait(from, "completed");
    virtio_mem_migrate_wait(to, "completed");
}

/* The guest is told that it may try again; that can come a little later. */
static void postcopy_end(VirtioMemGuest *from, VirtioMemGuest *to)
{
    virtio_mem_take_config_irq(to);
    postcopy_complete(from, to);
    virtio_mem_wait_config_irq(to);
}

static void postcopy_check(const char *from_env, const char *to_env,
                           const VirtioMemOptions *opts)
{
    VirtioMemGuest *from = virtio_mem_start_with(from_env, opts);
    VirtioMemGuest *to = virtio_mem_target_with(to_env, opts);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);

    if (postcopy_begin(from, to)) {
        virtio_mem_scene_check(to, scene);
        if (to_env) {
            postcopy_complete(from, to);
        } else {
            postcopy_end(from, to);
        }
        virtio_mem_scene_check(to, scene);
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_everything(VirtioMemGuest *unused)
{
    postcopy_check(NULL, NULL, &plain);
}

/* Memory that was populated for the blocks must still be missing pages. */
static void test_prealloc(VirtioMemGuest *unused)
{
    postcopy_check(NULL, NULL, &prealloc);
}

static void test_memslots(VirtioMemGuest *unused)
{
    postcopy_check(NULL, NULL, &memslots);
}

static void test_stock(VirtioMemGuest *unused)
{
    const VirtioMemOptions opts = virtio_mem_with_stock(&plain);

    if (!virtio_mem_have_stock()) {
        return;
    }
    postcopy_check(VM_STOCK_BINARY, NULL, &opts);
    postcopy_check(NULL, VM_STOCK_BINARY, &opts);
}

/* --- another device whose ring lives in our memory --- */

static const VirtioMemOptions with_rng = {
    .region_size = VM_MIGRATE_REGION, .requested = 64 * MiB,
    .args = "-object rng-builtin,id=rng0 "
            "-device virtio-rng-pci,rng=rng0,disable-legacy=on,addr=03.0",
};

/*
 * An idle queue at @gpa.  Loading the device reads the ring's indices, and it
 * is loaded before ours because it comes first on the command line.
 */
static QVirtioPCIDevice *postcopy_rng_up(VirtioMemGuest *vm, uint64_t gpa)
{
    QVirtioPCIDevice *rng = virtio_mem_neighbour_start(vm, 3);
    QVirtQueue vq = { .desc = gpa, .avail = gpa + 0x4000,
                      .used = gpa + 0x8000 };

    virtio_mem_neighbour_go(rng, &vq);
    return rng;
}

/* the block lies beyond what the target's own requested-size allows. */
static void test_ring_beyond_usable(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&with_rng);
    VirtioMemGuest *to = virtio_mem_target(&with_rng);
    uint64_t block = 900 * MiB / VM_BLOCK;
    g_autoptr(VirtioMemScene) scene = NULL;
    QVirtioPCIDevice *rng;
    uint64_t gpa = virtio_mem_block_gpa(from, block);

    virtio_mem_set_requested(from, 800 * MiB);
    vm_assert_plug(from, block, 1, ACK);
    /* The largest memory goes first: what must be missing comes behind it. */
    vm_assert_plug(from, 0, 8, ACK);
    virtio_mem_fill(from, from->addr, 0x55, 8 * VM_BLOCK);
    rng = postcopy_rng_up(from, gpa);
    virtio_mem_fill(from, gpa + 0x8100, 0x3c, 0x800);
    virtio_mem_set_requested(from, 64 * MiB);
    if (postcopy_begin(from, to)) {
        postcopy_end(from, to);
        g_assert_true(virtio_mem_is_filled(to, gpa + 0x8100, 0x3c, 0x800));
        vm_assert_state(to, block, 1, PLUGGED);
    }
    virtio_mem_neighbour_free(rng);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* --- unplugged memory --- */

/* whoever reads or writes there makes pages that nobody needs. */
static void test_touched(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, 1, ACK);
    virtio_mem_write_pattern(from, 0, 1, 9);
    if (postcopy_begin(from, to)) {
        g_assert_false(virtio_mem_is_protected(to));
        virtio_mem_fill(to, virtio_mem_block_gpa(to, 1), 0x99, VM_BLOCK);
        virtio_mem_fill(to, virtio_mem_block_gpa(to, 7), 0x99, VM_BLOCK);
        postcopy_end(from, to);
        vm_wait_until(virtio_mem_blocks_are_filled(to, 1, 7, 0));
        g_assert_true(virtio_mem_is_protected(to));
        g_assert_true(virtio_mem_check_pattern(to, 0, 1, 9));
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* If the host does not take it back, that is said. */
static void test_kept(VirtioMemGuest *unused)
{
    g_autofree char *log = virtio_mem_temp_path("postcopy.log");
    g_autofree char *args = g_strdup_printf("2> %s", log);
    const VirtioMemOptions opts = {
        .region_size = VM_MIGRATE_REGION, .args = args,
    };
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_hold_target(&opts);
    g_autofree char *said = NULL;

    if (postcopy_begin(from, to)) {
        virtio_mem_hold_refuse(VM_REFUSE_DISCARD);
        postcopy_end(from, to);
        virtio_mem_hold_refuse(NULL);
        g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
        g_assert_nonnull(strstr(said, "cannot give back unplugged memory that"
                                " was touched during postcopy"));
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/*
 * Nothing arrives for a device that only the target has, which is no reason to
 * leave it without protection, or to keep what is there.
 */
static void test_other_device(VirtioMemGuest *unused)
{
    const VirtioMemOptions two = {
        .region_size = VM_MIGRATE_REGION,
        .args = "-object memory-backend-ram,id=vmem1,size=1G "
                "-device virtio-mem-pci,id=vm1,memdev=vmem1,addr=06.0,"
                "memaddr=0x600000000,protect-unplugged=on",
    };
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&two);
    VirtioMemGuest other = { .id = "vm1" };
    const uint64_t gpa = 0x600000000;

    if (postcopy_prepare(from, to)) {
        other.qts = to->qts;
        virtio_mem_fill(to, gpa, 0x99, VM_BLOCK);
        g_assert_false(virtio_mem_is_protected(&other));
        postcopy_switch(from, to);
        g_assert_false(virtio_mem_is_protected(&other));
        postcopy_end(from, to);
        vm_wait_until(virtio_mem_is_protected(&other));
        g_assert_true(virtio_mem_is_filled(to, gpa, 0, VM_BLOCK));
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Where QEMU's own device is the target, they stay: what README says of it. */
static void test_touched_in_stock(VirtioMemGuest *unused)
{
    const VirtioMemOptions opts = virtio_mem_with_stock(&plain);
    VirtioMemGuest *from, *to;

    if (!virtio_mem_have_stock()) {
        return;
    }
    from = virtio_mem_guest_start(&opts);
    to = virtio_mem_target_with(VM_STOCK_BINARY, &opts);
    if (postcopy_begin(from, to)) {
        virtio_mem_fill(to, virtio_mem_block_gpa(to, 7), 0x99, VM_BLOCK);
        postcopy_complete(from, to);
        g_assert_true(virtio_mem_blocks_are_filled(to, 7, 1, 0x99));
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

#define STATUS_EVENT "VIRTIO_MEM_RESIZE_STATUS"

/* The monitor tells no more than one event a second. */
static bool is_told_to_work(VirtioMemGuest *vm)
{
    bool works = false;
    QDict *event;

    qtest_clock_step(vm->qts, NANOSECONDS_PER_SECOND);
    qobject_unref(virtio_mem_query(vm));
    while ((event = qtest_qmp_event_ref(vm->qts, STATUS_EVENT))) {
        works = g_str_equal(qdict_get_str(qdict_get_qdict(event, "data"),
                                          "status"), "working");
        qobject_unref(event);
    }
    return works;
}

static void test_busy(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, 1, ACK);
    if (postcopy_begin(from, to)) {
        vm_assert_plug(to, 1, 1, BUSY);
        vm_assert_unplug(to, 0, 1, BUSY);
        vm_assert_unplug_all(to, BUSY);
        vm_assert_state(to, 0, 1, PLUGGED);
        vm_assert_state(to, 1, 1, UNPLUGGED);
        vm_assert_plugged(to, 1);
        postcopy_end(from, to);
        vm_wait_until(is_told_to_work(to));
        vm_assert_plug(to, 1, 1, ACK);
        vm_assert_unplug_all(to, ACK);
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static const VirtioMemTest tests[] = {
    { "T240", "postcopy/keeps-everything", test_everything, .no_guest = true },
    { "T240", "postcopy/keeps-everything-with-prealloc", test_prealloc,
      .no_guest = true },
    { "T240", "postcopy/keeps-everything-with-memslots", test_memslots,
      .no_guest = true },
    { "T240", "postcopy/from-and-to-stock", test_stock, .no_guest = true },
    { "R-1", "postcopy/ring-in-a-block-beyond-the-usable-region",
      test_ring_beyond_usable, .no_guest = true },
    { "R-5", "postcopy/memory-touched-while-unplugged-is-given-back",
      test_touched, .no_guest = true },
    { "", "postcopy/memory-that-is-not-taken-back-is-told", test_kept,
      .no_guest = true },
    { "", "postcopy/memory-touched-while-unplugged-stays-in-stock",
      test_touched_in_stock, .no_guest = true },
    { "P11", "postcopy/device-that-is-not-in-the-stream-is-protected",
      test_other_device, .no_guest = true },
    { "T244 T245", "postcopy/busy-until-its-end", test_busy, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
