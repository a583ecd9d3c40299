/*
 * virtio-mem: random programs of a hostile guest against a naive model
 *
 * A program is a sequence of random steps: requests with values around every
 * edge, batches, chains cut at random, garbage in the ring, resets, and a host
 * that changes the requested size meanwhile.  The model predicts each answer;
 * after garbage in the ring it can only ask the device and check that what it
 * says is consistent.  No step may make QEMU abort, hang, or grow for good.
 *
 * GLib prints the seed; --seed=... repeats a program.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-model.h"

#define MAX_BATCH       16
#define MAX_SEGMENTS    8
/*
 * What a heap may grow by without anything being wrong.  Losing one queue
 * element per request takes more.
 */
#define HEAP_SLACK      (640 * KiB)

/* --- steps --- */

static void step_request(HostileModel *m)
{
    VmRequest req = random_request(m);

    model_check_answer(m, &req, virtio_mem_request(m->vm, &req));
    model_read_usable(m, false, req.type == VIRTIO_MEM_REQ_UNPLUG_ALL);
}

/*
 * Several requests with one kick.  Not UNPLUG ALL: it may change U, which the
 * model would have to know before the next answer.
 */
static void step_batch(HostileModel *m)
{
    uint64_t req_gpa = m->buffers.req_gpa, resp_gpa = m->buffers.resp_gpa;
    VmRequest reqs[MAX_BATCH];
    unsigned nb = 1 + random_below(MAX_BATCH);

    for (unsigned i = 0; i < nb; i++) {
        VirtioMemSegment segments[] = {
            virtio_mem_readable(m->vm, req_gpa + 32 * i, VM_REQUEST_SIZE),
            virtio_mem_writable(m->vm, resp_gpa + 32 * i, VM_RESPONSE_SIZE),
        };

        do {
            reqs[i] = random_request(m);
        } while (reqs[i].type == VIRTIO_MEM_REQ_UNPLUG_ALL);
        virtio_mem_write_request(m->vm, req_gpa + 32 * i, &reqs[i]);
        virtio_mem_add_chain(m->vm, segments, ARRAY_SIZE(segments));
    }
    virtio_mem_kick(m->vm);
    for (unsigned i = 0; i < nb; i++) {
        virtio_mem_wait_used(m->vm);
        model_check_answer(m, &reqs[i],
                           virtio_mem_read_answer(m->vm, resp_gpa + 32 * i));
    }
}

/* A good request in bad pieces: served when its form is right, else broken. */
static void step_chain(HostileModel *m)
{
    VirtioMemSegment segments[MAX_SEGMENTS];
    VmRequest req = random_request(m);
    unsigned nb = 1 + random_below(MAX_SEGMENTS);
    uint32_t readable = 0, writable = 0;
    bool good = true;

    virtio_mem_write_request(m->vm, m->buffers.req_gpa, &req);
    for (unsigned i = 0; i < nb; i++) {
        uint32_t len = random_one_in(20) ? 0 : 1 + random_below(24);

        if (i > random_below(nb)) {
            segments[i] = virtio_mem_writable(
                m->vm, m->buffers.resp_gpa + writable, len);
            writable += len;
        } else {
            segments[i] = virtio_mem_readable(
                m->vm, m->buffers.req_gpa + readable, len);
            readable += len;
            good &= writable == 0;
        }
        good &= len != 0;
    }
    good &= readable >= VM_REQUEST_SIZE && writable >= VM_RESPONSE_SIZE;
    g_assert_cmpint(virtio_mem_send_chain(m->vm, segments, nb, NULL), ==,
                    good);
    if (good) {
        model_check_answer(m, &req,
                           virtio_mem_read_answer(m->vm, m->buffers.resp_gpa));
        model_read_usable(m, false, req.type == VIRTIO_MEM_REQ_UNPLUG_ALL);
    } else {
        g_assert_true(virtio_mem_take_config_irq(m->vm));
        virtio_mem_restart_driver(m->vm);
    }
}

/* --- garbage --- */

