/*
 * virtio-mem: the map of the guard, without a kernel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../hw/virtio/virtio-mem-guard-map.h"
#include "virtio-mem-guard-map-twin.h"

static void test_random(void)
{
    const unsigned nb_runs = g_test_slow() ? 1000000 : 20000;

    for (unsigned run = 0; run < nb_runs; run++) {
        uint8_t bytes[160];

        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = g_test_rand_int();
        }
        guard_map_twin_run(bytes, sizeof(bytes));
    }
}

static int map_nothing(void *opaque, uint64_t offset, uint64_t size)
{
    return 0;
}

/* Only with memory to map there again. */
static void test_substitutes(void)
{
    const uint64_t small = qemu_real_host_page_size();

    for (unsigned i = 0; i < 4; i++) {
        const VirtIOMEMGuardArea area = {
            .size = 64 * small, .block_size = 2 * small, .shared = true,
            .page_size = i & 1 ? 2 * small : small,
            .map = i & 2 ? map_nothing : NULL,
        };
        VirtIOMEMGuardMap map;

        virtio_mem_guard_map_init(&map, -1, &area);
        g_assert_cmpint(!!map.substituted, ==, i >= 2);
        g_assert_cmpint(!!map.cut, ==, i & 1);
        virtio_mem_guard_map_cleanup(&map);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/guard-map/random", test_random);
    g_test_add_func("/virtio-mem/guard-map/substitutes", test_substitutes);
    return g_test_run();
}
