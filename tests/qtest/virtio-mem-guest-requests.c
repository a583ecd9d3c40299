/*
 * The tiny guest's requests: send, check the form of the answer, read it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-mem-guest-internal.h"

#define REQUEST_SIZE    24
#define RESPONSE_SIZE   10
#define GUARD_SIZE      64
#define POISON          0xa5

QEMU_BUILD_BUG_ON(sizeof(struct virtio_mem_req) != REQUEST_SIZE);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_mem_resp) != RESPONSE_SIZE);

void virtio_mem_format_request(uint8_t bytes[REQUEST_SIZE],
                               const VmRequest *req)
{
    memset(bytes, req->junk, REQUEST_SIZE);
    stw_le_p(bytes, req->type);
    stq_le_p(bytes + 8, req->addr);
    stw_le_p(bytes + 16, req->nb_blocks);
}

void virtio_mem_write_request(VirtioMemGuest *vm, uint64_t gpa,
                              const VmRequest *req)
{
    uint8_t bytes[REQUEST_SIZE];

    virtio_mem_format_request(bytes, req);
    qtest_memwrite(vm->qts, gpa, bytes, sizeof(bytes));
}

/* Guards only around our own buffer: elsewhere there may be no memory. */
static uint64_t request_poison_response(VirtioMemGuest *vm, uint64_t gpa)
{
    if (gpa) {
        qtest_memset(vm->qts, gpa, POISON, RESPONSE_SIZE);
        return gpa;
    }
    qtest_memset(vm->qts, vm->resp_gpa, POISON,
                 GUARD_SIZE + RESPONSE_SIZE + GUARD_SIZE);
    return vm->resp_gpa + GUARD_SIZE;
}

static void request_check_guard(const uint8_t *guard)
{
    for (int i = 0; i < GUARD_SIZE; i++) {
        g_assert_cmphex(guard[i], ==, POISON);
    }
}

static void request_check_guards(VirtioMemGuest *vm)
{
    uint8_t bytes[GUARD_SIZE + RESPONSE_SIZE + GUARD_SIZE];

    qtest_memread(vm->qts, vm->resp_gpa, bytes, sizeof(bytes));
    request_check_guard(bytes);
    request_check_guard(bytes + GUARD_SIZE + RESPONSE_SIZE);
}

uint16_t virtio_mem_add_chain(VirtioMemGuest *vm,
                              const VirtioMemSegment *segments, unsigned nb)
{
    if (vm->features & VM_BIT(VIRTIO_RING_F_INDIRECT_DESC)) {
        return virtio_mem_ring_add_indirect(&vm->ring, segments, nb);
    }
    return virtio_mem_ring_add(&vm->ring, segments, nb);
}

uint16_t virtio_mem_queue_request(VirtioMemGuest *vm,
                                  const VmRequest *req)
{
    uint64_t req_gpa = req->req_gpa ?: vm->req_gpa;
    uint64_t resp_gpa = request_poison_response(vm, req->resp_gpa);
    VirtioMemSegment segments[] = {
        { .addr = virtio_mem_dma(vm, req_gpa), .len = REQUEST_SIZE },
        { .addr = virtio_mem_dma(vm, resp_gpa), .len = RESPONSE_SIZE,
          .writable = true },
    };

    virtio_mem_write_request(vm, req_gpa, req);
    return virtio_mem_add_chain(vm, segments, ARRAY_SIZE(segments));
}

void virtio_mem_kick_force(VirtioMemGuest *vm)
{
    qpci_io_writew(vm->pci->pdev, vm->pci->bar, vm->vq.notify_offset, 0);
}

void virtio_mem_kick(VirtioMemGuest *vm)
{
    if (virtio_mem_ring_need_kick(&vm->ring)) {
        virtio_mem_kick_force(vm);
    }
}

