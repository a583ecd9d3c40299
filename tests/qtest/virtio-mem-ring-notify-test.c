/*
 * virtio-mem: kicks and interrupts, and when there are none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-mem-chains.h"

static void notify_queue_state(VirtioMemGuest *vm)
{
    virtio_mem_queue_request(vm, &(VmRequest){
        .type = VIRTIO_MEM_REQ_STATE, .addr = vm->addr, .nb_blocks = 1,
    });
}

/* --- kicks --- */

static void test_kick_nothing(VirtioMemGuest *vm)
{
    for (int i = 0; i < 100; i++) {
        virtio_mem_kick_force(vm);
    }
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
    g_assert_false(virtio_mem_take_queue_irq(vm));
    g_assert_false(virtio_mem_is_broken(vm));
}

/* Of QEMU, in the clock ticks of its kernel: a hundredth of a second. */
static uint64_t processor_time(VirtioMemGuest *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat",
                                            qtest_pid(vm->qts));
    g_autofree char *stat = NULL;
    g_auto(GStrv) fields = NULL;

    g_assert_true(g_file_get_contents(path, &stat, NULL, NULL));
    /* The name of the program may have spaces. */
    fields = g_strsplit(strrchr(stat, ')') + 2, " ", -1);
    return g_ascii_strtoull(fields[11], NULL, 10) +
           g_ascii_strtoull(fields[12], NULL, 10);
}

/* A queue that is empty is not looked at again and again. */
static void test_idle(VirtioMemGuest *vm)
{
    uint64_t before;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_settle(vm);
    before = processor_time(vm);
    g_usleep(G_USEC_PER_SEC / 2);
    g_assert_cmpuint(processor_time(vm) - before, <, 5);
}

static void test_kick_often(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_queue_request(vm, &(VmRequest){
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr, .nb_blocks = 1,
    });
    for (int i = 0; i < 1000; i++) {
        virtio_mem_kick_force(vm);
    }
    virtio_mem_wait_used(vm);
    g_assert_cmpuint(virtio_mem_read_answer(vm, 0).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
    vm_assert_plugged(vm, 1);
}

/* The doorbell of queue 0 counts, whatever is written; all others do not. */
static void test_strange_kicks(VirtioMemGuest *vm)
{
    static const uint16_t values[] = { 1, 2, 0x8000, 0xffff };
    uint32_t step = vm->pci->notify_off_multiplier;

    for (int i = 0; i < ARRAY_SIZE(values); i++) {
        qpci_io_writew(vm->pci->pdev, vm->pci->bar, vm->vq.notify_offset,
                       values[i]);
    }
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
    notify_queue_state(vm);
    for (int i = 1; i < 64; i++) {
        qpci_io_writew(vm->pci->pdev, vm->pci->bar,
                       vm->vq.notify_offset + step * i, i);
    }
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
    virtio_mem_kick_force(vm);
    virtio_mem_wait_used(vm);
    virtio_mem_settle(vm);
    g_assert_true(virtio_mem_is_idle(vm));
}

/* --- interrupts --- */

/* One request by hand; was there an interrupt? */
static bool notify_request_interrupts(VirtioMemGuest *vm)
{
    notify_queue_state(vm);
    virtio_mem_kick(vm);
    virtio_mem_wait_used(vm);
    virtio_mem_settle(vm);
    return virtio_mem_take_queue_irq(vm);
}

static void test_no_interrupt_flag(VirtioMemGuest *vm)
{
    g_assert_true(notify_request_interrupts(vm));
    if (vm->variant->event_idx && !vm->variant->packed) {
        /* A split ring with event index has no such flag. */
        qtest_writew(vm->qts, vm->ring.driver, VRING_AVAIL_F_NO_INTERRUPT);
        g_assert_true(notify_request_interrupts(vm));
    } else {
        virtio_mem_ring_set_interrupts(&vm->ring, false);
        g_assert_false(notify_request_interrupts(vm));
        g_assert_false(notify_request_interrupts(vm));
    }
    virtio_mem_ring_set_interrupts(&vm->ring, true);
    g_assert_true(notify_request_interrupts(vm));
    g_assert_true(notify_request_interrupts(vm));
}

/* By event index: the entry after the next two, then silence, then again. */
static void test_event_index(VirtioMemGuest *vm)
{
    g_assert_true(notify_request_interrupts(vm));
    virtio_mem_ring_set_used_event(&vm->ring, 2 * (vm->variant->packed + 1));
    g_assert_false(notify_request_interrupts(vm));
    g_assert_false(notify_request_interrupts(vm));
    g_assert_true(notify_request_interrupts(vm));
    g_assert_false(notify_request_interrupts(vm));
    virtio_mem_ring_set_used_event(&vm->ring, 0);
    g_assert_true(notify_request_interrupts(vm));
    virtio_mem_ring_set_interrupts(&vm->ring, true);
}

/* The device says from which index on it wants to be kicked: always. */
static void test_kick_wanted(VirtioMemGuest *vm)
{
    for (int i = 0; i < 10; i++) {
        notify_queue_state(vm);
        g_assert_true(virtio_mem_ring_need_kick(&vm->ring));
        virtio_mem_kick_force(vm);
        virtio_mem_wait_used(vm);
    }
}

/* --- with the event index, each kind of ring and of interrupt --- */

static const VirtioMemVariant split_msix = { .event_idx = true };
static const VirtioMemVariant split_intx = { .event_idx = true,
                                             .intx = true };
static const VirtioMemVariant packed_msix = { .event_idx = true,
                                              .packed = true };
static const VirtioMemVariant packed_intx = { .event_idx = true, .intx = true,
                                              .packed = true };

static const VirtioMemOptions on_split_msix = { .variant = &split_msix };
static const VirtioMemOptions on_split_intx = { .variant = &split_intx };
static const VirtioMemOptions on_packed_msix = { .variant = &packed_msix };
static const VirtioMemOptions on_packed_intx = { .variant = &packed_intx };

static const VirtioMemTest tests[] = {
    { "T163", "ring/kick-of-nothing-does-nothing", test_kick_nothing },
    { "T163", "ring/nothing-takes-no-time", test_idle, .once = true },
    { "T163", "ring/thousand-kicks-give-one-answer", test_kick_often },
    { "T164", "ring/strange-kicks-are-ignored", test_strange_kicks },
    { "T165", "ring/no-interrupt-flag-is-respected", test_no_interrupt_flag },
    { "T165", "ring/event-index-is-respected-split-msix", test_event_index,
      .once = true, .options = &on_split_msix },
    { "T165", "ring/event-index-is-respected-split-intx", test_event_index,
      .once = true, .options = &on_split_intx },
    { "T165", "ring/event-index-is-respected-packed-msix", test_event_index,
      .once = true, .options = &on_packed_msix },
    { "T165", "ring/event-index-is-respected-packed-intx", test_event_index,
      .once = true, .options = &on_packed_intx },
    { "T165", "ring/idle-device-wants-kicks", test_kick_wanted },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
