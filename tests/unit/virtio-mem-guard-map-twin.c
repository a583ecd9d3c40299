/*
 * virtio-mem's map of the guard and a naive twin, on a kernel that is an array
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/userfaultfd.h"
#include "../../hw/virtio/virtio-mem-guard-map.h"
#include "virtio-mem-guard-map-twin.h"

#define NB_BLOCKS 200               /* several words of bits */
#define HOST ((uint8_t *)0x100000000)       /* never touched */

/* --- the kernel --- */

static struct {
    uint64_t block_size;
    bool registered[NB_BLOCKS];
    bool cut[NB_BLOCKS];        /* where a mapping begins, for good */
    unsigned refuse_in;         /* calls; 0: never */
    int refusal;                /* errno */
    unsigned nb_done;           /* blocks, before it says ENOMEM */
    bool has_refused;           /* since the last change began */
} kernel;

static int kernel_register(void *addr, uint64_t length, bool registered)
{
    const uint64_t first = ((uint8_t *)addr - HOST) / kernel.block_size;
    uint64_t nb = length / kernel.block_size;
    int ret = 0;

    g_assert_true((uint8_t *)addr >= HOST && nb &&
                  first + nb <= NB_BLOCKS &&
                  !(length % kernel.block_size));
    if (kernel.refuse_in && !--kernel.refuse_in) {
        kernel.has_refused = true;
        errno = kernel.refusal;
        ret = -1;
        nb = errno == ENOMEM ? kernel.nb_done % nb : 0;
    }
    for (uint64_t i = first; i < first + nb; i++) {
        kernel.registered[i] = registered;
    }
    for (uint64_t i = 1; i < NB_BLOCKS; i++) {
        kernel.cut[i] |= kernel.registered[i] != kernel.registered[i - 1];
    }
    return ret;
}

/* In place of those in util/userfaultfd.c. */
int uffd_register_memory(int uffd_fd, void *addr, uint64_t length,
                         uint64_t mode, uint64_t *ioctls)
{
    return kernel_register(addr, length, true);
}

int uffd_unregister_memory(int uffd_fd, void *addr, uint64_t length)
{
    return kernel_register(addr, length, false);
}

static uint64_t kernel_borders(bool merges)
{
    uint64_t nb = 0;

    for (uint64_t i = 1; i < NB_BLOCKS; i++) {
        nb += merges ? kernel.registered[i] != kernel.registered[i - 1]
                     : kernel.cut[i];
    }
    return nb;
}

/* --- what must be true --- */

typedef struct Twin {
    VirtIOMEMGuardMap map;
    bool guarded[NB_BLOCKS];
    bool was_refused;           /* ever */
} Twin;

static void twin_check(Twin *twin)
{
    const VirtIOMEMGuardMap *map = &twin->map;

    twin->was_refused |= kernel.has_refused;
    g_assert_true(virtio_mem_guard_map_check(map));
    for (uint64_t i = 0; i < NB_BLOCKS; i++) {
        const bool wanted = map->active && twin->guarded[i];

        g_assert_cmpint(virtio_mem_guard_map_is_guarded(map, i), ==,
                        twin->guarded[i]);
        /* What the kernel did not let go may be too much, never too little. */
        g_assert_true(kernel.registered[i] == wanted ||
                      (map->refused && !wanted));
    }
    if (!map->refused && (!map->cut || !twin->was_refused)) {
        g_assert_cmpuint(map->nb_borders, ==, kernel_borders(!map->cut));
    }
}

static void twin_set(Twin *twin, FuzzInput *input, bool guard)
{
    const uint64_t first = fuzz_take(input, 1) % NB_BLOCKS;
    const uint64_t nb = 1 + fuzz_take(input, 1) % (NB_BLOCKS - first);
    const uint64_t before = twin->map.nb_borders;
    const int64_t cost = virtio_mem_guard_map_cost(&twin->map, first, nb,
                                                   guard);
    const int ret = virtio_mem_guard_map_set(&twin->map, first, nb, guard);

    g_assert_true(!ret || kernel.has_refused);
    if (!ret) {
        g_assert_cmpuint(before + cost, ==, twin->map.nb_borders);
        for (uint64_t i = first; i < first + nb; i++) {
            twin->guarded[i] = guard;
        }
    }
}

