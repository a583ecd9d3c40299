/*
 * Unit tests of virtio-mem's guard, with real memory and real userfaultfd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "qapi/error.h"
#include "virtio-mem-guard-scene.h"
#include "../../hw/virtio/virtio-mem-guard-faults.h"
#include <sys/mman.h>

#define ROGUE 0xbadbadbadbadbadULL

/* --- what others see --- */

static void test_reads_are_zero(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 2 * GiB);
    uint64_t before, offset;

    if (!scene) {
        return;
    }
    before = guard_scene_memory(scene);
    for (offset = 0; offset < scene->area.size;
         offset += MAX(1 * MiB, scene->kind->page_size)) {
        g_assert_cmphex(guard_scene_read(scene, offset + 8), ==, 0);
    }
    guard_scene_assert_gain(scene, before, scene->kind->max_gain);
    guard_scene_free(scene);
}

/* Not all of the kernel can wait for a page: debuggers, VFIO's type 1. */
static void assert_read_at_once(GuardScene *scene, uint64_t offset)
{
    const int fd = open("/proc/self/mem", O_RDONLY);
    uint64_t word = ROGUE;

    g_assert_cmpint(pread(fd, &word, sizeof(word),
                          (uintptr_t)scene->host + offset), ==, sizeof(word));
    g_assert_cmphex(word, ==, 0);
    close(fd);
}

static void test_plugged_is_ordinary(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 3 * GiB);
    const uint64_t block_size = scene ? scene->area.block_size : 0;
    uint64_t offset;

    if (!scene) {
        return;
    }
    guard_scene_plug(scene, 1, 1);
    assert_read_at_once(scene, block_size + 64);
    for (offset = block_size; offset < 2 * block_size; offset += 64 * KiB) {
        guard_scene_write(scene, offset, offset);
    }
    guard_scene_write(scene, 0, ROGUE);
    guard_scene_write(scene, 2 * block_size, ROGUE);
    g_assert_cmpint(guard_scene_count(scene), ==, 2);
    for (offset = block_size; offset < 2 * block_size; offset += 64 * KiB) {
        g_assert_cmphex(guard_scene_read(scene, offset), ==, offset);
    }
    guard_scene_unplug(scene, 1, 1);
    g_assert_cmphex(guard_scene_read(scene, block_size), ==, 0);
    g_assert_cmpint(guard_scene_count(scene), ==, 3);
    guard_scene_free(scene);
}

static void test_new_blocks_are_zero(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 2 * GiB);

    if (!scene) {
        return;
    }
    guard_scene_write(scene, 8, ROGUE);
    g_assert_cmphex(guard_scene_read(scene, 8), ==, ROGUE);
    guard_scene_plug(scene, 0, 1);
    g_assert_cmphex(guard_scene_read(scene, 8), ==, 0);
    guard_scene_free(scene);
}

static void test_writes_vanish_when_taken_back(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 2 * GiB);

    if (!scene) {
        return;
    }
    guard_scene_write(scene, 8, ROGUE);
    virtio_mem_guard_take_back(scene->guard);
    g_assert_cmphex(guard_scene_read(scene, 8), ==, 0);
    guard_scene_free(scene);
}

static void test_access_is_told(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    VirtIOMEMGuardAccess access;

    if (!scene) {
        return;
    }
    g_assert_false(virtio_mem_guard_fetch(scene->guard, &access));
    guard_scene_write(scene, 0x345678, ROGUE);
    guard_scene_read(scene, 0x1000);
    g_assert_true(virtio_mem_guard_fetch(scene->guard, &access));
    /* Linux tells the page before 5.18, the byte since then. */
    g_assert_cmphex(access.offset & ~0xfffULL, ==, 0x345000);
    g_assert_true(access.offset == 0x345000 || access.offset == 0x345678);
    g_assert_true(access.write);
    g_assert_cmpint(access.count, ==, 2);
    g_assert_false(virtio_mem_guard_fetch(scene->guard, &access));

    guard_scene_read(scene, 0x2345000);
    g_assert_true(virtio_mem_guard_fetch(scene->guard, &access));
    g_assert_cmphex(access.offset, ==, 0x2345000);
    g_assert_false(access.write);
    g_assert_cmpint(access.count, ==, 3);
    guard_scene_free(scene);
}

