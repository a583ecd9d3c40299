/*
 * virtio-mem: adding and removing the device, and what the host sees of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qlist.h"
#include "qobject/qbool.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "virtio-mem-guest.h"

#define SLOT        4
/* PIIX4's register that ejects the slots of bus 0, a bit for each. */
#define ACPI_PCI_EJECT 0xae08
#define PROXY       "/machine/peripheral/vm0"
#define CHILD       PROXY "/virtio-backend"
#define SIZE_EVENT  "MEMORY_DEVICE_SIZE_CHANGE"

/* --- commands that may fail --- */

static void hotplug_assert_no_del(VirtioMemGuest *vm, const char *expected)
{
    g_autofree char *error = virtio_mem_take_error(qtest_qmp(
        vm->qts, "{ 'execute': 'device_del', 'arguments': { 'id': %s } }",
        vm->id));

    g_assert_cmpstr(error, ==, expected);
}

static char *hotplug_set(VirtioMemGuest *vm, const char *path,
                         const char *property, QObject *value)
{
    return virtio_mem_take_error(qtest_qmp(
        vm->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': %s, "
        "'property': %s, 'value': %p } }", path, property, value));
}

static char *hotplug_set_requested(VirtioMemGuest *vm, const char *path,
                                   uint64_t size)
{
    return hotplug_set(vm, path, "requested-size",
                       QOBJECT(qnum_from_uint(size)));
}

/* --- removal --- */

static void test_del_plugged(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 8 * MiB);
    vm_assert_plug(vm, 0, 1, ACK);
    hotplug_assert_no_del(vm, "virtio-mem device cannot get unplugged while "
                          "some of its memory is still plugged");
    virtio_mem_set_requested(vm, 0);
    hotplug_assert_no_del(vm, "virtio-mem device cannot get unplugged while "
                          "some of its memory is still plugged");
    vm_assert_plugged(vm, 1);
}

static void test_del_requested(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, 8 * MiB);
    hotplug_assert_no_del(vm, "virtio-mem device cannot get unplugged while "
                          "'requested-size' != '0'");
    vm_assert_plug(vm, 0, 1, ACK);
}

/* A guest that may read unplugged memory could do so at any time. */
static void test_del_readable(VirtioMemGuest *vm)
{
    hotplug_assert_no_del(vm, "virtio-mem device cannot get unplugged while "
                          "'unplugged-inaccessible' != 'on'");
}

static void test_frozen(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_set_requested(vm, 0);
    qtest_qmp_device_del_send(vm->qts, "vm0");
    error = hotplug_set_requested(vm, PROXY, 8 * MiB);
    g_assert_nonnull(error);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    g_assert_false(virtio_mem_take_config_irq(vm));
    vm_assert_plug(vm, 0, 1, NACK);
}

static void test_child_frozen(VirtioMemGuest *vm)
{
    g_autofree char *error = NULL;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_set_requested(vm, 0);
    error = hotplug_set_requested(vm, CHILD, 8 * MiB);
    g_assert_null(error);
    virtio_mem_set_requested(vm, 0);
    qtest_qmp_device_del_send(vm->qts, "vm0");
    error = hotplug_set_requested(vm, CHILD, 8 * MiB);
    g_assert_nonnull(error);
    g_assert_cmphex(virtio_mem_requested_size(vm), ==, 0);
    vm_assert_plug(vm, 0, 1, NACK);
}

static unsigned hotplug_nb_memory_devices(QTestState *qts)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'query-memory-devices' }");
    unsigned nb = qlist_size(qdict_get_qlist(response, "return"));

    qobject_unref(response);
    return nb;
}

static VirtioMemGuest *hotplug_add(VirtioMemGuest *host)
{
    qtest_qmp_device_add(host->qts, "virtio-mem-pci", "vm0",
                         "{ 'memdev': 'vmem0', 'addr': '4', "
                         "'block-size': 2097152 }");
    return virtio_mem_guest_attach(host, "vm0", QPCI_DEVFN(SLOT, 0));
}

