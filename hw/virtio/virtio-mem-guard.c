/*
 * The guard: unplugged memory stays out of reach.
 *
 * What callers ask for.  The faults are answered in virtio-mem-guard-faults.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/userfaultfd.h"
#include "qapi/error.h"
#include "virtio-mem-guard-faults.h"
#include "virtio-mem-guard-substitute.h"

VirtIOMEMGuardShared virtio_mem_guard_shared;
static VirtIOMEMGuardShared *const guard_shared = &virtio_mem_guard_shared;

static void __attribute__((__constructor__)) guard_init_locks(void)
{
    qemu_mutex_init(&guard_shared->gate);
    qemu_mutex_init(&guard_shared->lock);
}

/* --- changes; with the guard's lock --- */

static uint64_t guard_count_mappings(void)
{
    VirtIOMEMGuard *guard;
    uint64_t nb = 0;

    QLIST_FOREACH(guard, &guard_shared->guards, next) {
        nb += guard->map.nb_borders;
    }
    return nb;
}

/* Whether the guards may have the mappings that it takes. */
static bool guard_may_change(const VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size, bool protect)
{
    const uint64_t block_size = guard->area.block_size;
    const uint64_t max = guard->area.max_mappings;
    const int64_t cost = virtio_mem_guard_map_cost(
        &guard->map, offset / block_size, size / block_size, protect);

    if (cost <= 0) {
        return true;
    }
    if (max && guard->map.nb_borders + cost > max) {
        return false;
    }
    return virtio_mem_guard_budget_allows(&guard_shared->budget,
                                          guard_count_mappings(), cost);
}

static int guard_set(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size,
                     bool protect)
{
    const uint64_t block_size = guard->area.block_size;

    assert(QEMU_IS_ALIGNED(offset | size, block_size));
    return virtio_mem_guard_map_set(&guard->map, offset / block_size,
                                    size / block_size, protect);
}

/* What can be done with @size bytes at @offset; 0, or a negative errno. */
typedef int GuardChange(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size);

static int guard_protect(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size)
{
    const int ret = guard_set(guard, offset, size, true);

    if (!ret) {
        virtio_mem_guard_substitute_clear(&guard->map, offset, size);
    }
    return ret;
}

static int guard_restore(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size)
{
    virtio_mem_guard_faults_take_back(guard, offset, size);
    return virtio_mem_guard_substitute_restore(&guard->map, offset, size);
}

static int guard_let_go(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size)
{
    const uint64_t first = offset / guard->area.block_size;
    const uint64_t end = (offset + size) / guard->area.block_size;
    const int ret = guard_set(guard, offset, size, false);

    if (ret) {
        /* What has its area's memory again stays out of reach. */
        virtio_mem_guard_map_watch(&guard->map, first, end);
    }
    return ret;
}

static int guard_release(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size)
{
    return guard_restore(guard, offset, size) ?:
           guard_let_go(guard, offset, size);
}

static int guard_release_anyway(VirtIOMEMGuard *guard, uint64_t offset,
                                uint64_t size)
{
    if (guard_restore(guard, offset, size)) {
        error_report("virtio-mem: the host does not map a backend's memory"
                     " again: other memory stays in its place");
    }
    return guard_let_go(guard, offset, size);
}

static int guard_change(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size,
                        GuardChange *change)
{
    const uint64_t first = offset / guard->area.block_size;
    const bool was_active = virtio_mem_guard_map_is_active(&guard->map);
    const int ret = change(guard, offset, size);

    if (ret && was_active && !virtio_mem_guard_map_is_active(&guard->map)) {
        virtio_mem_guard_faults_lose(guard);
    }
    if (virtio_mem_guard_map_is_guarded(&guard->map, first) &&
        virtio_mem_guard_map_is_mixed(&guard->map, offset)) {
        virtio_mem_guard_faults_substitute(guard, offset);
    }
    return ret;
}

/* --- what callers ask for --- */

static int guard_try(VirtIOMEMGuard *guard, uint64_t offset, uint64_t size,
                     bool protect)
{
    int ret = -ENOSPC;

    if (!guard) {
        return 0;
    }
    virtio_mem_guard_lock();
    if (guard_may_change(guard, offset, size, protect)) {
        ret = guard_change(guard, offset, size,
                           protect ? guard_protect : guard_release);
    }
    virtio_mem_guard_unlock();
    return ret;
}

int virtio_mem_guard_protect(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size)
{
    return guard_try(guard, offset, size, true);
}

