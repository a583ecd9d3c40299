/*
 * A host that refuses what virtio-mem's guard asks of it.
 *
 * A function of a program takes the place of the C library's of that name, for
 * GLib, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "virtio-mem-faulty-host.h"
#include <dlfcn.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* All atomic. */
static struct {
    int error;
    int skip;
    int left;                   /* to refuse */
    int in;                     /* refuse one of so many; 0: see above */
    int nb;                     /* refused */
} faults[FAULTY_CALL__MAX];

static bool faulty_armed[FAULTY_CALL__MAX];

void faulty_host_refuse(FaultyCall call, int skip, int nb, int error)
{
    faults[call].error = error;
    faults[call].skip = skip;
    faults[call].left = nb;
    faults[call].in = 0;
    faults[call].nb = 0;
    qatomic_store_release(&faulty_armed[call], true);
}

void faulty_host_refuse_some(FaultyCall call, int in, int error)
{
    faulty_host_refuse(call, 0, FAULTY_FOR_EVER, error);
    qatomic_set(&faults[call].in, in);
}

void faulty_host_recover(void)
{
    for (int i = 0; i < FAULTY_CALL__MAX; i++) {
        qatomic_set(&faulty_armed[i], false);
    }
}

int faulty_host_count(FaultyCall call)
{
    return qatomic_read(&faults[call].nb);
}

static bool faulty_refuses(FaultyCall call)
{
    const int in = qatomic_read(&faults[call].in);

    if (!qatomic_load_acquire(&faulty_armed[call]) ||
        qatomic_fetch_dec(&faults[call].skip) > 0 ||
        (in && g_random_int_range(0, in)) ||
        qatomic_fetch_dec(&faults[call].left) <= 0) {
        return false;
    }
    qatomic_inc(&faults[call].nb);
    errno = faults[call].error;
    return true;
}

static void *faulty_real(const char *name)
{
    void *real = dlsym(RTLD_NEXT, name);

    g_assert_nonnull(real);
    return real;
}

/* --- the calls --- */

static int (*real_ioctl)(int, unsigned long, ...);

/* Out of memory halfway. */
static int faulty_do_half(int fd, unsigned long request, void *arg)
{
    const int error = errno;

    if (error == ENOMEM && request == UFFDIO_REGISTER) {
        struct uffdio_register half = *(struct uffdio_register *)arg;

        half.range.len = QEMU_ALIGN_DOWN(half.range.len / 2, 2 << 20);
        if (half.range.len) {
            real_ioctl(fd, request, &half);
        }
    } else if (error == ENOMEM && request == UFFDIO_UNREGISTER) {
        struct uffdio_range half = *(struct uffdio_range *)arg;

        half.len = QEMU_ALIGN_DOWN(half.len / 2, 2 << 20);
        if (half.len) {
            real_ioctl(fd, request, &half);
        }
    }
    errno = error;
    return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
    static const struct {
        unsigned long request;
        FaultyCall call;
    } calls[] = {
        { UFFDIO_API, FAULTY_UFFD_API },
        { UFFDIO_REGISTER, FAULTY_REGISTER },
        { UFFDIO_UNREGISTER, FAULTY_UNREGISTER },
        { UFFDIO_ZEROPAGE, FAULTY_ZEROPAGE },
        { UFFDIO_COPY, FAULTY_COPY },
    };
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (!real_ioctl) {
        real_ioctl = faulty_real("ioctl");
    }
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        if (request == calls[i].request && faulty_refuses(calls[i].call)) {
            return faulty_do_half(fd, request, arg);
        }
    }
    return real_ioctl(fd, request, arg);
}

void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);

    if (!real) {
        real = faulty_real("mmap64");
    }
    if (prot == PROT_READ ? faulty_refuses(FAULTY_MMAP_ZEROS)
                          : (flags & MAP_FIXED) &&
                            faulty_refuses(FAULTY_MMAP_FIXED)) {
        return MAP_FAILED;
    }
    return real(addr, size, prot, flags, fd, offset);
}

int madvise(void *addr, size_t size, int advice)
{
    static int (*real)(void *, size_t, int);

    if (!real) {
        real = faulty_real("madvise");
    }
    return advice == MADV_POPULATE_WRITE && faulty_refuses(FAULTY_POPULATE)
           ? -1 : real(addr, size, advice);
}

int eventfd(unsigned int value, int flags)
{
    static int (*real)(unsigned int, int);

    if (!real) {
        real = faulty_real("eventfd");
    }
    return faulty_refuses(FAULTY_EVENTFD) ? -1 : real(value, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                   void *(*start)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);

    if (!real) {
        real = faulty_real("pthread_create");
    }
    return faulty_refuses(FAULTY_THREAD) ? EAGAIN
                                         : real(thread, attr, start, arg);
}

/* What is there to read, is gone. */
static int faulty_hang_up(struct pollfd *fds)
{
    fds[0].revents = POLLERR;
    return 1;
}

int poll(struct pollfd *fds, nfds_t nfds, int timeout)
{
    static int (*real)(struct pollfd *, nfds_t, int);

    if (!real) {
        real = faulty_real("poll");
    }
    if (nfds == 2 && faulty_refuses(FAULTY_POLL)) {
        return errno ? -1 : faulty_hang_up(fds);
    }
    return real(fds, nfds, timeout);
}

/* The same for fortified code, which not all compilers declare. */
int faulty_poll(struct pollfd *fds, nfds_t nfds, int timeout, size_t size)
    asm("__poll_chk");
int faulty_poll(struct pollfd *fds, nfds_t nfds, int timeout, size_t size)
{
    return poll(fds, nfds, timeout);
}

/* It is compiled for large files. */
int open(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    mode_t mode = 0;
    va_list args;

    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    if (!real) {
        real = faulty_real("open64");
    }
    if ((!strcmp(path, "/proc/sys/vm/max_map_count") &&
         faulty_refuses(FAULTY_OPEN_MAX_MAP_COUNT)) ||
        (!strcmp(path, "/proc/self/maps") &&
         faulty_refuses(FAULTY_OPEN_MAPS))) {
        return -1;
    }
    return real(path, flags, mode);
}
