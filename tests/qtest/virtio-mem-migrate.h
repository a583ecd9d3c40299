/*
 * The tiny guest on the move: two QEMUs, one driver.
 *
 * A migration is started, held or waited for; when the stream has arrived the
 * target takes the driver over: ring position, vectors, BARs and the allocator
 * of guest memory are the guest's own state and travel outside the stream.
 *
 * Layer: virtio-mem-guest and QEMU's migration-qmp below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_MIGRATE_H
#define TESTS_QTEST_VIRTIO_MEM_MIGRATE_H

#include "virtio-mem-guest.h"
#include "migration/migration-qmp.h"

/* Names the binary of another implementation of the device, if there is one. */
#define VM_STOCK_BINARY "STOCK_QEMU_BINARY"
/* If not, the test is marked as skipped. */
bool virtio_mem_have_stock(void);
/*
 * The same options where the other side may be another series of QEMU: a type
 * of machine that both know, and a ring that both take.  10.0 offers 1024 slots
 * since 10.0.13, and 11.1 loads no more than the device's own 128.
 */
VirtioMemOptions virtio_mem_with_stock(const VirtioMemOptions *opts);

/* Small enough to make streams short, large enough that U < R. */
#define VM_MIGRATE_REGION (4 * GiB)

/*
 * Start a guest, or a target that waits for its state (-incoming defer), with
 * the binary that environment variable @env names; NULL means the usual one.
 */
VirtioMemGuest *virtio_mem_start_with(const char *env,
                                      const VirtioMemOptions *opts);
VirtioMemGuest *virtio_mem_target_with(const char *env,
                                       const VirtioMemOptions *opts);
VirtioMemGuest *virtio_mem_target(const VirtioMemOptions *opts);

/* A path below a directory that is removed when the test program ends. */
char *virtio_mem_temp_path(const char *name);

/*
 * Set a capability that not every host has; if this one has not, the test is
 * marked as skipped.  Those that QEMU always has: migrate_set_capability().
 */
bool virtio_mem_migrate_can(VirtioMemGuest *vm, const char *capability);
/* Start the migration; wait for a status (that must not be missed). */
void virtio_mem_migrate_to(VirtioMemGuest *vm, const char *uri);
void virtio_mem_migrate_listen(VirtioMemGuest *to, const char *uri);
void virtio_mem_migrate_wait(VirtioMemGuest *vm, const char *status);
/* One that never ends for want of bandwidth, but by virtio_mem_end_busy(). */
void virtio_mem_migrate_hold(VirtioMemGuest *vm, const char *uri);

/* All of it, over a socket: afterwards @to is the guest, and running. */
void virtio_mem_migrate(VirtioMemGuest *from, VirtioMemGuest *to);
/* The same through a file. */
void virtio_mem_migrate_file(VirtioMemGuest *from, VirtioMemGuest *to);
/* The last step alone; @from can only be stopped after it. */
void virtio_mem_take_over(VirtioMemGuest *to, VirtioMemGuest *from);

/* Save to @path.  The source stays there, paused. */
void virtio_mem_save(VirtioMemGuest *vm, const char *path);
/*
 * A target that has tried to load @path: returns whether it did.  If not, QEMU
 * goes on, and @error gets what was said on monitor and stderr (caller frees).
 */
bool virtio_mem_load(const VirtioMemOptions *opts, const char *path,
                     VirtioMemGuest **to, char **error);
/* The same when it must fail. */
char *virtio_mem_load_error(const VirtioMemOptions *opts, const char *path);

/* Wait for a config interrupt that must come, and take it. */
void virtio_mem_wait_config_irq(VirtioMemGuest *vm);

#endif
