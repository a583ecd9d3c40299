/*
 * virtio-mem: the host refuses what the device asks of it
 *
 * Each call of each operation fails once, and then every second one by chance.
 * The guest hears what is true, the content of plugged memory stays unless the
 * guest wanted to unplug it, and without faults everything works again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "virtio-mem-faults.h"
#include "virtio-mem-guest.h"

#define SEED 0x5a

/* What is plugged before each operation, of as many as a word has bits. */
#define FAULT_FIRST 8
#define FAULT_NB_BLOCKS 32
#define FAULT_BEFORE MAKE_64BIT_MASK(0, FAULT_FIRST)

#define FAULT_NB_STEPS 200

/* More calls than any operation has. */
#define FAULT_MANY 200

/* --- operations --- */

typedef enum FaultKind {
    FAULT_PLUG,
    FAULT_UNPLUG,
    FAULT_UNPLUG_ALL,
    FAULT_TOUCH,            /* of blocks that are not plugged */
    FAULT_RESET,
    FAULT_KIND__MAX,
} FaultKind;

typedef struct FaultOperation {
    FaultKind kind;
    uint64_t first;
    uint16_t nb;
} FaultOperation;

static uint64_t fault_mask(const FaultOperation *op)
{
    if (op->kind == FAULT_TOUCH) {
        return 0;
    }
    return op->kind == FAULT_PLUG || op->kind == FAULT_UNPLUG
           ? MAKE_64BIT_MASK(op->first, op->nb) : UINT32_MAX;
}

static uint64_t fault_result(uint64_t before, const FaultOperation *op)
{
    if (op->kind == FAULT_TOUCH) {
        return before;
    }
    return op->kind == FAULT_PLUG ? before | fault_mask(op)
                                  : before & ~fault_mask(op);
}

static uint64_t fault_look(VirtioMemGuest *vm)
{
    uint64_t nb;
    g_autofree unsigned long *bitmap = virtio_mem_read_bitmap(vm, &nb);

    return *bitmap & UINT32_MAX;
}

/*
 * A thread that waits for the guard gets on, and finds nothing.  Where memory
 * is in slots, there is none to be found.
 */
static uint16_t fault_touch(VirtioMemGuest *vm)
{
    if (vm->opts.device && strstr(vm->opts.device, "dynamic-memslots=on")) {
        return VIRTIO_MEM_RESP_ACK;
    }
    for (unsigned i = FAULT_NB_BLOCKS; i < FAULT_NB_BLOCKS + 16; i++) {
        g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, i), 0,
                                           16));
    }
    return VIRTIO_MEM_RESP_ACK;
}

/* A reset gives no answer: what is plugged tells. */
static uint16_t fault_reset(VirtioMemGuest *vm)
{
    virtio_mem_system_reset(vm);
    virtio_mem_restart_driver(vm);
    return vm_plugged_size(vm) ? VIRTIO_MEM_RESP_BUSY : VIRTIO_MEM_RESP_ACK;
}

static uint16_t fault_do(VirtioMemGuest *vm, const FaultOperation *op)
{
    switch (op->kind) {
    case FAULT_PLUG:
        return vm_plug(vm, op->first, op->nb);
    case FAULT_UNPLUG:
        return vm_unplug(vm, op->first, op->nb);
    case FAULT_UNPLUG_ALL:
        return vm_unplug_all(vm);
    case FAULT_TOUCH:
        return fault_touch(vm);
    default:
        return fault_reset(vm);
    }
}

static void fault_write(VirtioMemGuest *vm, uint64_t blocks)
{
    for (unsigned i = 0; i < FAULT_NB_BLOCKS; i++) {
        if (extract64(blocks, i, 1)) {
            virtio_mem_write_pattern(vm, i, 1, SEED);
        }
    }
}

static void fault_check(VirtioMemGuest *vm, uint64_t expected, uint64_t kept)
{
    g_assert_cmphex(fault_look(vm), ==, expected);
    virtio_mem_check_invariants(vm);
    for (unsigned i = 0; i < FAULT_NB_BLOCKS; i++) {
        if (extract64(kept, i, 1)) {
            g_assert_true(virtio_mem_check_pattern(vm, i, 1, SEED));
        }
    }
}

