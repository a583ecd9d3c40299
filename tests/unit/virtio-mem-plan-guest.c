/*
 * A model of a guest whose memory is resized, for tests of virtio-mem's plan.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-mem-plan-guest.h"

uint64_t plan_guest_total(const PlanGuest *guest)
{
    return guest->boot + guest->plugged - guest->offline;
}

uint64_t plan_guest_available(const PlanGuest *guest)
{
    const uint64_t total = plan_guest_total(guest);

    return total - MIN(total, guest->used);
}

void plan_guest_begin(PlanGuest *guest, uint64_t boot, uint64_t start,
                      uint64_t wish, uint64_t used)
{
    *guest = (PlanGuest) {
        .goal = { .start = start, .wish = wish, .unit = UNIT,
                  .reserve = RESERVE, .boot = boot },
        .ms = 1000, .boot = boot, .plugged = start, .used = used,
        .said = { .swap_out = 0, .oom_kills = 0, .alloc_stalls = 0 },
    };
    virtio_mem_plan_begin(&guest->plan, &guest->goal, guest->ms);
}

VirtIOMEMPlanAdvice plan_guest_next(PlanGuest *guest, bool reports)
{
    BalloonGuestStats report = guest->said;

    report.total = plan_guest_total(guest);
    report.available = plan_guest_available(guest);
    return virtio_mem_plan_next(&guest->plan, &(VirtIOMEMPlanNow) {
        .ms = guest->ms, .plugged = guest->plugged,
        .others = guest->others, .others_asked = guest->others,
        .report = reports ? &report : NULL,
        .report_is_old = guest->is_outdated });
}

VirtIOMEMPlanAdvice plan_guest_report(PlanGuest *guest, int64_t ms)
{
    guest->ms += ms;
    return plan_guest_next(guest, true);
}

VirtIOMEMPlanAdvice plan_guest_obey(PlanGuest *guest, uint64_t ask)
{
    guest->ms += 100;
    guest->plugged = ask;
    return plan_guest_next(guest, false);
}
