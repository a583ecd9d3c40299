/*
 * The guard's thread: it answers the faults of all others.
 *
 * It must never wait for a thread that may wait for it: so it neither takes the
 * BQL nor touches memory that is watched, and no thread does with the guard's
 * lock held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/userfaultfd.h"
#include "virtio-mem-guard-faults.h"
#include "virtio-mem-guard-substitute.h"
#include <poll.h>

/* How many faults are looked at, at a time. */
#define GUARD_FAULTS 16

/* When the host has no page to lend. */
#define GUARD_RETRY_US 10000

typedef struct GuardFault {
    uint64_t address;           /* of the host */
    uint32_t thread;
} GuardFault;

static VirtIOMEMGuardShared *const guard_shared = &virtio_mem_guard_shared;

/* --- desks --- */

static VirtIOMEMGuardDesk *faults_desk(const VirtIOMEMGuard *guard,
                                       uint64_t address)
{
    const uint64_t page_size = virtio_mem_guard_map_page_size(
        &guard->map, address - (uintptr_t)guard->area.host);

    return &guard_shared->desks[virtio_mem_guard_ring_kind(page_size)];
}

void virtio_mem_guard_faults_init(void)
{
    unsigned int i;

    for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        virtio_mem_guard_ring_init(&guard_shared->desks[i].ring,
                                   guard_shared->uffd, i);
        g_queue_init(&guard_shared->desks[i].waiting);
    }
}

void virtio_mem_guard_faults_cleanup(void)
{
    unsigned int i;

    if (guard_shared->thread) {
        event_notifier_set(&guard_shared->quit);
        g_thread_join(g_steal_pointer(&guard_shared->thread));
    }
    for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        g_queue_clear_full(&guard_shared->desks[i].waiting, g_free);
    }
}

/* --- taking back --- */

void virtio_mem_guard_faults_take_back(VirtIOMEMGuard *guard, uint64_t offset,
                                       uint64_t size)
{
    int i;

    for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        virtio_mem_guard_ring_take_back(&guard_shared->desks[i].ring,
                                        &guard->map, offset, size);
    }
}

int virtio_mem_guard_faults_pause(VirtIOMEMGuard *guard)
{
    virtio_mem_guard_faults_take_back(guard, 0, guard->area.size);
    virtio_mem_guard_map_pause(&guard->map);
    return virtio_mem_guard_substitute_restore(&guard->map, 0,
                                               guard->area.size);
}

void virtio_mem_guard_faults_lose(VirtIOMEMGuard *guard)
{
    virtio_mem_guard_faults_pause(guard);
    guard->area.notify(guard->area.opaque);
}

/* --- faults --- */

static VirtIOMEMGuard *faults_find(uint64_t address)
{
    VirtIOMEMGuard *guard;

    QLIST_FOREACH(guard, &guard_shared->guards, next) {
        if (address - (uintptr_t)guard->area.host < guard->area.size) {
            return guard;
        }
    }
    return NULL;
}

static void faults_note_access(VirtIOMEMGuard *guard, uint64_t offset,
                               bool write)
{
    guard->access.count++;
    if (!guard->accessed) {
        guard->access.offset = offset;
        guard->access.write = write;
        guard->access.any_write = false;
        guard->accessed = true;
    }
    guard->access.any_write |= write;
}

static void faults_wake(const VirtIOMEMGuard *guard, uint64_t address)
{
    uffd_wakeup(guard_shared->uffd,
                (void *)QEMU_ALIGN_DOWN(address, guard->area.page_size),
                guard->area.page_size);
}

/*
 * Much may have happened since the fault: the block may be within reach now.
 * The thread that waits is woken then, and the fault is repeated if there is
 * still a reason.
 */
static bool faults_is_guarded(const VirtIOMEMGuard *guard, uint64_t address)
{
    const uint64_t offset = address - (uintptr_t)guard->area.host;

    return virtio_mem_guard_map_is_active(&guard->map) &&
           virtio_mem_guard_map_is_guarded(&guard->map,
                                           offset / guard->area.block_size);
}

/* A thread waits for one page at a time: its new fault replaces the last. */
static void faults_wait(VirtIOMEMGuardDesk *desk, const GuardFault *fault)
{
    GList *link;

    for (link = desk->waiting.head; link; link = link->next) {
        GuardFault *waiting = link->data;

        if (waiting->thread == fault->thread) {
            waiting->address = fault->address;
            return;
        }
    }
    g_queue_push_tail(&desk->waiting, g_memdup2(fault, sizeof(*fault)));
}

