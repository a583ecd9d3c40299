/*
 * What can the host do?  Populate memory and give it back as virtio-mem does,
 * by the same system calls in the same slices, but in threads that do nothing
 * else, in a process that does nothing else.
 *
 *     bare-threads KIND SIZE POPULATE-SLICE DISCARD-SLICE THREADS
 *
 * KIND is anonymous, memfd or hugetlb; sizes are in bytes.  Prints how many
 * seconds it took to populate, and to give back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ALIGNMENT           (2ul << 20)     /* of transparent huge pages */
#define MAX_THREADS         64
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static char *area;
static size_t area_size;
static int fd = -1;
static bool is_hugetlb;

/* What all threads do, and where the next slice begins. */
static void (*work)(size_t offset, size_t size);
static size_t slice;
static atomic_size_t next;

static void check(bool is_good, const char *what)
{
    if (!is_good) {
        perror(what);
        exit(1);
    }
}

static void populate(size_t offset, size_t size)
{
    check(!madvise(area + offset, size, MADV_POPULATE_WRITE), "populate");
}

static void discard(size_t offset, size_t size)
{
    if (!is_hugetlb) {
        check(!madvise(area + offset, size, MADV_DONTNEED), "discard");
    }
    if (fd >= 0) {
        check(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         offset, size), "punch a hole");
    }
}

static void *do_slices(void *unused)
{
    size_t offset;

    (void)unused;
    while ((offset = atomic_fetch_add(&next, slice)) < area_size) {
        work(offset, slice < area_size - offset ? slice : area_size - offset);
    }
    return NULL;
}

static double now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double measure(void (*what)(size_t, size_t), size_t slice_size,
                      unsigned nb_threads)
{
    pthread_t threads[MAX_THREADS];
    double start = now();

    work = what;
    slice = slice_size;
    next = 0;
    for (unsigned i = 0; i < nb_threads; i++) {
        check(!pthread_create(&threads[i], NULL, do_slices, NULL), "thread");
    }
    for (unsigned i = 0; i < nb_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    return now() - start;
}

/* As QEMU maps memory of guests. */
static void map(const char *kind)
{
    const int private = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *reserved = mmap(NULL, area_size + ALIGNMENT, PROT_NONE, private, -1,
                          0);

    check(reserved != MAP_FAILED, "reserve");
    is_hugetlb = !strcmp(kind, "hugetlb");
    if (strcmp(kind, "anonymous")) {
        fd = memfd_create(kind, is_hugetlb ? MFD_HUGETLB : 0);
        check(fd >= 0 && !ftruncate(fd, area_size), "memfd");
    }
    reserved += -(uintptr_t)reserved % ALIGNMENT;
    area = mmap(reserved, area_size, PROT_READ | PROT_WRITE,
                MAP_FIXED | (fd < 0 ? private : MAP_SHARED), fd, 0);
    check(area != MAP_FAILED, "map");
    if (fd < 0) {
        check(!madvise(area, area_size, MADV_HUGEPAGE), "huge pages");
    }
}

int main(int argc, char **argv)
{
    unsigned nb_threads = argc == 6 ? atol(argv[5]) : 0;
    double populated, discarded;

    if (!nb_threads || nb_threads > MAX_THREADS) {
        fprintf(stderr, "see the start of bare-threads.c\n");
        return 2;
    }
    area_size = atol(argv[2]);
    map(argv[1]);
    populated = measure(populate, atol(argv[3]), nb_threads);
    discarded = measure(discard, atol(argv[4]), nb_threads);
    printf("%f %f\n", populated, discarded);
    return 0;
}
