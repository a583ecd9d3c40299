/*
 * Background snapshots that are cancelled, and the descriptors of QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "qobject/qdict.h"

#define NB_SNAPSHOTS 5

/* What the lowest descriptor of a QEMU that reads nothing from it is. */
static char *first_descriptor(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/0",
                                            (int)qtest_pid(qts));

    return g_file_read_link(path, NULL);
}

static bool set_background_snapshot(QTestState *qts)
{
    QDict *response = qtest_qmp(
        qts, "{ 'execute': 'migrate-set-capabilities', 'arguments': { "
        "'capabilities': [ { 'capability': 'background-snapshot', "
        "'state': true } ] } }");
    const bool ret = qdict_haskey(response, "return");

    qobject_unref(response);
    return ret;
}

static bool is_cancelled(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate' }");
    const bool ret = g_str_equal(qdict_get_str(info, "status"), "cancelled");

    qobject_unref(info);
    return ret;
}

/* It takes a while to look at all of the memory before it is tracked. */
static void cancel_snapshot(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': 'exec:cat > /dev/null' } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate_cancel' }");
    while (!is_cancelled(qts)) {
        g_usleep(1000);
    }
}

/*
 * What has not been opened must not be closed: the next that QEMU opens has
 * that number.
 */
static void test_cancel(void)
{
    QTestState *qts = qtest_init("-machine pc -nodefaults -m 256M");
    g_autofree char *before = first_descriptor(qts);

    g_assert_nonnull(before);
    if (set_background_snapshot(qts)) {
        qtest_memset(qts, 64 * MiB, 0x77, 16 * MiB);
        qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters', "
                                 "'arguments': { 'max-bandwidth': 65536 } }");
        for (int i = 0; i < NB_SNAPSHOTS; i++) {
            g_autofree char *after = NULL;

            cancel_snapshot(qts);
            after = first_descriptor(qts);
            g_assert_cmpstr(after, ==, before);
        }
    } else {
        g_test_skip("no background-snapshot on this host: userfaultfd");
    }
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/snapshot-fd/cancelled-closes-nothing", test_cancel);
    return g_test_run();
}
