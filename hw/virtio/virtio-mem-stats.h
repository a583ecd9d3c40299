/*
 * What a virtio-mem device has done since it was realized, in numbers.
 *
 * For humans and monitoring: nothing in the device depends on them, no reset
 * clears them and they do not migrate.  An answer to a STATE request counts
 * only if it is an error: guests walk their memory by them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_STATS_H
#define HW_VIRTIO_MEM_STATS_H

#include "hw/virtio/virtio-mem-state.h"

typedef enum VirtIOMEMCounter {
    /* Requests by type and answer. */
    VIRTIO_MEM_PLUG_ACKS,
    VIRTIO_MEM_PLUG_NACKS,
    VIRTIO_MEM_PLUG_BUSIES,
    VIRTIO_MEM_PLUG_ERRORS,
    VIRTIO_MEM_UNPLUG_ACKS,
    VIRTIO_MEM_UNPLUG_BUSIES,
    VIRTIO_MEM_UNPLUG_ERRORS,
    VIRTIO_MEM_UNPLUG_ALL_ACKS,
    VIRTIO_MEM_UNPLUG_ALL_BUSIES,
    VIRTIO_MEM_STATE_ERRORS,
    VIRTIO_MEM_BAD_REQUESTS,        /* of no known type, or malformed */
    /* What requests changed. */
    VIRTIO_MEM_PLUGGED_BYTES,
    VIRTIO_MEM_UNPLUGGED_BYTES,
    /* Why the answer was BUSY. */
    VIRTIO_MEM_BUSY_MIGRATION,
    VIRTIO_MEM_BUSY_HOST_MEMORY,
    VIRTIO_MEM_BUSY_REFUSED,
    VIRTIO_MEM_BUSY_DRAINED,
    /* The host's share, in nanoseconds and bytes. */
    VIRTIO_MEM_POPULATE_TIME,
    VIRTIO_MEM_POPULATED_BYTES,
    VIRTIO_MEM_DISCARD_TIME,
    VIRTIO_MEM_DISCARDED_BYTES,
    /* Resizes. */
    VIRTIO_MEM_RESIZES,             /* sizes that were requested */
    VIRTIO_MEM_RESIZES_FAILED,      /* and given up or replaced before */
    VIRTIO_MEM_STEPS,               /* of plans */
    VIRTIO_MEM_GIVEN_BACK_BYTES,    /* by plans that went too far */
    VIRTIO_MEM_REMINDERS,           /* of a silent driver, by plans */
    VIRTIO_MEM_WAKES,               /* of a driver that heard BUSY */
    VIRTIO_MEM_COUNTER__MAX,
} VirtIOMEMCounter;

/*
 * How long PLUG and UNPLUG took that were not refused beforehand, from the
 * decision to the verdict.  Bucket 0 counts 0 ns, bucket n from 2^(n-1) to
 * below 2^n ns; the last one, all above that: nine minutes and more.
 */
#define VIRTIO_MEM_LATENCY_BUCKETS 41

typedef enum VirtIOMEMHistogram {
    VIRTIO_MEM_PLUG_LATENCY,        /* in nanoseconds */
    VIRTIO_MEM_UNPLUG_LATENCY,
    VIRTIO_MEM_RESIZE_TIME,         /* of those that were done; milliseconds */
    VIRTIO_MEM_HISTOGRAM__MAX,
} VirtIOMEMHistogram;

typedef struct VirtIOMEMStats {
    uint64_t counters[VIRTIO_MEM_COUNTER__MAX];
    uint64_t histograms[VIRTIO_MEM_HISTOGRAM__MAX][VIRTIO_MEM_LATENCY_BUCKETS];
} VirtIOMEMStats;

/* While the device is realized.  All functions are called with the BQL. */
void virtio_mem_stats_realize(VirtIOMEM *vmem);
void virtio_mem_stats_unrealize(VirtIOMEM *vmem);

void virtio_mem_stats_add(VirtIOMEM *vmem, VirtIOMEMCounter counter,
                          uint64_t amount);

/*
 * A request of @type (VIRTIO_MEM_REQ_*, or anything) got the answer @response
 * (VIRTIO_MEM_RESP_*).  Not for the ACK of a STATE request.
 */
void virtio_mem_stats_note_answer(VirtIOMEM *vmem, uint16_t type,
                                  uint16_t response);

/* Something took so long, in the unit of @histogram. */
void virtio_mem_stats_note_time(VirtIOMEM *vmem, VirtIOMEMHistogram histogram,
                                int64_t time);

#endif
