/*
 * Unit tests of virtio-mem's guard on a host that refuses.
 *
 * Each call to the host fails once.  After that, what is out of reach is what
 * the caller was told, no thread waits, nothing leaks, and the guard goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "virtio-mem-faulty-host.h"
#include "virtio-mem-guard-scene.h"
#include "../../hw/virtio/virtio-mem-guard-faults.h"

#define BLOCK (2 * MiB)
#define NB_BLOCKS 16
#define MARK 0x1badb002ULL

static const GuardKind *kind_named(const char *name)
{
    for (size_t i = 0; i < nb_guard_kinds; i++) {
        if (!strcmp(guard_kinds[i].name, name)) {
            return &guard_kinds[i];
        }
    }
    g_assert_not_reached();
}

static GuardScene *scene_new(const char *name)
{
    return guard_scene_new(kind_named(name), NB_BLOCKS * BLOCK);
}

static void scene_free(GuardScene *scene)
{
    faulty_host_recover();
    guard_scene_free(scene);
}

#define ALL_GUARDED  "################"
#define NONE_GUARDED "................"

static void draw(GuardScene *scene, const char *drawing)
{
    for (int i = 0; i < NB_BLOCKS; i++) {
        if (drawing[i] == '.') {
            guard_scene_plug(scene, i, 1);
        }
    }
    guard_scene_assert_guarded(scene, drawing);
}

static void assert_active(GuardScene *scene, bool active)
{
    g_assert_cmpint(virtio_mem_guard_is_active(scene->guard), ==, active);
    g_assert_true(virtio_mem_guard_check(scene->guard));
}

/* The guard gave up: it said so, and is as good as new after that. */
static void assert_lost_and_found(GuardScene *scene, const char *drawing)
{
    assert_active(scene, false);
    g_assert_cmpint(qatomic_read(&scene->notified), >, 0);
    guard_scene_assert_guarded(scene, NONE_GUARDED);
    faulty_host_recover();
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    assert_active(scene, true);
    guard_scene_assert_guarded(scene, drawing);
}

/* --- the checker, which all of these tests trust --- */

static void test_check(void)
{
    GuardScene *scene = scene_new("memfd");
    VirtIOMEMGuardMap *map;
    VirtIOMEMGuardRing *ring;
    VirtIOMEMGuardSlot *slots;

    if (!scene) {
        return;
    }
    map = &scene->guard->map;
    ring = &virtio_mem_guard_shared.desks[0].ring;
    slots = ring->slots;

    virtio_mem_guard_take_back(scene->guard);
    map->nb_borders++;
    g_assert_false(virtio_mem_guard_check(scene->guard));
    map->nb_borders--;
    g_assert_true(virtio_mem_guard_check(scene->guard));

    /* A page that is not counted, within reach, or twice; or too many. */
    slots[0].nb_pages = 1;
    slots[0].pages[0] = (VirtIOMEMGuardPage) { map, 0 };
    g_assert_false(virtio_mem_guard_check(scene->guard));
    ring->nb_lent = 1;
    ring->peak_lent = MAX(ring->peak_lent, 2);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    clear_bit(0, map->guarded);
    map->nb_borders++;
    g_assert_false(virtio_mem_guard_check(scene->guard));
    set_bit(0, map->guarded);
    map->nb_borders--;
    slots[1] = slots[0];
    ring->nb_lent = 2;
    g_assert_false(virtio_mem_guard_check(scene->guard));
    slots[1].nb_pages = 0;
    ring->nb_lent = VIRTIO_MEM_GUARD_SLOT_PAGES + 1;
    ring->peak_lent = ring->nb_lent;
    slots[0].nb_pages = VIRTIO_MEM_GUARD_SLOT_PAGES + 1;
    g_assert_false(virtio_mem_guard_check(scene->guard));
    slots[0].nb_pages = 0;
    ring->nb_lent = 0;
    g_assert_true(virtio_mem_guard_check(scene->guard));
    scene_free(scene);
}

