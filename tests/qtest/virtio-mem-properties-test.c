/*
 * virtio-mem: what users read and set, and what they are warned of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-safe.h"

/* --- values --- */

static void test_block_size(VirtioMemGuest *vm)
{
    g_autofree char *error = virtio_mem_take_error(qtest_qmp(
        vm->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': %s,"
        " 'property': 'block-size', 'value': 4194304 } }", vm->id));

    g_assert_cmpstr(error, ==, "'block-size' cannot be changed");
    g_assert_cmphex(virtio_mem_qom_get(vm, "block-size"), ==, VM_BLOCK);
}

static void test_plugged_size(VirtioMemGuest *vm)
{
    g_autoptr(QDict) sizes = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 3, ACK);
    sizes = qtest_qmp_assert_success_ref(
        vm->qts, "{ 'execute': 'query-memory-size-summary' }");
    g_assert_cmphex(qdict_get_int(sizes, "base-memory"), ==, VM_RAM);
    g_assert_cmphex(qdict_get_int(sizes, "plugged-memory"), ==,
                    3 * VM_BLOCK);
    g_assert_cmphex(virtio_mem_qom_get(vm, "size"), ==, 3 * VM_BLOCK);
}

static const VirtioMemOptions with_reserve = {
    .device = "resize-reserve=64M",
};

static void test_resize(VirtioMemGuest *vm)
{
    QDict *response = qtest_qmp(vm->qts, "{ 'execute': 'qom-get', 'arguments':"
                                " { 'path': %s, 'property': 'resize-mode' } }",
                                vm->id);

    g_assert_cmpstr(qdict_get_str(response, "return"), ==, "plain");
    qobject_unref(response);
    g_assert_cmphex(virtio_mem_qom_get(vm, "resize-reserve"), ==, 64 * MiB);
}

/* All that the guest may have is the most to ask for; maxmem is 256 GiB. */
static void test_reserve(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    g_assert_null(virtio_mem_safe_set(vm, "resize-reserve", "274877906944"));
    error = virtio_mem_safe_set(vm, "resize-reserve", "274877906945");
    g_assert_nonnull(strstr(error, "(0x4000000000), 0x4000000001 does"));
    g_assert_cmphex(virtio_mem_qom_get(vm, "resize-reserve"), ==, 256 * GiB);
    g_assert_null(virtio_mem_safe_set(vm, "resize-reserve", "0"));
}

/* As many as would preallocate the backend. */
static const VirtioMemOptions three_threads = {
    .memdev = "memory-backend-ram,id=vmem0,size=1G,reserve=off,"
              "prealloc-threads=3",
    .region_size = GiB,
};

static const VirtioMemOptions two_threads = {
    .memdev = "memory-backend-ram,id=vmem0,size=1G,reserve=off,"
              "prealloc-threads=3",
    .region_size = GiB,
    .device = "prealloc-threads=2",
};

static void test_threads(VirtioMemGuest *vm)
{
    g_assert_cmpuint(virtio_mem_qom_get(vm, "prealloc-threads"), ==,
                     vm->opts.device ? 2 : 3);
}

/* Larger boot memory has Linux take larger units. */
static const VirtioMemOptions large = {
    .machine = "pc,memory-backend=ram0",
    .args = "-object memory-backend-ram,id=ram0,size=65G,reserve=off"
            " -m 65G,slots=1,maxmem=2T -cpu max,phys-bits=46",
};

static void test_usable(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, VM_REQUESTED + 4 * GiB);
}

/* --- whether a guest may read unplugged memory --- */

typedef struct Inaccessible {
    const char *memdev;
    const char *device;
    bool is_set;                /* the feature */
    const char *warning;
} Inaccessible;

#define SHARED "memory-backend-memfd,id=vmem0,size=1G,reserve=off"
#define PRIVATE "memory-backend-ram,id=vmem0,size=1G,reserve=off"

static const Inaccessible inaccessible[] = {
    { SHARED, "unplugged-inaccessible=auto", true },
    { PRIVATE, "unplugged-inaccessible=auto", false },
    { PRIVATE, "unplugged-inaccessible=off", false },
    { SHARED, "unplugged-inaccessible=off", false,
      "'unplugged-inaccessible' property set to 'off', but reading unplugged"
      " memory of the memdev consumes host memory" },
};

static void check_said(const char *log, const char *warning)
{
    g_autofree char *said = NULL;

    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_test_message("%s", said);
    g_assert_true(warning ? strstr(said, warning) != NULL : !*said);
}

