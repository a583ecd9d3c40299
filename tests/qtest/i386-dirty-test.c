/*
 * A vCPU of TCG that does nothing but write, while it is migrated
 *
 * It finds its page dirty and writes there from then on without looking again,
 * until its TLB is told that the page was sent.  The page is in the second RAM
 * block of the machine, and the machine does nothing else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"

#define ROM_SIZE (64 * 1024)
#define RESET_VECTOR 0xfff0
#define COUNTER 0x90000         /* in m1 */

/* Three blocks: that of the counter is behind the first, and is not larger. */
#define MACHINE "-accel tcg -machine pc -nodefaults -m 64M" \
    " -object memory-backend-ram,id=m0,size=512K" \
    " -object memory-backend-ram,id=m1,size=256K" \
    " -object memory-backend-ram,id=m2,size=64768K" \
    " -numa node,memdev=m0 -numa node,memdev=m1 -numa node,memdev=m2"

static const uint8_t guest[] = {
    0xb8, 0x00, 0x90,                       /*    movw $0x9000, %ax */
    0x8e, 0xd8,                             /*    movw %ax, %ds */
    0x66, 0xff, 0x06, 0x00, 0x00,           /* 1: incl 0 */
    0xeb, 0xf9,                             /*    jmp 1b */
};

static char *make_rom(void)
{
    static const uint8_t jump[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };
    g_autofree char *rom = g_malloc0(ROM_SIZE);
    char *path = NULL;
    int fd;

    memcpy(rom, guest, sizeof(guest));
    memcpy(rom + RESET_VECTOR, jump, sizeof(jump));
    fd = g_file_open_tmp("i386-dirty-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, rom, ROM_SIZE), ==, ROM_SIZE);
    close(fd);
    return path;
}

static uint64_t migration_passes(QTestState *qts, bool *completed)
{
    QDict *info = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate' }");
    const char *status = qdict_get_try_str(info, "status");
    uint64_t passes = 0;

    g_assert_cmpstr(status, !=, "failed");
    *completed = !g_strcmp0(status, "completed");
    if (qdict_haskey(info, "ram")) {
        passes = qdict_get_int(qdict_get_qdict(info, "ram"),
                               "dirty-sync-count");
    }
    qobject_unref(info);
    return passes;
}

static void set_downtime(QTestState *qts, unsigned ms)
{
    qtest_qmp_assert_success(
        qts, "{ 'execute': 'migrate-set-parameters', 'arguments': {"
        " 'downtime-limit': %u, 'avail-switchover-bandwidth': 1000000,"
        " 'max-bandwidth': 500000 } }", ms);
}

/*
 * With 1000 bytes that may be left at the end, a machine that writes to a page
 * never gets there.  The first pass takes longer than it takes QEMU to notice
 * that limit.
 */
static void migrate_to(QTestState *qts, const char *file)
{
    bool completed = false;

    set_downtime(qts, 1);
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', 'arguments':"
                             " { 'uri': %s } }", file);
    while (migration_passes(qts, &completed) < 4 && !completed) {
        g_usleep(10000);
    }
    set_downtime(qts, 10000);
    while (!completed) {
        g_usleep(10000);
        migration_passes(qts, &completed);
    }
}

static uint32_t counter_after_load(const char *rom, const char *file)
{
    QTestState *qts = qtest_initf(MACHINE " -bios %s -S -incoming %s", rom,
                                  file);
    bool completed = false;
    uint32_t counter;

    while (!completed) {
        g_usleep(10000);
        migration_passes(qts, &completed);
    }
    counter = qtest_readl(qts, COUNTER);
    qtest_quit(qts);
    return counter;
}

static void test_second_block(void)
{
    g_autofree char *rom = make_rom();
    g_autofree char *path = g_strdup_printf("%s.stream", rom);
    g_autofree char *file = g_strdup_printf("file:%s", path);
    QTestState *qts = qtest_initf(MACHINE " -bios %s", rom);
    uint32_t counter;

    while (!qtest_readl(qts, COUNTER)) {
        g_usleep(10000);
    }
    migrate_to(qts, file);
    counter = qtest_readl(qts, COUNTER);
    qtest_quit(qts);

    g_assert_cmphex(counter_after_load(rom, file), ==, counter);
    unlink(path);
    unlink(rom);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_accel("tcg") || !qtest_has_machine("pc")) {
        g_test_skip("needs TCG and the machine 'pc'");
        return 0;
    }
    qtest_add_func("/i386/dirty/second-block", test_second_block);
    return g_test_run();
}