/* Where the kernel merges no mappings, the map remembers where it cut them. */
static void test_check_cut(void)
{
    GuardScene *scene = scene_new("hugetlb-2m");
    VirtIOMEMGuardMap *map;

    if (!scene) {
        return;
    }
    guard_scene_plug(scene, 3, 2);
    map = &scene->guard->map;
    for (uint64_t at = 0; at < 2 * NB_BLOCKS; at++) {
        unsigned long *bits = at < NB_BLOCKS ? map->cut : map->substituted;
        const uint64_t bit = at % NB_BLOCKS;

        /* Of what is guarded, any block may be substituted. */
        if (bits == map->substituted && test_bit(bit, map->guarded)) {
            continue;
        }
        change_bit(bit, bits);
        g_assert_false(virtio_mem_guard_check(scene->guard));
        change_bit(bit, bits);
        g_assert_true(virtio_mem_guard_check(scene->guard));
    }
    /* Where there is a border, and as many others as it should be. */
    clear_bit(3, map->cut);
    set_bit(8, map->cut);
    g_assert_false(virtio_mem_guard_check(scene->guard));
    set_bit(3, map->cut);
    clear_bit(8, map->cut);
    scene_free(scene);
}

/* --- a guard that cannot be --- */

static unsigned count_files(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned nb = 0;

    while (g_dir_read_name(dir)) {
        nb++;
    }
    g_dir_close(dir);
    return nb;
}

static void assert_refused(GuardScene *scene, FaultyCall call, int skip,
                           int error, const char *message)
{
    const unsigned nb_files = count_files();
    Error *err = NULL;

    faulty_host_refuse(call, skip, 1, error);
    g_assert_null(virtio_mem_guard_new(&scene->area, false, &err));
    g_assert_cmpint(faulty_host_count(call), ==, 1);
    g_assert_nonnull(strstr(error_get_pretty(err), message));
    error_free(err);
    g_assert_cmpint(count_files(), ==, nb_files);
    faulty_host_recover();
}

static void test_new(void)
{
    GuardScene *scene = scene_new("anonymous");

    if (!scene) {
        return;
    }
    g_clear_pointer(&scene->guard, virtio_mem_guard_free);
    assert_refused(scene, FAULTY_UFFD_API, 1, EPERM, "may not use userfaultfd");
    assert_refused(scene, FAULTY_UFFD_API, 1, EPERM, "seccomp filter");
    assert_refused(scene, FAULTY_UFFD_API, 1, EPERM, "restart QEMU");
    assert_refused(scene, FAULTY_UFFD_API, 1, ENOSYS, "has no userfaultfd");
    assert_refused(scene, FAULTY_UFFD_API, 1, EINVAL, "has no userfaultfd");
    assert_refused(scene, FAULTY_UFFD_API, 1, EMFILE, "cannot open a userf");
    assert_refused(scene, FAULTY_EVENTFD, 0, EMFILE, "no file descriptor");
    assert_refused(scene, FAULTY_THREAD, 0, EAGAIN, "cannot create a thread");
    assert_refused(scene, FAULTY_REGISTER, 0, EINVAL, "cannot watch");
    guard_scene_start(scene, false);
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    scene_free(scene);
}

/* Where the kernel cannot tell which thread it was, pages have their turns. */
static void test_no_features(void)
{
    GuardScene *scene = guard_scene_new_unguarded(kind_named("anonymous"),
                                                  NB_BLOCKS * BLOCK);

    faulty_host_refuse(FAULTY_UFFD_API, 0, 1, EINVAL);
    if (guard_scene_start(scene, false)) {
        g_assert_cmpint(faulty_host_count(FAULTY_UFFD_API), ==, 1);
        guard_scene_assert_guarded(scene, ALL_GUARDED);
        g_assert_cmpint(guard_scene_count(scene), >=, NB_BLOCKS);
    }
    scene_free(scene);
}

