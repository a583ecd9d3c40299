/*
 * Jobs that resize the tiny guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "virtio-mem-jobs.h"

char *virtio_mem_job_try(VirtioMemGuest *vm, const char *id, uint64_t size,
                         const char *options)
{
    qtest_qmp_send_raw(vm->qts, "{ \"execute\": \"memory-device-resize\", "
                       "\"arguments\": { \"job-id\": \"%s\", \"id\": \"%s\","
                       " \"size\": %" PRIu64 " %s } }\n", vm->id, id, size,
                       options);
    return virtio_mem_take_error(qtest_qmp_receive(vm->qts));
}

void virtio_mem_job_start(VirtioMemGuest *vm, uint64_t size,
                          const char *options)
{
    virtio_mem_take_config_irq(vm);
    g_assert_null(virtio_mem_job_try(vm, vm->id, size, options));
}

void virtio_mem_job_do(VirtioMemGuest *vm, const char *command)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': %s, 'arguments': {"
                             " 'id': %s } }", command, vm->id);
}

void virtio_mem_job_pause(VirtioMemGuest *vm)
{
    virtio_mem_job_do(vm, "job-pause");
    vm_wait_until(virtio_mem_job_is(vm, "paused"));
}

QDict *virtio_mem_job_info(VirtioMemGuest *vm)
{
    QDict *response = qtest_qmp(vm->qts, "{ 'execute': 'query-jobs' }");
    const QListEntry *entry;
    QDict *found = NULL;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        QDict *job = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(job, "id"), vm->id)) {
            found = qobject_ref(job);
        }
    }
    qobject_unref(response);
    return found;
}

bool virtio_mem_job_is(VirtioMemGuest *vm, const char *status)
{
    QDict *info = virtio_mem_job_info(vm);
    const bool ret = g_str_equal(qdict_get_str(info, "status"), status);

    qobject_unref(info);
    return ret;
}

void virtio_mem_job_await_end(VirtioMemGuest *vm, const char *error)
{
    QDict *info;

    vm_wait_until(virtio_mem_job_is(vm, "concluded"));
    info = virtio_mem_job_info(vm);
    if (*error) {
        g_assert_nonnull(strstr(qdict_get_str(info, "error"), error));
    } else {
        g_assert_false(qdict_haskey(info, "error"));
    }
    qobject_unref(info);
    virtio_mem_job_do(vm, "job-dismiss");
    g_assert_null(virtio_mem_job_info(vm));
}

void virtio_mem_job_assert_progress(VirtioMemGuest *vm, uint64_t now,
                                    uint64_t total)
{
    QDict *info = virtio_mem_job_info(vm);

    g_assert_cmpstr(qdict_get_str(info, "type"), ==, "memory-device-resize");
    g_assert_cmphex(qdict_get_int(info, "current-progress"), ==, now);
    g_assert_cmphex(qdict_get_int(info, "total-progress"), ==, total);
    qobject_unref(info);
}

void virtio_mem_job_assert_last(VirtioMemGuest *vm, uint64_t requested,
                                const char *reason)
{
    QDict *info = virtio_mem_query(vm);
    QDict *last = qdict_get_qdict(info, "last-resize");

    g_assert_false(qdict_haskey(info, "resize-job"));
    g_assert_cmphex(qdict_get_int(last, "requested-size"), ==, requested);
    g_assert_cmphex(qdict_get_int(last, "size"), ==,
                    vm_plugged_size(vm));
    g_assert_cmpstr(qdict_get_try_str(last, "reason") ?: "", ==, reason);
    qobject_unref(info);
}

void virtio_mem_job_assert_settled(VirtioMemGuest *vm, uint64_t size)
{
    g_assert_cmphex(virtio_mem_qom_get(vm, "size"), ==, size);
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, size);
    g_assert_cmphex(virtio_mem_qom_get(vm, "asked-size"), ==, size);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, size);
}