int virtio_mem_guard_release(VirtIOMEMGuard *guard, uint64_t offset,
                             uint64_t size)
{
    return guard_try(guard, offset, size, false);
}

void virtio_mem_guard_force(VirtIOMEMGuard *guard, uint64_t offset,
                            uint64_t size, bool protect)
{
    GuardChange *change = protect ? guard_protect : guard_release_anyway;

    if (!guard) {
        return;
    }
    virtio_mem_guard_lock();
    if (guard_change(guard, offset, size, change)) {
        virtio_mem_guard_faults_lose(guard);
        guard_change(guard, offset, size, change);
    }
    virtio_mem_guard_unlock();
}

void virtio_mem_guard_take_back(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return;
    }
    virtio_mem_guard_lock();
    virtio_mem_guard_faults_take_back(guard, 0, guard->area.size);
    virtio_mem_guard_unlock();
}

int virtio_mem_guard_pause(VirtIOMEMGuard *guard)
{
    int ret;

    if (!guard) {
        return 0;
    }
    virtio_mem_guard_lock();
    ret = virtio_mem_guard_faults_pause(guard);
    virtio_mem_guard_unlock();
    return ret;
}

int virtio_mem_guard_resume(VirtIOMEMGuard *guard)
{
    int ret;

    if (!guard) {
        return 0;
    }
    if (!virtio_mem_guard_faults_start()) {
        return -EAGAIN;
    }
    if (!virtio_mem_guard_is_active(guard)) {
        guard->is_clean = false;
    }
    virtio_mem_guard_lock();
    ret = virtio_mem_guard_map_resume(&guard->map);
    if (!ret) {
        virtio_mem_guard_substitute_clear(&guard->map, 0, guard->area.size);
    }
    virtio_mem_guard_unlock();
    return ret;
}

bool virtio_mem_guard_is_active(VirtIOMEMGuard *guard)
{
    /* Without the lock: the caller must not wait for a page. */
    return guard && virtio_mem_guard_map_is_active(&guard->map);
}

void virtio_mem_guard_set_clean(VirtIOMEMGuard *guard, bool clean)
{
    if (guard) {
        guard->is_clean = clean && virtio_mem_guard_is_active(guard);
    }
}

bool virtio_mem_guard_is_clean(VirtIOMEMGuard *guard)
{
    return virtio_mem_guard_is_active(guard) && guard->is_clean;
}

bool virtio_mem_guard_fetch(VirtIOMEMGuard *guard,
                            VirtIOMEMGuardAccess *access)
{
    bool accessed;

    virtio_mem_guard_lock();
    accessed = guard->accessed;
    if (accessed) {
        guard->accessed = false;
        *access = guard->access;
    }
    virtio_mem_guard_unlock();
    return accessed;
}

void virtio_mem_guard_query_lent(VirtIOMEMGuardLent *lent)
{
    *lent = (VirtIOMEMGuardLent) { 0 };
    virtio_mem_guard_lock();
    for (int i = 0; i < VIRTIO_MEM_GUARD_RINGS; i++) {
        lent->nb += guard_shared->desks[i].ring.nb_lent;
        lent->peak += guard_shared->desks[i].ring.peak_lent;
    }
    virtio_mem_guard_unlock();
}

void virtio_mem_guard_query_mappings(VirtIOMEMGuardMappings *mappings)
{
    virtio_mem_guard_lock();
    *mappings = (VirtIOMEMGuardMappings) {
        .nb = guard_count_mappings(),
        .max = virtio_mem_guard_budget_max(&guard_shared->budget),
        .is_short = guard_shared->budget.is_short,
    };
    virtio_mem_guard_unlock();
}

bool virtio_mem_guard_check(VirtIOMEMGuard *guard)
{
    bool ok;
    int i;

    virtio_mem_guard_lock();
    ok = virtio_mem_guard_map_check(&guard->map);
    for (i = 0; ok && i < VIRTIO_MEM_GUARD_RINGS; i++) {
        ok = virtio_mem_guard_ring_check(&guard_shared->desks[i].ring);
    }
    virtio_mem_guard_unlock();
    return ok;
}

/* --- life --- */