/* Threads that waited for a turn between these addresses were woken. */
static void faults_forget(VirtIOMEMGuardDesk *desk, uint64_t start,
                          uint64_t end)
{
    GList *link, *next;

    for (link = desk->waiting.head; link; link = next) {
        const GuardFault *fault = link->data;

        next = link->next;
        if (fault->address >= start && fault->address < end) {
            g_free(link->data);
            g_queue_delete_link(&desk->waiting, link);
        }
    }
}

bool virtio_mem_guard_faults_substitute(VirtIOMEMGuard *guard, uint64_t offset)
{
    const uintptr_t host = (uintptr_t)guard->area.host;
    uint64_t start, end;
    int i;

    start = virtio_mem_guard_substitute_find(&guard->map, offset, &end);
    virtio_mem_guard_faults_take_back(guard, start, end - start);
    if (virtio_mem_guard_substitute(&guard->map, start, end - start)) {
        if (!virtio_mem_guard_map_is_active(&guard->map)) {
            virtio_mem_guard_faults_lose(guard);
        }
        return false;
    }
    for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        faults_forget(&guard_shared->desks[i], host + start, host + end);
    }
    return true;
}

/* There is no page of the area to lend: let there be others. */
static bool faults_substitute(VirtIOMEMGuard *guard, uint64_t offset)
{
    return guard->map.substituted &&
           !virtio_mem_guard_map_is_substituted(&guard->map, offset) &&
           virtio_mem_guard_faults_substitute(guard, offset);
}

typedef enum GuardAnswer {
    GUARD_ANSWERED,
    GUARD_SUBSTITUTED,          /* the thread has been woken, to fault again */
    GUARD_WAITS_FOR_TURN,
    GUARD_NO_PAGE,              /* the thread has to be woken, later */
} GuardAnswer;

static GuardAnswer faults_answer(VirtIOMEMGuard *guard, const GuardFault *fault,
                                 bool is_first)
{
    VirtIOMEMGuardDesk *desk = faults_desk(guard, fault->address);
    const uint64_t offset = fault->address - (uintptr_t)guard->area.host;
    const int64_t now = g_get_monotonic_time();
    VirtIOMEMGuardSlot *slot;

    if (!faults_is_guarded(guard, fault->address)) {
        virtio_mem_guard_map_let_go(&guard->map,
                                    offset / guard->area.block_size);
        faults_wake(guard, fault->address);
        return GUARD_ANSWERED;
    }
    if (desk->ring.is_slow && !guard->area.reserved &&
        faults_substitute(guard, offset)) {
        return GUARD_SUBSTITUTED;
    }
    slot = virtio_mem_guard_ring_find(&desk->ring, fault->thread, now,
                                      is_first);
    if (!slot) {
        return GUARD_WAITS_FOR_TURN;
    }
    if (!virtio_mem_guard_ring_lend(&desk->ring, slot, &guard->map, offset,
                                    fault->thread, now)) {
        return GUARD_ANSWERED;
    }
    return faults_substitute(guard, offset) ? GUARD_SUBSTITUTED : GUARD_NO_PAGE;
}

/* After the thread could do something about it. */
static void faults_retry_later(uint64_t address)
{
    VirtIOMEMGuard *guard;

    g_usleep(GUARD_RETRY_US);
    virtio_mem_guard_lock();
    guard = faults_find(address);
    if (guard) {
        faults_wake(guard, address);
    }
    virtio_mem_guard_unlock();
}

/* Without thread numbers (before Linux 4.14), each page has its own turn. */
static uint32_t faults_thread_of(const struct uffd_msg *msg)
{
    return guard_shared->has_thread_ids
           ? msg->arg.pagefault.feat.ptid
           : msg->arg.pagefault.address / qemu_real_host_page_size();
}

/* An access is noted before its thread goes on; once, if it faults again. */
static GuardAnswer faults_note_and_answer(VirtIOMEMGuard *guard,
                                          const GuardFault *fault, bool write,
                                          bool is_first)
{
    const VirtIOMEMGuardAccess access = guard->access;
    const bool accessed = guard->accessed;
    GuardAnswer answer;

    if (faults_is_guarded(guard, fault->address)) {
        faults_note_access(guard, fault->address -
                           (uintptr_t)guard->area.host, write);
        guard->area.notify(guard->area.opaque);
    }
    answer = faults_answer(guard, fault, is_first);
    if (answer == GUARD_SUBSTITUTED) {
        guard->access = access;
        guard->accessed = accessed;
    }
    return answer;
}

