/*
 * virtio-mem: a growth in mode safe ends where the guest could not bear more
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-safe.h"

#define SECOND NANOSECONDS_PER_SECOND
#define PERIOD_MS 250

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

static const VirtioMemOptions held_host = {
    .args = VM_BALLOON_ARGS, .device = "prealloc=on," VM_ONE_THREAD,
};

static void step(VirtioMemSafe *safe, uint64_t next)
{
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, next, "working", NULL);
}

/* A GiB, or a quarter of what the guest has, at a time. */
static void test_checkpoints(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 2 * GiB, GiB);

    virtio_mem_safe_wish(safe, 6 * GiB);
    virtio_mem_safe_assert(safe, 0, "working", NULL);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    step(safe, 2 * GiB);
    step(safe, 3 * GiB);
    step(safe, 3 * GiB + 1280 * MiB);
    step(safe, 3 * GiB + 1280 * MiB + 1664 * MiB);
    step(safe, 6 * GiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_assert(safe, 6 * GiB, "done", NULL);
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_end(safe);
}

/* 16 times what is not virtio-mem. */
static void test_limit(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 144 * MiB, 0);

    virtio_mem_safe_wish(safe, 32 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    step(safe, 2 * GiB);
    step(safe, 2304 * MiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 2304 * MiB, "waiting", "growth-limit");
    qtest_clock_step(vm->qts, 60 * SECOND);
    virtio_mem_safe_assert_no_poll(safe);
    virtio_mem_safe_end(safe);
}

static const VirtioMemOptions two_devices = {
    .args = VM_BALLOON_ARGS
            " -object memory-backend-ram,id=vmem1,size=4G,reserve=off"
            " -device virtio-mem-pci,id=vm1,memdev=vmem1,addr=05.0",
};

/* What another device's guest has not plugged yet counts, too. */
static void test_limit_of_two(VirtioMemGuest *vm)
{
    VirtioMemGuest *other = virtio_mem_guest_attach(vm, "vm1",
                                                    QPCI_DEVFN(5, 0));
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 144 * MiB, 0);

    virtio_mem_set_requested(other, GiB);
    virtio_mem_safe_wish(safe, 32 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    step(safe, 1280 * MiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1280 * MiB, "waiting", "growth-limit");
    virtio_mem_guest_stop(other);
    virtio_mem_safe_end(safe);
}

/* What the guest plugged, it has to use before it gets more. */
static void test_offline(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 2 * GiB, GiB);

    virtio_mem_safe_wish(safe, 6 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    safe->offline = GiB;
    for (int ms = PERIOD_MS; ms < 5000; ms += PERIOD_MS) {
        virtio_mem_safe_assert(safe, GiB, "working", NULL);
        virtio_mem_safe_report(safe, PERIOD_MS);
    }
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, GiB, "waiting", "guest-memory-offline");
    virtio_mem_safe_end(safe);
}

static void check_take_back(VirtioMemGuest *vm, size_t counter)
{
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 2 * GiB, GiB);

    virtio_mem_safe_wish(safe, 6 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    step(safe, 2 * GiB);
    virtio_mem_safe_move(safe, 1536 * MiB);
    *(uint64_t *)((char *)&safe->said + counter) += 1;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, GiB, "waiting", "guest-out-of-memory");
    virtio_mem_safe_end(safe);
}

static void test_oom_kill(VirtioMemGuest *vm)
{
    check_take_back(vm, offsetof(VirtioMemReport, oom_kills));
}

static void test_alloc_stall(VirtioMemGuest *vm)
{
    check_take_back(vm, offsetof(VirtioMemReport, alloc_stalls));
}

/* --- a guest that starts: without a report, and with one in the end --- */

static const VirtioMemOptions started_large = {
    .requested = 2 * GiB, .device = "resize-mode=safe",
    .args = VM_BALLOON_ARGS,
};

