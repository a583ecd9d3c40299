/*
 * virtio-mem: what the device refuses to be created with
 *
 * Each refusal is one sentence that names the property, its value and the
 * limit, and leaves nothing behind: the same id and the same memory backend
 * make a working device right after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/capability.h>
#include <sys/resource.h>
#include "hw/pci/pci.h"
#include "qemu/cutils.h"
#include "qobject/qjson.h"
#include "virtio-mem-guest.h"

#define REGION  (1 * GiB)

/* "vmem0" and "spare" are good backends of 1 GiB, "odd" has 2 MiB more. */
#define BACKENDS \
    "-object memory-backend-ram,id=spare,size=1G,reserve=off " \
    "-object memory-backend-ram,id=odd,size=1026M,reserve=off "

static const VirtioMemOptions empty = {
    .region_size = REGION,
    .no_device = true,
    .args = BACKENDS,
    .variant = &(VirtioMemVariant){ .name = "" },
};
static const VirtioMemOptions two_nodes = {
    .region_size = REGION,
    .no_device = true,
    .args = BACKENDS "-object memory-backend-ram,id=ram0,size=256M "
            "-numa node,nodeid=0,memdev=ram0 -numa node,nodeid=1",
    .variant = &(VirtioMemVariant){ .name = "" },
};
static const VirtioMemOptions locked = {
    .region_size = REGION,
    .no_device = true,
    .args = BACKENDS "-overcommit mem-lock=on-fault",
    .variant = &(VirtioMemVariant){ .name = "" },
};

static QDict *device_add(VirtioMemGuest *vm, const char *id, const char *slot,
                         const char *properties)
{
    g_autofree char *json = g_strdup_printf(
        "{ 'driver': 'virtio-mem-pci', 'id': '%s', 'addr': '%s'%s }",
        id, slot, properties);

    return qtest_qmp(vm->qts, "{ 'execute': 'device_add', 'arguments': %p }",
                     qobject_from_json(json, NULL));
}

/* The ways in which a message may write a number. */
static bool mentions(const char *text, uint64_t value)
{
    g_autofree char *dec = g_strdup_printf("%" PRIu64, value);
    g_autofree char *hex = g_strdup_printf("0x%" PRIx64, value);
    g_autofree char *size = size_to_str(value);

    return strstr(text, dec) || strstr(text, hex) || strstr(text, size);
}

/* Nothing half-realized is in the way of a good device. */
static void expect_good(VirtioMemGuest *vm)
{
    QDict *response = device_add(vm, "vm0", "04.0", ", 'memdev': 'vmem0', "
                                 "'block-size': 2097152, "
                                 "'requested-size': 67108864");
    VirtioMemGuest *added;

    g_assert_true(qdict_haskey(response, "return"));
    qobject_unref(response);
    added = virtio_mem_guest_attach(vm, "vm0", QPCI_DEVFN(4, 0));
    vm_assert_plug(added, 0, 1, ACK);
    virtio_mem_check_invariants(added);
    virtio_mem_guest_stop(added);
}

/* One sentence; returns it. */
static char *expect_error(VirtioMemGuest *vm, const char *properties)
{
    QDict *response = device_add(vm, "vm0", "04.0", properties);
    char *text;

    g_assert_true(qdict_haskey(response, "error"));
    text = g_strdup(qdict_get_str(qdict_get_qdict(response, "error"),
                                  "desc"));
    g_test_message("%s: %s", properties, text);
    g_assert_cmpuint(strlen(text), >, 10);
    g_assert_null(strchr(text, '\n'));
    qobject_unref(response);
    return text;
}

/* @word must be in the message, and so must each number but UINT64_MAX. */
static void expect_refused(VirtioMemGuest *vm, const char *properties,
                           const char *word, uint64_t value, uint64_t limit)
{
    g_autofree char *text = expect_error(vm, properties);

    g_assert_nonnull(strstr(text, word));
    g_assert_true(value == UINT64_MAX || mentions(text, value));
    g_assert_true(limit == UINT64_MAX || mentions(text, limit));
    expect_good(vm);
}

