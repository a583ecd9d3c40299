/*
 * virtio-mem: the RamDiscardManager, with listeners that keep books
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-rdm.h"
#include "virtio-mem-fake-scene.h"

#define RANDOM_PROGRAMS 20
#define RANDOM_STEPS 2500

/* --- intersections --- */

static void test_disjoint(void)
{
    Scene scene;

    scene_init(&scene);
    scene_register(&scene, 0, (PageRange) { 8, 8 }, false);
    g_assert_cmpint(scene_plug(&scene, (VirtIOMEMRange) { 0, 2 }), ==, 0);
    g_assert_cmpint(scene_plug(&scene, (VirtIOMEMRange) { 4, 2 }), ==, 0);
    g_assert_cmpuint(scene.listeners[0].nb_populates, ==, 0);
    scene_unplug(&scene, (VirtIOMEMRange) { 4, 2 });
    scene_unplug(&scene, (VirtIOMEMRange) { 0, 1 });
    g_assert_cmpuint(scene.listeners[0].nb_discards, ==, 0);
    scene_assert_agreement(&scene);
    scene_destroy(&scene);
}

/* Every section of up to three blocks against ranges of two, page by page. */
static void test_intersections(void)
{
    for (unsigned first = 0; first < 6 * BLOCK_PAGES; first++) {
        for (unsigned nb = 1; nb <= 3 * BLOCK_PAGES; nb++) {
            Scene scene;

            scene_init(&scene);
            scene_register(&scene, 0, (PageRange) { first, nb }, false);
            scene_plug(&scene, (VirtIOMEMRange) { 3, 2 });
            scene_assert_agreement(&scene);
            scene_unplug(&scene, (VirtIOMEMRange) { 4, 1 });
            scene_assert_agreement(&scene);
            scene_plug(&scene, (VirtIOMEMRange) { 4, 3 });
            scene_assert_agreement(&scene);
            scene_unplug_all(&scene);
            scene_assert_agreement(&scene);
            scene_destroy(&scene);
        }
    }
}

/* --- listeners come and go --- */

static void test_register_replays(void)
{
    Scene scene;

    scene_init(&scene);
    scene_plug(&scene, (VirtIOMEMRange) { 1, 3 });
    scene_plug(&scene, (VirtIOMEMRange) { 4, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 60, 9 });
    scene_register(&scene, 0, (PageRange) { 0, NB_PAGES }, false);
    g_assert_cmpuint(scene.listeners[0].nb_populates, ==, 2);
    scene_assert_agreement(&scene);
    scene_unregister(&scene, 0);
    g_assert_cmpuint(scene.listeners[0].nb_discards, ==, 2);
    scene_assert_agreement(&scene);
    scene_destroy(&scene);
}

/* It is told once, for all of its section; but not if nothing is plugged. */
static void test_double_discard(void)
{
    const FakeListener *listener;
    Scene scene;

    scene_init(&scene);
    listener = &scene.listeners[0];
    scene_register(&scene, 0, (PageRange) { 3, 50 }, true);
    scene_unplug_all(&scene);
    g_assert_cmpuint(listener->nb_discards, ==, 0);

    scene_plug(&scene, (VirtIOMEMRange) { 2, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 4, 1 });
    scene_unplug_all(&scene);
    g_assert_cmpuint(listener->nb_discards, ==, 1);
    scene_assert_agreement(&scene);

    scene_plug(&scene, (VirtIOMEMRange) { 2, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 4, 1 });
    scene_unregister(&scene, 0);
    g_assert_cmpuint(listener->nb_discards, ==, 2);
    scene_assert_agreement(&scene);

    scene_unplug_all(&scene);
    scene_register(&scene, 0, (PageRange) { 3, 50 }, true);
    scene_unregister(&scene, 0);
    g_assert_cmpuint(listener->nb_discards, ==, 2);
    scene_destroy(&scene);
}

