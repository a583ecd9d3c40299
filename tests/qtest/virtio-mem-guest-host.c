/*
 * What the tests see besides requests: config fields, memory, the monitor,
 * and the checks that hold between any two steps.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "virtio-mem-guest-internal.h"

/* The monitor sends one size event per second and device. */
#define EVENT_PERIOD_NS     NANOSECONDS_PER_SECOND
/* The largest range that one request can name. */
#define MAX_NB_BLOCKS       0xffff

#define CONFIG(member) offsetof(struct virtio_mem_config, member)

/* --- config fields --- */

uint64_t virtio_mem_usable_size(VirtioMemGuest *vm)
{
    return virtio_mem_config_read(vm, CONFIG(usable_region_size), 8);
}

uint64_t vm_plugged_size(VirtioMemGuest *vm)
{
    return virtio_mem_config_read(vm, CONFIG(plugged_size), 8);
}

uint64_t virtio_mem_requested_size(VirtioMemGuest *vm)
{
    return virtio_mem_config_read(vm, CONFIG(requested_size), 8);
}

uint64_t virtio_mem_usable_blocks(VirtioMemGuest *vm)
{
    return virtio_mem_usable_size(vm) / vm->block_size;
}

uint64_t virtio_mem_requested_blocks(VirtioMemGuest *vm)
{
    return virtio_mem_requested_size(vm) / vm->block_size;
}

/* --- guest memory --- */

void virtio_mem_fill(VirtioMemGuest *vm, uint64_t gpa, uint8_t byte,
                     uint64_t size)
{
    qtest_memset(vm->qts, gpa, byte, size);
}

bool virtio_mem_is_filled(VirtioMemGuest *vm, uint64_t gpa, uint8_t byte,
                          uint64_t size)
{
    g_autofree uint8_t *bytes = g_malloc(size);

    qtest_bufread(vm->qts, gpa, bytes, size);
    for (uint64_t i = 0; i < size; i++) {
        if (bytes[i] != byte) {
            return false;
        }
    }
    return true;
}

/* First, middle and last quadword of a block. */
static uint64_t pattern_gpa(VirtioMemGuest *vm, uint64_t block, int place)
{
    uint64_t gpa = virtio_mem_block_gpa(vm, block);

    return gpa + place * (vm->block_size / 2) - (place == 2 ? 8 : 0);
}

static uint64_t pattern_value(uint64_t gpa, uint8_t seed)
{
    return (gpa + 1) * 0x9e3779b97f4a7c15ULL + seed;
}

void virtio_mem_write_pattern(VirtioMemGuest *vm, uint64_t first, uint64_t nb,
                              uint8_t seed)
{
    for (uint64_t i = 0; i < 3 * nb; i++) {
        uint64_t gpa = pattern_gpa(vm, first + i / 3, i % 3);

        qtest_writeq(vm->qts, gpa, pattern_value(gpa, seed));
    }
}

bool virtio_mem_check_pattern(VirtioMemGuest *vm, uint64_t first, uint64_t nb,
                              uint8_t seed)
{
    for (uint64_t i = 0; i < 3 * nb; i++) {
        uint64_t gpa = pattern_gpa(vm, first + i / 3, i % 3);

        if (qtest_readq(vm->qts, gpa) != pattern_value(gpa, seed)) {
            return false;
        }
    }
    return true;
}

/* --- the monitor --- */

static char *host_qom_path(VirtioMemGuest *vm)
{
    return g_strdup_printf("/machine/peripheral/%s", vm->id);
}

char *virtio_mem_take_error(QDict *response)
{
    char *error = NULL;

    if (qdict_haskey(response, "error")) {
        error = g_strdup(qdict_get_str(qdict_get_qdict(response, "error"),
                                       "desc"));
    }
    qobject_unref(response);
    return error;
}

QDict *virtio_mem_find_job(VirtioMemGuest *vm, const char *id)
{
    QDict *response = qtest_qmp(vm->qts, "{ 'execute': 'query-jobs' }");
    const QListEntry *entry;
    QDict *found = NULL;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        QDict *job = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(job, "id"), id)) {
            found = qobject_ref(job);
        }
    }
    qobject_unref(response);
    return found;
}

bool virtio_mem_try_requested(VirtioMemGuest *vm, const char *json,
                              char **error)
{
    g_autofree char *path = host_qom_path(vm);
    g_autofree char *text = NULL;

    qtest_qmp_send_raw(vm->qts, "{ \"execute\": \"qom-set\", \"arguments\": { "
                       "\"path\": \"%s\", \"property\": \"requested-size\", "
                       "\"value\": %s } }\n", path, json);
    text = virtio_mem_take_error(qtest_qmp_receive(vm->qts));
    if (error) {
        *error = g_strdup(text);
    }
    return !text;
}

