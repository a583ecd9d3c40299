/*
 * virtio-mem: the door, with a fake host that refuses at each step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/virtio/virtio-mem-plug.h"
#include "virtio-mem-fake-host.h"

#define RANDOM_PROGRAMS 20
#define RANDOM_STEPS 5000

/* --- operations that change a range completely or not at all --- */

typedef struct Operation {
    const char *name;
    int (*run)(VirtIOMEM *vmem);
    bool prealloc;
    bool guard;
    bool pinned;                /* by those that listen */
    bool stale;                 /* unplugged memory may hold something */
    const char *log;            /* of a run without refusals */
    unsigned nb_fallible;       /* steps in it that may refuse */
    const char *after;
    bool may_lose;              /* refused, it may have given memory back */
} Operation;

static int plug_two_slots(VirtIOMEM *vmem)
{
    return virtio_mem_plug_range(vmem, (VirtIOMEMRange) { 4, 6 });
}

static int plug_last_block(VirtIOMEM *vmem)
{
    return virtio_mem_plug_range(vmem, (VirtIOMEMRange) { FAKE_BLOCKS - 1, 1 });
}

static int unplug_run(VirtIOMEM *vmem)
{
    return virtio_mem_unplug_range(vmem, (VirtIOMEMRange) { 14, 5 });
}

static int unplug_part(VirtIOMEM *vmem)
{
    return virtio_mem_unplug_range(vmem, (VirtIOMEMRange) { 15, 2 });
}

static const Operation operations[] = {
    {
        .name = "plug",
        .run = plug_two_slots,
        .log = "discard 4+6, map 4+6, ask 4+6, ask 4+6, ask 4+6, size 13, ",
        .nb_fallible = 1 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "plug-prealloc",
        .run = plug_two_slots,
        .prealloc = true,
        .log = "discard 4+6, populate 4+6, map 4+6, "
               "ask 4+6, ask 4+6, ask 4+6, size 13, ",
        .nb_fallible = 2 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "plug-last-block",
        .run = plug_last_block,
        .log = "discard 21+1, map 21+1, ask 21+1, ask 21+1, ask 21+1, size 8, ",
        .nb_fallible = 1 + FAKE_LISTENERS,
        .after = ".##...........#####..#",
    }, {
        .name = "unplug",
        .run = unplug_run,
        .log = "discard 14+5, tell 14+5, unmap 14+5, size 2, ",
        .nb_fallible = 1,
        .after = ".##...................",
    }, {
        .name = "unplug-part",
        .run = unplug_part,
        .log = "discard 15+2, tell 15+2, unmap 15+2, size 5, ",
        .nb_fallible = 1,
        .after = ".##...........#..##...",
    }, {
        .name = "unplug-all",
        .run = virtio_mem_unplug_all,
        .log = "discard 0+22, tell all, unmap 0+22, size 0, ",
        .nb_fallible = 1,
        .after = FAKE_EMPTY,
        .may_lose = true,
    }, {
        .name = "plug-guarded",
        .run = plug_two_slots,
        .guard = true,
        .log = "release 4+6, map 4+6, ask 4+6, ask 4+6, ask 4+6, size 13, ",
        .nb_fallible = 1 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "plug-guarded-prealloc",
        .run = plug_two_slots,
        .guard = true,
        .prealloc = true,
        .log = "release 4+6, populate 4+6, map 4+6, ask 4+6, ask 4+6, "
               "ask 4+6, size 13, ",
        .nb_fallible = 2 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "plug-guarded-pinned",
        .run = plug_two_slots,
        .guard = true,
        .pinned = true,
        .log = "release 4+6, populate 4+6, map 4+6, ask 4+6, ask 4+6, "
               "ask 4+6, size 13, ",
        .nb_fallible = 2 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "plug-guarded-stale",
        .run = plug_two_slots,
        .guard = true,
        .stale = true,
        .log = "discard 4+6, release 4+6, map 4+6, "
               "ask 4+6, ask 4+6, ask 4+6, size 13, ",
        .nb_fallible = 2 + FAKE_LISTENERS,
        .after = ".##.######....#####...",
    }, {
        .name = "unplug-guarded",
        .run = unplug_part,
        .guard = true,
        .log = "guard 15+2, discard 15+2, tell 15+2, unmap 15+2, size 5, ",
        .nb_fallible = 2,
        .after = ".##...........#..##...",
    }, {
        .name = "unplug-all-guarded",
        .run = virtio_mem_unplug_all,
        .guard = true,
        .log = "take back, guard 0+22, discard 0+22, tell all, unmap 0+22, "
               "size 0, ",
        .nb_fallible = 2,
        .after = FAKE_EMPTY,
        .may_lose = true,
    },
};

