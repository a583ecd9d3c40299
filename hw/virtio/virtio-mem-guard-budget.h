/*
 * How many mappings the guard may have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_GUARD_BUDGET_H
#define HW_VIRTIO_MEM_GUARD_BUDGET_H

typedef struct VirtIOMEMGuardBudget {
    uint64_t nb_others;         /* mappings that are not the guard's */
    bool is_short;              /* a request was refused for lack of them */
} VirtIOMEMGuardBudget;

/* Count the process's mappings, of which @nb_own are the guard's. */
void virtio_mem_guard_budget_count(VirtIOMEMGuardBudget *budget,
                                   uint64_t nb_own);

/* How many the guard may have: half of what the others leave, as of now. */
uint64_t virtio_mem_guard_budget_max(const VirtIOMEMGuardBudget *budget);

/*
 * Whether the guard, which has @nb_own mappings, may have @nb_more than that.
 * If not, a warning tells why and what helps, once until there is room again.
 */
bool virtio_mem_guard_budget_allows(VirtIOMEMGuardBudget *budget,
                                    uint64_t nb_own, uint64_t nb_more);

#endif