/* The guarded run that @block is in. */
static void twin_find(const Twin *twin, uint64_t block, uint64_t *first,
                      uint64_t *last)
{
    *first = *last = block;
    while (*first && twin->guarded[*first - 1]) {
        --*first;
    }
    while (*last + 1 < NB_BLOCKS && twin->guarded[*last + 1]) {
        ++*last;
    }
}

/* Other memory is mapped, which is not registered, and watched again. */
static void twin_watch(Twin *twin, FuzzInput *input)
{
    uint64_t first = fuzz_take(input, 1) % NB_BLOCKS;
    uint64_t last = first;

    if (twin->map.active && twin->guarded[first]) {
        twin_find(twin, first, &first, &last);
        memset(kernel.registered + first, false, last + 1 - first);
    }
    virtio_mem_guard_map_watch(&twin->map, first, last + 1);
}

static void twin_find_run(Twin *twin, FuzzInput *input)
{
    const uint64_t block_size = kernel.block_size;
    const uint64_t block = fuzz_take(input, 1) % NB_BLOCKS;
    const uint64_t offset = block * block_size + block_size / 2;
    const uint64_t min = offset - MIN(offset, fuzz_take(input, 3));
    const uint64_t max = MIN(offset + 1 + fuzz_take(input, 3),
                             twin->map.area->size);
    uint64_t first, last, end;

    if (!twin->guarded[block]) {
        virtio_mem_guard_map_let_go(&twin->map, block);
        return;
    }
    twin_find(twin, block, &first, &last);
    g_assert_cmphex(virtio_mem_guard_map_find_run(&twin->map, offset, min, max,
                                                  &end), ==,
                    MAX(min, first * block_size));
    g_assert_cmphex(end, ==, MIN(max, (last + 1) * block_size));
}

static void twin_act(Twin *twin, FuzzInput *input)
{
    const uint8_t what = fuzz_take(input, 1);

    kernel.has_refused = false;
    switch (what % 8) {
    case 0 ... 1:
        twin_set(twin, input, false);
        break;
    case 2 ... 3:
        twin_set(twin, input, true);
        break;
    case 4:
        virtio_mem_guard_map_pause(&twin->map);
        g_assert_false(virtio_mem_guard_map_is_active(&twin->map));
        break;
    case 5:
        g_assert_cmpint(!virtio_mem_guard_map_resume(&twin->map), ==,
                        virtio_mem_guard_map_is_active(&twin->map));
        break;
    case 6:
        twin_watch(twin, input);
        break;
    case 7:
        twin_find_run(twin, input);
        kernel.refuse_in = what >> 3;
        kernel.refusal = what & 128 ? ENOMEM : EINVAL;
        kernel.nb_done = fuzz_take(input, 1);
    }
    twin_check(twin);
}

void guard_map_twin_run(const uint8_t *bytes, size_t len)
{
    FuzzInput input = { bytes, len };
    const uint64_t page_size = qemu_real_host_page_size() <<
                               (fuzz_take(&input, 1) & 1);
    const VirtIOMEMGuardArea area = {
        .host = HOST, .size = NB_BLOCKS * 2 * page_size,
        .page_size = page_size, .block_size = 2 * page_size, .shared = true,
    };
    Twin twin;

    memset(&kernel, 0, sizeof(kernel));
    kernel.block_size = area.block_size;
    memset(&twin, 0, sizeof(twin));
    memset(twin.guarded, true, sizeof(twin.guarded));
    virtio_mem_guard_map_init(&twin.map, -1, &area);
    while (input.len) {
        twin_act(&twin, &input);
    }
    virtio_mem_guard_map_pause(&twin.map);
    virtio_mem_guard_map_cleanup(&twin.map);
}
