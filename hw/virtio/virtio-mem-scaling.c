/*
 * How many threads pay off for host work: measured, not guessed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "trace.h"
#include "virtio-mem-scaling.h"

/* So much faster have more threads to be. */
#define SCALING_GAIN 1.1

/* After so many slices, a try may turn out to be hopeless. */
#define SCALING_FIRST_SLICES 8

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

/* What those that work now get done together. */
static double scaling_speed(const VirtIOMEMScaling *scaling)
{
    return (double)scaling->size / MAX(scaling->us, 1) *
           virtio_mem_scaling_wanted(scaling);
}

/* Whether what is tried is better than what was. */
static bool scaling_is_better(const VirtIOMEMScaling *scaling)
{
    const double speed = scaling_speed(scaling);

    return scaling->upwards ? speed >= scaling->speed * SCALING_GAIN
                            : speed * SCALING_GAIN > scaling->speed;
}

static void scaling_restart(VirtIOMEMScaling *scaling)
{
    scaling->nb_slices = 0;
    scaling->size = 0;
    scaling->us = 0;
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

static void scaling_end_try(VirtIOMEMScaling *scaling, bool is_better,
                            int64_t now_us)
{
    trace_virtio_mem_scaling(scaling->nb_threads, scaling->speed,
                             scaling->nb_tried, scaling_speed(scaling));
    if (is_better) {
        scaling->nb_threads = scaling->nb_tried;
        scaling->patience_us = VIRTIO_MEM_SCALING_PATIENCE_US;
    } else {
        scaling->upwards = !scaling->upwards;
    }
    scaling->nb_tried = 0;
    scaling->next_try_us = now_us + scaling->patience_us;
    scaling->patience_us = MIN(2 * scaling->patience_us,
                               VIRTIO_MEM_SCALING_MAX_PATIENCE_US);
    scaling_restart(scaling);
}

static bool scaling_window_is_over(const VirtIOMEMScaling *scaling)
{
    return scaling->us >= (int64_t)virtio_mem_scaling_wanted(scaling) *
                          VIRTIO_MEM_SCALING_WINDOW_US;
}

static void scaling_judge_try(VirtIOMEMScaling *scaling, int64_t now_us)
{
    if (scaling_window_is_over(scaling) ||
        (scaling->nb_slices == SCALING_FIRST_SLICES &&
         !scaling_is_better(scaling))) {
        scaling_end_try(scaling, scaling_is_better(scaling), now_us);
    }
}

static void scaling_judge(VirtIOMEMScaling *scaling, int64_t now_us)
{
    if (!scaling_window_is_over(scaling)) {
        return;
    }
    scaling->speed = scaling_speed(scaling);
    scaling_restart(scaling);
    if (now_us >= scaling->next_try_us) {
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
    scaling->nb_slices++;
    scaling->size += size;
    scaling->us += us;
    if (scaling->nb_tried) {
        scaling_judge_try(scaling, now_us);
    } else {
        scaling_judge(scaling, now_us);
    }
}
