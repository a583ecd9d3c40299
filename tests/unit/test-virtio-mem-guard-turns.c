/*
 * Everybody gets on: an access to memory out of reach that needs no more than
 * four pages ends, whatever other threads do.
 *
 * How long it takes is printed, and depends on the host; here it has to end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "virtio-mem-guard-scene.h"
#include <sys/mman.h>

/* So many in vain that only a thread that never gets on fails. */
#define TURNS_PATIENCE_US (60 * G_USEC_PER_SEC)

typedef struct Actor {
    GuardScene *scene;
    GThread *thread;
    GRand *rand;
    uint64_t nb_done;           /* atomic */
} Actor;

static int stop;                /* atomic */

static void start_actors(GuardScene *scene, Actor *actors, size_t nb,
                         void *(*fn)(void *))
{
    qatomic_set(&stop, false);
    for (size_t i = 0; i < nb; i++) {
        actors[i] = (Actor) {
            .scene = scene, .rand = g_rand_new_with_seed(i),
        };
        actors[i].thread = g_thread_new("actor", fn, &actors[i]);
    }
}

static void stop_actors(Actor *actors, size_t nb)
{
    qatomic_set(&stop, true);
    for (size_t i = 0; i < nb; i++) {
        g_thread_join(actors[i].thread);
        g_rand_free(actors[i].rand);
    }
}

/* --- many threads, four pages each --- */

/* One instruction that reads across a border and writes across another. */
static void *copier(void *opaque)
{
    Actor *actor = opaque;
    const uint64_t half = actor->scene->area.size / 2;

    while (!qatomic_read(&stop)) {
        const uint64_t page = g_rand_int(actor->rand) % (half / 4096 - 1);
        uint8_t *from = actor->scene->host + page * 4096 + 4092;
        uint8_t *to = from + half;

#ifdef __x86_64__
        asm volatile("movsq" : "+S" (from), "+D" (to) : : "memory");
#else
        memcpy(to, from, 8);
#endif
        qatomic_inc(&actor->nb_done);
    }
    return NULL;
}

static void check_copiers(size_t nb)
{
    GuardScene *scene = guard_scene_new(&guard_kinds[0], 8 * GiB);
    g_autofree Actor *actors = g_new0(Actor, nb);
    const int64_t start = g_get_monotonic_time();
    uint64_t nb_done = 0;
    size_t nb_slow = nb, i;

    if (!scene) {
        return;
    }
    start_actors(scene, actors, nb, copier);
    while (nb_slow) {
        g_assert_cmpint(g_get_monotonic_time() - start, <, TURNS_PATIENCE_US);
        g_usleep(1000);
        for (i = 0, nb_slow = 0; i < nb; i++) {
            nb_slow += qatomic_read(&actors[i].nb_done) < 3;
        }
    }
    for (i = 0; i < nb; i++) {
        nb_done += qatomic_read(&actors[i].nb_done);
    }
    g_test_message("%zu threads: %" PRIu64 " accesses/s", nb,
                   nb_done * G_USEC_PER_SEC /
                   (g_get_monotonic_time() - start));
    stop_actors(actors, nb);
    guard_scene_free(scene);
}

static void test_24_threads(void)
{
    check_copiers(24);
}

static void test_48_threads(void)
{
    check_copiers(48);
}

static void test_200_threads(void)
{
    check_copiers(200);
}

/* --- one that obeys beside rogues --- */

static void *rogue(void *opaque)
{
    Actor *actor = opaque;
    const GuardScene *scene = actor->scene;
    const uint64_t page_size = scene->area.page_size;

    while (!qatomic_read(&stop)) {
        const uint64_t page = g_rand_int(actor->rand) % 16;

        qatomic_set(scene->host + page * page_size, 1);
        qatomic_inc(&actor->nb_done);
    }
    return NULL;
}

static void wait_for_rogues(const Actor *actors, size_t nb)
{
    const int64_t start = g_get_monotonic_time();

    for (size_t i = 0; i < nb; i++) {
        while (!qatomic_read(&actors[i].nb_done)) {
            g_assert_cmpint(g_get_monotonic_time() - start, <,
                            TURNS_PATIENCE_US);
            g_usleep(100);
        }
    }
}

/* As long as a holder of the BQL may have to wait: memory, then the lock. */
static void check_victim(const GuardKind *kind, size_t nb_rogues)
{
    const uint64_t page_size = kind->page_size;
    GuardScene *scene = guard_scene_new(kind, 64 * MAX(page_size, 2 * MiB));
    g_autofree Actor *rogues = g_new0(Actor, nb_rogues);
    int64_t before, longest_read = 0, longest_plug = 0;
    uint64_t i, word;

    if (!scene) {
        return;
    }
    start_actors(scene, rogues, nb_rogues, rogue);
    wait_for_rogues(rogues, nb_rogues);
    for (i = 0; i < guard_scale(100, 2000); i++) {
        before = g_get_monotonic_time();
        memcpy(&word, scene->host + (17 + i % 14) * page_size - 4, 8);
        g_assert_cmphex(word, ==, 0);
        longest_read = MAX(longest_read, g_get_monotonic_time() - before);

        before = g_get_monotonic_time();
        guard_scene_plug(scene, 63, 1);
        guard_scene_unplug(scene, 63, 1);
        longest_plug = MAX(longest_plug, g_get_monotonic_time() - before);
        g_assert_true(virtio_mem_guard_check(scene->guard));
        g_usleep(1000);
    }
    g_test_message("%zu rogues: longest access %.1f ms, plug and unplug %.1f"
                   " ms", nb_rogues, longest_read / 1000.0,
                   longest_plug / 1000.0);
    g_assert_cmpint(MAX(longest_read, longest_plug), <, TURNS_PATIENCE_US);
    stop_actors(rogues, nb_rogues);
    guard_scene_free(scene);
}

