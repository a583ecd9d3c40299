/*
 * virtio-mem: how large the usable region is, and which guest addresses are
 * blocks in it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-config.h"
#include "hw/virtio/virtio-mem-region.h"
#include "virtio-mem-fake-host.h"

#define EXTENT (256 * MiB)

/* --- the usable region --- */

/* Count blocks until they are enough, or there are no more. */
static uint64_t horrible_usable_size(uint64_t region_size, uint64_t block_size,
                                     uint64_t requested_size)
{
    uint64_t size = 0;

    while (requested_size && size < region_size &&
           size < requested_size + EXTENT) {
        size += block_size;
    }
    return size;
}

static void region_init(FakeHost *host, uint64_t region_size,
                        uint64_t block_size, uint64_t usable_size)
{
    fake_host_init(host);
    host->memdev.mr.size = int128_make64(region_size);
    host->vmem.block_size = block_size;
    fake_usable_extent = EXTENT;
    fake_asks_guest = true;
    host->vmem.usable_region_size = usable_size;
}

static void fit(FakeHost *host, uint64_t asked_size)
{
    host->vmem.asked_size = asked_size;
    virtio_mem_config_fit_usable_size(&host->vmem);
}

/*
 * The generation tells if, and only if, the size changed; and once more when
 * another size is asked for, by which it cannot shrink.
 */
static void assert_resize(FakeHost *host, uint64_t asked_size,
                          bool can_shrink, uint64_t expect)
{
    const unsigned generation = fake_host_generation(host);
    const bool changes = expect != host->vmem.usable_region_size;

    if (can_shrink) {
        fit(host, asked_size);
    } else {
        host->vmem.asked_size = asked_size + 1;
        virtio_mem_config_set_asked_size(&host->vmem, asked_size);
    }
    g_assert_cmphex(host->vmem.usable_region_size, ==, expect);
    g_assert_cmpuint(fake_host_generation(host) - generation, ==,
                     changes + !can_shrink);
}

static void test_as_documented(void)
{
    FakeHost host;

    region_init(&host, GiB, 2 * MiB, 0);
    assert_resize(&host, 256 * MiB, true, 512 * MiB);
    assert_resize(&host, 512 * MiB, false, 768 * MiB);
    assert_resize(&host, 0, false, 768 * MiB);
    assert_resize(&host, 0, true, 0);
    fake_host_destroy(&host);
}

static void test_every_request(void)
{
    static const struct {
        uint64_t region_size;
        uint64_t block_size;
    } geometries[] = {
        { GiB, MiB },
        { GiB, 2 * MiB },
        { 129 * MiB, MiB },         /* smaller than the extent */
        { 256 * MiB, 2 * MiB },     /* just the extent */
        { 258 * MiB, 2 * MiB },
        { GiB, 128 * MiB },
        { 4 * GiB, 512 * MiB },     /* the extent is no whole block */
        { 3 * GiB, GiB },
        { GiB, GiB },               /* one block */
        { TiB, GiB },
    };

    for (size_t i = 0; i < ARRAY_SIZE(geometries); i++) {
        const uint64_t region_size = geometries[i].region_size;
        const uint64_t block_size = geometries[i].block_size;

        for (uint64_t requested_size = 0; requested_size <= region_size;
             requested_size += block_size) {
            const uint64_t expect = horrible_usable_size(region_size,
                                                         block_size,
                                                         requested_size);
            FakeHost host;

            region_init(&host, region_size, block_size, 0);
            assert_resize(&host, requested_size, false, expect);
            g_assert_cmphex(expect, >=, requested_size);
            g_assert_cmphex(expect, <=, region_size);
            g_assert_cmphex(expect % block_size, ==, 0);
            fake_host_destroy(&host);
        }
    }
}

/* From each size to each: down only if it may, and up always. */
static void test_every_change(void)
{
    for (uint64_t from = 0; from <= GiB; from += 64 * MiB) {
        for (uint64_t to = 0; to <= GiB; to += 64 * MiB) {
            const uint64_t old_size = horrible_usable_size(GiB, MiB, from);
            const uint64_t new_size = horrible_usable_size(GiB, MiB, to);
            FakeHost host;

            region_init(&host, GiB, MiB, old_size);
            assert_resize(&host, to, false, MAX(old_size, new_size));
            assert_resize(&host, to, true, new_size);
            fake_host_destroy(&host);
        }
    }
}

