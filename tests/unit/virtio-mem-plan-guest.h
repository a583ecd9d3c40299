/*
 * A model of a guest whose memory is resized, for tests of virtio-mem's plan.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VIRTIO_MEM_PLAN_GUEST_H
#define VIRTIO_MEM_PLAN_GUEST_H

#include "../../hw/virtio/virtio-mem-plan.h"

#define UNIT (128 * MiB)
#define BLOCK (2 * MiB)
#define RESERVE (256 * MiB)

/* The guest, and the host's side of it; sizes in bytes. */
typedef struct PlanGuest {
    VirtIOMEMPlan plan;
    VirtIOMEMPlanGoal goal;
    int64_t ms;
    uint64_t boot;              /* memory that is not virtio-mem */
    uint64_t plugged;
    uint64_t offline;           /* of that: not used by anybody */
    uint64_t used;
    uint64_t others;            /* of that, other devices have plugged */
    BalloonGuestStats said;     /* the counters of reports */
    bool is_outdated;           /* what it says is from before a change */
} PlanGuest;

uint64_t plan_guest_total(const PlanGuest *guest);
uint64_t plan_guest_available(const PlanGuest *guest);

/* Begin a plan from @start to @wish for a guest that uses @used bytes. */
void plan_guest_begin(PlanGuest *guest, uint64_t boot, uint64_t start,
                      uint64_t wish, uint64_t used);

/* What the plan says now, with or without a report of the guest. */
VirtIOMEMPlanAdvice plan_guest_next(PlanGuest *guest, bool reports);

/* A report after @ms. */
VirtIOMEMPlanAdvice plan_guest_report(PlanGuest *guest, int64_t ms);

/* The guest does what it was asked for, which takes a moment. */
VirtIOMEMPlanAdvice plan_guest_obey(PlanGuest *guest, uint64_t ask);

#endif