/*
 * Before Linux 5.14, memory is written to instead; and where it cannot be
 * populated, mappings are never merged again.
 */
static void test_populate(const void *opaque)
{
    const int error = GPOINTER_TO_INT(opaque);
    GuardScene *scene = guard_scene_new_unguarded(kind_named("anonymous"),
                                                  NB_BLOCKS * BLOCK);

    faulty_host_refuse(FAULTY_POPULATE, 0, 1, error);
    if (guard_scene_start(scene, false)) {
        g_assert_cmpint(faulty_host_count(FAULTY_POPULATE), ==, 1);
        draw(scene, "###..####.######");
        guard_scene_unplug(scene, 0, NB_BLOCKS);
        guard_scene_assert_guarded(scene, ALL_GUARDED);
    }
    scene_free(scene);
}

/* --- changes --- */

/* Not all of the runs in between were registered when the host ran out. */
static void test_protect(void)
{
    const char *drawing = "#...##.......#..";
    GuardScene *scene = scene_new("memfd");

    if (!scene) {
        return;
    }
    draw(scene, drawing);
    faulty_host_refuse(FAULTY_REGISTER, 0, 1, ENOMEM);
    g_assert_cmpint(guard_scene_try_unplug(scene, 0, NB_BLOCKS), ==, -ENOMEM);
    assert_active(scene, true);
    guard_scene_assert_guarded(scene, drawing);

    faulty_host_refuse(FAULTY_REGISTER, 0, 1, EBUSY);
    g_assert_cmpint(guard_scene_try_unplug(scene, 0, NB_BLOCKS), ==, -EBUSY);
    guard_scene_assert_guarded(scene, drawing);

    /* What is registered too much does not go, either. */
    faulty_host_refuse(FAULTY_REGISTER, 0, 1, ENOMEM);
    faulty_host_refuse(FAULTY_UNREGISTER, 1, 1, ENOMEM);
    g_assert_cmpint(guard_scene_try_unplug(scene, 0, NB_BLOCKS), ==, -ENOMEM);
    assert_lost_and_found(scene, drawing);
    scene_free(scene);
}

static void test_release(void)
{
    const char *drawing = "####.####.######";
    GuardScene *scene = scene_new("memfd");

    if (!scene) {
        return;
    }
    draw(scene, drawing);
    for (int i = 0; i < 3; i++) {
        faulty_host_refuse(FAULTY_UNREGISTER, i, 1, ENOMEM);
        g_assert_cmpint(guard_scene_try_plug(scene, 0, NB_BLOCKS), ==,
                        -ENOMEM);
        assert_active(scene, true);
        guard_scene_assert_guarded(scene, drawing);
    }
    /* What was given up cannot be watched again. */
    faulty_host_refuse(FAULTY_UNREGISTER, 1, 1, ENOMEM);
    faulty_host_refuse(FAULTY_REGISTER, 1, 1, ENOMEM);
    g_assert_cmpint(guard_scene_try_plug(scene, 0, NB_BLOCKS), ==, -ENOMEM);
    assert_lost_and_found(scene, drawing);
    scene_free(scene);
}

/* What the kernel does not let go, it goes on to watch: until an access. */
static void test_pause(void)
{
    GuardScene *scene = scene_new("anonymous");

    if (!scene) {
        return;
    }
    faulty_host_refuse(FAULTY_UNREGISTER, 0, 1, ENOMEM);
    virtio_mem_guard_pause(scene->guard);
    g_assert_cmpint(faulty_host_count(FAULTY_UNREGISTER), ==, 1);
    guard_scene_assert_guarded(scene, NONE_GUARDED);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    scene_free(scene);
}