/* Life after life: no trace of the former one, and the memory is gone. */
static void test_cycles(VirtioMemGuest *host)
{
    qtest_qmp_assert_success(host->qts, "{ 'execute': 'object-add', "
                             "'arguments': { 'qom-type': "
                             "'memory-backend-ram', 'id': 'vmem0', "
                             "'size': 1073741824 } }");
    for (int i = 0; i < 10; i++) {
        VirtioMemGuest *vm = hotplug_add(host);

        vm_assert_plugged(vm, 0);
        virtio_mem_set_requested(vm, 64 * MiB);
        vm_assert_plug(vm, i, 8, ACK);
        g_assert_true(virtio_mem_is_filled(vm, virtio_mem_block_gpa(vm, i),
                                           0, 4096));
        virtio_mem_write_pattern(vm, i, 8, i);
        g_assert_true(virtio_mem_check_pattern(vm, i, 8, i));
        vm_assert_unplug_all(vm, ACK);
        virtio_mem_set_requested(vm, 0);
        virtio_mem_check_invariants(vm);
        virtio_mem_guest_stop(vm);
        g_assert_cmpuint(hotplug_nb_memory_devices(host->qts), ==, 1);
        qpci_unplug_acpi_device_test(host->qts, "vm0", SLOT);
        g_assert_cmpuint(hotplug_nb_memory_devices(host->qts), ==, 0);
    }
    qtest_qmp_assert_success(host->qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'vmem0' } }");
}

/* A guest may eject a device unasked, with blocks plugged. */
static void test_ejected(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 8, ACK);
    virtio_mem_write_pattern(vm, 0, 8, 1);
    qtest_outl(vm->qts, ACPI_PCI_EJECT, 1 << SLOT);
    qtest_qmp_eventwait(vm->qts, "DEVICE_DELETED");
    g_assert_cmpuint(hotplug_nb_memory_devices(vm->qts), ==, 0);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'vmem0' } }");
}

static void test_backend_in_use(VirtioMemGuest *vm)
{
    g_autofree char *error = virtio_mem_take_error(qtest_qmp(
        vm->qts, "{ 'execute': 'object-del', 'arguments': "
        "{ 'id': 'vmem0' } }"));

    g_assert_nonnull(error);
    virtio_mem_set_requested(vm, VM_BLOCK);
    vm_assert_plug(vm, 0, 1, ACK);
}

/* --- size events --- */

static void hotplug_assert_event(VirtioMemGuest *vm, uint64_t nb_blocks)
{
    uint64_t size;

    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), ==, 1);
    g_assert_cmphex(size, ==, nb_blocks * vm->block_size);
}

static void hotplug_assert_no_event(VirtioMemGuest *vm)
{
    g_assert_cmpuint(virtio_mem_take_size_events(vm, NULL), ==, 0);
}

static void test_events(VirtioMemGuest *vm)
{
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 4, ACK);
    hotplug_assert_event(vm, 4);
    vm_assert_unplug(vm, 1, 1, ACK);
    hotplug_assert_event(vm, 3);
    vm_assert_unplug_all(vm, ACK);
    hotplug_assert_event(vm, 0);
    vm_assert_plug(vm, 7, 1, ACK);
    hotplug_assert_event(vm, 1);
    virtio_mem_system_reset(vm);
    hotplug_assert_event(vm, 0);
}

static void test_no_events(VirtioMemGuest *vm)
{
    hotplug_assert_no_event(vm);
    virtio_mem_set_requested(vm, 4 * VM_BLOCK);
    vm_assert_unplug_all(vm, ACK);
    vm_assert_unplug(vm, 0, 1, ERROR);
    vm_assert_plug(vm, 0, 5, NACK);
    vm_assert_plug(vm, 0, 0, ERROR);
    vm_assert_state(vm, 0, 1, UNPLUGGED);
    virtio_mem_restart_driver(vm);
    virtio_mem_system_reset(vm);
    hotplug_assert_no_event(vm);
}

