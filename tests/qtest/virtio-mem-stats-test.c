/*
 * virtio-mem: what query-stats and "info stats" say
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-safe.h"

/* --- what is said --- */

/* All results of the target; with @names (JSON), only of these. */
static QList *query(VirtioMemGuest *vm, const char *names)
{
    g_autofree char *command = g_strdup_printf(
        "{ 'execute': 'query-stats', 'arguments': { 'target': 'virtio-mem',"
        " 'providers': [ { 'provider': 'virtio-mem'%s%s } ] } }",
        names ? ", 'names': " : "", names ?: "");
    QDict *answer = qtest_qmp(vm->qts, command, NULL);
    QList *list;

    g_assert(qdict_haskey(answer, "return"));
    list = qobject_ref(qdict_get_qlist(answer, "return"));
    qobject_unref(answer);
    return list;
}

/* The statistics of the only device. */
static QList *query_device(VirtioMemGuest *vm, const char *names)
{
    QList *all = query(vm, names);
    QDict *result = qobject_to(QDict, qlist_peek(all));
    QList *stats;

    g_assert_cmpuint(qlist_size(all), ==, 1);
    g_assert_cmpstr(qdict_get_str(result, "provider"), ==, "virtio-mem");
    g_assert_cmpstr(qdict_get_str(result, "qom-path"), ==,
                    "/machine/peripheral/vm0");
    stats = qobject_ref(qdict_get_qlist(result, "stats"));
    qobject_unref(all);
    return stats;
}

/* A value; the total of all buckets if it is a histogram. */
static uint64_t value_of(QDict *stat)
{
    QList *buckets = qobject_to(QList, qdict_get(stat, "value"));
    const QListEntry *entry;
    uint64_t total = 0;

    if (!buckets) {
        return qnum_get_uint(qobject_to(QNum, qdict_get(stat, "value")));
    }
    QLIST_FOREACH_ENTRY(buckets, entry) {
        total += qnum_get_uint(qobject_to(QNum, qlist_entry_obj(entry)));
    }
    return total;
}

static uint64_t get(VirtioMemGuest *vm, const char *name)
{
    g_autofree char *names = g_strdup_printf("[ '%s' ]", name);
    QList *stats = query_device(vm, names);
    QDict *stat = qobject_to(QDict, qlist_peek(stats));
    uint64_t value;

    g_assert_cmpuint(qlist_size(stats), ==, 1);
    g_assert_cmpstr(qdict_get_str(stat, "name"), ==, name);
    value = value_of(stat);
    qobject_unref(stats);
    return value;
}

/* After @request, @name is larger by @amount: guests are used again. */
#define assert_adds(vm, name, amount, request) do { \
        const uint64_t before_ = get(vm, name); \
        request; \
        g_assert_cmpuint(get(vm, name) - before_, ==, amount); \
    } while (0)

/* --- requests --- */

static void test_plug(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    assert_adds(vm, "plug-acks", 1, vm_assert_plug(vm, 0, 2, ACK));
    assert_adds(vm, "plugged-bytes", VM_BLOCK, vm_assert_plug(vm, 2, 1, ACK));
    assert_adds(vm, "plug-nacks", 1, vm_assert_plug(vm, 3, 2, NACK));
    assert_adds(vm, "plug-errors", 1, vm_assert_plug(vm, 0, 1, ERROR));
    assert_adds(vm, "plugged-bytes", 0, vm_assert_plug(vm, 3, 0, ERROR));
}

static void test_unplug(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    vm_assert_plug(vm, 0, 4, ACK);
    assert_adds(vm, "unplug-acks", 1, vm_assert_unplug(vm, 0, 1, ACK));
    assert_adds(vm, "unplugged-bytes", VM_BLOCK,
                vm_assert_unplug(vm, 1, 1, ACK));
    assert_adds(vm, "unplug-errors", 1, vm_assert_unplug(vm, 0, 1, ERROR));
    assert_adds(vm, "unplug-all-acks", 0, vm_assert_unplug(vm, 2, 1, ACK));
    assert_adds(vm, "unplugged-bytes", VM_BLOCK, vm_assert_unplug_all(vm, ACK));
    assert_adds(vm, "unplug-all-acks", 1, vm_assert_unplug_all(vm, ACK));
}

