/*
 * How many mappings virtio-mem's guard needs, as the kernel counts them.
 *
 * With "-m slow", as many as a process may have by default.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-scene.h"
#include "../../hw/virtio/virtio-mem-guard-map.h"
#include <sys/mman.h>

#define BLOCK (2 * MiB)

static void touch(GuardScene *scene, uint64_t block)
{
    qatomic_set(scene->host + block * scene->area.block_size, 1);
}

static void assert_watched(GuardScene *scene, uint64_t block, bool guarded)
{
    const uint64_t count = guard_scene_count(scene);

    touch(scene, block);
    g_assert_cmpint(guard_scene_count(scene) - count, ==, guarded);
}

static uint64_t nb_mappings(void)
{
    VirtIOMEMGuardMappings mappings;

    virtio_mem_guard_query_mappings(&mappings);
    return mappings.nb;
}

/* What the guard believes is what the kernel has. */
static void assert_exact(GuardScene *scene, uint64_t before)
{
    g_assert_cmpint(guard_scene_mappings(scene), ==, before + nb_mappings());
}

static GuardScene *start(const GuardKind *kind, uint64_t size, uint64_t max)
{
    GuardScene *scene = guard_scene_new_unguarded(kind, size);

    if (!scene) {
        return NULL;
    }
    scene->area.max_mappings = max;
    if (!guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return NULL;
    }
    return scene;
}

/* --- the budget --- */

/* Every second block, until the guest has to wait; then that all ends well. */
static void check_every_second_block(const GuardKind *kind, uint64_t max)
{
    const uint64_t size = guard_scale(8, 256) * GiB;
    GuardScene *scene = start(kind, size, max);
    const uint64_t nb_blocks = size / BLOCK;
    uint64_t before, i, nb_plugged = 0, peak = 0;

    if (!scene) {
        return;
    }
    before = guard_scene_mappings(scene);
    for (i = 1; i < nb_blocks; i += 2) {
        const int ret = guard_scene_try_plug(scene, i, 1);

        if (ret) {
            g_assert_cmpint(ret, ==, -ENOSPC);
            g_assert_cmpint(nb_mappings() + 2, >, max);
            break;
        }
        nb_plugged++;
        touch(scene, i);
        if (i % 512 == 1) {
            peak = MAX(peak, guard_scene_mappings(scene));
        }
    }
    g_assert_cmpint(nb_plugged, ==, MIN(max / 2, nb_blocks / 2));
    peak = MAX(peak, guard_scene_mappings(scene));
    g_assert_cmpint(peak, <=, before + max);
    assert_exact(scene, before);

    /* Protection is whole, and plugged memory is ordinary. */
    for (i = 1; i < 2 * nb_plugged; i += 2 * (nb_plugged / 100 + 1)) {
        assert_watched(scene, i, false);
        assert_watched(scene, i + 1, true);
    }
    /* What needs no more mappings goes on: at the end of a run, or less. */
    g_assert_cmpint(guard_scene_try_plug(scene, 2, 1), ==, 0);
    g_assert_cmpint(guard_scene_try_unplug(scene, 1, 1), ==, 0);
    guard_scene_unplug(scene, 0, nb_blocks);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    g_assert_cmpint(nb_mappings(), ==, 0);
    g_assert_cmpint(guard_scene_mappings(scene), <=, before);
    guard_scene_free(scene);
}

static void test_every_second_block(const void *opaque)
{
    check_every_second_block(opaque, guard_scale(600, 30000));
}

/* R2, R3: what was in use in pieces becomes one mapping again. */
static void test_window(const void *opaque)
{
    const uint64_t window = guard_scale(200, 4000);
    const uint64_t nb_rounds = guard_scale(10, 17);
    GuardScene *scene = start(opaque, (nb_rounds + 1) * 2 * window * BLOCK, 0);
    uint64_t before, base, i;

    if (!scene) {
        return;
    }
    before = guard_scene_mappings(scene);
    for (base = 0; base < nb_rounds * 2 * window; base += 2 * window) {
        for (i = base; i < base + 2 * window; i += 2) {
            guard_scene_plug(scene, i, 1);
            touch(scene, i);
        }
        g_assert_cmpint(guard_scene_mappings(scene), <=,
                        before + 2 * (window + nb_rounds));
        for (i = base; i < base + 2 * window - 2; i += 2) {
            guard_scene_unplug(scene, i, 1);
        }
        assert_exact(scene, before);
    }
    guard_scene_unplug(scene, 0, scene->area.size / BLOCK);
    g_assert_cmpint(guard_scene_mappings(scene), <=, before);
    guard_scene_free(scene);
}