static uint64_t garbage_addr(HostileModel *m)
{
    const VirtioMemGuest *vm = m->vm;
    const uint64_t gpas[] = {
        m->buffers.req_gpa, m->buffers.resp_gpa, vm->ring.desc,
        vm->ring.driver, vm->ring.device, random_addr(m), VM_NO_MEMORY,
        VM_ROM, VM_IOAPIC, vm->pci->bar.addr, vm->pci->bar.addr +
        vm->pci->common_cfg_offset + 20, random_below(0),
    };

    return gpas[random_below(ARRAY_SIZE(gpas))] + vm->dma_offset;
}

static uint32_t garbage_len(void)
{
    static const uint32_t lens[] = { 0, 1, 10, 16, 24, 32, 48, UINT32_MAX };

    return random_one_in(4) ? random_below(0)
                            : lens[random_below(ARRAY_SIZE(lens))];
}

/* What the device made of garbage: anything, as long as it is consistent. */
static void garbage_resync(HostileModel *m)
{
    VirtioMemSnapshot *now;

    virtio_mem_settle(m->vm);
    virtio_mem_restart_driver(m->vm);
    virtio_mem_take_config_irq(m->vm);
    m->nb_usable = virtio_mem_usable_blocks(m->vm);
    now = virtio_mem_snapshot(m->vm);
    for (uint64_t i = 0; i < NB_BLOCKS; i++) {
        bool plugged = i < now->nb_blocks && test_bit(i, now->bitmap);

        /* Not known: it may have been unplugged and plugged meanwhile. */
        m->plugged[i] = plugged;
        m->stamp[i] = 0;
        if (plugged) {
            qtest_writeq(m->vm->qts, virtio_mem_block_gpa(m->vm, i), 0);
        }
    }
    virtio_mem_snapshot_free(now);
}

static void step_garbage(HostileModel *m)
{
    VirtioMemRing *ring = &m->vm->ring;
    unsigned nb = 1 + random_below(8);

    for (unsigned i = 0; i < nb; i++) {
        virtio_mem_ring_write_desc(ring, (ring->next_free + i) %
                                         ring->opts.size,
                                   garbage_addr(m), garbage_len(),
                                   random_below(random_one_in(2) ? 8 : 65536),
                                   random_below(16) ? ring->next_free + i + 1
                                                    : random_below(0));
    }
    virtio_mem_ring_publish(ring, ring->next_free, 1);
    if (!ring->opts.packed && random_one_in(4)) {
        virtio_mem_ring_set_avail_idx(ring, random_below(0));
    }
    virtio_mem_kick_force(m->vm);
    garbage_resync(m);
}

/* --- host and resets --- */

static void step_resize(HostileModel *m)
{
    m->nb_requested = random_below(random_one_in(3) ? NB_BLOCKS + 1 : 32);
    virtio_mem_set_requested(m->vm, m->nb_requested * HOSTILE_BLOCK);
    model_read_usable(m, true, false);
}

static void step_bad_resize(HostileModel *m)
{
    static const char *values[] = {
        "1", "4096", "12582912", "1082130432", "18446744073709551615",
        "18446744073701163008", "9223372036854775808", "-8388608", "true",
        "\"many\"", "null",
    };
    const char *value = values[random_below(ARRAY_SIZE(values))];
    bool ok = virtio_mem_try_requested(m->vm, value, NULL);

    g_assert_false(ok);
    g_assert_false(virtio_mem_take_config_irq(m->vm));
    model_read_usable(m, false, false);
}

static void step_device_reset(HostileModel *m)
{
    virtio_mem_restart_driver(m->vm);
    model_read_usable(m, false, false);
}

static void step_system_reset(HostileModel *m)
{
    virtio_mem_system_reset(m->vm);
    virtio_mem_restart_driver(m->vm);
    virtio_mem_take_config_irq(m->vm);
    model_set(m, 0, NB_BLOCKS, false);
    model_read_usable(m, false, true);
}