static void test_16_rogues(const void *opaque)
{
    check_victim(opaque, 16);
}

/* --- pages of other sizes, made of ordinary ones --- */

#define NB_SIZED 64

static int map_anonymous(void *opaque, uint64_t offset, uint64_t size)
{
    const GuardScene *scene = opaque;

    return mmap(scene->host + offset, size, PROT_READ | PROT_WRITE,
                MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0) == MAP_FAILED ? -errno : 0;
}

/* To an address that is a multiple of the size of such pages. */
static void align_area(GuardScene *scene, uint64_t page_size)
{
    const uint64_t size = scene->area.size;
    uint8_t *room = mmap(NULL, size + page_size, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    g_assert_true(room != MAP_FAILED);
    scene->host = mremap(scene->host, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                         QEMU_ALIGN_PTR_UP(room, page_size));
    g_assert_true(scene->host != MAP_FAILED);
    scene->area.host = scene->host;
}

/* As if pages had that size, and they could be mapped again. */
static GuardScene *start_with_size(uint64_t page_size, bool reserved)
{
    GuardScene *scene = guard_scene_new_unguarded(&guard_kinds[0],
                                                  NB_SIZED * page_size);

    align_area(scene, page_size);
    madvise(scene->host, scene->area.size, MADV_NOHUGEPAGE);
    scene->area.page_size = page_size;
    scene->area.block_size = page_size;
    scene->area.map = map_anonymous;
    scene->area.reserved = reserved;
    if (!guard_scene_start(scene, false)) {
        guard_scene_free(scene);
        return NULL;
    }
    return scene;
}

/* One for each page, and each uses all. */
static void *sized_rogue(void *opaque)
{
    Actor *actor = opaque;
    const GuardScene *scene = actor->scene;

    while (!qatomic_read(&stop)) {
        qatomic_set(scene->host + g_rand_int(actor->rand) % NB_SIZED *
                    scene->area.page_size, 1);
        qatomic_inc(&actor->nb_done);
    }
    return NULL;
}

static void run_rogues(GuardScene *scene, uint64_t nb_pages)
{
    Actor rogues[NB_SIZED];
    const int64_t start = g_get_monotonic_time();

    start_actors(scene, rogues, NB_SIZED, sized_rogue);
    for (size_t i = 0; i < NB_SIZED; i++) {
        while (qatomic_read(&rogues[i].nb_done) < nb_pages) {
            g_assert_cmpint(g_get_monotonic_time() - start, <,
                            TURNS_PATIENCE_US);
            g_usleep(100);
        }
    }
    stop_actors(rogues, NB_SIZED);
    g_assert_true(virtio_mem_guard_check(scene->guard));
}

/* Of 1 MiB, as on s390x, no more are lent than of other huge pages. */
static void test_pages_of_1m(void)
{
    GuardScene *scene = start_with_size(1 * MiB, false);
    VirtIOMEMGuardLent lent;

    if (scene) {
        run_rogues(scene, 8);
        virtio_mem_guard_query_lent(&lent);
        g_assert_cmpuint(lent.peak, >, 0);
        g_assert_cmpuint(lent.peak, <=, 16);
        guard_scene_free(scene);
    }
}

/* Where other memory costs the mapping its pages, there are turns, if slow. */
static void test_reserved_pages(void)
{
    GuardScene *scene = start_with_size(128 * MiB, true);
    uint64_t before;

    if (scene) {
        before = guard_scene_memory(scene);
        qatomic_set(scene->host, 1);
        g_assert_cmpuint(guard_scene_memory(scene), >=, before + 127 * MiB);
        guard_scene_free(scene);
    }
}

/* No thread waits for a page that is so large to be cleared for another. */
static void test_larger_pages(const void *opaque)
{
    const uint64_t page_size = GPOINTER_TO_UINT(opaque) * MiB;
    GuardScene *scene = start_with_size(page_size, false);
    uint64_t before;

    if (scene) {
        before = guard_scene_memory(scene);
        run_rogues(scene, 8);
        guard_scene_assert_gain(scene, before, 1 * MiB);
        guard_scene_free(scene);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    guard_scene_add_tests("guard/turns/beside-16-rogues", 0, 2 * MiB,
                          test_16_rogues);
    g_test_add_func("/virtio-mem/guard/turns/pages-of-1m", test_pages_of_1m);
    g_test_add_func("/virtio-mem/guard/turns/reserved-pages-of-128m",
                    test_reserved_pages);
    g_test_add_data_func("/virtio-mem/guard/turns/pages-of-128m",
                         GUINT_TO_POINTER(128), test_larger_pages);
    g_test_add_data_func("/virtio-mem/guard/turns/pages-of-512m",
                         GUINT_TO_POINTER(512), test_larger_pages);
    g_test_add_func("/virtio-mem/guard/turns/24-threads", test_24_threads);
    g_test_add_func("/virtio-mem/guard/turns/48-threads", test_48_threads);
    g_test_add_func("/virtio-mem/guard/turns/200-threads", test_200_threads);

    return g_test_run();
}
