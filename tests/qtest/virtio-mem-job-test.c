/*
 * virtio-mem: a job resizes the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "virtio-mem-jobs.h"

#define SECOND NANOSECONDS_PER_SECOND
#define PERIOD_MS 250

static const VirtioMemOptions with_balloon = { .args = VM_BALLOON_ARGS };

static void assert_hmp(VirtioMemGuest *vm, const char *command,
                       const char *words)
{
    g_autofree char *output = qtest_hmp(vm->qts, "%s", command);

    if (*words) {
        g_assert_nonnull(strstr(output, words));
    } else {
        g_assert_cmpstr(output, ==, "");
    }
}

/* It ends, and its error has no other words. */
static void assert_error(VirtioMemGuest *vm, const char *error)
{
    QDict *info;

    vm_wait_until(virtio_mem_job_is(vm, "concluded"));
    info = virtio_mem_find_job(vm, vm->id);
    g_assert_cmpstr(qdict_get_str(info, "error"), ==, error);
    qobject_unref(info);
}

/* --- how it ends --- */

static void test_done(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 3 * GiB, "");
    virtio_mem_job_assert_progress(vm, 0, GiB);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 3 * GiB);
    virtio_mem_safe_move(safe, 2 * GiB + 512 * MiB);
    virtio_mem_job_assert_progress(vm, 512 * MiB, GiB);
    virtio_mem_safe_move(safe, 2 * GiB + 256 * MiB);
    virtio_mem_job_assert_progress(vm, 512 * MiB, GiB);
    virtio_mem_safe_move(safe, 3 * GiB);
    vm_wait_until(virtio_mem_job_is(vm, "concluded"));
    virtio_mem_job_assert_progress(vm, GiB, GiB);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_last(vm, 3 * GiB, "");
    virtio_mem_job_assert_settled(vm, 3 * GiB);
    virtio_mem_job_start(vm, 3 * GiB, "");
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_end(safe);
}

static void test_cancel(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, "");
    virtio_mem_safe_move(safe, GiB);
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "'vm0' stays at 1073741824 of 0 bytes"
                             " requested: cancelled");
    virtio_mem_job_assert_settled(vm, GiB);
    virtio_mem_job_assert_last(vm, 0, "cancelled");
    virtio_mem_job_end(safe);
}

static void test_stall(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, ", \"stall-timeout\": 30");
    qtest_clock_step(vm->qts, 29 * SECOND);
    virtio_mem_safe_move(safe, GiB);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    for (int s = 0; s < 29; s++) {
        qtest_clock_step(vm->qts, SECOND);
        g_assert_true(virtio_mem_job_is(vm, "running"));
    }
    qtest_clock_step(vm->qts, 2 * SECOND);
    virtio_mem_job_await_end(vm, "guest-silent");
    virtio_mem_job_assert_settled(vm, GiB);
    virtio_mem_job_assert_last(vm, 0, "guest-silent");
    virtio_mem_job_end(safe);
}

static void test_deadline(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, ", \"deadline\": 10, \"stall-timeout\": 0");
    for (int s = 1; s < 10; s++) {
        qtest_clock_step(vm->qts, SECOND);
        virtio_mem_safe_move(safe, 2 * GiB - s * 128 * MiB);
        g_assert_true(virtio_mem_job_is(vm, "running"));
    }
    qtest_clock_step(vm->qts, SECOND);
    virtio_mem_job_await_end(vm, "deadline");
    virtio_mem_job_assert_settled(vm, 2 * GiB - 9 * 128 * MiB);
    virtio_mem_job_assert_last(vm, 0, "deadline");
    virtio_mem_job_end(safe);
}

/* libvirt's way is never refused; the same value is a reminder. */
static void test_superseded(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, "");
    virtio_mem_set_requested(vm, 0);
    g_assert_true(virtio_mem_job_is(vm, "running"));
    virtio_mem_set_requested(vm, 3 * GiB);
    virtio_mem_job_await_end(vm, "superseded");
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 3 * GiB);
    virtio_mem_job_assert_last(vm, 0, "superseded");
    virtio_mem_job_end(safe);
}

/* A job that shrinks to nothing, paused on its way. */
static VirtioMemSafe *begin_paused(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin(vm);

    virtio_mem_job_start(vm, 0, "");
    virtio_mem_safe_move(safe, GiB);
    virtio_mem_job_pause(vm);
    return safe;
}