/* It hears of each plugged run, once: other discards are an error for it. */
static void test_single_discard(void)
{
    Scene scene;

    scene_init(&scene);
    scene_register(&scene, 0, (PageRange) { 3, 50 }, false);
    scene_plug(&scene, (VirtIOMEMRange) { 2, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 4, 1 });
    scene_unplug_all(&scene);
    g_assert_cmpuint(scene.listeners[0].nb_discards, ==, 2);
    scene_assert_agreement(&scene);
    scene_destroy(&scene);
}

/* It stays registered, and the rest goes on without it. */
static void test_register_refused(void)
{
    const unsigned reports = fake_nb_reports;
    Scene scene;

    scene_init(&scene);
    scene_plug(&scene, (VirtIOMEMRange) { 1, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 3, 1 });
    scene.listeners[0].refuses = true;
    scene_register(&scene, 0, (PageRange) { 0, NB_PAGES }, true);
    g_assert_cmpuint(scene.listeners[0].nb_populates, ==, 1);
    g_assert_cmpuint(fake_nb_reports - reports, ==, 1);
    scene_destroy(&scene);
}

/* --- refusals --- */

/* Whichever refuses: all forget the range, and only those asked are told. */
static void test_refused(void)
{
    for (unsigned refusing = 0; refusing < MAX_LISTENERS; refusing++) {
        unsigned nb_populates = 0, nb_discards = 0;
        Scene scene;

        scene_init(&scene);
        scene_plug(&scene, (VirtIOMEMRange) { 0, 2 });
        scene_plug(&scene, (VirtIOMEMRange) { 7, 2 });
        for (unsigned i = 0; i < MAX_LISTENERS; i++) {
            scene_register(&scene, i, (PageRange) { i, NB_PAGES - 2 * i },
                           i % 2);
            scene.listeners[i].nb_populates = 0;
        }
        scene.listeners[refusing].refuses = true;

        g_assert_cmpint(scene_plug(&scene, (VirtIOMEMRange) { 2, 5 }), ==,
                        -ENOSPC);

        for (unsigned i = 0; i < MAX_LISTENERS; i++) {
            nb_populates += scene.listeners[i].nb_populates;
            nb_discards += scene.listeners[i].nb_discards;
        }
        g_assert_cmpuint(nb_discards, ==, nb_populates - 1);
        g_assert_cmpuint(scene.listeners[refusing].nb_populates, ==, 1);
        g_assert_cmpuint(scene.listeners[refusing].nb_discards, ==, 0);
        scene_assert_agreement(&scene);
        scene_destroy(&scene);
    }
}

/* Who is not concerned is neither asked nor told. */
static void test_refused_elsewhere(void)
{
    Scene scene;

    scene_init(&scene);
    scene_register(&scene, 0, (PageRange) { 0, 8 }, false);
    scene.listeners[0].refuses = true;
    scene_register(&scene, 1, (PageRange) { 0, NB_PAGES }, false);
    g_assert_cmpint(scene_plug(&scene, (VirtIOMEMRange) { 2, 2 }), ==, 0);
    g_assert_cmpint(scene_plug(&scene, (VirtIOMEMRange) { 0, 2 }), ==,
                    -ENOSPC);
    scene_assert_agreement(&scene);
    scene_destroy(&scene);
}

/* --- questions --- */

/* A twin of both replays: what they say must be these runs. */
typedef struct Replay {
    Scene *scene;
    bool plugged;
    PageRange within;
    unsigned next;                  /* page that was not reported yet */
    unsigned stop_after;            /* calls, then fail; 0: never */
    unsigned nb_calls;
} Replay;

static void replay_skip(Replay *replay, unsigned until)
{
    for (; replay->next < until; replay->next++) {
        g_assert_cmpint(scene_page_is_plugged(replay->scene, replay->next), ==,
                        !replay->plugged);
    }
}

static int replay_one(MemoryRegionSection *section, void *opaque)
{
    Replay *replay = opaque;
    const PageRange pages = scene_pages(replay->scene, section);
    const unsigned end = pages.first + pages.nb_pages;

    g_assert_cmpuint(pages.first, >=, replay->next);
    g_assert_cmpuint(end, <=, replay->within.first + replay->within.nb_pages);
    /* Runs are maximal: they do not touch. */
    g_assert_true(!replay->nb_calls || pages.first > replay->next);
    replay_skip(replay, pages.first);
    for (; replay->next < end; replay->next++) {
        g_assert_cmpint(scene_page_is_plugged(replay->scene, replay->next), ==,
                        replay->plugged);
    }
    replay->nb_calls++;
    return replay->nb_calls == replay->stop_after ? -EINTR : 0;
}

