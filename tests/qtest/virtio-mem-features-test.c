/*
 * virtio-mem: feature negotiation and device status
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "virtio-mem-guest.h"

#define F0  VM_BIT(VIRTIO_MEM_F_ACPI_PXM)
#define F1  VM_BIT(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)
#define F2  virtio_mem_suspend_feature()
#define V1  VM_BIT(VIRTIO_F_VERSION_1)

/* Bits that no specification gives to this device type or to the rings. */
#define RESERVED    (MAKE_64BIT_MASK(3, 21) | MAKE_64BIT_MASK(50, 14))

static const VirtioMemOptions not_driven = {
    .requested = VM_REQUESTED,
    .no_driver = true,
};
static const VirtioMemOptions readable = {
    .requested = VM_REQUESTED,
    .no_driver = true,
    .variant = &(VirtioMemVariant){ .name = "", .zeropage = true },
};
/* Everything that the transport can offer. */
static const VirtioMemOptions all_rings = {
    .requested = VM_REQUESTED,
    .no_driver = true,
    .device = "packed=on,in_order=on",
};

/* The driver's way up to, not including, FEATURES_OK. */
static void acknowledge(VirtioMemGuest *vm)
{
    qvirtio_set_acknowledge(&vm->pci->vdev);
    qvirtio_set_driver(&vm->pci->vdev);
}

static void expect_plug_and_unplug(VirtioMemGuest *vm)
{
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_unplug(vm, 0, 1, ACK);
}

static void expect_up(VirtioMemGuest *vm, uint64_t features)
{
    bool up;

    virtio_mem_device_reset(vm);
    up = virtio_mem_driver_up(vm, features);
    g_assert_true(up);
    g_assert_cmphex(vm->features, ==, features);
    expect_plug_and_unplug(vm);
}

static void expect_refused(VirtioMemGuest *vm, uint64_t features)
{
    bool up;

    virtio_mem_device_reset(vm);
    up = virtio_mem_driver_up(vm, features);
    g_assert_false(up);
    g_assert_false(virtio_mem_status(vm) & VIRTIO_CONFIG_S_FEATURES_OK);
}

/* Kick a PLUG that must stay in the ring. */
static void expect_not_served(VirtioMemGuest *vm)
{
    VmRequest req = { .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr,
                             .nb_blocks = 1 };
    VirtioMemUsed used;

    virtio_mem_queue_request(vm, &req);
    virtio_mem_kick_force(vm);
    virtio_mem_let_main_loop_turn(vm);
    g_assert_false(virtio_mem_ring_poll(&vm->ring, &used));
    vm_assert_plugged(vm, 0);
}

static void test_offered(VirtioMemGuest *vm)
{
    uint64_t offered = virtio_mem_offered_features(vm);

    g_assert_cmphex(offered & (V1 | F0 | F1 | F2), ==, V1 | F0 | F1 | F2);
    g_assert_cmphex(offered & RESERVED, ==, 0);
}

static void test_offered_readable(VirtioMemGuest *vm)
{
    uint64_t offered = virtio_mem_offered_features(vm);

    g_assert_cmphex(offered & (V1 | F0 | F1 | F2), ==, V1 | F0 | F2);
    g_assert_cmphex(offered & RESERVED, ==, 0);
}

static void test_only_version_1(VirtioMemGuest *vm)
{
    expect_up(vm, V1);
}

static void test_f1_not_accepted(VirtioMemGuest *vm)
{
    expect_refused(vm, V1 | F0 | F2);
    virtio_mem_queue_up(vm, 0);
    virtio_mem_driver_ok(vm);
    expect_not_served(vm);
    expect_up(vm, virtio_mem_default_features(vm));
}

static void test_not_offered(VirtioMemGuest *vm)
{
    static const int bits[] = { 5, 23, 50, 63 };

    for (int i = 0; i < ARRAY_SIZE(bits); i++) {
        uint64_t features = virtio_mem_default_features(vm) &
                            virtio_mem_offered_features(vm);
        uint8_t status;

        virtio_mem_device_reset(vm);
        acknowledge(vm);
        virtio_mem_write_features(vm, features | VM_BIT(bits[i]));
        status = virtio_mem_status(vm) | VIRTIO_CONFIG_S_FEATURES_OK;
        vm_set_status(vm, status);
        if (virtio_mem_status(vm) == status) {
            virtio_mem_queue_up(vm, 0);
            virtio_mem_driver_ok(vm);
            expect_plug_and_unplug(vm);
        }
        expect_up(vm, features);
    }
}

static void test_no_version_1(VirtioMemGuest *vm)
{
    uint64_t features = virtio_mem_default_features(vm) &
                        virtio_mem_offered_features(vm);
    uint8_t status;

    acknowledge(vm);
    virtio_mem_write_features(vm, features & ~V1);
    status = virtio_mem_status(vm) | VIRTIO_CONFIG_S_FEATURES_OK;
    vm_set_status(vm, status);
    if (virtio_mem_status(vm) == status) {
        virtio_mem_queue_up(vm, 0);
        virtio_mem_driver_ok(vm);
        expect_not_served(vm);
    }
    expect_up(vm, features);
}

