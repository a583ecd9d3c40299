/*
 * The host's pool of huge pages of 2 MiB, for one test at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/file.h>
#include "libqtest.h"
#include "virtio-mem-huge-pages.h"

#define HUGE_DIR "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static long huge_saved = -1;
static int huge_lock = -1;

long virtio_mem_huge_read(const char *name)
{
    g_autofree char *path = g_strconcat(HUGE_DIR, name, NULL);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? atol(text) : -1;
}

static bool huge_write(long pages)
{
    FILE *file = fopen(HUGE_DIR "nr_hugepages", "w");
    bool ok = file && fprintf(file, "%ld\n", pages) > 0;

    return file && !fclose(file) && ok;
}

static void huge_restore(void *unused)
{
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