static void test_state(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_BLOCK);
    assert_adds(vm, "state-errors", 0, vm_assert_state(vm, 0, 1, UNPLUGGED));
    assert_adds(vm, "state-errors", 1,
                g_assert_cmpuint(vm_state(vm, 0, 0).type, ==,
                                 VIRTIO_MEM_RESP_ERROR));
}

static void test_unknown_type(VirtioMemGuest *vm)
{
    assert_adds(vm, "bad-requests", 1,
                g_assert_cmpuint(virtio_mem_req(vm, .type = 17).type, ==,
                                 VIRTIO_MEM_RESP_ERROR));
}

/* No room for an answer: the device is broken, and that counts, too. */
static void test_malformed(VirtioMemGuest *vm)
{
    const VirtioMemSegment segment = {
        .addr = virtio_mem_dma(vm, vm->req_gpa), .len = 24,
    };

    assert_adds(vm, "bad-requests", 1, {
        virtio_mem_add_chain(vm, &segment, 1);
        virtio_mem_kick_force(vm);
        virtio_mem_check_broken(vm, 0);
    });
}

static void test_migration(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_begin_busy(vm);
    assert_adds(vm, "plug-busies", 1, vm_assert_plug(vm, 1, 1, BUSY));
    assert_adds(vm, "unplug-busies", 1, vm_assert_unplug(vm, 0, 1, BUSY));
    assert_adds(vm, "unplug-all-busies", 1, vm_assert_unplug_all(vm, BUSY));
    assert_adds(vm, "busy-migration", 1, vm_assert_plug(vm, 1, 1, BUSY));
    assert_adds(vm, "busy-refused", 0, vm_assert_plug(vm, 1, 1, BUSY));
    assert_adds(vm, "wakes", 1, {
        virtio_mem_end_busy(vm);
        virtio_mem_wait_config_irq(vm);
    });
}

static const VirtioMemOptions prealloc = {
    .device = "prealloc=on," VM_ONE_THREAD,
};

static void test_host_memory(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);

    virtio_mem_hold_end();
    virtio_mem_hold_release(held, ENOMEM);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    g_assert_cmpuint(get(vm, "busy-host-memory"), ==, 1);
    g_assert_cmpuint(get(vm, "busy-refused"), ==, 0);
    g_assert_cmpuint(get(vm, "plugged-bytes"), ==, 0);
    virtio_mem_guest_stop(vm);
}

static void test_refused(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(NULL);
    VirtioMemHeld held = virtio_mem_flight_unplug(vm, VIRTIO_MEM_REQ_UNPLUG);

    virtio_mem_hold_end();
    virtio_mem_hold_release(held, EINVAL);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    g_assert_cmpuint(get(vm, "unplug-busies"), ==, 1);
    g_assert_cmpuint(get(vm, "busy-refused"), ==, 1);
    g_assert_cmpuint(get(vm, "unplugged-bytes"), ==, 0);
    g_assert_cmpuint(get(vm, "resizes-failed"), ==, 0);
    virtio_mem_guest_stop(vm);
}

static void test_drained(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);

    virtio_mem_hold_until_drain(virtio_mem_flight_plug(vm));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    virtio_mem_hold_drained();
    virtio_mem_hold_end();
    g_assert_cmpuint(get(vm, "plug-busies"), ==, 1);
    g_assert_cmpuint(get(vm, "busy-drained"), ==, 1);
    virtio_mem_guest_stop(vm);
}

/* --- latencies --- */

