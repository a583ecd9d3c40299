/*
 * A scene: memory plugged here and there, filled, and what it looked like, so
 * that a test can say "all of it is still the same" after a reset, a
 * migration or anything else that must not matter.
 *
 * Layer: virtio-mem-guest below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_SCENE_H
#define TESTS_QTEST_VIRTIO_MEM_SCENE_H

#include "virtio-mem-guest.h"

typedef struct VirtioMemScene {
    uint64_t usable;        /* U, P, Q in bytes */
    uint64_t plugged;
    uint64_t requested;
    uint64_t nb_blocks;     /* in the usable region */
    unsigned long *bitmap;  /* as read by STATE */
    uint8_t seed;           /* of the pattern in the plugged blocks */
} VirtioMemScene;

/* Look at the device as it is; the plugged blocks hold the pattern @seed. */
VirtioMemScene *virtio_mem_scene_look(VirtioMemGuest *vm, uint8_t seed);
void virtio_mem_scene_free(VirtioMemScene *scene);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VirtioMemScene, virtio_mem_scene_free)

/*
 * Ask for VM_REQUESTED, plug random runs (the first and the last usable block
 * among them) and fill them.  Random by GLib's --seed.
 */
VirtioMemScene *virtio_mem_scene_make(VirtioMemGuest *vm);

/* Sizes, bitmap and content are those of @scene. */
void virtio_mem_scene_check(VirtioMemGuest *vm, const VirtioMemScene *scene);
/* Bitmap and content only: the sizes may have been changed by the host. */
void virtio_mem_scene_check_blocks(VirtioMemGuest *vm,
                                   const VirtioMemScene *scene);

/* Every byte of these blocks, read as the guest does, also where unplugged. */
bool virtio_mem_blocks_are_filled(VirtioMemGuest *vm, uint64_t first,
                                  uint64_t nb, uint8_t byte);

#endif
