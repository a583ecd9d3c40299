/*
 * virtio-mem: pages lent by turns, without a kernel that hands them out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "../../hw/virtio/virtio-mem-guard-ring.h"
#include <sys/ioctl.h>
#include <sys/mman.h>

#define NB_PAGES 32
#define ANN 11                  /* threads */
#define BOB 12

typedef struct Scene {
    VirtIOMEMGuardArea area;
    VirtIOMEMGuardMap map;
    VirtIOMEMGuardRing ring;
    bool discarded[NB_PAGES];
} Scene;

/* --- fakes --- */

static struct {
    int errors[4];              /* of the next pages asked for; or 0 */
    unsigned at;
    unsigned nb_wakeups;
} kernel;

int uffd_register_memory(int uffd_fd, void *addr, uint64_t length,
                         uint64_t mode, uint64_t *ioctls)
{
    return 0;
}

int uffd_unregister_memory(int uffd_fd, void *addr, uint64_t length)
{
    return 0;
}

int uffd_wakeup(int uffd_fd, void *addr, uint64_t length)
{
    kernel.nb_wakeups++;
    return 0;
}

/* In place of libc's: only pages of zeros are asked for. */
int ioctl(int fd, unsigned long request, ...)
{
    g_assert_cmphex(request, ==, UFFDIO_ZEROPAGE);
    if (kernel.at < ARRAY_SIZE(kernel.errors) && kernel.errors[kernel.at]) {
        errno = kernel.errors[kernel.at++];
        return -1;
    }
    return 0;
}

static void kernel_refuse(int first, int second, int third)
{
    kernel.errors[0] = first;
    kernel.errors[1] = second;
    kernel.errors[2] = third;
    kernel.at = 0;
    kernel.nb_wakeups = 0;
}

static int scene_discard(void *opaque, uint64_t offset, uint64_t size)
{
    Scene *scene = opaque;

    g_assert_cmpuint(size, ==, scene->area.page_size);
    scene->discarded[offset / size] = true;
    return 0;
}

/* @page_size chooses the kind of ring; the pages are small ones. */
static void scene_init(Scene *scene, uint64_t page_size)
{
    const uint64_t small = qemu_real_host_page_size();

    *scene = (Scene) {
        .area = {
            .size = NB_PAGES * small, .page_size = small,
            .block_size = 2 * small, .shared = true,
            .discard = scene_discard, .opaque = scene,
        },
    };
    scene->area.host = mmap(NULL, scene->area.size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert_true(scene->area.host != MAP_FAILED);
    virtio_mem_guard_map_init(&scene->map, -1, &scene->area);
    g_assert_cmpint(virtio_mem_guard_map_resume(&scene->map), ==, 0);
    virtio_mem_guard_ring_init(&scene->ring, -1,
                               virtio_mem_guard_ring_kind(page_size));
    kernel_refuse(0, 0, 0);
}

static void scene_take_back(Scene *scene, uint64_t page, uint64_t nb)
{
    virtio_mem_guard_ring_take_back(&scene->ring, &scene->map,
                                    page * scene->area.page_size,
                                    nb * scene->area.page_size);
    g_assert_true(virtio_mem_guard_ring_check(&scene->ring));
}

static void scene_destroy(Scene *scene)
{
    scene_take_back(scene, 0, NB_PAGES);
    g_assert_cmpuint(scene->ring.nb_lent, ==, 0);
    virtio_mem_guard_map_pause(&scene->map);
    virtio_mem_guard_map_cleanup(&scene->map);
    munmap(scene->area.host, scene->area.size);
}

static VirtIOMEMGuardSlot *find(Scene *scene, uint32_t thread, int64_t now,
                                bool may_begin)
{
    return virtio_mem_guard_ring_find(&scene->ring, thread, now, may_begin);
}

/* Lend it in the slot that may be used now. */
static int lend(Scene *scene, uint32_t thread, uint64_t page, int64_t now)
{
    VirtIOMEMGuardSlot *slot = find(scene, thread, now, true);
    int ret;

    g_assert_nonnull(slot);
    ret = virtio_mem_guard_ring_lend(&scene->ring, slot, &scene->map,
                                     page * scene->area.page_size + 8, thread,
                                     now);
    g_assert_true(virtio_mem_guard_ring_check(&scene->ring));
    return ret;
}

static void assert_discarded(Scene *scene, uint64_t page)
{
    for (uint64_t i = 0; i < NB_PAGES; i++) {
        g_assert_cmpint(scene->discarded[i], ==, i == page);
        scene->discarded[i] = false;
    }
}

/* --- tests --- */

/* It is over after its time, and a page within does not make it longer. */
static void test_turn(void)
{
    Scene scene;
    VirtIOMEMGuardSlot *slot;
    int64_t turn;

    scene_init(&scene, 4 * KiB);
    turn = scene.ring.turn;
    g_assert_null(find(&scene, ANN, 1, false));
    g_assert_cmpint(lend(&scene, ANN, 0, 1), ==, 0);
    slot = find(&scene, ANN, turn, false);
    g_assert_nonnull(slot);
    g_assert_null(find(&scene, BOB, turn, false));
    g_assert_true(find(&scene, BOB, turn, true) != slot);
    g_assert_cmpint(lend(&scene, ANN, 1, turn), ==, 0);
    g_assert_null(find(&scene, ANN, turn + 1, false));
    g_assert_true(find(&scene, ANN, turn + 1, true) == slot);
    g_assert_cmpint(lend(&scene, ANN, 2, turn + 1), ==, 0);
    g_assert_true(find(&scene, ANN, 2 * turn, false) == slot);
    g_assert_null(find(&scene, ANN, 2 * turn + 1, false));
    scene_destroy(&scene);
}

/* Where there is one slot, others wait for its turn to end. */
static void test_next(void)
{
    Scene scene;
    int64_t turn;

    scene_init(&scene, 1 * GiB);
    turn = scene.ring.turn;
    g_assert_cmpint(lend(&scene, ANN, 3, 5), ==, 0);
    g_assert_cmpint(virtio_mem_guard_ring_next_turn(&scene.ring), ==,
                    turn + 5);
    g_assert_null(find(&scene, BOB, turn + 4, true));
    g_assert_cmpint(lend(&scene, BOB, 4, turn + 5), ==, 0);
    assert_discarded(&scene, 3);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 1);
    g_assert_nonnull(find(&scene, BOB, turn + 6, false));
    g_assert_null(find(&scene, ANN, turn + 6, true));
    scene_destroy(&scene);
}

