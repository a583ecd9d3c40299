/*
 * Load a kernel into the running test guest: the part of kexec-tools that
 * tests need, without its libraries.
 *
 *   kexec KERNEL INITRD COMMAND-LINE      to be started by -e
 *   kexec -p KERNEL INITRD COMMAND-LINE   to be started when this one panics
 *   kexec -e                              start what was loaded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <err.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_or_exit(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        err(1, "%s", path);
    }
    return fd;
}

int main(int argc, char **argv)
{
    unsigned long flags = 0;

    if (argc == 2 && !strcmp(argv[1], "-e")) {
        reboot(LINUX_REBOOT_CMD_KEXEC);
        err(1, "kexec -e");
    }
    if (argc == 5 && !strcmp(argv[1], "-p")) {
        flags = KEXEC_FILE_ON_CRASH;
        argv++;
        argc--;
    }
    if (argc != 4) {
        errx(2, "usage: kexec -e | kexec [-p] KERNEL INITRD COMMAND-LINE");
    }
    if (syscall(SYS_kexec_file_load, open_or_exit(argv[1]),
                open_or_exit(argv[2]), strlen(argv[3]) + 1, argv[3], flags)) {
        err(1, "kexec_file_load");
    }
    return 0;
}
