/*
 * Hold the host: a qtest decides when, and whether, QEMU's calls to populate
 * memory and to give it back end.
 *
 * QEMU runs with virtio-mem-slow-host.c preloaded, which asks the test before
 * each of them.  So a request can be kept in flight for as long as it takes to
 * do something to the device.
 *
 * Layer: virtio-mem-guest and virtio-mem-migrate below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_HOLD_H
#define TESTS_QTEST_VIRTIO_MEM_HOLD_H

/* --- between the two sides --- */

/* Environment: where to ask, and the file with which no thread can start. */
#define VM_HOLD_SOCKET "VIRTIO_MEM_HOLD_SOCKET"
#define VM_HOLD_NO_THREADS "VIRTIO_MEM_HOLD_NO_THREADS"
/* The file, if it is there, to read instead of vm.max_map_count. */
#define VM_HOLD_MAX_MAP_COUNT "VIRTIO_MEM_HOLD_MAX_MAP_COUNT"

/* The file, if it is there, that has the words for what is refused. */
#define VM_HOLD_REFUSED "VIRTIO_MEM_HOLD_REFUSED"
#define VM_REFUSE_DISCARD "discard"
#define VM_REFUSE_POPULATE "populate"
#define VM_REFUSE_ADVICE "advice"   /* to populate: Linux before 5.14 */
#define VM_REFUSE_THP "thp"         /* how large huge pages are */
#define VM_REFUSE_WATCH "watch"     /* by userfaultfd, and no longer: blocks */

/* In QEMU: the errno that a call on so many bytes is refused with, or 0. */
int virtio_mem_hold_refusal(const char *word, uint64_t size);

typedef enum VirtioMemHostCall {
    VM_HOST_POPULATE,
    VM_HOST_DISCARD,
} VirtioMemHostCall;

typedef struct VirtioMemHostQuestion {
    VirtioMemHostCall call;
    size_t size;
} VirtioMemHostQuestion;

/* --- the test's side --- */

typedef struct VirtioMemGuest VirtioMemGuest;
typedef struct VirtioMemOptions VirtioMemOptions;

/* A call that waits for its verdict. */
typedef struct VirtioMemHeld {
    VirtioMemHostQuestion question;
    int fd;
} VirtioMemHeld;

/*
 * What was asked and allowed until the device was drained; and how often the
 * thread that drained worked on memory itself.
 */
typedef struct VirtioMemDrained {
    unsigned int nb_populates;
    unsigned int nb_more;
} VirtioMemDrained;

/*
 * A guest, or a migration target, whose host can be held; one at a time.
 * Nothing is held yet.
 */
VirtioMemGuest *virtio_mem_hold_start(const VirtioMemOptions *opts);
VirtioMemGuest *virtio_mem_hold_target(const VirtioMemOptions *opts);

/*
 * _begin: host calls block until the test releases them.  _end: release the
 * blocked ones and block no more.
 */
void virtio_mem_hold_begin(void);
void virtio_mem_hold_end(void);

/* What the host refuses from now on: one of VM_REFUSE_*; NULL: nothing. */
void virtio_mem_hold_refuse(const char *word);

/* Whether QEMU can start threads, as it can at first. */
void virtio_mem_hold_allow_threads(bool allow);

/* What QEMU believes vm.max_map_count is; the kernel does not. */
void virtio_mem_hold_set_max_map_count(uint64_t max_map_count);

/* The next call that waits, which comes within a minute or the test fails. */
VirtioMemHeld virtio_mem_hold_next(VirtioMemHostCall expected);
/* The next one of this kind; those of the other that come before it go on. */
VirtioMemHeld virtio_mem_hold_skip_to(VirtioMemHostCall call);
/* Let it happen, or fail with @error (an errno). */
void virtio_mem_hold_release(VirtioMemHeld held, int error);

/*
 * For what waits for the request in flight, and so must be done while @held is
 * let go: a thread does that as soon as QEMU says that it drains the device,
 * and goes on with all that comes after it, until _drained().
 */
void virtio_mem_hold_until_drain(VirtioMemHeld held);
VirtioMemDrained virtio_mem_hold_drained(void);

#endif
