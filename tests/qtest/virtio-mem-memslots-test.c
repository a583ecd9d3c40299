/*
 * virtio-mem: dynamic memslots
 *
 * The region is a container; pieces of at least 1 GiB are mapped into it only
 * while some of their blocks are plugged.  Seen from outside by "info mtree".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

/*
 * The machine grants as many memslots as the region's share of all hotpluggable
 * memory (a good 256 GiB) is of 256, that is 4.  A quarter of the region,
 * rounded up to whole blocks, is 1154 MiB, so the last one is 6 MiB smaller.
 */
#define REGION          (4610 * MiB)
#define SLOT_SIZE       (1154 * MiB)
#define SLOT_BLOCKS     (SLOT_SIZE / VM_BLOCK)
#define NB_BLOCKS       (REGION / VM_BLOCK)

static const VirtioMemOptions memslots = {
    .region_size = REGION, .device = "dynamic-memslots=on",
};
static const VirtioMemOptions memslots_late = {
    .region_size = REGION,
    .device = "dynamic-memslots=on,x-early-migration=off",
};

/* --- what is mapped --- */

static void memslots_check_line(VirtioMemGuest *vm, const char *line,
                                unsigned slot)
{
    uint64_t first, last, offset;

    g_assert_cmpint(sscanf(line, " %" SCNx64 "-%" SCNx64, &first, &last), ==,
                    2);
    g_assert_cmphex(first, ==, vm->addr + slot * SLOT_SIZE);
    g_assert_cmphex(last, ==, vm->addr - 1 +
                    MIN(REGION, (slot + 1) * SLOT_SIZE));
    g_assert_cmpint(sscanf(strstr(line, "@vmem0"), "@vmem0 %" SCNx64,
                           &offset), ==, 1);
    g_assert_cmphex(offset, ==, slot * SLOT_SIZE);
}

/* One bit per mapped memslot. */
static unsigned memslots_mapped(VirtioMemGuest *vm)
{
    g_autofree char *text = qtest_hmp(vm->qts, "info mtree");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    bool container = false;
    unsigned mapped = 0;

    for (int i = 0; lines[i]; i++) {
        char *name = strstr(lines[i], "alias memslot-");

        container |= strstr(lines[i], "(prio 0, i/o): virtio-mem\r") ||
                     g_str_has_suffix(lines[i], "(prio 0, i/o): virtio-mem");
        if (name) {
            unsigned slot = atoi(name + strlen("alias memslot-"));

            memslots_check_line(vm, lines[i], slot);
            mapped |= 1U << slot;
        }
    }
    g_assert_true(container);
    return mapped;
}

#define assert_mapped(vm, slots) \
    g_assert_cmphex(memslots_mapped(vm), ==, slots)

/* --- tests --- */

static void test_only_plugged(VirtioMemGuest *vm)
{
    assert_mapped(vm, 0);
    virtio_mem_set_requested(vm, REGION);
    assert_mapped(vm, 0);
    vm_assert_plug(vm, 3, 1, ACK);
    assert_mapped(vm, 0x01);
    vm_assert_plug(vm, 2 * SLOT_BLOCKS, 2, ACK);
    assert_mapped(vm, 0x05);
    vm_assert_unplug(vm, 3, 1, ACK);
    assert_mapped(vm, 0x04);
    vm_assert_unplug(vm, 2 * SLOT_BLOCKS, 1, ACK);
    assert_mapped(vm, 0x04);
    vm_assert_unplug(vm, 2 * SLOT_BLOCKS + 1, 1, ACK);
    assert_mapped(vm, 0);
}

static void test_last_is_smaller(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, NB_BLOCKS - 1, 1, ACK);
    assert_mapped(vm, 0x08);
    virtio_mem_write_pattern(vm, NB_BLOCKS - 1, 1, 5);
    g_assert_true(virtio_mem_check_pattern(vm, NB_BLOCKS - 1, 1, 5));
}

static void test_all(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, 0, NB_BLOCKS, ACK);
    assert_mapped(vm, 0x0f);
    vm_assert_unplug_all(vm, ACK);
    assert_mapped(vm, 0);
}

static void test_across_border(VirtioMemGuest *vm)
{
    uint64_t border = vm->addr + SLOT_SIZE;

    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, SLOT_BLOCKS - 1, 2, ACK);
    assert_mapped(vm, 0x03);
    qtest_writeq(vm->qts, border - 4, 0x0123456789abcdef);
    g_assert_cmphex(qtest_readq(vm->qts, border - 4), ==, 0x0123456789abcdef);
    virtio_mem_write_pattern(vm, SLOT_BLOCKS, 1, 7);
    vm_assert_unplug(vm, SLOT_BLOCKS - 1, 1, ACK);
    assert_mapped(vm, 0x02);
    g_assert_true(virtio_mem_check_pattern(vm, SLOT_BLOCKS, 1, 7));
    vm_assert_plug(vm, SLOT_BLOCKS - 3, 3, ACK);
    assert_mapped(vm, 0x03);
    g_assert_true(virtio_mem_blocks_are_filled(vm, SLOT_BLOCKS - 3, 3, 0));
    vm_assert_unplug(vm, SLOT_BLOCKS - 3, 4, ACK);
    assert_mapped(vm, 0);
}

/* A range over three slots, the middle one wholly inside. */
static void test_over_three(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, SLOT_BLOCKS - 1, SLOT_BLOCKS + 2, ACK);
    assert_mapped(vm, 0x07);
    vm_assert_unplug(vm, SLOT_BLOCKS - 1, SLOT_BLOCKS + 1, ACK);
    assert_mapped(vm, 0x04);
    vm_assert_unplug_all(vm, ACK);
    assert_mapped(vm, 0);
}