static void faults_handle(const struct uffd_msg *msg)
{
    const GuardFault fault = {
        .address = msg->arg.pagefault.address,
        .thread = faults_thread_of(msg),
    };
    GuardAnswer answer = GUARD_ANSWERED;
    VirtIOMEMGuard *guard;
    VirtIOMEMGuardDesk *desk;

    /* Of other events, userfaultfd tells only those who ask for them. */
    assert(msg->event == UFFD_EVENT_PAGEFAULT);
    virtio_mem_guard_lock();
    guard = faults_find(fault.address);
    if (guard) {
        desk = faults_desk(guard, fault.address);
        answer = faults_note_and_answer(guard, &fault,
                                        msg->arg.pagefault.flags &
                                        UFFD_PAGEFAULT_FLAG_WRITE,
                                        g_queue_is_empty(&desk->waiting));
        if (answer == GUARD_WAITS_FOR_TURN) {
            faults_wait(desk, &fault);
        }
    }
    virtio_mem_guard_unlock();
    if (answer == GUARD_NO_PAGE) {
        faults_retry_later(fault.address);
    }
}

/* The thread that waits first, if it is its turn; false if not. */
static bool faults_serve_waiting(VirtIOMEMGuardDesk *desk)
{
    GuardAnswer answer = GUARD_WAITS_FOR_TURN;
    GuardFault *fault;
    VirtIOMEMGuard *guard;
    uint64_t address = 0;

    virtio_mem_guard_lock();
    fault = g_queue_pop_head(&desk->waiting);
    if (fault) {
        guard = faults_find(fault->address);
        address = fault->address;
        answer = guard ? faults_answer(guard, fault, true) : GUARD_ANSWERED;
        if (answer == GUARD_WAITS_FOR_TURN) {
            g_queue_push_head(&desk->waiting, g_steal_pointer(&fault));
        }
        g_free(fault);
    }
    virtio_mem_guard_unlock();
    if (answer == GUARD_NO_PAGE) {
        faults_retry_later(address);
    }
    return answer != GUARD_WAITS_FOR_TURN;
}

/* Until when the next of the threads that wait has its turn, or -1. */
static int faults_poll_timeout(void)
{
    const int64_t now = g_get_monotonic_time();
    int64_t next = INT64_MAX;
    int i;

    virtio_mem_guard_lock();
    for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        VirtIOMEMGuardDesk *desk = &guard_shared->desks[i];

        if (!g_queue_is_empty(&desk->waiting)) {
            next = MIN(next, virtio_mem_guard_ring_next_turn(&desk->ring));
        }
    }
    virtio_mem_guard_unlock();
    return next == INT64_MAX ? -1 : DIV_ROUND_UP(MAX(next - now, 0), 1000);
}

static void *faults_thread(void *opaque)
{
    struct pollfd fds[] = {
        { .fd = guard_shared->uffd, .events = POLLIN },
        { .fd = event_notifier_get_fd(&guard_shared->quit), .events = POLLIN },
    };
    struct uffd_msg msgs[GUARD_FAULTS];
    int i, n;

    while (!fds[1].revents) {
        if (poll(fds, ARRAY_SIZE(fds), faults_poll_timeout()) < 0) {
            if (errno != EINTR) {
                /* The host has no memory for it now. */
                g_usleep(GUARD_RETRY_US);
            }
            continue;
        }
        if (fds[0].revents & ~POLLIN) {
            /* No thread waits for us any more: that unregistered all. */
            error_report("virtio-mem: the guard's userfaultfd was closed,"
                         " unplugged memory is not protected any more");
            fds[0].fd = -1;
            continue;
        }
        n = fds[0].revents ? uffd_read_events(guard_shared->uffd, msgs,
                                              ARRAY_SIZE(msgs)) : 0;
        for (i = 0; i < n; i++) {
            faults_handle(&msgs[i]);
        }
        for (i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
            while (faults_serve_waiting(&guard_shared->desks[i])) {
                continue;
            }
        }
    }
    return NULL;
}

/* A new thread must not take the signals of the main loop. */
bool virtio_mem_guard_faults_start(void)
{
    sigset_t all, before;

    if (guard_shared->thread) {
        return true;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    guard_shared->thread = g_thread_try_new("mem-guard", faults_thread, NULL,
                                           NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return guard_shared->thread;
}
