/*
 * What x-query-virtio-status says of a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "standard-headers/linux/virtio_mem.h"

static QTestState *start(void)
{
    if (!qtest_has_device("virtio-mem-pci")) {
        g_test_skip("no virtio-mem-pci in this QEMU");
        return NULL;
    }
    return qtest_init("-machine pc -nodefaults -m 64M,maxmem=4G "
                      "-object memory-backend-ram,id=mem0,size=1G,reserve=off "
                      "-device virtio-mem-pci,id=vm0,memdev=mem0");
}

static bool has_name(const QDict *features, const char *prefix)
{
    const QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(features, "dev-features"), entry) {
        const QString *name = qobject_to(QString, qlist_entry_obj(entry));

        if (g_str_has_prefix(qstring_get_str(name), prefix)) {
            return true;
        }
    }
    return false;
}

/* It offers that with ACPI, which a PC has. */
static void test_mem_features(void)
{
    QTestState *qts = start();
    QDict *status, *features;

    if (!qts) {
        return;
    }
    status = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'x-query-virtio-status', 'arguments': { "
        "'path': '/machine/peripheral/vm0/virtio-backend' } }");
    features = qdict_get_qdict(status, "host-features");
    g_assert_true(has_name(features, "VIRTIO_MEM_F_ACPI_PXM"));
    g_assert_cmphex(qdict_get_try_int(features, "unknown-dev-features", 0) &
                    1 << VIRTIO_MEM_F_ACPI_PXM, ==, 0);
    qobject_unref(status);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/virtio-qmp/names-features-of-virtio-mem",
                   test_mem_features);
    return g_test_run();
}
