/*
 * virtio-mem: what needs a device that stands still waits for the request in
 * flight
 *
 * Populating is given up, and the guest hears BUSY; memory that is being given
 * back is given back.  Either way, nothing is half done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-flight.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-snapshots.h"

#define QUEUE_RESET offsetof(struct virtio_pci_modern_common_cfg, queue_reset)
#define DEVICE_STATUS offsetof(struct virtio_pci_common_cfg, device_status)

/* PIIX4's register that ejects the slots of bus 0, a bit for each. */
#define ACPI_PCI_EJECT 0xae08
#define SLOT 4

static const VirtioMemOptions flying = {
    .region_size = VM_MIGRATE_REGION, .device = "prealloc=on," VM_ONE_THREAD,
};
static const VirtioMemOptions flying_no_ioeventfd = {
    .device = "prealloc=on,ioeventfd=off," VM_ONE_THREAD,
};

typedef void (*Drainer)(VirtioMemGuest *vm);

/*
 * Do @drainer while a PLUG is in flight.  The slice that the host works on is
 * the last one; what was populated is given back.
 */
static void drain_plug(VirtioMemGuest *vm, Drainer drainer)
{
    VirtioMemDrained drained;

    virtio_mem_hold_until_drain(virtio_mem_flight_plug(vm));
    drainer(vm);
    drained = virtio_mem_hold_drained();
    g_assert_cmpuint(drained.nb_populates, ==, 1);
    g_assert_cmpuint(drained.nb_more, ==, 1);
}

static void drain_unplug(VirtioMemGuest *vm, Drainer drainer)
{
    virtio_mem_hold_until_drain(
        virtio_mem_flight_unplug(vm, VIRTIO_MEM_REQ_UNPLUG));
    drainer(vm);
    virtio_mem_hold_drained();
}

/* All is unplugged, and the device works. */
static void drain_finish(VirtioMemGuest *vm)
{
    vm_assert_plugged(vm, 0);
    vm_assert_state(vm, 0, VM_FLIGHT_BLOCKS, UNPLUGGED);
    vm_assert_plug(vm, 0, VM_FLIGHT_BLOCKS, ACK);
    g_assert_true(virtio_mem_is_filled(vm, vm->addr, 0, 4 * KiB));
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
}

/* --- VM stop --- */

static void stop(VirtioMemGuest *vm)
{
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
}

static void test_stop_plug(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_plug(vm, stop);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    g_assert_false(virtio_mem_take_config_irq(vm));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_wait_config_irq(vm);
    drain_finish(vm);
}

static void test_stop_unplug(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_unplug(vm, stop);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    drain_finish(vm);
}

/* What came after it waits for the VM to run again. */
static void test_stop_next(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);
    VirtioMemHeld held = virtio_mem_flight_plug(vm);
    const uint64_t resp_gpa = vm->resp_gpa + 256;
    VirtioMemUsed used;

    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr, .nb_blocks = 1,
        .req_gpa = vm->req_gpa + 256, .resp_gpa = resp_gpa });
    virtio_mem_kick_force(vm);
    virtio_mem_hold_until_drain(held);
    stop(vm);
    virtio_mem_hold_drained();
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    g_assert_false(virtio_mem_ring_poll(&vm->ring, &used));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    virtio_mem_wait_used(vm);
    g_assert_cmpuint(virtio_mem_read_answer(vm, resp_gpa).type, ==,
                     VIRTIO_MEM_RESP_ACK);
    virtio_mem_guest_stop(vm);
}

/* --- resets --- */

static void drain_check_reset(const VirtioMemOptions *opts, Drainer reset)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(opts);

    drain_plug(vm, reset);
    virtio_mem_restart_driver(vm);
    virtio_mem_take_config_irq(vm);
    drain_finish(vm);

    vm = virtio_mem_hold_start(opts);
    drain_unplug(vm, reset);
    virtio_mem_restart_driver(vm);
    virtio_mem_take_config_irq(vm);
    drain_finish(vm);
}

static void test_system_reset(VirtioMemGuest *unused)
{
    drain_check_reset(&flying, virtio_mem_system_reset);
}

static void test_device_reset(VirtioMemGuest *unused)
{
    drain_check_reset(&flying, virtio_mem_device_reset);
}

static void test_device_reset_no_ioeventfd(VirtioMemGuest *unused)
{
    drain_check_reset(&flying_no_ioeventfd, virtio_mem_device_reset);
}

/* Linux unplugs all when it finds blocks of an earlier driver. */
static void reload_driver(VirtioMemGuest *vm)
{
    virtio_mem_restart_driver(vm);
    vm_assert_unplug_all(vm, ACK);
}

