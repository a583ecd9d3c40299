/*
 * Snapshots of the tiny guest, in a disk of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-snapshots.h"

/* Whether it is over, and if so, what went wrong. */
static bool snapshot_job_is_over(VirtioMemGuest *vm, const char *id,
                                 char **error)
{
    QDict *job = virtio_mem_find_job(vm, id);
    const bool ret = g_str_equal(qdict_get_str(job, "status"), "concluded");

    if (ret) {
        *error = g_strdup(qdict_get_try_str(job, "error"));
    }
    qobject_unref(job);
    return ret;
}

/* Returns NULL, or what went wrong (caller frees). */
static char *snapshot_finish_job(VirtioMemGuest *vm, const char *id)
{
    char *error = NULL;

    vm_wait_until(snapshot_job_is_over(vm, id, &error));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'job-dismiss', "
                             "'arguments': { 'id': %s } }", id);
    return error;
}

void virtio_mem_snapshot_add_disk(VirtioMemGuest *vm)
{
    g_autofree char *path = virtio_mem_temp_path(VM_SNAPSHOT_DISK);
    g_autofree char *error = NULL;

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'blockdev-add', "
                             "'arguments': { 'driver': 'file', "
                             "'node-name': 'file0', 'filename': %s } }", path);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'blockdev-create', "
                             "'arguments': { 'job-id': 'create', 'options': {"
                             "'driver': 'qcow2', 'file': 'file0', "
                             "'size': 1048576 } } }");
    error = snapshot_finish_job(vm, "create");
    g_assert_cmpstr(error, ==, NULL);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'blockdev-add', "
                             "'arguments': { 'driver': 'qcow2', "
                             "'node-name': 'disk0', 'file': 'file0' } }");
}

char *virtio_mem_snapshot_try(VirtioMemGuest *vm, const char *command)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': %s, 'arguments': { "
                             "'job-id': 'snapshot', 'tag': 'first', "
                             "'vmstate': 'disk0', 'devices': [ 'disk0' ] } }",
                             command);
    return snapshot_finish_job(vm, "snapshot");
}

void virtio_mem_snapshot_do(VirtioMemGuest *vm, const char *command)
{
    g_autofree char *error = virtio_mem_snapshot_try(vm, command);

    g_assert_cmpstr(error, ==, NULL);
}
