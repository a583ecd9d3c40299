/*
 * How many threads pay off for host work: measured, not guessed.
 *
 * Threads that wait for each other, for the host's memory or for a processor
 * get no more done together than fewer of them would.  How many that are
 * depends on the host and on what else it does.  So all that threads do is
 * timed, waiting included.  Now and then, twice or half as many work, and the
 * faster number stays: the larger one only if it is a tenth faster, as the
 * others are of use elsewhere.
 *
 * A try ends after a few slices if it is hopeless; or else it takes as long as
 * it takes until the host's scheduler has shown what it does.  A try that
 * changes nothing doubles the time to the next.  As memory is not alike
 * everywhere, a decision may be wrong, but only until the next try.
 *
 * This layer knows no device and no thread.  It needs a lock of the caller's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_SCALING_H
#define HW_VIRTIO_MEM_SCALING_H

/* How long so many threads work before that is judged. */
#define VIRTIO_MEM_SCALING_WINDOW_US 50000

#define VIRTIO_MEM_SCALING_PATIENCE_US 100000
#define VIRTIO_MEM_SCALING_MAX_PATIENCE_US 1000000

typedef struct VirtIOMEMScaling {
    unsigned int max;           /* at least 1 */
    unsigned int nb_threads;    /* that pay off, as far as is known */
    unsigned int nb_tried;      /* that work for now instead; 0: no try */
    bool upwards;               /* the next try */
    int64_t next_try_us;        /* by the caller's clock */
    int64_t patience_us;        /* from one try to the next */
    double speed;               /* of nb_threads, in bytes per microsecond */

    /* What those that work now have done together. */
    unsigned int nb_slices;
    uint64_t size;
    int64_t us;                 /* the sum of all threads */
} VirtIOMEMScaling;

/* Begin with @nb_threads, 1 to @max. */
void virtio_mem_scaling_init(VirtIOMEMScaling *scaling, unsigned int nb_threads,
                             unsigned int max);

/* How many threads should work now, 1 to max. */
unsigned int virtio_mem_scaling_wanted(const VirtIOMEMScaling *scaling);

/*
 * A thread was done with @size bytes at @now_us (of a clock that never goes
 * back), @us after it had been done with something before, while @nb_working
 * threads worked, it included.
 */
void virtio_mem_scaling_note(VirtIOMEMScaling *scaling, unsigned int nb_working,
                             uint64_t size, int64_t us, int64_t now_us);

#endif
