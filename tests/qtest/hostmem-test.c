/*
 * Properties of a memory backend that a device uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"

/* It would populate what the device has discarded, behind its back. */
static void test_prealloc(void)
{
    QTestState *qts;
    QDict *response;

    if (!qtest_has_device("virtio-mem-pci")) {
        g_test_skip("no virtio-mem-pci in this QEMU");
        return;
    }
    qts = qtest_init("-machine pc -nodefaults -m 64M,maxmem=1G "
                     "-object memory-backend-ram,id=mem0,size=64M "
                     "-device virtio-mem-pci,id=vm0,memdev=mem0");
    response = qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': { "
                         "'path': '/objects/mem0', 'property': 'prealloc', "
                         "'value': true } }");
    g_assert_true(qdict_haskey(response, "error"));
    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(response, "error"),
                                          "desc"), "prealloc"));
    qobject_unref(response);
    g_assert_false(qtest_qom_get_bool(qts, "/objects/mem0", "prealloc"));
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/hostmem/prealloc-is-refused-while-memory-is-discarded",
                   test_prealloc);
    return g_test_run();
}