static void draw_for(FakeHost *host, const Operation *op)
{
    fake_host_draw(host, FAKE_SOME);
    host->vmem.prealloc = op->prealloc;
    host->has_pinned = op->pinned;
    if (op->guard) {
        fake_host_start_guard(host);
        host->is_clean = !op->stale;
    }
}

/* Host work, then announce, then record, which is when the size is told. */
static void test_order(gconstpointer opaque)
{
    const Operation *op = opaque;
    FakeHost host;

    draw_for(&host, op);
    g_assert_cmpint(op->run(&host.vmem), ==, 0);
    g_assert_cmpstr(host.log->str, ==, op->log);
    g_assert_cmpuint(fake_host_generation(&host), ==, 1);
    g_assert_cmpuint(host.nb_fallible, ==, op->nb_fallible);
    fake_host_assert_drawing(&host, op->after);
    fake_host_assert_agreement(&host);
    fake_host_destroy(&host);
}

static void test_refused(gconstpointer opaque)
{
    const Operation *op = opaque;

    for (unsigned n = 1; n <= op->nb_fallible; n++) {
        FakeBooks before;
        FakeHost host;

        draw_for(&host, op);
        before = host.books;
        fake_host_refuse_at(&host, n);

        g_assert_cmpint(op->run(&host.vmem), <, 0);

        g_assert_true(fake_host_has_refused(&host));
        g_assert_cmpuint(fake_host_generation(&host), ==, 0);
        fake_host_assert_drawing(&host, FAKE_SOME);
        fake_host_assert_books(&host, &before, op->may_lose);
        fake_host_assert_agreement(&host);
        fake_host_destroy(&host);
    }
}

/* After a refusal, the same can be had when nobody refuses any more. */
static void test_retried(gconstpointer opaque)
{
    const Operation *op = opaque;

    for (unsigned n = 1; n <= op->nb_fallible; n++) {
        FakeHost host;

        draw_for(&host, op);
        fake_host_refuse_at(&host, n);
        g_assert_cmpint(op->run(&host.vmem), <, 0);
        fake_host_refuse_at(&host, 0);
        g_assert_cmpint(op->run(&host.vmem), ==, 0);

        g_assert_cmpstr(host.log->str, ==, op->log);
        fake_host_assert_drawing(&host, op->after);
        fake_host_assert_agreement(&host);
        fake_host_destroy(&host);
    }
}

/* --- corners of plug and unplug --- */

/* The undo cannot be undone, but whoever asked hears the first reason. */
static void test_undo_refused(void)
{
    FakeBooks before;
    FakeHost host;

    fake_host_draw(&host, FAKE_SOME);
    host.vmem.prealloc = true;
    before = host.books;
    fake_host_refuse_at(&host, 3);
    host.refuse_next_at = 4;

    g_assert_cmpint(plug_two_slots(&host.vmem), ==, -EBUSY);

    g_assert_cmpstr(host.log->str, ==,
                    "discard 4+6, populate 4+6, map 4+6, ask 4+6, unmap 4+6, "
                    "discard 4+6, ");
    g_assert_cmpuint(host.nb_fallible, ==, 4);
    memcpy(host.books.memory, before.memory, sizeof(before.memory));
    fake_host_assert_books(&host, &before, false);
    fake_host_assert_agreement(&host);
    fake_host_destroy(&host);
}