/* Huge pages: a border stays, and counts; one that is there is free. */
static void test_huge_borders_stay(void)
{
    GuardScene *scene = start(&guard_kinds[4], 64 * BLOCK, 8);
    uint64_t before, i;

    if (!scene) {
        return;
    }
    before = guard_scene_mappings(scene);
    for (i = 1; i <= 7; i += 2) {
        guard_scene_plug(scene, i, 1);
    }
    assert_exact(scene, before);
    g_assert_cmpint(nb_mappings(), ==, 8);
    g_assert_cmpint(guard_scene_try_plug(scene, 9, 1), ==, -ENOSPC);
    guard_scene_unplug(scene, 0, 64);
    g_assert_cmpint(nb_mappings(), ==, 8);
    assert_exact(scene, before);
    g_assert_cmpint(guard_scene_try_plug(scene, 9, 1), ==, -ENOSPC);
    for (i = 1; i <= 7; i++) {
        guard_scene_plug(scene, i, 1);
        g_assert_true(virtio_mem_guard_check(scene->guard));
    }
    guard_scene_unplug(scene, 0, 64);
    guard_scene_free(scene);
}

/* Half of what the host leaves is for all guards, also for later ones. */
static void test_guards_share(void)
{
    GuardScene *scenes[6];
    VirtIOMEMGuardMappings mappings;
    uint64_t nb_refused = 0, nb_pieces = 0, i, block;

    scenes[0] = guard_scene_new(&guard_kinds[0], 64 * GiB);
    if (!scenes[0]) {
        return;
    }
    for (i = 0; i < ARRAY_SIZE(scenes); i++) {
        if (i) {
            scenes[i] = guard_scene_new(&guard_kinds[0], 64 * GiB);
        }
        for (block = 1; block < 64 * GiB / BLOCK; block += 2) {
            const int ret = guard_scene_try_plug(scenes[i], block, 1);

            g_assert_true(!ret || ret == -ENOSPC);
            nb_refused += ret != 0;
        }
    }
    virtio_mem_guard_query_mappings(&mappings);
    g_assert_cmpint(nb_refused, >, 0);
    g_assert_true(mappings.is_short);
    g_assert_cmpint(mappings.nb, <=, mappings.max + 8);
    g_assert_cmpint(mappings.max, >, 10000);
    for (i = 0; i < ARRAY_SIZE(scenes); i++) {
        assert_watched(scenes[i], 0, true);
        nb_pieces += guard_scene_mappings(scenes[i]);
        guard_scene_free(scenes[i]);
    }
    g_assert_cmpint(nb_pieces, ==, ARRAY_SIZE(scenes) + mappings.nb);
}

/* Whoever loaded more than the budget has it, as long as the host does. */
static void test_resume_beyond_budget(void)
{
    GuardScene *scene = start(&guard_kinds[0], 4 * GiB, 16);
    uint64_t i;

    if (!scene) {
        return;
    }
    virtio_mem_guard_pause(scene->guard);
    for (i = 1; i < 1000; i += 2) {
        guard_scene_plug(scene, i, 1);
    }
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    g_assert_cmpint(nb_mappings(), ==, 1000);
    g_assert_cmpint(guard_scene_try_plug(scene, 1002, 1), ==, -ENOSPC);
    for (i = 0; i < 100; i++) {
        assert_watched(scene, i, !(i % 2));
    }
    guard_scene_unplug(scene, 0, 2048);
    guard_scene_plug(scene, 1002, 1);
    guard_scene_free(scene);
}

/* --- refused, random --- */

/* Somebody else watches a block that is to be unplugged, so that fails. */
static void test_refused(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    uint64_t i;
    int fd;

    if (!scene) {
        return;
    }
    guard_scene_plug(scene, 1, 6);
    fd = uffd_create_fd(0, true);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(uffd_register_memory(fd, scene->host + 4 * BLOCK, BLOCK,
                                         UFFDIO_REGISTER_MODE_MISSING, NULL),
                    ==, 0);
    g_assert_cmpint(virtio_mem_guard_protect(scene->guard, 3 * BLOCK,
                                             3 * BLOCK), ==, -EBUSY);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    uffd_close_fd(fd);
    for (i = 0; i < 64 * MiB / BLOCK; i++) {
        assert_watched(scene, i, i < 1 || i > 6);
    }
    guard_scene_free(scene);
}

