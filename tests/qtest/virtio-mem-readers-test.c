/*
 * virtio-mem: the administrator and QEMU's own statistics may read it all
 *
 * The monitor and the measurement of the dirty rate see zeros in unplugged
 * memory, and must not make the host provide it.  The memory is a memfd without
 * protection, where each page that was read is there to be counted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "virtio-mem-migrate.h"

#define READERS_REGION (1 * GiB)
#define PLUGGED_BLOCKS 4
#define PLUGGED (PLUGGED_BLOCKS * VM_BLOCK)

static const VirtioMemOptions unprotected = {
    .region_size = READERS_REGION,
    .memdev = "memory-backend-memfd,id=vmem0,size=1G",
    .device = "protect-unplugged=off",
};
static const VirtioMemOptions stop = {
    .region_size = READERS_REGION,
    .device = "protect-unplugged=on,unplugged-access=stop",
};

/* What the host has for the device's memory. */
static uint64_t readers_memory(VirtioMemGuest *vm)
{
    g_autofree char *fds = g_strdup_printf("/proc/%d/fd",
                                           (int)qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(fds, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(fds, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        struct stat st;

        if (target && g_str_has_prefix(target, "/memfd:memory-backend-memfd") &&
            !stat(path, &st)) {
            return st.st_blocks * 512;
        }
    }
    g_assert_not_reached();
}

/* Blocks 0 to 3 are plugged and written; the guest's half of each test. */
static void readers_plug(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, PLUGGED_BLOCKS, ACK);
    virtio_mem_fill(vm, vm->addr, 0x5a, PLUGGED);
}

static void readers_check(VirtioMemGuest *vm)
{
    g_assert_cmpuint(readers_memory(vm), ==, PLUGGED);
}

/* Four bytes of the last plugged block, then four that are not plugged. */
static void readers_check_print(VirtioMemGuest *vm, const char *command)
{
    g_autofree char *text = qtest_hmp(vm->qts, "%s /2xw 0x%" PRIx64, command,
                                      vm->addr + PLUGGED - 4);

    g_assert_nonnull(strstr(text, "0x5a5a5a5a 0x00000000"));
    g_free(text);
    /* Whatever the disassembler, if there is one, makes of zeros. */
    text = qtest_hmp(vm->qts, "%s /1i 0x%" PRIx64, command,
                     vm->addr + PLUGGED);
}

static void test_print(VirtioMemGuest *vm)
{
    readers_plug(vm);
    readers_check_print(vm, "xp");
    readers_check_print(vm, "x");
    readers_check(vm);
}

/* The last bytes of plugged memory, and as many that are not plugged. */
static void test_sum(VirtioMemGuest *vm)
{
    g_autofree char *text = NULL;
    uint16_t sum = 0;

    readers_plug(vm);
    for (unsigned i = 0; i < 8 * KiB; i++) {
        sum = (sum >> 1) + (sum << 15) + (i < 4 * KiB ? 0x5a : 0);
    }
    text = qtest_hmp(vm->qts, "sum 0x%" PRIx64 " %u",
                     vm->addr + PLUGGED - 4 * KiB, (unsigned)(8 * KiB));
    g_assert_cmpint(g_ascii_strtoll(text, NULL, 10), ==, sum);
    readers_check(vm);
}

/* From a plugged block to the end of the region. */
static void readers_check_save(VirtioMemGuest *vm, const char *command)
{
    const uint64_t size = READERS_REGION - PLUGGED + VM_BLOCK;
    g_autofree char *path = virtio_mem_temp_path(command);
    g_autofree char *saved = NULL;
    gsize length;

    qtest_qmp_assert_success(vm->qts, "{ 'execute': %s, 'arguments':"
                             " { 'val': %" PRIu64 ", 'size': %" PRIu64 ","
                             " 'filename': %s } }", command,
                             vm->addr + PLUGGED - VM_BLOCK, size, path);
    g_assert_true(g_file_get_contents(path, &saved, &length, NULL));
    g_assert_cmpuint(length, ==, size);
    for (unsigned i = 0; i < VM_BLOCK; i++) {
        g_assert_cmphex(saved[i], ==, 0x5a);
    }
    g_assert_true(buffer_is_zero(saved + VM_BLOCK, size - VM_BLOCK));
    unlink(path);
}

static void test_save(VirtioMemGuest *vm)
{
    readers_plug(vm);
    readers_check_save(vm, "pmemsave");
    readers_check_save(vm, "memsave");
    readers_check(vm);
}

/* There is no address to tell, and none must come into being for the answer. */
static void test_host_address(VirtioMemGuest *vm)
{
    g_autofree char *text = NULL;

    readers_plug(vm);
    text = qtest_hmp(vm->qts, "gpa2hpa 0x%" PRIx64, vm->addr + PLUGGED);
    g_assert_nonnull(strstr(text, "is discarded"));
    g_free(text);
    text = qtest_hmp(vm->qts, "gpa2hpa 0x%" PRIx64, vm->addr);
    g_assert_nonnull(strstr(text, "Host physical address"));
    readers_check(vm);
}

/* --- the dirty rate --- */

static void readers_measure(VirtioMemGuest *vm)
{
    const char *status = "";

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'calc-dirty-rate',"
                             " 'arguments': { 'calc-time': 1,"
                             " 'sample-pages': 4096 } }");
    while (!g_str_equal(status, "measured")) {
        QDict *info = qtest_qmp_assert_success_ref(
            vm->qts, "{ 'execute': 'query-dirty-rate' }");

        status = g_str_equal(qdict_get_str(info, "status"), "measured") ?
                 "measured" : "";
        qobject_unref(info);
    }
}

static void test_dirty_rate(VirtioMemGuest *vm)
{
    readers_plug(vm);
    readers_measure(vm);
    readers_check(vm);
}

static void readers_dump(VirtioMemGuest *vm)
{
    g_autofree char *path = virtio_mem_temp_path("dump");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'dump-guest-memory',"
                             " 'arguments': { 'paging': false,"
                             " 'protocol': %s } }", uri);
    unlink(path);
}

/* What the guest did not do must not stop it. */
static void test_nobody_is_accused(VirtioMemGuest *vm)
{
    g_autofree char *text = NULL;

    readers_plug(vm);
    readers_measure(vm);
    readers_check_print(vm, "xp");
    readers_check_save(vm, "pmemsave");
    readers_dump(vm);
    qtest_clock_step(vm->qts, NANOSECONDS_PER_SECOND);
    text = qtest_hmp(vm->qts, "info status");
    g_assert_nonnull(strstr(text, "running"));
    g_assert_null(qtest_qmp_event_ref(vm->qts, "VIRTIO_MEM_UNPLUGGED_ACCESS"));
}

static const VirtioMemTest tests[] = {
    { "R-20", "readers/print", test_print, &unprotected, .once = true },
    { "R-20", "readers/sum", test_sum, &unprotected, .once = true },
    { "R-20", "readers/save", test_save, &unprotected, .once = true },
    { "R-20", "readers/host-address", test_host_address, &unprotected,
      .once = true },
    { "R-20", "readers/dirty-rate", test_dirty_rate, &unprotected,
      .once = true },
    { "R-20", "readers/nobody-is-accused", test_nobody_is_accused, &stop,
      .once = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