/* What a guest wrote to unplugged blocks goes; a guard knows where that is. */
static void test_unplug_nothing(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    g_assert_cmpint(virtio_mem_unplug_all(&host.vmem), ==, 0);
    g_assert_cmpstr(host.log->str, ==, "discard 0+22, ");
    fake_host_refuse_at(&host, 1);
    g_assert_cmpint(virtio_mem_unplug_all(&host.vmem), ==, -EIO);

    fake_host_refuse_at(&host, 0);
    fake_host_start_guard(&host);
    g_assert_cmpint(virtio_mem_unplug_all(&host.vmem), ==, 0);
    g_assert_cmpint(virtio_mem_unplug_all(&host.vmem), ==, 0);
    g_assert_cmpstr(host.log->str, ==,
                    "take back, guard 0+22, discard 0+22, take back, ");
    g_assert_cmpuint(fake_host_generation(&host), ==, 0);
    fake_host_destroy(&host);
}

/* Which call of a PLUG that is: the first one discards. */
#define POPULATE 2

static void assert_reports(FakeHost *host, unsigned refuse_at, unsigned expect)
{
    const unsigned before = fake_nb_reports;

    fake_host_refuse_at(host, refuse_at);
    g_assert_cmpint(plug_last_block(&host->vmem), ==,
                    refuse_at ? -ENOMEM : 0);
    g_assert_cmpuint(fake_nb_reports - before, ==, expect);
}

/* A host that stays short of memory says so once: no flood of the log. */
static void test_reported_once(void)
{
    FakeHost host;

    fake_host_draw(&host, FAKE_EMPTY);
    host.vmem.prealloc = true;
    assert_reports(&host, POPULATE, 1);
    assert_reports(&host, POPULATE, 0);
    assert_reports(&host, 0, 0);
    virtio_mem_unplug_all(&host.vmem);
    assert_reports(&host, POPULATE, 1);
    fake_host_destroy(&host);
}

/* --- what only a caller can break is asserted, before anything changes --- */

static VirtIOMEMBlocks *bad_loaded;

static int bad_plug_range(VirtIOMEM *vmem)
{
    return virtio_mem_plug_range(vmem, (VirtIOMEMRange) { 12, 3 });
}

static int bad_unplug_range(VirtIOMEM *vmem)
{
    return virtio_mem_unplug_range(vmem, (VirtIOMEMRange) { 12, 3 });
}

static int bad_populate_loaded(VirtIOMEM *vmem)
{
    return virtio_mem_populate_loaded(vmem, bad_loaded, NULL);
}

static int bad_plug_loaded(VirtIOMEM *vmem)
{
    return virtio_mem_plug_loaded(vmem, bad_loaded, NULL);
}

static int bad_tell_size(VirtIOMEM *vmem)
{
    virtio_mem_tell_size(vmem);
    return 0;
}

typedef struct BadCall {
    const char *function;
    int (*run)(VirtIOMEM *vmem);
} BadCall;

static const BadCall bad_without_bql[] = {
    { "virtio_mem_plug_range", bad_plug_range },
    { "virtio_mem_unplug_range", bad_unplug_range },
    { "virtio_mem_unplug_all", virtio_mem_unplug_all },
    { "virtio_mem_populate_loaded", bad_populate_loaded },
    { "virtio_mem_plug_loaded", bad_plug_loaded },
    { "virtio_mem_discard_unplugged", virtio_mem_discard_unplugged },
    { "virtio_mem_tell_size", bad_tell_size },
};

/* Blocks 12 and 13 are unplugged, block 14 is not. */
static const BadCall bad_states[] = {
    { "virtio_mem_plug_range", bad_plug_range },
    { "virtio_mem_unplug_range", bad_unplug_range },
    { "virtio_mem_plug_loaded", bad_plug_loaded },
};

static void assert_trapped(const BadCall *call, const char *condition)
{
    g_autofree char *said = g_strdup_printf("*%s: Assertion*%s*failed*",
                                            call->function, condition);

    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(said);
}

static void test_without_bql(const void *opaque)
{
    const BadCall *call = opaque;
    VirtIOMEM vmem = { 0 };

    /* In this process, no fake host has taken it yet. */
    if (g_test_subprocess()) {
        call->run(&vmem);
        return;
    }
    assert_trapped(call, "bql_locked");
}