static void test_random_ranges(const void *opaque)
{
    const uint64_t nb_blocks = 4096;
    const uint64_t max = 256;
    GuardScene *scene = start(opaque, nb_blocks * BLOCK, max);
    g_autofree unsigned long *plugged = bitmap_new(nb_blocks);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    uint64_t before, i, nb_refused = 0;

    if (!scene) {
        return;
    }
    before = guard_scene_mappings(scene);
    for (i = 0; i < guard_scale(3000, 100000); i++) {
        const uint64_t first = g_rand_int(rand) % nb_blocks;
        const uint64_t nb = g_rand_int(rand) % 8 + 1;
        const uint64_t end = MIN(first + nb, nb_blocks);
        const bool plug = g_rand_boolean(rand);
        const int ret = plug ? guard_scene_try_plug(scene, first, end - first)
                             : guard_scene_try_unplug(scene, first,
                                                      end - first);

        g_assert_true(virtio_mem_guard_check(scene->guard));
        if (ret) {
            g_assert_cmpint(ret, ==, -ENOSPC);
            g_assert_cmpint(nb_mappings() + 2, >, max);
            nb_refused++;
        } else if (plug) {
            bitmap_set(plugged, first, end - first);
        } else {
            bitmap_clear(plugged, first, end - first);
        }
        if (scene->kind->page_size == 4 * KiB) {
            virtio_mem_guard_take_back(scene->guard);
            assert_watched(scene, first, !test_bit(first, plugged));
        }
        if (i % 64 == 0) {
            assert_exact(scene, before);
        }
    }
    g_assert_cmpint(nb_refused, >, 0);
    guard_scene_free(scene);
}

/* The check that the random tests rely on does notice. */
static void test_check_notices(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    VirtIOMEMGuardMap map;
    int fd;

    if (!scene) {
        return;
    }
    virtio_mem_guard_pause(scene->guard);
    fd = uffd_create_fd(0, true);
    virtio_mem_guard_map_init(&map, fd, &scene->area);
    g_assert_cmpint(virtio_mem_guard_map_resume(&map), ==, 0);
    g_assert_cmpint(virtio_mem_guard_map_set(&map, 3, 2, false), ==, 0);
    g_assert_true(virtio_mem_guard_map_check(&map));
    clear_bit(9, map.guarded);
    g_assert_false(virtio_mem_guard_map_check(&map));
    set_bit(9, map.guarded);
    g_assert_true(virtio_mem_guard_map_check(&map));
    map.nb_borders++;
    g_assert_false(virtio_mem_guard_map_check(&map));
    map.nb_borders--;
    virtio_mem_guard_map_pause(&map);
    virtio_mem_guard_map_cleanup(&map);
    uffd_close_fd(fd);
    guard_scene_free(scene);
}

static void add_for_kinds(const char *claim, void (*test)(const void *),
                          uint64_t max_page_size)
{
    size_t i;

    for (i = 0; i < nb_guard_kinds; i++) {
        if (guard_kinds[i].page_size <= max_page_size) {
            g_autofree char *path = g_strdup_printf(
                "/virtio-mem/guard/mappings/%s/%s", claim,
                guard_kinds[i].name);

            g_test_add_data_func(path, &guard_kinds[i], test);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add_for_kinds("every-second-block", test_every_second_block, 4 * KiB);
    add_for_kinds("window", test_window, 4 * KiB);
    add_for_kinds("random-ranges", test_random_ranges, 2 * MiB);
    g_test_add_func("/virtio-mem/guard/mappings/huge-borders-stay",
                    test_huge_borders_stay);
    g_test_add_func("/virtio-mem/guard/mappings/several-guards",
                    test_guards_share);
    g_test_add_func("/virtio-mem/guard/mappings/resume-beyond-budget",
                    test_resume_beyond_budget);
    g_test_add_func("/virtio-mem/guard/mappings/refused-changes-nothing",
                    test_refused);
    g_test_add_func("/virtio-mem/guard/mappings/check-notices",
                    test_check_notices);

    return g_test_run();
}