static void test_resume(void)
{
    const char *drawing = "####.####.######";
    GuardScene *scene = scene_new("memfd");

    if (!scene) {
        return;
    }
    draw(scene, drawing);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
        faulty_host_refuse(FAULTY_REGISTER, i, 1, ENOMEM);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, -ENOMEM);
        guard_scene_assert_guarded(scene, NONE_GUARDED);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
        /* It may be asked to do what it does. */
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
        guard_scene_assert_guarded(scene, drawing);
    }
    scene_free(scene);
}

/* The guard's thread comes with the first guard that is not paused. */
static void test_resume_without_thread(void)
{
    GuardScene *scene = guard_scene_new_unguarded(kind_named("memfd"),
                                                  NB_BLOCKS * BLOCK);

    if (guard_scene_start(scene, true)) {
        faulty_host_refuse(FAULTY_THREAD, 0, 1, EAGAIN);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, -EAGAIN);
        assert_active(scene, false);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
        guard_scene_assert_guarded(scene, ALL_GUARDED);
    }
    scene_free(scene);
}

/* What has to be, is; if not protected, then recorded. */
static void test_force(void)
{
    GuardScene *scene = scene_new("memfd");

    if (!scene) {
        return;
    }
    faulty_host_refuse(FAULTY_UNREGISTER, 0, 1, ENOMEM);
    virtio_mem_guard_force(scene->guard, BLOCK, 2 * BLOCK, false);
    assert_lost_and_found(scene, "#..#############");
    faulty_host_refuse(FAULTY_REGISTER, 0, 1, EBUSY);
    virtio_mem_guard_force(scene->guard, BLOCK, BLOCK, true);
    assert_lost_and_found(scene, "##.#############");
    scene_free(scene);
}

/* --- faults --- */

static void test_lend_again(void)
{
    static const int errors[] = { EAGAIN, EINTR, ENOMEM };
    GuardScene *scene = scene_new("anonymous");

    if (!scene) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        faulty_host_refuse(FAULTY_ZEROPAGE, 0, 3, errors[i]);
        guard_scene_assert_guarded(scene, ALL_GUARDED);
        g_assert_cmpint(faulty_host_count(FAULTY_ZEROPAGE), ==, 3);
    }
    scene_free(scene);
}

#define NB_READERS 32
#define NB_READS 40

static void *reader_thread(void *opaque)
{
    GuardScene *scene = opaque;

    for (int i = 0; i < NB_READS; i++) {
        const uint64_t page = g_random_int_range(0, scene->area.size / 4096);

        g_assert_cmphex(guard_scene_read(scene, page * 4096), ==, 0);
    }
    return NULL;
}

static void readers_run(GuardScene *scene)
{
    GThread *readers[NB_READERS];

    for (int i = 0; i < NB_READERS; i++) {
        readers[i] = g_thread_new("reader", reader_thread, scene);
    }
    for (int i = 0; i < NB_READERS; i++) {
        g_thread_join(readers[i]);
    }
}

/* More threads than slots: those that wait for a turn may find no page. */
static void test_readers(void)
{
    GuardScene *scene = scene_new("anonymous");

    if (!scene) {
        return;
    }
    faulty_host_refuse_some(FAULTY_ZEROPAGE, 2, ENOMEM);
    readers_run(scene);
    g_assert_cmpint(faulty_host_count(FAULTY_ZEROPAGE), >, NB_READERS);
    faulty_host_refuse(FAULTY_ZEROPAGE, NB_READERS, 1000, ENOMEM);
    readers_run(scene);
    g_assert_cmpint(faulty_host_count(FAULTY_ZEROPAGE), >, NB_READERS);
    faulty_host_recover();
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    scene_free(scene);
}

static int discard_refuses(void *opaque, uint64_t offset, uint64_t size)
{
    return -EIO;
}