/*
 * Plugged, unplugged, or as before; nothing between.  What the host had given
 * back already when it refused to go on cannot be had again.  Returns what is
 * plugged now, and all of that has the pattern.
 */
static uint64_t fault_judge(VirtioMemGuest *vm, uint64_t before,
                            const FaultOperation *op, uint16_t answer)
{
    const uint64_t kept = before & ~fault_mask(op);
    uint64_t now = before;

    if (answer == VIRTIO_MEM_RESP_ACK) {
        now = fault_result(before, op);
    } else {
        g_assert_cmpuint(answer, ==, VIRTIO_MEM_RESP_BUSY);
    }
    fault_check(vm, now, kept);
    fault_write(vm, now & ~kept);
    return now;
}

/* --- once --- */

/*
 * Nothing fails now.  But a guard that was lost before may come back just then,
 * and the request in flight is ended for that: the driver tries again, once.
 */
static uint16_t fault_try_again(VirtioMemGuest *vm, const FaultOperation *op,
                                uint16_t answer)
{
    return answer == VIRTIO_MEM_RESP_BUSY ? fault_do(vm, op) : answer;
}

static void fault_begin(VirtioMemGuest *vm)
{
    const FaultOperation plug = { FAULT_PLUG, 0, FAULT_FIRST };

    vm_assert_unplug_all(vm, ACK);
    g_assert_cmpuint(fault_try_again(vm, &plug, fault_do(vm, &plug)), ==,
                     VIRTIO_MEM_RESP_ACK);
    fault_write(vm, FAULT_BEFORE);
}

/* Returns whether there was a call number @after. */
static bool fault_once(VirtioMemGuest *vm, const FaultOperation *op,
                       VirtioMemHostFault call, uint32_t after)
{
    uint16_t answer;
    uint32_t nb;

    fault_begin(vm);
    virtio_mem_faults_begin(call, after);
    answer = fault_do(vm, op);
    nb = virtio_mem_faults_end();
    if (!nb) {
        answer = fault_try_again(vm, op, answer);
        g_assert_cmpuint(answer, ==, VIRTIO_MEM_RESP_ACK);
    }
    fault_judge(vm, FAULT_BEFORE, op, answer);
    return nb;
}

/* Returns how many calls have failed. */
static uint32_t fault_each(VirtioMemGuest *vm, VirtioMemHostFault call)
{
    static const FaultOperation operations[] = {
        { FAULT_PLUG, FAULT_FIRST + 4, 8 },
        { FAULT_UNPLUG, 2, 4 },
        { FAULT_UNPLUG_ALL },
        { FAULT_TOUCH },
        { FAULT_RESET },
    };
    uint32_t nb_faults = 0;

    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        uint32_t after = 0;

        while (fault_once(vm, &operations[i], call, after)) {
            /* A large region is given back in slices that are all alike. */
            after += 1 + after / 8;
            g_assert_cmpuint(after, <, FAULT_MANY);
            nb_faults++;
        }
    }
    return nb_faults;
}

/* --- by chance --- */

static FaultOperation fault_choose(uint64_t plugged)
{
    const uint64_t first = g_test_rand_int_range(0, FAULT_NB_BLOCKS);
    const bool is_plugged = extract64(plugged, first, 1);
    const int chance = g_test_rand_int_range(0, 20);
    FaultOperation op = { FAULT_RESET - MIN(chance, 2), 0, 0 };
    uint16_t nb = 1;

    if (chance > 2) {
        while (first + nb < FAULT_NB_BLOCKS &&
               extract64(plugged, first + nb, 1) == is_plugged) {
            nb++;
        }
        op.kind = is_plugged ? FAULT_UNPLUG : FAULT_PLUG;
        op.first = first;
        op.nb = g_test_rand_int_range(1, nb + 1);
    }
    return op;
}