/* Refused requests leave nothing mapped. */
static void test_refused(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 8 * VM_BLOCK);
    vm_assert_plug(vm, 0, 9, NACK);
    vm_assert_plug(vm, SLOT_BLOCKS, 1, ERROR);
    assert_mapped(vm, 0);
    virtio_mem_set_requested(vm, REGION);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 4, BUSY);
    assert_mapped(vm, 0);
    virtio_mem_end_busy(vm);
    virtio_mem_wait_config_irq(vm);
}

static void test_resets(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, SLOT_BLOCKS - 1, 2, ACK);
    virtio_mem_write_pattern(vm, SLOT_BLOCKS - 1, 2, 3);
    virtio_mem_restart_driver(vm);
    assert_mapped(vm, 0x03);
    g_assert_true(virtio_mem_check_pattern(vm, SLOT_BLOCKS - 1, 2, 3));
    virtio_mem_system_reset(vm);
    assert_mapped(vm, 0);
    virtio_mem_restart_driver(vm);
    vm_assert_plug(vm, SLOT_BLOCKS - 1, 2, ACK);
    assert_mapped(vm, 0x03);
    g_assert_true(virtio_mem_blocks_are_filled(vm, SLOT_BLOCKS - 1, 2, 0));
}

static void test_unmapped_access(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, REGION);
    vm_assert_plug(vm, 0, 1, ACK);
    qtest_writeq(vm->qts, vm->addr + 3 * SLOT_SIZE, 1);
    qtest_readq(vm->qts, vm->addr + 3 * SLOT_SIZE);
    assert_mapped(vm, 0x01);
    vm_assert_plug(vm, 3 * SLOT_BLOCKS, 1, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 3 * SLOT_BLOCKS, 1, 0));
}

static uint64_t memslots_address(const VirtioMemOptions *opts)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(opts);
    uint64_t addr = vm->addr;

    virtio_mem_guest_stop(vm);
    return addr;
}

static void test_same_address(VirtioMemGuest *unused)
{
    VirtioMemOptions without = memslots;

    without.device = NULL;
    g_assert_cmphex(memslots_address(&memslots), ==,
                    memslots_address(&without));
}

static void test_needs_inaccessible(VirtioMemGuest *vm)
{
    g_autofree char *error = virtio_mem_device_add_error(
        vm->qts, "{ 'driver': 'virtio-mem-pci', 'id': 'vm1', "
        "'memdev': 'vmem1', 'unplugged-inaccessible': 'off', "
        "'dynamic-memslots': true }");

    g_assert_nonnull(strstr(error, "dynamic-memslots"));
    g_assert_nonnull(strstr(error, "unplugged-inaccessible"));
}

/* --- migration: nothing is mapped until the blocks are known --- */

static void memslots_check_migration(const VirtioMemOptions *opts,
                                     void (*move)(VirtioMemGuest *from,
                                                  VirtioMemGuest *to))
{
    VirtioMemGuest *from = virtio_mem_guest_start(opts);
    VirtioMemGuest *to;
    g_autoptr(VirtioMemScene) scene = NULL;

    virtio_mem_set_requested(from, REGION);
    vm_assert_plug(from, SLOT_BLOCKS - 2, 4, ACK);
    vm_assert_plug(from, NB_BLOCKS - 5, 2, ACK);
    virtio_mem_write_pattern(from, SLOT_BLOCKS - 2, 4, 6);
    virtio_mem_write_pattern(from, NB_BLOCKS - 5, 2, 6);
    scene = virtio_mem_scene_look(from, 6);
    to = virtio_mem_target(opts);
    assert_mapped(to, 0);
    move(from, to);
    assert_mapped(to, 0x0b);
    virtio_mem_scene_check(to, scene);
    vm_assert_unplug(to, SLOT_BLOCKS - 2, 2, ACK);
    assert_mapped(to, 0x0a);
    vm_assert_unplug_all(to, ACK);
    assert_mapped(to, 0);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_migration(VirtioMemGuest *unused)
{
    memslots_check_migration(&memslots, virtio_mem_migrate);
}

static void test_migration_late(VirtioMemGuest *unused)
{
    memslots_check_migration(&memslots_late, virtio_mem_migrate_file);
}

static const VirtioMemOptions two = {
    .region_size = REGION, .device = "dynamic-memslots=on",
    .args = "-object memory-backend-ram,id=vmem1,size=1G",
};

static const VirtioMemTest tests[] = {
    { "T220", "memslots/mapped-while-blocks-are-plugged", test_only_plugged,
      &memslots, .once = true },
    { "T220", "memslots/last-one-is-smaller", test_last_is_smaller,
      &memslots, .once = true },
    { "T091", "memslots/all-mapped-and-all-unplugged", test_all, &memslots,
      .once = true },
    { "T221", "memslots/plug-across-a-border", test_across_border,
      &memslots, .once = true },
    { "T074", "memslots/plug-over-three", test_over_three, &memslots,
      .once = true },
    { "T044", "memslots/refusals-map-nothing", test_refused, &memslots,
      .once = true },
    { "T180 T184", "memslots/resets", test_resets, &memslots,
      .once = true },
    { "T225", "memslots/access-to-an-unmapped-one", test_unmapped_access,
      &memslots, .once = true },
    { "T242", "memslots/do-not-change-the-address", test_same_address,
      .no_guest = true },
    { "T013", "memslots/need-unplugged-inaccessible",
      test_needs_inaccessible, &two, .once = true, .pc = true },
    { "T240", "memslots/migration", test_migration, .no_guest = true },
    { "T240", "memslots/migration-in-late-format", test_migration_late,
      .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
