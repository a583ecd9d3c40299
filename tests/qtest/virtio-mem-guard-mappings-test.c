/*
 * virtio-mem: a guest that fragments its memory takes no more of the host's
 * mappings than half of what the host allows QEMU, and all else goes on
 *
 * With "-m slow", by as many devices and blocks as it takes.  Otherwise, QEMU
 * believes that the host allows it some hundred more than it has at first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-hold.h"
#include "virtio-mem-migrate.h"

/* QEMU starts and ends threads, allocates and frees, while it works. */
#define MAPPINGS_NOISE 60

static uint64_t count_mappings(VirtioMemGuest *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/maps",
                                            qtest_pid(vm->qts));
    g_autofree char *content = NULL;
    uint64_t nb = 0;

    g_assert_true(g_file_get_contents(path, &content, NULL, NULL));
    for (const char *c = content; *c; c++) {
        nb += *c == '\n';
    }
    return nb;
}

/* What the host allows QEMU, or what QEMU believes that it does. */
static uint64_t max_map_count;

/* A guest whose guard may have @nb mappings; with "-m slow", far more. */
static VirtioMemGuest *start_with_mappings(const VirtioMemOptions *opts,
                                           uint64_t nb)
{
    g_autofree char *content = NULL;
    VirtioMemGuest *vm;

    if (g_test_slow()) {
        g_assert_true(g_file_get_contents("/proc/sys/vm/max_map_count",
                                          &content, NULL, NULL));
        max_map_count = g_ascii_strtoull(content, NULL, 10);
        return virtio_mem_guest_start(opts);
    }
    vm = virtio_mem_hold_start(opts);
    max_map_count = count_mappings(vm) + 2 * nb;
    virtio_mem_hold_set_max_map_count(max_map_count);
    return vm;
}

/* Half of what is left, and no more. */
static void assert_mappings(VirtioMemGuest *vm, uint64_t before)
{
    const uint64_t nb = count_mappings(vm);

    g_test_message("%" PRIu64 " mappings", nb);
    g_assert_cmpuint(nb, <=, before + MAPPINGS_NOISE +
                     (max_map_count - before) / 2);
}

/* What needs mappings or threads: none of it may end QEMU. */
static void assert_all_goes_on(VirtioMemGuest *vm, bool was_busy)
{
    static const char *const iothreads[] = { "a", "b", "c", "d" };

    for (size_t i = 0; i < ARRAY_SIZE(iothreads); i++) {
        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add',"
                                 " 'arguments': { 'qom-type': 'iothread',"
                                 " 'id': %s } }", iothreads[i]);
    }
    g_assert_true(virtio_mem_is_protected(vm));
    virtio_mem_begin_busy(vm);
    virtio_mem_end_busy(vm);
    if (was_busy) {
        virtio_mem_wait_config_irq(vm);
    }
}

static uint64_t nb_blocks_to_plug(VirtioMemGuest *vm)
{
    return g_test_slow() ? vm->region_size / vm->block_size : 600;
}

/* Every second block, until the guest has to wait, if it has to. */
static uint64_t plug_every_second(VirtioMemGuest *vm)
{
    const uint64_t nb_blocks = nb_blocks_to_plug(vm);

    for (uint64_t i = 1; i < nb_blocks; i += 2) {
        const uint16_t answer = vm_plug(vm, i, 1);

        if (answer == VIRTIO_MEM_RESP_BUSY) {
            return i;
        }
        g_assert_cmpuint(answer, ==, VIRTIO_MEM_RESP_ACK);
        qtest_writeb(vm->qts, virtio_mem_block_gpa(vm, i), 1);
    }
    return nb_blocks;
}

static const VirtioMemOptions large = {
    .region_size = 80 * GiB, .device = "protect-unplugged=on",
};

static void test_every_second(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = start_with_mappings(&large, 400);
    const uint64_t before = count_mappings(vm);
    uint64_t end;

    virtio_mem_set_requested(vm, vm->region_size);
    end = plug_every_second(vm);
    assert_mappings(vm, before);
    g_assert_cmpuint(count_mappings(vm) + MAPPINGS_NOISE, >=,
                     before + end - 2);
    if (end < nb_blocks_to_plug(vm)) {
        virtio_mem_assert_resize(vm, "waiting", "host-refused");
    } else {
        g_assert_true(g_test_slow());
        /* This host allows so many that the region is too small. */
        g_assert_cmpuint((max_map_count - before) / 2, >=, end);
    }
    assert_all_goes_on(vm, end < nb_blocks_to_plug(vm));

    /* At the end of a run, it costs nothing; in its middle, it might. */
    vm_assert_plug(vm, 2, 1, ACK);
    vm_assert_unplug(vm, 1, 1, ACK);
    vm_assert_unplug(vm, 3, 1, ACK);
    vm_assert_unplug(vm, 2, 1, ACK);
    vm_assert_unplug_all(vm, ACK);
    g_assert_cmpuint(count_mappings(vm), <=, before + MAPPINGS_NOISE);
    vm_assert_plug(vm, 1, 1, ACK);
    virtio_mem_guest_stop(vm);
}

