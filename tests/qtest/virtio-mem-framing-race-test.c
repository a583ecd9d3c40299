/*
 * virtio-mem: a guest CPU writes while the device reads
 *
 * The guest's RAM is a file that this process maps too.  A thread flips one
 * field of a request between two values, one of which must be refused, as
 * fast as it can; the device must judge and execute the same value.  Or it
 * adds requests as fast as they are served.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "virtio-mem-chains.h"

/* Each value must have been seen so often before the test may end. */
#define MIN_SEEN        100
#define MIN_REQUESTS    1500
#define MAX_REQUESTS    1000000

typedef struct RaceRam {
    char *path;
    uint8_t *bytes;
} RaceRam;

/* One aligned word of the request, and the two values it alternates between. */
typedef struct RaceFlipper {
    uint64_t *word;
    uint64_t values[2];
    bool stop;
} RaceFlipper;

static RaceRam race_make_ram(void)
{
    g_autoptr(GError) err = NULL;
    RaceRam ram = {};
    int fd = g_file_open_tmp("virtio-mem-ram-XXXXXX", &ram.path, &err);

    g_assert_no_error(err);
    g_assert_cmpint(ftruncate(fd, VM_RAM), ==, 0);
    ram.bytes = mmap(NULL, VM_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(ram.bytes != MAP_FAILED);
    close(fd);
    return ram;
}

static void race_free_ram(RaceRam *ram)
{
    munmap(ram->bytes, VM_RAM);
    unlink(ram->path);
    g_free(ram->path);
}

static VirtioMemGuest *race_start_guest(const RaceRam *ram)
{
    g_autofree char *args = g_strdup_printf(
        "-object memory-backend-file,id=ram0,share=on,size=%" PRIu64
        ",mem-path=%s", (uint64_t)VM_RAM, ram->path);
    VirtioMemOptions opts = {
        .machine = "pc,memory-backend=ram0",
        .args = args,
        .requested = VM_REQUESTED,
    };

    return virtio_mem_guest_start(&opts);
}

static void *race_flip(void *opaque)
{
    RaceFlipper *flipper = opaque;

    for (unsigned i = 0; !qatomic_read(&flipper->stop); i++) {
        qatomic_set(flipper->word, flipper->values[i & 1]);
    }
    return NULL;
}

/*
 * One PLUG of block 0 while it is being rewritten: ACK and exactly that block,
 * or ERROR and nothing.  Returns whether it was ACK.
 */
static bool race_plug_once(VirtioMemGuest *vm, const VirtioMemBuffers *buffers)
{
    VirtioMemSegment segments[] = {
        virtio_mem_readable(vm, buffers->req_gpa, VM_REQUEST_SIZE),
        virtio_mem_writable(vm, buffers->resp_gpa, VM_RESPONSE_SIZE),
    };
    uint16_t answer = virtio_mem_check_served(vm, segments, 2).type;
    bool ack = answer == VIRTIO_MEM_RESP_ACK;

    g_assert_true(ack || answer == VIRTIO_MEM_RESP_ERROR);
    vm_assert_plugged(vm, ack ? 1 : 0);
    if (ack) {
        vm_assert_state(vm, 0, 1, PLUGGED);
        vm_assert_unplug(vm, 0, 1, ACK);
    }
    return ack;
}

static void race_check_requests(VirtioMemGuest *vm,
                                const VirtioMemBuffers *buffers)
{
    unsigned seen[2] = {};

    for (unsigned i = 0; i < MIN_REQUESTS || MIN(seen[0], seen[1]) < MIN_SEEN;
         i++) {
        g_assert_cmpuint(i, <, MAX_REQUESTS);
        seen[race_plug_once(vm, buffers)]++;
    }
}

/* Flip the word at @offset of a PLUG request to the word of @other. */
static void race_check(unsigned offset, VmRequest other)
{
    RaceRam ram = race_make_ram();
    VirtioMemGuest *vm = race_start_guest(&ram);
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VmRequest plug = {
        .type = VIRTIO_MEM_REQ_PLUG, .addr = vm->addr, .nb_blocks = 1,
    };
    uint64_t words[2][VM_REQUEST_SIZE / 8];
    RaceFlipper flipper;
    GThread *thread;

    other.addr += vm->addr;
    virtio_mem_format_request((uint8_t *)words[0], &plug);
    virtio_mem_format_request((uint8_t *)words[1], &other);
    virtio_mem_write_request(vm, buffers.req_gpa, &plug);
    flipper = (RaceFlipper){
        .word = (uint64_t *)(ram.bytes + buffers.req_gpa + offset),
        .values = { words[0][offset / 8], words[1][offset / 8] },
    };
    thread = g_thread_new("flipper", race_flip, &flipper);
    race_check_requests(vm, &buffers);
    qatomic_set(&flipper.stop, true);
    g_thread_join(thread);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
    race_free_ram(&ram);
}

static void test_address(VirtioMemGuest *unused)
{
    race_check(8, (VmRequest){ .addr = VM_REGION - VM_BLOCK });
}

static void test_unaligned_address(VirtioMemGuest *unused)
{
    race_check(8, (VmRequest){ .addr = 4096 });
}

static void test_nb_blocks(VirtioMemGuest *unused)
{
    race_check(16, (VmRequest){ .nb_blocks = 0xffff });
}

/* Block 0 is not plugged whenever the request arrives. */
static void test_type(VirtioMemGuest *unused)
{
    race_check(0, (VmRequest){ .type = VIRTIO_MEM_REQ_UNPLUG });
}

/* --- a CPU that never lets the ring run empty --- */

/* The split ring's idx fields, little endian, as this process maps them. */
typedef struct RaceRefiller {
    uint16_t *avail_idx;
    const uint16_t *used_idx;
    uint16_t ahead;             /* so far that the device never catches up */
    bool stop;
} RaceRefiller;

static void *race_refill(void *opaque)
{
    RaceRefiller *refiller = opaque;

    while (!qatomic_read(&refiller->stop)) {
        uint16_t used = le16_to_cpu(qatomic_read(refiller->used_idx));

        qatomic_set(refiller->avail_idx, cpu_to_le16(used + refiller->ahead));
    }
    return NULL;
}

/* Every slot of the available ring offers the chain that starts at @head. */
static RaceRefiller race_offer_everywhere(VirtioMemGuest *vm,
                                          const RaceRam *ram, uint16_t head)
{
    uint16_t *avail = (uint16_t *)(ram->bytes + vm->ring.driver);

    for (unsigned i = 0; i < vm->ring.opts.size; i++) {
        avail[2 + i] = cpu_to_le16(head);
    }
    return (RaceRefiller){
        .avail_idx = avail + 1,
        .used_idx = (uint16_t *)(ram->bytes + vm->ring.device) + 1,
        .ahead = vm->ring.opts.size - 1,
    };
}

static bool race_kick(VirtioMemGuest *vm, const RaceRefiller *refiller,
                      uint16_t before)
{
    virtio_mem_kick_force(vm);
    return qatomic_read(refiller->used_idx) != before;
}

/* The monitor answers, again and again, while requests are being served. */
static void test_endless_requests(VirtioMemGuest *unused)
{
    const VmRequest req = { .type = VIRTIO_MEM_REQ_STATE,
                                   .nb_blocks = 1 };
    RaceRam ram = race_make_ram();
    VirtioMemGuest *vm = race_start_guest(&ram);
    RaceRefiller refiller = race_offer_everywhere(
        vm, &ram, virtio_mem_queue_request(vm, &req));
    GThread *thread = g_thread_new("refiller", race_refill, &refiller);

    for (unsigned i = 0; i < 20; i++) {
        uint16_t before = qatomic_read(refiller.used_idx);

        vm_wait_until(race_kick(vm, &refiller, before));
        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    }
    qatomic_set(&refiller.stop, true);
    g_thread_join(thread);
    virtio_mem_device_reset(vm);
    virtio_mem_restart_driver(vm);
    vm_assert_plug(vm, 0, 1, ACK);
    virtio_mem_check_invariants(vm);
    virtio_mem_guest_stop(vm);
    race_free_ram(&ram);
}

static const VirtioMemTest tests[] = {
    { "T138", "framing/rewritten-address-is-read-once", test_address,
      .no_guest = true },
    { "T138", "framing/rewritten-alignment-is-read-once",
      test_unaligned_address, .no_guest = true },
    { "T138", "framing/rewritten-number-of-blocks-is-read-once",
      test_nb_blocks, .no_guest = true },
    { "T138", "framing/rewritten-type-is-read-once", test_type,
      .no_guest = true },
    { "T161", "ring/endless-requests-leave-the-monitor-its-turn",
      test_endless_requests, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
