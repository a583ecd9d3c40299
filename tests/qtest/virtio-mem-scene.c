/*
 * A scene: memory plugged here and there, and the proof that it is the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

#define SCENE_MAX_RUN   8
#define SCENE_MAX_GAP   64

VirtioMemScene *virtio_mem_scene_look(VirtioMemGuest *vm, uint8_t seed)
{
    VirtioMemScene *scene = g_new0(VirtioMemScene, 1);

    scene->usable = virtio_mem_usable_size(vm);
    scene->plugged = vm_plugged_size(vm);
    scene->requested = virtio_mem_requested_size(vm);
    scene->bitmap = virtio_mem_read_bitmap(vm, &scene->nb_blocks);
    scene->seed = seed;
    return scene;
}

void virtio_mem_scene_free(VirtioMemScene *scene)
{
    g_free(scene->bitmap);
    g_free(scene);
}

static void scene_plug(VirtioMemGuest *vm, uint64_t first, uint64_t nb,
                       uint8_t seed)
{
    vm_assert_plug(vm, first, nb, ACK);
    virtio_mem_write_pattern(vm, first, nb, seed);
}

VirtioMemScene *virtio_mem_scene_make(VirtioMemGuest *vm)
{
    uint8_t seed = g_test_rand_int_range(1, 256);
    uint64_t first = 0, nb = 1, last;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    last = virtio_mem_usable_blocks(vm) - 1;
    while (first + nb <= last) {
        scene_plug(vm, first, nb, seed);
        first += nb + g_test_rand_int_range(1, SCENE_MAX_GAP + 1);
        nb = g_test_rand_int_range(1, SCENE_MAX_RUN + 1);
    }
    scene_plug(vm, last, 1, seed);
    return virtio_mem_scene_look(vm, seed);
}

void virtio_mem_scene_check_blocks(VirtioMemGuest *vm,
                                   const VirtioMemScene *scene)
{
    g_autofree unsigned long *bitmap = NULL;
    uint64_t nb_blocks;

    bitmap = virtio_mem_read_bitmap(vm, &nb_blocks);
    g_assert_cmpuint(nb_blocks, ==, scene->nb_blocks);
    g_assert_true(bitmap_equal(bitmap, scene->bitmap, nb_blocks));
    for (uint64_t i = find_first_bit(bitmap, nb_blocks); i < nb_blocks;
         i = find_next_bit(bitmap, nb_blocks, i + 1)) {
        g_assert_true(virtio_mem_check_pattern(vm, i, 1, scene->seed));
    }
}

void virtio_mem_scene_check(VirtioMemGuest *vm, const VirtioMemScene *scene)
{
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, scene->usable);
    g_assert_cmphex(vm_plugged_size(vm), ==, scene->plugged);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, scene->requested);
    virtio_mem_scene_check_blocks(vm, scene);
}

bool virtio_mem_blocks_are_filled(VirtioMemGuest *vm, uint64_t first,
                                  uint64_t nb, uint8_t byte)
{
    for (uint64_t i = first; i < first + nb; i++) {
        if (!virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, i), byte,
                                  vm->block_size)) {
            return false;
        }
    }
    return true;
}
