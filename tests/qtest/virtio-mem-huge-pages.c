/*
 * The host's pool of huge pages of 2 MiB, for one test at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/file.h>
#include <sys/mman.h>
#include "qemu/units.h"
#include "libqtest.h"
#include "virtio-mem-huge-pages.h"

#define HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define HUGE_SIZE (2 * MiB)

static long huge_saved = -1;
static long huge_saved_overcommit;
static void *huge_extra = MAP_FAILED;
static int huge_lock = -1;

long virtio_mem_huge_read(const char *name)
{
    g_autofree char *path = g_strconcat(HUGE_DIR, name, NULL);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? atol(text) : -1;
}

static bool huge_write_to(const char *name, long pages)
{
    g_autofree char *path = g_strconcat(HUGE_DIR, name, NULL);
    FILE *file = fopen(path, "w");
    bool ok = file && fprintf(file, "%ld\n", pages) > 0;

    return file && !fclose(file) && ok;
}

static bool huge_write(long pages)
{
    return huge_write_to("nr_hugepages", pages);
}

static void huge_restore(void *unused)
{
    virtio_mem_huge_give_extra();
    huge_write_to("nr_overcommit_hugepages", huge_saved_overcommit);
    huge_write(huge_saved);
}

/* Other tests that change the pool hold the same lock meanwhile. */
static void huge_take_lock(void)
{
    huge_lock = open(HUGE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (huge_lock >= 0) {
        g_assert_cmpint(flock(huge_lock, LOCK_EX), ==, 0);
    }
}

/* If there is a pool. */
static void huge_begin(void)
{
    huge_take_lock();
    huge_saved = virtio_mem_huge_read("nr_hugepages");
    huge_saved_overcommit = virtio_mem_huge_read("nr_overcommit_hugepages");
    if (huge_saved >= 0) {
        qtest_add_abrt_handler(huge_restore, huge_restore);
    }
}

bool virtio_mem_huge_make_free(long pages)
{
    long wanted;

    if (huge_saved < 0) {
        huge_begin();
    }
    wanted = virtio_mem_huge_read("nr_hugepages") + pages -
             virtio_mem_huge_read("free_hugepages");
    if (huge_saved < 0 || !huge_write(wanted) ||
        virtio_mem_huge_read("free_hugepages") != pages) {
        virtio_mem_huge_done();
        g_test_skip("cannot change the pool of huge pages, " HUGE_DIR);
        return false;
    }
    return true;
}

bool virtio_mem_huge_take_extra(void)
{
    const long free_pages = virtio_mem_huge_read("free_hugepages");

    g_assert_cmpint(virtio_mem_huge_read("resv_hugepages"), ==, free_pages);
    if (huge_write_to("nr_overcommit_hugepages", 1)) {
        huge_extra = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    }
    if (huge_extra != MAP_FAILED) {
        memset(huge_extra, 1, HUGE_SIZE);
    }
    huge_write_to("nr_overcommit_hugepages", 0);
    return virtio_mem_huge_read("surplus_hugepages") == 1;
}

void virtio_mem_huge_give_extra(void)
{
    if (huge_extra != MAP_FAILED) {
        munmap(huge_extra, HUGE_SIZE);
        huge_extra = MAP_FAILED;
    }
}

void virtio_mem_huge_done(void)
{
    if (huge_saved >= 0) {
        huge_restore(NULL);
        qtest_remove_abrt_handler(huge_restore);
        huge_saved = -1;
    }
    if (huge_lock >= 0) {
        close(huge_lock);
        huge_lock = -1;
    }
}
