/*
 * The guard: unplugged memory stays out of reach.
 *
 * A thread answers the faults of all others.  It must never wait for somebody
 * who may wait for it: so it neither takes the BQL nor touches memory that is
 * watched, and nobody does with the guard's lock held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/event_notifier.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/userfaultfd.h"
#include "qapi/error.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-guard-lend.h"
#include "virtio-mem-guard-map.h"
#include <poll.h>

/* How many faults are looked at, at a time. */
#define GUARD_FAULTS 16

/* When the host has no page to lend. */
#define GUARD_RETRY_US 10000

struct VirtIOMEMGuard {
    VirtIOMEMGuardArea area;
    int uffd;
    QemuThread thread;
    EventNotifier quit;

    QemuMutex lock;             /* of all below */
    VirtIOMEMGuardMap map;
    VirtIOMEMGuardLend lend;
    VirtIOMEMGuardAccess access;
    bool accessed;              /* since the last fetch */
};

/* --- faults --- */

static void guard_note_access(VirtIOMEMGuard *guard, uint64_t offset,
                              bool write)
{
    guard->access.count++;
    if (!guard->accessed) {
        guard->access.offset = offset;
        guard->access.write = write;
        guard->accessed = true;
    }
}

static void guard_wake(VirtIOMEMGuard *guard, uint64_t offset)
{
    const uint64_t page = QEMU_ALIGN_DOWN(offset, guard->area.page_size);

    uffd_wakeup(guard->uffd, (uint8_t *)guard->area.host + page,
                guard->area.page_size);
}

/*
 * Much may have happened since the fault: the block may be within reach now,
 * or the page be there already.  Whoever waits is woken in any case, and the
 * fault is repeated if there is still a reason.  Returns false if the host has
 * no page, so that this had better not be at once.
 */
static bool guard_answer(VirtIOMEMGuard *guard, uint64_t offset, bool write,
                         bool *notify)
{
    const uint64_t block = offset / guard->area.block_size;
    bool answered = true;

    QEMU_LOCK_GUARD(&guard->lock);
    if (!virtio_mem_guard_map_is_armed(&guard->map, block)) {
        guard_wake(guard, offset);
    } else if (!virtio_mem_guard_map_is_guarded(&guard->map, block)) {
        if (virtio_mem_guard_map_populate(&guard->map, block)) {
            guard_wake(guard, offset);
        } else {
            answered = virtio_mem_guard_lend_for_good(&guard->lend, offset);
        }
    } else {
        guard_note_access(guard, offset, write);
        *notify = true;
        answered = virtio_mem_guard_lend_page(&guard->lend, offset);
    }
    return answered;
}

static void guard_handle_fault(VirtIOMEMGuard *guard,
                               const struct uffd_msg *msg)
{
    const uint64_t offset = msg->arg.pagefault.address -
                            (uintptr_t)guard->area.host;
    bool notify = false;

    if (msg->event != UFFD_EVENT_PAGEFAULT || offset >= guard->area.size) {
        return;
    }
    if (!guard_answer(guard, offset,
                      msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
                      &notify)) {
        g_usleep(GUARD_RETRY_US);
        guard_wake(guard, offset);
    }
    if (notify) {
        guard->area.notify(guard->area.opaque);
    }
}

static void *guard_thread(void *opaque)
{
    VirtIOMEMGuard *guard = opaque;
    struct pollfd fds[] = {
        { .fd = guard->uffd, .events = POLLIN },
        { .fd = event_notifier_get_fd(&guard->quit), .events = POLLIN },
    };
    struct uffd_msg msgs[GUARD_FAULTS];
    int i, n;

    while (!fds[1].revents) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
            continue;
        }
        n = uffd_read_events(guard->uffd, msgs, ARRAY_SIZE(msgs));
        for (i = 0; i < n; i++) {
            guard_handle_fault(guard, &msgs[i]);
        }
    }
    return NULL;
}

/* --- what callers ask for --- */

int virtio_mem_guard_protect(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size)
{
    if (!guard) {
        return 0;
    }
    QEMU_LOCK_GUARD(&guard->lock);
    return virtio_mem_guard_map_guard(&guard->map,
                                      offset / guard->area.block_size,
                                      size / guard->area.block_size);
}

void virtio_mem_guard_release(VirtIOMEMGuard *guard, uint64_t offset,
                              uint64_t size)
{
    if (!guard) {
        return;
    }
    QEMU_LOCK_GUARD(&guard->lock);
    virtio_mem_guard_lend_take_back(&guard->lend, offset, size);
    virtio_mem_guard_map_release(&guard->map,
                                 offset / guard->area.block_size,
                                 size / guard->area.block_size);
}

