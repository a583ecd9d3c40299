/*
 * virtio-mem: all orders of the steps of guest, host, pool, guard and vCPUs
 *
 * In each, the invariants of docs/devel/virtio-mem.rst hold after each step,
 * the guest hears the right answers, and nothing waits for ever.  A quick run
 * varies the first choices of an order, one with "-m slow" more of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "hw/virtio/virtio-mem-flight.h"
#include "hw/virtio/virtio-mem-guard.h"
#include "hw/virtio/virtio-mem-migration.h"
#include "hw/virtio/virtio-mem-plug.h"
#include "hw/virtio/virtio-mem-region.h"
#include "hw/virtio/virtio-mem-request.h"
#include "hw/virtio/virtio-mem-wake.h"
#include "hw/virtio/virtio-mem-work.h"
#include "virtio-mem-model-device.h"

/* --- scenarios --- */

typedef enum HostEvent {
    HOST_DRAIN,                 /* the VM stops */
    HOST_RESET,
    HOST_SETUP,                 /* a migration: changes are forbidden */
    HOST_BEGIN,                 /* and the device hears of it */
    HOST_OVER,                  /* changes are allowed */
    HOST_END,                   /* and the device hears of it */
    HOST_LOAD,                  /* begins, in a machine that stands still */
    HOST_BLOCKS,                /* which are plugged is loaded, */
    HOST_PAGES,                 /* what they hold, */
    HOST_LOADED,                /* and all else of the device */
    HOST_POSTCOPY,              /* the guest will not wait for the pages */
    HOST_CLEANUP,               /* nothing is left to be loaded */
} HostEvent;

typedef struct GuestRequest {
    uint16_t type;
    unsigned first;
    unsigned nb;
} GuestRequest;

#define PLUG(first, nb) { VIRTIO_MEM_REQ_PLUG, first, nb }
#define UNPLUG(first, nb) { VIRTIO_MEM_REQ_UNPLUG, first, nb }
#define UNPLUG_ALL { VIRTIO_MEM_REQ_UNPLUG_ALL }

typedef struct Scenario {
    const char *name;
    ModelDevice device;
    GuestRequest guest[4];
    unsigned nb_requests;
    HostEvent host[7];
    unsigned nb_events;
    const char *rogues[MODEL_ROGUES];
    unsigned loaded;            /* a bit for each block */
} Scenario;

#define MIGRATION(...) \
    .host = { HOST_SETUP, HOST_BEGIN, HOST_OVER, HOST_END, __VA_ARGS__ }

static const Scenario scenarios[] = {
    { "plug/drain", { .prealloc = true },
      { PLUG(0, 2), PLUG(0, 2) }, 2, { HOST_DRAIN }, 1, { "01" } },
    { "plug/reset", { .prealloc = true },
      { PLUG(0, 3) }, 1, { HOST_RESET }, 1, { "0", "2" } },
    { "plug/migration", { .prealloc = true, .plugged = 1 },
      { PLUG(1, 2), UNPLUG(0, 1) }, 2, MIGRATION(), 4, { "1" } },
    { "plug/snapshot", { .snapshot = true, .plugged = 1 },
      { PLUG(1, 1), PLUG(2, 1) }, 2, MIGRATION(), 4, { "12" } },
    { "unplug/drain", { .plugged = 3 },
      { UNPLUG(0, 2), PLUG(0, 1) }, 2, { HOST_DRAIN }, 1, { "0", "1" } },
    { "unplug/reset", { .plugged = 7 },
      { UNPLUG(1, 2) }, 1, { HOST_RESET }, 1, { "1", "2" } },
    { "unplug/migration", { .plugged = 7 },
      { UNPLUG(0, 2), UNPLUG_ALL }, 2, MIGRATION(), 4, { "0" } },
    { "unplug/snapshot", { .snapshot = true, .plugged = 3 },
      { UNPLUG(0, 1), UNPLUG(1, 1) }, 2, MIGRATION(), 4, { "02" } },
    { "unplug-all/reset", { .plugged = 5 },
      { UNPLUG_ALL, PLUG(0, 1) }, 2, { HOST_RESET }, 1, { "0", "2" } },
    { "reset/snapshot", { .snapshot = true, .plugged = 3 },
      { UNPLUG(0, 1) }, 1, MIGRATION(HOST_RESET), 5, { "02" } },
    { "load/early", { .plugged = 3 }, { UNPLUG(0, 1), PLUG(1, 1) }, 2,
      { HOST_LOAD, HOST_BLOCKS, HOST_PAGES, HOST_LOADED, HOST_CLEANUP }, 5,
      { "0", "1" }, 5 },
    { "load/late", { .plugged = 3 }, { UNPLUG(0, 1), PLUG(1, 1) }, 2,
      { HOST_LOAD, HOST_PAGES, HOST_BLOCKS, HOST_LOADED, HOST_CLEANUP }, 5,
      { "0", "1" }, 5 },
    { "load/postcopy", { .prealloc = true }, { PLUG(1, 1), PLUG(1, 1) }, 2,
      { HOST_LOAD, HOST_BLOCKS, HOST_POSTCOPY, HOST_LOADED, HOST_PAGES,
        HOST_CLEANUP, HOST_OVER }, 7, { "0", "1" }, 5 },
};