static void test_latencies(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    assert_adds(vm, "plug-latency", 1, vm_assert_plug(vm, 0, 1, ACK));
    assert_adds(vm, "plug-latency", 0, vm_assert_plug(vm, 0, 1, ERROR));
    assert_adds(vm, "unplug-latency", 1, vm_assert_unplug(vm, 0, 1, ACK));
    assert_adds(vm, "unplug-latency", 0, vm_assert_unplug(vm, 0, 1, ERROR));
    assert_adds(vm, "plug-latency", 0, vm_assert_state(vm, 0, 1, UNPLUGGED));
}

/* The last bucket that counts is where a request of @ns must be, or above. */
static void assert_last_bucket_holds(VirtioMemGuest *vm, const char *name,
                                     uint64_t ns)
{
    g_autofree char *names = g_strdup_printf("[ '%s' ]", name);
    QList *stats = query_device(vm, names);
    QDict *stat = qobject_to(QDict, qlist_peek(stats));
    const QListEntry *entry;
    int bucket = 0, last = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(stat, "value"), entry) {
        if (qnum_get_uint(qobject_to(QNum, qlist_entry_obj(entry)))) {
            last = bucket;
        }
        bucket++;
    }
    /* Bucket n ends below 2^n ns. */
    g_assert_cmpint(bucket, ==, 41);
    g_assert_cmpint(last, >, 0);
    g_assert_cmpuint(1ULL << last, >, ns);
    qobject_unref(stats);
}

static void test_long_latency(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);
    gint64 start = g_get_monotonic_time();

    /* How long is all the same, as long as it is known. */
    g_usleep(2000);
    start = g_get_monotonic_time() - start;
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    assert_last_bucket_holds(vm, "plug-latency", start * 1000);
    virtio_mem_guest_stop(vm);
}

/* --- what the host did --- */

static void test_host(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    assert_adds(vm, "populated-bytes", 2 * VM_BLOCK,
                vm_assert_plug(vm, 0, 2, ACK));
    g_assert_cmpuint(get(vm, "populate-time"), >, 0);
    assert_adds(vm, "discarded-bytes", VM_BLOCK,
                vm_assert_unplug(vm, 0, 1, ACK));
    g_assert_cmpuint(get(vm, "discard-time"), >, 0);
    assert_adds(vm, "discarded-bytes", 0, vm_assert_unplug(vm, 0, 1, ERROR));
}

static void test_guard(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(&(VirtioMemOptions) {
        .region_size = GiB, .device = "protect-unplugged=on" });

    g_assert_cmpuint(get(vm, "watched-mappings"), ==, 0);
    g_assert_cmpuint(get(vm, "unplugged-accesses"), ==, 0);
    g_assert_cmpuint(get(vm, "lent-pages-peak"), ==, 0);
    qtest_readb(vm->qts, vm->addr);
    vm_wait_until(get(vm, "unplugged-accesses") == 1);
    g_assert_cmpuint(get(vm, "lent-pages"), ==, 1);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    g_assert_cmpuint(get(vm, "watched-mappings"), >, 0);
    g_assert_cmpuint(get(vm, "lent-pages"), ==, 0);
    g_assert_cmpuint(get(vm, "lent-pages-peak"), ==, 1);
    virtio_mem_guest_stop(vm);
}

static void test_no_guard(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(&(VirtioMemOptions) {
        .region_size = GiB, .device = "protect-unplugged=off" });

    qtest_writeb(vm->qts, vm->addr, 1);
    g_assert_cmpuint(get(vm, "unplugged-accesses"), ==, 0);
    g_assert_cmpuint(get(vm, "watched-mappings"), ==, 0);
    virtio_mem_guest_stop(vm);
}

/* --- resizes and resets --- */

static void test_resizes(VirtioMemGuest *vm)
{
    assert_adds(vm, "resizes", 1, virtio_mem_set_requested(vm, 4 * VM_BLOCK));
    assert_adds(vm, "resize-time", 0, vm_assert_plug(vm, 0, 3, ACK));
    assert_adds(vm, "resize-time", 1, vm_assert_plug(vm, 3, 1, ACK));
    assert_adds(vm, "resizes-failed", 0, virtio_mem_set_requested(vm, 0));
    assert_adds(vm, "resizes-failed", 1,
                virtio_mem_set_requested(vm, 2 * VM_BLOCK));
    assert_adds(vm, "resize-time", 1, vm_assert_unplug(vm, 0, 2, ACK));
    /* By itself: nothing was requested. */
    assert_adds(vm, "resize-time", 0, vm_assert_unplug(vm, 2, 2, ACK));
}

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

