/*
 * virtio-mem: the door, for what arrives by migration and for what is given
 * back without being unplugged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/virtio/virtio-mem-plug.h"
#include "virtio-mem-fake-host.h"

#define FIRST_RUN_OF_SOME ".##..................."

/* --- incoming migration --- */

static VirtIOMEMBlocks *draw_blocks(const char *drawing)
{
    VirtIOMEMBlocks *blocks = virtio_mem_blocks_new(strlen(drawing));

    for (uint64_t i = 0; drawing[i]; i++) {
        if (drawing[i] == '#') {
            virtio_mem_blocks_set_plugged(blocks, (VirtIOMEMRange) { i, 1 });
        }
    }
    return blocks;
}

/* Whether it succeeded; what was reported must fit to that. */
static bool plug_loaded(FakeHost *host, const char *drawing, bool populate)
{
    VirtIOMEMBlocks *loaded = draw_blocks(drawing);
    Error *err = NULL;
    int ret = -ENOMEM;

    if (!populate || !virtio_mem_populate_loaded(&host->vmem, loaded, &err)) {
        ret = virtio_mem_plug_loaded(&host->vmem, loaded, &err);
    }

    g_assert_cmpint(ret, <=, 0);
    g_assert_cmpint(ret < 0, ==, err != NULL);
    g_assert_cmpuint(fake_host_generation(host), ==, 0);
    g_assert_cmpuint(host->books.told_size, ==, 0);
    error_free(err);
    virtio_mem_blocks_free(loaded);
    virtio_mem_tell_size(&host->vmem);
    return !ret;
}

static void test_loaded(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    g_assert_true(plug_loaded(&host, FAKE_SOME, false));
    g_assert_cmpstr(host.log->str, ==,
                    "map 1+2, ask 1+2, ask 1+2, ask 1+2, "
                    "map 14+5, ask 14+5, ask 14+5, ask 14+5, size 7, ");
    fake_host_assert_drawing(&host, FAKE_SOME);
    fake_host_assert_agreement(&host);
    fake_host_destroy(&host);
}

static void test_loaded_populated(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    g_assert_true(plug_loaded(&host, FAKE_SOME, true));
    g_assert_cmpstr(host.log->str, ==,
                    "populate 1+2, populate 14+5, "
                    "map 1+2, ask 1+2, ask 1+2, ask 1+2, "
                    "map 14+5, ask 14+5, ask 14+5, ask 14+5, size 7, ");
    for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
        g_assert_cmpint(host.books.memory[i], ==, FAKE_SOME[i] == '#');
    }
    fake_host_assert_agreement(&host);
    fake_host_destroy(&host);
}

static void test_loaded_nothing(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    g_assert_true(plug_loaded(&host, FAKE_EMPTY, true));
    g_assert_cmpstr(host.log->str, ==, "size 0, ");
    fake_host_destroy(&host);
}

/* Runs before the one that was refused stay plugged, and all agree on that. */
static void test_loaded_refused(void)
{
    const unsigned first_run = 2 + FAKE_LISTENERS; /* after two populates */

    for (unsigned n = 1; n <= first_run + FAKE_LISTENERS; n++) {
        FakeHost host;

        fake_host_draw(&host, FAKE_EMPTY);
        fake_host_start_guard(&host);
        fake_host_refuse_at(&host, n);
        g_assert_false(plug_loaded(&host, FAKE_SOME, true));

        g_assert_true(fake_host_has_refused(&host));
        fake_host_assert_drawing(&host, n <= first_run ? FAKE_EMPTY
                                                       : FIRST_RUN_OF_SOME);
        /* The load has failed: who would give memory back to the host? */
        memset(host.books.memory, 0, sizeof(host.books.memory));
        fake_host_assert_agreement(&host);
        fake_host_destroy(&host);
    }
}

/* Content that arrived before its blocks are plugged is never discarded. */
static void test_loaded_keeps_content(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    memset(&host.books.memory[14], true, 5);
    g_assert_true(plug_loaded(&host, FAKE_SOME, false));
    g_assert_null(strstr(host.log->str, "discard"));
    for (uint64_t i = 14; i < 19; i++) {
        g_assert_true(host.books.memory[i]);
    }
    fake_host_destroy(&host);
}

/* --- discarding without unplugging --- */

static void test_discard_unplugged(void)
{
    FakeBooks before;
    FakeHost host;

    fake_host_draw(&host, FAKE_SOME);
    before = host.books;
    memset(host.books.memory, true, sizeof(host.books.memory));

    g_assert_cmpint(virtio_mem_discard_unplugged(&host.vmem), ==, 0);

    g_assert_cmpstr(host.log->str, ==,
                    "discard 0+1, discard 3+11, discard 19+3, ");
    fake_host_assert_books(&host, &before, false);
    fake_host_assert_agreement(&host);
    fake_host_destroy(&host);
}

static void test_discard_unplugged_refused(void)
{
    for (unsigned n = 1; n <= 3; n++) {
        FakeBooks before;
        FakeHost host;

        fake_host_draw(&host, FAKE_SOME);
        memset(host.books.memory, true, sizeof(host.books.memory));
        before = host.books;
        fake_host_refuse_at(&host, n);
        g_assert_cmpint(virtio_mem_discard_unplugged(&host.vmem), ==, -EIO);

        g_assert_cmpuint(host.nb_fallible, ==, n);
        fake_host_assert_drawing(&host, FAKE_SOME);
        fake_host_assert_books(&host, &before, true);
        for (uint64_t i = 0; i < FAKE_BLOCKS; i++) {
            g_assert_true(host.books.memory[i] || FAKE_SOME[i] != '#');
        }
        fake_host_destroy(&host);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/door/loaded/run-by-run", test_loaded);
    g_test_add_func("/virtio-mem/door/loaded/populated",
                    test_loaded_populated);
    g_test_add_func("/virtio-mem/door/loaded/nothing", test_loaded_nothing);
    g_test_add_func("/virtio-mem/door/loaded/refused-at-each-step",
                    test_loaded_refused);
    g_test_add_func("/virtio-mem/door/loaded/keeps-content",
                    test_loaded_keeps_content);
    g_test_add_func("/virtio-mem/door/discard-unplugged/all-runs",
                    test_discard_unplugged);
    g_test_add_func("/virtio-mem/door/discard-unplugged/refused-at-each-step",
                    test_discard_unplugged_refused);
    return g_test_run();
}