#define NO_NUMBER UINT64_MAX

/* --- memdev --- */

static void test_no_memdev(VirtioMemGuest *vm)
{
    expect_refused(vm, "", "memdev", NO_NUMBER, NO_NUMBER);
}

static void test_unknown_memdev(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'nonesuch'", "nonesuch", NO_NUMBER,
                   NO_NUMBER);
}

static void test_memdev_in_use(VirtioMemGuest *vm)
{
    QDict *response = device_add(vm, "first", "05.0", ", 'memdev': 'spare'");

    g_assert_true(qdict_haskey(response, "return"));
    qobject_unref(response);
    expect_refused(vm, ", 'memdev': 'spare'", "spare", NO_NUMBER, NO_NUMBER);
}

static void test_memdev_is_rom(VirtioMemGuest *vm)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("virtio-mem-XXXXXX", &path, NULL);

    g_assert_cmpint(ftruncate(fd, REGION), ==, 0);
    close(fd);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add', "
                             "'arguments': { 'id': 'rom', "
                             "'qom-type': 'memory-backend-file', "
                             "'mem-path': %s, 'size': %" PRIu64 ", "
                             "'readonly': true, 'rom': 'on' } }",
                             path, (uint64_t)REGION);
    unlink(path);
    expect_refused(vm, ", 'memdev': 'rom'", "rom", NO_NUMBER, NO_NUMBER);
}

static void test_memdev_prealloc(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add', "
                             "'arguments': { 'id': 'full', "
                             "'qom-type': 'memory-backend-ram', "
                             "'size': 2097152, 'prealloc': true } }");
    expect_refused(vm, ", 'memdev': 'full'", "prealloc", NO_NUMBER, NO_NUMBER);
}

static void test_memdev_size(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'odd', 'block-size': 4194304",
                   "block-size", 1026 * MiB, 4 * MiB);
}

/* --- node --- */

static void test_node_without_numa(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'node': 7", "node", 7, 1);
}

static void test_node_too_large(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'node': 5", "node", 5, 2);
}

/* --- block-size --- */

static void test_block_size_zero(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 0",
                   "block-size", 0, 1 * MiB);
}

static void test_block_size_small(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 524288",
                   "block-size", 512 * KiB, 1 * MiB);
}

static void test_block_size_no_power(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 3145728",
                   "block-size", 3 * MiB, NO_NUMBER);
}

static void test_block_size_beyond_region(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2147483648",
                   "block-size", 2 * GiB, REGION);
}

static void test_block_size_below_page(VirtioMemGuest *vm)
{
    if (access("/sys/kernel/mm/hugepages/hugepages-2048kB", F_OK)) {
        g_test_skip("the host has no huge pages of 2 MiB");
        return;
    }
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add', "
                             "'arguments': { 'id': 'huge', "
                             "'qom-type': 'memory-backend-memfd', "
                             "'hugetlb': true, 'hugetlbsize': 2097152, "
                             "'reserve': false, 'size': 2097152 } }");
    expect_refused(vm, ", 'memdev': 'huge', 'block-size': 1048576",
                   "block-size", 1 * MiB, 2 * MiB);
}

/* --- memaddr: QEMU's memory devices decide all but the alignment --- */

static void test_memaddr_unaligned(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2097152, "
                   "'memaddr': 4295491584", "align", NO_NUMBER, 2 * MiB);
}

static void test_memaddr_outside(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2097152, "
                   "'memaddr': 1073741824", "range", 1 * GiB, NO_NUMBER);
}

static void test_memaddr_overlaps(VirtioMemGuest *vm)
{
    QDict *response = device_add(vm, "first", "05.0", ", 'memdev': 'spare', "
                                 "'memaddr': 4294967296");

    g_assert_true(qdict_haskey(response, "return"));
    qobject_unref(response);
    expect_refused(vm, ", 'memdev': 'vmem0', 'memaddr': 4294967296",
                   "first", NO_NUMBER, NO_NUMBER);
}

