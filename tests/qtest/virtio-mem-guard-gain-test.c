/*
 * virtio-mem: what a guest costs that uses memory that it does not have
 *
 * With "-m slow", it uses much more of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-chains.h"
#include "virtio-mem-huge-pages.h"
#include "virtio-mem-scene.h"

/* Each byte of some memory, then some pages here and there. */
static void rogue_writes(VirtioMemGuest *vm)
{
    const uint64_t size = g_test_slow() ? 2 * GiB : 128 * MiB;
    const unsigned nb_writes = g_test_slow() ? 20000 : 4000;
    const uint64_t nb_pages = MIN(vm->region_size, 8 * GiB) / 4096;

    qtest_memset(vm->qts, vm->addr, 0x55, size);
    for (unsigned i = 0; i < nb_writes; i++) {
        const uint64_t page = g_test_rand_int_range(0, nb_pages);

        qtest_writeb(vm->qts, vm->addr + page * 4096, 0x55);
    }
}

static void check_gain(const VirtioMemOptions *opts, uint64_t max)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(opts);
    uint64_t before;

    g_assert_true(virtio_mem_is_protected(vm));
    /* The paths are warm and the first page table is there. */
    qtest_writeb(vm->qts, vm->addr, 0x55);
    before = virtio_mem_host_memory(vm);
    rogue_writes(vm);
    virtio_mem_assert_gain(vm, before, max);
    vm_assert_plugged(vm, 0);
    virtio_mem_guest_stop(vm);
}

static void test_gain(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .device = "protect-unplugged=on",
    };

    check_gain(&opts, 1 * MiB);
}

static void test_gain_memfd(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .memdev = "memory-backend-memfd,id=vmem0,size=8G",
        .device = "protect-unplugged=on", .region_size = 8 * GiB,
    };

    check_gain(&opts, 1 * MiB);
}

static void test_gain_shm(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .memdev = "memory-backend-shm,id=vmem0,size=8G",
        .device = "protect-unplugged=on", .region_size = 8 * GiB,
    };

    check_gain(&opts, 1 * MiB);
}

static void test_gain_hugetlb(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .memdev = "memory-backend-memfd,id=vmem0,size=4G,hugetlb=on,"
                  "hugetlbsize=2M,reserve=off",
        .device = "protect-unplugged=on", .region_size = 4 * GiB,
    };

    if (virtio_mem_huge_make_free(20)) {
        check_gain(&opts, 16 * 2 * MiB + 64 * KiB);
        virtio_mem_huge_done();
    }
}

/* With no huge page to lend, QEMU's main loop uses unplugged block 5. */
static VirtioMemGuest *start_with_empty_pool(const char *more)
{
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-memfd,id=vmem0,size=1G,hugetlb=on,hugetlbsize=2M,"
        "reserve=off%s", more);
    const VirtioMemOptions opts = {
        .memdev = memdev, .device = "protect-unplugged=on",
    };
    VirtioMemRingAreas home;
    VirtioMemGuest *vm;
    uint64_t gpa;

    if (!virtio_mem_huge_make_free(0)) {
        return NULL;
    }
    vm = virtio_mem_guest_start(&opts);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    gpa = virtio_mem_block_gpa(vm, 5);
    home = virtio_mem_drive_ring_at(vm, (VirtioMemRingAreas) {
        gpa, gpa + 64 * KiB, gpa + 128 * KiB });
    virtio_mem_kick_force(vm);
    virtio_mem_settle(vm);
    virtio_mem_leave_ring(vm, home);
    return vm;
}

/*
 * That ends, with the BQL held, as any access does.  With a page again, a block
 * is as it should be.
 */
static void check_empty_pool(VirtioMemGuest *vm)
{
    uint64_t gpa;

    gpa = virtio_mem_block_gpa(vm, 5);
    virtio_mem_fill(vm, gpa - 4 * KiB, 0x55, 8 * KiB);
    g_assert_cmpint(virtio_mem_huge_read("free_hugepages"), ==, 0);
    g_assert_true(virtio_mem_is_protected(vm));

    g_assert_true(virtio_mem_huge_make_free(1));
    virtio_mem_restart_driver(vm);
    vm_assert_plug(vm, 5, 1, ACK);
    g_assert_true(virtio_mem_is_filled(vm, gpa, 0, VM_BLOCK));
}

static void test_empty_pool(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = start_with_empty_pool("");

    if (vm) {
        check_empty_pool(vm);
        virtio_mem_guest_stop(vm);
        virtio_mem_huge_done();
    }
}

/* Whether QEMU was built with libnuma, and the kernel knows nodes. */
static bool has_policies(void)
{
#ifdef CONFIG_NUMA
    return !access("/proc/self/numa_maps", R_OK);
#else
    return false;
#endif
}

/* All that is mapped of the backend has its policy. */
static void check_policy(VirtioMemGuest *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/numa_maps",
                                            qtest_pid(vm->qts));
    g_autofree char *content = NULL;
    g_auto(GStrv) lines = NULL;
    unsigned nb = 0;

    g_assert_true(g_file_get_contents(path, &content, NULL, NULL));
    lines = g_strsplit(content, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (strstr(*line, "file=/memfd:")) {
            g_assert_nonnull(strstr(*line, " bind:0 "));
            nb++;
        }
    }
    g_assert_cmpuint(nb, >, 0);
}

