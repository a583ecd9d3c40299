/*
 * virtio-mem's guard against a model, and its budget of mappings.
 *
 * With "-m slow", a million random operations instead of some thousand.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-scene.h"
#include <sys/mman.h>

#define PAGE 4096

/* --- several threads, and what each block must contain --- */

/*
 * Even pages are used by those who obey: only in plugged blocks, and their
 * first word is what the model says.  Odd pages are written at any time by
 * rogues, always the same word in a page.
 */
typedef struct ModelBlock {
    QemuMutex lock;
    bool plugged;
    uint64_t *words;            /* by even page */
} ModelBlock;

typedef struct Model {
    GuardScene *scene;
    uint64_t nb_blocks;
    uint64_t nb_pages;          /* even ones, in each block */
    ModelBlock *blocks;
    int stop;                   /* atomic */
} Model;

typedef struct Actor {
    Model *model;
    GThread *thread;
    GRand *rand;
    uint64_t nb_ops;
} Actor;

static uint64_t *model_page(const Model *model, uint64_t block, uint64_t page)
{
    return (uint64_t *)(model->scene->host +
                        block * model->scene->area.block_size + page * PAGE);
}

static uint64_t rogue_word(uint64_t block, uint64_t page)
{
    return 0xbad0000000000000ULL | block << 20 | page;
}

static void model_plug(Model *model, uint64_t block)
{
    guard_scene_plug(model->scene, block, 1);
    model->blocks[block].plugged = true;
}

static void model_unplug(Model *model, uint64_t block)
{
    guard_scene_unplug(model->scene, block, 1);
    model->blocks[block].plugged = false;
    memset(model->blocks[block].words, 0,
           model->nb_pages * sizeof(model->blocks[block].words[0]));
}

static void model_act(Model *model, GRand *rand)
{
    const uint64_t nr = g_rand_int(rand) % model->nb_blocks;
    const uint64_t page = g_rand_int(rand) % model->nb_pages;
    ModelBlock *block = &model->blocks[nr];
    uint64_t seen;

    QEMU_LOCK_GUARD(&block->lock);
    switch (g_rand_int(rand) % 8) {
    case 0:
        if (block->plugged) {
            model_unplug(model, nr);
        } else {
            model_plug(model, nr);
        }
        break;
    case 1 ... 3:
        if (block->plugged) {
            block->words[page] = g_rand_int(rand);
            qatomic_set(model_page(model, nr, 2 * page), block->words[page]);
        }
        break;
    case 4:
        seen = qatomic_read(model_page(model, nr, 2 * page + 1));
        g_assert_true(!seen || seen == rogue_word(nr, 2 * page + 1));
        break;
    default:
        seen = qatomic_read(model_page(model, nr, 2 * page));
        g_assert_cmphex(seen, ==, block->words[page]);
    }
}

static void *obedient_thread(void *opaque)
{
    Actor *actor = opaque;

    while (actor->nb_ops--) {
        model_act(actor->model, actor->rand);
    }
    return NULL;
}

static void *rogue_thread(void *opaque)
{
    Actor *actor = opaque;
    Model *model = actor->model;

    while (!qatomic_read(&model->stop)) {
        const uint64_t nr = g_rand_int(actor->rand) % model->nb_blocks;
        const uint64_t page = 2 * (g_rand_int(actor->rand) %
                                   model->nb_pages) + 1;

        qatomic_set(model_page(model, nr, page), rogue_word(nr, page));
    }
    return NULL;
}

static void model_init(Model *model, GuardScene *scene)
{
    uint64_t i;

    *model = (Model) {
        .scene = scene,
        .nb_blocks = scene->area.size / scene->area.block_size,
        .nb_pages = scene->area.block_size / PAGE / 2,
    };
    model->blocks = g_new0(ModelBlock, model->nb_blocks);
    for (i = 0; i < model->nb_blocks; i++) {
        qemu_mutex_init(&model->blocks[i].lock);
        model->blocks[i].words = g_new0(uint64_t, model->nb_pages);
    }
}

static void model_cleanup(Model *model)
{
    uint64_t i;

    for (i = 0; i < model->nb_blocks; i++) {
        if (model->blocks[i].plugged) {
            model_unplug(model, i);
        }
        qemu_mutex_destroy(&model->blocks[i].lock);
        g_free(model->blocks[i].words);
    }
    g_free(model->blocks);
}

static void run_actors(Model *model, uint64_t nb_ops)
{
    Actor actors[5];
    size_t i;

    for (i = 0; i < ARRAY_SIZE(actors); i++) {
        actors[i] = (Actor) {
            .model = model, .nb_ops = nb_ops / 3,
            .rand = g_rand_new_with_seed(i),
        };
        actors[i].thread = g_thread_new(NULL, i < 3 ? obedient_thread
                                                    : rogue_thread,
                                        &actors[i]);
    }
    for (i = 0; i < ARRAY_SIZE(actors); i++) {
        if (i == 3) {
            qatomic_set(&model->stop, true);
        }
        g_thread_join(actors[i].thread);
        g_rand_free(actors[i].rand);
    }
}

