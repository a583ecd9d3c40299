/*
 * virtio-mem: what plugged and unplugged memory is like
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

#define UNPROTECTED "protect-unplugged=off"
#define LEFTOVERS (64 * MiB)
/* A device that discards all of its region makes so many calls, or fewer. */
#define MAX_DISCARDS 1024
#define MEMORY_RUNS 64              /* plugged blocks that the guest uses */

/* --- plugged --- */

static void test_neighbours(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 16 * VM_BLOCK);
    vm_assert_plug(vm, 4, 2, ACK);
    virtio_mem_write_pattern(vm, 4, 2, 1);
    vm_assert_plug(vm, 3, 1, ACK);
    vm_assert_plug(vm, 6, 5, ACK);
    g_assert_true(virtio_mem_check_pattern(vm, 4, 2, 1));
    vm_assert_plug(vm, 20, 9, NACK);
    vm_assert_plug(vm, 5, 2, ERROR);
    vm_assert_unplug(vm, 1, 4, ERROR);
    vm_assert_unplug(vm, 4, 0, ERROR);
    vm_assert_state(vm, 3, 4, PLUGGED);
    g_assert_true(virtio_mem_check_pattern(vm, 4, 2, 1));
    vm_assert_unplug(vm, 3, 1, ACK);
    vm_assert_unplug(vm, 6, 5, ACK);
    g_assert_true(virtio_mem_check_pattern(vm, 4, 2, 1));
}

static void test_first_and_last_byte(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 16, ACK);
    for (int i = 0; i < 16; i++) {
        qtest_writeb(vm->qts, virtio_mem_block_gpa(vm, i), i + 1);
        qtest_writeb(vm->qts, virtio_mem_block_gpa(vm, i + 1) - 1, i + 101);
    }
    for (int i = 0; i < 16; i++) {
        uint64_t gpa = virtio_mem_block_gpa(vm, i);

        g_assert_cmpuint(qtest_readb(vm->qts, gpa), ==, i + 1);
        g_assert_cmpuint(qtest_readb(vm->qts, gpa + VM_BLOCK - 1), ==,
                         i + 101);
    }
}

static void test_across_border(VirtioMemGuest *vm)
{
    uint64_t border = virtio_mem_block_gpa(vm, 1);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 1, 1, ACK);
    vm_assert_plug(vm, 0, 1, ACK);
    qtest_writeq(vm->qts, border - 3, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(vm->qts, border - 3), ==, 0x1122334455667788);
    g_assert_cmphex(qtest_readb(vm->qts, border - 1), ==, 0x66);
    g_assert_cmphex(qtest_readb(vm->qts, border), ==, 0x55);
    virtio_mem_fill(vm, border - 4096, 0x42, 8192);
    g_assert_true(virtio_mem_is_filled(vm, border - 4096, 0x42, 8192));
}

/* Never data of another life of the block. */
static void test_replugged(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 4, 0));
    virtio_mem_fill(vm, vm->addr, 0xee, 4 * VM_BLOCK);
    vm_assert_unplug(vm, 1, 2, ACK);
    vm_assert_plug(vm, 1, 2, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 1, 2, 0));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 1, 0xee));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 3, 1, 0xee));
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plug(vm, 0, 4, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 4, 0));
}

static void memory_check_backend(const char *backend)
{
    VirtioMemOptions opts = { .memdev = backend };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);

    test_replugged(vm);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static void test_replugged_memfd(VirtioMemGuest *unused)
{
    memory_check_backend("memory-backend-memfd,id=vmem0,share=on,"
                         "reserve=off,size=1G");
}

static void test_replugged_file(VirtioMemGuest *unused)
{
    g_autofree char *path = virtio_mem_temp_path("backend");
    g_autofree char *backend = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=%s,size=1G", path);

    memory_check_backend(backend);
}

static void test_replugged_prealloc(VirtioMemGuest *vm)
{
    test_replugged(vm);
}