/* The kernel reads and writes guest memory for vhost, KVM and file systems. */
static void test_kernel_access(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 2 * GiB);
    const uint64_t size = 3 * MiB;
    g_autofree char *seen = g_malloc(size);
    g_autofree char *name = NULL;
    uint64_t before;
    int fd;

    if (!scene) {
        return;
    }
    fd = g_file_open_tmp("guard-XXXXXX", &name, NULL);
    g_assert_cmpint(fd, >=, 0);
    unlink(name);
    memset(seen, 0x55, size);
    g_assert_cmpint(write(fd, seen, size), ==, size);

    before = guard_scene_memory(scene);
    g_assert_cmpint(pread(fd, scene->host + 1 * MiB, size, 0), ==, size);
    guard_scene_assert_gain(scene, before, scene->kind->max_gain);
    virtio_mem_guard_take_back(scene->guard);
    g_assert_cmpint(pwrite(fd, scene->host + 1 * MiB, size, 0), ==, size);
    guard_scene_assert_gain(scene, before, scene->kind->max_gain);

    g_assert_cmpint(pread(fd, seen, size, 0), ==, size);
    g_assert_true(buffer_is_zero(seen, size));
    close(fd);
    guard_scene_free(scene);
}

static void test_huge_pages_stay(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 256 * MiB);
    g_autofree char *enabled = NULL;
    uint64_t before;

    if (!scene) {
        return;
    }
    if (!g_file_get_contents("/sys/kernel/mm/transparent_hugepage/enabled",
                             &enabled, NULL, NULL) ||
        strstr(enabled, "[never]")) {
        g_test_skip("this host has no transparent huge pages");
        guard_scene_free(scene);
        return;
    }
    before = proc_self_bytes("smaps_rollup", "AnonHugePages:");
    guard_scene_plug(scene, 8, 16);
    memset(scene->host + 16 * MiB, 1, 32 * MiB);
    g_assert_cmpint(proc_self_bytes("smaps_rollup", "AnonHugePages:"), >=,
                    before + 24 * MiB);
    guard_scene_free(scene);
}

/* --- pauses --- */

static void test_pause(const void *opaque)
{
    GuardScene *scene = guard_scene_new(opaque, 3 * GiB);
    uint64_t block_size, before;

    if (!scene) {
        return;
    }
    block_size = scene->area.block_size;
    before = guard_scene_memory(scene);
    guard_scene_write(scene, 0, ROGUE);
    virtio_mem_guard_pause(scene->guard);
    g_assert_false(virtio_mem_guard_is_active(scene->guard));
    /* Nothing is lent any more. */
    g_assert_cmphex(guard_scene_read(scene, 0), ==, 0);

    /* What is filled now stays, and what changes is remembered. */
    guard_scene_plug(scene, 1, 1);
    guard_scene_write(scene, block_size, 1);
    guard_scene_write(scene, 2 * block_size, 2);
    g_assert_cmpint(guard_scene_count(scene), ==, 1);

    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    g_assert_true(virtio_mem_guard_is_active(scene->guard));
    g_assert_cmpint(guard_scene_discard(scene, 0, block_size), ==, 0);
    g_assert_cmpint(guard_scene_discard(scene, 2 * block_size, block_size),
                    ==, 0);
    g_assert_cmphex(guard_scene_read(scene, block_size), ==, 1);
    g_assert_cmpint(guard_scene_count(scene), ==, 1);
    g_assert_cmphex(guard_scene_read(scene, 2 * block_size), ==, 0);
    g_assert_cmpint(guard_scene_count(scene), ==, 2);

    guard_scene_unplug(scene, 1, 1);
    virtio_mem_guard_take_back(scene->guard);
    guard_scene_assert_gain(scene, before,
                            MAX(64 * KiB, scene->kind->page_size / 256));
    guard_scene_free(scene);
}

static void test_begin_paused(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 64 * MiB);

    if (guard_scene_start(scene, true)) {
        guard_scene_write(scene, 0, 1);
        g_assert_cmpint(guard_scene_count(scene), ==, 0);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
        g_assert_cmphex(guard_scene_read(scene, 0), ==, 1);
        guard_scene_write(scene, 4 * MiB, 1);
        g_assert_cmpint(guard_scene_count(scene), ==, 1);
    }
    guard_scene_free(scene);
}

