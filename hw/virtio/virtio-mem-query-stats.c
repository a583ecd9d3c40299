/*
 * Statistics of virtio-mem devices, for "query-stats" and "info stats".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "system/stats.h"
#include "virtio-mem-guard.h"
#include "virtio-mem-protect.h"
#include "virtio-mem-query-stats.h"
#include "virtio-mem-region.h"
#include "virtio-mem-stats.h"

typedef enum QueryStatsUnit {
    QUERY_STATS_COUNT,
    QUERY_STATS_BYTES,
    QUERY_STATS_NANOSECONDS,
    QUERY_STATS_MILLISECONDS,
} QueryStatsUnit;

/* All in the order in which they are told. */
static const struct {
    const char *name;
    QueryStatsUnit unit;
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
    [VIRTIO_MEM_PLUGGED_BYTES] = { "plugged-bytes", QUERY_STATS_BYTES },
    [VIRTIO_MEM_UNPLUGGED_BYTES] = { "unplugged-bytes", QUERY_STATS_BYTES },
    [VIRTIO_MEM_BUSY_MIGRATION] = { "busy-migration" },
    [VIRTIO_MEM_BUSY_HOST_MEMORY] = { "busy-host-memory" },
    [VIRTIO_MEM_BUSY_REFUSED] = { "busy-refused" },
    [VIRTIO_MEM_BUSY_DRAINED] = { "busy-drained" },
    [VIRTIO_MEM_POPULATE_TIME] = { "populate-time", QUERY_STATS_NANOSECONDS },
    [VIRTIO_MEM_POPULATED_BYTES] = { "populated-bytes", QUERY_STATS_BYTES },
    [VIRTIO_MEM_DISCARD_TIME] = { "discard-time", QUERY_STATS_NANOSECONDS },
    [VIRTIO_MEM_DISCARDED_BYTES] = { "discarded-bytes", QUERY_STATS_BYTES },
    [VIRTIO_MEM_RESIZES] = { "resizes" },
    [VIRTIO_MEM_RESIZES_FAILED] = { "resizes-failed" },
    [VIRTIO_MEM_STEPS] = { "steps" },
    [VIRTIO_MEM_GIVEN_BACK_BYTES] = { "given-back-bytes", QUERY_STATS_BYTES },
    [VIRTIO_MEM_REMINDERS] = { "reminders" },
    [VIRTIO_MEM_WAKES] = { "wakes" },
};

static const struct {
    const char *name;
    QueryStatsUnit unit;
} query_stats_histograms[VIRTIO_MEM_HISTOGRAM__MAX] = {
    [VIRTIO_MEM_PLUG_LATENCY] = { "plug-latency", QUERY_STATS_NANOSECONDS },
    [VIRTIO_MEM_UNPLUG_LATENCY] = { "unplug-latency",
                                    QUERY_STATS_NANOSECONDS },
    [VIRTIO_MEM_RESIZE_TIME] = { "resize-time", QUERY_STATS_MILLISECONDS },
};

/* --- those of the guard; but for the first, of all devices together --- */

static uint64_t query_stats_lent(const VirtIOMEM *vmem)
{
    VirtIOMEMGuardLent lent;

    virtio_mem_guard_query_lent(&lent);
    return lent.nb;
}

static uint64_t query_stats_peak_lent(const VirtIOMEM *vmem)
{
    VirtIOMEMGuardLent lent;

    virtio_mem_guard_query_lent(&lent);
    return lent.peak;
}

static uint64_t query_stats_mappings(const VirtIOMEM *vmem)
{
    VirtIOMEMGuardMappings mappings;

    virtio_mem_guard_query_mappings(&mappings);
    return mappings.nb;
}

static const struct {
    const char *name;
    StatsType type;
    uint64_t (*read)(const VirtIOMEM *vmem);
} query_stats_guard[] = {
    { "unplugged-accesses", STATS_TYPE_CUMULATIVE,
      virtio_mem_protect_nb_accesses },
    { "lent-pages", STATS_TYPE_INSTANT, query_stats_lent },
    { "lent-pages-peak", STATS_TYPE_PEAK, query_stats_peak_lent },
    { "watched-mappings", STATS_TYPE_INSTANT, query_stats_mappings },
};

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

static StatsList *query_stats_values(const VirtIOMEM *vmem, strList *names)
{
    const VirtIOMEMStats *from = vmem->stats;
    StatsList *list = NULL;
    StatsList **tail = &list;

    for (int i = 0; i < VIRTIO_MEM_COUNTER__MAX; i++) {
        const char *name = query_stats_counters[i].name;

        if (apply_str_list_filter(name, names)) {
            QAPI_LIST_APPEND(tail, query_stats_scalar(name,
                                                      from->counters[i]));
        }
    }
    for (int i = 0; i < VIRTIO_MEM_HISTOGRAM__MAX; i++) {
        const char *name = query_stats_histograms[i].name;

        if (apply_str_list_filter(name, names)) {
            QAPI_LIST_APPEND(tail, query_stats_histogram(name,
                                                         from->histograms[i]));
        }
    }
    for (int i = 0; i < ARRAY_SIZE(query_stats_guard); i++) {
        const char *name = query_stats_guard[i].name;

        if (apply_str_list_filter(name, names)) {
            QAPI_LIST_APPEND(tail, query_stats_scalar(
                name, query_stats_guard[i].read(vmem)));
        }
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
                        query_stats_values(vmem, query->names));
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

static StatsSchemaValue *query_stats_describe(const char *name, StatsType type,
                                              QueryStatsUnit unit)
{
    StatsSchemaValue *value = g_new0(StatsSchemaValue, 1);

    value->name = g_strdup(name);
    value->type = type;
    value->has_unit = unit != QUERY_STATS_COUNT;
    value->unit = STATS_UNIT_SECONDS;
    if (unit == QUERY_STATS_BYTES) {
        value->unit = STATS_UNIT_BYTES;
    } else if (value->has_unit) {
        value->has_base = true;
        value->base = 10;
        value->exponent = unit == QUERY_STATS_NANOSECONDS ? -9 : -3;
    }
    return value;
}

static void query_stats_retrieve_schema(StatsSchemaList **results, Error **errp)
{
    StatsSchemaValueList *list = NULL;
    StatsSchemaValueList **tail = &list;

    for (int i = 0; i < VIRTIO_MEM_COUNTER__MAX; i++) {
        QAPI_LIST_APPEND(tail, query_stats_describe(
            query_stats_counters[i].name, STATS_TYPE_CUMULATIVE,
            query_stats_counters[i].unit));
    }
    for (int i = 0; i < VIRTIO_MEM_HISTOGRAM__MAX; i++) {
        QAPI_LIST_APPEND(tail, query_stats_describe(
            query_stats_histograms[i].name, STATS_TYPE_LOG2_HISTOGRAM,
            query_stats_histograms[i].unit));
    }
    for (int i = 0; i < ARRAY_SIZE(query_stats_guard); i++) {
        QAPI_LIST_APPEND(tail, query_stats_describe(
            query_stats_guard[i].name, query_stats_guard[i].type,
            QUERY_STATS_COUNT));
    }
    add_stats_schema(results, STATS_PROVIDER_VIRTIO_MEM,
                     STATS_TARGET_VIRTIO_MEM, list);
}

void virtio_mem_query_stats_register(void)
{
    add_stats_callbacks(STATS_PROVIDER_VIRTIO_MEM, query_stats_retrieve,
                        query_stats_retrieve_schema);
}