/* What was written before a block was plugged is gone when it is. */
static void memory_check_unprotected(const char *backend, const char *device)
{
    VirtioMemOptions opts = { .memdev = backend, .device = device };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_fill(vm, vm->addr, 0x5a, 8 * VM_BLOCK);
    vm_assert_plug(vm, 2, 4, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 2, 4, 0));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 1, 1, 0x5a));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 6, 1, 0x5a));
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static void test_unprotected(VirtioMemGuest *unused)
{
    static const char *const backends[] = {
        "memory-backend-ram,id=vmem0,size=1G",
        "memory-backend-memfd,id=vmem0,share=on,reserve=off,size=1G",
    };

    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        memory_check_unprotected(backends[i], UNPROTECTED);
        memory_check_unprotected(backends[i], UNPROTECTED ",prealloc=on");
    }
}

/* --- unplugged, or nothing at all --- */

static void test_read_unplugged(VirtioMemGuest *vm)
{
    uint64_t gpa;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 2, 1, ACK);
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 2), 0xaa, VM_BLOCK);
    vm_assert_unplug(vm, 2, 1, ACK);
    for (uint64_t i = 0; i < virtio_mem_usable_blocks(vm); i++) {
        gpa = virtio_mem_block_gpa(vm, i) + 0x1238;
        g_assert_cmphex(qtest_readb(vm->qts, gpa), ==, 0);
        g_assert_cmphex(qtest_readw(vm->qts, gpa), ==, 0);
        g_assert_cmphex(qtest_readl(vm->qts, gpa), ==, 0);
        g_assert_cmphex(qtest_readq(vm->qts, gpa), ==, 0);
    }
    g_assert_true(virtio_mem_blocks_are_filled(vm, 2, 1, 0));
    vm_assert_plugged(vm, 0);
}

/* Addresses that belong to the region without being usable, or not even. */
static void test_outside(VirtioMemGuest *vm)
{
    uint64_t usable, end = vm->addr + vm->region_size;
    const uint64_t ram_end = virtio_mem_ram() + VM_RAM;
    uint64_t gpas[8];

    virtio_mem_set_requested(vm, VM_REQUESTED);
    usable = vm->addr + virtio_mem_usable_size(vm);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm) - 1, 1, ACK);
    virtio_mem_fill(vm, usable - VM_BLOCK, 0x31, VM_BLOCK);
    virtio_mem_fill(vm, ram_end - 4096, 0x32, 4096);
    memcpy(gpas, (uint64_t[]){ usable, usable + 4096, end - 8, end,
                               end + VM_BLOCK, vm->addr - 8,
                               vm->addr - VM_BLOCK, ram_end },
           sizeof(gpas));
    for (size_t i = 0; i < ARRAY_SIZE(gpas); i++) {
        qtest_readq(vm->qts, gpas[i]);
        qtest_writeq(vm->qts, gpas[i], 0xdeadbeefdeadbeef);
        qtest_readb(vm->qts, gpas[i]);
    }
    g_assert_true(virtio_mem_blocks_are_filled(
        vm, (usable - vm->addr) / VM_BLOCK - 1, 1, 0x31));
    g_assert_true(virtio_mem_is_filled(vm, ram_end - 4096, 0x32, 4096));
    vm_assert_plugged(vm, 1);
}

/* --- other people's memory --- */

/* All that the fixture never allocates, as one number. */
static char *memory_hash_boot_ram(VirtioMemGuest *vm)
{
    g_autofree char *path = virtio_mem_temp_path("boot-ram");
    g_autoptr(GMappedFile) file = NULL;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'pmemsave', 'arguments': "
                             "{ 'val': %" PRIu64 ", 'size': %d, "
                             "'filename': %s } }", virtio_mem_ram() + 64 * MiB,
                             (int)(64 * MiB), path);
    file = g_mapped_file_new(path, false, NULL);
    return g_compute_checksum_for_data(
        G_CHECKSUM_SHA256, (uint8_t *)g_mapped_file_get_contents(file),
        g_mapped_file_get_length(file));
}

static void memory_do_everything(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    for (int i = 0; i < 200; i++) {
        uint64_t block = g_test_rand_int_range(0, scene->nb_blocks + 4);

        vm_plug(vm, block, g_test_rand_int_range(0, 4));
        vm_unplug(vm, block, g_test_rand_int_range(0, 4));
        virtio_mem_req(vm, .type = i & 3,
                       .addr = (uint64_t)g_test_rand_int() << 20);
    }
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_restart_driver(vm);
}

