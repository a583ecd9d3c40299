/*
 * Snapshots of the tiny guest, in a disk of its own.
 *
 * Layer: virtio-mem-migrate below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_SNAPSHOTS_H
#define TESTS_QTEST_VIRTIO_MEM_SNAPSHOTS_H

#include "virtio-mem-guest.h"

/* Its file, see virtio_mem_temp_path(). */
#define VM_SNAPSHOT_DISK "disk.qcow2"

/* A new disk that can hold snapshots. */
void virtio_mem_snapshot_add_disk(VirtioMemGuest *vm);

/* "snapshot-save" or "snapshot-load", to its end. */
void virtio_mem_snapshot_do(VirtioMemGuest *vm, const char *command);

/* The same when it may fail: NULL, or what went wrong (caller frees). */
char *virtio_mem_snapshot_try(VirtioMemGuest *vm, const char *command);

#endif