static unsigned count_uffds(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned nb = 0;
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename("/proc/self/fd", name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);

        nb += target && strstr(target, "[userfaultfd]");
    }
    return nb;
}

static void assert_costs(bool has_thread, unsigned nb_uffds)
{
    g_assert_cmpint(!!virtio_mem_guard_shared.thread, ==, has_thread);
    g_assert_cmpuint(count_uffds(), ==, nb_uffds);
}

/* They come with the first guard that needs them, and go with the last. */
static void test_one_for_all(void)
{
    GuardScene *first = guard_scene_new_unguarded(&guard_kinds[0], 64 * MiB);
    GuardScene *second;

    assert_costs(false, 0);
    if (guard_scene_start(first, true)) {
        assert_costs(false, 1);
        second = guard_scene_new(&guard_kinds[0], 64 * MiB);
        assert_costs(true, 1);
        g_assert_cmpint(virtio_mem_guard_resume(first->guard), ==, 0);
        assert_costs(true, 1);
        guard_scene_free(second);
        assert_costs(true, 1);
    }
    guard_scene_free(first);
    assert_costs(false, 0);
}

static void test_paused_is_free_for_others(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    int fd;

    if (!scene) {
        return;
    }
    fd = uffd_create_fd(0, true);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(uffd_register_memory(fd, scene->host, 64 * MiB,
                                         UFFDIO_REGISTER_MODE_MISSING, NULL),
                    ==, -1);
    virtio_mem_guard_pause(scene->guard);
    g_assert_cmpint(uffd_register_memory(fd, scene->host, 64 * MiB,
                                         UFFDIO_REGISTER_MODE_MISSING, NULL),
                    ==, 0);
    /* Who resumes too early hears of it and stays paused. */
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, -EBUSY);
    g_assert_false(virtio_mem_guard_is_active(scene->guard));
    g_assert_cmpint(uffd_zero_page(fd, scene->host, 4096, false), ==, 0);
    uffd_close_fd(fd);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    guard_scene_free(scene);
}

/* A part of it is watched by others: theirs stays theirs, at all times. */
static void test_others_keep_theirs(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    const uint64_t at = 33 * MiB;
    int fd;

    if (!scene) {
        return;
    }
    guard_scene_plug(scene, 4, 1);
    guard_scene_plug(scene, 16, 1);
    fd = uffd_create_fd(0, true);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(uffd_register_memory(fd, scene->host + 32 * MiB, 2 * MiB,
                                         UFFDIO_REGISTER_MODE_MISSING, NULL),
                    ==, 0);
    virtio_mem_guard_pause(scene->guard);
    g_assert_cmpint(uffd_zero_page(fd, scene->host + at, 4096, false), ==, 0);
    g_assert_cmpint(virtio_mem_guard_protect(scene->guard, 32 * MiB, 2 * MiB),
                    ==, 0);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, -EBUSY);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    /* It would fail if that were not registered any more. */
    g_assert_cmpint(uffd_zero_page(fd, scene->host + at + 4096, 4096, false),
                    ==, 0);
    uffd_close_fd(fd);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    guard_scene_free(scene);
}

/* What others wrote while the guard was aside may be there afterwards. */
static void test_clean_until_paused(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);

    if (!scene) {
        return;
    }
    g_assert_false(virtio_mem_guard_is_clean(scene->guard));
    virtio_mem_guard_set_clean(scene->guard, true);
    g_assert_true(virtio_mem_guard_is_clean(scene->guard));
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    g_assert_true(virtio_mem_guard_is_clean(scene->guard));

    virtio_mem_guard_pause(scene->guard);
    g_assert_false(virtio_mem_guard_is_clean(scene->guard));
    virtio_mem_guard_set_clean(scene->guard, true);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    g_assert_false(virtio_mem_guard_is_clean(scene->guard));
    guard_scene_free(scene);
}

/* --- off, refused --- */

