/*
 * The guard's thread: it answers the faults of all others.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_FAULTS_H
#define HW_VIRTIO_MEM_GUARD_FAULTS_H

#include "qemu/event_notifier.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-guard-budget.h"
#include "virtio-mem-guard-ring.h"
#include "virtio-mem-guard-map.h"

struct VirtIOMEMGuard {
    VirtIOMEMGuardArea area;
    VirtIOMEMGuardMap map;
    VirtIOMEMGuardAccess access;
    bool accessed;              /* since the last fetch */
    bool is_clean;              /* as long as it is active; with the BQL */
    QLIST_ENTRY(VirtIOMEMGuard) next;
};

/* Pages that are lent, and the threads that wait for their turn, in order. */
typedef struct VirtIOMEMGuardDesk {
    VirtIOMEMGuardRing ring;
    GQueue waiting;             /* one fault for a thread */
} VirtIOMEMGuardDesk;

/* What all guards of the process share. */
typedef struct VirtIOMEMGuardShared {
    /* While there are guards; changes with the BQL. */
    int uffd;
    bool has_thread_ids;
    EventNotifier quit;
    GThread *thread;            /* from the first time one is active */

    QemuMutex gate;             /* see virtio_mem_guard_lock() */
    QemuMutex lock;             /* of all below, and of all guards */
    QLIST_HEAD(, VirtIOMEMGuard) guards;
    VirtIOMEMGuardBudget budget;
    /* By the kind of their rings. */
    VirtIOMEMGuardDesk desks[VIRTIO_MEM_GUARD_RINGS];
} VirtIOMEMGuardShared;

extern VirtIOMEMGuardShared virtio_mem_guard_shared;

/*
 * The lock of all guards.  The guard's thread takes it again and again, so
 * other threads queue for it: none waits for more than one fault.
 */
static inline void virtio_mem_guard_lock(void)
{
    qemu_mutex_lock(&virtio_mem_guard_shared.gate);
    qemu_mutex_lock(&virtio_mem_guard_shared.lock);
    qemu_mutex_unlock(&virtio_mem_guard_shared.gate);
}

static inline void virtio_mem_guard_unlock(void)
{
    qemu_mutex_unlock(&virtio_mem_guard_shared.lock);
}

/* Before the first guard, with the userfaultfd; and after the last one. */
void virtio_mem_guard_faults_init(void);
void virtio_mem_guard_faults_cleanup(void);

/* Take back what is lent in a range of @guard, in bytes.  Guard's lock. */
void virtio_mem_guard_faults_take_back(VirtIOMEMGuard *guard, uint64_t offset,
                                       uint64_t size);

/*
 * Have other memory stand in for that of the guarded blocks around @offset,
 * which is one of them, if the host lets us; see virtio_mem_guard_substitute().
 * True if so: each thread that waits there has been woken.  Guard's lock.
 */
bool virtio_mem_guard_faults_substitute(VirtIOMEMGuard *guard, uint64_t offset);

/*
 * Pause, as virtio_mem_guard_pause() does.  Lose: the kernel does not let us do
 * as we must, so pause and tell the caller.  Guard's lock.
 */
int virtio_mem_guard_faults_pause(VirtIOMEMGuard *guard);
void virtio_mem_guard_faults_lose(VirtIOMEMGuard *guard);

/* Have the thread run; false if the host refuses to create it.  BQL. */
bool virtio_mem_guard_faults_start(void);

#endif
