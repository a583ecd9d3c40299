/*
 * virtio-mem: how many mappings the guard may have, to the last one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "../../hw/virtio/virtio-mem-guard-budget.h"

#define NB_OTHERS 1000

/* --- fakes --- */

/* What reading the process's mappings gives, a string a time. */
static const char *const *maps;
static unsigned nb_warnings;

static bool is_maps(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    char target[64];
    const ssize_t len = readlink(path, target, sizeof(target));

    return len > 5 && !strncmp(target + len - 5, "/maps", 5);
}

/* In place of libc's. */
ssize_t read(int fd, void *buf, size_t size)
{
    const struct iovec iov = { buf, size };

    if (maps && is_maps(fd)) {
        const char *text = *maps ? *maps++ : "";

        g_assert_cmpuint(strlen(text), <=, size);
        memcpy(buf, text, strlen(text));
        return strlen(text);
    }
    return readv(fd, &iov, 1);
}

/* What a build with checks of buffers calls. */
ssize_t checked_read(int fd, void *buf, size_t size, size_t room)
    __asm__("__read_chk");

ssize_t checked_read(int fd, void *buf, size_t size, size_t room)
{
    g_assert_cmpuint(size, <=, room);
    return read(fd, buf, size);
}

int error_vprintf(const char *fmt, va_list ap)
{
    nb_warnings += strstr(fmt, "vm.max_map_count") != NULL;
    return 0;
}

/* --- tests --- */

static void count(VirtIOMEMGuardBudget *budget, const char *const *text,
                  uint64_t nb_own)
{
    maps = text;
    virtio_mem_guard_budget_count(budget, nb_own);
    maps = NULL;
}

static int lowest_free_fd(void)
{
    const int fd = open("/dev/null", O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    return fd;
}

/* A line is a mapping, however the lines come. */
static void test_count(void)
{
    static const char *const text[] = {
        "a\n\nb\n", "c", "\n", "d\n\n\n", NULL
    };
    static const char *const shorter[] = { "\n\n\n\n", "a", "\n", NULL };
    static const char *const none[] = { NULL };
    const int fd = lowest_free_fd();
    VirtIOMEMGuardBudget budget = { 0 };

    count(&budget, text, 0);
    g_assert_cmpuint(budget.nb_others, ==, 7);
    count(&budget, text, 5);
    g_assert_cmpuint(budget.nb_others, ==, 2);
    count(&budget, text, 8);
    g_assert_cmpuint(budget.nb_others, ==, 0);
    /* What an earlier line left in the buffer is none. */
    count(&budget, shorter, 0);
    g_assert_cmpuint(budget.nb_others, ==, 5);
    count(&budget, none, 0);
    g_assert_cmpuint(budget.nb_others, ==, 0);
    g_assert_cmpint(lowest_free_fd(), ==, fd);
}

/* The host's limit is another one on each host. */
static uint64_t host_limit(void)
{
    g_autofree char *content = NULL;
    uint64_t limit;

    g_assert_true(g_file_get_contents("/proc/sys/vm/max_map_count", &content,
                                      NULL, NULL));
    g_assert_cmpint(qemu_strtou64(g_strchomp(content), NULL, 10, &limit), ==,
                    0);
    g_assert_cmpuint(limit, >=, 2 * NB_OTHERS);
    return limit;
}

/* Also when the file that is read gets the number 0. */
static void test_count_without_stdin(void)
{
    static const char *const text[] = { "a\n", "b\n", NULL };
    VirtIOMEMGuardBudget budget = { 0 };
    const int fd = dup(0);

    close(0);
    count(&budget, text, 0);
    g_assert_cmpuint(budget.nb_others, ==, 2);
    if (fd >= 0) {
        g_assert_cmpint(dup2(fd, 0), ==, 0);
        close(fd);
    }
}

static void test_max(void)
{
    const uint64_t limit = host_limit();
    VirtIOMEMGuardBudget budget = { .nb_others = NB_OTHERS };

    g_assert_cmpuint(virtio_mem_guard_budget_max(&budget), ==,
                     (limit - NB_OTHERS) / 2);
    budget.nb_others = limit + 1;
    g_assert_cmpuint(virtio_mem_guard_budget_max(&budget), ==, 0);
}

/* Up to the last one; what is refused is said once, until there is room. */
static void test_allows(void)
{
    VirtIOMEMGuardBudget budget = { .nb_others = NB_OTHERS };
    const uint64_t max = virtio_mem_guard_budget_max(&budget);

    nb_warnings = 0;
    g_assert_true(virtio_mem_guard_budget_allows(&budget, max - 1, 1));
    g_assert_false(budget.is_short);
    g_assert_false(virtio_mem_guard_budget_allows(&budget, max, 1));
    g_assert_false(virtio_mem_guard_budget_allows(&budget, 0, max + 1));
    g_assert_true(budget.is_short);
    g_assert_cmpuint(nb_warnings, ==, 1);
    g_assert_true(virtio_mem_guard_budget_allows(&budget, max / 2, 1));
    g_assert_true(budget.is_short);
    g_assert_true(virtio_mem_guard_budget_allows(&budget, max / 2 - 2, 2));
    g_assert_false(budget.is_short);
    g_assert_cmpuint(nb_warnings, ==, 1);
    g_assert_false(virtio_mem_guard_budget_allows(&budget, max - 1, 2));
    g_assert_true(budget.is_short);
    g_assert_cmpuint(nb_warnings, ==, 2);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/guard-budget/count", test_count);
    g_test_add_func("/virtio-mem/guard-budget/count-without-stdin",
                    test_count_without_stdin);
    g_test_add_func("/virtio-mem/guard-budget/max", test_max);
    g_test_add_func("/virtio-mem/guard-budget/allows", test_allows);
    return g_test_run();
}