static void test_inaccessible(VirtioMemGuest *unused)
{
    g_autofree char *log = virtio_mem_temp_path("inaccessible.log");
    g_autofree char *args = g_strdup_printf("2> %s", log);

    for (size_t i = 0; i < ARRAY_SIZE(inaccessible); i++) {
        const Inaccessible *is = &inaccessible[i];
        VirtioMemGuest *vm = virtio_mem_guest_start(&(VirtioMemOptions) {
            .memdev = is->memdev, .region_size = GiB, .device = is->device,
            .args = args,
        });

        g_assert_cmpint(!!(virtio_mem_offered_features(vm) &
                           VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)), ==,
                        is->is_set);
        check_said(log, is->warning);
        virtio_mem_guest_stop(vm);
    }
}

/* --- what of the region Linux cannot use --- */

static void check_units(uint64_t memaddr, const char *size,
                        const char *warning)
{
    g_autofree char *log = virtio_mem_temp_path("units.log");
    g_autofree char *args = g_strdup_printf("2> %s", log);
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-ram,id=vmem0,size=%s,reserve=off", size);
    VirtioMemGuest *vm = virtio_mem_guest_start(&(VirtioMemOptions) {
        .memaddr = memaddr, .memdev = memdev, .region_size = GiB,
        .args = args,
    });

    check_said(log, warning);
    virtio_mem_guest_stop(vm);
}

static void test_units(VirtioMemGuest *unused)
{
    check_units(8 * GiB, "1G", NULL);
    check_units(8 * GiB + 64 * MiB, "1G",
                "Linux can use 0x38000000 of 0x40000000 bytes, as it adds"
                " memory in this machine in aligned units of 0x8000000; use"
                " 'memaddr' 0x208000000 instead of 0x204000000\n");
    check_units(8 * GiB, "1026M",
                "use a 'memdev' with 'size' 0x48000000\n");
    check_units(8 * GiB + 64 * MiB, "1026M",
                "use 'memaddr' 0x208000000 instead of 0x204000000 and a"
                " 'memdev' with 'size' 0x48000000\n");
    check_units(8 * GiB + 64 * MiB, "64M", "Linux can use 0x0 of 0x4000000");
}

/* --- what is warned of at the start --- */

static void check_start(const VirtioMemOptions *opts, const char *warning)
{
    g_autofree char *log = virtio_mem_temp_path("start.log");
    g_autofree char *args = g_strdup_printf("%s 2> %s", opts->args ?: "", log);
    VirtioMemOptions logged = *opts;
    VirtioMemGuest *vm;

    logged.args = args;
    vm = virtio_mem_guest_start(&logged);
    check_said(log, warning);
    virtio_mem_guest_stop(vm);
}

/* 256 MiB of boot memory: the memory map of all devices does not fit. */
static void test_far(VirtioMemGuest *unused)
{
    check_start(&(VirtioMemOptions) { .region_size = 16 * GiB }, NULL);
    check_start(&(VirtioMemOptions) {
        .region_size = 16 * GiB,
        .args = "-object memory-backend-ram,id=mem1,size=2M,reserve=off"
                " -device virtio-mem-pci,id=vm1,memdev=mem1,addr=05.0",
    }, "more than 64 times the boot memory (0x10000000)");
}

/* The balloon may be the last of the command line. */
static void test_safe(VirtioMemGuest *unused)
{
    check_start(&(VirtioMemOptions) {
        .region_size = GiB, .device = "resize-mode=safe",
        .args = "-device virtio-balloon-pci",
    }, NULL);
    check_start(&(VirtioMemOptions) {
        .region_size = GiB, .device = "resize-mode=safe",
    }, "virtio-mem 'vmem0': 'resize-mode' is 'safe', which needs a balloon");
}

static void test_small_blocks(VirtioMemGuest *unused)
{
    const bool has_huge_pages =
        !access("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", F_OK);

    check_start(&(VirtioMemOptions) {
        .region_size = GiB, .block_size = MiB,
    }, has_huge_pages ? "'block-size' property is smaller than the default 0x"
                      : NULL);
}

static const VirtioMemTest tests[] = {
    { "", "properties/block-size-stays", test_block_size, .once = true },
    { "", "properties/plugged-size-is-summed-up", test_plugged_size,
      .once = true },
    { "", "properties/resize", test_resize, &with_reserve, .once = true },
    { "", "properties/reserve-up-to-all-memory", test_reserve, .once = true },
    { "", "properties/threads-of-the-backend", test_threads, &three_threads,
      .once = true },
    { "", "properties/threads-of-its-own", test_threads, &two_threads,
      .once = true },
    { "", "properties/usable-size-by-boot-memory", test_usable, &large,
      .once = true },
    { "", "properties/inaccessible", test_inaccessible, .no_guest = true },
    { "", "properties/more-than-fits", test_far, .no_guest = true },
    { "", "properties/safe-without-balloon", test_safe, .no_guest = true },
    { "", "properties/small-blocks", test_small_blocks, .no_guest = true },
    { "", "properties/units-of-linux", test_units, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
