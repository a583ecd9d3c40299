/*
 * virtio-mem: the host changes the requested size
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-guest.h"

/* That one config interrupt follows is checked by _set_requested itself. */
static void test_raise(VirtioMemGuest *vm)
{
    uint64_t usable;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    usable = virtio_mem_usable_size(vm);
    virtio_mem_set_requested(vm, usable);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, usable);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, usable);
}

static void test_raise_beyond_usable(VirtioMemGuest *vm)
{
    for (uint64_t size = VM_REQUESTED; size <= vm->region_size; size *= 4) {
        virtio_mem_set_requested(vm, size);
        g_assert_cmphex(virtio_mem_requested_size(vm), ==, size);
        g_assert_cmphex(virtio_mem_usable_size(vm), >=, size);
    }
}

static void test_lower(VirtioMemGuest *vm)
{
    const uint64_t sizes[] = { 8 * VM_BLOCK, 2 * VM_BLOCK, 0 };
    uint64_t usable;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 2, 4, ACK);
    usable = virtio_mem_usable_size(vm);
    for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
        virtio_mem_set_requested(vm, sizes[i]);
        g_assert_cmphex(virtio_mem_requested_size(vm), ==, sizes[i]);
        g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
        vm_assert_plugged(vm, 4);
        vm_assert_state(vm, 2, 4, PLUGGED);
    }
}

static void test_same(VirtioMemGuest *vm)
{
    uint64_t usable;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    usable = virtio_mem_usable_size(vm);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
}

static void expect_refused(VirtioMemGuest *vm, const char *json)
{
    uint64_t requested = virtio_mem_requested_size(vm);
    uint64_t usable = virtio_mem_usable_size(vm);
    g_autofree char *error = NULL;
    bool ok = virtio_mem_try_requested(vm, json, &error);

    g_test_message("%s: %s", json, error);
    g_assert_false(ok);
    g_assert_cmpuint(strlen(error), >, 0);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, requested);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, usable);
    g_assert_false(virtio_mem_take_config_irq(vm));
}

static void test_bad_sizes(VirtioMemGuest *vm)
{
    static const char *const bad[] = {
        "268435457",                /* 256 MiB + 1 */
        "269484032",                /* 256 MiB + B/2 */
        "68721573888",              /* R + B */
        "18446744073707454464",     /* 2^64 - B */
        "9223372036854775808",      /* 2^63 */
        "-1", "-2097152",
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        expect_refused(vm, bad[i]);
    }
}

static void test_usable_never_shrinks(VirtioMemGuest *vm)
{
    uint64_t last = 0;

    for (int i = 0; i < 100; i++) {
        uint64_t nb = g_test_rand_int_range(0, VM_REGION / VM_BLOCK + 1);
        uint64_t usable;

        virtio_mem_set_requested(vm, nb * vm->block_size);
        usable = virtio_mem_usable_size(vm);
        g_assert_cmphex(usable, >=, last);
        g_assert_cmphex(usable, >=, nb * vm->block_size);
        last = usable;
    }
}

static const VirtioMemOptions small_region = { .region_size = 1 * GiB };

static void test_whole_region(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, vm->region_size);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, vm->region_size);
    vm_assert_plug(vm, 0, vm->region_size / vm->block_size, ACK);
    g_assert_cmphex(vm_plugged_size(vm), ==, vm->region_size);
}

static void test_plug_in_grown_part(VirtioMemGuest *vm)
{
    uint64_t old;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    old = virtio_mem_usable_blocks(vm);
    vm_assert_plug(vm, old, 1, ERROR);
    virtio_mem_set_requested(vm, virtio_mem_usable_size(vm));
    g_assert_cmpuint(virtio_mem_usable_blocks(vm), >, old);
    vm_assert_plug(vm, old, 1, ACK);
}

/* The largest Linux memory block of a machine with less than 64 GiB. */
#define LINUX_BLOCK (128 * MiB)

static void test_slack(VirtioMemGuest *vm)
{
    for (uint64_t size = VM_BLOCK; size <= vm->region_size; size *= 2) {
        uint64_t usable;

        virtio_mem_set_requested(vm, size);
        usable = virtio_mem_usable_size(vm);
        g_assert_cmphex(usable & (vm->block_size - 1), ==, 0);
        if (usable < vm->region_size) {
            g_assert_cmphex(usable - size, >=, LINUX_BLOCK);
        }
    }
}

/* Two halves and a generation, as Linux reads a 64-bit field. */
static uint64_t read_requested_in_halves(VirtioMemGuest *vm)
{
    const unsigned off = offsetof(struct virtio_mem_config, requested_size);
    uint8_t generation;
    uint64_t value;

    do {
        generation = virtio_mem_config_generation(vm);
        value = virtio_mem_config_read(vm, off, 4);
        value |= virtio_mem_config_read(vm, off + 4, 4) << 32;
    } while (virtio_mem_config_generation(vm) != generation);
    return value;
}

static void send_requested(VirtioMemGuest *vm, uint64_t size)
{
    qtest_qmp_send(vm->qts, "{ 'execute': 'qom-set', 'arguments': { "
                   "'path': '/machine/peripheral/vm0', "
                   "'property': 'requested-size', 'value': %" PRIu64 " } }",
                   size);
}

