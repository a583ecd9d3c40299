/*
 * How many mappings the guard may have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "virtio-mem-guard-budget.h"

#define GUARD_MAX_MAP_COUNT "/proc/sys/vm/max_map_count"

/* What Linux allows a process unless it is told otherwise. */
#define GUARD_DEFAULT_MAP_COUNT 65530

static uint64_t guard_budget_read_limit(void)
{
    g_autofree char *content = NULL;
    uint64_t limit;

    if (!g_file_get_contents(GUARD_MAX_MAP_COUNT, &content, NULL, NULL) ||
        qemu_strtou64(g_strchomp(content), NULL, 10, &limit)) {
        return GUARD_DEFAULT_MAP_COUNT;
    }
    return limit;
}

/* A line for each; there may be so many that they are not read at once. */
static uint64_t guard_budget_count_mappings(void)
{
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    uint64_t nb_mappings = 0;
    char text[4096];
    ssize_t size, i;

    if (fd < 0) {
        return 0;
    }
    while ((size = read(fd, text, sizeof(text))) > 0) {
        for (i = 0; i < size; i++) {
            nb_mappings += text[i] == '\n';
        }
    }
    close(fd);
    return nb_mappings;
}

void virtio_mem_guard_budget_count(VirtIOMEMGuardBudget *budget,
                                   uint64_t nb_own)
{
    const uint64_t nb_mappings = guard_budget_count_mappings();

    budget->nb_others = MAX(nb_mappings, nb_own) - nb_own;
}

uint64_t virtio_mem_guard_budget_max(const VirtIOMEMGuardBudget *budget)
{
    const uint64_t limit = guard_budget_read_limit();

    return (MAX(limit, budget->nb_others) - budget->nb_others) / 2;
}

bool virtio_mem_guard_budget_allows(VirtIOMEMGuardBudget *budget,
                                    uint64_t nb_own, uint64_t nb_more)
{
    const uint64_t max = virtio_mem_guard_budget_max(budget);

    if (nb_own + nb_more <= max) {
        /* Not each time that a guest goes back and forth at the limit. */
        if (nb_own + nb_more <= max / 2) {
            budget->is_short = false;
        }
        return true;
    }
    if (!budget->is_short) {
        warn_report("virtio-mem: the protection of unplugged memory needs more"
                    " than the %" PRIu64 " memory mappings it may have, half of"
                    " what the process has left: guests that fragment their"
                    " memory further are told to wait; raise vm.max_map_count,"
                    " which is %" PRIu64, max, guard_budget_read_limit());
    }
    budget->is_short = true;
    return false;
}
