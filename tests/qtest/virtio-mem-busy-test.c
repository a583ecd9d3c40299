/*
 * virtio-mem: BUSY, and what happens when its cause ends
 *
 * A guest that was told BUSY waits for minutes unless something wakes it, so
 * each end of each cause comes with a config interrupt (PC12).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/timer.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-huge-pages.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-scene.h"

static const VirtioMemOptions plain = { .region_size = VM_MIGRATE_REGION };

/* --- while it lasts --- */

static void test_changes_nothing(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(vm);

    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, find_first_zero_bit(scene->bitmap, scene->nb_blocks),
                   1, BUSY);
    vm_assert_unplug(vm, 0, 1, BUSY);
    vm_assert_unplug_all(vm, BUSY);
    virtio_mem_scene_check(vm, scene);
    virtio_mem_end_busy(vm);
    virtio_mem_scene_check(vm, scene);
    virtio_mem_wait_config_irq(vm);
}

/* ERROR and NACK say something lasting, BUSY does not: they come first. */
static void test_refusals_first(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    vm_assert_plug(vm, 0, 4, ACK);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 0, ERROR);
    vm_assert_plug(vm, virtio_mem_usable_blocks(vm), 1, ERROR);
    vm_assert_plug(vm, 0, 1, ERROR);
    vm_assert_unplug(vm, 4, 1, ERROR);
    vm_assert_plug(vm, 4, 1, NACK);
    vm_assert_state(vm, 0, 4, PLUGGED);
    vm_assert_unplug(vm, 0, 1, BUSY);
    virtio_mem_end_busy(vm);
    virtio_mem_wait_config_irq(vm);
}

static void test_nothing_to_unplug(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_end_busy(vm);
}

/* --- when a migration ends --- */

static void busy_assert_over(VirtioMemGuest *vm)
{
    virtio_mem_wait_config_irq(vm);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_unplug(vm, 0, 1, ACK);
}

/* Until then, time alone is no reason to try again. */
static void test_time_passes(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 1, BUSY);
    for (int i = 0; i < 3; i++) {
        qtest_clock_step(vm->qts, 4 * NANOSECONDS_PER_SECOND);
        g_assert_false(virtio_mem_take_config_irq(vm));
    }
    virtio_mem_end_busy(vm);
    busy_assert_over(vm);
}

static void test_cancelled(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 1, BUSY);
    g_assert_false(virtio_mem_take_config_irq(vm));
    virtio_mem_end_busy(vm);
    busy_assert_over(vm);
}

static void busy_hold_to(VirtioMemGuest *from, VirtioMemGuest *to)
{
    g_autofree char *path = virtio_mem_temp_path("busy.sock");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);

    virtio_mem_migrate_listen(to, uri);
    virtio_mem_migrate_hold(from, uri);
}

static void busy_let_go(VirtioMemGuest *from, VirtioMemGuest *to)
{
    migrate_set_parameter_int(from->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(from, "completed");
    virtio_mem_migrate_wait(to, "completed");
    virtio_mem_take_over(to, from);
}

static void test_failed(VirtioMemGuest *vm)
{
    VirtioMemGuest *to = virtio_mem_target(&plain);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    busy_hold_to(vm, to);
    vm_assert_plug(vm, 0, 1, BUSY);
    virtio_mem_guest_stop(to);
    virtio_mem_migrate_wait(vm, "failed");
    busy_assert_over(vm);
}

static void test_completed(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);

    virtio_mem_set_requested(from, VM_REQUESTED);
    busy_hold_to(from, to);
    vm_assert_plug(from, 0, 1, BUSY);
    g_assert_false(virtio_mem_take_config_irq(from));
    busy_let_go(from, to);
    busy_assert_over(to);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

/* Saved to a file, and going on here. */
static void test_completed_and_resumed(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 1, BUSY);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", GiB);
    virtio_mem_migrate_wait(vm, "completed");
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    busy_assert_over(vm);
}

/* Another driver has not heard BUSY. */
static void test_reset(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_begin_busy(vm);
    vm_assert_plug(vm, 0, 1, BUSY);
    virtio_mem_restart_driver(vm);
    virtio_mem_end_busy(vm);
    virtio_mem_let_main_loop_turn(vm);
    g_assert_false(virtio_mem_take_config_irq(vm));
}

