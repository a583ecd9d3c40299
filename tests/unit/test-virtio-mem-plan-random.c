/*
 * virtio-mem: what to ask a guest for next, whatever it does and reports
 *
 * A twin that is asked the same gives the same advice.  A step down leaves what
 * the guest reported as available above the reserve.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "virtio-mem-plan-guest.h"

static uint64_t random_size(uint64_t max, uint64_t unit)
{
    return (uint64_t)(g_test_rand_double() * (max / unit + 1)) * unit;
}

static bool one_in(int nb)
{
    return g_test_rand_int_range(0, nb) == 0;
}

static void random_begin(PlanGuest *guest)
{
    const uint64_t max = (1 + random_size(63, 1)) * GiB;

    plan_guest_begin(guest, 128 * MiB + random_size(8 * GiB, MiB),
                random_size(max, BLOCK), random_size(max, BLOCK), 0);
    guest->used = random_size(plan_guest_total(guest), MiB);
    guest->goal.reserve = one_in(2) ? 0 : random_size(GiB, MiB);
    guest->others = one_in(2) ? 0 : random_size(4 * GiB, UNIT);
    virtio_mem_plan_begin(&guest->plan, &guest->goal, guest->ms);
}

/* It goes towards the ask, or stays, or the load changes; all at any speed. */
static void random_live(PlanGuest *guest, uint64_t ask)
{
    const uint64_t far = MAX(ask, guest->plugged) - MIN(ask, guest->plugged);
    const uint64_t by = one_in(3) ? far : random_size(far, BLOCK);

    if (!one_in(4)) {
        guest->plugged += ask > guest->plugged ? by : -by;
    }
    if (one_in(8)) {
        guest->used = random_size(2 * plan_guest_total(guest), MiB);
    }
    guest->said.oom_kills += one_in(200);
    guest->said.alloc_stalls += one_in(100);
    guest->said.swap_out += one_in(20) ? random_size(32 * MiB, 1) : 0;
    guest->offline = one_in(50) ? random_size(guest->plugged, BLOCK)
                                : MIN(guest->offline, guest->plugged);
    guest->ms += random_size(one_in(20) ? 20000 : 600, 1);
}

static BalloonGuestStats random_report(const PlanGuest *guest)
{
    BalloonGuestStats report = guest->said;

    report.total = plan_guest_total(guest);
    report.available = plan_guest_available(guest);
    if (one_in(30)) {       /* a lie, or silence */
        report.total = one_in(2) ? UINT64_MAX : random_size(UINT64_MAX / 2, 1);
        report.available = one_in(2) ? UINT64_MAX : random_size(64 * GiB, 1);
    }
    return report;
}

static void assert_affordable(const PlanGuest *guest, uint64_t before,
                              const BalloonGuestStats *report,
                              VirtIOMEMPlanAdvice advice)
{
    const uint64_t reserve = guest->goal.reserve ?:
                             virtio_mem_plan_reserve(report->total);

    if (advice.ask < before && advice.ask < guest->plugged) {
        g_assert_cmphex(guest->plugged - advice.ask + reserve, <=,
                        report->available);
    }
}

/* Run a plan to its end, or for some minutes; the number of its steps. */
static unsigned int random_run(void)
{
    PlanGuest guest;
    VirtIOMEMPlan twin;
    VirtIOMEMPlanAdvice advice = { 0 };
    BalloonGuestStats last = { 0 };
    uint64_t low, high;
    int64_t end_ms;
    unsigned int nb = 0;

    random_begin(&guest);
    end_ms = guest.ms + random_size(4 * 60 * 1000, 1);
    twin = guest.plan;
    low = MIN(guest.goal.start, guest.goal.wish);
    high = MAX(guest.goal.start, guest.goal.wish);
    advice.ask = guest.goal.start;
    while (advice.verdict <= VIRTIO_MEM_PLAN_HOLD && guest.ms < end_ms) {
        const uint64_t before = advice.ask;
        const BalloonGuestStats report = random_report(&guest);
        const VirtIOMEMPlanNow now = {
            .ms = guest.ms, .plugged = guest.plugged,
            .others = guest.others, .others_asked = guest.others,
            .report = one_in(3) ? NULL : &report,
            .report_is_old = one_in(4),
        };
        VirtIOMEMPlanAdvice again;

        if (now.report && report.total != UINT64_MAX &&
            report.available != UINT64_MAX) {
            last = report;
        }
        advice = virtio_mem_plan_next(&guest.plan, &now);
        again = virtio_mem_plan_next(&twin, &now);
        nb++;
        g_assert_cmpint(memcmp(&advice, &again, sizeof(advice)), ==, 0);
        g_assert_cmphex(advice.ask, >=, low);
        g_assert_cmphex(advice.ask, <=, high);
        if (guest.goal.wish < guest.goal.start) {
            assert_affordable(&guest, before, &last, advice);
        }
        random_live(&guest, advice.ask);
    }
    return nb;
}

static void test_random(void)
{
    unsigned int nb = 0;

    while (nb < 1000000) {
        nb += random_run();
    }
    g_test_message("%u steps", nb);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-mem/plan/random", test_random);
    return g_test_run();
}
