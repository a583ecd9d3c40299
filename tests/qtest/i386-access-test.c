/*
 * TCG's accesses to guest memory that cross from one page into another
 *
 * Some x86 instructions read or write more than a register: FSAVE, FXSAVE, FSTP
 * of ten bytes.  Where the second page is elsewhere in the host's memory, or is
 * no RAM at all, each page has to be reached in its own way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "i386-access-guest.h"

#define ROM_SIZE (64 * 1024)
#define RESET_VECTOR 0xfff0
/* As in i386-access-guest.S. */
#define RESULTS 0x500
#define SPLIT 0x10ffc
#define BEHIND 0x11000
#define NEXT 0x21000
#define SPLIT_BYTES 4
#define LONG_DOUBLE 10

static QTestState *access_guest_start(void)
{
    static const uint8_t jump[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };
    g_autofree char *rom = g_malloc0(ROM_SIZE);
    g_autofree char *path = NULL;
    QTestState *qts;
    int fd;

    memcpy(rom, i386_access_guest, sizeof(i386_access_guest));
    memcpy(rom + RESET_VECTOR, jump, sizeof(jump));
    fd = g_file_open_tmp("i386-access-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, rom, ROM_SIZE), ==, ROM_SIZE);
    close(fd);
    qts = qtest_initf("-accel tcg -machine pc -nodefaults -m 64M -bios %s",
                      path);
    unlink(path);
    return qts;
}

/* The guest ends, and has found on both pages what it put there. */
static void test_cross(void)
{
    static const uint8_t nothing[LONG_DOUBLE];
    QTestState *qts = access_guest_start();
    uint8_t wanted[LONG_DOUBLE], seen[LONG_DOUBLE];

    while (!qtest_readl(qts, RESULTS)) {
        g_usleep(10000);
    }

    qtest_memread(qts, RESULTS + 0x10, wanted, sizeof(wanted));
    g_assert_cmphex(wanted[LONG_DOUBLE - 1], ==, 0x3f);

    qtest_memread(qts, SPLIT, seen, SPLIT_BYTES);
    qtest_memread(qts, NEXT, seen + SPLIT_BYTES, LONG_DOUBLE - SPLIT_BYTES);
    g_assert_cmpmem(seen, sizeof(seen), wanted, sizeof(wanted));
    qtest_memread(qts, RESULTS + 0x20, seen, sizeof(seen));
    g_assert_cmpmem(seen, sizeof(seen), wanted, sizeof(wanted));
    /* What follows the first page in the host's memory is another's. */
    qtest_memread(qts, BEHIND, seen, sizeof(seen));
    g_assert_cmpmem(seen, sizeof(seen), nothing, sizeof(nothing));
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_accel("tcg") || !qtest_has_machine("pc")) {
        g_test_skip("needs TCG and the machine 'pc'");
        return 0;
    }
    qtest_add_func("/i386/access/cross-page", test_cross);
    return g_test_run();
}
