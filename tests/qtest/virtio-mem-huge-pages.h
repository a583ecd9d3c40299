/*
 * The host's pool of huge pages of 2 MiB, for one test at a time.
 *
 * The pool is put back as it was when the test is done, and when it fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_HUGE_PAGES_H
#define TESTS_QTEST_VIRTIO_MEM_HUGE_PAGES_H

/*
 * Let exactly @pages be free, now or again; false, the pool as it was, and the
 * test skipped, if that cannot be.  Waits for other tests that changed it.
 */
bool virtio_mem_huge_make_free(long pages);
/*
 * Have one page that the pool does not have, until it is given to the pool.  A
 * page that QEMU frees meanwhile is the host's, whoever had reserved it.
 */
bool virtio_mem_huge_take_extra(void);
void virtio_mem_huge_give_extra(void);
/* Put the pool back, if that has not happened yet. */
void virtio_mem_huge_done(void);

/* A number of the pool's, such as "free_hugepages"; -1 if there is no pool. */
long virtio_mem_huge_read(const char *name);

#endif
