/*
 * virtio-mem's guard on a host that refuses: each call in each operation
 *
 * Once: call after call of an operation fails.  By chance: every second of all
 * calls does.  After each operation the guard's own checker is content, what is
 * out of reach is what the caller was told, and the guard can go on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "virtio-mem-faulty-host.h"
#include "virtio-mem-guard-scene.h"

#define BLOCK (2 * MiB)
#define NB_BLOCKS 16
#define ALL (NB_BLOCKS * BLOCK)

/* More calls of one kind than any operation has; those of poll vary. */
#define MANY 64

/* '#': out of reach. */
#define BEFORE "####.####..#####"
#define NONE   "................"
#define EVERY  "################"

typedef struct Operation {
    const char *name;
    int (*run)(GuardScene *scene);
    const char *after;          /* when it has returned 0 */
    bool paused;                /* before it */
} Operation;

/* --- operations --- */

static int do_protect(GuardScene *scene)
{
    return guard_scene_try_unplug(scene, 0, NB_BLOCKS);
}

static int do_protect_one(GuardScene *scene)
{
    return guard_scene_try_unplug(scene, 9, 1);
}

static int do_release(GuardScene *scene)
{
    return guard_scene_try_plug(scene, 0, NB_BLOCKS);
}

static int do_release_one(GuardScene *scene)
{
    return guard_scene_try_plug(scene, 2, 1);
}

static int do_force(GuardScene *scene)
{
    virtio_mem_guard_force(scene->guard, 0, 4 * BLOCK, false);
    virtio_mem_guard_force(scene->guard, 4 * BLOCK, BLOCK, true);
    return 0;
}

static int do_pause(GuardScene *scene)
{
    const int ret = virtio_mem_guard_pause(scene->guard);

    g_assert_false(virtio_mem_guard_is_active(scene->guard));
    return ret;
}

static int do_resume(GuardScene *scene)
{
    const int ret = virtio_mem_guard_resume(scene->guard);

    g_assert_cmpint(!ret, ==, virtio_mem_guard_is_active(scene->guard));
    return ret;
}

/* More pages than can be lent. */
static int do_touch(GuardScene *scene)
{
    for (uint64_t at = 11 * BLOCK; at < ALL; at += BLOCK / 2) {
        g_assert_cmphex(guard_scene_read(scene, at), ==, 0);
    }
    return 0;
}

static int do_take_back(GuardScene *scene)
{
    do_touch(scene);
    virtio_mem_guard_take_back(scene->guard);
    return 0;
}

/* Another guard on the same memory, if there can be one. */
static int do_begin_anew(GuardScene *scene)
{
    Error *err = NULL;

    virtio_mem_guard_free(scene->guard);
    /* What could not be mapped again: it says that, the caller has to know. */
    while (scene->area.map && scene->area.map(scene, 0, ALL)) {
        continue;
    }
    scene->guard = virtio_mem_guard_new(&scene->area, false, &err);
    if (!scene->guard) {
        g_assert_nonnull(err);
        error_free(err);
        faulty_host_recover();
        guard_scene_start(scene, false);
    }
    return 0;
}

static const Operation operations[] = {
    { "protect", do_protect, EVERY },
    { "protect-one", do_protect_one, "####.#####.#####" },
    { "release", do_release, NONE },
    { "release-one", do_release_one, "##.#.####..#####" },
    { "force", do_force, "....#####..#####" },
    { "pause", do_pause, BEFORE },
    { "resume", do_resume, BEFORE, .paused = true },
    { "protect-paused", do_protect, EVERY, .paused = true },
    { "release-paused", do_release, NONE, .paused = true },
    { "touch", do_touch, BEFORE },
    { "take-back", do_take_back, BEFORE },
    { "begin-anew", do_begin_anew, EVERY },
};

/* --- what must be true --- */

/* The host is well again: nothing is lost that was not given up. */
static void assert_recovered(GuardScene *scene, const char *drawing)
{
    g_assert_true(virtio_mem_guard_check(scene->guard));
    if (!virtio_mem_guard_is_active(scene->guard)) {
        guard_scene_assert_guarded(scene, NONE);
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    }
    guard_scene_assert_guarded(scene, drawing);
}

static void begin(GuardScene *scene, const Operation *op)
{
    faulty_host_recover();
    if (!virtio_mem_guard_is_active(scene->guard)) {
        g_assert_cmpint(virtio_mem_guard_resume(scene->guard), ==, 0);
    }
    guard_scene_unplug(scene, 0, NB_BLOCKS);
    for (int i = 0; i < NB_BLOCKS; i++) {
        if (BEFORE[i] == '.') {
            guard_scene_plug(scene, i, 1);
        }
    }
    if (op->paused) {
        g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
    }
}

static void run(GuardScene *scene, const Operation *op)
{
    const int ret = op->run(scene);

    g_assert_true(virtio_mem_guard_check(scene->guard));
    faulty_host_recover();
    assert_recovered(scene, ret ? BEFORE : op->after);
}

/* --- claims --- */