/* The first goes out at once, those in the second after it as one. */
static void test_event_rate(VirtioMemGuest *vm)
{
    uint64_t size;

    virtio_mem_set_requested(vm, VM_REQUESTED);
    virtio_mem_take_size_events(vm, NULL);
    for (int i = 0; i < 10; i++) {
        vm_assert_plug(vm, i, 1, ACK);
    }
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'query-status' }");
    g_assert_cmpuint(vm->size_events, ==, 1);
    g_assert_cmphex(vm->event_size, ==, VM_BLOCK);
    g_assert_cmpuint(virtio_mem_take_size_events(vm, &size), ==, 2);
    g_assert_cmphex(size, ==, 10 * VM_BLOCK);
}

static QDict *hotplug_wait_event(VirtioMemGuest *vm)
{
    qtest_qmp_set_event_callback(vm->qts, NULL, NULL);
    virtio_mem_set_requested(vm, VM_REQUESTED);
    vm_assert_plug(vm, 0, 1, ACK);
    return qtest_qmp_eventwait_ref(vm->qts, SIZE_EVENT);
}

static void test_event_names(VirtioMemGuest *vm)
{
    QDict *event = hotplug_wait_event(vm);
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "vm0");
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==, PROXY);
    g_assert_cmphex(qdict_get_int(data, "size"), ==, VM_BLOCK);
    qobject_unref(event);
}

static void test_event_without_id(VirtioMemGuest *host)
{
    VirtioMemGuest *vm = virtio_mem_guest_attach(host, NULL,
                                                 QPCI_DEVFN(SLOT, 0));
    QDict *event, *data;

    qtest_qmp_set_event_callback(vm->qts, NULL, NULL);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine/peripheral-anon/device[0]',"
                             " 'property': 'requested-size',"
                             " 'value': 8388608 } }");
    vm_assert_plug(vm, 0, 1, ACK);
    event = qtest_qmp_eventwait_ref(vm->qts, SIZE_EVENT);
    data = qdict_get_qdict(event, "data");
    g_assert_false(qdict_haskey(data, "id"));
    g_assert_cmpstr(qdict_get_str(data, "qom-path"), ==,
                    "/machine/peripheral-anon/device[0]");
    qobject_unref(event);
    virtio_mem_guest_stop(vm);
}

/* --- properties by machine type --- */

typedef struct HotplugCompat {
    const char *machine;
    int vectors;
    const char *inaccessible;
    bool early;
} HotplugCompat;

static const HotplugCompat hotplug_compat[] = {
    { "pc-i440fx-10.0", 2, "on",  true },
    { "pc-q35-10.0",    2, "on",  true },
    { "pc-i440fx-9.2",  0, "on",  true },
    { "pc-i440fx-8.1",  0, "on",  true },
    { "pc-i440fx-8.0",  0, "off", true },
    { "pc-i440fx-7.2",  0, "off", false },
    { "pc-i440fx-7.0",  0, "off", false },
    { "pc-i440fx-6.2",  0, "off", false },
    { "pc-q35-6.2",     0, "off", false },
};

static QObject *hotplug_get(QTestState *qts, const char *property)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                                "'path': '" PROXY "', 'property': %s } }",
                                property);
    QObject *value = qobject_ref(qdict_get(response, "return"));

    g_assert_nonnull(value);
    qobject_unref(response);
    return value;
}

