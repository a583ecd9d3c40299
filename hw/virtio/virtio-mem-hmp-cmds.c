/*
 * HMP commands about virtio-mem devices: wrappers of QMP.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-job.h"
#include "qapi/qapi-commands-machine.h"
#include "qemu/id.h"
#include "qemu/job.h"
#include "qobject/qdict.h"
#include "hw/mem/memory-device.h"
#include "hw/qdev-core.h"

/* The user sees in "info virtio-mem" what it came to: keep no result. */
static void hmp_virtio_mem_dismiss(const char *id)
{
    Job *job;

    JOB_LOCK_GUARD();
    job = job_get_locked(id);
    if (job->status == JOB_STATUS_CONCLUDED) {
        job_dismiss_locked(&job, &error_abort);
    } else {
        job->auto_dismiss = true;
    }
}

/* The ID of a device need not be one that a job may have. */
static char *hmp_virtio_mem_job_id(Object *obj)
{
    char *id = DEVICE(obj)->id;

    return id && id_wellformed(id) ? id : (char *)"virtio-mem";
}

/* The job is named like the device, or like its kind. */
static void hmp_virtio_mem_resize_safely(Object *obj, const char *id,
                                         uint64_t size, Error **errp)
{
    MemoryDeviceResize args = {
        .job_id = hmp_virtio_mem_job_id(obj),
        .id = (char *)id,
        .size = size,
        .has_mode = true,
        .mode = MEMORY_DEVICE_RESIZE_MODE_SAFE,
    };
    ERRP_GUARD();

    qmp_memory_device_resize(&args, errp);
    if (!*errp) {
        hmp_virtio_mem_dismiss(args.job_id);
    }
}

/* By its ID or QOM path. */
static Object *hmp_virtio_mem_find(const char *id, Error **errp)
{
    Object *obj = object_resolve_path_at(machine_get_container("peripheral"),
                                         id);

    if (!obj) {
        error_setg(errp, "Device '%s' not found", id);
        return NULL;
    }
    if (!object_dynamic_cast(obj, TYPE_MEMORY_DEVICE) ||
        !object_property_find(obj, "requested-size")) {
        error_setg(errp, "'%s' (%s) is no virtio-mem device", id,
                   object_get_typename(obj));
        return NULL;
    }
    return obj;
}

/* The device whose job goes on is not busy: another size supersedes it. */
void hmp_virtio_mem(Monitor *mon, const QDict *qdict)
{
    const char *id = qdict_get_str(qdict, "id");
    const int64_t size = qdict_get_int(qdict, "size");
    Error *err = NULL;
    Object *obj = hmp_virtio_mem_find(id, &err);

    if (obj && qdict_get_try_bool(qdict, "safe", false)) {
        hmp_virtio_mem_resize_safely(obj, id, size, &err);
    } else if (obj) {
        object_property_set_uint(obj, "requested-size", size, &err);
    }
    hmp_handle_error(mon, err);
}

static void hmp_print_job(Monitor *mon, const char *id)
{
    g_autoptr(JobInfoList) jobs = qmp_query_jobs(NULL);

    for (JobInfoList *each = jobs; each; each = each->next) {
        if (!strcmp(each->value->id, id)) {
            monitor_printf(mon, "  job: \"%s\", %" PRId64 " of %" PRId64
                           " MiB\n", id, each->value->current_progress >> 20,
                           each->value->total_progress >> 20);
        }
    }
}

static void hmp_print_last_resize(Monitor *mon, const VirtioMEMLastResize *last)
{
    monitor_printf(mon, "  last resize: to %" PRIu64 ", %s, %s at %" PRIu64
                   " after %" PRIu64 " s", last->requested_size,
                   MemoryDeviceResizeMode_str(last->mode),
                   last->has_reason ? "stopped" : "done", last->size,
                   last->seconds);
    if (last->has_reason) {
        monitor_printf(mon, ": %s", VirtioMEMResizeReason_str(last->reason));
    }
    if (last->has_available) {
        monitor_printf(mon, " (the guest has %" PRIu64 " bytes available and"
                       " its reserve is %" PRIu64 ")", last->available,
                       last->reserve);
    }
    monitor_printf(mon, "\n");
}

static void hmp_print_virtio_mem(Monitor *mon, const VirtioMEMDeviceInfo *info)
{
    monitor_printf(mon, "Memory device [virtio-mem]: \"%s\"\n",
                   info->id ?: "");
    monitor_printf(mon, "  status: %s\n", VirtioMEMDriver_str(info->driver));
    monitor_printf(mon, "  request status: %s\n", info->has_resize_reason
                   ? VirtioMEMResizeReason_str(info->resize_reason)
                   : VirtioMEMResizeStatus_str(info->resize_status));
    monitor_printf(mon, "  resize-mode: %s\n",
                   MemoryDeviceResizeMode_str(info->resize_mode));
    monitor_printf(mon, "  requested-size: %" PRIu64 "\n",
                   info->requested_size);
    monitor_printf(mon, "  asked-size: %" PRIu64 "\n", info->asked_size);
    monitor_printf(mon, "  size: %" PRIu64 "\n", info->size);
    monitor_printf(mon, "  usable-size: %" PRIu64 "\n", info->usable_size);
    monitor_printf(mon, "  max-size: %" PRIu64 "\n", info->max_size);
    monitor_printf(mon, "  block-size: %" PRIu64 "\n", info->block_size);
    monitor_printf(mon, "  protected: %s\n",
                   info->q_protected ? "true" : "false");
    if (info->resize_job) {
        hmp_print_job(mon, info->resize_job);
    }
    if (info->last_resize) {
        hmp_print_last_resize(mon, info->last_resize);
    }
}

static void hmp_print_virtio_mems(Monitor *mon, Error **errp)
{
    g_autoptr(MemoryDeviceInfoList) all = qmp_query_memory_devices(errp);

    for (MemoryDeviceInfoList *each = all; each; each = each->next) {
        if (each->value->type == MEMORY_DEVICE_INFO_KIND_VIRTIO_MEM) {
            hmp_print_virtio_mem(mon, each->value->u.virtio_mem.data);
        }
    }
}

void hmp_info_virtio_mem(Monitor *mon, const QDict *qdict)
{
    const char *id = qdict_get_try_str(qdict, "id");
    g_autoptr(MemoryDeviceInfo) info = NULL;
    Error *err = NULL;
    Object *obj = id ? hmp_virtio_mem_find(id, &err) : NULL;

    if (obj) {
        info = g_new0(MemoryDeviceInfo, 1);
        MEMORY_DEVICE_GET_CLASS(obj)->fill_device_info(MEMORY_DEVICE(obj),
                                                       info);
        hmp_print_virtio_mem(mon, info->u.virtio_mem.data);
    } else if (!err) {
        hmp_print_virtio_mems(mon, &err);
    }
    hmp_handle_error(mon, err);
}
