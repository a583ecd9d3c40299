/*
 * Unit tests of virtio-mem's guard: what a guest gains that writes to memory
 * that it does not have.
 *
 * With "-m slow", much more of it, and with pages of 1 GiB.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "virtio-mem-guard-scene.h"

#define ROGUE 0xbadbadbadbadbadULL

/* --- one thread --- */

/* Page tables are memory, too: so several pages of each table. */
static void test_hostile_writer(const void *opaque)
{
    const GuardKind *kind = opaque;
    const uint64_t step = MAX(kind->page_size, guard_scale(128, 4) * KiB);
    GuardScene *scene = guard_scene_new(kind, guard_scale(2, 8) * GiB);
    uint64_t before, offset;

    if (!scene) {
        return;
    }
    before = guard_scene_memory(scene);
    for (offset = 0; offset < scene->area.size; offset += step) {
        guard_scene_write(scene, offset, ROGUE);
        if (offset % (64 * MiB) == 0) {
            guard_scene_assert_gain(scene, before, kind->max_gain);
        }
    }
    guard_scene_assert_gain(scene, before, kind->max_gain);
    /* It did happen; fewer faults than pages, for those who go on. */
    g_assert_cmpint(guard_scene_count(scene), >=,
                    scene->area.size / MAX(step, 64 * KiB) / 2);
    guard_scene_free(scene);
}

/* --- several threads --- */

typedef struct Rogue {
    GuardScene *scene;
    GThread *thread;
    uint32_t seed;
    uint64_t nb_writes;
} Rogue;

static void *rogue_thread(void *opaque)
{
    Rogue *rogue = opaque;
    GuardScene *scene = rogue->scene;
    GRand *rand = g_rand_new_with_seed(rogue->seed);

    while (rogue->nb_writes--) {
        const uint64_t page = g_rand_int(rand) % (scene->area.size / 4096);

        guard_scene_write(scene, page * 4096 + 8 * (page % 512), ROGUE);
    }
    g_rand_free(rand);
    return NULL;
}

static void test_hostile_threads(const void *opaque)
{
    const GuardKind *kind = opaque;
    GuardScene *scene = guard_scene_new(kind, 8 * GiB);
    Rogue rogues[4];
    uint64_t before;
    size_t i;

    if (!scene) {
        return;
    }
    before = guard_scene_memory(scene);
    for (i = 0; i < ARRAY_SIZE(rogues); i++) {
        rogues[i] = (Rogue) {
            .scene = scene, .seed = i,
            .nb_writes = kind->page_size > 2 * MiB ? 2 :
                         kind->page_size > 4 * KiB ? guard_scale(50, 5000) :
                         guard_scale(2500, 500000),
        };
        rogues[i].thread = g_thread_new("rogue", rogue_thread, &rogues[i]);
    }
    for (i = 0; i < ARRAY_SIZE(rogues); i++) {
        g_thread_join(rogues[i].thread);
    }
    virtio_mem_guard_take_back(scene->guard);
    guard_scene_assert_gain(scene, before,
                            MAX(512 * KiB, kind->page_size / 256));
    guard_scene_free(scene);
}

/*
 * A thread that waits for an answer gets on when the guard goes.  It has the
 * memory from then on, in huge pages: so there is little of it.
 */
static void test_free_leaves_no_thread_waiting(void)
{
    unsigned int i;

    for (i = 0; i < 50; i++) {
        GuardScene *scene = guard_scene_new(&guard_kinds[0], 16 * MiB);
        Rogue rogue = { .scene = scene, .nb_writes = 500, .seed = i };

        if (!scene) {
            return;
        }
        rogue.thread = g_thread_new("rogue", rogue_thread, &rogue);
        while (!qatomic_read(&scene->notified)) {
            g_thread_yield();
        }
        virtio_mem_guard_free(g_steal_pointer(&scene->guard));
        g_thread_join(rogue.thread);
        guard_scene_free(scene);
    }
}

/*
 * R7: a table maps several small blocks, and goes with the last page that is
 * lent there, if all of them are out of reach.  test_virtio_mem_kernels.py
 * reads what it comes to on other hosts.
 */
static void test_small_blocks(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 4 * GiB);
    uint64_t before, tables, offset;

    scene->area.block_size = 1 * MiB;
    if (!guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return;
    }
    before = guard_scene_memory(scene);
    tables = proc_self_bytes("status", "VmPTE:");
    for (offset = 0; offset < scene->area.size; offset += 2 * MiB) {
        guard_scene_write(scene, offset, 1);
    }
    virtio_mem_guard_take_back(scene->guard);
    g_test_message("VmPTE: %" PRIu64 " kB before, %" PRIu64 " kB after",
                   tables / KiB, proc_self_bytes("status", "VmPTE:") / KiB);
    guard_scene_assert_gain(scene, before, 256 * KiB);
    guard_scene_free(scene);
}

/* R7: and what is in use of a table stays, on either side of what goes. */
static void test_small_neighbours(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 8 * MiB);
    uint64_t block;

    scene->area.block_size = 1 * MiB;
    if (!guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return;
    }
    /* Two tables: one has the lower block in use, one the upper block. */
    for (block = 2; block <= 5; block += 3) {
        guard_scene_plug(scene, block, 1);
        guard_scene_write(scene, block * MiB, block);
        guard_scene_write(scene, (block + 1) * MiB - 8, ~block);
    }
    g_assert_cmpuint(guard_scene_read(scene, 3 * MiB), ==, 0);
    g_assert_cmpuint(guard_scene_read(scene, 4 * MiB), ==, 0);
    g_assert_cmpuint(guard_scene_count(scene), ==, 2);
    virtio_mem_guard_take_back(scene->guard);
    for (block = 2; block <= 5; block += 3) {
        g_assert_cmphex(guard_scene_read(scene, block * MiB), ==, block);
        g_assert_cmphex(guard_scene_read(scene, (block + 1) * MiB - 8), ==,
                        ~block);
    }
    guard_scene_free(scene);
}

int main(int argc, char **argv)
{
    uint64_t max_page_size;

    g_test_init(&argc, &argv, NULL);

    max_page_size = guard_scale(2 * MiB, 1 * GiB);
    guard_scene_add_tests("guard/hostile-writer-gains-nothing", 0,
                          max_page_size, test_hostile_writer);
    guard_scene_add_tests("guard/hostile-threads-gain-nothing", 0,
                          max_page_size, test_hostile_threads);
    g_test_add_func("/virtio-mem/guard/small-blocks-leave-no-tables",
                    test_small_blocks);
    g_test_add_func("/virtio-mem/guard/small-blocks-keep-their-neighbours",
                    test_small_neighbours);
    g_test_add_func("/virtio-mem/guard/free-leaves-nobody-waiting",
                    test_free_leaves_no_thread_waiting);

    return g_test_run();
}
