/*
 * virtio-mem: host work in slices, by several threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "hw/virtio/virtio-mem-scaling.h"
#include "virtio-mem-fake-work.h"

static void test_once_each(void)
{
    for (unsigned int nb_threads = 1; nb_threads <= 4; nb_threads++) {
        const VirtIOMEMRange within = { 3, FAKE_WORK_BLOCKS - 5 };

        for (int plugged = 0; plugged <= 1; plugged++) {
            FakeWork fake;

            fake_work_init(&fake, nb_threads);
            fake_work_plug(&fake, 2, 70);
            fake_work_plug(&fake, 100, 1);
            fake_work_plug(&fake, 102, 1);
            fake_work_plug(&fake, 250, 6);
            g_assert_cmpint(fake_work_discard(&fake, within, plugged), ==, 0);
            fake_work_assert_touched(&fake, within, plugged);
            fake_work_destroy(&fake);
        }
    }
}

static void test_nothing(void)
{
    FakeWork fake;

    fake_work_init(&fake, 2);
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, true), ==, 0);
    g_assert_cmpuint(fake.nb_slices, ==, 0);
    fake_work_destroy(&fake);
}

static void test_short_slices(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, 0);
    g_assert_cmpuint(fake.max_slice, ==, 2 * MiB);
    fake_work_assert_touched(&fake, FAKE_WORK_ALL, false);

    fake.max_slice = 0;
    fake.memdev.share = true;
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    g_assert_cmpuint(fake.max_slice, ==, 32 * MiB);
    fake_work_destroy(&fake);
}

static void test_huge_pages(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    fake.page_size = 128 * MiB;
    fake_work_plug(&fake, 64, 64);
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    fake_work_assert_touched(&fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&fake);
}

/* Threads would wait for each other; until it turns out that they do not. */
static void test_huge_pages_by_one_thread(void)
{
    FakeWork fake;

    fake_work_await_idle_threads();
    fake_work_init(&fake, 2);
    fake.page_size = 2 * MiB;
    fake_work_realize_again(&fake);
    fake.is_slow = true;
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);

    while (fake.vmem.scaling[false].nb_threads == 1) {
        g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    }
    g_assert_cmpuint(fake.max_working, ==, 2);
    fake_work_destroy(&fake);
}

/* One that only waits for the others leaves, in the middle of the work. */
static void test_threads_that_gain_nothing(void)
{
    FakeWork fake;

    fake_work_await_idle_threads();
    fake_work_init(&fake, 2);
    fake.is_serial = true;
    while (fake.vmem.scaling[true].nb_threads == 2) {
        g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, 0);
    }
    g_assert_cmpuint(fake.max_working, ==, 2);

    fake.vmem.scaling[true].next_try_us = INT64_MAX;
    fake.max_working = 0;
    g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);
    fake_work_destroy(&fake);
}

/* Each thread waits in its slice for the others. */
static void test_parallel(void)
{
    FakeWork fake;

    fake_work_await_idle_threads();
    fake_work_init(&fake, 2);
    fake.wait_for = 2;
    g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 2);
    g_assert_cmpuint(fake.nb_contexts, ==, 0);

    fake.nb_slices = 0;
    fake.wait_for = 2;
    fake_work_use_context(&fake);
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    g_assert_cmpuint(fake.nb_contexts, ==, 1);
    fake_work_destroy(&fake);
}

/* No thread without a slice for it, and none beyond what was asked for. */
static void test_one_thread(void)
{
    FakeWork fake;

    fake_work_init(&fake, 8);
    g_assert_cmpint(fake_work_populate(&fake, (VirtIOMEMRange) { 1, 1 }),
                    ==, 0);
    fake.vmem.prealloc_threads = 1;
    g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, 0);
    g_assert_cmpuint(fake.max_working, ==, 1);
    fake_work_destroy(&fake);
}

static void test_failure_ends_it(void)
{
    for (unsigned int nb_threads = 1; nb_threads <= 2; nb_threads++) {
        FakeWork fake;

        fake_work_init(&fake, nb_threads);
        fake.refuse_at = 3;
        g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, -EIO);
        g_assert_cmpuint(fake.nb_slices, >=, 3);
        g_assert_cmpuint(fake.nb_slices, <, 3 + nb_threads);
        fake_work_destroy(&fake);
    }
}

/* What was begun to be given back is given back, whoever waits. */
static void test_drain(void)
{
    FakeWork fake;

    fake_work_init(&fake, 1);
    fake.drain_at = 2;
    g_assert_cmpint(fake_work_populate(&fake, FAKE_WORK_ALL), ==, -ECANCELED);
    g_assert_cmpuint(fake.nb_slices, ==, 2);

    memset(fake.touched, 0, sizeof(fake.touched));
    g_assert_cmpint(fake_work_discard(&fake, FAKE_WORK_ALL, false), ==, 0);
    fake_work_assert_touched(&fake, FAKE_WORK_ALL, false);
    fake_work_destroy(&fake);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/virtio-mem/work/each-part-once", test_once_each);
    g_test_add_func("/virtio-mem/work/nothing-to-do", test_nothing);
    g_test_add_func("/virtio-mem/work/short-slices", test_short_slices);
    g_test_add_func("/virtio-mem/work/slices-are-whole-pages",
                    test_huge_pages);
    g_test_add_func("/virtio-mem/work/huge-pages-by-one-thread",
                    test_huge_pages_by_one_thread);
    g_test_add_func("/virtio-mem/work/several-threads", test_parallel);
    g_test_add_func("/virtio-mem/work/threads-that-gain-nothing",
                    test_threads_that_gain_nothing);
    g_test_add_func("/virtio-mem/work/no-idle-threads", test_one_thread);
    g_test_add_func("/virtio-mem/work/failure-ends-it", test_failure_ends_it);
    g_test_add_func("/virtio-mem/work/drain-cancels-populating-only",
                    test_drain);
    return g_test_run();
}