/* Nobody may shrink it below a plugged block; growing is no problem. */
static void test_plugged(void)
{
    FakeHost host;

    region_init(&host, GiB, 2 * MiB, 512 * MiB);
    virtio_mem_blocks_set_plugged(host.vmem.blocks, (VirtIOMEMRange) { 0, 1 });
    if (g_test_subprocess()) {
        fit(&host, 0);
        return;
    }

    assert_resize(&host, 512 * MiB, false, 768 * MiB);
    assert_resize(&host, 0, false, 768 * MiB);
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*Assertion*failed*");
    fake_host_destroy(&host);
}

/* --- guest addresses --- */

#define NB_USABLE 8

/* All block numbers are tried, and none is computed. */
static bool horrible_range_from_gpa(const VirtIOMEM *vmem, uint64_t gpa,
                                    uint16_t nb_blocks, VirtIOMEMRange *range)
{
    for (uint64_t first = 0; first < NB_USABLE; first++) {
        if (gpa == vmem->addr + first * vmem->block_size &&
            nb_blocks >= 1 && first + nb_blocks <= NB_USABLE) {
            *range = (VirtIOMEMRange) { first, nb_blocks };
            return true;
        }
    }
    return false;
}

static void assert_range(const VirtIOMEM *vmem, uint64_t gpa,
                         uint16_t nb_blocks)
{
    VirtIOMEMRange expect = { 0, 0 }, range = { 0, 0 };

    g_assert_cmpint(virtio_mem_range_from_gpa(vmem, gpa, nb_blocks, &range),
                    ==,
                    horrible_range_from_gpa(vmem, gpa, nb_blocks, &expect));
    g_assert_cmpuint(range.first, ==, expect.first);
    g_assert_cmpuint(range.nb_blocks, ==, expect.nb_blocks);
    g_assert_cmphex(virtio_mem_range_offset(vmem, range), ==,
                    expect.first * vmem->block_size);
    g_assert_cmphex(virtio_mem_range_size(vmem, range), ==,
                    expect.nb_blocks * vmem->block_size);
}

/* Around each edge of a block, with each interesting number of blocks. */
static void assert_ranges(uint64_t addr, uint64_t block_size)
{
    static const uint16_t counts[] = {
        0, 1, 2, NB_USABLE - 1, NB_USABLE, NB_USABLE + 1,
        INT16_MAX, UINT16_MAX - 1, UINT16_MAX,
    };
    static const int nudges[] = { -4096, -1, 0, 1, 4096 };
    const VirtIOMEM vmem = {
        .addr = addr,
        .block_size = block_size,
        .usable_region_size = NB_USABLE * block_size,
    };

    for (int block = -2; block <= NB_USABLE + 2; block++) {
        for (size_t i = 0; i < ARRAY_SIZE(nudges); i++) {
            for (size_t j = 0; j < ARRAY_SIZE(counts); j++) {
                assert_range(&vmem, addr + block * block_size + nudges[i],
                             counts[j]);
            }
        }
    }
    assert_range(&vmem, 0, 1);
    assert_range(&vmem, UINT64_MAX, UINT16_MAX);
    assert_range(&vmem, QEMU_ALIGN_DOWN(UINT64_MAX, block_size), UINT16_MAX);
    assert_range(&vmem, 1ULL << 63, UINT16_MAX);
}

static void test_addresses(void)
{
    static const uint64_t block_sizes[] = { MiB, 2 * MiB, 128 * MiB, GiB };

    for (size_t i = 0; i < ARRAY_SIZE(block_sizes); i++) {
        const uint64_t block_size = block_sizes[i];

        assert_ranges(0, block_size);
        assert_ranges(5 * GiB, block_size);
        /* Right below the end of all addresses, and one block before it. */
        assert_ranges(-(NB_USABLE * block_size), block_size);
        assert_ranges(-((NB_USABLE + 1) * block_size), block_size);
    }
}

static void test_none_usable(void)
{
    const VirtIOMEM vmem = { .addr = 4 * GiB, .block_size = MiB };
    VirtIOMEMRange range;

    g_assert_false(virtio_mem_range_from_gpa(&vmem, vmem.addr, 1, &range));
    g_assert_false(virtio_mem_range_from_gpa(&vmem, vmem.addr, 0, &range));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/region/usable/as-documented",
                    test_as_documented);
    g_test_add_func("/virtio-mem/region/usable/every-request",
                    test_every_request);
    g_test_add_func("/virtio-mem/region/usable/shrinks-only-if-it-may",
                    test_every_change);
    g_test_add_func("/virtio-mem/region/usable/never-below-plugged",
                    test_plugged);
    g_test_add_func("/virtio-mem/region/gpa/around-each-edge", test_addresses);
    g_test_add_func("/virtio-mem/region/gpa/none-usable", test_none_usable);
    return g_test_run();
}