static int guard_open_uffd(uint64_t *features, Error **errp)
{
    int fd;

    /* If the host can: tell the address, not only the page; and the thread. */
    if (uffd_query_features(features)) {
        *features = 0;
    }
    *features &= UFFD_FEATURE_EXACT_ADDRESS | UFFD_FEATURE_THREAD_ID;
    fd = uffd_create_fd(*features, true);
    if (fd < 0 && errno == EPERM) {
        error_setg_errno(errp, errno, "this process may not use userfaultfd"
                         " for faults of the kernel: let it open"
                         " /dev/userfaultfd, or set vm.unprivileged_userfaultfd"
                         " to 1, or give it CAP_SYS_PTRACE, and restart QEMU"
                         " (a seccomp filter leaves the first of these only)");
    } else if (fd < 0 && errno != ENOSYS && errno != EINVAL) {
        error_setg_errno(errp, errno, "cannot open a userfaultfd");
    } else if (fd < 0) {
        error_setg_errno(errp, errno, "this host has no userfaultfd: it needs"
                         " Linux 4.11 or newer with CONFIG_USERFAULTFD, and no"
                         " seccomp filter in the way");
    }
    return fd;
}

/* For the first guard. */
static bool guard_open(Error **errp)
{
    uint64_t features = 0;

    if (!QLIST_EMPTY(&guard_shared->guards)) {
        return true;
    }
    guard_shared->uffd = guard_open_uffd(&features, errp);
    if (guard_shared->uffd < 0) {
        return false;
    }
    if (event_notifier_init(&guard_shared->quit, 0)) {
        error_setg_errno(errp, errno, "no file descriptor for the guard");
        uffd_close_fd(guard_shared->uffd);
        return false;
    }
    guard_shared->has_thread_ids = features & UFFD_FEATURE_THREAD_ID;
    guard_shared->budget = (VirtIOMEMGuardBudget) { 0 };
    virtio_mem_guard_faults_init();
    return true;
}

/* After the last guard. */
static void guard_close(void)
{
    if (QLIST_EMPTY(&guard_shared->guards)) {
        virtio_mem_guard_faults_cleanup();
        event_notifier_cleanup(&guard_shared->quit);
        uffd_close_fd(guard_shared->uffd);
    }
}

/* Guard all, if only to see whether that is possible. */
static bool guard_start(VirtIOMEMGuard *guard, bool paused, Error **errp)
{
    const VirtIOMEMGuardArea *area = &guard->area;
    int ret;

    if (!paused && !virtio_mem_guard_faults_start()) {
        error_setg(errp, "cannot create a thread for the guard");
        return false;
    }
    ret = virtio_mem_guard_map_resume(&guard->map);
    if (ret) {
        error_setg_errno(errp, -ret, "userfaultfd cannot watch this memory: it"
                         " has to be anonymous memory, shared memory (memfd,"
                         " tmpfs) or hugetlb pages, and nobody else may watch"
                         " it");
        return false;
    }
    if (paused) {
        virtio_mem_guard_map_pause(&guard->map);
    } else if (!area->shared && !guard->map.cut) {
        /* The page that was touched, which may be a transparent huge page. */
        area->discard(area->opaque, 0, area->size);
    }
    return true;
}

VirtIOMEMGuard *virtio_mem_guard_new(const VirtIOMEMGuardArea *area,
                                     bool paused, Error **errp)
{
    VirtIOMEMGuard *guard;
    bool ok;

    assert(bql_locked());
    if (!guard_open(errp)) {
        return NULL;
    }
    guard = g_new0(VirtIOMEMGuard, 1);
    guard->area = *area;

    virtio_mem_guard_lock();
    virtio_mem_guard_map_init(&guard->map, guard_shared->uffd, &guard->area);
    ok = guard_start(guard, paused, errp);
    if (ok) {
        virtio_mem_guard_budget_count(&guard_shared->budget,
                                      guard_count_mappings());
    }
    QLIST_INSERT_HEAD(&guard_shared->guards, guard, next);
    virtio_mem_guard_unlock();

    if (!ok) {
        virtio_mem_guard_free(guard);
        return NULL;
    }
    return guard;
}

/* Takes back what is lent; each thread that waits for an answer goes on. */
void virtio_mem_guard_free(VirtIOMEMGuard *guard)
{
    if (!guard) {
        return;
    }
    assert(bql_locked());
    virtio_mem_guard_lock();
    if (virtio_mem_guard_faults_pause(guard)) {
        error_report("virtio-mem: the host does not map a backend's memory"
                     " again: do not use it for another device");
    }
    QLIST_REMOVE(guard, next);
    virtio_mem_guard_unlock();
    guard_close();
    virtio_mem_guard_map_cleanup(&guard->map);
    g_free(guard);
}