static void test_reload(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_plug(vm, reload_driver);
    virtio_mem_take_config_irq(vm);
    drain_finish(vm);
}

static void reset_queue(VirtioMemGuest *vm)
{
    virtio_mem_common_write(vm, QUEUE_RESET, 2, 1);
    g_assert_cmpuint(virtio_mem_common_read(vm, QUEUE_RESET, 2), ==, 0);
}

static void test_queue_reset(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    virtio_mem_device_reset(vm);
    g_assert_true(virtio_mem_driver_up(vm, virtio_mem_default_features(vm) |
                                           VM_BIT(VIRTIO_F_RING_RESET)));
    drain_plug(vm, reset_queue);
    virtio_mem_ring_free(&vm->ring);
    virtio_mem_queue_up(vm, 16);
    virtio_mem_take_config_irq(vm);
    drain_finish(vm);
}

/*
 * The answer to its request, whose first byte is 0, goes into the device's own
 * status register: a reset that must not wait for that very request.
 */
static void test_own_register(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);
    const uint64_t status = vm->pci->bar.addr + vm->pci->common_cfg_offset +
                            DEVICE_STATUS;

    const VirtioMemSegment segments[] = {
        { .addr = virtio_mem_dma(vm, vm->req_gpa), .len = 24 },
        { .addr = virtio_mem_dma(vm, status), .len = 10, .writable = true },
    };

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_hold_begin();
    virtio_mem_write_request(vm, vm->req_gpa, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr,
        .nb_blocks = VM_FLIGHT_BLOCKS });
    virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
    virtio_mem_kick(vm);
    virtio_mem_hold_release(virtio_mem_hold_skip_to(VM_HOST_POPULATE), 0);
    virtio_mem_hold_end();
    vm_wait_until(virtio_mem_status(vm) == 0);
    virtio_mem_restart_driver(vm);
    vm_assert_unplug_all(vm, ACK);
    drain_finish(vm);
}

/* --- registers written by another device --- */

/* A disk whose requests end later, in a coroutine. */
#define SLOW_DISK \
    "-blockdev driver=null-co,node-name=disk0,latency-ns=1000000 " \
    "-device virtio-blk-pci,drive=disk0,disable-legacy=on,addr=05.0"
#define SLOW_DISK_SLOT 5

static const VirtioMemOptions beside_disk = {
    .device = "prealloc=on," VM_ONE_THREAD, .args = SLOW_DISK,
};
static const VirtioMemOptions beside_disk_of_iothread = {
    .device = "prealloc=on,ioeventfd=off,dynamic-memslots=on," VM_ONE_THREAD,
    .args = "-object iothread,id=io0 " SLOW_DISK ",iothread=io0",
};

/* Have the disk write a byte that is 0, its status, to @gpa. */
static void disk_write_zero(VirtioMemGuest *vm, uint64_t gpa)
{
    QVirtioPCIDevice *disk = virtio_mem_neighbour_start(vm, SLOW_DISK_SLOT);
    QVirtQueue *vq = qvirtqueue_setup(&disk->vdev, &vm->qs->alloc, 0);
    const uint64_t header = guest_alloc(&vm->qs->alloc, 1024);
    uint32_t head;

    qvirtio_set_driver_ok(&disk->vdev);
    qtest_memset(vm->qts, header, 0, sizeof(struct virtio_blk_outhdr));
    head = qvirtqueue_add(vm->qts, vq, header,
                          sizeof(struct virtio_blk_outhdr), false, true);
    qvirtqueue_add(vm->qts, vq, header + 512, 512, true, true);
    qvirtqueue_add(vm->qts, vq, gpa, 1, true, false);
    qvirtqueue_kick(vm->qts, &disk->vdev, vq, head);
    qvirtio_wait_used_elem(vm->qts, &disk->vdev, vq, head, NULL, VM_WAIT_USEC);
    qvirtqueue_cleanup(disk->vdev.bus, vq, &vm->qs->alloc);
    virtio_mem_neighbour_free(disk);
}

static void reset_by_disk(VirtioMemGuest *vm)
{
    disk_write_zero(vm, vm->pci->bar.addr + vm->pci->common_cfg_offset +
                        DEVICE_STATUS);
    g_assert_cmphex(virtio_mem_status(vm), ==, 0);
}

static void test_reset_by_disk(VirtioMemGuest *unused)
{
    drain_check_reset(&beside_disk, reset_by_disk);
}

static void test_reset_by_iothread(VirtioMemGuest *unused)
{
    drain_check_reset(&beside_disk_of_iothread, reset_by_disk);
}