static void test_no_guard_is_a_guard_that_is_off(void)
{
    g_assert_cmpint(virtio_mem_guard_protect(NULL, 0, 4096), ==, 0);
    g_assert_cmpint(virtio_mem_guard_release(NULL, 0, 4096), ==, 0);
    virtio_mem_guard_force(NULL, 0, 4096, true);
    g_assert_cmpint(virtio_mem_guard_resume(NULL), ==, 0);
    g_assert_false(virtio_mem_guard_is_active(NULL));
    virtio_mem_guard_set_clean(NULL, true);
    g_assert_false(virtio_mem_guard_is_clean(NULL));
    virtio_mem_guard_pause(NULL);
    virtio_mem_guard_take_back(NULL);
    virtio_mem_guard_free(NULL);
}

static void assert_refused(GuardScene *scene, const char *why)
{
    Error *err = NULL;

    g_assert_null(virtio_mem_guard_new(&scene->area, false, &err));
    if (!strstr(error_get_pretty(err), why)) {
        g_test_message("%s", error_get_pretty(err));
        g_assert_not_reached();
    }
    error_free(err);
}

static void test_refused_for_a_file(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 64 * MiB);
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("guard-XXXXXX", &name, NULL);
    struct stat st;

    g_assert_cmpint(fd, >=, 0);
    unlink(name);
    g_assert_cmpint(ftruncate(fd, 64 * MiB), ==, 0);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_true(mmap(scene->host, 64 * MiB, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED, fd, 0) == scene->host);
    assert_refused(scene, "has to be anonymous memory, shared memory");
    close(fd);
    guard_scene_free(scene);
}

static void test_refused_without_permission(void)
{
    GuardScene *scene;

    if (g_test_subprocess()) {
        scene = guard_scene_new_unguarded(&guard_kinds[0], 64 * MiB);
        g_assert_cmpint(setresgid(65534, 65534, 65534), ==, 0);
        g_assert_cmpint(setresuid(65534, 65534, 65534), ==, 0);
        assert_refused(scene, "let it open /dev/userfaultfd, or set"
                       " vm.unprivileged_userfaultfd to 1, or give it"
                       " CAP_SYS_PTRACE");
        guard_scene_free(scene);
        return;
    }
    if (getuid()) {
        g_test_skip("only root can become somebody without permission");
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

/* --- */

int main(int argc, char **argv)
{
    uint64_t max_page_size;

    g_test_init(&argc, &argv, NULL);

    /* Pages of 1 GiB take long: quick runs show that they work, and no more. */
    max_page_size = guard_scale(2 * MiB, 1 * GiB);
    guard_scene_add_tests("guard/reads-are-zero", 0, max_page_size,
                          test_reads_are_zero);
    guard_scene_add_tests("guard/plugged-is-ordinary", 0, 1 * GiB,
                          test_plugged_is_ordinary);
    guard_scene_add_tests("guard/new-blocks-are-zero", 0, max_page_size,
                          test_new_blocks_are_zero);
    guard_scene_add_tests("guard/writes-vanish", 0, max_page_size,
                          test_writes_vanish_when_taken_back);
    guard_scene_add_tests("guard/kernel-access", 0, max_page_size,
                          test_kernel_access);
    guard_scene_add_tests("guard/pause", 0, max_page_size,
                          test_pause);
    g_test_add_func("/virtio-mem/guard/access-is-told", test_access_is_told);
    g_test_add_func("/virtio-mem/guard/huge-pages-stay", test_huge_pages_stay);
    g_test_add_func("/virtio-mem/guard/begin-paused", test_begin_paused);
    g_test_add_func("/virtio-mem/guard/one-for-all", test_one_for_all);
    g_test_add_func("/virtio-mem/guard/pause-is-free-for-others",
                    test_paused_is_free_for_others);
    g_test_add_func("/virtio-mem/guard/others-keep-theirs",
                    test_others_keep_theirs);
    g_test_add_func("/virtio-mem/guard/clean-until-paused",
                    test_clean_until_paused);
    g_test_add_func("/virtio-mem/guard/no-guard",
                    test_no_guard_is_a_guard_that_is_off);
    g_test_add_func("/virtio-mem/guard/refused-for-a-file",
                    test_refused_for_a_file);
    g_test_add_func("/virtio-mem/guard/refused-without-permission",
                    test_refused_without_permission);

    return g_test_run();
}
