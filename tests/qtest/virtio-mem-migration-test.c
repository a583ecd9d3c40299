/*
 * virtio-mem: migration and the places it may go to
 *
 * Everything arrives: sizes, blocks, content, position in the ring.  The
 * stream is the one that QEMU 10.0 has always written, in both of its forms
 * (x-early-migration), so guests can move to and from another implementation:
 * name its binary in STOCK_QEMU_BINARY.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

static const VirtioMemOptions plain = { .region_size = VM_MIGRATE_REGION };
static const VirtioMemOptions late = {
    .region_size = VM_MIGRATE_REGION, .device = "x-early-migration=off",
};

/* The device serves requests and tells of changes as before. */
static void migration_check_alive(VirtioMemGuest *vm)
{
    vm_assert_unplug(vm, 0, 1, ACK);
    virtio_mem_set_requested(vm, vm_plugged_size(vm) +
                                 vm->block_size);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_check_invariants(vm);
}

typedef void MigrationMove(VirtioMemGuest *from, VirtioMemGuest *to);

static void migration_check(const char *from_env, const char *to_env,
                            const VirtioMemOptions *opts, MigrationMove *move)
{
    VirtioMemGuest *from = virtio_mem_start_with(from_env, opts);
    VirtioMemGuest *to;
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);

    to = virtio_mem_target_with(to_env, opts);
    move(from, to);
    virtio_mem_scene_check(to, scene);
    migration_check_alive(to);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_socket(VirtioMemGuest *unused)
{
    migration_check(NULL, NULL, &plain, virtio_mem_migrate);
}

static void test_file(VirtioMemGuest *unused)
{
    migration_check(NULL, NULL, &plain, virtio_mem_migrate_file);
}

static void test_late_format(VirtioMemGuest *unused)
{
    migration_check(NULL, NULL, &late, virtio_mem_migrate);
}

