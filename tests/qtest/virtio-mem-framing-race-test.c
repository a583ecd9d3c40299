/*
 * virtio-mem: a guest CPU rewrites requests while the device reads them
 *
 * The guest's RAM is a file that this process maps too.  A thread flips one
 * field of a request between two values, one of which must be refused, as
 * fast as it can; the device must judge and execute the same value.
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
static void race_check(unsigned offset, VirtioMemRequest other)
{
    RaceRam ram = race_make_ram();
    VirtioMemGuest *vm = race_start_guest(&ram);
    VirtioMemBuffers buffers = virtio_mem_alloc_buffers(vm);
    VirtioMemRequest plug = {
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
    race_check(8, (VirtioMemRequest){ .addr = VM_REGION - VM_BLOCK });
}

static void test_unaligned_address(VirtioMemGuest *unused)
{
    race_check(8, (VirtioMemRequest){ .addr = 4096 });
}

static void test_nb_blocks(VirtioMemGuest *unused)
{
    race_check(16, (VirtioMemRequest){ .nb_blocks = 0xffff });
}

/* Block 0 is not plugged whenever the request arrives. */
static void test_type(VirtioMemGuest *unused)
{
    race_check(0, (VirtioMemRequest){ .type = VIRTIO_MEM_REQ_UNPLUG });
}

static const VirtioMemTest tests[] = {
    { "T138", "framing/rewritten-address-is-read-once", test_address,
      .once = true, .no_guest = true },
    { "T138", "framing/rewritten-alignment-is-read-once",
      test_unaligned_address, .once = true, .no_guest = true },
    { "T138", "framing/rewritten-number-of-blocks-is-read-once",
      test_nb_blocks, .once = true, .no_guest = true },
    { "T138", "framing/rewritten-type-is-read-once", test_type,
      .once = true, .no_guest = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