/* Of several, that of which the turn ends first. */
static void test_first(void)
{
    Scene scene;
    int64_t turn;

    scene_init(&scene, 1 * MiB);
    turn = scene.ring.turn;
    for (unsigned int i = 0; i < scene.ring.nb_slots; i++) {
        g_assert_cmpint(virtio_mem_guard_ring_next_turn(&scene.ring), ==, 0);
        g_assert_cmpint(lend(&scene, ANN + i, i, 5 + i), ==, 0);
    }
    g_assert_cmpuint(scene.ring.nb_slots, >, 1);
    g_assert_cmpint(virtio_mem_guard_ring_next_turn(&scene.ring), ==,
                    turn + 5);
    g_assert_cmpint(lend(&scene, ANN, 9, turn + 9), ==, 0);
    g_assert_cmpint(virtio_mem_guard_ring_next_turn(&scene.ring), ==,
                    turn + 6);
    scene_destroy(&scene);
}

/* A slot that was emptied is the next thread's, for a turn of its own. */
static void test_emptied(void)
{
    Scene scene;
    int64_t turn;

    scene_init(&scene, 1 * GiB);
    turn = scene.ring.turn;
    g_assert_cmpint(lend(&scene, ANN, 0, 1), ==, 0);
    scene_take_back(&scene, 0, 1);
    g_assert_cmpint(virtio_mem_guard_ring_next_turn(&scene.ring), ==, 0);
    g_assert_cmpint(lend(&scene, BOB, 1, 2), ==, 0);
    g_assert_null(find(&scene, ANN, 3, true));
    g_assert_nonnull(find(&scene, BOB, turn + 1, false));
    g_assert_null(find(&scene, BOB, turn + 2, false));
    scene_destroy(&scene);
}

/* The oldest page goes when a slot is full. */
static void test_full(void)
{
    Scene scene;

    scene_init(&scene, 4 * KiB);
    for (unsigned i = 0; i < VIRTIO_MEM_GUARD_SLOT_PAGES; i++) {
        g_assert_cmpint(lend(&scene, ANN, 5 + i, 1), ==, 0);
        assert_discarded(&scene, NB_PAGES);
    }
    g_assert_cmpint(lend(&scene, ANN, 20, 1), ==, 0);
    assert_discarded(&scene, 5);
    g_assert_cmpint(lend(&scene, ANN, 21, 1), ==, 0);
    assert_discarded(&scene, 6);
    g_assert_cmpuint(scene.ring.nb_lent, ==, VIRTIO_MEM_GUARD_SLOT_PAGES);
    scene_destroy(&scene);
}

