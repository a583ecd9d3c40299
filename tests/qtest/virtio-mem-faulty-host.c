/*
 * A faulty host, for tests of virtio-mem: preloaded into QEMU, it lets those
 * calls fail that the test wants to fail.  See virtio-mem-faults.h for the
 * other side; virtio-mem-slow-host.c has the calls that are held, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <dlfcn.h>
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qemu/atomic.h"
#include "virtio-mem-faults.h"
#include "virtio-mem-hold.h"

static VirtioMemFaults *faults;

static void *faulty_host_real_mmap(void *addr, size_t size, int prot,
                                   int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);

    if (!real) {
        real = dlsym(RTLD_NEXT, "mmap64");
    }
    return real(addr, size, prot, flags, fd, offset);
}

static void __attribute__((constructor)) faulty_host_begin(void)
{
    const char *path = getenv(VM_FAULTS_FILE);
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared;

    if (fd >= 0) {
        shared = faulty_host_real_mmap(NULL, sizeof(*faults),
                                       PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                       0);
        faults = shared == MAP_FAILED ? NULL : shared;
        close(fd);
    }
}

/* Half of all numbers, without an order that a loop could meet. */
static bool faulty_host_chance(uint32_t seed, uint32_t number)
{
    return ((seed + number) * 2654435761u >> 16) & 1;
}

int virtio_mem_fault_of(VirtioMemHostFault call)
{
    static const int errors[VM_FAULT__MAX] = {
        [VM_FAULT_MADVISE] = ENOMEM,
        [VM_FAULT_FALLOCATE] = EIO,
        [VM_FAULT_MMAP] = ENOMEM,
        [VM_FAULT_UFFD] = ENOMEM,
        [VM_FAULT_THREAD] = EAGAIN,
        [VM_FAULT_EVENTFD] = EMFILE,
        [VM_FAULT_OPEN] = EMFILE,
        [VM_FAULT_FILE] = EIO,
        [VM_FAULT_MEMORY] = ENOMEM,
    };
    uint32_t number, seed;

    if (!faults || !(qatomic_read(&faults->calls) & (1u << call))) {
        return 0;
    }
    number = qatomic_fetch_inc(&faults->nb_calls);
    seed = qatomic_read(&faults->seed);
    if (seed ? !faulty_host_chance(seed, number)
             : number != qatomic_read(&faults->after)) {
        return 0;
    }
    qatomic_inc(&faults->nb_faults);
    return errors[call];
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    static int (*real)(int, int, off_t, off_t);
    const int error = virtio_mem_hold_refusal(VM_REFUSE_DISCARD, size) ?:
                      virtio_mem_fault_of(VM_FAULT_FALLOCATE);

    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "fallocate64");
    }
    return real(fd, mode, offset, size);
}

/* QEMU maps stacks of coroutines elsewhere, and cannot go on without. */
void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
    const bool is_ours = flags & MAP_FIXED || prot == PROT_READ;
    const int error = is_ours ? virtio_mem_fault_of(VM_FAULT_MMAP) : 0;

    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    return faulty_host_real_mmap(addr, size, prot, flags, fd, offset);
}

/* To wake a thread needs nothing that a host could lack. */
static bool faulty_host_may_refuse(unsigned long request)
{
    return _IOC_TYPE(request) == UFFDIO && request != UFFDIO_WAKE;
}

/* What is watched, or no longer, begins with its range. */
static int faulty_host_ask(unsigned long request, void *arg)
{
    const struct uffdio_range *range = arg;
    int error = 0;

    if (request == UFFDIO_REGISTER || request == UFFDIO_UNREGISTER) {
        error = virtio_mem_hold_refusal(VM_REFUSE_WATCH, range->len);
    }
    if (!error && faulty_host_may_refuse(request)) {
        error = virtio_mem_fault_of(VM_FAULT_UFFD);
    }
    return error;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, void *);
    va_list args;
    void *arg;
    int error;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    error = faulty_host_ask(request, arg);
    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "ioctl");
    }
    return real(fd, request, arg);
}

int eventfd(unsigned int value, int flags)
{
    static int (*real)(unsigned int, int);
    const int error = virtio_mem_fault_of(VM_FAULT_EVENTFD);

    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "eventfd");
    }
    return real(value, flags);
}

/* Where there is no /dev/userfaultfd, or it cannot be opened. */
long syscall(long number, ...)
{
    static long (*real)(long, long, long, long, long, long, long);
    const int error = number == SYS_userfaultfd
                      ? virtio_mem_fault_of(VM_FAULT_OPEN) : 0;
    long args[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < ARRAY_SIZE(args); i++) {
        args[i] = va_arg(list, long);
    }
    va_end(list);
    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "syscall");
    }
    return real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

off_t lseek(int fd, off_t offset, int whence)
{
    static off_t (*real)(int, off_t, int);
    const int error = whence == SEEK_DATA || whence == SEEK_HOLE
                      ? virtio_mem_fault_of(VM_FAULT_FILE) : 0;

    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "lseek64");
    }
    return real(fd, offset, whence);
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    const int error = virtio_mem_fault_of(VM_FAULT_FILE);

    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "pread64");
    }
    return real(fd, bytes, size, offset);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    static ssize_t (*real)(const char *, char *, size_t);
    const int error = g_str_has_prefix(path, "/proc/")
                      ? virtio_mem_fault_of(VM_FAULT_FILE) : 0;

    if (error) {
        errno = error;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "readlink");
    }
    return real(path, target, size);
}

/* GLib's, for tables that may be so large that there is no room for them. */
void *g_try_malloc0_n(gsize nb, gsize size)
{
    return virtio_mem_fault_of(VM_FAULT_MEMORY) ? NULL : calloc(nb, size);
}

void *g_try_malloc0(gsize size)
{
    return g_try_malloc0_n(1, size);
}
