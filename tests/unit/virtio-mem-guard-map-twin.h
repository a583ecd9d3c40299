/*
 * virtio-mem's map of the guard and a naive twin, on a kernel that is an array
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_GUARD_MAP_TWIN_H
#define VIRTIO_MEM_GUARD_MAP_TWIN_H

#include "virtio-mem-fuzz.h"

/*
 * Do to a new map what the bytes say, and compare it with its twin after each
 * operation.  The kernel refuses where the bytes say so.
 */
void guard_map_twin_run(const uint8_t *bytes, size_t len);

#endif