static void test_at_start(VirtioMemGuest *vm)
{
    VirtioMemSafe safe = { .vm = vm, .boot = 2 * GiB };

    virtio_mem_safe_assert(&safe, 0, "working", NULL);
    qtest_clock_step(vm->qts, 6 * SECOND);
    virtio_mem_safe_assert(&safe, GiB, "working", NULL);
    safe.balloon = virtio_mem_balloon_start(vm);
    virtio_mem_balloon_report_nothing(safe.balloon);
    virtio_mem_safe_report(&safe, 1000);
    step(&safe, 2 * GiB);
    virtio_mem_safe_obey(&safe);
    virtio_mem_safe_assert(&safe, 2 * GiB, "done", NULL);
    virtio_mem_balloon_free(safe.balloon);
}

/* Plug the next GiB; with the answer may come the wish for another one. */
static void plug_and_be_asked(VirtioMemGuest *vm)
{
    virtio_mem_take_config_irq(vm);
    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_PLUG,
        .addr = vm->addr + vm_plugged_size(vm),
        .nb_blocks = GiB / vm->block_size });
    virtio_mem_kick(vm);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
}

/* The limit is that of the machine: 256 MiB of boot memory. */
static void test_unseen(VirtioMemGuest *vm)
{
    VirtioMemSafe safe = { .vm = vm };

    virtio_mem_set_requested(vm, 32 * GiB);
    qtest_clock_step(vm->qts, 6 * SECOND);
    for (int i = 1; i <= 4; i++) {
        virtio_mem_safe_assert(&safe, i * GiB, "working", NULL);
        plug_and_be_asked(vm);
    }
    virtio_mem_safe_assert(&safe, 4 * GiB, "waiting", "growth-limit");
    virtio_mem_safe_set_mode(vm, "plain");
    virtio_mem_take_config_irq(vm);
}

/* --- while the host populates memory --- */

static void assert_called_off(VirtioMemGuest *vm)
{
    virtio_mem_hold_drained();
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    g_assert_cmphex(vm_plugged_size(vm), ==, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
}

/* A plan begins with what is plugged, and not with what soon will be. */
static void test_begin_in_flight(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&held_host);

    virtio_mem_hold_until_drain(virtio_mem_flight_plug(vm));
    virtio_mem_safe_set_mode(vm, "safe");
    assert_called_off(vm);
    virtio_mem_guest_stop(vm);
}

static void test_hold_in_flight(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&held_host);
    VirtioMemSafe *safe = virtio_mem_safe_begin(vm, 0, 2 * GiB, GiB);

    virtio_mem_safe_wish(safe, 6 * GiB);
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, GiB, "working", NULL);
    virtio_mem_hold_until_drain(virtio_mem_flight_plug_asked(vm));
    qtest_clock_step(vm->qts, 6 * SECOND);
    virtio_mem_safe_assert(safe, 0, "waiting", "no-statistics");
    assert_called_off(vm);
    virtio_mem_safe_end(safe);
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "", "safe-growth/in-checkpoints", test_checkpoints, &with_balloon,
      .once = true },
    { "", "safe-growth/limit", test_limit, &with_balloon, .once = true },
    { "", "safe-growth/limit-of-all-devices", test_limit_of_two, &two_devices,
      .once = true },
    { "", "safe-growth/guest-memory-offline", test_offline, &with_balloon,
      .once = true },
    { "", "safe-growth/taken-back-after-a-kill", test_oom_kill, &with_balloon,
      .once = true },
    { "", "safe-growth/taken-back-after-a-stall", test_alloc_stall,
      &with_balloon, .once = true },
    { "", "safe-growth/begin-in-flight", test_begin_in_flight,
      .no_guest = true },
    { "", "safe-growth/hold-in-flight", test_hold_in_flight, .no_guest = true },
    { "", "safe-growth/at-start", test_at_start, &started_large,
      .once = true },
    { "", "safe-growth/unseen", test_unseen, &started_large, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
