# SPDX-License-Identifier: GPL-2.0-or-later
"""The law of virtio-mem-autosize, by cases and on simulated guests."""

import os
import random
import unittest

import virtio_mem_tap
from law import Decision, GiB, Law, Limits, MiB, Report, Sizes, up
from simulated_vm import SimulatedVM, STEP_S

LIMITS = Limits(0, 4 * GiB)
BOOT = 1 * GiB
STEPS = 10 ** 6
SEED = int(os.environ.get('SEED', '0')) or random.randrange(1 << 32)


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

    def test_growths_double(self):
        wishes, plugged = [], 0
        for now in (0, 1, 2):
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

    def test_between_the_two_nothing_happens(self):
        for available in range(256, 769, 32):
            self.assert_decides(self.decide(available * MiB, available),
                                'hold', 1 * GiB)

    def test_caches_count_in_part(self):
        # T - A = 4.4 GiB, and 4 GiB of caches are worth one.
        decision = self.decide(600 * MiB, 0, 4 * GiB, caches=4 * GiB)
        self.assert_decides(decision, 'grow' if decision.wish > 4 * GiB
                            else 'hold', 4 * GiB, 'less than half')

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


class GreedyLaw(Law):
    """Takes all that is available, at once: what not to do."""

    def _why_no_shrink(self, now):
        return None

    def _shrink(self, sizes, host_is_low):
        wish = max(up(sizes.plugged - self._memory.available + 128 * MiB,
                      self.limits.unit), self.limits.least)
        return Decision('shrink' if wish < sizes.plugged else 'hold', wish,
                        'greed')


class Watcher:
    """What holds at each step of one simulated guest."""

    def __init__(self, test, limits, law=Law):
        self.test = test
        self.limits = limits
        self.law = law(limits)
        self.turns = []             # times of changes of direction
        self.changes = 0
        self._direction = None

    def step(self, vm, host_is_low):
        """Let the law decide and the guest go on; return the decision."""
        decision = self.law.decide(vm.sizes, vm.report, host_is_low, vm.now)
        if decision.verb != 'hold':
            self.test.assertTrue(
                self.limits.least <= decision.wish <= self.limits.most,
                decision)
            self.test.assertEqual(decision.wish % vm.block, 0, decision)
            self._note(decision, vm)
            vm.wish = decision.wish
            self.law.carried_out(decision, vm.now)
        vm.step()

    def _note(self, decision, vm):
        """A settled guest plugs and unplugs nothing: that is no direction."""
        if decision.verb == 'settle':
            return
        self.changes += 1
        if self._direction not in (None, decision.verb):
            self.turns.append(vm.now)
        self._direction = decision.verb

    def turns_since(self, then):
        """Return the times of changes of direction."""
        return [turn for turn in self.turns if turn >= then]


class Simulations(unittest.TestCase):
    """Many decisions, on guests whose load changes at random."""

    def setUp(self):
        print(f'# SEED={SEED}')
        self.random = random.Random(SEED)

    def assert_calm(self, watcher, vm, since):
        """On constant load: at most one change of direction a minute."""
        turns = watcher.turns_since(since)
        for first, second in zip(turns, turns[1:]):
            self.assertGreaterEqual(second - first, 60, (turns, vm.__dict__))

    def constant_load(self, watcher, vm, seconds):
        """Choose a load, and keep it until long after the guest has it."""
        vm.load(self.random.randrange(int(0.9 * (BOOT + 4 * GiB))),
                self.random.choice((1, 5, 20)))
        vm.unmovable = self.random.choice((0, 0, 0, vm.plugged // 2))
        low = self.random.random() < 0.5
        start = vm.now
        while vm.now < start + seconds:
            watcher.step(vm, low)
            self.assertLessEqual(vm.plugged, watcher.limits.most)
        return start + 60, low

    def test_a_million_steps(self):
        limits = Limits(256 * MiB, 4 * GiB)
        vm = SimulatedVM(self.random, BOOT)
        watcher = Watcher(self, limits)
        seconds = 1800
        for _ in range(int(STEPS * STEP_S / seconds)):
            since, _ = self.constant_load(watcher, vm, seconds)
            self.assert_calm(watcher, vm, since)
            watcher.turns.clear()
        print(f'# {watcher.changes} changes, {vm.killed} kills')

    def test_constant_load_comes_to_rest(self):
        for _ in range(20):
            vm = SimulatedVM(self.random, BOOT)
            watcher = Watcher(self, LIMITS)
            _, low = self.constant_load(watcher, vm, 3600)
            if vm.unmovable:
                continue
            changes = watcher.changes
            for _ in range(2400):
                watcher.step(vm, low)
            self.assertEqual(watcher.changes, changes, vm.__dict__)

    def test_greed_would_be_found_out(self):
        vm = SimulatedVM(self.random, BOOT)
        watcher = Watcher(self, LIMITS, GreedyLaw)
        vm.load(2 * GiB, 20)
        for _ in range(1200):
            watcher.step(vm, True)
        with self.assertRaises(AssertionError):
            self.assert_calm(watcher, vm, 120)

    def test_bursts_that_the_law_survives(self):
        """B/2 and 512 MiB a round trip of 1.5 s, says the design."""
        for _ in range(200):
            vm = SimulatedVM(self.random, BOOT)
            vm.late = 0
            watcher = Watcher(self, LIMITS)
            for _ in range(60):
                watcher.step(vm, True)
            start = vm.now + self.random.random()
            while vm.now < start:
                watcher.step(vm, True)
            # 100 MiB/s, as a build or an IDE.
            vm.load(vm.used + 2 * GiB, 20)
            for _ in range(120):
                watcher.step(vm, True)
            self.assertEqual(vm.killed, 0)


if __name__ == '__main__':
    virtio_mem_tap.main()
