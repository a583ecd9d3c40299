# SPDX-License-Identifier: GPL-2.0-or-later
"""The law of virtio-mem-autosize, by cases."""

import unittest

import virtio_mem_tap
from law import Decision, GiB, Law, Limits, MiB, Report, Sizes

LIMITS = Limits(0, 4 * GiB)
BOOT = 1 * GiB


def report(available, plugged=1 * GiB, made=0.0, **more):
    """What a guest says that has so much available."""
    return Report(made, BOOT + plugged, available, **more)


class Cases(unittest.TestCase):
    """One decision each."""

    def setUp(self):
        self.law = Law(LIMITS)

    def decide(self, available, now, plugged=1 * GiB, wish=None,
               host_is_low=True, **more):
        """Decide on a report that was made just now."""
        sizes = Sizes(plugged if wish is None else wish, plugged)
        return self.law.decide(sizes, report(available, plugged, now, **more),
                               host_is_low, now)

    def assert_decides(self, decision, verb, wish, reason=''):
        self.assertIsInstance(decision, Decision)
        self.assertEqual((decision.verb, decision.wish), (verb, wish),
                         decision.reason)
        self.assertIn(reason, decision.reason)

    def test_guest_that_is_short_grows_at_once(self):
        decision = self.decide(200 * MiB, 0)
        self.assert_decides(decision, 'grow', 1536 * MiB,
                            '200 MiB available, less than half of 512 MiB')
        self.assertEqual(decision.mode, 'plain')

    def test_guest_that_will_be_short_soon_grows_now(self):
        self.assert_decides(self.decide(760 * MiB, 0), 'hold', 1 * GiB)
        self.assert_decides(
            self.decide(500 * MiB, 1), 'grow', 1664 * MiB,
            '500 MiB available, 500 MiB unused, 260 MiB less each second')

    def test_what_the_device_gave_back_is_not_used_by_the_guest(self):
        self.decide(1000 * MiB, 0, 1 * GiB)
        self.assert_decides(self.decide(488 * MiB, 1, 512 * MiB), 'hold',
                            512 * MiB)

    def test_growths_double(self):
        wishes, plugged = [], 0
        for now in (0, 4, 8):
            decision = self.decide(100 * MiB, now, plugged)
            self.law.carried_out(decision, now)
            wishes.append(decision.wish - plugged)
            plugged = decision.wish
            self.law.decide(Sizes(plugged, plugged), None, True, now + 0.5)
        self.assertEqual(wishes, [512 * MiB, 1 * GiB, 2 * GiB])

    def test_growths_of_a_while_ago_do_not(self):
        self.law.carried_out(self.decide(100 * MiB, 0), 0)
        self.law.decide(Sizes(1536 * MiB, 1536 * MiB), None, True, 1)
        # B is a quarter of 2460 MiB, and 515 MiB are missing: 5 units.
        self.assert_decides(self.decide(100 * MiB, 11, 1536 * MiB), 'grow',
                            2176 * MiB)

    def test_nothing_grows_beyond_its_maximum(self):
        self.assert_decides(self.decide(100 * MiB, 0, 4 * GiB - 128 * MiB),
                            'grow', 4 * GiB)
        self.assert_decides(self.decide(100 * MiB, 0, 4 * GiB), 'hold',
                            4 * GiB, 'it has its maximum')

    def test_nothing_grows_beyond_what_its_kernel_can_describe(self):
        self.law = Law(Limits(0, 64 * GiB))
        decision = self.decide(100 * MiB, 0, 16 * GiB - 128 * MiB)
        self.assert_decides(decision, 'grow', 16 * GiB)

    def test_minimum_is_added_at_once(self):
        self.law = Law(Limits(2 * GiB, 4 * GiB))
        self.assert_decides(self.decide(1 * GiB, 0), 'grow', 2 * GiB,
                            'below its minimum')

    def test_what_is_above_the_maximum_goes_with_care(self):
        self.law = Law(Limits(0, 512 * MiB))
        decision = self.decide(1 * GiB, 0)
        self.assert_decides(decision, 'shrink', 768 * MiB, 'above its maximum')
        self.assertEqual(decision.mode, 'safe')
        self.assert_decides(self.decide(400 * MiB, 1), 'hold', 1 * GiB,
                            'in use')

    def test_idle_guest_shrinks_by_an_eighth(self):
        decision = self.decide(3 * GiB, 0, 4 * GiB)
        # In hand: 512 MiB; surplus: 2.5 GiB.
        self.assert_decides(decision, 'shrink', 4 * GiB - 256 * MiB,
                            '3072 MiB available, more than 768 MiB')
        self.assertEqual((decision.mode, decision.reserve),
                         ('safe', 256 * MiB))

    def test_with_room_on_the_host_guests_keep_more(self):
        self.assert_decides(self.decide(1400 * MiB, 0, host_is_low=False),
                            'hold', 1 * GiB, 'has what it needs')
        self.assert_decides(self.decide(1400 * MiB, 1, host_is_low=True),
                            'shrink', 896 * MiB)

    def test_with_room_on_the_host_guests_may_keep_their_caches(self):
        self.law = Law(LIMITS._replace(keeps_caches=True))
        caches = {'plugged': 4 * GiB, 'caches': 2 * GiB}
        self.assert_decides(self.decide(3 * GiB, 0, host_is_low=False,
                                        **caches),
                            'hold', 4 * GiB, 'has what it needs')
        self.assert_decides(self.decide(4 * GiB, 1, host_is_low=False,
                                        **caches),
                            'shrink', 4 * GiB - 128 * MiB,
                            '2048 MiB unused, more than 1536 MiB')
        self.assert_decides(self.decide(3 * GiB, 7, **caches), 'shrink',
                            4 * GiB - 256 * MiB, '3072 MiB available')

    def test_shared_memory_is_no_cache_to_keep(self):
        self.law = Law(LIMITS._replace(keeps_caches=True))
        self.assert_decides(self.decide(3 * GiB, 0, 4 * GiB, caches=1 * GiB,
                                        free=3 * GiB, host_is_low=False),
                            'shrink', 4 * GiB - 128 * MiB)

    def test_between_the_two_nothing_happens(self):
        for available in range(256, 769, 32):
            self.assert_decides(self.decide(available * MiB, available),
                                'hold', 1 * GiB)

    def test_caches_count_in_part(self):
        # T - A = 4.4 GiB, and 4 GiB of caches are worth one.
        decision = self.decide(600 * MiB, 0, 4 * GiB, caches=4 * GiB)
        self.assert_decides(decision, 'grow' if decision.wish > 4 * GiB
                            else 'hold', 4 * GiB, 'less than half')

    def test_caches_help_half_as_much_as_what_is_free(self):
        self.assert_decides(self.decide(700 * MiB, 0, caches=1 * GiB,
                                        free=40 * MiB),
                            'hold', 1 * GiB, 'has what it needs')
        self.law = Law(LIMITS)
        decision = self.decide(400 * MiB, 0, caches=1 * GiB, free=40 * MiB)
        self.assert_decides(decision, 'grow', 1536 * MiB,
                            '220 MiB available with half of its caches, ')

    def test_processes_that_take_unused_memory_leave_no_use_of_caches(self):
        """They may have the kernel's; a cache that takes it leaves it."""
        caches = {'caches': 1 * GiB, 'host_is_low': False}
        self.decide(1300 * MiB, 0, free=500 * MiB, **caches)
        self.assert_decides(self.decide(1300 * MiB, 1, free=200 * MiB,
                                        **caches), 'hold', 1 * GiB)
        self.law = Law(LIMITS)
        self.decide(1300 * MiB, 0, free=500 * MiB, **caches)
        self.assert_decides(self.decide(1172 * MiB, 20, free=372 * MiB,
                                        **caches), 'hold', 1 * GiB)
        self.assert_decides(self.decide(1050 * MiB, 29, free=250 * MiB,
                                        **caches), 'grow', 1536 * MiB,
                            '250 MiB unused, less than half of 512 MiB')
        self.assert_decides(self.decide(1050 * MiB, 60, free=250 * MiB,
                                        **caches), 'hold', 1 * GiB)

    def test_processes_that_soon_have_all_unused_memory(self):
        self.decide(1300 * MiB, 0, free=900 * MiB)
        self.assert_decides(self.decide(1000 * MiB, 1, free=600 * MiB), 'grow',
                            1536 * MiB, '1000 MiB available, 600 MiB unused, '
                            '300 MiB less each second')

    def test_no_shrink_after_a_growth(self):
        self.law.carried_out(self.decide(100 * MiB, 0), 0)
        grown = 1536 * MiB
        self.law.decide(Sizes(grown, grown), None, True, 1)
        self.assert_decides(self.decide(1500 * MiB, 29, grown), 'hold', grown,
                            'grew a moment ago')
        self.assert_decides(self.decide(1500 * MiB, 31, grown), 'shrink',
                            grown - 128 * MiB)

    def test_no_shrink_under_pressure(self):
        for counter in ('swap_out', 'alloc_stalls'):
            self.law = Law(LIMITS)
            self.decide(1500 * MiB, 0, **{counter: 0})
            self.decide(600 * MiB, 1, **{counter: 4096})
            self.assert_decides(
                self.decide(1500 * MiB, 60, **{counter: 4096}), 'hold',
                1 * GiB, 'was short of memory a moment ago')
            self.assert_decides(
                self.decide(1500 * MiB, 62, **{counter: 4096}), 'shrink',
                896 * MiB)

    def test_kill_and_swapping_grow_a_guest_with_memory(self):
        self.decide(500 * MiB, 0, oom_kills=3)
        self.assert_decides(self.decide(600 * MiB, 1, oom_kills=4), 'grow',
                            1536 * MiB, 'a process was killed')
        self.law = Law(LIMITS)
        self.decide(100 * MiB, 0, swap_out=0)
        self.assert_decides(self.decide(600 * MiB, 1, swap_out=8 * MiB),
                            'grow', 1536 * MiB, 'it swaps')

    def test_swapping_grows_to_what_was_used_once(self):
        self.decide(1500 * MiB, 0, swap_out=0)
        # It never used more than 548 MiB, and has 2 GiB.
        self.assert_decides(self.decide(1500 * MiB, 1, swap_out=8 * MiB),
                            'hold', 1 * GiB, 'it swaps; it has its maximum')

    def test_old_report_decides_nothing(self):
        self.law.decide(Sizes(1 * GiB, 1 * GiB), None, True, 10)
        decision = self.law.decide(Sizes(1 * GiB, 1 * GiB),
                                   report(100 * MiB, made=9.0), True, 11)
        self.assert_decides(decision, 'hold', 1 * GiB, 'waits for a report')

    def test_shrink_that_turns_out_wrong_is_undone(self):
        self.law.carried_out(self.decide(3 * GiB, 0, 4 * GiB), 0)
        self.assert_decides(self.decide(100 * MiB, 1, 3900 * MiB,
                                        wish=3840 * MiB), 'grow', 4 * GiB)

    def test_shrink_that_stalls_ends_and_waits_longer_each_time(self):
        now, pauses = 0, []
        for _ in range(6):
            decision = self.decide(3 * GiB, now, 4 * GiB)
            while decision.verb != 'shrink':
                now += 1
                decision = self.decide(3 * GiB, now, 4 * GiB)
            pauses.append(now)
            self.law.carried_out(decision, now)
            while decision.verb != 'settle':
                now += 1
                decision = self.decide(3 * GiB, now, 4 * GiB, decision.wish)
            self.assert_decides(decision, 'settle', 4 * GiB,
                                'gets no further')
            self.law.carried_out(decision, now)
        waits = [later - now for now, later in zip(pauses, pauses[1:])]
        self.assertEqual(waits, sorted(waits))
        self.assertGreaterEqual(waits[0], 60)
        self.assertGreaterEqual(waits[-1], 600)

    def test_device_that_gives_up_has_stalled(self):
        decision = self.decide(3 * GiB, 0, 4 * GiB)
        self.law.carried_out(decision, 0)
        self.assert_decides(self.decide(3 * GiB, 9, 4 * GiB), 'hold', 4 * GiB,
                            'could not shrink a moment ago')
        self.assert_decides(self.decide(3 * GiB, 69, 4 * GiB), 'shrink',
                            decision.wish)
        self.law.carried_out(decision, 69)
        self.assertEqual(self.decide(3 * GiB, 75, decision.wish).verb,
                         'shrink')

    def test_growth_that_stalls_stays_wished_for(self):
        self.law.carried_out(self.decide(100 * MiB, 0), 0)
        self.law.decide(Sizes(1536 * MiB, 1 * GiB), None, True, 1)
        self.assert_decides(
            self.decide(100 * MiB, 60, 1 * GiB, wish=1536 * MiB), 'hold',
            1536 * MiB, 'the guest gets no further')
        self.assert_decides(
            self.decide(1500 * MiB, 120, 1 * GiB, wish=1536 * MiB), 'shrink',
            896 * MiB)

    def test_what_a_dead_predecessor_asked_for_is_ended(self):
        self.decide(500 * MiB, 0, 1 * GiB, wish=0)
        self.assert_decides(self.decide(500 * MiB, 11, 1 * GiB, wish=0),
                            'settle', 1 * GiB)

    # Limits that do not fit what is there

    def shrink_above_maximum(self):
        """Begin one; return its wish."""
        self.law = Law(Limits(0, 512 * MiB))
        decision = self.decide(1536 * MiB, 0, 4 * GiB)
        self.assert_decides(decision, 'shrink', 3840 * MiB)
        self.law.carried_out(decision, 0)
        return decision.wish

    def test_shrink_above_the_maximum_ends_at_what_there_is(self):
        plugged = 3968 * MiB
        for words, now, available, kills in (('no further', 10.5, 1000, 0),
                                             ('killed', 1, 1000, 1),
                                             ('less than half', 1, 100, 0)):
            wish = self.shrink_above_maximum()
            self.decide(1000 * MiB, 0.5, plugged, wish, oom_kills=0)
            self.assert_decides(
                self.decide(available * MiB, now, plugged, wish,
                            oom_kills=kills), 'settle', plugged, words)

    def test_above_its_maximum_a_guest_has_pauses_too(self):
        wish = self.shrink_above_maximum()
        self.assert_decides(self.decide(1400 * MiB, 1, wish), 'hold', wish,
                            'shrank a moment ago')
        self.law.carried_out(
            Decision('shrink', 512 * MiB, 'again', 'safe'), 10)
        # The device has given up.
        for now in (20, 60):
            self.assert_decides(self.decide(1536 * MiB, now, wish), 'hold',
                                wish, 'could not shrink a moment ago')

    def test_above_its_maximum_a_guest_gives_what_it_can_spare(self):
        self.law = Law(Limits(0, 2 * GiB, 2 * GiB))
        self.assert_decides(self.decide(2300 * MiB, 0, 8 * GiB), 'hold',
                            8 * GiB, 'in use')

    def test_guest_is_not_shrunk_for_what_its_kernel_can_describe(self):
        self.law = Law(Limits(0, 64 * GiB))
        self.assert_decides(self.decide(8 * GiB, 0, 30 * GiB,
                                        caches=20 * GiB),
                            'hold', 30 * GiB, 'has what it needs')
        self.assert_decides(self.decide(100 * MiB, 1, 30 * GiB), 'hold',
                            30 * GiB, 'it has its maximum')

    def test_minimum_is_not_more_than_its_kernel_can_describe(self):
        self.law = Law(Limits(32 * GiB, 64 * GiB))
        self.assert_decides(self.decide(1 * GiB, 0), 'grow', 16 * GiB)
        self.assert_decides(self.decide(1 * GiB, 1, 16 * GiB), 'hold',
                            16 * GiB)

    def test_what_a_kernel_can_describe_follows_the_reports(self):
        self.law = Law(Limits(0, 64 * GiB))
        grown = report(100 * MiB, 12 * GiB, made=0)
        # It grew after its sizes were read.
        self.law.decide(Sizes(12 * GiB, 1 * GiB), grown, True, 0)
        self.assert_decides(self.decide(100 * MiB, 1, 16 * GiB), 'hold',
                            16 * GiB, 'it has its maximum')

    def test_report_of_before_a_reset_describes_nothing(self):
        self.law = Law(Limits(0, 64 * GiB))
        self.decide(1 * GiB, 0, 14 * GiB)
        self.law.decide(Sizes(0, 0), report(1 * GiB, 14 * GiB, made=0.5),
                        True, 1)
        self.law.decide(Sizes(16 * GiB, 16 * GiB), None, True, 2)
        self.assert_decides(self.decide(100 * MiB, 3, 16 * GiB), 'hold',
                            16 * GiB, 'it has its maximum')

    # Others

    def test_late_reports_shrink_nothing(self):
        sizes = Sizes(4 * GiB, 4 * GiB)
        self.law.decide(sizes, None, True, 0)
        said = report(3 * GiB, 4 * GiB, made=1)
        self.assert_decides(self.law.decide(sizes, said, True, 12), 'hold',
                            4 * GiB, 'its reports are late')

    def test_late_reports_end_a_shrink(self):
        decision = self.decide(3 * GiB, 0, 4 * GiB)
        self.law.carried_out(decision, 0)
        said = report(3 * GiB, 4 * GiB, made=1)
        for now in range(1, 12):
            plugged = 4 * GiB - now * 2 * MiB
            last = self.law.decide(Sizes(decision.wish, plugged), said, True,
                                   now)
            self.assertEqual(last.verb, 'hold')
        self.assert_decides(
            self.law.decide(Sizes(decision.wish, plugged), said, True, 12),
            'settle', plugged, 'its reports are late')

    def test_guest_that_is_watched_is_not_shrunk(self):
        sizes = Sizes(4 * GiB, 4 * GiB)
        for available, verb in ((3 * GiB, 'hold'), (100 * MiB, 'hold')):
            decision = Law(LIMITS).decide(
                sizes, report(available, 4 * GiB), True, 0, True)
            self.assertEqual(decision.verb, verb, decision)
        decision = Law(LIMITS).decide(Sizes(1 * GiB, 1 * GiB),
                                      report(100 * MiB), True, 0, True)
        self.assertEqual(decision.verb, 'grow')

    def test_guest_that_cannot_grow_is_not_read_more_often(self):
        self.decide(100 * MiB, 0)
        self.assertTrue(self.law.is_busy(0))
        self.law = Law(LIMITS)
        self.decide(100 * MiB, 0, 4 * GiB)
        self.assertFalse(self.law.is_busy(0))

    def test_guest_whose_use_grows_fast_is_read_more_often(self):
        for taken, is_busy in (32, False), (33, True):
            self.law = Law(LIMITS)
            self.decide(1000 * MiB, 0)
            self.decide((1000 - taken) * MiB, 1)
            self.assertEqual(self.law.is_busy(1), is_busy)

    def test_settle_that_fails_is_one_stall(self):
        decision = self.decide(3 * GiB, 0, 4 * GiB)
        self.law.carried_out(decision, 0)
        self.decide(3 * GiB, 0.5, 4 * GiB, decision.wish)
        for now in range(11, 20):
            settle = self.decide(3 * GiB, now, 4 * GiB, decision.wish)
            self.assertEqual(settle.verb, 'settle')
        self.law.carried_out(settle, 20)
        self.assert_decides(self.decide(3 * GiB, 81, 4 * GiB), 'shrink',
                            decision.wish)


if __name__ == '__main__':
    virtio_mem_tap.main()
