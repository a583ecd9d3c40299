/*
 * virtio-mem: snapshots, dumps and the other ways of moving memory
 *
 * savevm and loadvm, background snapshots, mapped-ram, multifd and shared
 * memory that is not copied; and dumps, which leave unplugged memory out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/memfd.h"
#include "elf.h"
#include "qobject/qlist.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"
#include "virtio-mem-snapshots.h"

static const VirtioMemOptions plain = { .region_size = VM_MIGRATE_REGION };
static const VirtioMemOptions late = {
    .region_size = VM_MIGRATE_REGION, .device = "x-early-migration=off",
};
static const VirtioMemOptions memslots = {
    .region_size = VM_MIGRATE_REGION, .device = "dynamic-memslots=on",
};

/* --- savevm, loadvm --- */

static void snapshot_live_on(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, GiB);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plug(vm, 200, 100, ACK);
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 200), 0xbd, VM_BLOCK);
    virtio_mem_set_requested(vm, 0);
}

/* The driver's position in the ring goes back with the rest of the guest. */
static void test_load(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);
    VirtioMemRing ring;

    virtio_mem_snapshot_add_disk(vm);
    ring = vm->ring;
    virtio_mem_snapshot_do(vm, "snapshot-save");
    virtio_mem_scene_check(vm, scene);
    snapshot_live_on(vm);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    vm->ring = ring;
    virtio_mem_take_config_irq(vm);
    virtio_mem_scene_check(vm, scene);
    vm_assert_unplug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 0, 1, ACK);
}

static void test_load_event(VirtioMemGuest *vm)
{
    VirtioMemRing ring;
    uint64_t size;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_snapshot_add_disk(vm);
    ring = vm->ring;
    virtio_mem_snapshot_do(vm, "snapshot-save");
    vm_assert_plug(vm, 4, 1, ACK);
    virtio_mem_take_size_events(vm, NULL);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    vm->ring = ring;
    virtio_mem_take_config_irq(vm);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), >=, 1);
    g_assert_cmphex(size, ==, 4 * VM_BLOCK);
}

/* What is plugged now and was not then must not stay, nor its content. */
static void test_load_leaves_nothing(VirtioMemGuest *vm)
{
    VirtioMemRing ring = vm->ring;

    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_fill(vm, vm->addr, 0x99, 4 * VM_BLOCK);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    vm->ring = ring;
    virtio_mem_take_config_irq(vm);
    vm_assert_plugged(vm, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 4, 0));
}

/* --- capabilities of migration --- */

typedef void SnapshotMove(VirtioMemGuest *from, VirtioMemGuest *to);

/* What is out of reach of the guest stays so, once the move is over. */
static void snapshot_check_move(const VirtioMemOptions *opts,
                                const char *const *capabilities,
                                SnapshotMove *move)
{
    VirtioMemGuest *from = virtio_mem_guest_start(opts);
    VirtioMemGuest *to;
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);
    const bool is_protected = virtio_mem_is_protected(from);

    to = virtio_mem_target(opts);
    for (; *capabilities; capabilities++) {
        migrate_set_capability(from->qts, *capabilities, true);
        migrate_set_capability(to->qts, *capabilities, true);
    }
    move(from, to);
    g_assert_cmpint(virtio_mem_is_protected(to), ==, is_protected);
    virtio_mem_scene_check(to, scene);
    virtio_mem_take_config_irq(to);
    vm_assert_unplug_all(to, ACK);
    virtio_mem_check_invariants(to);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static const char *const mapped_ram[] = { "mapped-ram", NULL };
static const char *const mapped_multifd[] = { "mapped-ram", "multifd", NULL };
static const char *const multifd[] = { "multifd", NULL };
static const char *const ignore_shared[] = { "x-ignore-shared", NULL };

/* Pages are there before the device knows which of them are plugged. */
static void test_mapped_ram(VirtioMemGuest *unused)
{
    snapshot_check_move(&plain, mapped_ram, virtio_mem_migrate_file);
    snapshot_check_move(&late, mapped_ram, virtio_mem_migrate_file);
    snapshot_check_move(&memslots, mapped_ram, virtio_mem_migrate_file);
}

static void test_mapped_ram_prealloc(VirtioMemGuest *unused)
{
    VirtioMemOptions prealloc = plain;

    prealloc.device = "prealloc=on";
    snapshot_check_move(&prealloc, mapped_ram, virtio_mem_migrate_file);
}

static void test_mapped_ram_multifd(VirtioMemGuest *unused)
{
    snapshot_check_move(&plain, mapped_multifd, virtio_mem_migrate_file);
}

