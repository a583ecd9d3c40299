/*
 * Chains that no well-behaved driver would send, and what becomes of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-mem-chains.h"

#define BUFFER_SIZE     4096

/* --- blocks --- */

VirtioMemSnapshot *virtio_mem_snapshot(VirtioMemGuest *vm)
{
    VirtioMemSnapshot *snapshot = g_new0(VirtioMemSnapshot, 1);

    snapshot->plugged_size = vm_plugged_size(vm);
    snapshot->bitmap = virtio_mem_read_bitmap(vm, &snapshot->nb_blocks);
    return snapshot;
}

void virtio_mem_snapshot_free(VirtioMemSnapshot *snapshot)
{
    g_free(snapshot->bitmap);
    g_free(snapshot);
}

void virtio_mem_check_unchanged(VirtioMemGuest *vm,
                                const VirtioMemSnapshot *snapshot)
{
    g_autofree unsigned long *bitmap = NULL;
    uint64_t nb;

    g_assert_cmphex(vm_plugged_size(vm), ==, snapshot->plugged_size);
    bitmap = virtio_mem_read_bitmap(vm, &nb);
    /* P is the same, so equal common parts mean that the rest is empty. */
    g_assert_true(bitmap_equal(bitmap, snapshot->bitmap,
                               MIN(nb, snapshot->nb_blocks)));
}

/* --- chains --- */

VirtioMemSegment virtio_mem_readable(VirtioMemGuest *vm, uint64_t gpa,
                                     uint32_t len)
{
    return (VirtioMemSegment){ .addr = virtio_mem_dma(vm, gpa), .len = len };
}

VirtioMemSegment virtio_mem_writable(VirtioMemGuest *vm, uint64_t gpa,
                                     uint32_t len)
{
    return (VirtioMemSegment){
        .addr = virtio_mem_dma(vm, gpa), .len = len, .writable = true,
    };
}

VirtioMemBuffers virtio_mem_alloc_buffers(VirtioMemGuest *vm)
{
    VirtioMemBuffers buffers = {
        .req_gpa = guest_alloc(&vm->qs->alloc, BUFFER_SIZE),
        .resp_gpa = guest_alloc(&vm->qs->alloc, BUFFER_SIZE),
    };

    virtio_mem_fill(vm, buffers.req_gpa, 0xff, BUFFER_SIZE);
    virtio_mem_fill(vm, buffers.resp_gpa, VM_POISON, BUFFER_SIZE);
    return buffers;
}

bool virtio_mem_is_poisoned_from(VirtioMemGuest *vm,
                                 const VirtioMemBuffers *buffers,
                                 uint32_t len)
{
    return virtio_mem_is_filled(vm, buffers->resp_gpa + len, VM_POISON,
                                BUFFER_SIZE - len);
}

bool virtio_mem_wait_outcome(VirtioMemGuest *vm, VirtioMemUsed *used)
{
    VirtioMemUsed ignored;
    bool there;

    vm_wait_until((there = virtio_mem_ring_poll(&vm->ring, used ?: &ignored)) ||
                  virtio_mem_is_broken(vm));
    return there;
}

bool virtio_mem_send_chain(VirtioMemGuest *vm,
                           const VirtioMemSegment *segments, unsigned nb,
                           VirtioMemUsed *used)
{
    virtio_mem_add_chain(vm, segments, nb);
    virtio_mem_kick(vm);
    return virtio_mem_wait_outcome(vm, used);
}

/* Where a chain's writable bytes begin, when they are in one piece. */
static uint64_t chains_response_gpa(VirtioMemGuest *vm,
                                    const VirtioMemSegment *segments,
                                    unsigned nb)
{
    for (unsigned i = 0; i < nb; i++) {
        if (segments[i].writable) {
            return segments[i].addr - vm->dma_offset;
        }
    }
    g_assert_not_reached();
}

VmAnswer virtio_mem_check_served(VirtioMemGuest *vm,
                                 const VirtioMemSegment *segments,
                                 unsigned nb)
{
    VirtioMemUsed used;
    uint16_t id;
    bool served;

    id = virtio_mem_add_chain(vm, segments, nb);
    virtio_mem_kick(vm);
    served = virtio_mem_wait_outcome(vm, &used);
    g_assert_true(served);
    g_assert_cmpuint(used.id, ==, id);
    g_assert_cmpuint(used.len, ==, VM_RESPONSE_SIZE);
    return virtio_mem_read_answer(vm, chains_response_gpa(vm, segments, nb));
}

/* --- broken, or not --- */