static void test_boot_ram(VirtioMemGuest *vm)
{
    g_autofree char *before = NULL, *after = NULL;

    for (uint64_t i = 64 * MiB; i < 128 * MiB; i += 128 * KiB) {
        qtest_writeq(vm->qts, virtio_mem_ram() + i, i * 0x9e3779b97f4a7c15ULL);
    }
    before = memory_hash_boot_ram(vm);
    memory_do_everything(vm);
    after = memory_hash_boot_ram(vm);
    g_assert_cmpstr(after, ==, before);
}

static const VirtioMemOptions with_rng = {
    .args = "-object rng-builtin,id=rng0 "
            "-device virtio-rng-pci,rng=rng0,disable-legacy=on,addr=05.0",
};

static QVirtioPCIDevice *memory_rng_up(VirtioMemGuest *vm,
                                       VirtioMemRing *ring)
{
    QVirtioPCIDevice *rng = virtio_mem_neighbour_start(vm, 5);
    VirtioMemRingOptions opts = {};
    QVirtQueue vq = {};

    rng->vdev.bus->queue_select(&rng->vdev, 0);
    opts.size = rng->vdev.bus->get_queue_size(&rng->vdev);
    virtio_mem_ring_init(ring, vm->qts, &vm->qs->alloc, &opts);
    vq.desc = ring->desc;
    vq.avail = ring->driver;
    vq.used = ring->device;
    virtio_mem_neighbour_go(rng, &vq);
    return rng;
}

/* It may have to wait for its next ration. */
static bool memory_rng_poll(VirtioMemGuest *vm, VirtioMemRing *ring)
{
    VirtioMemUsed used;

    qtest_clock_step(vm->qts, 10000000);
    return virtio_mem_ring_poll(ring, &used);
}

/* The entropy goes nowhere, or back to where a block will be. */
static void test_dma_target(VirtioMemGuest *vm)
{
    VirtioMemRing ring = {};
    QVirtioPCIDevice *rng = memory_rng_up(vm, &ring);
    VirtioMemSegment target = {
        .addr = virtio_mem_block_gpa(vm, 1), .len = 4096, .writable = true,
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 3, ACK);
    virtio_mem_fill(vm, vm->addr, 0x21, 3 * VM_BLOCK);
    virtio_mem_ring_add(&ring, &target, 1);
    vm_assert_unplug(vm, 1, 1, ACK);
    qpci_io_writew(rng->pdev, rng->bar, rng->notify_cfg_offset, 0);
    vm_wait_until(memory_rng_poll(vm, &ring));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 1, 0x21));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 2, 1, 0x21));
    vm_assert_state(vm, 1, 1, UNPLUGGED);
    virtio_mem_ring_free(&ring);
    virtio_mem_neighbour_free(rng);
}

/* --- what goes back to the host --- */

/* How many discard events there are after @offset in the log. */
static unsigned int memory_count_discards(const char *path, gsize offset)
{
    g_autofree char *log = NULL;
    unsigned int nb_calls = 0;
    const char *at;

    g_assert_true(g_file_get_contents(path, &log, NULL, NULL));
    for (at = log + offset; (at = strstr(at, "virtio_mem_backing_discard"));
         at++) {
        nb_calls++;
    }
    return nb_calls;
}

static gsize memory_log_size(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_size;
}

/* Plug every second block, until there are so many runs of one block. */
static void memory_plug_runs(VirtioMemGuest *vm, unsigned int nb_runs)
{
    virtio_mem_set_requested(vm, vm->region_size);
    for (unsigned int i = 0; i < nb_runs; i++) {
        vm_assert_plug(vm, 2 * i, 1, ACK);
    }
}

/* More runs than calls are allowed; the last of them have memory. */
static void memory_check_discards(void (*unplug)(VirtioMemGuest *vm))
{
    g_autofree char *path = virtio_mem_temp_path("trace");
    g_autofree char *args = g_strdup_printf(
        "-trace virtio_mem_backing_discard -D %s", path);
    const VirtioMemOptions opts = {
        .device = UNPROTECTED, .args = args,
        .block_size = MiB, .region_size = 240 * GiB,
    };
    const unsigned int nb_runs = g_test_slow() ? 120 * KiB : 2 * MAX_DISCARDS;
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);
    uint64_t before;
    gsize log_size;

    memory_plug_runs(vm, nb_runs);
    before = virtio_mem_host_memory(vm);
    for (unsigned int i = nb_runs - MEMORY_RUNS; i < nb_runs; i++) {
        virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 2 * i), 0x5a, MiB);
    }
    log_size = memory_log_size(path);
    unplug(vm);
    g_assert_cmpuint(memory_count_discards(path, log_size), <=, MAX_DISCARDS);
    virtio_mem_assert_gain(vm, before, MEMORY_RUNS * MiB / 8);
    virtio_mem_guest_stop(vm);
}