/* Others are lent pages all the same, and the caller hears of it later. */
static void test_discard(void)
{
    GuardScene *scene = guard_scene_new_unguarded(kind_named("memfd"),
                                                  NB_BLOCKS * BLOCK);

    scene->area.discard = discard_refuses;
    if (guard_scene_start(scene, false)) {
        for (uint64_t at = 0; at < scene->area.size; at += 64 * KiB) {
            g_assert_cmphex(guard_scene_read(scene, at), ==, 0);
        }
        virtio_mem_guard_take_back(scene->guard);
        assert_active(scene, true);
    }
    scene_free(scene);
}

static void test_poll(void)
{
    GuardScene *scene = scene_new("anonymous");
    int64_t begin;

    if (!scene) {
        return;
    }
    faulty_host_refuse(FAULTY_POLL, 0, 2, EINTR);
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    g_assert_cmpint(faulty_host_count(FAULTY_POLL), ==, 2);
    /* Without memory, the guard's thread lets the host have its processor. */
    begin = g_get_monotonic_time();
    faulty_host_refuse(FAULTY_POLL, 0, 5, ENOMEM);
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    g_assert_cmpint(faulty_host_count(FAULTY_POLL), ==, 5);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, 4 * 10000);
    scene_free(scene);
}

static void *touch_thread(void *opaque)
{
    guard_scene_read(opaque, 0);
    return NULL;
}

/* A thread that waits for the guard gets on when that goes. */
static void test_hang_up(void)
{
    GuardScene *scene = scene_new("anonymous");
    GThread *thread;

    if (!scene) {
        return;
    }
    faulty_host_refuse(FAULTY_POLL, 0, 1, 0);
    thread = g_thread_new("touch", touch_thread, scene);
    while (!faulty_host_count(FAULTY_POLL)) {
        g_thread_yield();
    }
    g_clear_pointer(&scene->guard, virtio_mem_guard_free);
    g_thread_join(thread);
    scene_free(scene);
}

static void test_budget(void)
{
    VirtIOMEMGuardMappings known, unknown;
    GuardScene *scene;

    faulty_host_refuse(FAULTY_OPEN_MAPS, 0, 1, EMFILE);
    scene = scene_new("memfd");
    if (!scene) {
        faulty_host_recover();
        return;
    }
    g_assert_cmpint(faulty_host_count(FAULTY_OPEN_MAPS), ==, 1);
    virtio_mem_guard_query_mappings(&known);
    faulty_host_refuse(FAULTY_OPEN_MAX_MAP_COUNT, 0, 1, EMFILE);
    virtio_mem_guard_query_mappings(&unknown);
    /* Linux's default; no other mapping of this process is known. */
    g_assert_cmpuint(unknown.max, ==, 65530 / 2);
    g_assert_cmpuint(known.max, >, 0);
    scene_free(scene);
}

/* --- huge pages --- */

static void *write_thread(void *opaque)
{
    guard_scene_write(opaque, 3 * BLOCK, MARK);
    return NULL;
}

/*
 * The host has no huge page to lend, and refuses ordinary memory, too: the
 * thread waits until the host has one or the other.
 */
static void test_substitute(const void *opaque)
{
    const FaultyCall call = GPOINTER_TO_INT(opaque);
    GuardScene *scene = scene_new("hugetlb-2m");
    GThread *thread;

    if (!scene) {
        return;
    }
    faulty_host_refuse(FAULTY_COPY, 0, FAULTY_FOR_EVER, ENOMEM);
    /* What is mapped back has to be watched again: that works. */
    faulty_host_refuse(call, 0, call == FAULTY_REGISTER ? 1 : 3, EBUSY);
    thread = g_thread_new("write", write_thread, scene);
    g_thread_join(thread);
    g_assert_cmpint(faulty_host_count(call), >, 0);
    faulty_host_recover();
    assert_active(scene, true);
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    scene_free(scene);
}