void virtio_mem_check_kick_breaks(VirtioMemGuest *vm,
                                  const VirtioMemSnapshot *snapshot)
{
    bool served;

    virtio_mem_kick_force(vm);
    served = virtio_mem_wait_outcome(vm, NULL);
    g_assert_false(served);
    virtio_mem_check_broken(vm, snapshot->plugged_size);
    virtio_mem_check_unchanged(vm, snapshot);
}

void virtio_mem_check_kick_harmless(VirtioMemGuest *vm,
                                    const VirtioMemSnapshot *snapshot)
{
    virtio_mem_kick_force(vm);
    if (!virtio_mem_wait_outcome(vm, NULL)) {
        virtio_mem_check_broken(vm, snapshot->plugged_size);
    }
    virtio_mem_check_unchanged(vm, snapshot);
}

void virtio_mem_check_breaks(VirtioMemGuest *vm,
                             const VirtioMemSegment *segments, unsigned nb)
{
    g_autoptr(VirtioMemSnapshot) snapshot = virtio_mem_snapshot(vm);

    virtio_mem_add_chain(vm, segments, nb);
    virtio_mem_check_kick_breaks(vm, snapshot);
}

/* --- the driver --- */

void virtio_mem_restart_with(VirtioMemGuest *vm, uint64_t features)
{
    bool up;

    virtio_mem_device_reset(vm);
    up = virtio_mem_driver_up(vm, virtio_mem_default_features(vm) | features);
    g_assert_true(up);
    g_assert_cmphex(vm->features & features, ==, features);
}

static void chains_write_ring_gpa(VirtioMemGuest *vm, unsigned offset,
                                  uint64_t gpa)
{
    uint64_t addr = virtio_mem_dma(vm, gpa);

    virtio_mem_common_write(vm, offset, 4, (uint32_t)addr);
    virtio_mem_common_write(vm, offset + 4, 4, addr >> 32);
}

static VirtioMemRingAreas chains_move_ring(VirtioMemGuest *vm,
                                           VirtioMemRingAreas areas)
{
    VirtioMemRing *ring = &vm->ring;
    VirtioMemRingAreas home = { ring->desc, ring->driver, ring->device };

    ring->desc = areas.desc;
    ring->driver = areas.driver;
    ring->device = areas.device;
    return home;
}

VirtioMemRingAreas virtio_mem_drive_ring_at(VirtioMemGuest *vm,
                                            VirtioMemRingAreas areas)
{
    VirtioMemRingAreas home;
    bool ok;

    virtio_mem_device_reset(vm);
    vm_set_status(vm, VIRTIO_CONFIG_S_ACKNOWLEDGE |
                      VIRTIO_CONFIG_S_DRIVER);
    ok = virtio_mem_negotiate(vm, virtio_mem_default_features(vm));
    g_assert_true(ok);
    virtio_mem_queue_up(vm, 0);
    chains_write_ring_gpa(vm, VIRTIO_PCI_COMMON_Q_DESCLO, areas.desc);
    chains_write_ring_gpa(vm, VIRTIO_PCI_COMMON_Q_AVAILLO, areas.driver);
    chains_write_ring_gpa(vm, VIRTIO_PCI_COMMON_Q_USEDLO, areas.device);
    virtio_mem_common_write(vm, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    home = chains_move_ring(vm, areas);
    virtio_mem_driver_ok(vm);
    return home;
}

void virtio_mem_leave_ring(VirtioMemGuest *vm, VirtioMemRingAreas home)
{
    chains_move_ring(vm, home);
    virtio_mem_device_reset(vm);
    virtio_mem_take_config_irq(vm);
}

void virtio_mem_settle(VirtioMemGuest *vm)
{
    for (int i = 0; i < 10; i++) {
        virtio_mem_status(vm);
        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    }
}

bool virtio_mem_is_idle(VirtioMemGuest *vm)
{
    VirtioMemUsed used;

    return !virtio_mem_ring_poll(&vm->ring, &used);
}

void virtio_mem_check_works(VirtioMemGuest *vm)
{
    g_autoptr(VirtioMemSnapshot) snapshot = NULL;
    uint64_t wanted = vm_plugged_size(vm) + vm->block_size;
    uint64_t block;

    if (virtio_mem_requested_size(vm) < wanted) {
        virtio_mem_set_requested(vm, wanted);
    }
    snapshot = virtio_mem_snapshot(vm);
    block = find_first_zero_bit(snapshot->bitmap, snapshot->nb_blocks);
    vm_assert_plug(vm, block, 1, ACK);
    vm_assert_unplug(vm, block, 1, ACK);
    virtio_mem_check_unchanged(vm, snapshot);
}
