/*
 * A faulty host: a qtest decides which of QEMU's calls to the host fail.
 *
 * QEMU runs with virtio-mem-faulty-host.c preloaded, which counts the calls
 * and lets them fail.  The test and QEMU share the numbers.
 *
 * Layer: virtio-mem-hold below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_FAULTS_H
#define TESTS_QTEST_VIRTIO_MEM_FAULTS_H

/* --- between the two sides --- */

/* Environment: the file with the numbers. */
#define VM_FAULTS_FILE "VIRTIO_MEM_FAULTS"

/* Those that the device makes. */
typedef enum VirtioMemHostFault {
    VM_FAULT_MADVISE,
    VM_FAULT_FALLOCATE,
    VM_FAULT_MMAP,          /* in place, or of memory that is only read */
    VM_FAULT_UFFD,          /* ioctl of a userfaultfd */
    VM_FAULT_THREAD,        /* pthread_create, for GLib */
    VM_FAULT_EVENTFD,
    VM_FAULT_OPEN,          /* of /dev, /proc or /sys; a new userfaultfd */
    VM_FAULT_FILE,          /* lseek, pread, readlink */
    VM_FAULT_MEMORY,        /* for a table of any size */
    VM_FAULT__MAX,
} VirtioMemHostFault;

/* All atomic. */
typedef struct VirtioMemFaults {
    uint32_t calls;         /* a bit for each that may fail now */
    uint32_t after;         /* so many go on first, and then one fails */
    uint32_t seed;          /* or, if it is not 0, every second by chance */
    uint32_t nb_calls;
    uint32_t nb_faults;
} VirtioMemFaults;

/* In QEMU: the errno that this call shall fail with, or 0. */
int virtio_mem_fault_of(VirtioMemHostFault call);

/* --- the test's side --- */

typedef struct VirtioMemGuest VirtioMemGuest;
typedef struct VirtioMemOptions VirtioMemOptions;

/* A guest whose host can be faulty; one at a time.  Nothing fails yet. */
VirtioMemGuest *virtio_mem_faults_start(const VirtioMemOptions *opts);

/* From now on, the call number @after, from 0, fails. */
void virtio_mem_faults_begin(VirtioMemHostFault call, uint32_t after);
/* Every second of all calls fails, by chance; @seed is not 0. */
void virtio_mem_faults_begin_at_random(uint32_t seed);
/* No more; how many failed. */
uint32_t virtio_mem_faults_end(void);

#endif