/*
 * The monitor works while config space is read.  Both halves of the two sizes
 * differ, so a torn value would be neither of them.
 */
static void test_fast_changes(VirtioMemGuest *vm)
{
    const uint64_t sizes[] = { 4 * GiB - VM_BLOCK, 8 * GiB + VM_BLOCK };

    virtio_mem_set_requested(vm, sizes[1]);
    for (int i = 0; i < 1000; i++) {
        uint64_t value;
        QDict *response;

        send_requested(vm, sizes[i % 2]);
        value = read_requested_in_halves(vm);
        g_assert_true(value == sizes[0] || value == sizes[1]);
        response = qtest_qmp_receive(vm->qts);
        g_assert_true(qdict_haskey(response, "return"));
        qobject_unref(response);
        g_assert_cmphex(read_requested_in_halves(vm), ==, sizes[i % 2]);
    }
    virtio_mem_take_config_irq(vm);
}

/* Four PLUGs of a block wait in the ring when the host allows three. */
static void test_while_requests_wait(VirtioMemGuest *vm)
{
    const uint16_t expected[] = {
        VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_RESP_ACK, VIRTIO_MEM_RESP_ACK,
        VIRTIO_MEM_RESP_NACK,
    };

    virtio_mem_set_requested(vm, 2 * vm->block_size);
    for (int i = 0; i < 4; i++) {
        virtio_mem_queue_request(vm, &(VmRequest){
            .type = VIRTIO_MEM_REQ_PLUG, .nb_blocks = 1,
            .addr = virtio_mem_block_gpa(vm, i),
            .req_gpa = vm->req_gpa + 64 * i,
            .resp_gpa = vm->resp_gpa + 64 * i,
        });
    }
    virtio_mem_set_requested(vm, 3 * vm->block_size);
    virtio_mem_kick(vm);
    for (int i = 0; i < 4; i++) {
        virtio_mem_wait_used(vm);
    }
    for (int i = 0; i < 4; i++) {
        g_assert_cmpuint(virtio_mem_read_answer(vm,
                                                vm->resp_gpa + 64 * i).type,
                         ==, expected[i]);
    }
    vm_assert_plugged(vm, 3);
}

/* That the guest hears nothing is checked with every request. */
static void test_host_hears_of_plug(VirtioMemGuest *vm)
{
    uint64_t size = 0;
    QDict *info;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_take_size_events(vm, NULL);
    vm_assert_plug(vm, 0, 3, ACK);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), ==, 1);
    g_assert_cmphex(size, ==, 3 * vm->block_size);
    vm_assert_unplug(vm, 1, 1, ACK);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), ==, 1);
    g_assert_cmphex(size, ==, 2 * vm->block_size);
    info = virtio_mem_query(vm);
    g_assert_cmphex(qdict_get_int(info, "size"), ==, 2 * vm->block_size);
    g_assert_cmphex(qdict_get_int(info, "requested-size"), ==, VM_REQUESTED);
    qobject_unref(info);
    vm_assert_unplug_all(vm, ACK);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), ==, 1);
    g_assert_cmphex(size, ==, 0);
}

static void test_host_hears_no_more(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_take_size_events(vm, NULL);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm), 1, ERROR);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_set_requested(vm, 2 * VM_REQUESTED);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, NULL), ==, 0);
}

static void test_silent_shrink(VirtioMemGuest *vm)
{
    uint64_t old, new;

    virtio_mem_set_requested(vm, 16 * GiB);
    virtio_mem_set_requested(vm, 0);
    old = virtio_mem_usable_size(vm);
    vm_assert_unplug_all(vm, ACK);
    g_assert_false(virtio_mem_take_config_irq(vm));
    new = virtio_mem_usable_size(vm);
    g_assert_cmphex(new, <, old);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), >=, VM_REQUESTED);
    g_assert_cmphex(virtio_mem_usable_size(vm), <, old);
}

static const VirtioMemTest tests[] = {
    { "T200", "resize/raise-is-visible-and-notified", test_raise },
    { "T201", "resize/usable-region-grows-with-it",
      test_raise_beyond_usable },
    { "T202", "resize/lower-changes-nothing-else", test_lower },
    { "T203", "resize/same-size", test_same },
    { "T204", "resize/bad-size-is-refused", test_bad_sizes },
    { "T205", "resize/usable-region-never-shrinks",
      test_usable_never_shrinks },
    { "T206", "resize/to-the-whole-region", test_whole_region,
      .options = &small_region },
    { "T207", "resize/grown-part-can-be-plugged", test_plug_in_grown_part },
    { "T208", "resize/usable-region-has-slack", test_slack },
    { "T209", "resize/reader-sees-no-torn-value", test_fast_changes,
      .once = true },
    { "T210", "resize/waiting-requests-see-the-new-size",
      test_while_requests_wait },
    { "T211", "resize/host-hears-of-plugged-size", test_host_hears_of_plug },
    { "T211", "resize/host-hears-of-nothing-else", test_host_hears_no_more },
    { "T212", "resize/unplug-all-shrinks-silently", test_silent_shrink },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
