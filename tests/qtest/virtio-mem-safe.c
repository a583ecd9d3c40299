/*
 * A guest that is resized in mode safe.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-safe.h"

char *virtio_mem_safe_set(VirtioMemGuest *vm, const char *property,
                          const char *json)
{
    qtest_qmp_send_raw(vm->qts, "{ \"execute\": \"qom-set\", \"arguments\": { "
                       "\"path\": \"/machine/peripheral/%s\", "
                       "\"property\": \"%s\", \"value\": %s } }\n", vm->id,
                       property, json);
    return virtio_mem_take_error(qtest_qmp_receive(vm->qts));
}

void virtio_mem_safe_set_mode(VirtioMemGuest *vm, const char *mode)
{
    g_autofree char *json = g_strdup_printf("\"%s\"", mode);
    QDict *info;

    g_assert_null(virtio_mem_safe_set(vm, "resize-mode", json));
    info = virtio_mem_query(vm);
    g_assert_cmpstr(qdict_get_str(info, "resize-mode"), ==, mode);
    qobject_unref(info);
}

VirtioMemSafe *virtio_mem_safe_begin(VirtioMemGuest *vm, uint64_t plugged,
                                     uint64_t boot, uint64_t used)
{
    VirtioMemSafe *safe = g_new0(VirtioMemSafe, 1);

    *safe = (VirtioMemSafe) { .vm = vm, .boot = boot, .used = used };
    if (plugged) {
        virtio_mem_set_requested(vm, plugged);
        virtio_mem_safe_move(safe, plugged);
    }
    safe->balloon = virtio_mem_balloon_start(vm);
    virtio_mem_balloon_report_nothing(safe->balloon);
    virtio_mem_safe_set_mode(vm, "safe");
    virtio_mem_safe_assert(safe, plugged, "done", NULL);
    return safe;
}

void virtio_mem_safe_end(VirtioMemSafe *safe)
{
    virtio_mem_safe_set_mode(safe->vm, "plain");
    virtio_mem_take_config_irq(safe->vm);
    virtio_mem_balloon_free(safe->balloon);
    g_free(safe);
}

void virtio_mem_safe_wish(VirtioMemSafe *safe, uint64_t size)
{
    g_autofree char *json = g_strdup_printf("%" PRIu64, size);

    g_assert_true(virtio_mem_try_requested(safe->vm, json, NULL));
    g_assert_cmphex(virtio_mem_qom_get(safe->vm, "requested-size"), ==, size);
}

void virtio_mem_safe_await_poll(VirtioMemSafe *safe)
{
    vm_wait_until(virtio_mem_balloon_is_asked(safe->balloon));
}

/* A query lets the main loop do what it has to do. */
void virtio_mem_safe_assert_no_poll(VirtioMemSafe *safe)
{
    for (int i = 0; i < 3; i++) {
        qobject_unref(virtio_mem_query(safe->vm));
        g_assert_false(virtio_mem_balloon_is_asked(safe->balloon));
    }
}

void virtio_mem_safe_report(VirtioMemSafe *safe, int64_t ms)
{
    const uint64_t total = safe->boot + vm_plugged_size(safe->vm) -
                           safe->offline;

    if (ms) {
        qtest_clock_step(safe->vm->qts, ms * SCALE_MS);
    }
    virtio_mem_safe_await_poll(safe);
    safe->said.total = total;
    safe->said.available = total - MIN(total, safe->used);
    virtio_mem_balloon_report_all(safe->balloon, &safe->said);
}

void virtio_mem_safe_move(VirtioMemSafe *safe, uint64_t size)
{
    VirtioMemGuest *vm = safe->vm;
    const uint64_t before = vm_plugged_size(vm) / vm->block_size;
    const uint64_t after = size / vm->block_size;

    virtio_mem_take_config_irq(vm);
    if (after > before) {
        vm_assert_plug(vm, before, after - before, ACK);
    } else if (after < before) {
        vm_assert_unplug(vm, after, before - after, ACK);
    }
}

void virtio_mem_safe_obey(VirtioMemSafe *safe)
{
    virtio_mem_safe_move(safe, virtio_mem_requested_size(safe->vm));
}

static bool safe_is(VirtioMemSafe *safe, const char *status,
                    const char *reason)
{
    QDict *info = virtio_mem_query(safe->vm);
    const bool ret =
        !strcmp(qdict_get_str(info, "resize-status"), status) &&
        !g_strcmp0(qdict_get_try_str(info, "resize-reason"), reason);

    qobject_unref(info);
    return ret;
}

void virtio_mem_safe_assert(VirtioMemSafe *safe, uint64_t size,
                            const char *status, const char *reason)
{
    vm_wait_until(virtio_mem_requested_size(safe->vm) == size &&
                  safe_is(safe, status, reason));
    g_assert_cmphex(virtio_mem_qom_get(safe->vm, "asked-size"), ==, size);
}