static void test_pause(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_paused(vm);

    virtio_mem_job_assert_settled(vm, GiB);
    qtest_clock_step(vm->qts, 100 * SECOND);
    virtio_mem_job_do(vm, "job-resume");
    vm_wait_until(virtio_mem_job_is(vm, "running"));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_settled(vm, 0);
    virtio_mem_job_end(safe);
}

/* What the guest does unasked does not wake it. */
static void test_pause_lasts(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_paused(vm);

    virtio_mem_safe_move(safe, 512 * MiB);
    qtest_clock_step(vm->qts, SECOND);
    g_assert_true(virtio_mem_job_is(vm, "paused"));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, GiB);
    virtio_mem_job_do(vm, "job-resume");
    virtio_mem_safe_move(safe, 0);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_end(safe);
}

/* The same value is a reminder here, too. */
static void test_pause_superseded(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_paused(vm);

    virtio_mem_set_requested(vm, GiB);
    g_assert_true(virtio_mem_job_is(vm, "paused"));
    virtio_mem_set_requested(vm, 3 * GiB);
    virtio_mem_job_await_end(vm, "superseded");
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 3 * GiB);
    virtio_mem_job_assert_last(vm, 0, "superseded");
    virtio_mem_job_end(safe);
}

static void test_pause_cancelled(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_paused(vm);

    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_job_assert_settled(vm, GiB);
    virtio_mem_job_end(safe);
}

/* It is the job's wish again, and ends with it. */
static void test_resume_cancelled(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = begin_paused(vm);

    virtio_mem_job_do(vm, "job-resume");
    vm_wait_until(virtio_mem_requested_size(vm) == 0);
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_job_assert_settled(vm, GiB);
    virtio_mem_job_end(safe);
}

/* --- mode safe --- */

/* Mode and reserve are those of the device, unless the job has its own. */
static void test_properties(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    g_assert_null(virtio_mem_safe_set(vm, "resize-reserve", "536870912"));
    virtio_mem_safe_set_mode(vm, "safe");
    virtio_mem_job_start(vm, 0, "");
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
    virtio_mem_job_do(vm, "job-cancel");
    /* The guest's memory was no reason. */
    assert_error(vm, "'vm0' stays at 2147483648 of 0 bytes requested:"
                 " cancelled");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_job_assert_settled(vm, 2 * GiB);
    virtio_mem_job_end(safe);
}

static void test_safe(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    virtio_mem_job_start(vm, 0, ", \"mode\": \"safe\", \"reserve\": 536870912,"
                     " \"stall-timeout\": 10");
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 1792 * MiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1664 * MiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_safe_assert(safe, 1664 * MiB, "waiting", "guest-low-memory");
    virtio_mem_safe_report(safe, 2000);
    virtio_mem_safe_report(safe, 4000);
    qtest_clock_step(vm->qts, 5 * SECOND);
    virtio_mem_job_await_end(vm, "guest-low-memory (the guest has 671088640"
                             " bytes available and its reserve is"
                             " 536870912)");
    virtio_mem_job_assert_settled(vm, 1664 * MiB);
    virtio_mem_job_assert_last(vm, 0, "guest-low-memory");
    assert_hmp(vm, "info virtio-mem vm0", "  last resize: to 0, safe, stopped"
               " at 1744830464 after 10 s: guest-low-memory (the guest has"
               " 671088640 bytes available and its reserve is 536870912)\r\n");
    virtio_mem_job_end(safe);
}

/* A balloon whose driver is not there: soon said of a shrink, which ends. */
static void test_unanswered(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    virtio_mem_job_start(vm, 0, ", \"mode\": \"safe\"");
    for (int s = 0; s < 4; s++) {
        qtest_clock_step(vm->qts, SECOND);
        g_assert_true(virtio_mem_job_is(vm, "running"));
    }
    qtest_clock_step(vm->qts, 2 * SECOND);
    virtio_mem_job_await_end(vm, "no-statistics (the guest's balloon driver");
    virtio_mem_job_assert_settled(vm, 2 * GiB);
    virtio_mem_job_assert_last(vm, 0, "no-statistics");
    virtio_mem_job_end(safe);
}

