/*
 * In the test guest: one CPU switches a PCI device off and on, so that the
 * memory map changes; another CPU reads a register of a second device, which
 * must not notice.
 *
 *   mmio DEVICE/config OTHER-DEVICE/resource0 TIMES
 *
 * The files are those in /sys/bus/pci/devices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
    atomic_bool reading;
    atomic_bool ended;
};

static int open_or_exit(const char *path)
{
    int fd = open(path, O_RDWR | O_SYNC);

    if (fd < 0) {
        err(1, "%s", path);
    }
    return fd;
}

static void *map(size_t size, int flags, int fd)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | flags, fd, 0);

    if (memory == MAP_FAILED) {
        err(1, "mmap");
    }
    return memory;
}

static void stay_on(int cpu)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    if (sched_setaffinity(0, sizeof(cpus), &cpus)) {
        err(1, "CPU %d", cpu);
    }
}

static int read_until_end(const char *resource, struct shared *shared)
{
    /* Each read must reach the device: volatile. */
    const volatile uint32_t *reg = map(4096, 0, open_or_exit(resource));
    const uint32_t value = *reg;
    unsigned long reads, wrong = 0;

    for (reads = 0; !shared->ended; reads++) {
        wrong += *reg != value;
        shared->reading = true;
    }
    printf("%lu of %lu reads were wrong\n", wrong, reads);
    return wrong ? 1 : 0;
}

static void switch_off_and_on(const char *path, int times)
{
    const uint16_t off = 0, on = PCI_COMMAND_MEMORY;
    int config = open_or_exit(path);

    while (times--) {
        if (pwrite(config, &off, sizeof(off), PCI_COMMAND) != sizeof(off) ||
            pwrite(config, &on, sizeof(on), PCI_COMMAND) != sizeof(on)) {
            err(1, "%s", path);
        }
    }
}

int main(int argc, char **argv)
{
    struct shared *shared = map(sizeof(*shared), MAP_ANONYMOUS, -1);
    int status;

    if (argc != 4) {
        errx(1, "usage: mmio DEVICE/config OTHER-DEVICE/resource0 TIMES");
    }
    if (!fork()) {
        stay_on(1);
        return read_until_end(argv[2], shared);
    }
    stay_on(0);
    while (!shared->reading) {
        if (waitpid(-1, NULL, WNOHANG)) {
            return 1;
        }
    }
    switch_off_and_on(argv[1], atoi(argv[3]));
    shared->ended = true;
    wait(&status);
    return status != 0;
}