/* What lies in the range goes, and nothing beside it. */
static void test_take_back(void)
{
    Scene scene;

    scene_init(&scene, 4 * KiB);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(lend(&scene, ANN, 7 + i, 1), ==, 0);
        g_assert_cmpint(lend(&scene, BOB, 17 + i, 1), ==, 0);
    }
    scene_take_back(&scene, 8, 1);
    assert_discarded(&scene, 8);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 5);
    scene_take_back(&scene, 10, 7);
    assert_discarded(&scene, NB_PAGES);
    scene_take_back(&scene, 19, 1);
    assert_discarded(&scene, 19);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 4);
    g_assert_cmpuint(scene.ring.peak_lent, ==, 6);
    scene_destroy(&scene);
}

/* The page table stays as long as it has a page that is lent, the first too. */
static void test_table(void)
{
    Scene scene;
    uint64_t *word;

    scene_init(&scene, 4 * KiB);
    word = scene.area.host;
    g_assert_cmpint(lend(&scene, ANN, 0, 1), ==, 0);
    g_assert_cmpint(lend(&scene, ANN, 1, 1), ==, 0);
    *word = 1;
    scene_take_back(&scene, 1, 1);
    g_assert_cmpuint(*word, ==, 1);
    scene_take_back(&scene, 0, 1);
    g_assert_cmpuint(*word, ==, 0);
    scene_destroy(&scene);
}

/* What is there already is not lent; but the thread has to go on. */
static void test_exists(void)
{
    Scene scene;

    scene_init(&scene, 4 * KiB);
    kernel_refuse(EAGAIN, EINTR, EEXIST);
    g_assert_cmpint(lend(&scene, ANN, 0, 1), ==, 0);
    g_assert_cmpuint(kernel.at, ==, 3);
    g_assert_cmpuint(kernel.nb_wakeups, ==, 1);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 0);
    scene_destroy(&scene);
}

/* A page of another's turn is given back, if the host has no other. */
static void test_no_memory(void)
{
    Scene scene;

    scene_init(&scene, 4 * KiB);
    kernel_refuse(ENOMEM, 0, 0);
    g_assert_cmpint(lend(&scene, ANN, 0, 1), ==, -ENOMEM);
    kernel_refuse(0, 0, 0);
    g_assert_cmpint(lend(&scene, ANN, 1, 1), ==, 0);
    kernel_refuse(ENOMEM, 0, 0);
    g_assert_cmpint(lend(&scene, BOB, 2, 2), ==, 0);
    assert_discarded(&scene, 1);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 1);
    kernel_refuse(ENOMEM, ENOMEM, 0);
    g_assert_cmpint(lend(&scene, ANN, 3, 3), ==, -ENOMEM);
    assert_discarded(&scene, 2);
    g_assert_cmpuint(kernel.at, ==, 2);
    g_assert_cmpuint(scene.ring.nb_lent, ==, 0);
    scene_destroy(&scene);
}

/* Of each size of pages that there is, on any architecture. */
static void test_kinds(void)
{
    static const struct {
        uint64_t page_size;
        unsigned int kind;
    } kinds[] = {
        { 4 * KiB, 0 }, { 16 * KiB, 0 }, { 64 * KiB, 0 }, { 1 * MiB, 1 },
        { 2 * MiB, 1 }, { 16 * MiB, 1 }, { 32 * MiB, 1 }, { 512 * MiB, 2 },
        { 1 * GiB, 2 }, { 2 * GiB, 2 }, { 16 * GiB, 2 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        g_assert_cmpuint(virtio_mem_guard_ring_kind(kinds[i].page_size), ==,
                         kinds[i].kind);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/guard-ring/kinds", test_kinds);
    g_test_add_func("/virtio-mem/guard-ring/turn", test_turn);
    g_test_add_func("/virtio-mem/guard-ring/next-turn", test_next);
    g_test_add_func("/virtio-mem/guard-ring/first-turn", test_first);
    g_test_add_func("/virtio-mem/guard-ring/emptied-slot", test_emptied);
    g_test_add_func("/virtio-mem/guard-ring/full-slot", test_full);
    g_test_add_func("/virtio-mem/guard-ring/take-back", test_take_back);
    g_test_add_func("/virtio-mem/guard-ring/table-in-use", test_table);
    g_test_add_func("/virtio-mem/guard-ring/page-exists", test_exists);
    g_test_add_func("/virtio-mem/guard-ring/no-memory", test_no_memory);
    return g_test_run();
}
