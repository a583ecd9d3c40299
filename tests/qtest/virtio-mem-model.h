/*
 * A naive model of virtio-mem, and random requests for it.
 *
 * One bool per block and no arithmetic on addresses: too slow for a device,
 * too simple to be wrong.
 *
 * Layer: the tiny guest and its chains below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_QTEST_VIRTIO_MEM_MODEL_H
#define TESTS_QTEST_VIRTIO_MEM_MODEL_H

#include "virtio-mem-chains.h"

#define HOSTILE_REGION  (1 * GiB)
#define HOSTILE_BLOCK   (8 * MiB)
#define NB_BLOCKS       (HOSTILE_REGION / HOSTILE_BLOCK)

/* What the guest believes, kept as naively as possible. */
typedef struct HostileModel {
    VirtioMemGuest *vm;
    VirtioMemBuffers buffers;
    bool plugged[NB_BLOCKS];
    uint64_t stamp[NB_BLOCKS];  /* in the block's first quadword; 0: fresh */
    uint64_t nb_requested;
    uint64_t nb_usable;         /* only the device knows: read from it */
    bool is_busy;               /* the device: nothing changes now */
} HostileModel;

/* Plugged blocks in a range. */
uint64_t model_count(const HostileModel *m, uint64_t first, uint64_t nb);
void model_set(HostileModel *m, uint64_t first, uint64_t nb, bool plugged);
/* @got must be the answer to @req, which has then been done here, too. */
void model_check_answer(HostileModel *m, const VmRequest *req,
                        VmAnswer got);
/* Only a larger request may raise U, only UNPLUG ALL and reset lower it. */
void model_read_usable(HostileModel *m, bool may_grow, bool may_shrink);

/* A number below @end; 0 means any number. */
uint64_t random_below(uint64_t end);
bool random_one_in(unsigned nb);
/* Guest addresses and requests: good ones mostly, and around every edge. */
uint64_t random_addr(HostileModel *m);
VmRequest random_request(HostileModel *m);

/* What may be done, and how often in comparison. */
typedef struct HostileStep {
    unsigned weight;
    void (*run)(HostileModel *m);
} HostileStep;

/* Do one of @nb @steps. */
void random_step(HostileModel *m, const HostileStep *steps, size_t nb);

#endif
