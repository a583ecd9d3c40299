/*
 * virtio-mem: while the host works for a request, everything else goes on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-migrate.h"

static const VirtioMemOptions plain = { .device = VM_ONE_THREAD };
static const VirtioMemOptions prealloc = {
    .device = "prealloc=on," VM_ONE_THREAD,
};
static const VirtioMemOptions no_ioeventfd = {
    .device = "prealloc=on,ioeventfd=off," VM_ONE_THREAD,
};

/* --- while it is in flight --- */

static void inflight_assert_size(VirtioMemGuest *vm, uint64_t nb_blocks)
{
    QDict *info = virtio_mem_query(vm);

    g_assert_cmphex(qdict_get_int(info, "size"), ==,
                    nb_blocks * vm->block_size);
    g_assert_cmphex(virtio_mem_qom_get(vm, "size"), ==,
                    nb_blocks * vm->block_size);
    vm_assert_plugged(vm, nb_blocks);
    qobject_unref(info);
}

static void inflight_check_plug(const VirtioMemOptions *opts)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(opts);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);

    inflight_assert_size(vm, 0);
    virtio_mem_hold_release(held, 0);
    held = virtio_mem_hold_next(VM_HOST_POPULATE);
    inflight_assert_size(vm, 0);
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    inflight_assert_size(vm, VM_FLIGHT_BLOCKS);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static void test_plug(VirtioMemGuest *unused)
{
    inflight_check_plug(&prealloc);
}

/* Without ioeventfd, the kick itself returns: the vCPU goes on, too. */
static void test_plug_no_ioeventfd(VirtioMemGuest *unused)
{
    inflight_check_plug(&no_ioeventfd);
}

static void inflight_check_unplug(uint16_t type)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&plain);
    VirtioMemHeld held = virtio_mem_flight_unplug(vm, type);

    inflight_assert_size(vm, VM_FLIGHT_BLOCKS);
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    inflight_assert_size(vm, 0);
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    g_assert_true(virtio_mem_is_filled(vm, vm->addr, 0, 4 * KiB));
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static void test_unplug(VirtioMemGuest *unused)
{
    inflight_check_unplug(VIRTIO_MEM_REQ_UNPLUG);
}

static void test_unplug_all(VirtioMemGuest *unused)
{
    inflight_check_unplug(VIRTIO_MEM_REQ_UNPLUG_ALL);
}

static void test_ring_order(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);
    const uint64_t resp_gpa = vm->resp_gpa + 256;
    VmAnswer answer;
    VirtioMemUsed used;

    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_STATE, .addr = vm->addr,
        .nb_blocks = VM_FLIGHT_BLOCKS, .req_gpa = vm->req_gpa + 256,
        .resp_gpa = resp_gpa });
    virtio_mem_kick_force(vm);
    inflight_assert_size(vm, 0);
    g_assert_false(virtio_mem_ring_poll(&vm->ring, &used));

    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    virtio_mem_wait_used(vm);
    answer = virtio_mem_read_answer(vm, resp_gpa);
    g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
    g_assert_cmpuint(answer.state, ==, VIRTIO_MEM_STATE_PLUGGED);
    virtio_mem_guest_stop(vm);
}

static void inflight_check_resize(uint64_t size)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);

    virtio_mem_set_requested(vm, size);
    inflight_assert_size(vm, 0);
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    inflight_assert_size(vm, VM_FLIGHT_BLOCKS);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, size);
    virtio_mem_guest_stop(vm);
}

static void test_grow(VirtioMemGuest *unused)
{
    inflight_check_resize(2 * VM_REQUESTED);
}

/* It was right when it was decided. */
static void test_shrink(VirtioMemGuest *unused)
{
    inflight_check_resize(0);
}

/* --- when the host fails half way --- */

static void inflight_answer_busy(VirtioMemGuest *vm, uint64_t nb_blocks)
{
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    inflight_assert_size(vm, nb_blocks);
    qtest_clock_step(vm->qts, 2 * NANOSECONDS_PER_SECOND);
    virtio_mem_wait_config_irq(vm);
}

static void test_populate_fails(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&prealloc);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);
    uint64_t discarded = 0;

    virtio_mem_hold_release(held, 0);
    virtio_mem_hold_release(virtio_mem_hold_next(VM_HOST_POPULATE), ENOMEM);
    /* All but what was tried without asking. */
    while (discarded + 32 * MiB < VM_FLIGHT_BLOCKS * VM_BLOCK) {
        held = virtio_mem_hold_next(VM_HOST_DISCARD);
        discarded += held.question.size;
        virtio_mem_hold_release(held, 0);
    }
    inflight_answer_busy(vm, 0);
    virtio_mem_hold_end();
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_guest_stop(vm);
}

/* Content may be lost, but not the blocks. */
static void test_discard_fails(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&plain);
    VirtioMemHeld held = virtio_mem_flight_unplug(vm, VIRTIO_MEM_REQ_UNPLUG);

    virtio_mem_hold_release(held, 0);
    virtio_mem_hold_release(virtio_mem_hold_next(VM_HOST_DISCARD), EIO);
    inflight_answer_busy(vm, VM_FLIGHT_BLOCKS);
    virtio_mem_hold_end();
    vm_assert_state(vm, 0, VM_FLIGHT_BLOCKS, PLUGGED);
    vm_assert_unplug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_guest_stop(vm);
}