/* As libvirt has it with <hugepages/>, and with <numatune/>, if QEMU can. */
static void test_empty_pool_private(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = start_with_empty_pool(
        has_policies() ? ",share=off,host-nodes=0,policy=bind" : ",share=off");

    if (vm) {
        check_empty_pool(vm);
        if (has_policies()) {
            check_policy(vm);
        }
        virtio_mem_guest_stop(vm);
        virtio_mem_huge_done();
    }
}

/*
 * Without reserve=off, all pages are the backend's at first.  What was plugged,
 * used and unplugged is the pool's again, and another one may have it.
 */
static void test_pages_that_went(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .memdev = "memory-backend-memfd,id=vmem0,size=64M,hugetlb=on,"
                  "hugetlbsize=2M",
        .device = "protect-unplugged=on", .region_size = 64 * MiB,
    };
    VirtioMemGuest *vm;

    if (!virtio_mem_huge_make_free(32)) {
        return;
    }
    vm = virtio_mem_guest_start(&opts);
    virtio_mem_set_requested(vm, 64 * MiB);
    vm_assert_plug(vm, 5, 1, ACK);
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 5), 0x55, VM_BLOCK);
    vm_assert_unplug(vm, 5, 1, ACK);
    /* Those that are left are reserved. */
    g_assert_true(virtio_mem_huge_make_free(31));
    virtio_mem_fill(vm, virtio_mem_block_gpa(vm, 5), 0x55, VM_BLOCK);
    g_assert_true(virtio_mem_is_protected(vm));

    g_assert_true(virtio_mem_huge_make_free(32));
    vm_assert_plug(vm, 5, 1, ACK);
    g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, 5), 0,
                                       VM_BLOCK));
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

/*
 * A private mapping keeps its pages, since Linux 6.9, unless the pool has more
 * of them than it should have: then each page that is freed is the host's.
 */
static void test_private_pages_that_went(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .memdev = "memory-backend-memfd,id=vmem0,size=64M,share=off,"
                  "hugetlb=on,hugetlbsize=2M",
        .device = "protect-unplugged=on", .region_size = 64 * MiB,
    };
    VirtioMemGuest *vm;
    uint64_t gpa;

    if (!virtio_mem_huge_make_free(32)) {
        return;
    }
    vm = virtio_mem_guest_start(&opts);
    virtio_mem_set_requested(vm, 64 * MiB);
    gpa = virtio_mem_block_gpa(vm, 5);
    g_assert_true(virtio_mem_huge_take_extra());
    vm_assert_plug(vm, 5, 1, ACK);
    virtio_mem_fill(vm, gpa, 0x55, VM_BLOCK);
    vm_assert_unplug(vm, 5, 1, ACK);
    virtio_mem_fill(vm, gpa, 0x55, VM_BLOCK);
    g_assert_true(virtio_mem_is_protected(vm));

    virtio_mem_huge_give_extra();
    vm_assert_plug(vm, 5, 1, ACK);
    g_assert_true(virtio_mem_is_filled(vm, gpa, 0, VM_BLOCK));
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

/* Nor does it keep SIGTERM from ending QEMU. */
static void test_end_with_empty_pool(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = start_with_empty_pool("");

    if (vm) {
        virtio_mem_guest_stop(vm);
        g_assert_cmpint(virtio_mem_huge_read("free_hugepages"), ==, 0);
        virtio_mem_huge_done();
    }
}

/* With the guard off, the same costs what it touches: the bounds can fail. */
static void test_gain_without_guard(VirtioMemGuest *vm)
{
    const uint64_t before = virtio_mem_host_memory(vm);

    g_assert_false(virtio_mem_is_protected(vm));
    qtest_memset(vm->qts, vm->addr, 0x55, 128 * MiB);
    /* QEMU may not need all that it started with. */
    g_assert_cmpuint(virtio_mem_host_memory(vm), >=,
                     before + 64 * MiB - VM_HOST_NOISE);
}

static const VirtioMemOptions off = { .device = "protect-unplugged=off" };

static const VirtioMemTest tests[] = {
    { "T227", "guard/hostile-writer-gains-nothing", test_gain,
      .no_guest = true, .guard = true },
    { "T227", "guard/hostile-writer-gains-nothing-in-memfd", test_gain_memfd,
      .no_guest = true, .guard = true },
    { "T227", "guard/hostile-writer-gains-nothing-in-shm", test_gain_shm,
      .no_guest = true, .guard = true },
    { "T227", "guard/hostile-writer-gains-few-huge-pages", test_gain_hugetlb,
      .no_guest = true, .guard = true },
    { "T227", "guard/needs-no-huge-page", test_empty_pool, .no_guest = true,
      .guard = true },
    { "T227", "guard/needs-no-private-huge-page", test_empty_pool_private,
      .no_guest = true, .guard = true },
    { "T227", "guard/needs-no-page-that-went", test_pages_that_went,
      .no_guest = true, .guard = true },
    { "T227", "guard/needs-no-private-page-that-went",
      test_private_pages_that_went, .no_guest = true, .guard = true },
    { "T227", "guard/ends-without-huge-page", test_end_with_empty_pool,
      .no_guest = true, .guard = true },
    { "T227", "guard/off-costs-what-is-touched", test_gain_without_guard,
      &off, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