/* --- the state of one run --- */

static const Scenario *scenario;

static struct {
    unsigned nb_requests;       /* done */
    unsigned nb_events;
    bool is_forbidden;          /* to change the set, which is */
    unsigned forbidden;
    bool is_stopped;            /* the guest, */
    bool is_loading;            /* and its device is half of each */
} done;

/* --- the guest --- */

static unsigned request_bits(const GuestRequest *request)
{
    return request->type == VIRTIO_MEM_REQ_UNPLUG_ALL
           ? MAKE_64BIT_MASK(0, MODEL_BLOCKS)
           : MAKE_64BIT_MASK(request->first, request->nb);
}

/* As the specification has it. */
static uint16_t guest_expect(const GuestRequest *request)
{
    const unsigned bits = request_bits(request);
    const bool is_plug = request->type == VIRTIO_MEM_REQ_PLUG;
    const bool is_forbidden = virtio_mem_migration_forbids_change();

    if (request->type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        return is_forbidden && model_plugged() ? VIRTIO_MEM_RESP_BUSY
                                               : VIRTIO_MEM_RESP_ACK;
    }
    if ((model_plugged() & bits) != (is_plug ? 0 : bits)) {
        return VIRTIO_MEM_RESP_ERROR;
    }
    return is_forbidden ? VIRTIO_MEM_RESP_BUSY : VIRTIO_MEM_RESP_ACK;
}

static void guest_own(unsigned bits, bool own)
{
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        ModelPage *page = &model.pages[i];

        if (!extract32(bits, i, 1)) {
            continue;
        }
        if (own && (page->lent || (page->epoch && page->epoch < model.epoch))) {
            model_fail("I4: a new block has old content");
        }
        page->owned = own;
        if (own) {
            page->present = true;
            page->epoch = model.epoch;
        }
    }
}

static void guest_hear(const GuestRequest *request, unsigned before,
                       uint16_t expected, uint16_t answer)
{
    const bool is_plug = request->type == VIRTIO_MEM_REQ_PLUG;
    const unsigned bits = request_bits(request);

    /* Only what populates is given up when the device is drained. */
    if (answer != expected &&
        !(answer == VIRTIO_MEM_RESP_BUSY && expected == VIRTIO_MEM_RESP_ACK &&
          is_plug && scenario->device.prealloc)) {
        model_fail("the answer is wrong");
    }
    if (answer != VIRTIO_MEM_RESP_ACK) {
        if (model_plugged() != before) {
            model_fail("I8: a request that was refused has changed something");
        }
        return;
    }
    if (model_plugged() != (is_plug ? before | bits : before & ~bits)) {
        model_fail("I8: a request was not done completely");
    }
    if (is_plug) {
        guest_own(bits, true);
    }
}