/* --- requested-size --- */

static void test_requested_unaligned(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2097152, "
                   "'requested-size': 3145728", "requested-size", 3 * MiB,
                   2 * MiB);
}

static void test_requested_beyond_region(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2097152, "
                   "'requested-size': 1075838976", "requested-size",
                   REGION + 2 * MiB, REGION);
}

/* Where requested size + slack would wrap. */
static void test_requested_near_2_64(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'block-size': 2097152, "
                   "'requested-size': 18446744073707454464",
                   "requested-size", -(uint64_t)(2 * MiB), REGION);
}

/* --- the rest --- */

static void test_memslots_need_f1(VirtioMemGuest *vm)
{
    expect_refused(vm, ", 'memdev': 'vmem0', 'dynamic-memslots': true, "
                   "'unplugged-inaccessible': 'off'",
                   "unplugged-inaccessible", NO_NUMBER, NO_NUMBER);
}

/* Root in a container has the user id, but not the capability. */
static bool may_lock_memory(void)
{
    g_autofree char *status = NULL;
    struct rlimit limit;
    uint64_t caps = 0;
    char *line;

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        line = strstr(status, "CapEff:\t");
        if (line) {
            qemu_strtou64(line + strlen("CapEff:\t"), NULL, 16, &caps);
        }
    }
    return limit.rlim_cur == RLIM_INFINITY || caps & VM_BIT(CAP_IPC_LOCK);
}

static void test_locked_memory(VirtioMemGuest *unused)
{
    g_autofree char *text = NULL;
    VirtioMemGuest *vm;

    if (!may_lock_memory()) {
        g_test_skip("not allowed to lock memory");
        return;
    }
    vm = virtio_mem_guest_start(&locked);
    text = expect_error(vm, ", 'memdev': 'vmem0'");
    g_assert_nonnull(strstr(text, "lock"));
    virtio_mem_guest_stop(vm);
}

static void test_no_maxmem(VirtioMemGuest *unused)
{
    QTestState *qts = qtest_init("-machine pc -nodefaults -m 256M -object "
                                 "memory-backend-ram,id=vmem0,size=1G,"
                                 "reserve=off");
    g_autofree char *text = virtio_mem_device_add_error(
        qts, "{ 'driver': 'virtio-mem-pci', 'memdev': 'vmem0' }");

    g_assert_nonnull(strstr(text, "maxmem"));
    qtest_quit(qts);
}

/*
 * Nothing would map the memory of a device on virtio-mmio.  There is no
 * hotplug there, so it is the whole QEMU that is refused; were it not, the
 * device after it would end it.
 */
static void realize_check_microvm(const char *device, const char *why)
{
    g_autofree char *command = g_strdup_printf(
        "%s -accel qtest -display none -machine microvm,pcie=on -nodefaults "
        "-m 256M -object memory-backend-ram,id=vmem0,size=1G,reserve=off "
        "-device %s,memdev=vmem0 -device nonesuch",
        getenv("QTEST_QEMU_BINARY"), device);
    g_autofree char *text = NULL;
    int status;

    if (!qtest_has_machine("microvm")) {
        g_test_skip("no microvm");
        return;
    }
    g_spawn_command_line_sync(command, NULL, &text, &status, NULL);
    g_test_message("%s", text);
    g_assert_null(strstr(text, "nonesuch"));
    g_assert_nonnull(strstr(text, why));
}

static void test_mmio(VirtioMemGuest *unused)
{
    realize_check_microvm("virtio-mem", "is not a memory device");
}

/* The proxy would do, but this machine plugs no memory devices. */
static void test_no_place(VirtioMemGuest *unused)
{
    const char *why = "no place for the memory of a 'virtio-mem-pci'";

    realize_check_microvm("virtio-mem-pci", why);
    realize_check_microvm("virtio-mem-pci,dynamic-memslots=on", why);
}