/* A growth goes on within what the machine's memory allows. */
static void test_unanswered_growth(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    virtio_mem_job_start(vm, 3 * GiB, ", \"mode\": \"safe\"");
    qtest_clock_step(vm->qts, 6 * SECOND);
    virtio_mem_safe_assert(safe, 3 * GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    virtio_mem_job_await_end(vm, "");
    virtio_mem_job_assert_settled(vm, 3 * GiB);
    virtio_mem_job_end(safe);
}

/* The job is over, and what its plan asked for last is not taken back. */
static void test_gives_back(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    safe->used = GiB;
    virtio_mem_job_start(vm, 8 * GiB, ", \"mode\": \"safe\"");
    virtio_mem_safe_report(safe, 0);
    virtio_mem_safe_assert(safe, 3 * GiB, "working", NULL);
    virtio_mem_safe_obey(safe);
    safe->said.oom_kills++;
    virtio_mem_safe_report(safe, PERIOD_MS);
    virtio_mem_job_await_end(vm, "guest-out-of-memory");
    g_assert_cmphex(vm_plugged_size(vm), ==, 3 * GiB);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 2 * GiB);
    virtio_mem_safe_obey(safe);
    virtio_mem_job_assert_settled(vm, 2 * GiB);
    virtio_mem_job_end(safe);
}

/* --- what is refused --- */

static void assert_refused(VirtioMemGuest *vm, const char *id, uint64_t size,
                           const char *options, const char *words)
{
    g_autofree char *error = virtio_mem_job_try(vm, id, size, options);

    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error, words));
    g_assert_null(virtio_mem_find_job(vm, vm->id));
    g_assert_cmphex(virtio_mem_qom_get(vm, "requested-size"), ==, 0);
}

static const VirtioMemOptions with_dimm = {
    .args = "-object memory-backend-ram,id=mem1,size=128M,reserve=off"
            " -device pc-dimm,id=dimm0,memdev=mem1"
            " -device virtio-rng-pci,id=rng0,addr=05.0",
};

static void test_refused(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    assert_refused(vm, "nobody", 0, "", "'nobody' not found");
    assert_refused(vm, "dimm0", 0, "", "'dimm0' (pc-dimm) cannot be resized");
    assert_refused(vm, "rng0", 0, "", "'rng0' (virtio-rng-pci) cannot be");
    assert_refused(vm, "vm0", 1, "", "'size' has to be multiples of"
                   " 'block-size' (0x200000), 0x1 is not");
    assert_refused(vm, "vm0", 128 * GiB, "", "'size' cannot exceed the memory"
                   " backend size(0x1000000000), 0x2000000000 does");
    assert_refused(vm, "vm0", 0, ", \"mode\": \"safe\"",
                   "'mode' is 'safe', which needs a balloon");
    assert_refused(vm, "vm0", 0, ", \"reserve\": 1099511627776", "'reserve'");
    assert_refused(vm, "vm0", 0, ", \"deadline\": 4294967296", "deadline");
    assert_refused(vm, "vm0", 0, ", \"stall-timeout\": -1", "stall-timeout");
    virtio_mem_job_start(vm, 128 * MiB, "");
    error = virtio_mem_job_try(vm, "vm0", 0, "");
    g_assert_nonnull(strstr(error, "'vm0' is resized by job 'vm0' already"));
    virtio_mem_job_do(vm, "job-cancel");
    virtio_mem_job_await_end(vm, "cancelled");
    virtio_mem_take_config_irq(vm);
}

/* --- HMP --- */

#define NAMELESS "/machine/peripheral-anon/device[0]"

static const VirtioMemOptions nameless = {
    .args = VM_BALLOON_ARGS
            " -object memory-backend-ram,id=mem1,size=1G,reserve=off"
            " -device virtio-mem-pci,memdev=mem1,addr=05.0"
            " -object memory-backend-ram,id=mem2,size=1G,reserve=off"
            " -device '{ \"driver\": \"virtio-mem-pci\", \"id\": \"vm 2\","
            " \"memdev\": \"mem2\", \"addr\": \"07.0\" }'",
};

/* As the guest and QMP have it. */
static void assert_hmp_at_rest(VirtioMemGuest *vm, uint64_t size)
{
    g_autofree char *lines = g_strdup_printf(
        "Memory device [virtio-mem]: \"vm0\"\r\n"
        "  status: ready\r\n"
        "  request status: done\r\n"
        "  resize-mode: plain\r\n"
        "  requested-size: %" PRIu64 "\r\n"
        "  asked-size: %" PRIu64 "\r\n"
        "  size: %" PRIu64 "\r\n"
        "  usable-size: %" PRIu64 "\r\n"
        "  max-size: %" PRIu64 "\r\n"
        "  block-size: %" PRIu64 "\r\n"
        "  protected: %s\r\n", size, size, size,
        virtio_mem_usable_blocks(vm) * vm->block_size, vm->region_size,
        vm->block_size, virtio_mem_is_protected(vm) ? "true" : "false");

    assert_hmp(vm, "info virtio-mem", lines);
}

