/*
 * What a guest costs its host, for tests that bound it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-host-memory.h"

uint64_t virtio_mem_host_memory(VirtioMemGuest *vm)
{
    static const char *const keys[] = {
        "RssAnon:", "RssShmem:", "HugetlbPages:", "VmPTE:",
    };
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(vm->qts));
    g_autofree char *status = NULL;
    uint64_t sum = 0;

    g_assert_true(g_file_get_contents(path, &status, NULL, NULL));
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *line = strstr(status, keys[i]);

        g_assert_nonnull(line);
        sum += g_ascii_strtoull(line + strlen(keys[i]), NULL, 10) * KiB;
    }
    return sum;
}

void virtio_mem_assert_gain(VirtioMemGuest *vm, uint64_t before, uint64_t max)
{
    g_assert_cmpuint(virtio_mem_host_memory(vm), <=,
                     before + max + VM_HOST_NOISE);
}
