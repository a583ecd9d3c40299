/*
 * Jobs that resize the tiny guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
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

bool virtio_mem_job_is(VirtioMemGuest *vm, const char *status)
{
    QDict *info = virtio_mem_find_job(vm, vm->id);
    const bool ret = g_str_equal(qdict_get_str(info, "status"), status);

    qobject_unref(info);
    return ret;
}

void virtio_mem_job_await_end(VirtioMemGuest *vm, const char *error)
{
    QDict *info;

    vm_wait_until(virtio_mem_job_is(vm, "concluded"));
    info = virtio_mem_find_job(vm, vm->id);
    if (*error) {
        g_assert_nonnull(strstr(qdict_get_str(info, "error"), error));
    } else {
        g_assert_false(qdict_haskey(info, "error"));
    }
    qobject_unref(info);
    virtio_mem_job_do(vm, "job-dismiss");
    g_assert_null(virtio_mem_find_job(vm, vm->id));
}

void virtio_mem_job_assert_progress(VirtioMemGuest *vm, uint64_t now,
                                    uint64_t total)
{
    QDict *info = virtio_mem_find_job(vm, vm->id);

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

VirtioMemSafe *virtio_mem_job_begin(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = g_new0(VirtioMemSafe, 1);

    *safe = (VirtioMemSafe) { .vm = vm, .boot = GiB };
    virtio_mem_set_requested(vm, 2 * GiB);
    virtio_mem_safe_move(safe, 2 * GiB);
    return safe;
}

VirtioMemSafe *virtio_mem_job_begin_safe(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    safe->used = 2 * GiB;
    safe->balloon = virtio_mem_balloon_start(vm);
    virtio_mem_balloon_report_nothing(safe->balloon);
    return safe;
}

void virtio_mem_job_end(VirtioMemSafe *safe)
{
    g_clear_pointer(&safe->balloon, virtio_mem_balloon_free);
    virtio_mem_take_config_irq(safe->vm);
    g_free(safe);
}
