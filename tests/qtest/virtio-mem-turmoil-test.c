/*
 * virtio-mem: all at once, at random
 *
 * Requests, a rogue that uses what is not plugged, resizes, stops, resets,
 * migrations that are cancelled and background snapshots, in random order on a
 * device with random properties.  A naive model predicts each answer and knows
 * what each block must contain.  In the end, the host has all of it back.
 *
 * GLib prints the seed; --seed=... repeats a run.  With "-m slow", it is long.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qobject/qlist.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-huge-pages.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-model.h"

#define TURMOIL_STEPS 300
#define TURMOIL_SLOW_STEPS 10000
#define TURMOIL_ACCESS (64 * KiB)
#define TURMOIL_ACCESSES 20

/* The device's memory in huge pages, and what may be lent of them. */
#define TURMOIL_PAGES (HOSTILE_REGION / (2 * MiB) + 16)

/* What is lent, page tables, and what QEMU keeps of migrations. */
#define TURMOIL_SLACK (16 * MiB)

/* --- steps --- */

static void turmoil_request(HostileModel *m)
{
    VmRequest req = random_request(m);

    model_check_answer(m, &req, virtio_mem_request(m->vm, &req));
    model_read_usable(m, false, req.type == VIRTIO_MEM_REQ_UNPLUG_ALL);
}

/* Plugged blocks keep what they are given; new ones are zero. */
static void turmoil_obey(HostileModel *m, uint64_t block)
{
    const uint64_t gpa = virtio_mem_block_gpa(m->vm, block);

    g_assert_cmphex(qtest_readq(m->vm->qts, gpa), ==, m->stamp[block]);
    if (random_one_in(2)) {
        m->stamp[block] = random_below(0);
        qtest_writeq(m->vm->qts, gpa, m->stamp[block]);
    }
}

static void turmoil_disobey(HostileModel *m, uint64_t block)
{
    const uint64_t gpa = virtio_mem_block_gpa(m->vm, block) +
                         random_below(HOSTILE_BLOCK / TURMOIL_ACCESS) *
                         TURMOIL_ACCESS;

    if (random_one_in(2)) {
        qtest_memset(m->vm->qts, gpa, 0x55, TURMOIL_ACCESS);
    } else {
        qtest_readq(m->vm->qts, gpa);
    }
}

static void turmoil_access(HostileModel *m)
{
    for (int i = 0; i < TURMOIL_ACCESSES; i++) {
        const uint64_t block = random_below(NB_BLOCKS);

        if (m->plugged[block]) {
            turmoil_obey(m, block);
        } else {
            turmoil_disobey(m, block);
        }
    }
}

static void turmoil_resize(HostileModel *m)
{
    m->nb_requested = random_below(random_one_in(4) ? NB_BLOCKS + 1 : 32);
    virtio_mem_set_requested(m->vm, m->nb_requested * HOSTILE_BLOCK);
    model_read_usable(m, true, false);
}

/* What a guest that had to wait is woken by. */
static void turmoil_take_wake(HostileModel *m)
{
    virtio_mem_let_main_loop_turn(m->vm);
    qtest_clock_step(m->vm->qts, 2 * NANOSECONDS_PER_SECOND);
    virtio_mem_let_main_loop_turn(m->vm);
    virtio_mem_take_config_irq(m->vm);
}

/* A request that is under way is finished, or the guest is told to wait. */
static void turmoil_stop(HostileModel *m)
{
    VmRequest req;
    VmAnswer got;

    do {
        req = random_request(m);
    } while (req.type == VIRTIO_MEM_REQ_UNPLUG_ALL);
    virtio_mem_queue_request(m->vm, &req);
    virtio_mem_kick(m->vm);
    qtest_qmp_assert_success(m->vm->qts, "{ 'execute': 'stop' }");
    qtest_qmp_assert_success(m->vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_wait_used(m->vm);
    got = virtio_mem_read_answer(m->vm, 0);
    m->is_busy = got.type == VIRTIO_MEM_RESP_BUSY;
    model_check_answer(m, &req, got);
    m->is_busy = false;
    turmoil_take_wake(m);
}

static void turmoil_device_reset(HostileModel *m)
{
    virtio_mem_restart_driver(m->vm);
    model_read_usable(m, false, false);
}

static void turmoil_system_reset(HostileModel *m)
{
    virtio_mem_system_reset(m->vm);
    virtio_mem_restart_driver(m->vm);
    virtio_mem_take_config_irq(m->vm);
    model_set(m, 0, NB_BLOCKS, false);
    model_read_usable(m, false, true);
}

/* --- migrations --- */

/* Nothing changes meanwhile. */
static void turmoil_be_busy(HostileModel *m)
{
    m->is_busy = true;
    for (int i = random_below(10); i > 0; i--) {
        turmoil_request(m);
        turmoil_access(m);
    }
    m->is_busy = false;
}

static bool turmoil_is_over(HostileModel *m)
{
    QDict *response = qtest_qmp(m->vm->qts, "{ 'execute': 'query-yank' }");
    bool is_over = true;
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(response, "return"), entry) {
        const QDict *instance = qobject_to(QDict, qlist_entry_obj(entry));

        is_over &= !g_str_equal(qdict_get_str(instance, "type"), "migration");
    }
    qobject_unref(response);
    return is_over;
}

