/*
 * A model of all that runs around a virtio-mem device: the kernel, threads of
 * the pool, the guard's thread, rogue vCPUs and the main loop; and an explorer
 * of all orders in which they can take their steps.
 *
 * The files of the device are the real ones, compiled to call the model's
 * kernel.  Each thread is a coroutine, which stops where the real one could be
 * overtaken: before the host changes memory, and when it waits.  What is done
 * with a lock held is one step.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_MODEL_HOST_H
#define VIRTIO_MEM_MODEL_HOST_H

#include "qemu/units.h"
#include "hw/virtio/virtio-mem-state.h"

#define MODEL_BLOCKS 3
#define MODEL_BLOCK (4 * MiB)
#define MODEL_HOST ((uint8_t *)(1 * TiB))
#define MODEL_ROGUES 2

/* Faults, to see that they are found. */
typedef enum ModelSeed {
    MODEL_NO_FAULT,
    MODEL_NO_DRAIN,             /* when a migration begins */
    MODEL_NO_WAKE,              /* of a vCPU that has its page */
    MODEL_LATE_WATCH,           /* memory is watched some steps later */
    MODEL_NO_DISCARD,           /* of the last block of a slice that waited */
    MODEL_NO_BH,                /* the work's end is not told */
    MODEL_NO_PAUSE,             /* when a load begins */
    MODEL_NO_CLEANUP,           /* when it ends */
} ModelSeed;

/* The first page of a block; no other one is looked at. */
typedef struct ModelPage {
    bool watched;
    bool present;
    bool lent;                  /* by the guard, and not given back */
    bool owned;                 /* the guest has its data there */
    unsigned epoch;             /* in which request it was written; 0: zero */
} ModelPage;

typedef struct ModelHost {
    ModelSeed seed;
    ModelPage pages[MODEL_BLOCKS];
    unsigned epoch;             /* of the request that came last */
    const char *rogues[MODEL_ROGUES];   /* blocks they touch: "02" */
} ModelHost;

extern ModelHost model;

/* A step that the main loop can take; NULL ends a list of them. */
typedef struct ModelStep {
    const char *name;
    bool (*can)(void);
    void (*run)(void);
} ModelStep;

/* All is at rest; the rogues are as @rogues says. */
void model_begin(void);
/* Take all steps in one order.  @check runs after each. */
void model_run(const ModelStep *main_loop, void (*check)(void));
void model_end(void);

/*
 * For each order of the first @depth choices: begin, run, end, and ask this
 * whether there is another one.
 */
void model_explore(unsigned depth);
bool model_next(void);
/* Ends the program; says in what order the steps were taken. */
void G_NORETURN model_fail(const char *what);

/* In place of the host's. */
void model_discard(uint64_t offset, uint64_t size);

/* --- between threads and kernel --- */

/* A thread of the pool lets others be faster; false in other threads. */
bool model_stop(void);

void model_kernel_begin(void);
/* A step was taken. */
void model_kernel_tick(void);
/* Rogue number @rogue writes to block @at; false if it has to wait. */
bool model_kernel_access(unsigned rogue, unsigned at);
bool model_kernel_waits(unsigned rogue);
/* The guard's thread has something to read. */
bool model_kernel_has_faults(void);

#endif
