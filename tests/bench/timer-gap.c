/*
 * In the guest: wake up every millisecond, read a register of an emulated
 * device, and say in the end how long the longest gap was.
 *
 *     timer-gap    until SIGTERM; prints "GAP-IN-MICROSECONDS READS"
 *
 * Both the timer and the register need QEMU: one that is stuck shows in
 * either.  Time is the time-stamp counter, for which no device is asked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/io.h>
#include <time.h>
#include <x86intrin.h>

#define PERIOD_NS   1000000
#define RTC_DATA    0x71

static volatile sig_atomic_t ended;

static void end(int signum)
{
    (void)signum;
    ended = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Ahead of all other processes, always on the same CPU. */
static int come_first(void)
{
    struct sched_param first = { .sched_priority = 50 };
    cpu_set_t last_cpu;

    CPU_ZERO(&last_cpu);
    CPU_SET(1, &last_cpu);
    return sched_setaffinity(0, sizeof(last_cpu), &last_cpu) ||
           sched_setscheduler(0, SCHED_FIFO, &first) ||
           ioperm(RTC_DATA, 1, 1);
}

static uint64_t read_until_end(unsigned *reads)
{
    const struct timespec period = { .tv_nsec = PERIOD_NS };
    uint64_t last = __rdtsc();
    uint64_t longest = 0;

    for (*reads = 0; !ended; ++*reads) {
        uint64_t now;

        nanosleep(&period, NULL);
        inb(RTC_DATA);
        now = __rdtsc();
        if (now - last > longest) {
            longest = now - last;
        }
        last = now;
    }
    return longest;
}

int main(void)
{
    uint64_t start_ns, start_tsc, longest;
    unsigned reads;
    double ns_per_tick;

    sigaction(SIGTERM, &(struct sigaction){ .sa_handler = end }, NULL);
    if (come_first()) {
        perror("timer-gap");
        return 1;
    }
    start_ns = now_ns();
    start_tsc = __rdtsc();
    longest = read_until_end(&reads);
    ns_per_tick = (double)(now_ns() - start_ns) / (__rdtsc() - start_tsc);
    printf("%.0f %u\n", longest * ns_per_tick / 1000, reads);
    return 0;
}