static void fault_at_random(VirtioMemGuest *vm)
{
    uint64_t plugged = FAULT_BEFORE;
    uint32_t nb = 0;

    fault_begin(vm);
    for (unsigned i = 0; i < FAULT_NB_STEPS; i++) {
        const FaultOperation op = fault_choose(plugged);
        uint16_t answer;

        virtio_mem_faults_begin_at_random(1 + (uint32_t)g_test_rand_int() / 2);
        answer = fault_do(vm, &op);
        nb += virtio_mem_faults_end();
        plugged = fault_judge(vm, plugged, &op, answer);
    }
    g_test_message("%u faults", nb);
    g_assert_cmpuint(nb, >, FAULT_NB_STEPS / 10);
    fault_begin(vm);
}

/* --- what the memory is made of --- */

static void fault_run(const VirtioMemOptions *given, uint32_t calls)
{
    VirtioMemOptions opts = *given;
    VirtioMemGuest *vm;

    opts.may_notify = true;
    vm = virtio_mem_faults_start(&opts);

    virtio_mem_set_requested(vm, FAULT_NB_BLOCKS * vm->block_size);
    for (VirtioMemHostFault call = 0; call < VM_FAULT__MAX; call++) {
        const uint32_t nb = fault_each(vm, call);

        g_test_message("call %d: %u faults", call, nb);
        /* Which are made is known; the others may be. */
        if (calls & (1u << call)) {
            g_assert_cmpuint(nb, >, 0);
        }
    }
    fault_at_random(vm);
    virtio_mem_take_config_irq(vm);
    virtio_mem_guest_stop(vm);
}

/* With a guard, which is the default where there can be one. */
static void test_anonymous(VirtioMemGuest *unused)
{
    fault_run(&(VirtioMemOptions) {}, 1u << VM_FAULT_MADVISE |
              1u << VM_FAULT_UFFD | 1u << VM_FAULT_OPEN);
}

static void test_prealloc(VirtioMemGuest *unused)
{
    fault_run(&(VirtioMemOptions) { .device = "prealloc=on" },
              1u << VM_FAULT_MADVISE | 1u << VM_FAULT_UFFD);
}

static void test_memfd(VirtioMemGuest *unused)
{
    fault_run(&(VirtioMemOptions) {
        .memdev = "memory-backend-memfd,id=vmem0,size=4G,reserve=off",
        .region_size = 4 * GiB, .device = "prealloc=on",
    }, 1u << VM_FAULT_MADVISE | 1u << VM_FAULT_FALLOCATE |
       1u << VM_FAULT_UFFD);
}

static void test_private_memfd(VirtioMemGuest *unused)
{
    fault_run(&(VirtioMemOptions) {
        .memdev = "memory-backend-memfd,id=vmem0,size=4G,reserve=off,share=off",
        .region_size = 4 * GiB,
    }, 1u << VM_FAULT_MADVISE | 1u << VM_FAULT_FALLOCATE |
       1u << VM_FAULT_UFFD);
}

/* A copy of what is in a file: holes that were filled are made again. */
static void test_private_file(VirtioMemGuest *unused)
{
    g_autofree char *path = g_strdup_printf("/dev/shm/virtio-mem-%d",
                                            (int)getpid());
    g_autofree char *memdev = g_strdup_printf(
        "memory-backend-file,id=vmem0,size=4G,reserve=off,share=off,"
        "mem-path=%s", path);

    fault_run(&(VirtioMemOptions) {
        .memdev = memdev, .region_size = 4 * GiB,
    }, 1u << VM_FAULT_MADVISE | 1u << VM_FAULT_FALLOCATE |
       1u << VM_FAULT_FILE);
    unlink(path);
}

static void test_memslots(VirtioMemGuest *unused)
{
    fault_run(&(VirtioMemOptions) {
        .device = "dynamic-memslots=on,prealloc=on,unplugged-inaccessible=on",
    }, 1u << VM_FAULT_MADVISE);
}

static const VirtioMemTest tests[] = {
    { "", "fault/anonymous", test_anonymous, .no_guest = true, .guard = true },
    { "", "fault/prealloc", test_prealloc, .no_guest = true, .guard = true },
    { "", "fault/memfd", test_memfd, .no_guest = true, .guard = true },
    { "", "fault/private-memfd", test_private_memfd, .no_guest = true,
      .guard = true },
    { "", "fault/private-file", test_private_file, .no_guest = true },
    { "", "fault/memslots", test_memslots, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