/* Threads that wait for their turn at huge pages get ordinary memory. */
static void test_substitute_for_all(void)
{
    GuardScene *scene = scene_new("hugetlb-2m");

    if (!scene) {
        return;
    }
    /* Two runs, so that some wait for more than others get. */
    guard_scene_plug(scene, NB_BLOCKS / 2, 1);
    for (int i = 0; i < 10; i++) {
        faulty_host_refuse(FAULTY_COPY, 6, FAULTY_FOR_EVER, ENOMEM);
        readers_run(scene);
        g_assert_cmpint(faulty_host_count(FAULTY_COPY), >, 0);
        g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    }
    scene_free(scene);
}

/* There, it cannot even be undone: memory is not protected any more. */
static void test_substitute_is_stuck(void)
{
    GuardScene *scene = scene_new("hugetlb-2m");
    GThread *thread;

    if (!scene) {
        return;
    }
    qatomic_set(&scene->map_left, 0);
    faulty_host_refuse(FAULTY_COPY, 0, FAULTY_FOR_EVER, ENOMEM);
    faulty_host_refuse(FAULTY_REGISTER, 0, FAULTY_FOR_EVER, ENOMEM);
    thread = g_thread_new("write", write_thread, scene);
    g_thread_join(thread);
    g_assert_false(virtio_mem_guard_is_active(scene->guard));
    /* The guard says so after it has let the other thread go on. */
    while (qatomic_read(&scene->notified) < 2) {
        g_usleep(100);
    }
    g_assert_true(virtio_mem_guard_check(scene->guard));

    faulty_host_recover();
    qatomic_set(&scene->map_left, INT_MAX);
    g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    guard_scene_assert_guarded(scene, ALL_GUARDED);
    scene_free(scene);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/virtio-mem/guard/faults/check", test_check);
    g_test_add_func("/virtio-mem/guard/faults/check/cut", test_check_cut);
    g_test_add_func("/virtio-mem/guard/faults/new", test_new);
    g_test_add_func("/virtio-mem/guard/faults/no-features", test_no_features);
    g_test_add_data_func("/virtio-mem/guard/faults/populate/unknown",
                         GINT_TO_POINTER(EINVAL), test_populate);
    g_test_add_data_func("/virtio-mem/guard/faults/populate/no-memory",
                         GINT_TO_POINTER(ENOMEM), test_populate);
    g_test_add_func("/virtio-mem/guard/faults/protect", test_protect);
    g_test_add_func("/virtio-mem/guard/faults/release", test_release);
    g_test_add_func("/virtio-mem/guard/faults/pause", test_pause);
    g_test_add_func("/virtio-mem/guard/faults/resume", test_resume);
    g_test_add_func("/virtio-mem/guard/faults/resume-without-thread",
                    test_resume_without_thread);
    g_test_add_func("/virtio-mem/guard/faults/force", test_force);
    g_test_add_func("/virtio-mem/guard/faults/lend-again", test_lend_again);
    g_test_add_func("/virtio-mem/guard/faults/readers", test_readers);
    g_test_add_func("/virtio-mem/guard/faults/discard", test_discard);
    g_test_add_func("/virtio-mem/guard/faults/poll", test_poll);
    g_test_add_func("/virtio-mem/guard/faults/hang-up", test_hang_up);
    g_test_add_func("/virtio-mem/guard/faults/budget", test_budget);
    g_test_add_data_func("/virtio-mem/guard/faults/substitute/map",
                         GINT_TO_POINTER(FAULTY_MMAP_FIXED), test_substitute);
    g_test_add_data_func("/virtio-mem/guard/faults/substitute/watch",
                         GINT_TO_POINTER(FAULTY_REGISTER), test_substitute);
    g_test_add_data_func("/virtio-mem/guard/faults/substitute/zeros",
                         GINT_TO_POINTER(FAULTY_MMAP_ZEROS), test_substitute);
    g_test_add_func("/virtio-mem/guard/faults/substitute/for-all",
                    test_substitute_for_all);
    g_test_add_func("/virtio-mem/guard/faults/substitute/stuck",
                    test_substitute_is_stuck);

    return g_test_run();
}