/* Whatever the answers were, the other side knows the same blocks. */
static void test_random_requests(VirtioMemGuest *unused)
{
    VirtioMemGuest *from = virtio_mem_guest_start(&plain);
    VirtioMemGuest *to = virtio_mem_target(&plain);
    g_autoptr(VirtioMemScene) scene = virtio_mem_scene_make(from);

    busy_hold_to(from, to);
    for (int i = 0; i < 64; i++) {
        uint64_t block = g_test_rand_int_range(0, scene->nb_blocks);
        bool plugged = test_bit(block, scene->bitmap);
        uint16_t response = plugged ? vm_unplug(from, block, 1)
                                    : vm_plug(from, block, 1);

        if (response == VIRTIO_MEM_RESP_ACK) {
            change_bit(block, scene->bitmap);
            if (!plugged) {
                virtio_mem_write_pattern(from, block, 1, scene->seed);
            }
        } else {
            g_assert_cmpuint(response, ==, VIRTIO_MEM_RESP_BUSY);
        }
    }
    busy_let_go(from, to);
    virtio_mem_scene_check_blocks(to, scene);
    virtio_mem_guest_stop(to);
    virtio_mem_guest_stop(from);
}

static void test_pipelined(VirtioMemGuest *vm)
{
    static const uint16_t types[] = {
        VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_PLUG,
        VIRTIO_MEM_REQ_STATE,
    };
    uint64_t page = guest_alloc(&vm->qs->alloc, 4096);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        virtio_mem_queue_request(vm, &(VmRequest){
            .type = types[i], .addr = vm->addr, .nb_blocks = 1,
            .req_gpa = page + 64 * i, .resp_gpa = page + 64 * i + 32,
        });
    }
    virtio_mem_kick(vm);
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        VmAnswer answer;

        virtio_mem_wait_used(vm);
        answer = virtio_mem_read_answer(vm, page + 64 * i + 32);
        g_assert_cmpuint(answer.type, ==, VIRTIO_MEM_RESP_ACK);
        g_assert_cmpuint(answer.state, ==, VIRTIO_MEM_STATE_PLUGGED);
    }
    vm_assert_plugged(vm, 1);
}

/* --- when there was no memory --- */

static VirtioMemGuest *huge_start(const char *stderr_path)
{
    g_autofree char *args = stderr_path ?
        g_strdup_printf("2> %s", stderr_path) : NULL;
    VirtioMemOptions opts = {
        .region_size = 256 * MiB,
        .memdev = "memory-backend-memfd,id=vmem0,size=256M,hugetlb=on,"
                  "hugetlbsize=2M,share=on,reserve=off",
        .device = "prealloc=on",
        .args = args,
    };
    VirtioMemGuest *vm = virtio_mem_guest_start(&opts);

    virtio_mem_set_requested(vm, 128 * MiB);
    return vm;
}

/* Huge pages cannot be told to the kernel to be short in any other way. */
static void test_no_memory(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm;

    if (!virtio_mem_huge_make_free(4)) {
        return;
    }
    vm = huge_start(NULL);
    vm_assert_plug(vm, 0, 2, ACK);
    vm_assert_plug(vm, 2, 4, BUSY);
    vm_assert_plugged(vm, 2);
    vm_assert_state(vm, 0, 2, PLUGGED);
    vm_assert_state(vm, 2, 4, UNPLUGGED);
    g_assert_cmpint(virtio_mem_huge_read("free_hugepages"), ==, 2);
    if (virtio_mem_huge_make_free(4)) {
        vm_assert_plug(vm, 2, 4, ACK);
        vm_assert_state(vm, 0, 6, PLUGGED);
        virtio_mem_take_config_irq(vm);
        virtio_mem_check_invariants(vm);
    }
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

static void test_memory_is_back(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm;

    if (!virtio_mem_huge_make_free(2)) {
        return;
    }
    vm = huge_start(NULL);
    vm_assert_plug(vm, 0, 4, BUSY);
    g_assert_false(virtio_mem_take_config_irq(vm));
    if (virtio_mem_huge_make_free(4)) {
        qtest_clock_step(vm->qts, NANOSECONDS_PER_SECOND + 1);
        virtio_mem_wait_config_irq(vm);
        vm_assert_plug(vm, 0, 4, ACK);
    }
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

/* --- how often the guest is woken --- */

/* STATE is no success: only what changes blocks says that there is memory. */
static void backoff_refuse(VirtioMemGuest *vm)
{
    virtio_mem_hold_begin();
    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr, .nb_blocks = 1 });
    virtio_mem_kick(vm);
    virtio_mem_hold_release(virtio_mem_hold_next(VM_HOST_POPULATE), ENOMEM);
    virtio_mem_hold_end();
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
}

/* Refused again, the guest is woken after @seconds of its time. */
static void backoff_check(VirtioMemGuest *vm, unsigned int seconds)
{
    const int64_t margin = NANOSECONDS_PER_SECOND / 100;

    backoff_refuse(vm);
    qtest_clock_step(vm->qts, seconds * NANOSECONDS_PER_SECOND - margin);
    g_assert_false(virtio_mem_take_config_irq(vm));
    qtest_clock_step(vm->qts, margin);
    virtio_mem_wait_config_irq(vm);
}