static void memory_unplug_all(VirtioMemGuest *vm)
{
    vm_assert_unplug_all(vm, ACK);
}

static void test_discards_of_unplug_all(VirtioMemGuest *unused)
{
    memory_check_discards(memory_unplug_all);
}

static void test_discards_of_system_reset(VirtioMemGuest *unused)
{
    memory_check_discards(virtio_mem_system_reset);
}

/* What was written to unplugged blocks costs the host nothing afterwards. */
static void memory_check_leftovers(void (*unplug)(VirtioMemGuest *vm),
                                   uint16_t nb_plugged)
{
    const VirtioMemOptions opts = { .device = UNPROTECTED };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);
    uint64_t before;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    if (nb_plugged) {
        vm_assert_plug(vm, 0, nb_plugged, ACK);
    }
    before = virtio_mem_host_memory(vm);
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 100), 0x5a, LEFTOVERS);
    /* QEMU may have freed something of its own meanwhile. */
    g_assert_cmpuint(virtio_mem_host_memory(vm), >=, before + LEFTOVERS / 2);
    unplug(vm);
    virtio_mem_assert_gain(vm, before, LEFTOVERS / 8);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 100, LEFTOVERS / VM_BLOCK,
                                               0));
    virtio_mem_guest_stop(vm);
}

static void test_leftovers_of_unplug_all(VirtioMemGuest *unused)
{
    memory_check_leftovers(memory_unplug_all, 1);
    memory_check_leftovers(memory_unplug_all, 0);
}

static void test_leftovers_of_system_reset(VirtioMemGuest *unused)
{
    memory_check_leftovers(virtio_mem_system_reset, 1);
    memory_check_leftovers(virtio_mem_system_reset, 0);
}

static const VirtioMemOptions zeropage = {
    .device = "unplugged-inaccessible=off",
};
static const VirtioMemOptions prealloc = { .device = "prealloc=on" };

static const VirtioMemTest tests[] = {
    { "T220", "memory/content-is-kept-whatever-neighbours-do",
      test_neighbours },
    { "T221", "memory/first-and-last-byte", test_first_and_last_byte,
      .once = true },
    { "T221", "memory/access-across-a-border", test_across_border,
      .once = true },
    { "T222", "memory/new-blocks-are-zero", test_replugged, .once = true },
    { "T222", "memory/new-blocks-are-zero-in-memfd", test_replugged_memfd,
      .no_guest = true },
    { "T222", "memory/new-blocks-are-zero-in-a-file", test_replugged_file,
      .no_guest = true },
    { "T222", "memory/new-blocks-are-zero-when-preallocated",
      test_replugged_prealloc, &prealloc, .once = true },
    { "T222", "memory/new-blocks-are-zero-without-protection",
      test_unprotected, .no_guest = true },
    { "T223", "memory/unplugged-reads-as-zero", test_read_unplugged,
      &zeropage, .once = true },
    { "T225", "memory/access-outside-does-nothing", test_outside,
      .once = true },
    { "T228", "memory/dma-target-in-an-unplugged-block", test_dma_target,
      &with_rng, .once = true },
    { "T229", "memory/boot-ram-is-left-alone", test_boot_ram,
      .once = true },
    { "P-3", "discard/unplug-all-takes-few-calls-for-many-runs",
      test_discards_of_unplug_all, .no_guest = true },
    { "P-3", "discard/system-reset-takes-few-calls-for-many-runs",
      test_discards_of_system_reset, .no_guest = true },
    { "P-3", "discard/unplug-all-leaves-nothing-in-unplugged-blocks",
      test_leftovers_of_unplug_all, .no_guest = true },
    { "P-3", "discard/system-reset-leaves-nothing-in-unplugged-blocks",
      test_leftovers_of_system_reset, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
