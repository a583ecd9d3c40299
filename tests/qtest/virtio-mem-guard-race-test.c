/*
 * virtio-mem: a rogue uses all of the memory beside plug and unplug
 *
 * Random accesses and random requests, and a model that knows what each block
 * must contain.  Where the host has to work for a request, it is held in
 * flight, and the accesses go on meanwhile.  With "-m slow", a million of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-hold.h"

#define RACE_REGION (512 * MiB)
#define RACE_BLOCKS (RACE_REGION / VM_BLOCK)
#define RACE_MAX_NB 48
#define RACE_ACCESSES 50

/* More than one slice is never given back in place, if the host is held. */
#define RACE_IN_PLACE 16

/* What is lent, page tables of all blocks, and some for QEMU. */
#define RACE_SLACK (3 * MiB)

/* Words of those who obey: so many in a block, at equal distances. */
#define RACE_WORDS 8

/* What a rogue writes at a time, behind such a word. */
#define RACE_ROGUE_SIZE (64 * KiB)

typedef struct Race {
    VirtioMemGuest *vm;
    bool populates;             /* for a PLUG, the host has to work */
    bool plugged[RACE_BLOCKS];
    uint64_t nb_plugged;
    uint64_t words[RACE_BLOCKS][RACE_WORDS];
    uint64_t first;             /* of the request in flight, if any */
    uint64_t nb;
    uint64_t memory;            /* what QEMU had at first */
} Race;

/* --- accesses --- */

static bool race_in_flight(const Race *race, uint64_t block)
{
    return block >= race->first && block - race->first < race->nb;
}

/* A guest that obeys uses plugged blocks; they keep what was written. */
static void race_obey(Race *race, uint64_t block, int i, uint64_t gpa)
{
    QTestState *qts = race->vm->qts;
    uint64_t seen;

    if (race->plugged[block] && !race_in_flight(race, block) &&
        g_test_rand_bit()) {
        race->words[block][i] = (uint32_t)g_test_rand_int();
        qtest_writeq(qts, gpa, race->words[block][i]);
        return;
    }
    seen = qtest_readq(qts, gpa);
    if (seen || !race_in_flight(race, block)) {
        g_assert_cmphex(seen, ==, race->words[block][i]);
    }
}

/* Rogues write the same byte to a block at any time, and may find it or not. */
static void race_disobey(Race *race, uint64_t block, uint64_t gpa)
{
    QTestState *qts = race->vm->qts;
    const uint8_t byte = block % 255 + 1;
    uint8_t seen;

    if (g_test_rand_bit()) {
        qtest_memset(qts, gpa, byte, RACE_ROGUE_SIZE);
        return;
    }
    seen = qtest_readb(qts, gpa + g_test_rand_int_range(0, RACE_ROGUE_SIZE));
    if (seen) {
        g_assert_cmphex(seen, ==, byte);
    }
}

static void race_access(Race *race)
{
    for (int n = 0; n < RACE_ACCESSES; n++) {
        const bool near = race->nb && g_test_rand_bit();
        const uint64_t block = near ? race->first + g_test_rand_int_range(
                                          0, race->nb)
                                    : g_test_rand_int_range(0, RACE_BLOCKS);
        const int i = g_test_rand_int_range(0, RACE_WORDS);
        const uint64_t gpa = virtio_mem_block_gpa(race->vm, block) +
                             i * (VM_BLOCK / RACE_WORDS);

        if (g_test_rand_bit()) {
            race_obey(race, block, i, gpa);
        } else {
            race_disobey(race, block, gpa + RACE_ROGUE_SIZE);
        }
    }
}

/* --- requests --- */

/* Some blocks that are alike. */
static void race_choose(Race *race)
{
    const uint64_t max = g_test_rand_int_range(1, RACE_MAX_NB + 1);

    race->first = g_test_rand_int_range(0, RACE_BLOCKS);
    race->nb = 1;
    while (race->nb < max && race->first + race->nb < RACE_BLOCKS &&
           race->plugged[race->first + race->nb] ==
           race->plugged[race->first]) {
        race->nb++;
    }
}

/* Send the request; while the host works for it, use the memory. */
static void race_request(Race *race, bool plug)
{
    const bool held = plug ? race->populates : race->nb > RACE_IN_PLACE;
    VirtioMemHeld call;

    if (held) {
        virtio_mem_hold_begin();
    }
    virtio_mem_queue_request(race->vm, &(VmRequest) {
        .type = plug ? VIRTIO_MEM_REQ_PLUG : VIRTIO_MEM_REQ_UNPLUG,
        .addr = virtio_mem_block_gpa(race->vm, race->first),
        .nb_blocks = race->nb });
    virtio_mem_kick(race->vm);
    if (held) {
        call = virtio_mem_hold_next(plug ? VM_HOST_POPULATE : VM_HOST_DISCARD);
        virtio_mem_hold_end();
        race_access(race);
        virtio_mem_hold_release(call, 0);
    }
    virtio_mem_wait_used(race->vm);
    g_assert_cmpuint(virtio_mem_read_answer(race->vm, 0).type, ==,
                     VIRTIO_MEM_RESP_ACK);
}