static void test_backoff(VirtioMemGuest *unused)
{
    static const VirtioMemOptions opts = {
        .device = "prealloc=on," VM_ONE_THREAD,
    };
    VirtioMemGuest *vm = virtio_mem_hold_start(&opts);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (unsigned int seconds = 1; seconds < 64; seconds *= 2) {
        backoff_check(vm, seconds);
    }
    for (unsigned int i = 0; i < 3; i++) {
        backoff_check(vm, 64);
    }
    vm_assert_plug(vm, 1, 1, ACK);
    backoff_check(vm, 1);
    backoff_check(vm, 2);
    virtio_mem_restart_driver(vm);
    backoff_check(vm, 1);
    virtio_mem_guest_stop(vm);
}

/* --- what the host's administrator reads --- */

static unsigned busy_count_warnings(const char *path)
{
    g_autofree char *text = NULL;
    unsigned nb = 0;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (const char *at = text; (at = strstr(at, "warning:")); at++) {
        nb++;
    }
    return nb;
}

/* The guest can cause these: once, but once again after a success. */
static void test_warnings(VirtioMemGuest *unused)
{
    g_autofree char *path = virtio_mem_temp_path("warnings");
    VirtioMemGuest *vm;
    unsigned before;

    if (!virtio_mem_huge_make_free(2)) {
        return;
    }
    vm = huge_start(path);
    before = busy_count_warnings(path);
    vm_assert_plug(vm, 0, 4, BUSY);
    vm_assert_plug(vm, 0, 4, BUSY);
    g_assert_cmpuint(busy_count_warnings(path), ==, before + 1);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 1, 4, BUSY);
    vm_assert_plug(vm, 1, 4, BUSY);
    g_assert_cmpuint(busy_count_warnings(path), ==, before + 2);
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

/* One device's trouble does not hide another's. */
static void test_warnings_of_two(VirtioMemGuest *unused)
{
    g_autofree char *path = virtio_mem_temp_path("warnings-of-two");
    VirtioMemGuest *vm, *second;
    unsigned before;

    if (!virtio_mem_huge_make_free(2)) {
        return;
    }
    vm = huge_start(path);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add', "
                             "'arguments': { 'qom-type': "
                             "'memory-backend-memfd', 'id': 'vmem1', "
                             "'size': 268435456, 'hugetlb': true, "
                             "'share': true, 'reserve': false } }");
    qtest_qmp_device_add(vm->qts, "virtio-mem-pci", "vm1",
                         "{ 'memdev': 'vmem1', 'addr': '5', 'prealloc': true,"
                         " 'requested-size': 134217728 }");
    second = virtio_mem_guest_attach(vm, "vm1", QPCI_DEVFN(5, 0));
    before = busy_count_warnings(path);
    vm_assert_plug(vm, 0, 4, BUSY);
    vm_assert_plug(second, 0, 4, BUSY);
    g_assert_cmpuint(busy_count_warnings(path), ==, before + 2);
    virtio_mem_guest_stop(second);
    virtio_mem_guest_stop(vm);
    virtio_mem_huge_done();
}

static const VirtioMemTest tests[] = {
    { "T079 T095 T105 T244", "busy/changes-nothing", test_changes_nothing,
      &plain },
    { "T064", "busy/errors-and-nacks-come-first", test_refusals_first,
      &plain, .once = true },
    { "T090", "busy/unplug-all-with-nothing-plugged-is-not",
      test_nothing_to_unplug, &plain, .once = true },
    { "T245", "busy/goes-on-while-time-passes", test_time_passes, &plain,
      .once = true },
    { "T245", "busy/ends-when-migration-is-cancelled", test_cancelled,
      &plain },
    { "T245", "busy/ends-when-migration-fails", test_failed, &plain,
      .once = true },
    { "T245", "busy/ends-on-the-other-side", test_completed, .no_guest = true },
    { "T245", "busy/ends-when-the-source-goes-on",
      test_completed_and_resumed, &plain, .once = true },
    { "T245", "busy/reset-forgets-it", test_reset, &plain, .once = true },
    { "T244", "busy/random-requests-during-migration", test_random_requests,
      .no_guest = true },
    { "T246", "requests/pipelined-mix", test_pipelined },
    { "T044", "busy/when-there-is-no-memory", test_no_memory,
      .no_guest = true },
    { "T045", "busy/ends-when-memory-is-back", test_memory_is_back,
      .no_guest = true },
    { "T045", "busy/wakes-less-often-until-a-success", test_backoff,
      .no_guest = true },
    { "O-2", "busy/warns-once-per-cause", test_warnings, .no_guest = true },
    { "O-2", "busy/warns-for-each-device", test_warnings_of_two,
      .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
