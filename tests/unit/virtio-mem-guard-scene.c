/*
 * Memory of each kind with a guard on it, for tests of virtio-mem's guard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/memfd.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "virtio-mem-guard-scene.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

const GuardKind guard_kinds[] = {
    { "anonymous", false, 4 * KiB, 2 * MiB, 0, 0, 1 * MiB },
    { "memfd", true, 4 * KiB, 2 * MiB, 0, 0, 1 * MiB },
    { "memfd-skewed", true, 4 * KiB, 2 * MiB, 64 * KiB, 0, 1200 * KiB },
    { "memfd-private", false, 4 * KiB, 2 * MiB, 0, 0, 1 * MiB },
    { "hugetlb-2m", true, 2 * MiB, 2 * MiB, 0,
      MFD_HUGETLB | 21 << MFD_HUGE_SHIFT, 16 * 2 * MiB + 64 * KiB },
    { "hugetlb-2m-private", false, 2 * MiB, 2 * MiB, 0,
      MFD_HUGETLB | 21 << MFD_HUGE_SHIFT, 16 * 2 * MiB + 64 * KiB },
    { "hugetlb-1g", true, 1 * GiB, 1 * GiB, 0,
      MFD_HUGETLB | 30U << MFD_HUGE_SHIFT, 4 * GiB + 4 * MiB },
};
const size_t nb_guard_kinds = ARRAY_SIZE(guard_kinds);

/* --- what the kernel tells --- */

uint64_t proc_self_bytes(const char *file, const char *key)
{
    g_autofree char *path = g_strdup_printf("/proc/self/%s", file);
    g_autofree char *content = NULL;
    uint64_t kib;
    char *line;

    g_assert_true(g_file_get_contents(path, &content, NULL, NULL));
    line = strstr(content, key);
    g_assert_nonnull(line);
    line += strcspn(line, "0123456789");
    g_assert_cmpint(qemu_strtou64(line, (const char **)&line, 10, &kib), ==,
                    0);
    return kib * KiB;
}

uint64_t guard_scene_mappings(const GuardScene *scene)
{
    const uint64_t host = (uintptr_t)scene->host;
    g_autofree char *content = NULL;
    g_auto(GStrv) lines = NULL;
    uint64_t nb = 0;

    g_assert_true(g_file_get_contents("/proc/self/maps", &content, NULL,
                                      NULL));
    lines = g_strsplit(content, "\n", -1);
    for (char **line = lines; *line && **line; line++) {
        const char *rest;
        uint64_t start, end;

        g_assert_cmpint(qemu_strtou64(*line, &rest, 16, &start), ==, 0);
        g_assert_cmpint(qemu_strtou64(rest + 1, &rest, 16, &end), ==, 0);
        nb += start < host + scene->area.size && end > host;
    }
    return nb;
}

uint64_t guard_scene_memory(const GuardScene *scene)
{
    uint64_t size = proc_self_bytes("status", "VmPTE:");
    struct stat st;

    if (scene->fd >= 0) {
        g_assert_cmpint(fstat(scene->fd, &st), ==, 0);
        size += st.st_blocks * 512;
    }
    if (!scene->kind->shared) {
        size += proc_self_bytes("status", scene->kind->page_size > 4 * KiB ?
                                          "HugetlbPages:" : "RssAnon:");
    }
    return size;
}

/* The sanitizer has its own page tables for all that is looked at. */
#ifdef __SANITIZE_ADDRESS__
#define GUARD_MAX_SHADOW (8 * MiB)
#else
#define GUARD_MAX_SHADOW 0
#endif

/* Try it: a page in each of many tables, all given back at once. */
static bool guard_host_frees_tables(void)
{
    const uint64_t table = 2 * MiB, size = 64 * table;
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t before, after;

    g_assert_true(host != MAP_FAILED);
    madvise(host, size, MADV_NOHUGEPAGE);
    for (uint64_t at = 0; at < size; at += table) {
        qatomic_set(host + at, 1);
    }
    before = proc_self_bytes("status", "VmPTE:");
    g_assert_cmpint(madvise(host, size, MADV_DONTNEED), ==, 0);
    after = proc_self_bytes("status", "VmPTE:");
    munmap(host, size);
    return after + size / 1024 <= before;
}

