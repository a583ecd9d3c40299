/*
 * virtio-mem: memory in files that have a name
 *
 * A private mapping is a copy: what is in the file is the memory of others, as
 * when virtual machines are started from one template.  And a file system that
 * is full is told with all that its administrator needs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mount.h>
#include "qemu/cutils.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

#define FILES_REGION (256 * MiB)
#define CONTENT 0x99
#define FILLED (8 * VM_BLOCK)

/* A file of which the first @offset bytes are no memory of the device. */
static void files_fill(const char *path, uint64_t offset)
{
    const uint64_t size = offset + FILLED;
    g_autofree char *bytes = g_malloc(size);

    memset(bytes, CONTENT, size);
    g_assert_true(g_file_set_contents(path, bytes, size, NULL));
    g_assert_cmpint(truncate(path, offset + FILES_REGION), ==, 0);
}

static void files_check(const char *path, uint64_t offset)
{
    const uint64_t filled = offset + FILLED;
    g_autofree char *bytes = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(path, &bytes, &size, NULL));
    g_assert_cmpuint(size, ==, offset + FILES_REGION);
    for (uint64_t i = 0; i < filled; i++) {
        g_assert_cmphex((uint8_t)bytes[i], ==, CONTENT);
    }
    g_assert_true(buffer_is_zero(bytes + filled, size - filled));
}

static blkcnt_t files_blocks(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_blocks;
}

/*
 * All ways that memory is given back, beginning with realize.  Where the file
 * can be written to, pages that QEMU has added go again.
 */
static void files_give_back(VirtioMemGuest *vm, const char *path,
                            bool can_write)
{
    const blkcnt_t before = files_blocks(path);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 8, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 8, CONTENT));
    virtio_mem_fill(vm, vm->addr, 0x11, FILLED);
    /* On tmpfs, a hole is filled when it is touched by a private mapping. */
    vm_assert_plug(vm, 8, 2, ACK);
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 8), 0x11, 2 * VM_BLOCK);
    vm_assert_unplug(vm, 8, 2, ACK);
    if (can_write) {
        g_assert_cmpint(files_blocks(path), ==, before);
    }
    vm_assert_unplug(vm, 0, 2, ACK);
    vm_assert_plug(vm, 0, 2, ACK);
    /* The guest's own data is gone, what is in the file shows again. */
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 2, CONTENT));
    vm_assert_unplug_all(vm, ACK);
    vm_assert_plug(vm, 0, 8, ACK);
    virtio_mem_fill(vm, vm->addr, 0x22, FILLED);
    virtio_mem_system_reset(vm);
    virtio_mem_driver_up(vm, virtio_mem_default_features(vm));
    vm_assert_plugged(vm, 0);
    if (can_write) {
        g_assert_cmpint(files_blocks(path), ==, before);
    }
}

static void files_check_private(const char *more, uint64_t offset,
                                bool can_write)
{
    g_autofree char *path = g_strdup_printf("/dev/shm/virtio-mem-%d",
                                            (int)getpid());
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=off,mem-path=%s,size=256M"
        ",offset=%" PRIu64 "%s", path, offset, more);
    const VirtioMemOptions opts = {
        .memdev = memdev, .region_size = FILES_REGION,
    };
    VirtioMemGuest *vm;

    files_fill(path, offset);
    vm = virtio_mem_guest_start(&opts);
    /* The guard cannot see who copies what is in the file. */
    g_assert_false(virtio_mem_is_protected(vm));
    files_give_back(vm, path, can_write);
    virtio_mem_guest_stop(vm);
    files_check(path, offset);
    unlink(path);
}

static void test_private(VirtioMemGuest *unused)
{
    files_check_private("", 0, true);
    files_check_private("", 3 * VM_BLOCK, true);
}

static void test_readonly(VirtioMemGuest *unused)
{
    files_check_private(",readonly=on,rom=off", 0, false);
}

/* --- a file system that is full --- */

static void files_check_full(const char *directory, const char *log)
{
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=%s/memory,size=256M",
        directory);
    g_autofree char *args = g_strdup_printf("2> %s", log);
    g_autofree char *wanted = g_strdup_printf(
        "0x%" PRIx64 " bytes are needed for %s/memory, whose file system has"
        " 0x", VM_BLOCK, directory);
    g_autofree char *said = NULL;
    const VirtioMemOptions opts = {
        .memdev = memdev, .region_size = FILES_REGION, .args = args,
        .device = "prealloc=on",
    };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 3, ACK);
    vm_assert_plug(vm, 3, 1, BUSY);
    vm_assert_unplug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 3, 1, ACK);
    virtio_mem_guest_stop(vm);
    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_assert_nonnull(strstr(said, wanted));
}

static void test_full(VirtioMemGuest *unused)
{
    g_autofree char *directory = virtio_mem_temp_path("full");
    g_autofree char *log = virtio_mem_temp_path("full.log");

    g_assert_cmpint(mkdir(directory, 0700), ==, 0);
    if (mount("tmpfs", directory, "tmpfs", 0, "size=7m")) {
        g_test_skip("only root can mount a file system that is small");
    } else {
        files_check_full(directory, log);
        umount2(directory, MNT_DETACH);
    }
    rmdir(directory);
    unlink(log);
}

/* Where nothing is left: the main loop uses what is unplugged, and goes on. */
static void files_check_no_room(const char *directory)
{
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,share=on,mem-path=%s/memory,size=256M",
        directory);
    const VirtioMemOptions opts = {
        .memdev = memdev, .region_size = FILES_REGION,
        .device = "protect-unplugged=on",
    };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);
    uint64_t gpa;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    gpa = virtio_mem_block_gpa(vm, 3);
    vm_assert_plug(vm, 0, 3, ACK);
    virtio_mem_fill(vm, vm->addr, 0x55, 3 * VM_BLOCK);
    virtio_mem_fill(vm, gpa + VM_BLOCK, 0x55, 2 * VM_BLOCK);
    g_assert_true(virtio_mem_is_filled(vm, gpa + 3 * VM_BLOCK, 0, VM_BLOCK));
    g_assert_true(virtio_mem_is_protected(vm));
    g_assert_true(virtio_mem_blocks_are_filled(vm, 0, 3, 0x55));

    /* Memory that is given back is there for another block. */
    vm_assert_unplug(vm, 1, 1, ACK);
    vm_assert_plug(vm, 5, 1, ACK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 5, 1, 0));
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 5), 0x66, VM_BLOCK);
    virtio_mem_fill(vm, gpa, 0x55, 2 * VM_BLOCK);
    g_assert_true(virtio_mem_blocks_are_filled(vm, 5, 1, 0x66));
    /* By SIGTERM. */
    virtio_mem_guest_stop(vm);
}

static void test_no_room(VirtioMemGuest *unused)
{
    g_autofree char *directory = virtio_mem_temp_path("no-room");

    g_assert_cmpint(mkdir(directory, 0700), ==, 0);
    if (mount("tmpfs", directory, "tmpfs", 0, "size=6m")) {
        g_test_skip("only root can mount a file system that is small");
    } else {
        files_check_no_room(directory);
        umount2(directory, MNT_DETACH);
    }
    rmdir(directory);
}

static const VirtioMemTest tests[] = {
    { "R-22", "files/private-mapping-changes-no-file", test_private,
      .no_guest = true },
    { "R-22", "files/read-only-file-will-do", test_readonly, .no_guest = true },
    { "O-2", "files/full-file-system-is-named", test_full, .no_guest = true },
    { "O-2", "files/full-file-system-lends", test_no_room, .no_guest = true,
      .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