/* The request is served by the main loop nevertheless. */
static void test_kick_by_iothread(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&beside_disk_of_iothread);

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_queue_request(vm, &(VmRequest) {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr,
        .nb_blocks = VM_FLIGHT_BLOCKS });
    disk_write_zero(vm, vm->pci->bar.addr + vm->vq.notify_offset);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    vm_assert_plugged(vm, VM_FLIGHT_BLOCKS);
    virtio_mem_guest_stop(vm);
}

/* --- migration and snapshots --- */

static void migrate_out(VirtioMemGuest *vm)
{
    virtio_mem_begin_busy(vm);
}

static void test_migration_plug(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_plug(vm, migrate_out);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    virtio_mem_end_busy(vm);
    virtio_mem_wait_config_irq(vm);
    drain_finish(vm);
}

/* The stream has what the guest was told. */
static void drain_check_moved(bool plug)
{
    VirtioMemGuest *from = virtio_mem_hold_start(&flying);
    VirtioMemGuest *to = virtio_mem_target(&flying);
    VirtioMemHeld held = plug
        ? virtio_mem_flight_plug(from)
        : virtio_mem_flight_unplug(from, VIRTIO_MEM_REQ_UNPLUG);

    virtio_mem_hold_until_drain(held);
    virtio_mem_migrate(from, to);
    virtio_mem_hold_drained();
    virtio_mem_flight_assert_answer(to, plug ? VIRTIO_MEM_RESP_BUSY
                                             : VIRTIO_MEM_RESP_ACK);
    virtio_mem_wait_config_irq(to);
    drain_finish(to);
    virtio_mem_guest_stop(from);
}

static void test_migration_moved(VirtioMemGuest *unused)
{
    drain_check_moved(true);
    drain_check_moved(false);
}

static void save_snapshot(VirtioMemGuest *vm)
{
    virtio_mem_snapshot_do(vm, "snapshot-save");
}

static void test_snapshot(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    virtio_mem_snapshot_add_disk(vm);
    drain_unplug(vm, save_snapshot);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_ACK);
    drain_finish(vm);
}

/* --- the end of the device --- */

static void eject(VirtioMemGuest *vm)
{
    qtest_outl(vm->qts, ACPI_PCI_EJECT, 1 << SLOT);
    qtest_qmp_eventwait(vm->qts, "DEVICE_DELETED");
}

static void test_eject(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_plug(vm, eject);
    virtio_mem_guest_stop(vm);
}

/* A device that may go must not have a block on its way. */
static void request_removal(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 0);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'device_del', "
                             "'arguments': { 'id': %s } }", vm->id);
}

static void test_removal(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    drain_plug(vm, request_removal);
    virtio_mem_flight_assert_answer(vm, VIRTIO_MEM_RESP_BUSY);
    vm_assert_plugged(vm, 0);
    virtio_mem_guest_stop(vm);
}

static void test_quit(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = virtio_mem_hold_start(&flying);

    virtio_mem_hold_until_drain(virtio_mem_flight_plug(vm));
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'quit' }");
    qtest_wait_qemu(vm->qts);
    virtio_mem_hold_drained();
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "P-1", "drain/vm-stop-cancels-plug", test_stop_plug, .no_guest = true },
    { "P-1", "drain/vm-stop-finishes-unplug", test_stop_unplug,
      .no_guest = true },
    { "P-1", "drain/vm-stop-keeps-next-request", test_stop_next,
      .no_guest = true },
    { "P-1", "drain/system-reset", test_system_reset, .no_guest = true },
    { "P-1", "drain/device-reset", test_device_reset, .no_guest = true },
    { "P-1", "drain/device-reset-without-ioeventfd",
      test_device_reset_no_ioeventfd, .no_guest = true },
    { "P-1", "drain/driver-reload", test_reload, .no_guest = true },
    { "P-1", "drain/queue-reset", test_queue_reset, .no_guest = true },
    { "P-1", "drain/disk-resets-device", test_reset_by_disk, .no_guest = true },
    { "P-1", "drain/iothread-resets-device", test_reset_by_iothread,
      .no_guest = true },
    { "P-1", "drain/iothread-kicks", test_kick_by_iothread, .no_guest = true },
    { "P-1", "drain/answer-resets-device", test_own_register,
      .no_guest = true },
    { "P-1", "drain/migration-cancels-plug", test_migration_plug,
      .no_guest = true },
    { "P-1", "drain/migration-moves-what-was-answered", test_migration_moved,
      .no_guest = true },
    { "P-1", "drain/snapshot-finishes-unplug", test_snapshot,
      .no_guest = true },
    { "P-1", "drain/eject", test_eject, .no_guest = true },
    { "P-1", "drain/removal-request", test_removal, .no_guest = true },
    { "P-1", "drain/quit", test_quit, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
