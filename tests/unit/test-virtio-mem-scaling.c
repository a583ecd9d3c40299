/*
 * virtio-mem: the number of threads that pay off is found, and found again
 *
 * A simulated host does a slice in the time that so many threads take there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "../../hw/virtio/virtio-mem-scaling.h"

#define SLICE (2 * MiB)
#define SLICE_US 200            /* that one thread takes for it alone */
#define LOST_US 3000            /* by one that the host puts aside */
#define SECOND_US 1000000

/* How many times as fast as one are @nb_threads together? */
typedef double Curve(unsigned int nb_threads);

typedef struct Host {
    VirtIOMEMScaling scaling;
    Curve *curve;
    unsigned int preempts;      /* one slice in so many; 0: none */
    unsigned int nb_processors; /* 0: one for each thread */
    uint64_t seed;
    double now_us;
    double done;                /* slices */
} Host;

static double curve_linear(unsigned int nb_threads)
{
    return nb_threads;
}

static double curve_flat(unsigned int nb_threads)
{
    return 1;
}

/* They wait for each other, and that costs time, too. */
static double curve_falls(unsigned int nb_threads)
{
    return 1 / (0.5 + 0.5 * nb_threads);
}

static double curve_of_four(unsigned int nb_threads)
{
    return MIN(nb_threads, 4);
}

static double curve_small_gain(unsigned int nb_threads)
{
    return 1 + 0.05 * (nb_threads - 1);
}

static double curve_fair_gain(unsigned int nb_threads)
{
    return 1 + 0.17 * (nb_threads - 1);
}

static void host_init(Host *host, Curve *curve, unsigned int nb_threads,
                      unsigned int max)
{
    *host = (Host) { .curve = curve, .seed = 1 };
    virtio_mem_scaling_init(&host->scaling, nb_threads, max);
}

static bool host_is_unlucky(Host *host)
{
    host->seed = host->seed * 6364136223846793005ull + 1442695040888963407ull;
    if (host->nb_processors &&
        virtio_mem_scaling_wanted(&host->scaling) <= host->nb_processors) {
        return false;
    }
    return host->preempts && (host->seed >> 33) % host->preempts == 0;
}

/* As many threads as are wanted do a slice each. */
static void host_round(Host *host)
{
    const unsigned int nb = virtio_mem_scaling_wanted(&host->scaling);
    const double us = nb * SLICE_US / host->curve(nb);

    g_assert_cmpuint(nb, >=, 1);
    g_assert_cmpuint(nb, <=, host->scaling.max);
    host->now_us += us;
    host->done += nb;
    for (unsigned int i = 0; i < nb; i++) {
        virtio_mem_scaling_note(&host->scaling, nb, SLICE,
                                us + (host_is_unlucky(host) ? LOST_US : 0),
                                host->now_us);
    }
}

/* Returns which part of what @best threads would have done is done. */
static double host_run(Host *host, unsigned int best, double us)
{
    const double end = host->now_us + us;
    const double start = host->now_us, done = host->done;

    while (host->now_us < end) {
        host_round(host);
    }
    return (host->done - done) * SLICE_US /
           (host->curve(best) * (host->now_us - start));
}

/* --- claims --- */

static void do_test_found(Curve *curve, unsigned int max, unsigned int best)
{
    for (int i = 0; i < 2; i++) {
        Host host;

        host_init(&host, curve, i ? max : 1, max);
        host_run(&host, best, 2 * SECOND_US);
        g_assert_cmpuint(host.scaling.nb_threads, ==, best);
        g_assert_cmpfloat(host_run(&host, best, 10 * SECOND_US), >=, 0.98);
        g_assert_cmpuint(host.scaling.nb_threads, ==, best);
    }
}

static void test_found(void)
{
    do_test_found(curve_linear, 1, 1);
    do_test_found(curve_linear, 2, 2);
    do_test_found(curve_linear, 6, 6);
    do_test_found(curve_linear, 16, 16);
    do_test_found(curve_flat, 2, 1);
    do_test_found(curve_flat, 16, 1);
    do_test_found(curve_falls, 16, 1);
    do_test_found(curve_of_four, 4, 4);
}

/* A tenth is what it takes. */
static void test_gain(void)
{
    do_test_found(curve_small_gain, 2, 1);
    do_test_found(curve_fair_gain, 2, 2);
}

/* By doubling and halving, so not to the thread. */
static void test_some_of_many(void)
{
    for (unsigned int first = 1; first <= 16; first++) {
        Host host;

        host_init(&host, curve_of_four, first, 16);
        host_run(&host, 4, 2 * SECOND_US);
        g_assert_cmpuint(host.scaling.nb_threads, >=, 4);
        g_assert_cmpuint(host.scaling.nb_threads, <, 8);
        g_assert_cmpfloat(host_run(&host, 4, SECOND_US), >=, 0.95);
    }
}

/* Short work is done as at first: to try takes longer than it would gain. */
static void test_not_at_once(void)
{
    Host host;

    host_init(&host, curve_flat, 2, 2);
    while (host.now_us < 0.9 * VIRTIO_MEM_SCALING_WINDOW_US) {
        host_round(&host);
        g_assert_cmpuint(virtio_mem_scaling_wanted(&host.scaling), ==, 2);
    }
}

/* The host becomes busy, and idle again. */
static void test_change(void)
{
    Host host;

    host_init(&host, curve_linear, 2, 2);
    host_run(&host, 2, 20 * SECOND_US);
    for (int i = 0; i < 10; i++) {
        host.curve = i % 2 ? curve_linear : curve_falls;
        host_run(&host, 1, 2.2 * VIRTIO_MEM_SCALING_MAX_PATIENCE_US);
        g_assert_cmpuint(host.scaling.nb_threads, ==, i % 2 ? 2 : 1);
    }
}