/* Only then may QEMU be told to begin another one. */
static void turmoil_await_end(HostileModel *m)
{
    vm_wait_until(turmoil_is_over(m));
    turmoil_take_wake(m);
    model_read_usable(m, true, true);
}

static void turmoil_migrate(HostileModel *m)
{
    virtio_mem_begin_busy(m->vm);
    turmoil_be_busy(m);
    virtio_mem_end_busy(m->vm);
    turmoil_await_end(m);
}

/* One that may be cancelled before it has begun, or after its end. */
static void turmoil_cancel_early(HostileModel *m)
{
    virtio_mem_migrate_to(m->vm, "exec:cat >/dev/null");
    qtest_qmp_assert_success(m->vm->qts, "{ 'execute': 'migrate_cancel' }");
    turmoil_await_end(m);
    /* If it was too late, the guest is stopped. */
    qtest_qmp_assert_success(m->vm->qts, "{ 'execute': 'cont' }");
    turmoil_take_wake(m);
}

/* Not each host and kind of memory can. */
static bool turmoil_try_background(HostileModel *m)
{
    QDict *response = qtest_qmp(
        m->vm->qts, "{ 'execute': 'migrate-set-capabilities', 'arguments': { "
        "'capabilities': [ { 'capability': 'background-snapshot', "
        "'state': true } ] } }");
    const bool ret = qdict_haskey(response, "return");

    qobject_unref(response);
    return ret;
}

static void turmoil_snapshot(HostileModel *m)
{
    if (!turmoil_try_background(m)) {
        return;
    }
    migrate_set_parameter_int(m->vm->qts, "max-bandwidth", 1 * GiB);
    virtio_mem_migrate_to(m->vm, "exec:cat >/dev/null");
    if (random_one_in(2)) {
        qtest_qmp_assert_success(m->vm->qts, "{ 'execute': 'migrate_cancel' }");
    } else {
        turmoil_access(m);
    }
    turmoil_await_end(m);
    migrate_set_capability(m->vm->qts, "background-snapshot", false);
}

/* --- runs --- */

static const HostileStep turmoil_steps[] = {
    { 500, turmoil_request },
    { 300, turmoil_access },
    { 60, turmoil_resize },
    { 60, turmoil_stop },
    { 20, turmoil_device_reset },
    { 10, turmoil_system_reset },
    { 15, turmoil_migrate },
    { 15, turmoil_cancel_early },
    { 20, turmoil_snapshot },
};

/* For a guest whose properties are random, beside its memory. */
static VirtioMemGuest *turmoil_start(const char *memdev)
{
    static const char *const optional[] = {
        ",prealloc=on", ",dynamic-memslots=on", ",ioeventfd=off",
        ",prealloc-threads=3",
    };
    g_autoptr(GString) device = g_string_new("protect-unplugged=on");
    VirtioMemOptions opts = {
        .block_size = HOSTILE_BLOCK,
        .region_size = HOSTILE_REGION,
        .memdev = memdev,
    };

    for (int i = 0; i < ARRAY_SIZE(optional); i++) {
        g_string_append(device, random_one_in(2) ? optional[i] : "");
    }
    g_test_message("%s", device->str);
    opts.device = device->str;
    return virtio_mem_guest_start(&opts);
}

static void turmoil_run(const char *memdev)
{
    const int nb_steps = g_test_slow() ? TURMOIL_SLOW_STEPS : TURMOIL_STEPS;
    VirtioMemGuest *vm = turmoil_start(memdev);
    g_autofree HostileModel *m = g_new0(HostileModel, 1);
    uint64_t memory;

    m->vm = vm;
    m->nb_usable = virtio_mem_usable_blocks(vm);
    /* The first of each kind brings QEMU to its working size. */
    for (int i = 0; i < ARRAY_SIZE(turmoil_steps); i++) {
        turmoil_steps[i].run(m);
    }
    turmoil_system_reset(m);
    memory = virtio_mem_host_memory(vm);
    for (int i = 0; i < nb_steps; i++) {
        random_step(m, turmoil_steps, ARRAY_SIZE(turmoil_steps));
        if (i % 100 == 0) {
            virtio_mem_check_invariants(vm);
        }
    }
    g_assert_true(virtio_mem_is_protected(vm));
    turmoil_system_reset(m);
    virtio_mem_assert_gain(vm, memory, TURMOIL_SLACK);
    virtio_mem_guest_stop(vm);
}

static void test_ram(VirtioMemGuest *unused)
{
    turmoil_run(NULL);
}

static void test_memfd(VirtioMemGuest *unused)
{
    turmoil_run("memory-backend-memfd,id=vmem0,size=1G");
}

static void test_hugetlb(VirtioMemGuest *unused)
{
    if (virtio_mem_huge_make_free(TURMOIL_PAGES)) {
        turmoil_run("memory-backend-memfd,id=vmem0,size=1G,hugetlb=on,"
                    "hugetlbsize=2M,reserve=off");
        virtio_mem_huge_done();
    }
}

static const VirtioMemTest tests[] = {
    { "T067 T224", "turmoil/ram", test_ram, .no_guest = true, .guard = true },
    { "T067 T224", "turmoil/memfd", test_memfd, .no_guest = true,
      .guard = true },
    { "T067 T224", "turmoil/huge-pages", test_hugetlb, .no_guest = true,
      .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