static void test_multifd(VirtioMemGuest *unused)
{
    snapshot_check_move(&plain, multifd, virtio_mem_migrate);
}

/* The target must not touch the file that the source still lives in. */
static void snapshot_check_shared_in(const char *path, const char *device)
{
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=%s,size=4G", path);
    VirtioMemOptions opts = { .memdev = memdev, .device = device };

    snapshot_check_move(&opts, ignore_shared, virtio_mem_migrate);
}

/* A file of a disk cannot be protected, one of memory can. */
static void snapshot_check_shared(const char *device)
{
    const int fd = memfd_create("shared", MFD_CLOEXEC);
    g_autofree char *memory = g_strdup_printf("/proc/%d/fd/%d", getpid(), fd);
    g_autofree char *disk = virtio_mem_temp_path("shared");

    g_assert_cmpint(fd, >=, 0);
    snapshot_check_shared_in(memory, device);
    close(fd);
    snapshot_check_shared_in(disk, device);
    unlink(disk);
}

static void test_shared(VirtioMemGuest *unused)
{
    snapshot_check_shared(NULL);
}

static void test_shared_memslots(VirtioMemGuest *unused)
{
    snapshot_check_shared("dynamic-memslots=on");
}

static void test_shared_prealloc(VirtioMemGuest *unused)
{
    snapshot_check_shared("prealloc=on");
}

/* What the guest wrote to unplugged blocks before is in that file, too. */
static void test_shared_new_blocks(VirtioMemGuest *unused)
{
    const int fd = memfd_create("shared", MFD_CLOEXEC);
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=/proc/%d/fd/%d,size=4G",
        getpid(), fd);
    const VirtioMemOptions source = {
        .memdev = memdev, .device = "protect-unplugged=off",
    };
    const VirtioMemOptions target = { .memdev = memdev };
    VirtioMemGuest *from = virtio_mem_guest_start(&source);
    VirtioMemGuest *to = virtio_mem_target(&target);

    migrate_set_capability(from->qts, *ignore_shared, true);
    migrate_set_capability(to->qts, *ignore_shared, true);
    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, 1, ACK);
    virtio_mem_fill(from, virtio_mem_block_gpa(from, 4), 0x5a, 2 * VM_BLOCK);
    virtio_mem_migrate(from, to);
    vm_assert_plug(to, 5, 1, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(to, 5, 1, 0));
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
    close(fd);
}

/*
 * What a guest wrote to unplugged memory is lent.  It must not be in the file
 * when the other side takes that over, or a block that is plugged there is not
 * zero.
 */
static void test_shared_lent(VirtioMemGuest *unused)
{
    const int fd = memfd_create("shared", MFD_CLOEXEC);
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=/proc/%d/fd/%d,"
        "size=4G", getpid(), fd);
    const VirtioMemOptions opts = { .memdev = memdev };
    VirtioMemGuest *from = virtio_mem_guest_start(&opts);
    VirtioMemGuest *to = virtio_mem_target(&opts);
    uint8_t byte;

    if (!virtio_mem_is_protected(from)) {
        g_test_skip("no protection on this host");
    } else {
        migrate_set_capability(from->qts, "x-ignore-shared", true);
        migrate_set_capability(to->qts, "x-ignore-shared", true);
        virtio_mem_set_requested(from, VM_REQUESTED);
        virtio_mem_fill(from, virtio_mem_block_gpa(from, 3), 0x99, 4 * KiB);
        virtio_mem_migrate(from, to);
        g_assert_cmpint(pread(fd, &byte, 1, 3 * VM_BLOCK), ==, 1);
        g_assert_cmphex(byte, ==, 0);
        vm_assert_plug(to, 3, 1, ACK);
        g_assert_true(virtio_mem_is_filled(to, virtio_mem_block_gpa(to, 3), 0,
                                           VM_BLOCK));
    }
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
    close(fd);
}

/* --- background snapshot --- */