static void test_hmp(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    assert_hmp(vm, "virtio-mem nobody 1G", "'nobody' not found");
    assert_hmp(vm, "virtio-mem balloon0 1G", "is no virtio-mem device");
    assert_hmp(vm, "info virtio-mem nobody", "'nobody' not found");
    assert_hmp(vm, "info virtio-mem balloon0", "is no virtio-mem device");
    assert_hmp(vm, "virtio-mem -s /machine/peripheral/vm0/virtio-backend 1G",
               "is no virtio-mem device");
    assert_hmp(vm, "virtio-mem vm0 1G", "");
    assert_hmp(vm, "info virtio-mem vm0", "  requested-size: 1073741824\r\n");
    virtio_mem_safe_obey(safe);
    assert_hmp_at_rest(vm, GiB);
    assert_hmp(vm, "virtio-mem -s vm0 512", "");
    assert_hmp(vm, "info virtio-mem vm0", "  job: \"vm0\", 0 of 512 MiB\r\n");
    assert_hmp(vm, "virtio-mem vm0 2G", "");
    vm_wait_until(!virtio_mem_find_job(vm, vm->id));
    assert_hmp(vm, "info virtio-mem vm0", "  last resize: to 536870912, safe,"
               " stopped at 1073741824 after 0 s: superseded\r\n");
    virtio_mem_job_end(safe);
}

/* A job that cannot be named like @device, as HMP names that. */
static void assert_hmp_named_by_kind(VirtioMemGuest *vm, const char *device)
{
    g_autofree char *shrink = g_strdup_printf("virtio-mem -s %s 512", device);
    g_autofree char *end = g_strdup_printf("virtio-mem %s 0", device);
    QDict *job;

    assert_hmp(vm, shrink, "");
    job = virtio_mem_find_job(vm, "virtio-mem");
    g_assert_nonnull(job);
    qobject_unref(job);
    assert_hmp(vm, end, "");
    vm_wait_until(!virtio_mem_find_job(vm, "virtio-mem"));
}

/* It may have no ID, and then only a path names it; or one with a space. */
static void test_hmp_path(VirtioMemGuest *vm)
{
    VirtioMemSafe *safe = virtio_mem_job_begin_safe(vm);

    assert_hmp(vm, "info virtio-mem /machine/peripheral/vm0",
               "Memory device [virtio-mem]: \"vm0\"");
    assert_hmp(vm, "virtio-mem -s /machine/peripheral/vm0 512", "");
    g_assert_true(virtio_mem_job_is(vm, "running"));
    assert_hmp(vm, "virtio-mem /machine/peripheral/vm0 2G", "");
    vm_wait_until(!virtio_mem_find_job(vm, vm->id));
    assert_hmp(vm, "info virtio-mem " NAMELESS, "virtio-mem]: \"\"");
    assert_hmp_named_by_kind(vm, NAMELESS);
    assert_hmp_named_by_kind(vm, "\"vm 2\"");
    virtio_mem_job_end(safe);
}

static const VirtioMemTest tests[] = {
    { "", "job/done", test_done, .once = true },
    { "", "job/cancel-keeps", test_cancel, .once = true },
    { "", "job/stall-timeout", test_stall, .once = true },
    { "", "job/deadline", test_deadline, .once = true },
    { "", "job/superseded", test_superseded, .once = true },
    { "", "job/pause-and-resume", test_pause, .once = true },
    { "", "job/superseded-while-paused", test_pause_superseded,
      .once = true },
    { "", "job/stays-paused", test_pause_lasts, .once = true },
    { "", "job/cancelled-while-paused", test_pause_cancelled, .once = true },
    { "", "job/cancelled-after-a-pause", test_resume_cancelled,
      .once = true },
    { "", "job/properties-of-the-device", test_properties, &with_balloon,
      .once = true },
    { "", "job/safe", test_safe, &with_balloon, .once = true },
    { "", "job/gives-the-last-step-back", test_gives_back, &with_balloon,
      .once = true },
    { "", "job/unanswered", test_unanswered, &with_balloon, .once = true },
    { "", "job/unanswered-growth", test_unanswered_growth, &with_balloon,
      .once = true },
    { "", "job/refused", test_refused, &with_dimm, .once = true },
    { "", "job/hmp", test_hmp, &with_balloon, .once = true },
    { "", "job/hmp-by-path", test_hmp_path, &nameless, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