/* Q < P and U beyond what Q gives: only the stream can know. */
static void test_shrunken_request(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    g_autoptr(VirtioMemScene) scene = NULL;

    virtio_mem_set_requested(from, 2 * GiB);
    vm_assert_plug(from, 2 * GiB / VM_BLOCK, 3, ACK);
    virtio_mem_write_pattern(from, 2 * GiB / VM_BLOCK, 3, 1);
    virtio_mem_set_requested(from, 2 * MiB);
    scene = virtio_mem_scene_look(from, 1);
    virtio_mem_migrate(from, to);
    virtio_mem_scene_check(to, scene);
    vm_assert_plug(to, 0, 1, NACK);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* --- another implementation --- */

static void migration_check_stock(const VirtioMemOptions *given)
{
    const VirtioMemOptions opts = virtio_mem_with_stock(given);

    if (!virtio_mem_have_stock()) {
        return;
    }
    migration_check(VM_STOCK_BINARY, NULL, &opts, virtio_mem_migrate);
    migration_check(NULL, VM_STOCK_BINARY, &opts, virtio_mem_migrate);
    migration_check(VM_STOCK_BINARY, NULL, &opts, virtio_mem_migrate_file);
    migration_check(NULL, VM_STOCK_BINARY, &opts, virtio_mem_migrate_file);
}

static void test_stock(VirtioMemGuest *unused)
{
    migration_check_stock(&plain);
}

static void test_stock_late(VirtioMemGuest *unused)
{
    migration_check_stock(&late);
}

/* No vectors and the late form, all by the machine's compat properties. */
static void test_stock_old_machine(VirtioMemGuest *unused)
{
    VirtioMemOptions old = plain;

    old.machine = "pc-i440fx-7.2";
    old.variant = &virtio_mem_variants[1];
    g_assert_true(old.variant->intx);
    migration_check_stock(&old);
}

static void test_stock_memslots(VirtioMemGuest *unused)
{
    VirtioMemOptions memslots = plain;

    memslots.device = "dynamic-memslots=on";
    migration_check_stock(&memslots);
}

/* --- what is and is not transferred --- */

static uint64_t migration_ram_info(VirtioMemGuest *vm, const char *member)
{
    QDict *info = migrate_query(vm->qts);
    uint64_t value = qdict_get_int(qdict_get_qdict(info, "ram"), member);

    qobject_unref(info);
    return value;
}

static void test_unplugged(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    uint64_t size = 16 * MiB;

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 8, 1, ACK);
    virtio_mem_fill(from, virtio_mem_block_gpa(from, 8), 1, VM_BLOCK);
    virtio_mem_fill(from, from->addr, 2, size);
    virtio_mem_migrate(from, to);
    g_assert_cmpuint(migration_ram_info(from, "normal-bytes"), >=, VM_BLOCK);
    g_assert_cmpuint(migration_ram_info(from, "normal-bytes"), <,
                     VM_BLOCK + size / 2);
    vm_assert_state(to, 0, 8, UNPLUGGED);
    vm_assert_state(to, 8, 1, PLUGGED);
    g_assert_true(virtio_mem_blocks_are_filled(to, 0, 8, 0));
    g_assert_true(virtio_mem_blocks_are_filled(to, 8, 1, 1));
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Unplugged means no memory, whatever the target did before. */
static void test_target_touched(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 4, 2, ACK);
    virtio_mem_write_pattern(from, 4, 2, 8);
    virtio_mem_fill(to, from->addr, 0x5e, 8 * VM_BLOCK);
    virtio_mem_migrate(from, to);
    g_assert_true(virtio_mem_blocks_are_filled(to, 0, 4, 0));
    g_assert_true(virtio_mem_check_pattern(to, 4, 2, 8));
    g_assert_true(virtio_mem_blocks_are_filled(to, 6, 2, 0));
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* The walk of STATE is the first thing the guest does on the other side. */
static void test_state_walk(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);

    virtio_mem_migrate(from, to);
    for (uint64_t i = 0; i < scene->nb_blocks; i++) {
        VmAnswer answer = vm_state(to, i, 1);

        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
        g_assert_cmpuint(answer.state, ==, test_bit(i, scene->bitmap) ?
                         VIRTIO_MEM_STATE_PLUGGED :
                         VIRTIO_MEM_STATE_UNPLUGGED);
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_broken(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    VirtioMemSegment half_request = { .addr = from->req_gpa, .len = 8 };

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, 4, ACK);
    virtio_mem_add_chain(from, &half_request, 1);
    virtio_mem_kick(from);
    g_assert_true(virtio_mem_is_broken(from));
    virtio_mem_migrate(from, to);
    virtio_mem_check_broken(to, 4 * VM_BLOCK);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Changes by the host during the migration are part of it. */
static void test_requested(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    g_autofree char *path = virtio_mem_temp_path("requested.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_hold(from, uri);
    virtio_mem_set_requested(from, GiB);
    migrate_set_parameter_int(from->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(from, "completed");
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
    g_assert_cmphex(virtio_mem_requested_size(to), ==, GiB);
    g_assert_cmphex(virtio_mem_usable_size(to), >=, GiB);
    vm_assert_plug(to, 200, 1, ACK);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Management learns the size without asking. */
static void test_size_event(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);
    g_autofree char *path = virtio_mem_temp_path("event.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    QDict *event, *data;

    virtio_mem_migrate_listen(to, uri);
    qtest_qmp_set_event_callback(to->qts, NULL, NULL);
    virtio_mem_migrate_to(from, uri);
    virtio_mem_migrate_wait(to, "completed");
    event = qtest_qmp_event_ref(to->qts, "MEMORY_DEVICE_SIZE_CHANGE");
    g_assert_nonnull(event);
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "vm0");
    g_assert_cmphex(qdict_get_int(data, "size"), ==, scene->plugged);
    qobject_unref(event);
    virtio_mem_take_over(to, from);
    g_assert_cmpuint(virtio_mem_take_size_events(to, NULL), ==, 0);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* --- refusals --- */

static void migration_check_refused(const VirtioMemOptions *from_opts,
                                    const VirtioMemOptions *to_opts,
                                    const char *pattern)
{
    VirtioMemGuest *from = virtio_mem_guest_start(from_opts);
    g_autofree char *path = virtio_mem_temp_path("refused.stream");
    g_autofree char *error = NULL;

    virtio_mem_set_requested(from, 64 * MiB);
    vm_assert_plug(from, 1, 1, ACK);
    virtio_mem_save(from, path);
    virtio_mem_guest_stop(from);
    error = virtio_mem_load_error(to_opts, path);
    if (!g_regex_match_simple(pattern, error, G_REGEX_CASELESS, 0)) {
        g_test_message("%s", error);
        g_test_fail();
    }
}

static void test_other_address(VirtioMemGuest *unused)
{
    VirtioMemOptions other = plain;

    other.memaddr = 0x200000000ULL;
    migration_check_refused(&plain, &other, "addr");
    other.device = "x-early-migration=off";
    migration_check_refused(&late, &other, "addr");
}

static void test_other_block_size(VirtioMemGuest *unused)
{
    VirtioMemOptions other = plain;

    other.block_size = 4 * MiB;
    migration_check_refused(&plain, &other, "block.size");
    other.device = "x-early-migration=off";
    migration_check_refused(&late, &other, "block.size");
}

static void test_other_region_size(VirtioMemGuest *unused)
{
    VirtioMemOptions other = plain;

    other.region_size = 2 * VM_MIGRATE_REGION;
    migration_check_refused(&plain, &other, "size");
    other.region_size = VM_MIGRATE_REGION / 2;
    migration_check_refused(&plain, &other, "size");
}

static void test_other_node(VirtioMemGuest *unused)
{
    VirtioMemOptions from = plain, to = plain;

    from.args = "-numa node,mem=128M -numa node,mem=128M";
    from.machine = "pc-i440fx-5.0";
    from.variant = &virtio_mem_variants[1];
    from.device = "x-early-migration=on,node=0";
    to = from;
    to.device = "x-early-migration=on,node=1";
    migration_check_refused(&from, &to, "node");
}

/* Both sides must use the same form; the other one's section is unknown. */
static void test_other_format(VirtioMemGuest *unused)
{
    migration_check_refused(&plain, &late, "virtio-mem");
}

static const VirtioMemTest tests[] = {
    { "T240", "migration/keeps-everything", test_socket, .no_guest = true,
      .each_variant = true },
    { "T240", "migration/keeps-everything-through-a-file", test_file,
      .no_guest = true },
    { "T240", "migration/keeps-everything-in-late-format", test_late_format,
      .no_guest = true },
    { "T240", "migration/keeps-more-than-requested", test_shrunken_request,
      .no_guest = true },
    { "T241", "migration/leaves-unplugged-memory-out", test_unplugged,
      .no_guest = true },
    { "T241", "migration/gives-back-what-the-target-touched",
      test_target_touched, .no_guest = true },
    { "T248", "migration/state-walk-is-the-first-thing", test_state_walk,
      .no_guest = true },
    { "T247", "migration/broken-stays-broken-and-heals", test_broken,
      .no_guest = true },
    { "T244", "migration/requested-size-may-change-during-it", test_requested,
      .no_guest = true },
    { "O-4", "migration/ends-with-one-size-event", test_size_event,
      .no_guest = true },
    { "T240", "migration/from-and-to-stock", test_stock, .no_guest = true },
    { "T240", "migration/from-and-to-stock-in-late-format", test_stock_late,
      .no_guest = true },
    { "T240", "migration/from-and-to-stock-on-an-old-machine",
      test_stock_old_machine, .no_guest = true },
    { "T240", "migration/from-and-to-stock-with-memslots", test_stock_memslots,
      .no_guest = true },
    { "T242", "migration/refused-at-another-address", test_other_address,
      .no_guest = true },
    { "T242", "migration/refused-with-another-block-size",
      test_other_block_size, .no_guest = true },
    { "T242", "migration/refused-with-another-region-size",
      test_other_region_size, .no_guest = true },
    { "T242", "migration/refused-on-another-node", test_other_node,
      .no_guest = true },
    { "T242", "migration/refused-in-another-format", test_other_format,
      .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