/* A table of 4 KiB maps 512 pages; those of huge pages are few. */
static uint64_t guard_scene_kept_tables(const GuardScene *scene)
{
    return scene->kind->page_size > 4 * KiB || guard_host_frees_tables()
           ? 0 : scene->area.size / 512;
}

void guard_scene_assert_gain(const GuardScene *scene, uint64_t before,
                             uint64_t max)
{
    max += guard_scene_kept_tables(scene);
    g_assert_cmpint(guard_scene_memory(scene), <=,
                    before + max + GUARD_MAX_SHADOW);
}

void guard_scene_add_tests(const char *claim, uint64_t min_page_size,
                           uint64_t max_page_size,
                           void (*test)(const void *kind))
{
    for (size_t i = 0; i < nb_guard_kinds; i++) {
        const GuardKind *kind = &guard_kinds[i];
        g_autofree char *path = g_strdup_printf("/virtio-mem/%s/%s", claim,
                                                kind->name);

        if (kind->page_size >= min_page_size &&
            kind->page_size <= max_page_size) {
            g_test_add_data_func(path, kind, test);
        }
    }
}

uint64_t guard_scale(uint64_t quick, uint64_t slow)
{
    return g_test_slow() ? slow : quick;
}

uint64_t guard_scene_read(const GuardScene *scene, uint64_t offset)
{
    return qatomic_read((uint64_t *)(scene->host + offset));
}

void guard_scene_write(GuardScene *scene, uint64_t offset, uint64_t value)
{
    qatomic_set((uint64_t *)(scene->host + offset), value);
}

/* Out of reach: what is written there is gone when it is taken back. */
static bool guard_scene_is_guarded(GuardScene *scene, uint64_t block)
{
    const uint64_t block_size = scene->area.block_size;
    const uint64_t mark = 0x1badb002;
    bool is_there;

    guard_scene_write(scene, block * block_size, mark);
    virtio_mem_guard_take_back(scene->guard);
    is_there = guard_scene_read(scene, block * block_size) == mark;
    virtio_mem_guard_take_back(scene->guard);
    guard_scene_discard(scene, block * block_size, block_size);
    return !is_there;
}

void guard_scene_assert_guarded(GuardScene *scene, const char *drawing)
{
    const uint64_t nb_blocks = scene->area.size / scene->area.block_size;
    g_autofree char *is = g_strnfill(nb_blocks, '.');

    for (uint64_t i = 0; i < nb_blocks; i++) {
        if (guard_scene_is_guarded(scene, i)) {
            is[i] = '#';
        }
    }
    g_assert_cmpstr(is, ==, drawing);
    g_assert_true(virtio_mem_guard_check(scene->guard));
}

/* --- callbacks --- */

int guard_scene_discard(void *opaque, uint64_t offset, uint64_t size)
{
    GuardScene *scene = opaque;

    if (scene->fd >= 0 &&
        fallocate(scene->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  offset, size)) {
        return -errno;
    }
    if (!scene->kind->shared &&
        madvise(scene->host + offset, size, MADV_DONTNEED)) {
        return -errno;
    }
    return 0;
}

static int guard_scene_map_again(void *opaque, uint64_t offset, uint64_t size)
{
    GuardScene *scene = opaque;
    const int shared = scene->kind->shared ? MAP_SHARED : MAP_PRIVATE;

    if (qatomic_fetch_dec(&scene->map_left) <= 0) {
        return -ENOMEM;
    }
    if (mmap(scene->host + offset, size, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_NORESERVE | shared, scene->fd, offset) ==
        MAP_FAILED) {
        return -errno;
    }
    madvise(scene->host + offset, size, MADV_HUGEPAGE);
    return 0;
}

static void guard_scene_notify(void *opaque)
{
    GuardScene *scene = opaque;

    qatomic_inc(&scene->notified);
}

/* --- huge pages --- */

#define GUARD_POOL_TRIES 5

