/*
 * What to ask the guest of a virtio-mem device for next, so that a resize in
 * steps does not take memory that the guest cannot do without.
 *
 * Pure: sizes, the guest's statistics and the time go in, a size to ask for
 * comes out.  The same input gives the same output; nothing is remembered but
 * what is in struct VirtIOMEMPlan.
 *
 * A shrink goes by what the guest says is available.  One step, one verdict:
 * each step follows from a report that is younger than the last change, and
 * takes half of what is above the reserve.  A growth goes by arithmetic, since
 * no statistic tells of the kernel's zone: the memory map of all virtio-mem
 * memory may take a quarter of the other memory.  So it does without reports if
 * there never was one.
 *
 * All sizes are in bytes, all times in milliseconds of one clock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_MEM_PLAN_H
#define HW_VIRTIO_MEM_PLAN_H

#include "qapi/qapi-types-machine.h"
#include "system/balloon.h"

/* Where there is none of VirtioMEMResizeReason. */
#define VIRTIO_MEM_NO_REASON VIRTIO_MEM_RESIZE_REASON__MAX

typedef enum VirtIOMEMPlanVerdict {
    VIRTIO_MEM_PLAN_WAIT,           /* the guest, or a report, is awaited */
    VIRTIO_MEM_PLAN_HOLD,           /* nothing now, for the reason */
    VIRTIO_MEM_PLAN_DONE,           /* the size is the wish */
    VIRTIO_MEM_PLAN_END,            /* it will not be, for the reason */
} VirtIOMEMPlanVerdict;

/* What does not change while the plan lasts. */
typedef struct VirtIOMEMPlanGoal {
    uint64_t start;         /* plugged when the plan begins */
    uint64_t wish;
    uint64_t unit;          /* in which Linux adds and removes memory */
    uint64_t reserve;       /* to stay available; 0: by the guest's size */
    uint64_t boot;          /* what the machine has beside such devices */
} VirtIOMEMPlanGoal;

typedef struct VirtIOMEMPlanNow {
    int64_t ms;
    uint64_t plugged;
    uint64_t others;        /* plugged by other devices of this kind */
    uint64_t others_asked;  /* that, and what they are still asked to plug */
    const BalloonGuestStats *report;    /* new since the last call, or NULL */
    bool report_is_old;     /* asked for before .plugged changed last */
} VirtIOMEMPlanNow;

typedef struct VirtIOMEMPlanAdvice {
    VirtIOMEMPlanVerdict verdict;
    VirtioMEMResizeReason reason;
    uint64_t ask;           /* what the guest is to be asked for */
    int64_t poll_ms;        /* until the next report should be asked for */
} VirtIOMEMPlanAdvice;

/* Private to virtio-mem-plan.c. */
typedef struct VirtIOMEMPlan {
    VirtIOMEMPlanGoal goal;
    VirtIOMEMPlanAdvice advice;     /* the last one */
    uint64_t ask;
    uint64_t checkpoint;    /* growth: what was plugged and is affordable */

    /* At the last call. */
    uint64_t plugged;
    uint64_t others;
    uint64_t others_asked;
    bool news;              /* .last came with it ... */
    bool is_fresh;          /* ... and tells what the last change came to */

    /* Reports, and what was plugged when the first one came. */
    bool has_first;
    BalloonGuestStats first;
    BalloonGuestStats last;
    uint64_t first_plugged;
    uint64_t first_others;

    int64_t changed_ms;     /* when the plugged size or the ask changed */
    int64_t due_ms;         /* when the next report is to be asked for */
    int64_t cool_ms;        /* no shrinking before that */
    int64_t reached_ms;     /* the wish was; -1: it is not */
    int64_t hold_poll_ms;
} VirtIOMEMPlan;

/* Begin at @ms.  The ask is @goal->start until the first report. */
void virtio_mem_plan_begin(VirtIOMEMPlan *plan, const VirtIOMEMPlanGoal *goal,
                           int64_t ms);

/*
 * To be called with each report, when the guest has what it was asked for, and
 * when .poll_ms is over.  Time never goes back.  After _DONE and _END, the plan
 * is over.  A plan may wait or hold for ever: how long is the caller's to say.
 *
 * The ask is between start and wish, and a step down leaves what the last
 * report called available above the reserve.
 */
VirtIOMEMPlanAdvice virtio_mem_plan_next(VirtIOMEMPlan *plan,
                                         const VirtIOMEMPlanNow *now);

/*
 * Whether a guest whose total memory was @first and is @last uses the @grown
 * bytes that it plugged in between.
 */
bool virtio_mem_plan_is_online(uint64_t first, uint64_t last, uint64_t grown);

/* What went wrong in the guest between two reports, or no reason. */
VirtioMEMResizeReason virtio_mem_plan_harm(const BalloonGuestStats *first,
                                           const BalloonGuestStats *last);

/* What the last report called available, and the reserve; false without one. */
bool virtio_mem_plan_get_available(const VirtIOMEMPlan *plan,
                                   uint64_t *available, uint64_t *reserve);

/* What has to stay available to a guest of @total bytes (UINT64_MAX: any). */
uint64_t virtio_mem_plan_reserve(uint64_t total);

#endif