static void hotplug_check_compat(const HotplugCompat *compat)
{
    VirtioMemOptions opts = { .machine = compat->machine, .no_device = true };
    g_autofree char *command = virtio_mem_guest_command(&opts);
    QTestState *qts = qtest_initf("%s -device virtio-mem-pci,id=vm0,"
                                  "memdev=vmem0", command);
    QObject *vectors = hotplug_get(qts, "vectors");
    QObject *inaccessible = hotplug_get(qts, "unplugged-inaccessible");
    QObject *early = hotplug_get(qts, "x-early-migration");

    g_assert_cmpint(qnum_get_int(qobject_to(QNum, vectors)), ==,
                    compat->vectors);
    g_assert_cmpstr(qstring_get_str(qobject_to(QString, inaccessible)), ==,
                    compat->inaccessible);
    g_assert_cmpint(qbool_get_bool(qobject_to(QBool, early)), ==,
                    compat->early);
    qobject_unref(vectors);
    qobject_unref(inaccessible);
    qobject_unref(early);
    qtest_quit(qts);
}

static void test_compat(VirtioMemGuest *unused)
{
    unsigned nb = 0;

    for (size_t i = 0; i < ARRAY_SIZE(hotplug_compat); i++) {
        if (qtest_has_machine(hotplug_compat[i].machine)) {
            hotplug_check_compat(&hotplug_compat[i]);
            nb++;
        }
    }
    g_assert_cmpuint(nb, >, 0);
}

/* --- the rest of what the host sees and does --- */

static void test_backend_prealloc_after(VirtioMemGuest *vm)
{
    qpci_unplug_acpi_device_test(vm->qts, "vm0", SLOT);
    qtest_qom_set_bool(vm->qts, "/objects/vmem0", "prealloc", true);
    g_assert_true(qtest_qom_get_bool(vm->qts, "/objects/vmem0", "prealloc"));
}

static const VirtioMemOptions readable = {
    .device = "unplugged-inaccessible=off",
};
static const VirtioMemOptions no_device = {
    .no_device = true, .memdev = "memory-backend-ram,id=unused,size=1M",
};
static const VirtioMemOptions without_id = {
    .no_device = true,
    .args = "-device virtio-mem-pci,memdev=vmem0,addr=04.0,"
            "block-size=2097152",
};
static const VirtioMemOptions small = {
    .memdev = "memory-backend-ram,id=vmem0,size=64M", .no_invariants = true,
};
static const VirtioMemOptions pending = { .no_invariants = true };
static const VirtioMemOptions memslots = {
    .device = "dynamic-memslots=on", .no_invariants = true,
};

static const VirtioMemTest tests[] = {
    { "T194", "unplug-device/refused-while-memory-is-plugged",
      test_del_plugged, .once = true },
    { "T194", "unplug-device/refused-while-memory-is-requested",
      test_del_requested, .once = true },
    { "T194", "unplug-device/refused-while-unplugged-is-readable",
      test_del_readable, &readable, .once = true },
    { "T194", "unplug-device/freezes-requested-size", test_frozen,
      &pending, .once = true },
    { "T194 R-6", "unplug-device/freezes-requested-size-of-the-child",
      test_child_frozen, &pending, .once = true },
    { "T194", "unplug-device/and-plug-again", test_cycles, &no_device,
      .once = true },
    { "T194", "unplug-device/by-the-guest-alone", test_ejected, &pending,
      .once = true },
    { "T194", "unplug-device/by-the-guest-alone-with-memslots", test_ejected,
      &memslots, .once = true },
    { "T194", "unplug-device/backend-is-in-use", test_backend_in_use,
      .once = true },
    { "T211", "size-event/after-each-change", test_events, .once = true },
    { "T211", "size-event/not-without-change", test_no_events,
      .once = true },
    { "T211", "size-event/one-each-second", test_event_rate, .once = true },
    { "T211", "size-event/names-the-device", test_event_names, .once = true,
      .fresh = true },
    { "T211", "size-event/names-a-device-without-id",
      test_event_without_id, &without_id, .once = true },
    { "T189", "compat/properties-by-machine-type", test_compat,
      .no_guest = true },
    { "R-7", "backend/prealloc-is-free-after-removal",
      test_backend_prealloc_after, &small, .once = true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virtio_mem_add_tests(tests, ARRAY_SIZE(tests));
    return g_test_run();
}