/* The guest runs on, and what it writes then is not in the snapshot. */
static void snapshot_take_background(VirtioMemGuest *from, const char *uri)
{
    uint64_t gpa = virtio_mem_block_gpa(from, 0);

    virtio_mem_migrate_hold(from, uri);
    /* The moment is over when the guest runs again. */
    qtest_qmp_eventwait(from->qts, "RESUME");
    virtio_mem_fill(from, gpa, 0x66, 4096);
    virtio_mem_set_requested(from, 0);
    migrate_set_parameter_int(from->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(from, "completed");
    g_assert_true(virtio_mem_is_filled(from, gpa, 0x66, 4096));
}

static void test_background(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);
    g_autofree char *path = virtio_mem_temp_path("background.stream");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    VirtioMemGuest *to;

    if (!virtio_mem_migrate_can(from, "background-snapshot")) {
        virtio_mem_guest_stop(from);
        return;
    }
    g_assert_true(test_bit(0, scene->bitmap));
    snapshot_take_background(from, uri);
    to = virtio_mem_target(&plain);
    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
    virtio_mem_scene_check(to, scene);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Plugging goes on when the snapshot is done. */
static void test_background_busy(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    if (!virtio_mem_migrate_can(vm, "background-snapshot")) {
        return;
    }
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 1, 1, BUSY);
    vm_assert_unplug(vm, 0, 1, BUSY);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(vm, "completed");
    virtio_mem_wait_config_irq(vm);
    vm_assert_plug(vm, 1, 1, ACK);
    vm_assert_unplug(vm, 0, 1, ACK);
}

/* --- dump --- */

static void dump_mark(unsigned long *bitmap, VirtioMemGuest *vm,
                      const Elf64_Phdr *segment)
{
    uint64_t offset = segment->p_paddr - vm->addr;

    if (segment->p_type == PT_LOAD && segment->p_filesz) {
        g_assert_cmphex((offset | segment->p_filesz) & (VM_BLOCK - 1), ==, 0);
        bitmap_set(bitmap, offset / VM_BLOCK, segment->p_filesz / VM_BLOCK);
    }
}

static void test_dump(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);
    g_autofree unsigned long *bitmap = bitmap_new(VM_REGION / VM_BLOCK);
    g_autofree char *path = virtio_mem_temp_path("dump.elf");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autoptr(GMappedFile) file = NULL;
    const Elf64_Ehdr *header;
    const Elf64_Phdr *segments;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'dump-guest-memory', "
                             "'arguments': { 'paging': false, "
                             "'protocol': %s, 'begin': %" PRIu64 ", "
                             "'length': %" PRIu64 " } }", uri, vm->addr,
                             (uint64_t)VM_REGION);
    file = g_mapped_file_new(path, false, NULL);
    g_assert_cmphex(g_mapped_file_get_length(file), >=, scene->plugged);
    g_assert_cmphex(g_mapped_file_get_length(file), <,
                    scene->plugged + VM_BLOCK);
    header = (const Elf64_Ehdr *)g_mapped_file_get_contents(file);
    g_assert_cmpint(header->e_ident[EI_CLASS], ==, ELFCLASS64);
    segments = (const void *)((const char *)header + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++) {
        dump_mark(bitmap, vm, &segments[i]);
    }
    g_assert_cmpuint(bitmap_count_one(bitmap, VM_REGION / VM_BLOCK), ==,
                     scene->plugged / VM_BLOCK);
    g_assert_true(bitmap_equal(bitmap, scene->bitmap, scene->nb_blocks));
    unlink(path);
}

static const VirtioMemTest tests[] = {
    { "T240", "snapshot/load-brings-everything-back", test_load, &plain,
      .once = true },
    { "O-4", "snapshot/load-ends-with-a-size-event", test_load_event,
      &plain, .once = true },
    { "T240", "snapshot/load-in-late-format", test_load, &late,
      .once = true },
    { "T240", "snapshot/load-with-memslots", test_load, &memslots,
      .once = true },
    { "T240", "snapshot/load-leaves-nothing-of-today",
      test_load_leaves_nothing, &plain, .once = true },
    { "T240", "migration/mapped-ram", test_mapped_ram, .no_guest = true },
    { "T240", "migration/mapped-ram-with-prealloc", test_mapped_ram_prealloc,
      .no_guest = true },
    { "T240", "migration/mapped-ram-with-multifd", test_mapped_ram_multifd,
      .no_guest = true },
    { "T240", "migration/multifd", test_multifd, .no_guest = true },
    { "T240", "migration/ignore-shared", test_shared, .no_guest = true },
    { "T222", "migration/ignore-shared-new-blocks-are-zero",
      test_shared_new_blocks, .no_guest = true },
    { "T240", "migration/ignore-shared-with-memslots", test_shared_memslots,
      .no_guest = true },
    { "T240", "migration/ignore-shared-with-prealloc", test_shared_prealloc,
      .no_guest = true },
    { "P12", "migration/ignore-shared-hands-over-nothing-lent",
      test_shared_lent, .no_guest = true },
    { "T240", "background-snapshot/is-of-its-moment", test_background,
      .no_guest = true },
    { "T245", "background-snapshot/busy-until-its-end",
      test_background_busy, &plain, .once = true },
    { "T241", "dump/leaves-unplugged-memory-out", test_dump, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
