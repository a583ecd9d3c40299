/*
 * Jobs that resize the tiny guest.  A device's job has the device's ID.
 *
 * Layer: virtio-mem-safe below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_JOBS_H
#define TESTS_QTEST_VIRTIO_MEM_JOBS_H

#include "virtio-mem-safe.h"

/* A guest with 2 GiB, without a job yet; and the same with 1 GiB left of 3. */
VirtioMemSafe *virtio_mem_job_begin(VirtioMemGuest *vm);
VirtioMemSafe *virtio_mem_job_begin_safe(VirtioMemGuest *vm);
void virtio_mem_job_end(VirtioMemSafe *safe);

/*
 * Start a job of @vm that is to resize the device @id.  @options are further
 * arguments in JSON, each after a comma.  NULL, or the error (caller frees).
 */
char *virtio_mem_job_try(VirtioMemGuest *vm, const char *id, uint64_t size,
                         const char *options);
/* The same when it cannot fail. */
void virtio_mem_job_start(VirtioMemGuest *vm, uint64_t size,
                          const char *options);

/* A command such as "job-cancel" for the job. */
void virtio_mem_job_do(VirtioMemGuest *vm, const char *command);
/* Nothing is asked of the guest when this returns. */
void virtio_mem_job_pause(VirtioMemGuest *vm);

bool virtio_mem_job_is(VirtioMemGuest *vm, const char *status);

/* It ends, and its error has these words; "" for success.  Dismissed then. */
void virtio_mem_job_await_end(VirtioMemGuest *vm, const char *error);

void virtio_mem_job_assert_progress(VirtioMemGuest *vm, uint64_t now,
                                    uint64_t total);

/* What the device tells of its last job: the reason, or "" for success. */
void virtio_mem_job_assert_last(VirtioMemGuest *vm, uint64_t requested,
                                const char *reason);

/* It has @size bytes, and nothing else is wished or asked for. */
void virtio_mem_job_assert_settled(VirtioMemGuest *vm, uint64_t size);

#endif