static void coroutine_fn guest_co(void *opaque)
{
    const GuestRequest *request = opaque;
    const VirtIOMEMRequest req = {
        .type = request->type,
        .gpa = MODEL_ADDR + request->first * MODEL_BLOCK,
        .nb_blocks = request->nb,
    };
    const unsigned before = model_plugged();
    const uint16_t expected = guest_expect(request);
    VirtIOMEMResponse response;

    virtio_mem_flight_begin(&model_vmem);
    if (expected == VIRTIO_MEM_RESP_ACK &&
        request->type != VIRTIO_MEM_REQ_PLUG) {
        guest_own(request_bits(request), false);
    }
    response = virtio_mem_request_serve(&model_vmem, &req);
    guest_hear(request, before, expected, response.type);
    if (response.type == VIRTIO_MEM_RESP_BUSY && !model_world.must_wake) {
        model_fail("I9: a guest that heard BUSY will not be woken");
    }
    virtio_mem_flight_end(&model_vmem);
}

static bool guest_can(void)
{
    return done.nb_requests < scenario->nb_requests && !done.is_stopped &&
           !virtio_mem_is_in_flight(&model_vmem);
}

static void guest_run(void)
{
    const GuestRequest *request = &scenario->guest[done.nb_requests++];

    model.epoch++;
    qemu_coroutine_enter(qemu_coroutine_create(guest_co, (void *)request));
}

/* --- the host --- */

static void host_notify(MigrationEventType type)
{
    model_device_notify(type);
    if (virtio_mem_is_in_flight(&model_vmem)) {
        model_fail("a request is in flight after a drain");
    }
}

static void host_reset(void)
{
    const bool may_discard = !model_world.migrating;

    model_device_reset();
    if (may_discard && model_plugged()) {
        model_fail("a reset has left blocks plugged");
    }
    if (may_discard) {
        guest_own(request_bits(&(GuestRequest) UNPLUG_ALL), false);
    }
}

static void host_forbid(void)
{
    done.is_forbidden = true;
    done.forbidden = model_plugged();
}

/* --- the host: a load --- */

static void load_begin(void)
{
    virtio_mem_drain(&model_vmem);
    host_reset();
    if (model.seed != MODEL_NO_PAUSE) {
        model_device_load_setup();
    }
    done.is_stopped = true;
    done.is_loading = true;
}

static void load_blocks(void)
{
    VirtIOMEMBlocks *loaded = virtio_mem_blocks_new(MODEL_BLOCKS);

    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (extract32(scenario->loaded, i, 1)) {
            virtio_mem_blocks_set_plugged(loaded, (VirtIOMEMRange) { i, 1 });
        }
    }
    virtio_mem_plug_loaded(&model_vmem, loaded, &error_abort);
    virtio_mem_blocks_free(loaded);
}

static void load_pages(void)
{
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        ModelPage *page = &model.pages[i];

        if (!extract32(scenario->loaded, i, 1)) {
            continue;
        }
        if (page->watched || page->lent) {
            model_fail("what is loaded is lost where memory is watched");
        }
        page->present = true;
        page->owned = true;
        page->epoch = model.epoch;
    }
}

static void load_end(void)
{
    virtio_mem_migration_loaded(&model_vmem, &error_abort);
    virtio_mem_tell_size(&model_vmem);
    virtio_mem_wake_later(&model_vmem);
    done.is_loading = false;
    if (model_world.postcopy) {
        done.is_stopped = false;
        host_forbid();
    }
}

static void load_run(HostEvent event)
{
    switch (event) {
    case HOST_LOAD:
        load_begin();
        break;
    case HOST_BLOCKS:
        load_blocks();
        break;
    case HOST_PAGES:
        load_pages();
        break;
    case HOST_LOADED:
        load_end();
        break;
    case HOST_POSTCOPY:
        model_world.postcopy = true;
        break;
    case HOST_CLEANUP:
        if (model.seed != MODEL_NO_CLEANUP) {
            model_device_load_cleanup();
        }
        done.is_stopped = false;
        break;
    default:
        g_assert_not_reached();
    }
}

/* --- the host: events --- */

static bool host_can(void)
{
    return done.nb_events < scenario->nb_events;
}