static void test_steps(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 3 * GiB, GiB, 2 * GiB);

    virtio_mem_safe_wish(safe, 0);
    assert_adds(vm, "steps", 1, {
        virtio_mem_safe_report(safe, 0);
        virtio_mem_safe_assert(safe, 2176 * MiB, "working", NULL);
    });
    virtio_mem_safe_obey(safe);
    safe->said.oom_kills++;
    assert_adds(vm, "given-back-bytes", VM_UNIT, {
        virtio_mem_safe_report(safe, 250);
        virtio_mem_safe_assert(safe, 2304 * MiB, "waiting",
                               "guest-out-of-memory");
    });
    g_assert_cmpuint(get(vm, "steps"), ==, 1);
    for (int s = 2; s <= 8; s *= 2) {
        virtio_mem_safe_report(safe, s * 1000);
    }
    g_assert_cmpuint(get(vm, "reminders"), ==, 1);
    safe->said.swap_out = 64 * MiB;
    assert_adds(vm, "resizes-failed", 1, {
        virtio_mem_safe_report(safe, 8000);
        virtio_mem_safe_assert(safe, 2176 * MiB, "waiting", "guest-swapping");
    });
    virtio_mem_safe_end(safe);
}

static void test_resets(VirtioMemGuest *vm)
{
    uint64_t before;

    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    vm_assert_plug(vm, 0, 1, ACK);
    before = get(vm, "plug-acks");
    virtio_mem_system_reset(vm);
    g_assert_cmpuint(get(vm, "plug-acks"), ==, before);
    virtio_mem_driver_up(vm, virtio_mem_default_features(vm));
    virtio_mem_device_reset(vm);
    g_assert_cmpuint(get(vm, "plug-acks"), ==, before);
    virtio_mem_restart_driver(vm);
}

/* --- QMP and HMP --- */

static QList *schema(VirtioMemGuest *vm)
{
    QDict *answer = qtest_qmp(vm->qts, "{ 'execute': 'query-stats-schemas',"
                              " 'arguments': { 'provider': 'virtio-mem' } }");
    QList *all = qdict_get_qlist(answer, "return");
    QDict *entry = qobject_to(QDict, qlist_peek(all));
    QList *list;

    g_assert_cmpuint(qlist_size(all), ==, 1);
    g_assert_cmpstr(qdict_get_str(entry, "target"), ==, "virtio-mem");
    list = qobject_ref(qdict_get_qlist(entry, "stats"));
    qobject_unref(answer);
    return list;
}

static void assert_described(QDict *entry)
{
    const char *name = qdict_get_str(entry, "name");
    const char *type = qdict_get_str(entry, "type");
    const char *unit = qdict_get_try_str(entry, "unit");
    const bool is_resize = g_str_equal(name, "resize-time");

    if (g_str_has_suffix(name, "-latency") || is_resize) {
        g_assert_cmpstr(type, ==, "log2-histogram");
    } else if (strstr(name, "lent-pages") || strstr(name, "mappings")) {
        g_assert_cmpstr(type, ==, g_str_has_suffix(name, "-peak")
                                  ? "peak" : "instant");
    } else {
        g_assert_cmpstr(type, ==, "cumulative");
    }
    if (g_str_has_suffix(name, "-latency") || g_str_has_suffix(name, "-time")) {
        g_assert_cmpstr(unit, ==, "seconds");
        g_assert_cmpint(qdict_get_int(entry, "exponent"), ==,
                        is_resize ? -3 : -9);
        g_assert_cmpint(qdict_get_int(entry, "base"), ==, 10);
    } else {
        g_assert_cmpstr(unit, ==,
                        g_str_has_suffix(name, "-bytes") ? "bytes" : NULL);
    }
}

