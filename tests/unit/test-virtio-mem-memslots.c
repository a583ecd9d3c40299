/*
 * virtio-mem: how many dynamic memslots, and which of them are mapped
 *
 * The memory API is a fake: it keeps only what the memslots are, and asserts
 * that they change inside a transaction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-backing.h"
#include "hw/virtio/virtio-mem-region.h"
#include "hw/virtio/virtio-mem-memslots.h"

#define RANDOM_PROGRAMS 10
#define RANDOM_STEPS 5000

/* --- the fake memory API --- */

#define MAX_ALIASES 300

static MemoryRegion *fake_aliases[MAX_ALIASES];
static unsigned fake_nb_aliases;
static unsigned fake_transaction_depth;
static unsigned fake_nb_transactions;
static uint64_t fake_page_size = 4 * KiB;

void memory_region_init(MemoryRegion *mr, Object *owner, const char *name,
                        uint64_t size)
{
    mr->owner = owner;
    mr->size = int128_make64(size);
}

void memory_region_init_alias(MemoryRegion *mr, Object *owner,
                              const char *name, MemoryRegion *orig,
                              hwaddr offset, uint64_t size)
{
    g_assert_cmpuint(fake_nb_aliases, <, MAX_ALIASES);
    memory_region_init(mr, owner, name, size);
    mr->alias = orig;
    mr->alias_offset = offset;
    fake_aliases[fake_nb_aliases++] = mr;
}

uint64_t memory_region_size(MemoryRegion *mr)
{
    return int128_get64(mr->size);
}

uint64_t memory_region_get_alignment(const MemoryRegion *mr)
{
    return mr->align;
}

void memory_region_set_unmergeable(MemoryRegion *mr, bool unmergeable)
{
    mr->unmergeable = unmergeable;
}

bool memory_region_is_mapped(MemoryRegion *mr)
{
    return mr->container;
}

void memory_region_add_subregion(MemoryRegion *mr, hwaddr offset,
                                 MemoryRegion *subregion)
{
    g_assert_cmpuint(fake_transaction_depth, ==, 1);
    g_assert_null(subregion->container);
    subregion->container = mr;
    subregion->addr = offset;
}

void memory_region_del_subregion(MemoryRegion *mr, MemoryRegion *subregion)
{
    g_assert_cmpuint(fake_transaction_depth, ==, 1);
    g_assert_true(subregion->container == mr);
    subregion->container = NULL;
}

void memory_region_transaction_begin(void)
{
    fake_transaction_depth++;
}

void memory_region_transaction_commit(void)
{
    fake_transaction_depth--;
    fake_nb_transactions++;
}

size_t host_memory_backend_pagesize(HostMemoryBackend *memdev)
{
    return fake_page_size;
}

uint64_t virtio_mem_backing_default_block_size(HostMemoryBackend *memdev)
{
    return 2 * MiB;
}

/* --- a device with memslots --- */

typedef struct FakeDevice {
    VirtIOMEM vmem;
    HostMemoryBackend memdev;
} FakeDevice;

static void device_init(FakeDevice *device, uint64_t region_size,
                        uint64_t block_size, unsigned limit)
{
    rust_bql_mock_lock();
    memset(device, 0, sizeof(*device));
    device->memdev.mr.size = int128_make64(region_size);
    device->memdev.mr.align = 4 * MiB;
    device->vmem.memdev = &device->memdev;
    device->vmem.block_size = block_size;
    device->vmem.dynamic_memslots = true;
    virtio_mem_memslots_get_container(&device->vmem);
    virtio_mem_memslots_decide(&device->vmem, limit);
}

static void device_realize(FakeDevice *device)
{
    VirtIOMEM *vmem = &device->vmem;

    vmem->blocks = virtio_mem_blocks_new(virtio_mem_region_size(vmem) /
                                         vmem->block_size);
    virtio_mem_memslots_realize(vmem);
}

static void device_unrealize(FakeDevice *device)
{
    for (unsigned i = 0; i < fake_nb_aliases; i++) {
        g_assert_false(memory_region_is_mapped(fake_aliases[i]));
    }
    fake_nb_aliases = 0;
    virtio_mem_memslots_unrealize(&device->vmem);
    virtio_mem_blocks_free(device->vmem.blocks);
}