void virtio_mem_set_requested(VirtioMemGuest *vm, uint64_t size)
{
    g_autofree char *json = g_strdup_printf("%" PRIu64, size);
    bool changes = virtio_mem_requested_size(vm) != size;
    bool ok = virtio_mem_try_requested(vm, json, NULL);
    bool irq = virtio_mem_take_config_irq(vm);

    g_assert_true(ok);
    if (changes) {
        g_assert_cmpint(irq, ==, vm->running);
    }
}

uint64_t virtio_mem_qom_get(VirtioMemGuest *vm, const char *property)
{
    g_autofree char *path = host_qom_path(vm);
    QDict *response = qtest_qmp(vm->qts, "{ 'execute': 'qom-get', "
                                "'arguments': { 'path': %s, "
                                "'property': %s } }", path, property);
    uint64_t value;

    g_assert_true(qdict_haskey(response, "return"));
    value = qdict_get_int(response, "return");
    qobject_unref(response);
    return value;
}

QDict *virtio_mem_query(VirtioMemGuest *vm)
{
    QDict *response = qtest_qmp(vm->qts,
                                "{ 'execute': 'query-memory-devices' }");
    QDict *found = NULL;
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        QDict *device = qobject_to(QDict, qlist_entry_obj(entry));
        QDict *data = qdict_get_qdict(device, "data");

        if (!strcmp(qdict_get_str(device, "type"), "virtio-mem") &&
            !g_strcmp0(qdict_get_try_str(data, "id"), vm->id)) {
            found = qobject_ref(data);
        }
    }
    qobject_unref(response);
    g_assert_nonnull(found);
    return found;
}

void virtio_mem_assert_resize(VirtioMemGuest *vm, const char *status,
                              const char *reason)
{
    QDict *info = virtio_mem_query(vm);

    g_assert_cmpstr(qdict_get_str(info, "resize-status"), ==, status);
    g_assert_cmpstr(qdict_get_try_str(info, "resize-reason"), ==, reason);
    qobject_unref(info);
}

bool virtio_mem_is_protected(VirtioMemGuest *vm)
{
    QDict *info = virtio_mem_query(vm);
    const bool ret = qdict_get_bool(info, "protected");

    qobject_unref(info);
    return ret;
}

static bool host_event(QTestState *qts, const char *name, QDict *event,
                       void *opaque)
{
    VirtioMemGuest *vm = opaque;
    QDict *data;

    if (strcmp(name, "MEMORY_DEVICE_SIZE_CHANGE")) {
        return false;
    }
    data = qdict_get_qdict(event, "data");
    if (g_strcmp0(qdict_get_try_str(data, "id"), vm->id)) {
        return false;
    }
    vm->size_events++;
    vm->event_size = qdict_get_int(data, "size");
    return true;
}

void virtio_mem_let_main_loop_turn(VirtioMemGuest *vm)
{
    for (int i = 0; i < 3; i++) {
        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    }
}

void virtio_mem_watch_events(VirtioMemGuest *vm)
{
    qtest_qmp_set_event_callback(vm->qts, host_event, vm);
}

unsigned virtio_mem_take_size_events(VirtioMemGuest *vm, uint64_t *size)
{
    unsigned events;

    qtest_clock_step(vm->qts, EVENT_PERIOD_NS + 1);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    events = vm->size_events;
    vm->size_events = 0;
    if (size) {
        *size = vm->event_size;
    }
    return events;
}

