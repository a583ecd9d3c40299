/*
 * virtio-mem's guard on a host that has no page left to lend: of huge pages, or
 * in a file system that is full.
 *
 * No access may wait for ever: it may be that of QEMU's main loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "virtio-mem-guard-scene.h"
#include <sys/mman.h>

#define BLOCK (2 * MiB)
#define NB_BLOCKS 512
#define ROGUE 0xbadbadbadbadbadULL

static uint64_t *word_at(GuardScene *scene, uint64_t offset)
{
    return (uint64_t *)(scene->host + offset);
}

/* Plug and use blocks from the start on until the pool is empty: how many. */
static uint64_t use_up_pool(GuardScene *scene)
{
    uint64_t nb = 0;

    while (guard_scene_free_pages(scene)) {
        guard_scene_plug(scene, nb, 1);
        qatomic_set(word_at(scene, nb * BLOCK), nb + 1);
        nb++;
    }
    g_assert_cmpuint(nb, >, 4);
    g_assert_cmpuint(nb, <, NB_BLOCKS / 2);
    return nb;
}

static void assert_untouched(GuardScene *scene, uint64_t first, uint64_t end)
{
    for (; first < end; first++) {
        g_assert_cmphex(qatomic_read(word_at(scene, first * BLOCK)), ==,
                        first + 1);
    }
}

static GuardScene *scene_new(const void *kind)
{
    return guard_scene_new(kind, NB_BLOCKS * BLOCK);
}

static void test_accesses_end(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb, mappings, memory, offset;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    mappings = guard_scene_mappings(scene);
    memory = proc_self_bytes("status", "VmRSS:");
    for (offset = nb * BLOCK; offset < NB_BLOCKS * BLOCK; offset += 64 * KiB) {
        qatomic_set(word_at(scene, offset), ROGUE);
        g_assert_cmphex(qatomic_read(word_at(scene, offset + 8)), ==, 0);
    }
    /* Also those that need two pages at a time. */
    for (offset = (nb + 1) * BLOCK; offset < NB_BLOCKS * BLOCK;
         offset += BLOCK) {
        uint64_t word = ROGUE;

        memcpy(scene->host + offset - 4, &word, sizeof(word));
    }
    g_assert_cmpuint(guard_scene_count(scene), >, NB_BLOCKS);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    g_assert_cmpuint(guard_scene_mappings(scene), <=, mappings);
    /* All that was touched is 64 MiB; a sanitizer needs some of its own. */
    g_assert_cmpuint(proc_self_bytes("status", "VmRSS:"), <=,
                     memory + 16 * MiB);
    assert_untouched(scene, 0, nb);
    guard_scene_free(scene);
}

/*
 * Runs that had other memory come together and fall apart: each mapping that
 * this costs is counted.
 */
static void test_mappings(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    VirtIOMEMGuardMappings mappings;
    uint64_t nb, i;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    for (i = nb; i + 1 < NB_BLOCKS; i++) {
        /* Ever more threes, of which the middle one comes and goes. */
        qatomic_set(word_at(scene, i * BLOCK), ROGUE);
        guard_scene_plug(scene, i, 1);
        if (i % 3) {
            qatomic_set(word_at(scene, (i + 1) * BLOCK), ROGUE);
            guard_scene_unplug(scene, i, 1);
        }
        virtio_mem_guard_query_mappings(&mappings);
        g_assert_cmpuint(guard_scene_mappings(scene), <=, 1 + mappings.nb);
        g_assert_true(virtio_mem_guard_check(scene->guard));
    }
    guard_scene_unplug(scene, nb, NB_BLOCKS - nb);
    qatomic_set(word_at(scene, nb * BLOCK), ROGUE);
    virtio_mem_guard_query_mappings(&mappings);
    g_assert_cmpuint(guard_scene_mappings(scene), <=, 1 + mappings.nb);
    assert_untouched(scene, 0, nb);
    guard_scene_free(scene);
}

/* A block that is plugged has its own pages again, nothing of the rogue's. */
static void test_plugged_is_as_before(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    qatomic_set(word_at(scene, (nb + 5) * BLOCK + 64), ROGUE);

    guard_scene_unplug(scene, 0, 1);
    g_assert_cmpuint(guard_scene_free_pages(scene), ==, 1);
    guard_scene_plug(scene, nb + 4, 1);
    g_assert_cmphex(qatomic_read(word_at(scene, (nb + 4) * BLOCK)), ==, 0);
    g_assert_cmpuint(guard_scene_free_pages(scene), ==, 0);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), nb + 5);

    qatomic_set(word_at(scene, (nb + 3) * BLOCK), ROGUE);
    qatomic_set(word_at(scene, (nb + 5) * BLOCK), ROGUE);
    qatomic_set(word_at(scene, 0), ROGUE);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    assert_untouched(scene, 1, nb);
    assert_untouched(scene, nb + 4, nb + 5);

    /* All at once, whatever is mapped where. */
    guard_scene_unplug(scene, 0, NB_BLOCKS);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    guard_scene_free(scene);
}

