/*
 * virtio-mem: a disk's requests that name unplugged memory
 *
 * It is the host's kernel that reads and writes the guest's memory then, and
 * one request touches more pages than the guard lends at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#ifdef CONFIG_LINUX_IO_URING
#include <linux/io_uring.h>
#endif
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "virtio-mem-host-memory.h"
#include "virtio-mem-migrate.h"

#define DISK_SIZE (8 * MiB)
#define DISK_REQUEST (1 * MiB)

typedef struct Disk {
    VirtioMemGuest *vm;
    char *path;
    QVirtioPCIDevice *pci;
    QVirtQueue *vq;
    uint64_t header;            /* a request's, and its status behind it */
} Disk;

static void disk_up(Disk *disk)
{
    VirtioMemGuest *vm = disk->vm;

    disk->pci = virtio_mem_neighbour_start(vm, 5);
    disk->vq = qvirtqueue_setup(&disk->pci->vdev, &vm->qs->alloc, 0);
    qvirtio_set_driver_ok(&disk->pci->vdev);
    disk->header = guest_alloc(&vm->qs->alloc, 64);
}

/* From the beginning of the disk to @gpa, or back; must succeed. */
static void disk_request(Disk *disk, uint32_t type, uint64_t gpa)
{
    const struct virtio_blk_outhdr header = { .type = cpu_to_le32(type) };
    const uint64_t status = disk->header + sizeof(header);
    QTestState *qts = disk->vm->qts;
    uint32_t head;

    qtest_memwrite(qts, disk->header, &header, sizeof(header));
    qtest_writeb(qts, status, 0xff);
    head = qvirtqueue_add(qts, disk->vq, disk->header, sizeof(header), false,
                          true);
    qvirtqueue_add(qts, disk->vq, gpa, DISK_REQUEST, type == VIRTIO_BLK_T_IN,
                   true);
    qvirtqueue_add(qts, disk->vq, status, 1, true, false);
    qvirtqueue_kick(qts, &disk->pci->vdev, disk->vq, head);
    qvirtio_wait_used_elem(qts, &disk->pci->vdev, disk->vq, head, NULL,
                           VM_WAIT_USEC);
    g_assert_cmpint(qtest_readb(qts, status), ==, VIRTIO_BLK_S_OK);
}

static void disk_assert_filled(Disk *disk, uint8_t byte)
{
    g_autofree char *content = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(disk->path, &content, &size, NULL));
    g_assert_cmpuint(size, ==, DISK_SIZE);
    for (gsize i = 0; i < DISK_REQUEST; i++) {
        g_assert_cmphex((uint8_t)content[i], ==, byte);
    }
}

/* What is read is lost, and zeros are written. */
static void disk_check(Disk *disk)
{
    VirtioMemGuest *vm = disk->vm;
    uint64_t before;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    disk_request(disk, VIRTIO_BLK_T_IN, vm->addr);
    g_assert_true(virtio_mem_is_filled(vm, vm->addr, 0x77, DISK_REQUEST));

    disk_request(disk, VIRTIO_BLK_T_IN, virtio_mem_block_gpa(vm, 1));
    before = virtio_mem_host_memory(vm);
    for (uint64_t i = 2; i < 66; i++) {
        disk_request(disk, VIRTIO_BLK_T_IN, virtio_mem_block_gpa(vm, i));
    }
    virtio_mem_assert_gain(vm, before, 1 * MiB);
    disk_request(disk, VIRTIO_BLK_T_OUT, virtio_mem_block_gpa(vm, 1));
    disk_assert_filled(disk, 0);
    g_assert_true(virtio_mem_is_filled(vm, vm->addr, 0x77, DISK_REQUEST));
}

static void check_drive(const char *how)
{
    g_autofree char *path = virtio_mem_temp_path("disk");
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=raw,node-name=disk0,file.driver=file,"
        "file.filename=%s,%s "
        "-device virtio-blk-pci,drive=disk0,disable-legacy=on,addr=05.0",
        path, how);
    const VirtioMemOptions opts = {
        .device = "protect-unplugged=on", .args = args,
    };
    g_autofree char *content = g_malloc(DISK_SIZE);
    Disk disk = { .path = path };

    memset(content, 0x77, DISK_SIZE);
    g_assert_true(g_file_set_contents(path, content, DISK_SIZE, NULL));
    disk.vm = virtio_mem_guest_start(&opts);
    disk_up(&disk);
    disk_check(&disk);
    qvirtqueue_cleanup(disk.pci->vdev.bus, disk.vq, &disk.vm->qs->alloc);
    virtio_mem_neighbour_free(disk.pci);
    virtio_mem_guest_stop(disk.vm);
}

static void test_threads(VirtioMemGuest *unused)
{
    check_drive("file.aio=threads");
}

static bool have_io_uring(void)
{
    int fd = -1;
#ifdef CONFIG_LINUX_IO_URING
    struct io_uring_params params = {};

    fd = syscall(__NR_io_uring_setup, 1, &params);
    if (fd >= 0) {
        close(fd);
    }
#endif
    return fd >= 0;
}

static void test_io_uring(VirtioMemGuest *unused)
{
    if (have_io_uring()) {
        check_drive("file.aio=io_uring");
    } else {
        g_test_skip("no io_uring here");
    }
}

static bool have_direct(void)
{
    g_autofree char *path = virtio_mem_temp_path("direct");
    const int fd = open(path, O_CREAT | O_RDWR | O_DIRECT, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* All pages of the request at once, and the kernel pins them. */
static void test_direct(VirtioMemGuest *unused)
{
    if (have_direct()) {
        check_drive("file.aio=threads,file.cache.direct=on,cache.direct=on");
    } else {
        g_test_skip("temporary files cannot be opened without a cache");
    }
}

static const VirtioMemTest tests[] = {
    { "T226 T227 T228", "guard/disk-and-unplugged-memory", test_threads,
      .no_guest = true, .guard = true },
    { "T226 T227 T228", "guard/disk-by-io-uring-and-unplugged-memory",
      test_io_uring, .no_guest = true, .guard = true },
    { "T226 T227 T228", "guard/disk-without-cache-and-unplugged-memory",
      test_direct, .no_guest = true, .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