static void test_threads(const void *opaque)
{
    const GuardKind *kind = opaque;
    GuardScene *scene = guard_scene_new_unguarded(kind, kind->page_size >
                                                  4 * KiB ? 6 * MiB :
                                                  128 * MiB);
    uint64_t before;
    Model model;

    if (!scene) {
        return;
    }
    if (guard_scene_start(scene, false)) {
        before = guard_scene_memory(scene);
        model_init(&model, scene);
        run_actors(&model, kind->page_size > 4 * KiB ?
                           guard_scale(3000, 100000) :
                           guard_scale(60000, 1000000));
        model_cleanup(&model);
        virtio_mem_guard_take_back(scene->guard);
        guard_scene_assert_gain(scene, before, 1 * MiB);
    }
    guard_scene_free(scene);
}

/* The same where most chunks are watched as a whole. */
static void test_threads_with_small_budget(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 512 * MiB);
    Model model;

    scene->area.max_mappings = 16;
    if (guard_scene_start(scene, false)) {
        model_init(&model, scene);
        run_actors(&model, guard_scale(20000, 300000));
        model_cleanup(&model);
    }
    guard_scene_free(scene);
}

/* --- mappings --- */

static void assert_watched(GuardScene *scene, uint64_t block, bool guarded)
{
    const uint64_t count = guard_scene_count(scene);

    qatomic_set(scene->host + block * scene->area.block_size, 1);
    g_assert_cmpint(guard_scene_count(scene) - count, ==, guarded);
}

static void test_every_second_block_of_a_tebibyte(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 1 * TiB);
    const uint64_t nb_blocks = guard_scale(256, 1024) * GiB / (2 * MiB);
    const uint64_t step = 2;
    uint64_t before, i, most = 0, nb_mappings;

    if (!scene) {
        return;
    }
    before = proc_self_mappings();
    for (i = 0; i < nb_blocks; i += step) {
        guard_scene_plug(scene, i, 1);
        if (i % (step * 2048) == 0) {
            nb_mappings = proc_self_mappings();
            most = MAX(most, nb_mappings);
        }
    }
    nb_mappings = proc_self_mappings();
    g_test_message("%" PRIu64 " mappings more, at most %" PRIu64,
                   nb_mappings - before, MAX(most, nb_mappings) - before);
    g_assert_cmpint(MAX(most, nb_mappings), <=, before + 16384);

    for (i = 0; i < nb_blocks; i += step * 4099) {
        assert_watched(scene, i, false);
        assert_watched(scene, i + 1, true);
    }

    for (i = 0; i < nb_blocks; i += step) {
        guard_scene_unplug(scene, i, 1);
    }
    /* Allocators have some, too, above all the sanitizer's. */
    g_assert_cmpint(proc_self_mappings(), <=, before + 64);
    for (i = 0; i < nb_blocks; i += step * 4099) {
        assert_watched(scene, i, true);
    }
    guard_scene_free(scene);
}

/* Several devices have no more mappings than one. */
static void test_guards_share_mappings(void)
{
    const uint64_t before = proc_self_mappings();
    GuardScene *scenes[3];
    size_t i;

    for (i = 0; i < ARRAY_SIZE(scenes); i++) {
        scenes[i] = guard_scene_new(&guard_kinds[0], 64 * GiB);
        if (!scenes[i]) {
            return;
        }
    }
    for (i = 0; i < ARRAY_SIZE(scenes); i++) {
        for (uint64_t block = 0; block < 64 * GiB / (2 * MiB); block += 2) {
            guard_scene_plug(scenes[i], block, 1);
        }
    }
    g_assert_cmpint(proc_self_mappings(), <=, before + 16384);
    for (i = 0; i < ARRAY_SIZE(scenes); i++) {
        assert_watched(scenes[i], 0, false);
        assert_watched(scenes[i], 1, true);
        guard_scene_free(scenes[i]);
    }
}

/* Somebody else watches a block that is to be unplugged, so that fails. */
static void test_refused(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 64 * MiB);
    uint64_t block_size, nb_blocks, i;
    int fd;

    if (!scene) {
        return;
    }
    block_size = scene->area.block_size;
    nb_blocks = 64 * MiB / block_size;
    guard_scene_plug(scene, 1, 6);
    fd = uffd_create_fd(0, true);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(uffd_register_memory(fd, scene->host + 4 * block_size,
                                         block_size,
                                         UFFDIO_REGISTER_MODE_MISSING, NULL),
                    ==, 0);
    g_assert_cmpint(virtio_mem_guard_protect(scene->guard, 3 * block_size,
                                             3 * block_size), ==, -EBUSY);
    uffd_close_fd(fd);
    for (i = 0; i < nb_blocks; i++) {
        assert_watched(scene, i, i < 1 || i > 6);
    }
    guard_scene_free(scene);
}