/* --- threads --- */

/* As many calls at a time as threads were asked for and processors are there */
static void inflight_check_threads(const VirtioMemOptions *opts,
                                   unsigned int expected)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(opts);
    VirtioMemHeld held[2] = { virtio_mem_flight_plug(vm) };

    for (unsigned int i = 1; i < expected; i++) {
        held[i] = virtio_mem_hold_next(VM_HOST_POPULATE);
    }
    virtio_mem_hold_end();
    for (unsigned int i = 0; i < expected; i++) {
        virtio_mem_hold_release(held[i], 0);
    }
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    virtio_mem_guest_stop(vm);
}

static void test_threads(VirtioMemGuest *unused)
{
    static const VirtioMemOptions of_device = {
        .device = "prealloc=on,prealloc-threads=2",
    };
    static const VirtioMemOptions of_backend = {
        .device = "prealloc=on",
        .memdev = "memory-backend-ram,id=vmem0,size=4G,prealloc-threads=2",
    };

    if (g_get_num_processors() < 2) {
        g_test_skip("needs two processors");
        return;
    }
    inflight_check_threads(&of_device, 2);
    inflight_check_threads(&of_backend, 2);
}

/* --- incoming migration --- */

static void test_incoming(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .region_size = VM_MIGRATE_REGION,
        .device = "prealloc=on," VM_ONE_THREAD,
    };
    g_autofree char *path = virtio_mem_temp_path("incoming.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    VirtioMemGuest *from = virtio_mem_guest_start(&opts);
    VirtioMemGuest *to = virtio_mem_hold_target(&opts);
    VirtioMemHeld held;

    virtio_mem_set_requested(from, VM_REQUESTED);
    vm_assert_plug(from, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_write_pattern(from, 0, VM_FLIGHT_BLOCKS, 1);
    virtio_mem_hold_begin();
    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_to(from, uri);
    held = virtio_mem_hold_next(VM_HOST_POPULATE);
    virtio_mem_migrate_wait(to, "active");
    virtio_mem_hold_end();
    virtio_mem_hold_release(held, 0);

    virtio_mem_migrate_wait(from, "completed");
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
    g_assert_true(virtio_mem_check_pattern(to, 0, VM_FLIGHT_BLOCKS, 1));
    vm_assert_unplug(to, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* --- when the host has no thread to spare --- */

/* GLib names the threads of its pools so. */
static bool inflight_has_worker(VirtioMemGuest *vm)
{
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task",
                                             (int)qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(tasks, 0, NULL);
    const char *task;

    g_assert_nonnull(dir);
    while ((task = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(tasks, task, "comm", NULL);
        g_autofree char *name = NULL;

        if (g_file_get_contents(path, &name, NULL, NULL) &&
            g_str_has_prefix(name, "pool-")) {
            return true;
        }
    }
    return false;
}

/* The call of a thread would be held: the answer shows that there was none. */
static void test_no_threads(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&(VirtioMemOptions) {
        .device = "prealloc=on,prealloc-threads=4",
    });

    /* The reset at start needed one, which ends when it is idle for long. */
    vm_wait_until(!inflight_has_worker(vm));
    virtio_mem_set_requested(vm, VM_FLIGHT_BLOCKS * vm->block_size);
    virtio_mem_hold_begin();
    virtio_mem_hold_allow_threads(false);
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    vm_assert_unplug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    virtio_mem_hold_allow_threads(true);
    virtio_mem_hold_end();
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    inflight_assert_size(vm, VM_FLIGHT_BLOCKS);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "P-1", "in-flight/plug-lets-the-monitor-go-on", test_plug,
      .no_guest = true },
    { "P-1", "in-flight/plug-without-ioeventfd", test_plug_no_ioeventfd,
      .no_guest = true },
    { "P-1", "in-flight/unplug-lets-the-monitor-go-on", test_unplug,
      .no_guest = true },
    { "P-1", "in-flight/unplug-all-lets-the-monitor-go-on", test_unplug_all,
      .no_guest = true },
    { "P-1", "in-flight/next-request-waits", test_ring_order,
      .no_guest = true },
    { "P-1", "in-flight/requested-size-may-grow", test_grow, .no_guest = true },
    { "P-1", "in-flight/requested-size-may-shrink", test_shrink,
      .no_guest = true },
    { "P-1", "in-flight/populate-failed-half-way-is-undone",
      test_populate_fails, .no_guest = true },
    { "P-1", "in-flight/discard-failed-half-way-keeps-blocks",
      test_discard_fails, .no_guest = true },
    { "P-2", "in-flight/incoming-migration-lets-the-monitor-go-on",
      test_incoming, .no_guest = true },
    { "P-2", "in-flight/several-threads", test_threads, .no_guest = true },
    { "P-2", "in-flight/no-threads-needed", test_no_threads, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
