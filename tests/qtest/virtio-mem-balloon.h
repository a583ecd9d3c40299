/*
 * The driver of a balloon's statistics: what the guest says about its memory.
 *
 * The device keeps one buffer of the driver, and gives it back to ask for a
 * report, which is what the driver returns in it.
 *
 * Layer: virtio-mem-guest below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_BALLOON_H
#define TESTS_QTEST_VIRTIO_MEM_BALLOON_H

#include "virtio-mem-guest.h"

#define VM_BALLOON_ARGS \
    "-device virtio-balloon-pci,id=balloon0,disable-legacy=on,addr=06.0"

typedef struct VirtioMemBalloon VirtioMemBalloon;

/* Find the one that VM_BALLOON_ARGS makes, and bring its driver up. */
VirtioMemBalloon *virtio_mem_balloon_start(VirtioMemGuest *vm);
void virtio_mem_balloon_free(VirtioMemBalloon *balloon);

/*
 * Send a report, in bytes; the first one is not asked for.  Returns when QEMU
 * has it.
 */
void virtio_mem_balloon_report(VirtioMemBalloon *balloon, uint64_t total,
                               uint64_t available);
/* One that says nothing of these. */
void virtio_mem_balloon_report_nothing(VirtioMemBalloon *balloon);

/* One that says more: bytes, and how often since the guest booted. */
typedef struct VirtioMemReport {
    uint64_t total;
    uint64_t available;
    uint64_t swap_out;
    uint64_t oom_kills;
    uint64_t alloc_stalls;
} VirtioMemReport;

void virtio_mem_balloon_report_all(VirtioMemBalloon *balloon,
                                   const VirtioMemReport *report);

/* What QEMU shows of the last report; -1 if that did not say. */
int64_t virtio_mem_balloon_stat(VirtioMemBalloon *balloon, const char *name);

/* Whether the device asks for a report, and has not got it yet. */
bool virtio_mem_balloon_is_asked(VirtioMemBalloon *balloon);

#endif
