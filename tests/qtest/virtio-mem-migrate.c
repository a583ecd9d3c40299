/*
 * The tiny guest on the move: two QEMUs, one driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qstring.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-guest-internal.h"

/* --- temporary files --- */

static char *migrate_dir;

static void migrate_remove_dir(void)
{
    GDir *dir = g_dir_open(migrate_dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(migrate_dir, name, NULL);

        unlink(path);
    }
    g_dir_close(dir);
    rmdir(migrate_dir);
    g_free(migrate_dir);
}

char *virtio_mem_temp_path(const char *name)
{
    if (!migrate_dir) {
        migrate_dir = g_dir_make_tmp("virtio-mem-XXXXXX", NULL);
        g_assert_nonnull(migrate_dir);
        atexit(migrate_remove_dir);
    }
    return g_build_filename(migrate_dir, name, NULL);
}

/* --- starting --- */

bool virtio_mem_have_stock(void)
{
    const char *binary = g_getenv(VM_STOCK_BINARY);

    if (!binary) {
        g_test_skip(VM_STOCK_BINARY " is not set");
    } else if (access(binary, X_OK)) {
        g_autofree char *why = g_strdup_printf(
            VM_STOCK_BINARY " names no program: %s", binary);

        g_test_skip(why);
        binary = NULL;
    }
    return binary;
}

VirtioMemOptions virtio_mem_with_stock(const VirtioMemOptions *opts)
{
    VirtioMemOptions shared = *opts;

    shared.machine = opts->machine ?: "pc-i440fx-10.0";
    shared.ring_size = 128;
    return shared;
}

VirtioMemGuest *virtio_mem_start_with(const char *env,
                                      const VirtioMemOptions *opts)
{
    g_autofree char *usual = g_strdup(g_getenv("QTEST_QEMU_BINARY"));
    VirtioMemGuest *vm;

    if (env) {
        g_setenv("QTEST_QEMU_BINARY", g_getenv(env), true);
    }
    vm = virtio_mem_guest_start(opts);
    g_setenv("QTEST_QEMU_BINARY", usual, true);
    return vm;
}

/*
 * With a device on the command line but none that the guest knows of: nothing
 * may be touched before the state has arrived.
 */
VirtioMemGuest *virtio_mem_target_with(const char *env,
                                       const VirtioMemOptions *opts)
{
    VirtioMemOptions target = opts ? *opts : (VirtioMemOptions){};
    g_autofree char *args = NULL;
    g_autofree char *device = NULL;

    target.args = NULL;
    device = virtio_mem_guest_command(&target);
    args = g_strdup_printf("%s %s -incoming defer",
                           opts && opts->args ? opts->args : "",
                           strstr(device, "-device virtio-mem-pci"));
    target.args = args;
    target.no_device = true;
    return virtio_mem_start_with(env, &target);
}

VirtioMemGuest *virtio_mem_target(const VirtioMemOptions *opts)
{
    return virtio_mem_target_with(NULL, opts);
}

/* --- moving --- */

bool virtio_mem_migrate_can(VirtioMemGuest *vm, const char *capability)
{
    QDict *response = qtest_qmp(
        vm->qts, "{ 'execute': 'migrate-set-capabilities', 'arguments': { "
        "'capabilities': [ { 'capability': %s, 'state': true } ] } }",
        capability);
    const bool ret = qdict_haskey(response, "return");

    if (!ret) {
        g_autofree char *why = g_strdup_printf(
            "no %s on this host: %s", capability,
            qdict_get_str(qdict_get_qdict(response, "error"), "desc"));

        g_test_skip(why);
    }
    qobject_unref(response);
    return ret;
}

void virtio_mem_migrate_to(VirtioMemGuest *vm, const char *uri)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
}

void virtio_mem_migrate_listen(VirtioMemGuest *to, const char *uri)
{
    migrate_incoming_qmp(to->qts, uri, NULL, "{}");
}

/* @now gets what it is at. */
static bool migrate_is_at(VirtioMemGuest *vm, const char *status, char **now)
{
    static const char *const ends[] = { "completed", "failed", "cancelled",
                                        NULL };

    g_free(*now);
    *now = migrate_query_status(vm->qts);
    return !g_strcmp0(*now, status) || g_strv_contains(ends, *now);
}

/* Poll until @status or the end is reached; returns which (caller frees). */
static char *migrate_poll(VirtioMemGuest *vm, const char *status)
{
    char *now = NULL;

    vm_wait_until(migrate_is_at(vm, status, &now));
    return now;
}

