/*
 * A faulty host: a qtest decides which of QEMU's calls to the host fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "virtio-mem-faults.h"
#include "virtio-mem-guest.h"
#include "virtio-mem-hold.h"
#include "virtio-mem-migrate.h"

static VirtioMemFaults *faults;

VirtioMemGuest *virtio_mem_faults_start(const VirtioMemOptions *opts)
{
    g_autofree char *path = virtio_mem_temp_path("faults");
    int fd;

    if (!faults) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(ftruncate(fd, sizeof(*faults)), ==, 0);
        faults = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, 0);
        g_assert_true(faults != MAP_FAILED);
        close(fd);
        g_setenv(VM_FAULTS_FILE, path, true);
    }
    return virtio_mem_hold_start(opts);
}

static void faults_begin(uint32_t calls, uint32_t after, uint32_t seed)
{
    qatomic_set(&faults->after, after);
    qatomic_set(&faults->seed, seed);
    qatomic_set(&faults->nb_calls, 0);
    qatomic_set(&faults->nb_faults, 0);
    qatomic_set(&faults->calls, calls);
}

void virtio_mem_faults_begin(VirtioMemHostFault call, uint32_t after)
{
    faults_begin(1u << call, after, 0);
}

void virtio_mem_faults_begin_at_random(uint32_t seed)
{
    faults_begin((1u << VM_FAULT__MAX) - 1, 0, seed);
}

uint32_t virtio_mem_faults_end(void)
{
    qatomic_set(&faults->calls, 0);
    return qatomic_read(&faults->nb_faults);
}