static void test_bad_state(const void *opaque)
{
    const BadCall *call = opaque;
    FakeHost host;

    if (g_test_subprocess()) {
        fake_host_draw(&host, FAKE_SOME);
        bad_loaded = virtio_mem_blocks_new(FAKE_BLOCKS);
        call->run(&host.vmem);
        return;
    }
    assert_trapped(call, "blocks");
}

/* --- random programs with random refusals --- */

/* The twin: what must be plugged. */
typedef struct HorribleDoor {
    char drawing[FAKE_BLOCKS + 1];
} HorribleDoor;

/* A range that can be flipped: around @at, in the state that @at is in. */
static VirtIOMEMRange random_run(const HorribleDoor *door)
{
    const uint64_t at = g_test_rand_int_range(0, FAKE_BLOCKS);
    const uint64_t max = g_test_rand_int_range(1, FAKE_BLOCKS + 1);
    VirtIOMEMRange range = { at, 1 };

    while (range.nb_blocks < max &&
           door->drawing[at + range.nb_blocks] == door->drawing[at]) {
        range.nb_blocks++;
    }
    return range;
}

static int random_operation(FakeHost *host, HorribleDoor *wanted)
{
    const VirtIOMEMRange range = random_run(wanted);
    const bool plug = wanted->drawing[range.first] == '.';

    if (g_test_rand_int_range(0, 50) == 0) {
        memset(wanted->drawing, '.', FAKE_BLOCKS);
        return virtio_mem_unplug_all(&host->vmem);
    }
    memset(wanted->drawing + range.first, plug ? '#' : '.', range.nb_blocks);
    return plug ? virtio_mem_plug_range(&host->vmem, range)
                : virtio_mem_unplug_range(&host->vmem, range);
}

static void random_step(FakeHost *host, HorribleDoor *door)
{
    const bool may_refuse = g_test_rand_int_range(0, 4) == 0;
    HorribleDoor wanted = *door;
    int ret;

    fake_host_refuse_at(host, may_refuse ? g_test_rand_int_range(1, 6) : 0);
    host->vmem.prealloc = g_test_rand_bit();
    ret = random_operation(host, &wanted);

    g_assert_cmpint(ret < 0, ==, fake_host_has_refused(host));
    if (!ret) {
        *door = wanted;
    }
    fake_host_assert_drawing(host, door->drawing);
    fake_host_assert_agreement(host);
}

static void test_random(void)
{
    for (unsigned i = 0; i < RANDOM_PROGRAMS; i++) {
        HorribleDoor door = { FAKE_EMPTY };
        FakeHost host;

        fake_host_init(&host);
        for (unsigned step = 0; step < RANDOM_STEPS; step++) {
            random_step(&host, &door);
        }
        fake_host_destroy(&host);
    }
}

static void add_operation(const Operation *op)
{
    static const struct {
        const char *claim;
        GTestDataFunc fn;
    } tests[] = {
        { "host-work-then-announce-then-record", test_order },
        { "refused-at-each-step-changes-nothing", test_refused },
        { "refused-can-be-retried", test_retried },
    };

    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-mem/door/%s/%s",
                                                op->name, tests[i].claim);

        g_test_add_data_func(path, op, tests[i].fn);
    }
}

static void add_bad_calls(const char *claim, const BadCall *calls, size_t nb,
                          GTestDataFunc fn)
{
    for (size_t i = 0; i < nb; i++) {
        g_autofree char *path = g_strdup_printf("/virtio-mem/door/%s/%s", claim,
                                                calls[i].function);

        g_test_add_data_func(path, &calls[i], fn);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        add_operation(&operations[i]);
    }
    g_test_add_func("/virtio-mem/door/plug-prealloc/undo-may-fail",
                    test_undo_refused);
    g_test_add_func("/virtio-mem/door/plug-prealloc/failures-reported-once",
                    test_reported_once);
    g_test_add_func("/virtio-mem/door/unplug-all/nothing-plugged",
                    test_unplug_nothing);
    add_bad_calls("needs-bql", bad_without_bql, ARRAY_SIZE(bad_without_bql),
                  test_without_bql);
    add_bad_calls("needs-other-state", bad_states, ARRAY_SIZE(bad_states),
                  test_bad_state);
    g_test_add_func("/virtio-mem/door/random-programs", test_random);
    return g_test_run();
}