static void replay_one_discarded(MemoryRegionSection *section, void *opaque)
{
    replay_one(section, opaque);
}

/* The number of runs. */
static unsigned scene_replay(Scene *scene, PageRange within, bool plugged)
{
    MemoryRegionSection section = scene_section(scene, within);
    Replay replay = {
        .scene = scene, .plugged = plugged, .within = within,
        .next = within.first,
    };

    if (plugged) {
        g_assert_cmpint(scene->rdmc->replay_populated(scene->rdm, &section,
                                                      replay_one, &replay),
                        ==, 0);
    } else {
        scene->rdmc->replay_discarded(scene->rdm, &section,
                                      replay_one_discarded, &replay);
    }
    replay_skip(&replay, within.first + within.nb_pages);
    return replay.nb_calls;
}

static bool scene_is_populated(Scene *scene, PageRange pages)
{
    const MemoryRegionSection section = scene_section(scene, pages);

    return scene->rdmc->is_populated(scene->rdm, &section);
}

static void assert_is_populated(Scene *scene, PageRange pages)
{
    bool expect = true;

    for (unsigned i = 0; i < pages.nb_pages; i++) {
        expect &= scene_page_is_plugged(scene, pages.first + i);
    }
    g_assert_cmpint(scene_is_populated(scene, pages), ==, expect);
}

static void test_replay(void)
{
    Scene scene;

    scene_init(&scene);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 0, NB_PAGES }, true),
                     ==, 0);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 0, NB_PAGES }, false),
                     ==, 1);
    scene_plug(&scene, (VirtIOMEMRange) { 1, 2 });
    scene_plug(&scene, (VirtIOMEMRange) { 5, 1 });
    scene_plug(&scene, (VirtIOMEMRange) { 63, 2 });
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 0, NB_PAGES }, true),
                     ==, 3);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 0, NB_PAGES }, false),
                     ==, 4);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 9, 12 }, true), ==, 2);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 9, 12 }, false), ==, 1);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 9, 1 }, true), ==, 1);
    g_assert_cmpuint(scene_replay(&scene, (PageRange) { 9, 1 }, false), ==, 0);
    scene_destroy(&scene);
}

static void test_replay_stops(void)
{
    MemoryRegionSection section;
    Replay replay;
    Scene scene;

    scene_init(&scene);
    for (unsigned block = 0; block < 10; block += 2) {
        scene_plug(&scene, (VirtIOMEMRange) { block, 1 });
    }
    section = scene_section(&scene, (PageRange) { 0, NB_PAGES });
    replay = (Replay) {
        .scene = &scene, .plugged = true, .within = { 0, NB_PAGES },
        .stop_after = 3,
    };
    g_assert_cmpint(scene.rdmc->replay_populated(scene.rdm, &section,
                                                 replay_one, &replay), ==,
                    -EINTR);
    g_assert_cmpuint(replay.nb_calls, ==, 3);
    scene_destroy(&scene);
}

static void test_is_populated(void)
{
    Scene scene;

    scene_init(&scene);
    scene_plug(&scene, (VirtIOMEMRange) { 2, 3 });
    for (unsigned first = 0; first < 6 * BLOCK_PAGES; first++) {
        for (unsigned nb = 1; nb <= 4 * BLOCK_PAGES; nb++) {
            assert_is_populated(&scene, (PageRange) { first, nb });
        }
    }
    scene_destroy(&scene);
}

/* The answer depends on the blocks, never on the usable region. */
static void test_is_populated_beyond_usable(void)
{
    Scene scene;

    scene_init(&scene);
    scene_plug(&scene, (VirtIOMEMRange) { 40, 1 });
    scene.vmem->usable_region_size = 2 * scene.vmem->block_size;
    assert_is_populated(&scene, (PageRange) { 40 * BLOCK_PAGES, 1 });
    scene_destroy(&scene);
}

