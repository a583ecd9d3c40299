/*
 * What a virtio-mem device has done since it was realized, in numbers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/main-loop.h"
#include "standard-headers/linux/virtio_mem.h"
#include "virtio-mem-stats.h"

void virtio_mem_stats_add(VirtIOMEM *vmem, VirtIOMEMCounter counter,
                          uint64_t amount)
{
    assert(bql_locked());
    vmem->stats->counters[counter] += amount;
}

/* Those that are never the answer count as bad requests, like unknown ones. */
static VirtIOMEMCounter stats_counter(uint16_t type, uint16_t response)
{
    static const struct {
        uint16_t type;
        uint16_t response;
        VirtIOMEMCounter counter;
    } counters[] = {
        { VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_PLUG_ACKS },
        { VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_RESP_NACK, VIRTIO_MEM_PLUG_NACKS },
        { VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_RESP_BUSY, VIRTIO_MEM_PLUG_BUSIES },
        { VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_RESP_ERROR, VIRTIO_MEM_PLUG_ERRORS },
        { VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_UNPLUG_ACKS },
        { VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_RESP_BUSY,
          VIRTIO_MEM_UNPLUG_BUSIES },
        { VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_RESP_ERROR,
          VIRTIO_MEM_UNPLUG_ERRORS },
        { VIRTIO_MEM_REQ_UNPLUG_ALL, VIRTIO_MEM_RESP_ACK,
          VIRTIO_MEM_UNPLUG_ALL_ACKS },
        { VIRTIO_MEM_REQ_UNPLUG_ALL, VIRTIO_MEM_RESP_BUSY,
          VIRTIO_MEM_UNPLUG_ALL_BUSIES },
        { VIRTIO_MEM_REQ_STATE, VIRTIO_MEM_RESP_ERROR,
          VIRTIO_MEM_STATE_ERRORS },
    };

    for (int i = 0; i < ARRAY_SIZE(counters); i++) {
        if (counters[i].type == type && counters[i].response == response) {
            return counters[i].counter;
        }
    }
    return VIRTIO_MEM_BAD_REQUESTS;
}

void virtio_mem_stats_note_answer(VirtIOMEM *vmem, uint16_t type,
                                  uint16_t response)
{
    virtio_mem_stats_add(vmem, stats_counter(type, response), 1);
}

void virtio_mem_stats_note_time(VirtIOMEM *vmem, VirtIOMEMHistogram histogram,
                                int64_t time)
{
    const int bucket = time > 0 ? 64 - clz64(time) : 0;

    assert(bql_locked());
    vmem->stats->histograms[histogram][MIN(bucket,
                                           VIRTIO_MEM_LATENCY_BUCKETS - 1)]++;
}

void virtio_mem_stats_realize(VirtIOMEM *vmem)
{
    vmem->stats = g_new0(VirtIOMEMStats, 1);
}

void virtio_mem_stats_unrealize(VirtIOMEM *vmem)
{
    g_clear_pointer(&vmem->stats, g_free);
}
