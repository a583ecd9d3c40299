/*
 * A slow host, for tests of virtio-mem: preloaded into QEMU, it asks before
 * memory is populated or given back.
 *
 * Each such system call on a large range connects to the socket that the
 * environment names, says what it wants and waits for a verdict: an errno, or
 * 0 to go on.  Without a test at the other end, it goes on.  The main loop is
 * not kept waiting, or it could not tell what it waits for; but its calls take
 * long, too.  And it can be a host without threads or mappings to spare, or one
 * that refuses.  See virtio-mem-hold.h for the other side.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/units.h"
#include "virtio-mem-faults.h"
#include "virtio-mem-hold.h"

/* QEMU's own memory is never populated or discarded in such amounts. */
#define SLOW_HOST_SIZE (1 * MiB)

/* Longer than anything is tried with the BQL held. */
#define SLOW_HOST_US 1000

/* What is watched in smaller ranges is a block or two, not the region. */
#define SLOW_HOST_WATCHED (4 * MiB)

static int slow_host_open(const char *path, int flags, mode_t mode)
{
    static int (*real)(const char *, int, ...);

    if (!real) {
        real = dlsym(RTLD_NEXT, "open64");
    }
    return real(path, flags, mode);
}

/* Whether the file that the environment names has that word. */
static bool slow_host_refuses(const char *word)
{
    const char *path = getenv(VM_HOLD_REFUSED);
    const int before = errno;
    char text[64] = "";
    int fd = path ? slow_host_open(path, O_RDONLY | O_CLOEXEC, 0) : -1;

    if (fd >= 0) {
        if (read(fd, text, sizeof(text) - 1) < 0) {
            text[0] = 0;
        }
        close(fd);
    }
    errno = before;
    return strstr(text, word);
}

int virtio_mem_hold_refusal(const char *word, uint64_t size)
{
    const bool is_ours = strcmp(word, VM_REFUSE_WATCH)
                         ? size >= SLOW_HOST_SIZE : size <= SLOW_HOST_WATCHED;

    return is_ours && slow_host_refuses(word) ? ENOMEM : 0;
}

static int slow_host_connect(void)
{
    const char *path = getenv(VM_HOLD_SOCKET);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (!path || strlen(path) >= sizeof(address.sun_path)) {
        return -1;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* What errno the call shall fail with, or 0. */
static int slow_host_ask(VirtioMemHostCall call, size_t size)
{
    const VirtioMemHostQuestion question = { .call = call, .size = size };
    const int before = errno;
    int verdict = 0;
    int fd;

    if (size < SLOW_HOST_SIZE) {
        return 0;
    }
    verdict = virtio_mem_hold_refusal(call == VM_HOST_POPULATE
                                      ? VM_REFUSE_POPULATE
                                      : VM_REFUSE_DISCARD, size);
    if (verdict) {
        return verdict;
    }
    if (gettid() == getpid()) {
        usleep(getenv(VM_HOLD_SOCKET) && !access(getenv(VM_HOLD_SOCKET), F_OK)
               ? SLOW_HOST_US : 0);
        return 0;
    }
    fd = slow_host_connect();
    if (fd >= 0) {
        if (send(fd, &question, sizeof(question), MSG_NOSIGNAL) !=
            sizeof(question) ||
            recv(fd, &verdict, sizeof(verdict), 0) != sizeof(verdict)) {
            verdict = 0;
        }
        close(fd);
    }
    errno = before;
    return verdict;
}

int madvise(void *addr, size_t size, int advice)
{
    static int (*real)(void *, size_t, int);
    int verdict = 0;

    if (advice == MADV_POPULATE_WRITE) {
        verdict = slow_host_refuses(VM_REFUSE_ADVICE)
                  ? EINVAL : slow_host_ask(VM_HOST_POPULATE, size);
    } else if (advice == MADV_DONTNEED || advice == MADV_REMOVE) {
        verdict = slow_host_ask(VM_HOST_DISCARD, size);
    }
    if (!verdict) {
        verdict = virtio_mem_fault_of(VM_FAULT_MADVISE);
    }
    if (verdict) {
        errno = verdict;
        return -1;
    }
    if (!real) {
        real = dlsym(RTLD_NEXT, "madvise");
    }
    return real(addr, size, advice);
}

/* QEMU's own threads are made by QEMU, which cannot go on without. */
static int slow_host_thread_fault(const void *caller)
{
    Dl_info info;

    return dladdr(caller, &info) && strstr(info.dli_fname, "libglib")
           ? virtio_mem_fault_of(VM_FAULT_THREAD) : 0;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                   void *(*start)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);
    const char *path = getenv(VM_HOLD_NO_THREADS);

    if (!real) {
        real = dlsym(RTLD_NEXT, "pthread_create");
    }
    return path && !access(path, F_OK)
           ? EAGAIN
           : slow_host_thread_fault(__builtin_return_address(0)) ?:
             real(thread, attr, start, arg);
}

/* What the device opens is the kernel's. */
static int slow_host_open_fault(const char *path)
{
    return g_str_has_prefix(path, "/proc/") ||
           g_str_has_prefix(path, "/sys/") ||
           !strcmp(path, "/dev/userfaultfd")
           ? virtio_mem_fault_of(VM_FAULT_OPEN) : 0;
}

/* As GLib reads files: it is compiled for large ones. */
int open(const char *path, int flags, ...)
{
    const char *instead = getenv(VM_HOLD_MAX_MAP_COUNT);
    const int error = slow_host_open_fault(path);
    mode_t mode = 0;
    va_list args;

    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    if (error) {
        errno = error;
        return -1;
    }
    if (instead && !strcmp(path, "/proc/sys/vm/max_map_count") &&
        !access(instead, F_OK)) {
        path = instead;
    }
    if (g_str_has_suffix(path, "/hpage_pmd_size") &&
        slow_host_refuses(VM_REFUSE_THP)) {
        errno = ENOENT;
        return -1;
    }
    return slow_host_open(path, flags, mode);
}