static void test_granularity(void)
{
    Scene scene;

    scene_init(&scene);
    g_assert_cmphex(scene.rdmc->get_min_granularity(scene.rdm,
                                                    &scene.memdev.mr), ==,
                    BLOCK_PAGES * FAKE_PAGE_SIZE);
    scene_destroy(&scene);
}

/* --- random programs --- */

static PageRange random_pages(void)
{
    const unsigned first = g_test_rand_int_range(0, NB_PAGES);

    return (PageRange) {
        first, g_test_rand_int_range(1, NB_PAGES + 1 - first)
    };
}

static void random_toggle_listener(Scene *scene)
{
    const unsigned i = g_test_rand_int_range(0, MAX_LISTENERS);

    if (scene_is_registered(scene, i)) {
        scene_unregister(scene, i);
    } else {
        scene_register(scene, i, random_pages(), g_test_rand_bit());
    }
}

static void random_refuse(Scene *scene, bool may_refuse)
{
    for (unsigned i = 0; i < MAX_LISTENERS; i++) {
        scene->listeners[i].refuses = may_refuse &&
                                      g_test_rand_int_range(0, 8) == 0;
    }
}

static void random_flip(Scene *scene)
{
    const bool plugged = g_test_rand_bit();
    const uint64_t first = g_test_rand_int_range(0, NB_BLOCKS);
    const VirtIOMEMRange within = {
        first, g_test_rand_int_range(1, MIN(16, NB_BLOCKS - first) + 1)
    };
    VirtIOMEMRange run = { first, 0 };

    if (!virtio_mem_blocks_next_run(scene->vmem->blocks, within, plugged,
                                    &run)) {
        return;
    }
    if (plugged) {
        scene_unplug(scene, run);
    } else {
        random_refuse(scene, true);
        scene_plug(scene, run);
        random_refuse(scene, false);
    }
}

static void random_step(Scene *scene)
{
    const int dice = g_test_rand_int_range(0, 100);

    if (dice == 0) {
        scene_unplug_all(scene);
    } else if (dice < 15) {
        random_toggle_listener(scene);
    } else {
        random_flip(scene);
    }
    scene_assert_agreement(scene);
    assert_is_populated(scene, random_pages());
    scene_replay(scene, random_pages(), g_test_rand_bit());
}

static void test_random(void)
{
    for (unsigned i = 0; i < RANDOM_PROGRAMS; i++) {
        Scene scene;

        scene_init(&scene);
        for (unsigned step = 0; step < RANDOM_STEPS; step++) {
            random_step(&scene);
        }
        scene_destroy(&scene);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scene_register_types();

    g_test_add_func("/virtio-mem/rdm/notify/disjoint", test_disjoint);
    g_test_add_func("/virtio-mem/rdm/notify/every-intersection",
                    test_intersections);
    g_test_add_func("/virtio-mem/rdm/notify/double-discard-in-one",
                    test_double_discard);
    g_test_add_func("/virtio-mem/rdm/notify/single-discard-by-runs",
                    test_single_discard);
    g_test_add_func("/virtio-mem/rdm/register/replays-plugged-runs",
                    test_register_replays);
    g_test_add_func("/virtio-mem/rdm/register/may-be-refused",
                    test_register_refused);
    g_test_add_func("/virtio-mem/rdm/refused/by-each-listener", test_refused);
    g_test_add_func("/virtio-mem/rdm/refused/only-where-concerned",
                    test_refused_elsewhere);
    g_test_add_func("/virtio-mem/rdm/replay/runs", test_replay);
    g_test_add_func("/virtio-mem/rdm/replay/stops-at-failure",
                    test_replay_stops);
    g_test_add_func("/virtio-mem/rdm/is-populated/every-section",
                    test_is_populated);
    g_test_add_func("/virtio-mem/rdm/is-populated/beyond-usable",
                    test_is_populated_beyond_usable);
    g_test_add_func("/virtio-mem/rdm/granularity", test_granularity);
    g_test_add_func("/virtio-mem/rdm/random-programs", test_random);
    return g_test_run();
}
