/*
 * A guest that is resized in mode safe: how much memory it uses is the test's
 * choice, and its balloon driver reports that.
 *
 * Layer: virtio-mem-guest and virtio-mem-balloon below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_SAFE_H
#define TESTS_QTEST_VIRTIO_MEM_SAFE_H

#include "virtio-mem-balloon.h"

/* In which the guest adds and removes memory. */
#define VM_UNIT (128 * MiB)

typedef struct VirtioMemSafe {
    VirtioMemGuest *vm;
    VirtioMemBalloon *balloon;
    uint64_t boot;          /* what it has beside virtio-mem, so it says */
    uint64_t used;
    uint64_t offline;       /* plugged, and not used by the guest */
    VirtioMemReport said;   /* the counters of its reports */
} VirtioMemSafe;

/*
 * Plug @plugged bytes in mode plain, and switch to mode safe.  The balloon's
 * driver is up, and its first report was not asked for.
 */
VirtioMemSafe *virtio_mem_safe_begin(VirtioMemGuest *vm, uint64_t plugged,
                                     uint64_t boot, uint64_t used);
/* Back to mode plain. */
void virtio_mem_safe_end(VirtioMemSafe *safe);

/* Set a property of the device by QMP (JSON); the error's text, or NULL. */
char *virtio_mem_safe_set(VirtioMemGuest *vm, const char *property,
                          const char *json);
void virtio_mem_safe_set_mode(VirtioMemGuest *vm, const char *mode);

/* Wish for another size; QEMU asks for a report then. */
void virtio_mem_safe_wish(VirtioMemSafe *safe, uint64_t size);

/* Let @ms pass; the report that is asked for then, and its sending. */
void virtio_mem_safe_report(VirtioMemSafe *safe, int64_t ms);
void virtio_mem_safe_await_poll(VirtioMemSafe *safe);
void virtio_mem_safe_assert_no_poll(VirtioMemSafe *safe);

/* Plug or unplug until the guest has what it is asked for. */
void virtio_mem_safe_obey(VirtioMemSafe *safe);
/* Unplug or plug so that @size is plugged. */
void virtio_mem_safe_move(VirtioMemSafe *safe, uint64_t size);

/* Soon, the guest is asked for @size; and what is said of it. */
void virtio_mem_safe_assert(VirtioMemSafe *safe, uint64_t size,
                            const char *status, const char *reason);

#endif