/* Those without F1 are refused where it is offered, served where it is not. */
static void test_subsets(VirtioMemGuest *vm)
{
    uint64_t offered = virtio_mem_offered_features(vm);
    uint64_t others = virtio_mem_default_features(vm) & offered &
                      ~(F0 | F1 | F2);

    for (int i = 0; i < 8; i++) {
        uint64_t subset = (i & 1 ? F0 : 0) | (i & 2 ? F1 : 0) |
                          (i & 4 ? F2 : 0);

        if (offered & F1 & ~subset) {
            expect_refused(vm, others | subset);
        } else {
            expect_up(vm, others | (subset & offered));
        }
    }
}

static void test_again_and_again(VirtioMemGuest *vm)
{
    uint64_t features = virtio_mem_default_features(vm) &
                        virtio_mem_offered_features(vm);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    for (int i = 0; i < 100; i++) {
        expect_up(vm, features);
    }
}

/* NOTIFICATION_DATA needs another doorbell, and is not offered anyway. */
static void test_ring_features(VirtioMemGuest *vm)
{
    static const int bits[] = {
        VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_RESET,
    };
    uint64_t offered = virtio_mem_offered_features(vm);

    g_assert_false(offered & VM_BIT(VIRTIO_F_NOTIFICATION_DATA));
    for (int i = 0; i < 1 << ARRAY_SIZE(bits); i++) {
        uint64_t features = V1 | F0 | F1 | F2;

        for (int j = 0; j < ARRAY_SIZE(bits); j++) {
            g_assert_true(offered & VM_BIT(bits[j]));
            features |= i & (1 << j) ? VM_BIT(bits[j]) : 0;
        }
        expect_up(vm, features);
    }
}

static void test_kick_before_driver_ok(VirtioMemGuest *vm)
{
    bool ok;

    acknowledge(vm);
    ok = virtio_mem_negotiate(vm, virtio_mem_default_features(vm));
    g_assert_true(ok);
    virtio_mem_queue_up(vm, 0);
    expect_not_served(vm);
    virtio_mem_driver_ok(vm);
    virtio_mem_kick_force(vm);
    virtio_mem_wait_used(vm);
    g_assert_cmpuint(virtio_mem_read_answer(vm, 0).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    vm_assert_plugged(vm, 1);
}

static void test_resize_before_driver_ok(VirtioMemGuest *vm)
{
    bool ok;

    acknowledge(vm);
    ok = virtio_mem_negotiate(vm, virtio_mem_default_features(vm));
    g_assert_true(ok);
    virtio_mem_queue_up(vm, 0);
    g_assert_true(virtio_mem_try_requested(vm, "536870912", NULL));
    g_assert_false(virtio_mem_take_config_irq(vm));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 512 * MiB);
    virtio_mem_driver_ok(vm);
    g_assert_false(virtio_mem_take_config_irq(vm));
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 512 * MiB);
}

static void test_odd_status(VirtioMemGuest *vm)
{
    for (int status = 0xff; status > 0; status--) {
        vm_set_status(vm, status);
        virtio_mem_status(vm);
        if (status % 16 == 0) {
            virtio_mem_device_reset(vm);
        }
    }
    expect_up(vm, virtio_mem_default_features(vm) &
                  virtio_mem_offered_features(vm));
}

static void test_failed(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 4, 2, ACK);
    vm_set_status(vm, virtio_mem_status(vm) |
                      VIRTIO_CONFIG_S_FAILED);
    vm_assert_plugged(vm, 2);
    virtio_mem_restart_driver(vm);
    vm_assert_plugged(vm, 2);
    expect_plug_and_unplug(vm);
}

static const VirtioMemTest tests[] = {
    { "T020", "features/offered", test_offered, .options = &not_driven,
      .once = true },
    { "T020", "features/offered-when-unplugged-is-readable",
      test_offered_readable, .options = &readable, .once = true },
    { "T021", "features/version-1-suffices-without-f1", test_only_version_1,
      .options = &readable, .once = true },
    { "T021 T022", "features/refused-without-f1", test_f1_not_accepted,
      .options = &not_driven, .once = true },
    { "T023", "features/not-offered-is-not-effective", test_not_offered,
      .options = &not_driven, .once = true },
    { "T024", "features/no-service-without-version-1", test_no_version_1,
      .options = &not_driven, .once = true },
    { "T025", "features/any-subset", test_subsets, .options = &not_driven },
    { "T026", "features/same-set-after-each-reset", test_again_and_again },
    { "T027", "features/any-ring", test_ring_features,
      .options = &all_rings, .once = true },
    { "T028", "features/nothing-served-before-driver-ok",
      test_kick_before_driver_ok, .options = &not_driven },
    { "T029", "features/resize-before-driver-ok-is-silent",
      test_resize_before_driver_ok, .options = &not_driven },
    { "T02A", "features/odd-status-is-healed-by-reset", test_odd_status,
      .options = &not_driven },
    { "T02A", "features/failed-keeps-blocks", test_failed },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