static void device_destroy(FakeDevice *device)
{
    virtio_mem_memslots_finalize(&device->vmem);
}

/* --- the decision --- */

/* The smallest memslots that are few enough, found by trying them all. */
static unsigned horrible_count(uint64_t region_size, uint64_t block_size,
                               unsigned limit)
{
    uint64_t memslot_size = block_size;
    unsigned count = 0;

    if (limit <= 1) {
        return 1;
    }
    while (memslot_size < GiB || memslot_size * limit < region_size) {
        memslot_size += block_size;
    }
    for (uint64_t start = 0; start < region_size; start += memslot_size) {
        count++;
    }
    return count;
}

/* In a row, the memslots are the region; only the last may be smaller. */
static void assert_partition(const FakeDevice *device)
{
    MemoryRegion *mr = &device->vmem.memdev->mr;
    const uint64_t full = memory_region_size(fake_aliases[0]);
    uint64_t end = 0;

    for (unsigned i = 0; i < fake_nb_aliases; i++) {
        MemoryRegion *alias = fake_aliases[i];
        const uint64_t size = memory_region_size(alias);

        g_assert_true(alias->alias == mr);
        g_assert_true(alias->unmergeable);
        g_assert_false(memory_region_is_mapped(alias));
        g_assert_cmphex(alias->alias_offset, ==, end);
        g_assert_cmphex(size % device->vmem.block_size, ==, 0);
        g_assert_cmphex(size, <=, full);
        g_assert_true(size == full || i == fake_nb_aliases - 1);
        end += size;
    }
    g_assert_cmphex(end, ==, memory_region_size(mr));
}

static void assert_decision(uint64_t region_size, uint64_t block_size,
                            unsigned limit)
{
    const unsigned expect = horrible_count(region_size, block_size, limit);
    FakeDevice device;

    device_init(&device, region_size, block_size, limit);
    g_assert_cmpuint(virtio_mem_memslots_count(&device.vmem), ==, expect);
    g_assert_cmpuint(expect, <=, MAX(limit, 1));
    device_realize(&device);
    g_assert_cmpuint(fake_nb_aliases, ==, expect);
    assert_partition(&device);
    device_unrealize(&device);
    g_assert_cmpuint(virtio_mem_memslots_count(&device.vmem), ==, expect);
    device_destroy(&device);
}

static void test_decide(void)
{
    static const unsigned limits[] = { 0, 1, 2, 3, 7, 127, 128, 255, 256 };
    static const uint64_t block_sizes[] = {
        2 * MiB, 128 * MiB, 512 * MiB, GiB, 2 * GiB,
    };
    static const uint64_t nb_blocks[] = {
        1, 2, 3, 7, 8, 9, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000,
        4097,
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(block_sizes); j++) {
            for (size_t k = 0; k < ARRAY_SIZE(nb_blocks); k++) {
                assert_decision(nb_blocks[k] * block_sizes[j], block_sizes[j],
                                limits[i]);
            }
        }
    }
}

static void assert_count(uint64_t region_size, uint64_t block_size,
                         unsigned limit, unsigned expect)
{
    FakeDevice device;

    device_init(&device, region_size, block_size, limit);
    g_assert_cmpuint(virtio_mem_memslots_count(&device.vmem), ==, expect);
    device_destroy(&device);
}

static void test_decide_examples(void)
{
    assert_count(GiB, 2 * MiB, 256, 1);
    assert_count(GiB + 2 * MiB, 2 * MiB, 256, 2);
    assert_count(16 * GiB, 2 * MiB, 256, 16);
    assert_count(256 * GiB, 2 * MiB, 256, 256);
    assert_count(257 * GiB, 2 * MiB, 256, 256);
    assert_count(TiB, 2 * MiB, 256, 256);
    assert_count(16 * GiB, 8 * GiB, 256, 2);
    /* Seven would be smaller than a block. */
    assert_count(16 * GiB, 4 * GiB, 7, 4);
}