/* What was in use stays when its chunk is watched, and when not any more. */
static void test_content_of_watched_blocks(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 512 * MiB);
    const uint64_t step = 4 * MiB;
    uint64_t i;

    scene->area.max_mappings = 16;
    if (!guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return;
    }
    for (i = 0; i < 512 * MiB; i += step) {
        guard_scene_plug(scene, i / (2 * MiB), 1);
        *(uint64_t *)(scene->host + i) = i;
    }
    /* The first use of other pages of these, and of what was never used. */
    for (i = 0; i < 512 * MiB; i += step) {
        g_assert_cmphex(*(uint64_t *)(scene->host + i + 1 * MiB), ==, 0);
        *(uint64_t *)(scene->host + i + 1 * MiB) = ~i;
    }
    g_assert_cmpint(guard_scene_count(scene), ==, 0);
    for (i = step; i < 512 * MiB; i += step) {
        if (i / step % 16) {
            guard_scene_unplug(scene, i / (2 * MiB), 1);
        }
    }
    for (i = 0; i < 512 * MiB; i += 16 * step) {
        g_assert_cmphex(*(uint64_t *)(scene->host + i), ==, i);
        g_assert_cmphex(*(uint64_t *)(scene->host + i + 1 * MiB), ==, ~i);
    }
    guard_scene_free(scene);
}

static void test_random_blocks(void)
{
    const uint64_t nb_blocks = 1 * TiB / (2 * MiB);
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 1 * TiB);
    unsigned long *plugged = bitmap_new(nb_blocks);
    GRand *rand = g_rand_new_with_seed(1);
    const uint64_t before = proc_self_mappings();
    uint64_t i;

    for (i = 0; scene && i < guard_scale(20000, 100000); i++) {
        const uint64_t block = g_rand_int(rand) % nb_blocks;

        if (test_bit(block, plugged)) {
            guard_scene_unplug(scene, block, 1);
        } else {
            guard_scene_plug(scene, block, 1);
        }
        change_bit(block, plugged);
        if (i % 2048 == 0) {
            g_assert_cmpint(proc_self_mappings(), <=, before + 16384);
        }
        if (i % 256 == 0) {
            assert_watched(scene, block, !test_bit(block, plugged));
        }
    }
    if (scene) {
        guard_scene_free(scene);
    }
    g_rand_free(rand);
    g_free(plugged);
}

/* A guest that crashed dumps all of the region, of which little is plugged. */
static void test_crash_dump(void)
{
    const uint64_t size = guard_scale(2, 16) * GiB;
    GuardScene *scene = guard_scene_new(&guard_kinds[0], size);
    g_autofree char *page = g_malloc(4096);
    uint64_t before, offset, nb_bad = 0;
    int64_t start;

    if (!scene) {
        return;
    }
    guard_scene_plug(scene, 100, 10);
    memset(scene->host + 200 * MiB, 0x55, 20 * MiB);
    before = guard_scene_memory(scene);

    start = g_get_monotonic_time();
    for (offset = 0; offset < size; offset += 4096) {
        const bool plugged = offset >= 200 * MiB && offset < 220 * MiB;

        memcpy(page, scene->host + offset, 4096);
        nb_bad += page[offset / 4096 % 4096] != (plugged ? 0x55 : 0);
    }
    g_test_message("reading unplugged memory: %" PRIu64 " MiB/s",
                   (size / MiB) * G_USEC_PER_SEC /
                   (g_get_monotonic_time() - start));
    g_assert_cmpint(nb_bad, ==, 0);
    guard_scene_assert_gain(scene, before, 1 * MiB);
    guard_scene_free(scene);
}

int main(int argc, char **argv)
{
    size_t i;

    g_test_init(&argc, &argv, NULL);

    /* Pages of 1 GiB take too long to be lent at random. */
    for (i = 0; i < nb_guard_kinds; i++) {
        if (guard_kinds[i].page_size <= 2 * MiB) {
            g_autofree char *path = g_strdup_printf(
                "/virtio-mem/guard/threads/%s", guard_kinds[i].name);

            g_test_add_data_func(path, &guard_kinds[i], test_threads);
        }
    }
    g_test_add_func("/virtio-mem/guard/threads/small-budget",
                    test_threads_with_small_budget);
    g_test_add_func("/virtio-mem/guard/mappings/every-second-block",
                    test_every_second_block_of_a_tebibyte);
    g_test_add_func("/virtio-mem/guard/mappings/several-guards",
                    test_guards_share_mappings);
    g_test_add_func("/virtio-mem/guard/mappings/refused-changes-nothing",
                    test_refused);
    g_test_add_func("/virtio-mem/guard/mappings/content",
                    test_content_of_watched_blocks);
    g_test_add_func("/virtio-mem/guard/mappings/random-blocks",
                    test_random_blocks);
    g_test_add_func("/virtio-mem/guard/crash-dump", test_crash_dump);

    return g_test_run();
}