static uint64_t guard_pool_read(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *content = NULL;
    uint64_t value = 0;

    if (g_file_get_contents(path, &content, NULL, NULL)) {
        qemu_strtou64(g_strchomp(content), NULL, 10, &value);
    }
    return value;
}

uint64_t guard_scene_free_pages(const GuardScene *scene)
{
    struct statfs fs;

    if (!scene->kind->room) {
        return guard_pool_read(scene->pool, "free_hugepages");
    }
    g_assert_cmpint(fstatfs(scene->fd, &fs), ==, 0);
    return fs.f_bfree * fs.f_bsize / scene->kind->page_size;
}

static void guard_host_write(const char *path, uint64_t value)
{
    g_autofree char *content = g_strdup_printf("%" PRIu64, value);
    int fd = open(path, O_WRONLY);
    ssize_t ret;

    /* What came of it is read afterwards. */
    if (fd >= 0) {
        ret = write(fd, content, strlen(content));
        (void)ret;
        close(fd);
    }
}

static void guard_pool_write(const char *dir, uint64_t value)
{
    g_autofree char *path = g_build_filename(dir, "nr_hugepages", NULL);

    guard_host_write(path, value);
}

/* Whoever else changes the pool holds the same lock meanwhile. */
static void guard_pool_lock(GuardScene *scene, const char *dir)
{
    scene->pool_lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (scene->pool_lock >= 0) {
        flock(scene->pool_lock, LOCK_EX);
    }
}

/* A host that ran for long has to move a lot for pages of 1 GiB. */
static bool guard_pool_get(GuardScene *scene, uint64_t nb_pages)
{
    char *dir = g_strdup_printf("/sys/kernel/mm/hugepages/hugepages-%" PRIu64
                                "kB", scene->kind->page_size / KiB);

    guard_pool_lock(scene, dir);
    scene->pool = dir;
    scene->old_pool = guard_pool_read(dir, "nr_hugepages");
    for (int i = 0; i < GUARD_POOL_TRIES; i++) {
        if (guard_pool_read(dir, "free_hugepages") >= nb_pages) {
            return true;
        }
        guard_host_write("/proc/sys/vm/compact_memory", 1);
        guard_pool_write(dir, scene->old_pool + nb_pages);
    }
    return guard_pool_read(dir, "free_hugepages") >= nb_pages;
}

/* --- life --- */

/* A file on a file system of its own, which goes with the file. */
static int guard_open_small(uint64_t room)
{
    g_autofree char *options = g_strdup_printf("size=%" PRIu64, room);
    g_autofree char *dir = g_dir_make_tmp("virtio-mem-XXXXXX", NULL);
    g_autofree char *path = NULL;
    int fd = -1;

    g_assert_nonnull(dir);
    path = g_build_filename(dir, "memory", NULL);
    if (!mount("tmpfs", dir, "tmpfs", 0, options)) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        umount2(dir, MNT_DETACH);
    }
    rmdir(dir);
    return fd;
}

static int guard_scene_open(const GuardKind *kind)
{
    if (!strcmp(kind->name, "anonymous")) {
        return -1;
    }
    return kind->room ? guard_open_small(kind->room)
                      : memfd_create(kind->name, kind->memfd_flags);
}