static bool request_poll(VirtioMemGuest *vm, VirtioMemUsed *used)
{
    const bool there = virtio_mem_ring_poll(&vm->ring, used);

    g_assert_true(there || !virtio_mem_is_broken(vm));
    return there;
}

VirtioMemUsed virtio_mem_wait_used(VirtioMemGuest *vm)
{
    VirtioMemUsed used;

    vm_wait_until(request_poll(vm, &used));
    return used;
}

VmAnswer virtio_mem_read_answer(VirtioMemGuest *vm, uint64_t resp_gpa)
{
    uint8_t bytes[RESPONSE_SIZE];

    if (!resp_gpa) {
        request_check_guards(vm);
    }
    qtest_memread(vm->qts, resp_gpa ?: vm->resp_gpa + GUARD_SIZE, bytes,
                  sizeof(bytes));
    for (int i = 2; i < 8; i++) {
        g_assert_cmphex(bytes[i], ==, 0);
    }
    return (VmAnswer){
        .type = lduw_le_p(bytes),
        .state = lduw_le_p(bytes + 8),
    };
}

/* The device must not write what it may only read. */
static void request_check_untouched(VirtioMemGuest *vm,
                                    const VmRequest *req)
{
    uint8_t now[REQUEST_SIZE], then[REQUEST_SIZE];

    virtio_mem_format_request(then, req);
    qtest_memread(vm->qts, req->req_gpa ?: vm->req_gpa, now, sizeof(now));
    g_assert_cmpmem(now, sizeof(now), then, sizeof(then));
}

static void request_check_irqs(VirtioMemGuest *vm, bool may_notify)
{
    bool config_before = vm->config_irq;

    virtio_mem_collect_irqs(vm);
    if (!may_notify && !vm->opts.may_notify) {
        g_assert_cmpint(vm->config_irq, ==, config_before);
    }
    if (!vm->ring.quiet) {
        g_assert_true(vm->queue_irq);
    }
    vm->queue_irq = false;
}

VmAnswer virtio_mem_request(VirtioMemGuest *vm,
                            const VmRequest *req)
{
    VmAnswer answer;
    VirtioMemUsed used;
    uint16_t id;

    virtio_mem_collect_irqs(vm);
    vm->queue_irq = false;
    id = virtio_mem_queue_request(vm, req);
    virtio_mem_kick(vm);
    used = virtio_mem_wait_used(vm);
    g_assert_cmpuint(used.id, ==, id);
    g_assert_cmpuint(used.len, ==, RESPONSE_SIZE);
    answer = virtio_mem_read_answer(vm, req->resp_gpa);
    if (req->type != VIRTIO_MEM_REQ_STATE ||
        answer.type != VIRTIO_MEM_RESP_ACK) {
        g_assert_cmphex(answer.state, ==, 0);
    }
    request_check_untouched(vm, req);
    request_check_irqs(vm, req->may_notify);
    return answer;
}

/* --- the verbs --- */

uint64_t virtio_mem_block_gpa(VirtioMemGuest *vm, uint64_t index)
{
    return vm->addr + index * vm->block_size;
}

uint16_t vm_plug(VirtioMemGuest *vm, uint64_t first, uint16_t nb)
{
    return virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_PLUG,
                          .addr = virtio_mem_block_gpa(vm, first),
                          .nb_blocks = nb).type;
}

uint16_t vm_unplug(VirtioMemGuest *vm, uint64_t first, uint16_t nb)
{
    return virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_UNPLUG,
                          .addr = virtio_mem_block_gpa(vm, first),
                          .nb_blocks = nb).type;
}

uint16_t vm_unplug_all(VirtioMemGuest *vm)
{
    return virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_UNPLUG_ALL).type;
}

VmAnswer vm_state(VirtioMemGuest *vm, uint64_t first,
                  uint16_t nb)
{
    return virtio_mem_req(vm, .type = VIRTIO_MEM_REQ_STATE,
                          .addr = virtio_mem_block_gpa(vm, first),
                          .nb_blocks = nb);
}