static const int errors[FAULTY_CALL__MAX] = {
    [FAULTY_EVENTFD] = EMFILE,
    [FAULTY_THREAD] = EAGAIN,
    [FAULTY_POLL] = EINTR,
    [FAULTY_OPEN_MAX_MAP_COUNT] = EMFILE,
    [FAULTY_OPEN_MAPS] = EMFILE,
};

static int error_of(FaultyCall call)
{
    return errors[call] ?: ENOMEM;
}

/* Returns how many calls have failed. */
static int run_each(GuardScene *scene, const Operation *op, FaultyCall call)
{
    int nb = 0;

    do {
        begin(scene, op);
        faulty_host_refuse(call, nb, 1, error_of(call));
        run(scene, op);
    } while (faulty_host_count(call) && ++nb < MANY);
    g_assert_true(nb < MANY || call == FAULTY_POLL);
    return nb;
}

static void test_each(const void *kind)
{
    /* Made for all kinds of memory. */
    static const FaultyCall always[] = {
        FAULTY_UFFD_API, FAULTY_REGISTER, FAULTY_UNREGISTER, FAULTY_EVENTFD,
        FAULTY_THREAD, FAULTY_POLL, FAULTY_OPEN_MAPS,
    };
    GuardScene *scene = guard_scene_new(kind, ALL);
    int nb_of[FAULTY_CALL__MAX] = { 0 };

    if (!scene) {
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        for (FaultyCall call = 0; call < FAULTY_CALL__MAX; call++) {
            const int nb = run_each(scene, &operations[i], call);

            nb_of[call] += nb;
            if (nb) {
                g_test_message("%s: call %d failed %d times",
                               operations[i].name, call, nb);
            }
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(always); i++) {
        g_assert_cmpint(nb_of[always[i]], >, 0);
    }
    faulty_host_recover();
    guard_scene_free(scene);
}

static void test_some(const void *kind)
{
    GuardScene *scene = guard_scene_new(kind, ALL);
    const uint64_t nb_runs = guard_scale(40, 2000);
    int nb = 0;

    if (!scene) {
        return;
    }
    for (uint64_t i = 0; i < nb_runs; i++) {
        const Operation *op =
            &operations[g_test_rand_int_range(0, ARRAY_SIZE(operations))];

        begin(scene, op);
        for (FaultyCall call = 0; call < FAULTY_CALL__MAX; call++) {
            /* What cannot be mapped again stays, see below. */
            if (call != FAULTY_MMAP_FIXED) {
                faulty_host_refuse_some(call, 2, error_of(call));
            }
        }
        run(scene, op);
        for (FaultyCall call = 0; call < FAULTY_CALL__MAX; call++) {
            nb += faulty_host_count(call);
        }
    }
    g_test_message("%d calls have failed", nb);
    g_assert_cmpint(nb, >, nb_runs);
    faulty_host_recover();
    guard_scene_free(scene);
}

static void *touch_thread(void *opaque)
{
    guard_scene_read(opaque, 15 * BLOCK);
    return NULL;
}

/*
 * Other memory is in the place of what cannot be lent, but is not watched at
 * once, and what was there cannot be mapped again.
 */
static void test_substitute_stays(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[1], ALL);

    if (!scene) {
        return;
    }
    g_assert_cmpstr(scene->kind->name, ==, "memfd");
    qatomic_set(&scene->map_left, 0);
    faulty_host_refuse(FAULTY_ZEROPAGE, 0, 1, ENOMEM);
    faulty_host_refuse(FAULTY_REGISTER, 0, 1, ENOMEM);
    g_thread_join(g_thread_new("touch", touch_thread, scene));
    g_assert_cmpint(faulty_host_count(FAULTY_REGISTER), ==, 1);
    qatomic_set(&scene->map_left, INT_MAX);
    assert_recovered(scene, EVERY);
    g_assert_cmpint(virtio_mem_guard_pause(scene->guard), ==, 0);
    assert_recovered(scene, EVERY);
    faulty_host_recover();
    guard_scene_free(scene);
}

/* What was mapped again to be released is watched again when it is not. */
static void test_release_in_vain(void)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[1], ALL);

    if (!scene) {
        return;
    }
    begin(scene, &operations[0]);
    faulty_host_refuse(FAULTY_ZEROPAGE, 0, 1, ENOMEM);
    g_thread_join(g_thread_new("touch", touch_thread, scene));
    g_assert_cmpint(faulty_host_count(FAULTY_ZEROPAGE), ==, 1);
    faulty_host_refuse(FAULTY_UNREGISTER, 0, 1, ENOMEM);
    g_assert_cmpint(do_release(scene), ==, -ENOMEM);
    faulty_host_recover();
    g_assert_true(virtio_mem_guard_is_active(scene->guard));
    guard_scene_assert_guarded(scene, BEFORE);
    guard_scene_free(scene);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    guard_scene_add_tests("guard/refused/each", 0, 2 * MiB, test_each);
    guard_scene_add_tests("guard/refused/some", 0, 2 * MiB, test_some);
    g_test_add_func("/virtio-mem/guard/refused/substitute-stays",
                    test_substitute_stays);
    g_test_add_func("/virtio-mem/guard/refused/release-in-vain",
                    test_release_in_vain);
    return g_test_run();
}