static void guard_scene_map(GuardScene *scene, uint64_t size)
{
    const GuardKind *kind = scene->kind;
    int flags = (kind->shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE;
    uint8_t *host;

    if (strcmp(kind->name, "anonymous")) {
        g_assert_cmpint(scene->fd, >=, 0);
        g_assert_cmpint(ftruncate(scene->fd, size), ==, 0);
    } else {
        flags |= MAP_ANONYMOUS;
    }
    /* As QEMU does it for memory without a file: aligned for huge pages. */
    if (kind->page_size == 4 * KiB) {
        host = mmap(NULL, size + 2 * kind->block_size, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        g_assert_true(host != MAP_FAILED);
        flags |= MAP_FIXED;
        host = (uint8_t *)ROUND_UP((uintptr_t)host, kind->block_size) +
               kind->skew;
    } else {
        host = NULL;
    }
    scene->host = mmap(host, size, PROT_READ | PROT_WRITE, flags, scene->fd,
                       0);
    g_assert_true(scene->host != MAP_FAILED);
    madvise(scene->host, size, MADV_HUGEPAGE);
}

GuardScene *guard_scene_new_unguarded(const GuardKind *kind, uint64_t size)
{
    GuardScene *scene = g_new0(GuardScene, 1);
    const unsigned int nb_pages = kind->page_size > 2 * MiB ? 3 : 24;

    /* For the guard, which comes and goes with the BQL held. */
    rust_bql_mock_lock();
    scene->kind = kind;
    scene->pool_lock = -1;
    scene->map_left = INT_MAX;
    if (kind->memfd_flags && !guard_pool_get(scene, nb_pages)) {
        g_autofree char *reason = g_strdup_printf(
            "no %u huge pages of that size to give", nb_pages);

        g_test_skip(reason);
        scene->fd = -1;
        guard_scene_free(scene);
        return NULL;
    }
    scene->fd = guard_scene_open(kind);
    if (scene->fd < 0 && kind->room) {
        g_test_skip("only root can mount a file system that is small");
        guard_scene_free(scene);
        return NULL;
    }
    guard_scene_map(scene, size);
    scene->area = (VirtIOMEMGuardArea) {
        .host = scene->host,
        .size = size,
        .page_size = kind->page_size,
        .block_size = kind->block_size,
        .shared = kind->shared,
        .discard = guard_scene_discard,
        .map = kind->memfd_flags || kind->shared ? guard_scene_map_again : NULL,
        .notify = guard_scene_notify,
        .opaque = scene,
    };
    return scene;
}

/* Only a host that lacks userfaultfd is a reason to skip. */
bool guard_scene_start(GuardScene *scene, bool paused)
{
    Error *err = NULL;

    scene->guard = virtio_mem_guard_new(&scene->area, paused, &err);
    if (!scene->guard && !access("/dev/userfaultfd", R_OK | W_OK)) {
        error_report_err(err);
        g_assert_not_reached();
    }
    if (!scene->guard) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        return false;
    }
    return true;
}

GuardScene *guard_scene_new(const GuardKind *kind, uint64_t size)
{
    GuardScene *scene = guard_scene_new_unguarded(kind, size);

    if (scene && !guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return NULL;
    }
    return scene;
}

void guard_scene_free(GuardScene *scene)
{
    virtio_mem_guard_free(scene->guard);
    if (scene->host) {
        munmap(scene->host, scene->area.size);
    }
    if (scene->fd >= 0) {
        close(scene->fd);
    }
    if (scene->pool) {
        guard_pool_write(scene->pool, scene->old_pool);
    }
    if (scene->pool_lock >= 0) {
        close(scene->pool_lock);
    }
    g_free(scene->pool);
    g_free(scene);
}

int guard_scene_try_plug(GuardScene *scene, uint64_t first, uint64_t nb_blocks)
{
    return virtio_mem_guard_release(scene->guard,
                                    first * scene->area.block_size,
                                    nb_blocks * scene->area.block_size);
}

int guard_scene_try_unplug(GuardScene *scene, uint64_t first,
                           uint64_t nb_blocks)
{
    const uint64_t offset = first * scene->area.block_size;
    const uint64_t size = nb_blocks * scene->area.block_size;
    const int ret = virtio_mem_guard_protect(scene->guard, offset, size);

    if (!ret) {
        g_assert_cmpint(guard_scene_discard(scene, offset, size), ==, 0);
    }
    return ret;
}

void guard_scene_plug(GuardScene *scene, uint64_t first, uint64_t nb_blocks)
{
    g_assert_cmpint(guard_scene_try_plug(scene, first, nb_blocks), ==, 0);
}

void guard_scene_unplug(GuardScene *scene, uint64_t first, uint64_t nb_blocks)
{
    g_assert_cmpint(guard_scene_try_unplug(scene, first, nb_blocks), ==, 0);
}

uint64_t guard_scene_count(GuardScene *scene)
{
    virtio_mem_guard_fetch(scene->guard, &scene->access);
    return scene->access.count;
}