/* Realize is going to refuse these; until then they take one memslot. */
static void test_decide_unusable(void)
{
    assert_count(16 * GiB + MiB, 2 * MiB, 256, 1);
    fake_page_size = GiB;
    assert_count(16 * GiB, 2 * MiB, 256, 1);
    fake_page_size = 4 * KiB;
}

static void test_decide_settles_block_size(void)
{
    FakeDevice device;

    device_init(&device, 16 * GiB, 0, 256);
    g_assert_cmphex(device.vmem.block_size, ==, 2 * MiB);
    g_assert_cmpuint(virtio_mem_memslots_count(&device.vmem), ==, 16);
    device_destroy(&device);
}

static void test_off(void)
{
    FakeDevice device;

    device_init(&device, 16 * GiB, 2 * MiB, 256);
    device_destroy(&device);
    device.vmem.dynamic_memslots = false;
    virtio_mem_memslots_decide(&device.vmem, 256);
    g_assert_cmpuint(virtio_mem_memslots_count(&device.vmem), ==, 1);

    fake_nb_transactions = 0;
    device_realize(&device);
    virtio_mem_memslots_map(&device.vmem, (VirtIOMEMRange) { 0, 1 });
    virtio_mem_memslots_unmap_empty(&device.vmem, (VirtIOMEMRange) { 0, 1 });
    g_assert_cmpuint(fake_nb_transactions, ==, 0);
    device_unrealize(&device);
}

static void test_container(void)
{
    MemoryRegion *container;
    FakeDevice device;

    device_init(&device, 16 * GiB, 2 * MiB, 256);
    container = virtio_mem_memslots_get_container(&device.vmem);
    g_assert_cmphex(memory_region_size(container), ==, 16 * GiB);
    g_assert_cmphex(memory_region_get_alignment(container), ==, 4 * MiB);
    g_assert_true(virtio_mem_memslots_get_container(&device.vmem) ==
                  container);
    device_destroy(&device);
    device_destroy(&device);
}

/* --- mapping --- */

#define SLOT_BLOCKS 8
#define NB_SLOTS 5
#define NB_BLOCKS (4 * SLOT_BLOCKS + 3)

/* The last of five memslots has three blocks. */
static void mapping_init(FakeDevice *device)
{
    device_init(device, NB_BLOCKS * 128 * MiB, 128 * MiB, 256);
    device_realize(device);
    g_assert_cmpuint(fake_nb_aliases, ==, NB_SLOTS);
}

static void mapping_destroy(FakeDevice *device)
{
    virtio_mem_blocks_set_all_unplugged(device->vmem.blocks);
    virtio_mem_memslots_unmap_empty(&device->vmem,
                                    virtio_mem_blocks_all(device->vmem.blocks));
    device_unrealize(device);
    device_destroy(device);
}

static void plug(FakeDevice *device, VirtIOMEMRange range)
{
    virtio_mem_memslots_map(&device->vmem, range);
    virtio_mem_blocks_set_plugged(device->vmem.blocks, range);
}

static void unplug(FakeDevice *device, VirtIOMEMRange range)
{
    virtio_mem_blocks_set_unplugged(device->vmem.blocks, range);
    virtio_mem_memslots_unmap_empty(&device->vmem, range);
}

/* One letter per memslot; the place of each that is mapped is checked. */
static void assert_mapped(const FakeDevice *device, const char *expect)
{
    char drawing[NB_SLOTS + 1] = "";

    for (unsigned i = 0; i < NB_SLOTS; i++) {
        const MemoryRegion *alias = fake_aliases[i];

        drawing[i] = alias->container ? 'M' : '.';
        if (alias->container) {
            g_assert_cmphex(alias->addr, ==, i * GiB);
        }
    }
    g_assert_cmpstr(drawing, ==, expect);
}