/* Plugged memory keeps what it is given; new memory holds nothing. */
static void step_stamp(HostileModel *m)
{
    for (uint64_t i = 0; i < NB_BLOCKS; i++) {
        uint64_t gpa = virtio_mem_block_gpa(m->vm, i);

        if (!m->plugged[i]) {
            continue;
        }
        g_assert_cmphex(qtest_readq(m->vm->qts, gpa), ==, m->stamp[i]);
        if (random_one_in(4)) {
            m->stamp[i] = random_below(0);
            qtest_writeq(m->vm->qts, gpa, m->stamp[i]);
        }
    }
}

/* --- programs --- */

static const HostileStep steps[] = {
    { 600, step_request },
    { 100, step_batch },
    { 100, step_chain },
    { 30, step_garbage },
    { 60, step_resize },
    { 20, step_bad_resize },
    { 20, step_device_reset },
    { 2, step_system_reset },
    { 10, step_stamp },
};

static void program_check(HostileModel *m)
{
    g_autoptr(VirtioMemSnapshot) now = virtio_mem_snapshot(m->vm);

    for (uint64_t i = 0; i < m->nb_usable; i++) {
        g_assert_cmpint(test_bit(i, now->bitmap), ==, m->plugged[i]);
    }
    vm_assert_plugged(m->vm, model_count(m, 0, NB_BLOCKS));
    g_assert_cmpuint(virtio_mem_requested_blocks(m->vm), ==, m->nb_requested);
    virtio_mem_check_invariants(m->vm);
}

static void program_run(HostileModel *m, unsigned nb_steps)
{
    for (unsigned i = 1; i <= nb_steps; i++) {
        random_step(m, steps, ARRAY_SIZE(steps));
        if (i % 100 == 0) {
            program_check(m);
        }
    }
}

static HostileModel *program_start(VirtioMemGuest *vm)
{
    HostileModel *m = g_new0(HostileModel, 1);

    m->vm = vm;
    m->buffers = virtio_mem_alloc_buffers(vm);
    m->nb_usable = virtio_mem_usable_blocks(vm);
    return m;
}

/* --- what QEMU takes from the host --- */

static unsigned host_nb_fds(VirtioMemGuest *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            qtest_pid(vm->qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    unsigned nb = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        nb++;
    }
    g_dir_close(dir);
    return nb;
}

static void test_random_program(VirtioMemGuest *vm)
{
    g_autofree HostileModel *m = program_start(vm);

    program_run(m, 500);
    program_check(m);
}

/* The first part brings heap, caches and rings to their working size. */
static void test_long_program(VirtioMemGuest *vm)
{
    g_autofree HostileModel *m = program_start(vm);
    unsigned nb_steps = g_test_slow() ? 100000 : 2500;
    uint64_t memory;
    unsigned nb_fds;

    program_run(m, 500);
    step_system_reset(m);
    memory = virtio_mem_host_memory(vm);
    nb_fds = host_nb_fds(vm);
    program_run(m, nb_steps);
    program_check(m);
    step_system_reset(m);
    virtio_mem_assert_gain(vm, memory, HEAP_SLACK);
    g_assert_cmpuint(host_nb_fds(vm), ==, nb_fds);
}

static const VirtioMemOptions small_region = {
    .block_size = HOSTILE_BLOCK,
    .region_size = HOSTILE_REGION,
};
static const VirtioMemOptions memslots = {
    .block_size = HOSTILE_BLOCK,
    .region_size = HOSTILE_REGION,
    .device = "dynamic-memslots=on",
};
static const VirtioMemOptions populated = {
    .block_size = HOSTILE_BLOCK,
    .region_size = HOSTILE_REGION,
    .device = "prealloc=on",
};

static const VirtioMemTest tests[] = {
    { "T067", "hostile/random-program-matches-a-model", test_random_program,
      .options = &small_region },
    { "T067", "hostile/long-program-takes-nothing-from-the-host",
      test_long_program, .once = true, .options = &small_region },
    { "T067", "hostile/long-program-with-memslots", test_long_program,
      .once = true, .options = &memslots },
    { "T067", "hostile/random-program-with-prealloc", test_random_program,
      .once = true, .options = &populated },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