char *virtio_mem_device_add_error(QTestState *qts, const char *fmt, ...)
{
    QDict *args;
    char *error;
    va_list ap;

    va_start(ap, fmt);
    args = qdict_from_vjsonf_nofail(fmt, ap);
    va_end(ap);
    error = virtio_mem_take_error(
        qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': %p }", args));
    g_assert_nonnull(error);
    return error;
}

/* --- checks --- */

/* Ask for halves until the answer is not mixed, as the Windows driver does. */
static void host_read_states(VirtioMemGuest *vm, unsigned long *bitmap,
                             uint64_t first, uint64_t nb)
{
    uint64_t half = MIN(nb / 2, MAX_NB_BLOCKS);
    VmAnswer answer = { .state = VIRTIO_MEM_STATE_MIXED };

    if (nb <= MAX_NB_BLOCKS) {
        answer = vm_state(vm, first, nb);
        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    }
    if (answer.state == VIRTIO_MEM_STATE_PLUGGED) {
        bitmap_set(bitmap, first, nb);
    } else if (answer.state == VIRTIO_MEM_STATE_MIXED) {
        g_assert_cmpuint(nb, >, 1);
        host_read_states(vm, bitmap, first, half);
        host_read_states(vm, bitmap, first + half, nb - half);
    } else {
        g_assert_cmpuint(answer.state, ==, VIRTIO_MEM_STATE_UNPLUGGED);
    }
}

unsigned long *virtio_mem_read_bitmap(VirtioMemGuest *vm, uint64_t *nb)
{
    uint64_t nb_usable = virtio_mem_usable_blocks(vm);
    unsigned long *bitmap = bitmap_new(MAX(nb_usable, 1));

    if (nb_usable) {
        host_read_states(vm, bitmap, 0, nb_usable);
    }
    if (nb) {
        *nb = nb_usable;
    }
    return bitmap;
}

static void host_check_sizes(VirtioMemGuest *vm, uint64_t usable,
                             uint64_t plugged, uint64_t requested)
{
    g_assert_cmphex(plugged, <=, usable);
    g_assert_cmphex(requested, <=, usable);
    g_assert_cmphex(usable, <=, vm->region_size);
    g_assert_cmphex((vm->addr | vm->region_size | usable | plugged |
                     requested) & (vm->block_size - 1), ==, 0);
    g_assert_cmphex(vm->block_size & (vm->block_size - 1), ==, 0);
}

static void host_check_identity(VirtioMemGuest *vm)
{
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(block_size), 8), ==,
                    vm->block_size);
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(addr), 8), ==,
                    vm->addr);
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(region_size), 8), ==,
                    vm->region_size);
    g_assert_cmphex(virtio_mem_config_read(vm, CONFIG(node_id), 2), ==,
                    vm->node_id);
}

/* What management sees is what the guest sees. */
static void host_check_query(VirtioMemGuest *vm, uint64_t usable,
                             uint64_t plugged, uint64_t requested)
{
    QDict *info = virtio_mem_query(vm);

    g_assert_cmphex(qdict_get_int(info, "memaddr"), ==, vm->addr);
    g_assert_cmphex(qdict_get_int(info, "max-size"), ==, vm->region_size);
    g_assert_cmphex(qdict_get_int(info, "block-size"), ==, vm->block_size);
    /* Optional: QEMU's own, at the other end of a migration, has none. */
    if (qdict_haskey(info, "usable-size")) {
        g_assert_cmphex(qdict_get_int(info, "usable-size"), ==, usable);
    }
    g_assert_cmphex(qdict_get_int(info, "size"), ==, plugged);
    g_assert_cmphex(qdict_get_int(info, "requested-size"), ==, requested);
    qobject_unref(info);
}

void virtio_mem_check_invariants(VirtioMemGuest *vm)
{
    uint64_t usable = virtio_mem_usable_size(vm);
    uint64_t plugged = vm_plugged_size(vm);
    uint64_t requested = virtio_mem_requested_size(vm);
    g_autofree unsigned long *bitmap = NULL;
    uint64_t nb;

    g_assert_false(virtio_mem_is_broken(vm));
    g_assert_true(!virtio_mem_take_config_irq(vm) || vm->opts.may_notify);
    host_check_identity(vm);
    host_check_sizes(vm, usable, plugged, requested);
    bitmap = virtio_mem_read_bitmap(vm, &nb);
    g_assert_cmphex(bitmap_count_one(bitmap, nb) * vm->block_size, ==,
                    plugged);
    g_assert_cmphex(virtio_mem_qom_get(vm, "size"), ==, plugged);
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, requested);
    host_check_query(vm, usable, plugged, requested);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
}

bool virtio_mem_is_broken(VirtioMemGuest *vm)
{
    return virtio_mem_status(vm) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void host_check_healed(VirtioMemGuest *vm)
{
    g_autofree unsigned long *bitmap = NULL;
    uint64_t nb, free_block;

    virtio_mem_restart_driver(vm);
    virtio_mem_set_requested(vm, vm_plugged_size(vm) + vm->block_size);
    bitmap = virtio_mem_read_bitmap(vm, &nb);
    free_block = find_first_zero_bit(bitmap, nb);
    vm_assert_plug(vm, free_block, 1, ACK);
    vm_assert_unplug(vm, free_block, 1, ACK);
}

void virtio_mem_check_broken(VirtioMemGuest *vm, uint64_t plugged)
{
    VirtioMemUsed used;

    g_assert_true(virtio_mem_is_broken(vm));
    g_assert_true(virtio_mem_take_config_irq(vm));
    virtio_mem_kick_force(vm);
    g_assert_false(virtio_mem_ring_poll(&vm->ring, &used));
    g_assert_cmphex(vm_plugged_size(vm), ==, plugged);
    host_check_healed(vm);
    g_assert_cmphex(vm_plugged_size(vm), ==, plugged);
}