void virtio_mem_migrate_wait(VirtioMemGuest *vm, const char *status)
{
    g_autofree char *now = migrate_poll(vm, status);

    g_assert_cmpstr(now, ==, status);
}

void virtio_mem_migrate_hold(VirtioMemGuest *vm, const char *uri)
{
    /* Little memory, as some tests count it, but for a quarter of an hour. */
    virtio_mem_fill(vm, virtio_mem_ram() + 64 * MiB, 0x77, 4 * MiB);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", 4 * KiB);
    virtio_mem_migrate_to(vm, uri);
    virtio_mem_migrate_wait(vm, "active");
}

void virtio_mem_begin_busy(VirtioMemGuest *vm)
{
    virtio_mem_migrate_hold(vm, "exec:cat >/dev/null");
}

void virtio_mem_end_busy(VirtioMemGuest *vm)
{
    migrate_cancel(vm->qts);
    virtio_mem_migrate_wait(vm, "cancelled");
}

static void migrate_copy_bus(VirtioMemGuest *to, VirtioMemGuest *from)
{
    to->pci = g_memdup2(from->pci, sizeof(*from->pci));
    to->pci->pdev = g_memdup2(from->pci->pdev, sizeof(*from->pci->pdev));
    to->pci->pdev->bus = to->qs->pcibus;
    to->qs->pcibus->pio_alloc_ptr = from->qs->pcibus->pio_alloc_ptr;
    to->qs->pcibus->mmio_alloc_ptr = from->qs->pcibus->mmio_alloc_ptr;
}

void virtio_mem_take_over(VirtioMemGuest *to, VirtioMemGuest *from)
{
    QOSState *qs = to->qs;
    VirtioMemOptions opts = to->opts;

    migrate_allocator(&from->qs->alloc, &qs->alloc);
    *to = *from;
    to->opts = opts;
    to->qs = qs;
    to->qts = qs->qts;
    to->ring.qts = qs->qts;
    to->ring.alloc = &qs->alloc;
    to->size_events = 0;
    migrate_copy_bus(to, from);
    virtio_mem_watch_events(to);
    memset(&from->ring, 0, sizeof(from->ring));
}

void virtio_mem_migrate(VirtioMemGuest *from, VirtioMemGuest *to)
{
    g_autofree char *path = virtio_mem_temp_path("migrate.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_to(from, uri);
    virtio_mem_migrate_wait(from, "completed");
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
}

void virtio_mem_save(VirtioMemGuest *vm, const char *path)
{
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    virtio_mem_migrate_to(vm, uri);
    virtio_mem_migrate_wait(vm, "completed");
}

void virtio_mem_migrate_file(VirtioMemGuest *from, VirtioMemGuest *to)
{
    g_autofree char *path = virtio_mem_temp_path("migrate.stream");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    virtio_mem_save(from, path);
    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
}

static char *migrate_error_text(VirtioMemGuest *to, const char *log)
{
    QDict *info = migrate_query(to->qts);
    g_autofree char *said = NULL;
    char *text;

    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    text = g_strdup_printf("%s\n%s", qdict_get_try_str(info, "error-desc"),
                           said);
    qobject_unref(info);
    return text;
}

bool virtio_mem_load(const VirtioMemOptions *given, const char *path,
                     VirtioMemGuest **to, char **error)
{
    VirtioMemOptions opts = *given;
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *log = virtio_mem_temp_path("stderr");
    g_autofree char *args = g_strdup_printf("%s 2> %s", given->args ?: "",
                                            log);
    g_autofree char *status = NULL;

    opts.args = args;
    *to = virtio_mem_target(&opts);
    migrate_incoming_qmp((*to)->qts, uri, NULL,
                         "{ 'exit-on-error': false }");
    status = migrate_poll(*to, NULL);
    if (g_str_equal(status, "completed")) {
        *error = NULL;
        return true;
    }
    g_assert_cmpstr(status, ==, "failed");
    *error = migrate_error_text(*to, log);
    return false;
}

char *virtio_mem_load_error(const VirtioMemOptions *opts, const char *path)
{
    VirtioMemGuest *to;
    char *error;
    bool loaded = virtio_mem_load(opts, path, &to, &error);

    virtio_mem_guest_stop(to);
    g_assert_false(loaded);
    return error;
}

void virtio_mem_wait_config_irq(VirtioMemGuest *vm)
{
    vm_wait_until(virtio_mem_take_config_irq(vm));
}
