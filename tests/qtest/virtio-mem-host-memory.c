/*
 * What a guest costs its host, for tests that bound it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "virtio-mem-host-memory.h"

/* A number of bytes from "/proc/PID/status". */
static uint64_t host_memory_status(const char *status, const char *key)
{
    const char *line = strstr(status, key);

    g_assert_nonnull(line);
    return g_ascii_strtoull(line + strlen(key), NULL, 10) * KiB;
}

/*
 * What the files have that are memory and that QEMU has open.  QEMU need not
 * map all of it: a page can be unmapped and still be there.
 */
static uint64_t host_memory_files(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", pid);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(
        g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    uint64_t sum = 0;
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *fd = g_build_filename(path, name, NULL);
        g_autofree char *target = g_file_read_link(fd, NULL);
        struct stat st;

        if (target && (g_str_has_prefix(target, "/memfd:") ||
                       g_str_has_prefix(target, "/dev/shm/")) &&
            !stat(fd, &st)) {
            char *file = g_strdup_printf("%" PRIu64 ":%" PRIu64,
                                         (uint64_t)st.st_dev,
                                         (uint64_t)st.st_ino);

            sum += g_hash_table_add(seen, file) ? st.st_blocks * 512ULL : 0;
        }
    }
    return sum;
}

uint64_t virtio_mem_host_memory(VirtioMemGuest *vm)
{
    const int pid = qtest_pid(vm->qts);
    g_autofree char *path = g_strdup_printf("/proc/%d/status", pid);
    g_autofree char *status = NULL;

    g_assert_true(g_file_get_contents(path, &status, NULL, NULL));
    return host_memory_status(status, "RssAnon:") +
           host_memory_status(status, "VmPTE:") +
           MAX(host_memory_status(status, "RssShmem:") +
               host_memory_status(status, "HugetlbPages:"),
               host_memory_files(pid));
}

void virtio_mem_assert_gain(VirtioMemGuest *vm, uint64_t before, uint64_t max)
{
    g_assert_cmpuint(virtio_mem_host_memory(vm), <=,
                     before + max + VM_HOST_NOISE);
}
