/*
 * Statistics of virtio-mem devices, for "query-stats" and "info stats".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "system/stats.h"
#include "virtio-mem-query-stats.h"
#include "virtio-mem-region.h"
#include "virtio-mem-stats.h"

static const struct {
    const char *name;
    bool is_bytes;
} query_stats_counters[VIRTIO_MEM_COUNTER__MAX] = {
    [VIRTIO_MEM_PLUG_ACKS] = { "plug-acks" },
    [VIRTIO_MEM_PLUG_NACKS] = { "plug-nacks" },
    [VIRTIO_MEM_PLUG_BUSIES] = { "plug-busies" },
    [VIRTIO_MEM_PLUG_ERRORS] = { "plug-errors" },
    [VIRTIO_MEM_UNPLUG_ACKS] = { "unplug-acks" },
    [VIRTIO_MEM_UNPLUG_BUSIES] = { "unplug-busies" },
    [VIRTIO_MEM_UNPLUG_ERRORS] = { "unplug-errors" },
    [VIRTIO_MEM_UNPLUG_ALL_ACKS] = { "unplug-all-acks" },
    [VIRTIO_MEM_UNPLUG_ALL_BUSIES] = { "unplug-all-busies" },
    [VIRTIO_MEM_STATE_ERRORS] = { "state-errors" },
    [VIRTIO_MEM_BAD_REQUESTS] = { "bad-requests" },
    [VIRTIO_MEM_PLUGGED_BYTES] = { "plugged-bytes", true },
    [VIRTIO_MEM_UNPLUGGED_BYTES] = { "unplugged-bytes", true },
    [VIRTIO_MEM_BUSY_MIGRATION] = { "busy-migration" },
    [VIRTIO_MEM_BUSY_HOST_MEMORY] = { "busy-host-memory" },
    [VIRTIO_MEM_BUSY_REFUSED] = { "busy-refused" },
    [VIRTIO_MEM_BUSY_DRAINED] = { "busy-drained" },
};

#define PLUG_LATENCY "plug-latency"
#define UNPLUG_LATENCY "unplug-latency"

/* --- values --- */

typedef struct QueryStats {
    StatsResultList **results;
    strList *names;             /* of what is wanted; NULL: all */
} QueryStats;

static Stats *query_stats_new(const char *name, QType type)
{
    Stats *stats = g_new0(Stats, 1);

    stats->name = g_strdup(name);
    stats->value = g_new0(StatsValue, 1);
    stats->value->type = type;
    return stats;
}

static Stats *query_stats_scalar(const char *name, uint64_t value)
{
    Stats *stats = query_stats_new(name, QTYPE_QNUM);

    stats->value->u.scalar = value;
    return stats;
}

static Stats *query_stats_histogram(const char *name,
                                    const uint64_t *histogram)
{
    Stats *stats = query_stats_new(name, QTYPE_QLIST);
    uint64List **tail = &stats->value->u.list;

    for (int i = 0; i < VIRTIO_MEM_LATENCY_BUCKETS; i++) {
        QAPI_LIST_APPEND(tail, histogram[i]);
    }
    return stats;
}

/* In the order of the schema, by which "info stats" goes. */
static StatsList *query_stats_values(const VirtIOMEMStats *from,
                                     strList *names)
{
    StatsList *list = NULL;
    StatsList **tail = &list;

    for (int i = 0; i < VIRTIO_MEM_COUNTER__MAX; i++) {
        const char *name = query_stats_counters[i].name;

        if (apply_str_list_filter(name, names)) {
            QAPI_LIST_APPEND(tail, query_stats_scalar(name,
                                                      from->counters[i]));
        }
    }
    if (apply_str_list_filter(PLUG_LATENCY, names)) {
        QAPI_LIST_APPEND(tail, query_stats_histogram(PLUG_LATENCY,
                                                     from->plug_latency));
    }
    if (apply_str_list_filter(UNPLUG_LATENCY, names)) {
        QAPI_LIST_APPEND(tail, query_stats_histogram(UNPLUG_LATENCY,
                                                     from->unplug_latency));
    }
    return list;
}

static int query_stats_add_device(Object *obj, void *opaque)
{
    QueryStats *query = opaque;
    VirtIOMEM *vmem = (VirtIOMEM *)object_dynamic_cast(obj, TYPE_VIRTIO_MEM);
    g_autofree char *path = NULL;

    if (vmem && vmem->stats) {
        /* Like the device's events, by the name that users gave it. */
        path = object_get_canonical_path(OBJECT(virtio_mem_proxy(vmem)));
        add_stats_entry(query->results, STATS_PROVIDER_VIRTIO_MEM, path,
                        query_stats_values(vmem->stats, query->names));
    }
    return 0;
}

static void query_stats_retrieve(StatsResultList **results, StatsTarget target,
                                 strList *names, strList *targets,
                                 Error **errp)
{
    QueryStats query = { .results = results, .names = names };

    if (target == STATS_TARGET_VIRTIO_MEM) {
        object_child_foreach_recursive(object_get_root(),
                                       query_stats_add_device, &query);
    }
}

/* --- what they mean --- */

static StatsSchemaValue *query_stats_describe(const char *name, StatsType type)
{
    StatsSchemaValue *value = g_new0(StatsSchemaValue, 1);

    value->name = g_strdup(name);
    value->type = type;
    return value;
}

static StatsSchemaValue *query_stats_describe_latency(const char *name)
{
    StatsSchemaValue *value = query_stats_describe(name,
                                                   STATS_TYPE_LOG2_HISTOGRAM);

    value->has_unit = true;
    value->unit = STATS_UNIT_SECONDS;
    value->has_base = true;
    value->base = 10;
    value->exponent = -9;
    return value;
}

static void query_stats_retrieve_schema(StatsSchemaList **results, Error **errp)
{
    StatsSchemaValueList *list = NULL;
    StatsSchemaValueList **tail = &list;

    for (int i = 0; i < VIRTIO_MEM_COUNTER__MAX; i++) {
        StatsSchemaValue *value = query_stats_describe(
            query_stats_counters[i].name, STATS_TYPE_CUMULATIVE);

        value->has_unit = query_stats_counters[i].is_bytes;
        value->unit = STATS_UNIT_BYTES;
        QAPI_LIST_APPEND(tail, value);
    }
    QAPI_LIST_APPEND(tail, query_stats_describe_latency(PLUG_LATENCY));
    QAPI_LIST_APPEND(tail, query_stats_describe_latency(UNPLUG_LATENCY));
    add_stats_schema(results, STATS_PROVIDER_VIRTIO_MEM,
                     STATS_TARGET_VIRTIO_MEM, list);
}

void virtio_mem_query_stats_register(void)
{
    add_stats_callbacks(STATS_PROVIDER_VIRTIO_MEM, query_stats_retrieve,
                        query_stats_retrieve_schema);
}