static void test_no_legacy_types(VirtioMemGuest *unused)
{
    g_assert_true(qtest_has_device("virtio-mem-pci"));
    g_assert_false(qtest_has_device("virtio-mem-pci-transitional"));
    g_assert_false(qtest_has_device("virtio-mem-pci-non-transitional"));
}

static const VirtioMemOptions legacy_asked = {
    .device = "disable-legacy=off",
};

/* Accepted for the sake of old command lines, and without effect. */
static void test_no_legacy_interface(VirtioMemGuest *vm)
{
    g_assert_cmphex(qpci_config_readw(vm->pci->pdev, PCI_DEVICE_ID), ==,
                    0x1058);
    g_assert_cmphex(qpci_config_readl(vm->pci->pdev, PCI_BASE_ADDRESS_0), ==,
                    0);
}

static const VirtioMemTest tests[] = {
    { "T003", "realize/no-legacy-types", test_no_legacy_types,
      .no_guest = true },
    { "T003", "realize/no-legacy-interface", test_no_legacy_interface,
      .options = &legacy_asked, .once = true },
    { "T013", "realize/no-memdev-is-refused", test_no_memdev,
      .options = &empty, .once = true },
    { "T013", "realize/unknown-memdev-is-refused", test_unknown_memdev,
      .options = &empty, .once = true },
    { "T013", "realize/memdev-in-use-is-refused", test_memdev_in_use,
      .options = &empty, .once = true },
    { "T013", "realize/memdev-of-rom-is-refused", test_memdev_is_rom,
      .options = &empty, .once = true },
    { "T013", "realize/memdev-with-prealloc-is-refused",
      test_memdev_prealloc, .options = &empty, .once = true },
    { "T013", "realize/memdev-size-unaligned-is-refused", test_memdev_size,
      .options = &empty, .once = true },
    { "T013", "realize/node-without-numa-is-refused", test_node_without_numa,
      .options = &empty, .once = true },
    { "T013", "realize/node-too-large-is-refused", test_node_too_large,
      .options = &two_nodes, .once = true },
    { "T013", "realize/block-size-zero-is-refused", test_block_size_zero,
      .options = &empty, .once = true },
    { "T013", "realize/block-size-below-minimum-is-refused",
      test_block_size_small, .options = &empty, .once = true },
    { "T013", "realize/block-size-no-power-of-two-is-refused",
      test_block_size_no_power, .options = &empty, .once = true },
    { "T013", "realize/block-size-beyond-memdev-is-refused",
      test_block_size_beyond_region, .options = &empty, .once = true },
    { "T013", "realize/block-size-below-page-size-is-refused",
      test_block_size_below_page, .options = &empty, .once = true },
    { "T013", "realize/memaddr-unaligned-is-refused",
      test_memaddr_unaligned, .options = &empty, .once = true },
    { "T013", "realize/memaddr-outside-is-refused", test_memaddr_outside,
      .options = &empty, .once = true },
    { "T014", "realize/memaddr-overlapping-is-refused",
      test_memaddr_overlaps, .options = &empty, .once = true },
    { "T013", "realize/requested-size-unaligned-is-refused",
      test_requested_unaligned, .options = &empty, .once = true },
    { "T013 R-3", "realize/requested-size-beyond-memdev-is-refused",
      test_requested_beyond_region, .options = &empty, .once = true },
    { "T013 R-3", "realize/requested-size-near-2-64-is-refused",
      test_requested_near_2_64, .options = &empty, .once = true },
    { "", "realize/memslots-without-inaccessible-are-refused",
      test_memslots_need_f1, .options = &empty, .once = true },
    { "", "realize/locked-memory-is-refused", test_locked_memory,
      .no_guest = true },
    { "", "realize/no-maxmem-is-refused", test_no_maxmem, .no_guest = true },
    { "R-11", "realize/without-memory-device-is-refused", test_mmio,
      .no_guest = true },
    { "R-11", "realize/without-place-for-memory-is-refused", test_no_place,
      .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