static void test_schema(VirtioMemGuest *vm)
{
    QList *described = schema(vm);
    QList *stats = query_device(vm, NULL);
    const QListEntry *entry, *stat = qlist_first(stats);

    g_assert_cmpuint(qlist_size(described), ==, qlist_size(stats));
    QLIST_FOREACH_ENTRY(described, entry) {
        QDict *value = qobject_to(QDict, qlist_entry_obj(entry));

        assert_described(value);
        g_assert_cmpstr(qdict_get_str(value, "name"), ==,
                        qdict_get_str(qobject_to(QDict, qlist_entry_obj(stat)),
                                      "name"));
        stat = qlist_next(stat);
    }
    qobject_unref(stats);
    qobject_unref(described);
}

static void test_hmp(VirtioMemGuest *vm)
{
    g_autofree char *all = NULL;
    g_autofree char *one = NULL;
    g_autofree char *expected = NULL;

    virtio_mem_set_requested(vm, VM_BLOCK);
    vm_assert_plug(vm, 0, 1, ACK);
    all = qtest_hmp(vm->qts, "info stats virtio-mem");
    g_assert_nonnull(strstr(all, "provider: virtio-mem"));
    g_assert_nonnull(strstr(all, "unplug-latency (log2-histogram, ns): [1]="));
    g_assert_null(strstr(all, "failed to find"));

    one = qtest_hmp(vm->qts, "info stats virtio-mem plugged-bytes virtio-mem");
    expected = g_strdup_printf("    plugged-bytes (cumulative, B): %" PRIu64
                               "\r\n", get(vm, "plugged-bytes"));
    g_assert_cmpstr(one, ==, expected);
}

static void assert_results(const VirtioMemOptions *opts, size_t nb)
{
    VirtioMemGuest *vm = virtio_mem_guest_start(opts);
    QList *all = query(vm, NULL);
    QList *described = schema(vm);

    g_assert_cmpuint(qlist_size(all), ==, nb);
    g_assert_false(qlist_empty(described));
    qobject_unref(described);
    qobject_unref(all);
    virtio_mem_guest_stop(vm);
}

static void test_no_device(VirtioMemGuest *unused)
{
    assert_results(&(VirtioMemOptions) { .no_device = true }, 0);
}

static void test_two_devices(VirtioMemGuest *unused)
{
    assert_results(&(VirtioMemOptions) {
        .region_size = 1 * GiB,
        .args = "-object memory-backend-ram,id=vmem1,size=1G"
                " -device virtio-mem-pci,id=vm1,memdev=vmem1,addr=8",
    }, 2);
}

static const VirtioMemTest tests[] = {
    { "", "stats/plug", test_plug },
    { "", "stats/unplug", test_unplug },
    { "", "stats/state-counts-errors-only", test_state },
    { "", "stats/unknown-type", test_unknown_type },
    { "", "stats/malformed-request", test_malformed },
    { "", "stats/busy-in-a-migration", test_migration },
    { "", "stats/busy-for-lack-of-host-memory", test_host_memory,
      .no_guest = true },
    { "", "stats/busy-as-the-host-refuses", test_refused, .no_guest = true },
    { "", "stats/busy-as-the-device-is-drained", test_drained,
      .no_guest = true },
    { "", "stats/latencies-of-what-was-tried", test_latencies },
    { "", "stats/long-latency", test_long_latency, .no_guest = true },
    { "", "stats/host", test_host, &prealloc },
    { "", "stats/guard", test_guard, .no_guest = true },
    { "", "stats/no-guard", test_no_guard, .no_guest = true },
    { "", "stats/resizes", test_resizes },
    { "", "stats/steps", test_steps, &with_balloon, .once = true },
    { "", "stats/resets-change-nothing", test_resets },
    { "", "stats/schema", test_schema, .once = true },
    { "", "stats/info-stats", test_hmp, .once = true },
    { "", "stats/no-device", test_no_device, .no_guest = true },
    { "", "stats/two-devices", test_two_devices, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