static void host_run(void)
{
    const HostEvent event = scenario->host[done.nb_events++];

    switch (event) {
    case HOST_DRAIN:
        virtio_mem_drain(&model_vmem);
        if (virtio_mem_is_in_flight(&model_vmem)) {
            model_fail("a request is in flight after a drain");
        }
        break;
    case HOST_RESET:
        host_reset();
        break;
    case HOST_SETUP:
        model_world.migrating = true;
        break;
    case HOST_BEGIN:
        if (model.seed != MODEL_NO_DRAIN) {
            host_notify(MIG_EVENT_PRECOPY_SETUP);
        }
        host_forbid();
        break;
    case HOST_OVER:
        model_world.migrating = false;
        model_world.postcopy = false;
        done.is_forbidden = false;
        break;
    case HOST_END:
        host_notify(MIG_EVENT_PRECOPY_FAILED);
        if (model_world.must_wake) {
            model_fail("I9: a guest that heard BUSY is not woken");
        }
        break;
    default:
        load_run(event);
    }
}

/* --- what must be true --- */

static void check(void)
{
    model_device_check(!done.is_loading);
    if (done.is_forbidden && model_plugged() != done.forbidden) {
        model_fail("I7: the set changes during a migration");
    }
}

/* --- all orders --- */

static void begin(void)
{
    memset(&done, 0, sizeof(done));
    model_begin();
    model_device_begin(&scenario->device);
    guest_own(model_plugged(), true);
    check();
}

static unsigned explore(unsigned depth)
{
    static const ModelStep steps[] = {
        { "request", guest_can, guest_run },
        { "event", host_can, host_run },
        { "timer", model_timer_is_pending, model_timer_expire },
        { }
    };
    unsigned nb = 0;

    memcpy(model.rogues, scenario->rogues, sizeof(model.rogues));
    model_explore(depth);
    do {
        begin();
        model_run(steps, check);
        if (virtio_mem_is_in_flight(&model_vmem)) {
            model_fail("a request is not answered");
        }
        if (!virtio_mem_guard_is_active(model_vmem.guard)) {
            model_fail("I13: the guard is paused for good");
        }
        model_device_end();
        model_end();
        nb++;
    } while (model_next());
    return nb;
}

static void test_scenario(const void *opaque)
{
    unsigned nb;

    scenario = opaque;
    nb = explore(g_test_slow() ? 13 : 7);
    g_test_message("%u orders", nb);
    g_assert_cmpuint(nb, >, 100);
}

/* --- faults are found --- */

typedef struct Seeded {
    const char *name;
    ModelSeed seed;
    const char *scenario;
    const char *found;
} Seeded;

static const Seeded seeded[] = {
    { "no-drain", MODEL_NO_DRAIN, "unplug/migration", "I7" },
    { "no-wake", MODEL_NO_WAKE, "plug/drain", "a vCPU waits for ever" },
    { "late-watch", MODEL_LATE_WATCH, "unplug/drain", "I" },
    { "no-discard", MODEL_NO_DISCARD, "unplug/drain", "I4" },
    { "no-bh", MODEL_NO_BH, "unplug/drain", "a request is not answered" },
    { "no-pause", MODEL_NO_PAUSE, "load/late", "what is loaded is lost" },
    { "no-cleanup", MODEL_NO_CLEANUP, "load/postcopy", "I13" },
};

static void test_seeded(const void *opaque)
{
    const Seeded *fault = opaque;
    g_autofree char *said = g_strdup_printf("*model: *%s*", fault->found);

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr(said);
        return;
    }
    for (scenario = scenarios; strcmp(scenario->name, fault->scenario);
         scenario++) {
        continue;
    }
    model.seed = fault->seed;
    explore(10);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    model_device_register();

    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-mem/model/%s",
                                                scenarios[i].name);

        g_test_add_data_func(path, &scenarios[i], test_scenario);
    }
    for (size_t i = 0; i < ARRAY_SIZE(seeded); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-mem/model/seeded/%s",
                                                seeded[i].name);

        g_test_add_data_func(path, &seeded[i], test_seeded);
    }
    return g_test_run();
}
