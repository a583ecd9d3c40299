/*
 * virtio-mem's guard against a model.
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

/* Where mappings are few, the guest may have to wait. */
static bool model_is_refused(Model *model, int ret)
{
    if (ret) {
        g_assert_cmpint(ret, ==, -ENOSPC);
        g_assert_cmpint(model->scene->area.max_mappings, !=, 0);
    }
    return ret;
}

static void model_plug(Model *model, uint64_t block)
{
    if (model_is_refused(model, guard_scene_try_plug(model->scene, block,
                                                     1))) {
        return;
    }
    model->blocks[block].plugged = true;
}

static void model_unplug(Model *model, uint64_t block)
{
    if (model_is_refused(model, guard_scene_try_unplug(model->scene, block,
                                                       1))) {
        return;
    }
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
        g_assert_true(virtio_mem_guard_check(model->scene->guard));
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

    guard_scene_unplug(model->scene, 0, model->nb_blocks);
    for (i = 0; i < model->nb_blocks; i++) {
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
                           guard_scale(2000, 100000) :
                           guard_scale(20000, 1000000));
        model_cleanup(&model);
        virtio_mem_guard_take_back(scene->guard);
        guard_scene_assert_gain(scene, before, 1 * MiB);
    }
    guard_scene_free(scene);
}

/* The same where many requests are refused. */
static void test_threads_with_small_budget(void)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0], 512 * MiB);
    Model model;

    scene->area.max_mappings = 16;
    if (guard_scene_start(scene, false)) {
        model_init(&model, scene);
        run_actors(&model, guard_scale(10000, 300000));
        model_cleanup(&model);
    }
    guard_scene_free(scene);
}

/* A guest that crashed dumps all of the region, of which little is plugged. */
static void test_crash_dump(void)
{
    const uint64_t size = guard_scale(512, 16 * 1024) * MiB;
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
    g_test_init(&argc, &argv, NULL);

    /* Pages of 1 GiB take too long to be lent at random. */
    guard_scene_add_tests("guard/threads", 0, 2 * MiB, test_threads);
    g_test_add_func("/virtio-mem/guard/threads/small-budget",
                    test_threads_with_small_budget);
    g_test_add_func("/virtio-mem/guard/crash-dump", test_crash_dump);

    return g_test_run();
}
