/*
 * A naive model of virtio-mem, and random requests for it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-model.h"

#define MAX_NB          0xffff

/* --- the model --- */

uint64_t model_count(const HostileModel *m, uint64_t first, uint64_t nb)
{
    uint64_t count = 0;

    for (uint64_t i = first; i < first + nb; i++) {
        count += m->plugged[i];
    }
    return count;
}

static bool model_find(const HostileModel *m, const VmRequest *req,
                       uint64_t *first)
{
    for (uint64_t i = 0; i < m->nb_usable; i++) {
        if (virtio_mem_block_gpa(m->vm, i) == req->addr) {
            *first = i;
            return req->nb_blocks && i + req->nb_blocks <= m->nb_usable;
        }
    }
    return false;
}

static VmAnswer model_state(const HostileModel *m, uint64_t first,
                            uint64_t nb)
{
    uint64_t count = model_count(m, first, nb);

    return (VmAnswer){
        .type = VIRTIO_MEM_RESP_ACK,
        .state = count == nb ? VIRTIO_MEM_STATE_PLUGGED :
                 count == 0 ? VIRTIO_MEM_STATE_UNPLUGGED :
                              VIRTIO_MEM_STATE_MIXED,
    };
}

void model_set(HostileModel *m, uint64_t first, uint64_t nb, bool plugged)
{
    for (uint64_t i = first; i < first + nb; i++) {
        m->plugged[i] = plugged;
        m->stamp[i] = 0;
    }
}

/* The answer that must come; what it says has then been done. */
static VmAnswer model_serve(HostileModel *m,
                            const VmRequest *req)
{
    bool plug = req->type == VIRTIO_MEM_REQ_PLUG;
    uint64_t first, nb = req->nb_blocks;

    if (req->type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        if (m->is_busy && model_count(m, 0, NB_BLOCKS)) {
            return (VmAnswer){ VIRTIO_MEM_RESP_BUSY };
        }
        model_set(m, 0, NB_BLOCKS, false);
        return (VmAnswer){ VIRTIO_MEM_RESP_ACK };
    }
    if (req->type > VIRTIO_MEM_REQ_STATE || !model_find(m, req, &first)) {
        return (VmAnswer){ VIRTIO_MEM_RESP_ERROR };
    }
    if (req->type == VIRTIO_MEM_REQ_STATE) {
        return model_state(m, first, nb);
    }
    if (model_count(m, first, nb) != (plug ? 0 : nb)) {
        return (VmAnswer){ VIRTIO_MEM_RESP_ERROR };
    }
    if (plug && model_count(m, 0, NB_BLOCKS) + nb > m->nb_requested) {
        return (VmAnswer){ VIRTIO_MEM_RESP_NACK };
    }
    if (m->is_busy) {
        return (VmAnswer){ VIRTIO_MEM_RESP_BUSY };
    }
    model_set(m, first, nb, plug);
    return (VmAnswer){ VIRTIO_MEM_RESP_ACK };
}

/* Only a larger request may raise U, only UNPLUG ALL and reset lower it. */
void model_read_usable(HostileModel *m, bool may_grow, bool may_shrink)
{
    uint64_t nb_usable = virtio_mem_usable_blocks(m->vm);

    g_assert_cmpuint(nb_usable, >=, m->nb_requested);
    g_assert_cmpuint(nb_usable, <=, NB_BLOCKS);
    if (!may_grow) {
        g_assert_cmpuint(nb_usable, <=, m->nb_usable);
    }
    if (!may_shrink) {
        g_assert_cmpuint(nb_usable, >=, m->nb_usable);
    }
    m->nb_usable = nb_usable;
}

void model_check_answer(HostileModel *m, const VmRequest *req,
                        VmAnswer got)
{
    VmAnswer expected = model_serve(m, req);

    if (got.type != expected.type || got.state != expected.state) {
        g_test_message("type %u addr 0x%" PRIx64 " nb %u: answer %u state %u,"
                       " expected %u, %u", req->type, req->addr,
                       req->nb_blocks, got.type, got.state, expected.type,
                       expected.state);
    }
    g_assert_cmpuint(got.type, ==, expected.type);
    g_assert_cmpuint(got.state, ==, expected.state);
}

/* --- random values --- */

uint64_t random_below(uint64_t end)
{
    uint64_t value = (uint64_t)(uint32_t)g_test_rand_int() << 32 |
                     (uint32_t)g_test_rand_int();

    return end ? value % end : value;
}

bool random_one_in(unsigned nb)
{
    return random_below(nb) == 0;
}

static uint64_t random_edge(HostileModel *m)
{
    const uint64_t end = m->vm->addr + m->nb_usable * HOSTILE_BLOCK;
    const uint64_t edges[] = {
        0, m->vm->addr, end, m->vm->addr + HOSTILE_REGION, 1ULL << 32,
        1ULL << 63, (1ULL << 63) + m->vm->addr, 0 - m->vm->addr,
    };
    static const int64_t deltas[] = {
        -HOSTILE_BLOCK, -4096, -1, 0, 1, 4096, HOSTILE_BLOCK,
    };

    return edges[random_below(ARRAY_SIZE(edges))] +
           deltas[random_below(ARRAY_SIZE(deltas))];
}

uint64_t random_addr(HostileModel *m)
{
    switch (random_below(16)) {
    case 0:
        return random_below(0);
    case 1:
        return m->vm->addr + random_below(HOSTILE_REGION);
    case 2:
    case 3:
        return random_edge(m);
    default:
        return virtio_mem_block_gpa(m->vm, random_below(m->nb_usable + 2));
    }
}

static uint16_t random_nb_blocks(HostileModel *m)
{
    switch (random_below(16)) {
    case 0:
        return random_below(0);
    case 1:
        return m->nb_usable + random_below(3) - 1;
    case 2:
        return random_one_in(2) ? MAX_NB : 0;
    default:
        return 1 + random_below(8);
    }
}

static uint16_t random_type(void)
{
    static const uint16_t types[] = {
        VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_PLUG,
        VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_UNPLUG,
        VIRTIO_MEM_REQ_STATE,
    };

    if (random_one_in(40)) {
        return VIRTIO_MEM_REQ_UNPLUG_ALL;
    }
    return random_one_in(20) ? random_below(0)
                             : types[random_below(ARRAY_SIZE(types))];
}

VmRequest random_request(HostileModel *m)
{
    return (VmRequest){
        .type = random_type(),
        .addr = random_addr(m),
        .nb_blocks = random_nb_blocks(m),
        .junk = random_below(256),
    };
}

void random_step(HostileModel *m, const HostileStep *steps, size_t nb)
{
    unsigned total = 0;
    uint64_t chosen;
    size_t i;

    for (i = 0; i < nb; i++) {
        total += steps[i].weight;
    }
    chosen = random_below(total);
    for (i = 0; chosen >= steps[i].weight; i++) {
        chosen -= steps[i].weight;
    }
    steps[i].run(m);
}