static void test_map(void)
{
    FakeDevice device;

    mapping_init(&device);
    assert_mapped(&device, ".....");
    plug(&device, (VirtIOMEMRange) { 7, 1 });
    assert_mapped(&device, "M....");
    plug(&device, (VirtIOMEMRange) { 8, 1 });
    assert_mapped(&device, "MM...");
    plug(&device, (VirtIOMEMRange) { 23, 10 });
    assert_mapped(&device, "MMMMM");
    unplug(&device, (VirtIOMEMRange) { 24, 8 });
    assert_mapped(&device, "MMM.M");
    unplug(&device, (VirtIOMEMRange) { 7, 2 });
    assert_mapped(&device, "..M.M");
    plug(&device, (VirtIOMEMRange) { 33, 2 });
    unplug(&device, (VirtIOMEMRange) { 33, 2 });
    assert_mapped(&device, "..M.M");
    unplug(&device, (VirtIOMEMRange) { 32, 1 });
    assert_mapped(&device, "..M..");
    mapping_destroy(&device);
}

/* Mapped for a plug that was refused later: only what is empty goes again. */
static void test_refused_plug(void)
{
    FakeDevice device;

    mapping_init(&device);
    plug(&device, (VirtIOMEMRange) { 9, 1 });
    virtio_mem_memslots_map(&device.vmem, (VirtIOMEMRange) { 10, 10 });
    assert_mapped(&device, ".MM..");
    virtio_mem_memslots_unmap_empty(&device.vmem, (VirtIOMEMRange) { 10, 10 });
    assert_mapped(&device, ".M...");
    mapping_destroy(&device);
}

static void test_one_transaction(void)
{
    FakeDevice device;

    mapping_init(&device);
    fake_nb_transactions = 0;
    plug(&device, (VirtIOMEMRange) { 0, NB_BLOCKS });
    assert_mapped(&device, "MMMMM");
    g_assert_cmpuint(fake_nb_transactions, ==, 1);
    unplug(&device, (VirtIOMEMRange) { 0, NB_BLOCKS });
    assert_mapped(&device, ".....");
    g_assert_cmpuint(fake_nb_transactions, ==, 2);
    mapping_destroy(&device);
}

/* --- random programs --- */

static void random_step(FakeDevice *device, bool *plugged)
{
    const uint64_t first = g_test_rand_int_range(0, NB_BLOCKS);
    const uint64_t max = g_test_rand_int_range(1, NB_BLOCKS + 1 - first);
    VirtIOMEMRange range = { first, 1 };
    char expect[NB_SLOTS + 1] = ".....";

    while (range.nb_blocks < max &&
           plugged[first + range.nb_blocks] == plugged[first]) {
        range.nb_blocks++;
    }
    (plugged[first] ? unplug : plug)(device, range);
    memset(plugged + first, !plugged[first], range.nb_blocks);

    for (unsigned i = 0; i < NB_BLOCKS; i++) {
        if (plugged[i]) {
            expect[i / SLOT_BLOCKS] = 'M';
        }
    }
    assert_mapped(device, expect);
}

static void test_random(void)
{
    for (unsigned i = 0; i < RANDOM_PROGRAMS; i++) {
        bool plugged[NB_BLOCKS] = { false };
        FakeDevice device;

        mapping_init(&device);
        for (unsigned step = 0; step < RANDOM_STEPS; step++) {
            random_step(&device, plugged);
        }
        mapping_destroy(&device);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/memslots/decide/like-the-twin", test_decide);
    g_test_add_func("/virtio-mem/memslots/decide/examples",
                    test_decide_examples);
    g_test_add_func("/virtio-mem/memslots/decide/one-if-realize-will-fail",
                    test_decide_unusable);
    g_test_add_func("/virtio-mem/memslots/decide/settles-the-block-size",
                    test_decide_settles_block_size);
    g_test_add_func("/virtio-mem/memslots/off-means-one", test_off);
    g_test_add_func("/virtio-mem/memslots/container-is-made-once",
                    test_container);
    g_test_add_func("/virtio-mem/memslots/mapped-if-a-block-is-plugged",
                    test_map);
    g_test_add_func("/virtio-mem/memslots/refused-plug-unmaps-empty-ones",
                    test_refused_plug);
    g_test_add_func("/virtio-mem/memslots/one-transaction-per-range",
                    test_one_transaction);
    g_test_add_func("/virtio-mem/memslots/random-programs", test_random);
    return g_test_run();
}