/* While the guard pauses, all of the area is the memory behind it. */
static void test_pause_restores(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    virtio_mem_guard_pause(scene->guard);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    guard_scene_unplug(scene, 0, 1);
    g_assert_cmphex(qatomic_read(word_at(scene, (nb + 4) * BLOCK)), ==, 0);
    g_assert_cmpuint(guard_scene_free_pages(scene), ==, 0);

    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    qatomic_set(word_at(scene, (nb + 5) * BLOCK), ROGUE);
    g_assert_true(virtio_mem_guard_check(scene->guard));
    assert_untouched(scene, 1, nb);
    guard_scene_free(scene);
}

/* --- a host that does not map the area's memory again --- */

/* The block is out of reach, and what a rogue wrote there is gone. */
static void assert_out_of_reach(GuardScene *scene, uint64_t block)
{
    const uint64_t count = guard_scene_count(scene);

    virtio_mem_guard_take_back(scene->guard);
    g_assert_cmphex(qatomic_read(word_at(scene, block * BLOCK)), ==, 0);
    g_assert_cmpuint(guard_scene_count(scene), >, count);
    g_assert_true(virtio_mem_guard_check(scene->guard));
}

/* A page of the pool goes to @block, which is plugged. */
static void assert_plugs(GuardScene *scene, uint64_t block)
{
    guard_scene_unplug(scene, 0, 1);
    g_assert_cmpuint(guard_scene_free_pages(scene), ==, 1);
    guard_scene_plug(scene, block, 1);
    g_assert_cmphex(qatomic_read(word_at(scene, block * BLOCK)), ==, 0);
    g_assert_cmpuint(guard_scene_free_pages(scene), ==, 0);
    g_assert_true(virtio_mem_guard_check(scene->guard));
}

static void test_refused_pause(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    qatomic_set(&scene->map_left, 0);
    g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, -ENOMEM);
    g_assert_false(virtio_mem_guard_is_active(scene->guard));
    g_assert_true(virtio_mem_guard_check(scene->guard));

    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    g_assert_cmpint(guard_scene_try_plug(scene, nb + 4, 1), ==, -ENOMEM);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    assert_out_of_reach(scene, nb + 4);
    assert_untouched(scene, 0, nb);

    qatomic_set(&scene->map_left, INT_MAX);
    assert_plugs(scene, nb + 4);
    assert_untouched(scene, 1, nb);
    guard_scene_free(scene);
}

/* Of several runs, some are mapped again, and then no more. */
static void test_refused_plug(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    guard_scene_plug(scene, nb + 3, 1);
    qatomic_set(word_at(scene, (nb + 2) * BLOCK), ROGUE);
    qatomic_set(word_at(scene, (nb + 4) * BLOCK), ROGUE);
    g_assert_cmpint(guard_scene_try_unplug(scene, nb + 3, 1), ==, 0);
    /* Where mappings merge, it is one run. */
    qatomic_set(&scene->map_left, scene->kind->room ? 0 : 1);
    g_assert_cmpint(guard_scene_try_plug(scene, nb, 8), ==, -ENOMEM);
    assert_out_of_reach(scene, nb + 2);
    assert_out_of_reach(scene, nb + 3);
    assert_out_of_reach(scene, nb + 4);

    qatomic_set(&scene->map_left, INT_MAX);
    assert_plugs(scene, nb + 2);
    assert_untouched(scene, 1, nb);
    guard_scene_free(scene);
}

/* What has to be plugged works, in the memory that there is. */
static void test_refused_undo(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t nb, *word;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    word = word_at(scene, (nb + 4) * BLOCK);
    qatomic_set(word, ROGUE);
    qatomic_set(&scene->map_left, 0);
    virtio_mem_guard_force(scene->guard, (nb + 4) * BLOCK, BLOCK, false);
    g_assert_true(virtio_mem_guard_is_active(scene->guard));
    qatomic_set(word, 1);
    qatomic_set(&scene->map_left, INT_MAX);
    g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
    g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    virtio_mem_guard_take_back(scene->guard);
    g_assert_cmphex(qatomic_read(word), ==, 1);

    guard_scene_unplug(scene, nb + 4, 1);
    assert_out_of_reach(scene, nb + 4);
    assert_plugs(scene, nb + 4);
    guard_scene_free(scene);
}