/* The host takes a processor away now and then, whoever has it. */
static void do_test_noise(Curve *curve, unsigned int best)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        Host host;

        host_init(&host, curve, 3 - best, 2);
        host.preempts = 50;
        host.seed = seed;
        host_run(&host, best, SECOND_US);
        g_assert_cmpfloat(host_run(&host, best, 10 * SECOND_US), >=, 0.95);
    }
}

static void test_noise(void)
{
    do_test_noise(curve_linear, 2);
    do_test_noise(curve_falls, 1);
}

/*
 * Somebody else has one of two processors.  Two threads are twice as fast in
 * most slices, but wait as long in others.
 */
static void test_busy_host(void)
{
    Host host;
    double alone = 0;

    host_init(&host, curve_linear, 2, 2);
    host.nb_processors = 1;
    host.preempts = LOST_US / SLICE_US;
    host_run(&host, 1, 5 * SECOND_US);
    for (int i = 0; i < 50000; i++) {
        alone += virtio_mem_scaling_wanted(&host.scaling) == 1;
        host_round(&host);
    }
    g_assert_cmpfloat(alone / 50000, >=, 0.75);
}

/* Returns how long the next one takes, in microseconds. */
static double host_run_try(Host *host)
{
    double start;

    while (!host->scaling.nb_tried) {
        host_round(host);
    }
    start = host->now_us;
    while (host->scaling.nb_tried) {
        host_round(host);
    }
    /* What was tried does not count as what follows. */
    g_assert_cmpuint(host->scaling.nb_slices, <, 2);
    return host->now_us - start;
}

static void test_hopeless_try(void)
{
    Host host;

    host_init(&host, curve_linear, 2, 2);
    g_assert_cmpfloat(host_run_try(&host), <=, 10 * SLICE_US);
    host_init(&host, curve_flat, 2, 2);
    g_assert_cmpfloat(host_run_try(&host), >=,
                      0.9 * VIRTIO_MEM_SCALING_WINDOW_US);
}

/* A thread that has to wake up first, for one. */
static void test_slow_start(void)
{
    Host host;

    host_init(&host, curve_linear, 1, 2);
    while (!host.scaling.nb_tried) {
        host_round(&host);
    }
    virtio_mem_scaling_note(&host.scaling, 2, SLICE, 3 * SLICE_US,
                            host.now_us);
    g_assert_cmpuint(host.scaling.nb_tried, ==, 2);
    host_run_try(&host);
    g_assert_cmpuint(host.scaling.nb_threads, ==, 2);
}

/* Each that changes nothing makes the next one wait longer, up to a second. */
static void test_tries_are_rare(void)
{
    Host host;
    double last = 0;

    host_init(&host, curve_linear, 2, 2);
    for (int i = 0; i < 10; i++) {
        const double start = host.now_us;

        host_run_try(&host);
        g_assert_cmpfloat(host.now_us - start, >=, MIN(last, SECOND_US));
        last = 1.5 * (host.now_us - start);
    }
    g_assert_cmpfloat(host_run_try(&host), <=, 10 * SLICE_US);
    g_assert_cmpfloat(host.now_us, <=, 9 * SECOND_US);
}

/* Some have not come yet, or not left yet; or a drain helps. */
static void test_others_are_not_counted(void)
{
    Host host;

    host_init(&host, curve_linear, 4, 8);
    for (int i = 0; i < 10000; i++) {
        host.now_us += SLICE_US;
        virtio_mem_scaling_note(&host.scaling, i % 2 ? 3 : 5, SLICE, SLICE_US,
                                host.now_us);
    }
    g_assert_cmpuint(virtio_mem_scaling_wanted(&host.scaling), ==, 4);
    g_assert_cmpuint(host.scaling.nb_slices, ==, 0);
}

/* Calls that the clock cannot tell from nothing, and slices of any size. */
static void test_extremes(void)
{
    Host host;

    host_init(&host, curve_linear, 1, 2);
    for (int i = 0; i < 10000; i++) {
        host.now_us += SLICE_US;
        virtio_mem_scaling_note(
            &host.scaling, virtio_mem_scaling_wanted(&host.scaling),
            i % 3 ? 64 * TiB : 4 * KiB, i % 2 ? 0 : SECOND_US, host.now_us);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/scaling/found", test_found);
    g_test_add_func("/virtio-mem/scaling/gain-of-a-tenth", test_gain);
    g_test_add_func("/virtio-mem/scaling/some-of-many", test_some_of_many);
    g_test_add_func("/virtio-mem/scaling/not-at-once", test_not_at_once);
    g_test_add_func("/virtio-mem/scaling/follows-a-change", test_change);
    g_test_add_func("/virtio-mem/scaling/noise", test_noise);
    g_test_add_func("/virtio-mem/scaling/busy-host", test_busy_host);
    g_test_add_func("/virtio-mem/scaling/hopeless-try", test_hopeless_try);
    g_test_add_func("/virtio-mem/scaling/slow-start", test_slow_start);
    g_test_add_func("/virtio-mem/scaling/tries-are-rare", test_tries_are_rare);
    g_test_add_func("/virtio-mem/scaling/others-are-not-counted",
                    test_others_are_not_counted);
    g_test_add_func("/virtio-mem/scaling/extremes", test_extremes);
    return g_test_run();
}