void virtio_mem_guard_take_back(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return;
    }
    QEMU_LOCK_GUARD(&guard->lock);
    virtio_mem_guard_lend_take_back_all(&guard->lend);
}

void virtio_mem_guard_step_aside(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return;
    }
    QEMU_LOCK_GUARD(&guard->lock);
    virtio_mem_guard_lend_take_back_all(&guard->lend);
    virtio_mem_guard_map_disarm(&guard->map);
}

int virtio_mem_guard_come_back(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return 0;
    }
    QEMU_LOCK_GUARD(&guard->lock);
    return virtio_mem_guard_map_rearm(&guard->map);
}

bool virtio_mem_guard_is_active(VirtIOMEMGuard *guard)
{
    /* Without the lock: who looks must not wait for a page. */
    return guard && !qatomic_read(&guard->map.disarmed);
}

bool virtio_mem_guard_fetch(VirtIOMEMGuard *guard,
                            VirtIOMEMGuardAccess *access)
{
    QEMU_LOCK_GUARD(&guard->lock);
    if (!guard->accessed) {
        return false;
    }
    guard->accessed = false;
    *access = guard->access;
    return true;
}

/* --- life --- */

static int guard_open(Error **errp)
{
    uint64_t features = 0;
    int fd;

    /* Where the host can tell the address, and not only the page. */
    if (!uffd_query_features(&features)) {
        features &= UFFD_FEATURE_EXACT_ADDRESS;
    }
    fd = uffd_create_fd(features, true);
    if (fd < 0 && errno == EPERM) {
        error_setg_errno(errp, errno, "this process may not use userfaultfd"
                         " for faults of the kernel: let it open"
                         " /dev/userfaultfd, or set vm.unprivileged_userfaultfd"
                         " to 1, or give it CAP_SYS_PTRACE");
    } else if (fd < 0) {
        error_setg_errno(errp, errno, "this host has no userfaultfd: it needs"
                         " Linux 4.11 or newer with CONFIG_USERFAULTFD, and no"
                         " seccomp filter in the way");
    }
    return fd;
}

/* Guard all, if only to see whether that is possible. */
static bool guard_start(VirtIOMEMGuard *guard, bool aside, Error **errp)
{
    const int ret = virtio_mem_guard_map_rearm(&guard->map);

    if (ret) {
        error_setg_errno(errp, -ret, "userfaultfd cannot watch this memory: it"
                         " has to be anonymous memory, shared memory (memfd,"
                         " tmpfs) or hugetlb pages, and nobody else may watch"
                         " it");
        return false;
    }
    if (aside) {
        virtio_mem_guard_map_disarm(&guard->map);
    }
    return true;
}

static void guard_cleanup(VirtIOMEMGuard *guard)
{
    virtio_mem_guard_lend_cleanup(&guard->lend);
    virtio_mem_guard_map_cleanup(&guard->map);
    qemu_mutex_destroy(&guard->lock);
    event_notifier_cleanup(&guard->quit);
    uffd_close_fd(guard->uffd);
    g_free(guard);
}

VirtIOMEMGuard *virtio_mem_guard_new(const VirtIOMEMGuardArea *area,
                                     bool aside, Error **errp)
{
    const int uffd = guard_open(errp);
    VirtIOMEMGuard *guard;

    if (uffd < 0) {
        return NULL;
    }
    guard = g_new0(VirtIOMEMGuard, 1);
    guard->area = *area;
    guard->uffd = uffd;
    qemu_mutex_init(&guard->lock);
    virtio_mem_guard_map_init(&guard->map, uffd, area->host, area->size,
                              area->block_size, area->max_mappings);
    if (event_notifier_init(&guard->quit, 0) ||
        !virtio_mem_guard_lend_init(&guard->lend, uffd, &guard->area)) {
        error_setg_errno(errp, errno, "no file descriptor or no memory for"
                         " the guard");
        guard_cleanup(guard);
        return NULL;
    }
    if (!guard_start(guard, aside, errp)) {
        guard_cleanup(guard);
        return NULL;
    }
    qemu_thread_create(&guard->thread, "mem-guard", guard_thread,
                       guard, QEMU_THREAD_JOINABLE);
    return guard;
}

/* Takes back what is lent; whoever waits for an answer goes on. */
void virtio_mem_guard_free(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return;
    }
    virtio_mem_guard_step_aside(guard);
    event_notifier_set(&guard->quit);
    qemu_thread_join(&guard->thread);
    guard_cleanup(guard);
}
