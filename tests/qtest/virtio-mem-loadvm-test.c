/*
 * virtio-mem: many false snapshots in one QEMU
 *
 * A refused migration is a QEMU's last act; a refused snapshot is not.  So
 * what a snapshot says of the device is changed in the disk image, again and
 * again, and loaded; now and then the true one, which must be as ever.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "virtio-mem-migrate.h"
#include "virtio-mem-snapshots.h"

#define EARLY           "0000:00:04.0/virtio-mem-device-early"
#define LATE            "0000:00:04.0/virtio-mem"
#define BLOCKS_AT_4G    (4 * GiB)
#define USABLE          (512 * MiB)

#define EARLY_LEN       (28 + 8 + 64)
#define LATE_LEN        16
#define ALL_LEN         (EARLY_LEN + LATE_LEN)

static const VirtioMemOptions small = {
    .region_size = GiB, .memaddr = BLOCKS_AT_4G,
};
static const VirtioMemOptions small_memslots = {
    .region_size = GiB, .memaddr = BLOCKS_AT_4G,
    .device = "dynamic-memslots=on",
};

/* Two pieces of the disk image, and what is true there. */
typedef struct Image {
    int fd;
    off_t early, late;
    uint8_t bytes[ALL_LEN];
} Image;

static void image_write(Image *image, const uint8_t *bytes)
{
    g_assert_cmpint(pwrite(image->fd, bytes, EARLY_LEN, image->early), ==,
                    EARLY_LEN);
    g_assert_cmpint(pwrite(image->fd, bytes + EARLY_LEN, LATE_LEN,
                           image->late), ==, LATE_LEN);
}

/* A section's name, its length before it; 8 bytes later its payload. */
static const char *image_find_section(const char *from, const char *end,
                                      const char *idstr)
{
    g_autofree char *name = g_strdup_printf("%c%s", (int)strlen(idstr),
                                            idstr);
    const char *at = memmem(from, end - from, name, strlen(name));

    g_assert_nonnull(at);
    return at + strlen(name) + 8;
}

static void image_open(Image *image)
{
    g_autofree char *path = virtio_mem_temp_path(VM_SNAPSHOT_DISK);
    g_autoptr(GMappedFile) file = g_mapped_file_new(path, false, NULL);
    const char *start = g_mapped_file_get_contents(file);
    const char *end = start + g_mapped_file_get_length(file);
    const char *early = image_find_section(start, end, EARLY);
    const char *late = image_find_section(early, end, LATE);
    uint8_t sizes[LATE_LEN];

    stq_be_p(sizes, USABLE);
    stq_be_p(sizes + 8, VM_REQUESTED);
    late = memmem(late, end - late, sizes, sizeof(sizes));
    g_assert_nonnull(late);
    image->early = early - start;
    image->late = late - start;
    memcpy(image->bytes, early, EARLY_LEN);
    memcpy(image->bytes + EARLY_LEN, late, LATE_LEN);
    image->fd = open(path, O_WRONLY);
    g_assert_cmpint(image->fd, >=, 0);
}

/* Single bits, bytes, and all of a field. */
static void bytes_change(uint8_t *bytes)
{
    for (int nb = g_test_rand_int_range(1, 4); nb > 0; nb--) {
        const int at = g_test_rand_int_range(0, ALL_LEN);

        switch (g_test_rand_int_range(0, 3)) {
        case 0:
            bytes[at] ^= 1 << g_test_rand_int_range(0, 8);
            break;
        case 1:
            bytes[at] = g_test_rand_int_range(0, 256);
            break;
        case 2:
            memset(bytes + MIN(at, ALL_LEN - 8), -g_test_rand_bit(), 8);
            break;
        }
    }
}

/* Blocks 0, 3, 4 and 65 plugged, the first with content. */
static void load_prepare(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    vm_assert_plug(vm, 3, 2, ACK);
    vm_assert_plug(vm, 65, 1, ACK);
    virtio_mem_fill(vm, vm->addr, 0x3d, 4096);
    g_assert_cmphex(virtio_mem_usable_size(vm), ==, USABLE);
    virtio_mem_snapshot_add_disk(vm);
    virtio_mem_snapshot_do(vm, "snapshot-save");
}

/* A guest whose snapshot was refused is stopped; this one may go on. */
static void load_check_true(VirtioMemGuest *vm, Image *image,
                            const VirtioMemRing *ring)
{
    image_write(image, image->bytes);
    virtio_mem_snapshot_do(vm, "snapshot-load");
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
    vm->ring = *ring;
    virtio_mem_take_config_irq(vm);
    g_assert_cmphex(vm_plugged_size(vm), ==, 4 * VM_BLOCK);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, VM_REQUESTED);
    vm_assert_state(vm, 0, 1, PLUGGED);
    vm_assert_state(vm, 1, 2, UNPLUGGED);
    vm_assert_state(vm, 3, 2, PLUGGED);
    vm_assert_state(vm, 5, 60, UNPLUGGED);
    vm_assert_state(vm, 65, 1, PLUGGED);
    g_assert_true(virtio_mem_is_filled(vm, vm->addr, 0x3d, 4096));
    virtio_mem_check_invariants(vm);
}

/* Whatever was let in, in whole or in part, makes sense. */
static void load_check_sane(VirtioMemGuest *vm)
{
    QDict *device = virtio_mem_query(vm);
    const uint64_t size = qdict_get_int(device, "size");
    const uint64_t requested = qdict_get_int(device, "requested-size");
    const uint64_t usable = qdict_get_int(device, "usable-size");

    g_assert_cmphex(size, <=, usable);
    g_assert_cmphex(requested, <=, usable);
    g_assert_cmphex(usable, <=, GiB);
    g_assert_cmphex((size | requested | usable) & (VM_BLOCK - 1), ==, 0);
    qobject_unref(device);
}

static void test_random(VirtioMemGuest *vm)
{
    const unsigned nb = g_test_slow() ? 100000 : 500;
    unsigned nb_refused = 0;
    VirtioMemRing ring;
    Image image;

    load_prepare(vm);
    image_open(&image);
    ring = vm->ring;
    for (unsigned i = 0; i < nb; i++) {
        uint8_t bytes[ALL_LEN];
        g_autofree char *error = NULL;

        memcpy(bytes, image.bytes, ALL_LEN);
        bytes_change(bytes);
        image_write(&image, bytes);
        error = virtio_mem_snapshot_try(vm, "snapshot-load");
        nb_refused += !!error;
        load_check_sane(vm);
        if (i % 16 == 15) {
            load_check_true(vm, &image, &ring);
        }
    }
    g_test_message("%u of %u false snapshots refused", nb_refused, nb);
    g_assert_cmpuint(nb_refused, >, nb / 2);
    load_check_true(vm, &image, &ring);
    close(image.fd);
}

static const VirtioMemTest tests[] = {
    { "T243", "snapshot/random-changes-do-no-harm", test_random, &small,
      .once = true },
    { "T243", "snapshot/random-changes-do-no-harm-with-memslots",
      test_random, &small_memslots, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