/*
 * A few blocks are plugged at a time, all over a large region: what they needed
 * is there for the next ones.
 */
static void test_window(VirtioMemGuest *unused)
{
    VirtioMemGuest *vm = start_with_mappings(&large, 250);
    const uint64_t before = count_mappings(vm);
    const uint64_t nb_blocks = vm->region_size / vm->block_size;
    const uint64_t window = g_test_slow() ? 4000 : 100;
    uint64_t base, i, nb_rounds = 0;

    virtio_mem_set_requested(vm, vm->region_size);
    for (base = 0; base + 2 * window < nb_blocks; base += 2 * window) {
        for (i = base; i < base + 2 * window; i += 2) {
            vm_assert_plug(vm, i, 1, ACK);
            qtest_writeb(vm->qts, virtio_mem_block_gpa(vm, i), 1);
        }
        for (i = base; i < base + 2 * window - 2; i += 2) {
            vm_assert_unplug(vm, i, 1, ACK);
        }
        nb_rounds++;
        g_assert_cmpuint(count_mappings(vm), <=,
                         before + MAPPINGS_NOISE + 2 * nb_rounds);
        if (!g_test_slow() && nb_rounds == 4) {
            break;
        }
    }
    g_assert_true(virtio_mem_is_protected(vm));
    vm_assert_plugged(vm, nb_rounds);
    vm_assert_unplug_all(vm, ACK);
    virtio_mem_guest_stop(vm);
}

/* "vm1", "vm2" and so on; it has a backend of the same size as the first. */
static VirtioMemGuest *add_device(VirtioMemGuest *vm, const char *id)
{
    const unsigned slot = 8 + g_ascii_digit_value(id[2]);
    g_autofree char *mem = g_strdup_printf("mem-of-%s", id);
    g_autofree char *addr = g_strdup_printf("%x", slot);

    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-add',"
                             " 'arguments': { 'qom-type':"
                             " 'memory-backend-memfd', 'id': %s, 'size':"
                             " %" PRIu64 ", 'reserve': false } }", mem,
                             vm->region_size);
    qtest_qmp_device_add(vm->qts, "virtio-mem-pci", id, "{ 'memdev': %s,"
                         " 'addr': %s, 'block-size': %u,"
                         " 'protect-unplugged': 'on' }", mem, addr,
                         (unsigned)(2 * MiB));
    return virtio_mem_guest_attach(vm, id, QPCI_DEVFN(slot, 0));
}

/* Several devices, most of them added while the others have their share. */
static void test_devices(VirtioMemGuest *unused)
{
    static const char *const ids[] = {
        "vm1", "vm2", "vm3", "vm4", "vm5", "vm6", "vm7",
    };
    const unsigned nb_others = g_test_slow() ? ARRAY_SIZE(ids) : 1;
    const VirtioMemOptions opts = {
        .args = "-m 256M,slots=1,maxmem=2T -cpu max,phys-bits=46",
        .memdev = "memory-backend-memfd,id=vmem0,size=40G,reserve=off",
        .region_size = 40 * GiB,
    };
    VirtioMemGuest *vm = start_with_mappings(&opts, 800);
    const uint64_t before = count_mappings(vm);
    VirtioMemGuest *others[ARRAY_SIZE(ids)];
    uint64_t end = 0;

    virtio_mem_set_requested(vm, vm->region_size);
    plug_every_second(vm);
    for (unsigned i = 0; i < nb_others; i++) {
        others[i] = add_device(vm, ids[i]);
        virtio_mem_set_requested(others[i], others[i]->region_size);
        end = plug_every_second(others[i]);
        assert_mappings(vm, before);
    }
    /* They share what there is; it is not there once more for each. */
    if (!g_test_slow()) {
        g_assert_cmpuint(end, <, nb_blocks_to_plug(vm));
    }
    assert_all_goes_on(vm, false);
    for (unsigned i = 0; i < nb_others; i++) {
        vm_assert_unplug_all(others[i], ACK);
        virtio_mem_guest_stop(others[i]);
    }
    vm_assert_unplug_all(vm, ACK);
    g_assert_cmpuint(count_mappings(vm), <=, before + MAPPINGS_NOISE);
    virtio_mem_guest_stop(vm);
}

static const VirtioMemTest tests[] = {
    { "T227", "guard/mappings/every-second-block", test_every_second,
      .no_guest = true, .guard = true },
    { "T227", "guard/mappings/window", test_window, .no_guest = true,
      .guard = true },
    { "T227", "guard/mappings/several-devices", test_devices, .no_guest = true,
      .guard = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
