/*
 * A fake host for tests of virtio-mem's host work (hw/virtio/virtio-mem-work.c)
 *
 * The fake backing keeps books on which bytes it was told to work on.  It can
 * be held: then a slice ends when the test lets it.  The host has two
 * processors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_FAKE_WORK_H
#define VIRTIO_MEM_FAKE_WORK_H

#include "qemu/thread.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-work.h"

#define FAKE_WORK_BLOCK (2 * MiB)
#define FAKE_WORK_BLOCKS 256
#define FAKE_WORK_ALL ((VirtIOMEMRange) { 0, FAKE_WORK_BLOCKS })

typedef struct FakeWork {
    VirtIOMEM vmem;
    HostMemoryBackend memdev;
    uint64_t page_size;
    unsigned int nb_contexts;       /* threads created by a thread context */

    QemuMutex lock;                 /* protects the rest */
    unsigned int touched[FAKE_WORK_BLOCKS];
    unsigned int nb_slices;
    uint64_t max_slice;
    uint64_t max_here;              /* the largest one in a coroutine */
    uint64_t nb_empty;              /* blocks, as the host can tell */
    uint64_t max_asked;             /* whether they are */
    bool is_slow;                   /* each slice takes its time */
    bool is_serial;                 /* and the next one only after that */
    QemuMutex serial;
    unsigned int nb_working;        /* threads in a slice */
    unsigned int max_working;
    unsigned int refuse_at;         /* the n-th slice; 0: none */
    unsigned int drain_at;
    unsigned int wait_for;          /* so many threads to meet in a slice */
    bool held;
    QemuCond changed;
} FakeWork;

/* The host has no more threads; atomic. */
extern bool fake_work_no_threads;

/* A device of so many threads at most; takes the BQL. */
void fake_work_init(FakeWork *fake, unsigned int nb_threads);
void fake_work_destroy(FakeWork *fake);

/* As if the memory backend had been as it is now from the start. */
void fake_work_realize_again(FakeWork *fake);

/* With threads of a context that nobody has after that. */
void fake_work_use_context(FakeWork *fake);

void fake_work_plug(FakeWork *fake, uint64_t first, uint64_t nb_blocks);

/* The blocks inside @within that are (un)plugged. */
int fake_work_discard(FakeWork *fake, VirtIOMEMRange within, bool plugged);
int fake_work_populate(FakeWork *fake, VirtIOMEMRange within);
void fake_work_assert_touched(const FakeWork *fake, VirtIOMEMRange within,
                              bool plugged);

/* A thread of the test before counts as running until it has left its task. */
void fake_work_await_idle_threads(void);

#endif
