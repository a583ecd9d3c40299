/*
 * What a guest costs its host, for tests that bound it.
 *
 * Layer: virtio-mem-guest below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_HOST_MEMORY_H
#define TESTS_QTEST_VIRTIO_MEM_HOST_MEMORY_H

#include "virtio-mem-guest.h"

/*
 * With sanitizers, QEMU keeps what it has freed for a while (quarantine_size_mb
 * in meson.build), and has page tables of their own for all it looks at.
 */
#ifdef __SANITIZE_ADDRESS__
#define VM_HOST_NOISE (32 * MiB)
#else
#define VM_HOST_NOISE 0
#endif

/*
 * Memory of the host that QEMU has: page tables, and what its memory files have
 * that it does not map, included.
 */
uint64_t virtio_mem_host_memory(VirtioMemGuest *vm);

/* It is now not more than @max above what it was @before. */
void virtio_mem_assert_gain(VirtioMemGuest *vm, uint64_t before, uint64_t max);

#endif
