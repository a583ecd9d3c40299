/*
 * How many threads pay off for host work: measured, not guessed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "trace.h"
#include "virtio-mem-scaling.h"

/* More threads stay if they are faster by one part in so many. */
#define SCALING_GAIN 10

void virtio_mem_scaling_init(VirtIOMEMScaling *scaling, unsigned int nb_threads,
                             unsigned int max)
{
    assert(nb_threads && nb_threads <= max);
    *scaling = (VirtIOMEMScaling) {
        .max = max,
        .nb_threads = nb_threads,
        .patience_us = VIRTIO_MEM_SCALING_PATIENCE_US,
    };
}

unsigned int virtio_mem_scaling_wanted(const VirtIOMEMScaling *scaling)
{
    return scaling->nb_tried ?: scaling->nb_threads;
}

static int scaling_compare(const void *a, const void *b)
{
    const uint64_t *one = a, *other = b;

    return *one < *other ? -1 : *one > *other;
}

/* Of all threads that worked together. */
static uint64_t scaling_median(VirtIOMEMScaling *scaling)
{
    qsort(scaling->speeds, scaling->nb_speeds, sizeof(scaling->speeds[0]),
          scaling_compare);
    return scaling->speeds[scaling->nb_speeds / 2] *
           virtio_mem_scaling_wanted(scaling);
}

static void scaling_begin_try(VirtIOMEMScaling *scaling)
{
    const unsigned int nb_threads = scaling->nb_threads;

    if (nb_threads == 1 || nb_threads == scaling->max) {
        scaling->upwards = nb_threads == 1;
    }
    scaling->nb_tried = scaling->upwards ? MIN(2 * nb_threads, scaling->max)
                                         : nb_threads / 2;
}

/* True if what was tried is better than what was. */
static bool scaling_is_better(const VirtIOMEMScaling *scaling, uint64_t speed)
{
    const uint64_t more = scaling->upwards ? speed : scaling->speed;
    const uint64_t fewer = scaling->upwards ? scaling->speed : speed;

    return (more - (double)fewer >= (double)fewer / SCALING_GAIN) ==
           scaling->upwards;
}

static void scaling_end_try(VirtIOMEMScaling *scaling, uint64_t speed)
{
    trace_virtio_mem_scaling(scaling->nb_threads, scaling->speed,
                             scaling->nb_tried, speed);
    if (scaling_is_better(scaling, speed)) {
        scaling->nb_threads = scaling->nb_tried;
        scaling->speed = speed;
        scaling->patience_us = VIRTIO_MEM_SCALING_PATIENCE_US;
    } else {
        scaling->upwards = !scaling->upwards;
        scaling->patience_us = MIN(2 * scaling->patience_us,
                                   VIRTIO_MEM_SCALING_MAX_PATIENCE_US);
    }
    scaling->nb_tried = 0;
}

/* All that are to work have been timed. */
static void scaling_judge(VirtIOMEMScaling *scaling, int64_t now_us)
{
    const uint64_t speed = scaling_median(scaling);

    scaling->nb_speeds = 0;
    if (scaling->nb_tried) {
        scaling_end_try(scaling, speed);
        scaling->next_try_us = now_us + scaling->patience_us;
        return;
    }
    scaling->speed = speed;
    if (!scaling->next_try_us) {
        scaling->next_try_us = now_us + scaling->patience_us;
    } else if (now_us >= scaling->next_try_us) {
        scaling_begin_try(scaling);
    }
}

void virtio_mem_scaling_note(VirtIOMEMScaling *scaling, unsigned int nb_working,
                             uint64_t size, int64_t us, int64_t now_us)
{
    if (scaling->max == 1 ||
        nb_working != virtio_mem_scaling_wanted(scaling)) {
        /* There is no choice; or some are not there yet, or not gone yet. */
        return;
    }
    scaling->speeds[scaling->nb_speeds++] = size * 1000 / MAX(us, 1);
    if (scaling->nb_speeds == ARRAY_SIZE(scaling->speeds)) {
        scaling_judge(scaling, now_us);
    }
}
