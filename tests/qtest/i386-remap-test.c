/*
 * One x86 instruction that changes the memory map, and goes on in it
 *
 * PUSHAL writes eight registers.  Here they are written to the configuration of
 * a PCI device: the first one moves a BAR, which changes the number that the
 * configuration's own section of the memory map has; the second one has to
 * reach the configuration still.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"

#define ROM_SIZE (64 * 1024)
#define RESET_VECTOR 0xfff0
#define GO 0x500                /* set for the guest, cleared by it */

/* Where configuration is seen; and a BAR, first below that and then above. */
#define MMCONFIG 0xb0000000
#define BAR0_BEFORE 0xa0000000
#define BAR0_AFTER 0xe0000000
#define BAR1_AFTER 0xc000

#define MCH_PCIEXBAR 0x80000060
#define DEVICE_COMMAND 0x80001004
#define DEVICE_BAR0 0x80001010
#define DEVICE_BAR1 0x80001014

static const uint8_t guest[] = {
    0xb8, 0x00, 0xf0,                       /*    movw $0xf000, %ax */
    0x8e, 0xd8,                             /*    movw %ax, %ds */
    0x66, 0x0f, 0x01, 0x16, 0x60, 0x00,     /*    lgdtl 0x60 */
    0xb8, 0x01, 0x00,                       /*    movw $1, %ax */
    0x0f, 0x01, 0xf0,                       /*    lmsw %ax */
    0x66, 0xea, 0x19, 0x00, 0x0f, 0x00, 0x08, 0x00, /* ljmpl $8, $0xf0019 */
    0xb8, 0x10, 0x00, 0x00, 0x00,           /*    movl $16, %eax */
    0x8e, 0xd8,                             /*    movl %eax, %ds */
    0x8e, 0xd0,                             /*    movl %eax, %ss */
    0xbc, 0x30, 0x00, 0x01, 0xb0,           /*    movl $0xb0010030, %esp */
    0xbf, 0x00, 0x00, 0x00, 0xe0,           /*    movl $BAR0_AFTER, %edi */
    0xbe, 0x00, 0xc0, 0x00, 0x00,           /*    movl $BAR1_AFTER, %esi */
    0x83, 0x3d, 0x00, 0x05, 0x00, 0x00, 0x00, /* 1: cmpl $0, GO */
    0x74, 0xf7,                             /*    je 1b */
    0x60,                                   /*    pushal */
    0xc7, 0x05, 0x00, 0x05, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00,                 /*    movl $0, GO */
    0xf4,                                   /* 2: hlt */
    0xeb, 0xfd,                             /*    jmp 2b */
    0, 0, 0, 0, 0, 0, 0, 0,
    /* 0x50: code and data, of 4 GiB each */
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00,
    0x17, 0x00, 0x48, 0x00, 0x0f, 0x00,     /* 0x60: the table at 0xf0048 */
};

static QTestState *remap_guest_start(void)
{
    static const uint8_t jump[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };
    g_autofree char *rom = g_malloc0(ROM_SIZE);
    g_autofree char *path = NULL;
    QTestState *qts;
    int fd;

    memcpy(rom, guest, sizeof(guest));
    memcpy(rom + RESET_VECTOR, jump, sizeof(jump));
    fd = g_file_open_tmp("i386-remap-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, rom, ROM_SIZE), ==, ROM_SIZE);
    close(fd);
    qts = qtest_initf("-accel tcg -machine q35 -nodefaults -m 64M -bios %s"
                      " -device pci-testdev,addr=02.0", path);
    unlink(path);
    return qts;
}

static uint32_t config_read(QTestState *qts, uint32_t address)
{
    qtest_outl(qts, 0xcf8, address);
    return qtest_inl(qts, 0xcfc);
}

static void config_write(QTestState *qts, uint32_t address, uint32_t value)
{
    qtest_outl(qts, 0xcf8, address);
    qtest_outl(qts, 0xcfc, value);
}

static void test_remap(void)
{
    QTestState *qts = remap_guest_start();

    config_write(qts, MCH_PCIEXBAR, MMCONFIG | 1);
    config_write(qts, DEVICE_BAR0, BAR0_BEFORE);
    config_write(qts, DEVICE_COMMAND, 3);
    g_assert_cmphex(config_read(qts, DEVICE_BAR1), ==, 1);

    qtest_writel(qts, GO, 1);
    while (qtest_readl(qts, GO)) {
        g_usleep(10000);
    }

    g_assert_cmphex(config_read(qts, DEVICE_BAR0), ==, BAR0_AFTER);
    g_assert_cmphex(config_read(qts, DEVICE_BAR1), ==, BAR1_AFTER | 1);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_accel("tcg") || !qtest_has_machine("q35") ||
        !qtest_has_device("pci-testdev")) {
        g_test_skip("needs TCG, the machine 'q35' and 'pci-testdev'");
        return 0;
    }
    qtest_add_func("/i386/remap/by-one-instruction", test_remap);
    return g_test_run();
}
