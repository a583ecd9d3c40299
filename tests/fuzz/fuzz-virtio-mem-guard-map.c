/*
 * virtio-mem: the map of the guard beside its twin
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../unit/virtio-mem-guard-map-twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    guard_map_twin_run(bytes, len);
    return 0;
}