static void race_change(Race *race)
{
    bool plug;

    race_choose(race);
    plug = !race->plugged[race->first];
    race_request(race, plug);
    for (uint64_t i = race->first; i < race->first + race->nb; i++) {
        race->plugged[i] = plug;
        memset(race->words[i], 0, sizeof(race->words[i]));
    }
    race->nb_plugged += plug ? race->nb : -race->nb;
    race->nb = 0;
    virtio_mem_assert_gain(race->vm, race->memory,
                           race->nb_plugged * VM_BLOCK + RACE_SLACK);
}

/* --- all of it --- */

static void race_run(const char *device, const char *memdev, bool populates)
{
    const VirtioMemOptions opts = {
        .region_size = RACE_REGION, .memdev = memdev, .device = device,
    };
    const int nb_changes = g_test_slow() ? 20000 : 150;
    g_autofree Race *race = g_new0(Race, 1);
    VirtioMemGuest *vm = virtio_mem_hold_start(&opts);

    race->vm = vm;
    race->populates = populates;
    virtio_mem_set_requested(vm, RACE_REGION);
    race_access(race);
    race->memory = virtio_mem_host_memory(vm);
    for (int i = 0; i < nb_changes; i++) {
        race_change(race);
        race_access(race);
    }
    for (uint64_t i = 0; i < RACE_BLOCKS; i++) {
        g_assert_cmpuint(vm_state(vm, i, 1).state, ==,
                         race->plugged[i] ? VIRTIO_MEM_STATE_PLUGGED
                                          : VIRTIO_MEM_STATE_UNPLUGGED);
    }
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_assert_gain(vm, race->memory, RACE_SLACK);
    virtio_mem_guest_stop(vm);
}

static void test_plain(VirtioMemGuest *unused)
{
    race_run("protect-unplugged=on,prealloc-threads=1", NULL, false);
}

static void test_prealloc(VirtioMemGuest *unused)
{
    race_run("protect-unplugged=on,prealloc=on,prealloc-threads=1", NULL,
             true);
}

static void test_memfd(VirtioMemGuest *unused)
{
    race_run("protect-unplugged=on,prealloc=on,prealloc-threads=1",
             "memory-backend-memfd,id=vmem0,size=512M", true);
}

/* --- another machine --- */

/* So much that QEMU gives its own buffer back each time. */
#define ROGUE_CHUNK (64 * MiB)
#define ROGUE_MIN_CHUNKS 8
#define ROGUE_REGION (8 * GiB)

typedef struct Rogue {
    VirtioMemGuest *vm;
    QemuThread thread;
    uint64_t nb_chunks;         /* atomic: written so far */
    bool stop;                  /* atomic */
} Rogue;

static void *rogue_thread(void *opaque)
{
    Rogue *rogue = opaque;
    uint64_t n = 0;

    while (!qatomic_read(&rogue->stop)) {
        qtest_memset(rogue->vm->qts, rogue->vm->addr +
                     n * ROGUE_CHUNK % ROGUE_REGION, 0x55, ROGUE_CHUNK);
        qatomic_set(&rogue->nb_chunks, ++n);
    }
    return NULL;
}

/* The rogue gains nothing, and who obeys goes on in another QEMU. */
static void test_other_machine(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .region_size = ROGUE_REGION, .device = "protect-unplugged=on",
    };
    Rogue rogue = { .vm = virtio_mem_guest_start(&opts) };
    uint64_t before;

    qtest_memset(rogue.vm->qts, rogue.vm->addr, 0x55, ROGUE_CHUNK);
    before = virtio_mem_host_memory(rogue.vm);
    qemu_thread_create(&rogue.thread, "rogue", rogue_thread, &rogue,
                       QEMU_THREAD_JOINABLE);
    test_prealloc(NULL);
    vm_wait_until(qatomic_read(&rogue.nb_chunks) >= ROGUE_MIN_CHUNKS);
    qatomic_set(&rogue.stop, true);
    qemu_thread_join(&rogue.thread);
    virtio_mem_assert_gain(rogue.vm, before, 1 * MiB);
    virtio_mem_guest_stop(rogue.vm);
}

static const VirtioMemTest tests[] = {
    { "T220 T222 T224 T227", "guard/rogue-beside-plug-and-unplug", test_plain,
      .no_guest = true, .guard = true },
    { "T220 T222 T224 T227", "guard/rogue-beside-plug-with-prealloc",
      test_prealloc, .no_guest = true, .guard = true },
    { "T220 T222 T224 T227", "guard/rogue-beside-plug-in-memfd", test_memfd,
      .no_guest = true, .guard = true },
    { "T227", "guard/rogue-beside-another-machine", test_other_machine,
      .no_guest = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