/* Although its thread faults twice: the second time, on other memory. */
static void test_counts_once(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    uint64_t offset, count;

    if (!scene) {
        return;
    }
    offset = (use_up_pool(scene) + 4) * BLOCK;
    count = guard_scene_count(scene);
    qatomic_set(word_at(scene, offset), ROGUE);
    g_assert_cmpuint(guard_scene_count(scene), ==, count + 1);
    g_assert_cmphex(scene->access.offset, ==, offset);
    guard_scene_free(scene);
}

/* With the guard, its caller goes: there is nothing to tell it. */
static void test_refused_free(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    int notified;

    if (!scene) {
        return;
    }
    qatomic_set(word_at(scene, (use_up_pool(scene) + 4) * BLOCK), ROGUE);
    qatomic_set(&scene->map_left, 0);
    notified = qatomic_read(&scene->notified);
    virtio_mem_guard_free(g_steal_pointer(&scene->guard));
    g_assert_cmpint(qatomic_read(&scene->notified), ==, notified);
    guard_scene_free(scene);
}

/* --- */

typedef struct Rogues {
    GuardScene *scene;
    uint64_t first;
    int stop;                   /* atomic */
} Rogues;

static void *rogue_thread(void *opaque)
{
    Rogues *rogues = opaque;
    GRand *rand = g_rand_new_with_seed(1);

    while (!qatomic_read(&rogues->stop)) {
        const uint64_t page = g_rand_int_range(rand, 0, NB_BLOCKS / 2 * 512);

        qatomic_set(word_at(rogues->scene, rogues->first + page * 4096), ROGUE);
    }
    g_rand_free(rand);
    return NULL;
}

/* Blocks come and go at one end while threads use what is out of reach. */
static void test_rogue_threads(const void *opaque)
{
    GuardScene *scene = scene_new(opaque);
    const uint64_t nb_moves = guard_scale(200, 20000);
    Rogues rogues = { .scene = scene, .first = NB_BLOCKS / 2 * BLOCK };
    GThread *threads[4];
    uint64_t nb, i;

    if (!scene) {
        return;
    }
    nb = use_up_pool(scene);
    /* Or a rogue could be lent the page that comes with the first move. */
    qatomic_set(word_at(scene, rogues.first), ROGUE);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        threads[i] = g_thread_new("rogue", rogue_thread, &rogues);
    }
    /* The window of plugged blocks moves up by one: a page goes, one comes. */
    for (i = 0; i < nb_moves; i++) {
        const uint64_t low = i % (NB_BLOCKS / 2 - nb);

        if (!low && i) {
            guard_scene_unplug(scene, NB_BLOCKS / 2 - nb, nb);
            guard_scene_plug(scene, 0, nb);
        }
        guard_scene_unplug(scene, low, 1);
        guard_scene_plug(scene, low + nb, 1);
        qatomic_set(word_at(scene, (low + nb) * BLOCK), i);
        g_assert_true(virtio_mem_guard_check(scene->guard));
        g_assert_cmphex(qatomic_read(word_at(scene, (low + nb) * BLOCK)), ==,
                        i);
    }
    qatomic_set(&rogues.stop, 1);
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        g_thread_join(threads[i]);
    }
    guard_scene_free(scene);
}

static void add_tests(const char *claim, void (*test)(const void *kind))
{
    static const GuardKind full = {
        "tmpfs", true, 4 * KiB, BLOCK, 0, 0, 1 * MiB, 24 * 4 * KiB,
    };
    g_autofree char *name = g_strdup_printf("guard-pool/%s", claim);
    g_autofree char *path = g_strdup_printf("/virtio-mem/%s/tmpfs", name);

    guard_scene_add_tests(name, BLOCK, BLOCK, test);
    g_test_add_data_func(path, &full, test);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add_tests("accesses-end", test_accesses_end);
    add_tests("counts-once", test_counts_once);
    add_tests("mappings", test_mappings);
    add_tests("plugged-is-as-before", test_plugged_is_as_before);
    add_tests("pause-restores", test_pause_restores);
    add_tests("refused-pause", test_refused_pause);
    add_tests("refused-plug", test_refused_plug);
    add_tests("refused-undo", test_refused_undo);
    add_tests("refused-free", test_refused_free);
    add_tests("rogue-threads", test_rogue_threads);

    return g_test_run();
}
