# SPDX-License-Identifier: GPL-2.0-or-later
"""The law of virtio-mem-autosize on simulated guests: many decisions."""

import os
import random
import unittest

import virtio_mem_tap
from law import (AFTER_STALL_S, Decision, GiB, LATE_S, Law, Limits, MiB,
                 SHRINK_EACH_S, up)
from simulated_vm import SimulatedVM, STEP_S

LIMITS = Limits(0, 4 * GiB)
BOOT = 1 * GiB
STEPS = 10 ** 6
SEED = int(os.environ.get('SEED', '0')) or random.randrange(1 << 32)


class GreedyLaw(Law):
    """Takes all that is available, at once: what not to do."""

    def _why_no_shrink(self, now):
        return None

    def _shrink(self, sizes, host_is_low):
        wish = max(up(sizes.plugged - self._memory.available + 128 * MiB,
                      self.limits.unit), self.limits.least)
        return Decision('shrink' if wish < sizes.plugged else 'hold', wish,
                        'greed')


class ShortSightedLaw(Law):
    """Goes by what is available, and not by what is left of it soon."""

    def _take(self, report, now):
        super()._take(report, now)
        if self._memory:
            self._memory.use_rate = 0


class CountsOnCachesLaw(Law):
    """Thinks that caches are as good as unused memory."""

    def _take(self, report, now):
        super()._take(report, now)
        if self._memory:
            self._memory.takes_unused = False


class Watcher:
    """What holds at each step of one simulated guest."""

    def __init__(self, test, limits, law=Law, jobs=False):
        self.test = test
        self.limits = limits
        self.law = law(limits)
        self.jobs = jobs
        self.turns = []             # times of changes of direction
        self.changes = 0
        self._direction = None
        self._shrunk = None         # when
        self._settled = None

    def step(self, vm, host_is_low):
        """Let the law decide and the guest go on."""
        decision = self.law.decide(vm.sizes, vm.report, host_is_low, vm.now,
                                   vm.has_job)
        if decision.verb != 'hold':
            getattr(self, f'_check_{decision.verb}')(decision, vm)
            self.test.assertEqual(decision.wish % vm.block, 0, decision)
            self._note(decision, vm)
            self._carry_out(decision, vm)
            self.law.carried_out(decision, vm.now)
        vm.step()

    def _check_grow(self, decision, vm):
        self.test.assertGreater(decision.wish, vm.plugged)
        self.test.assertLessEqual(decision.wish, self.limits.most)

    def _check_shrink(self, decision, vm):
        """Not at the guest's expense, not often, and by what is true now."""
        assert_true = self.test.assertTrue
        assert_true(self.limits.least <= decision.wish < vm.plugged, decision)
        assert_true(not vm.has_job and vm.now - vm.report.made <= LATE_S)
        step = vm.plugged - decision.wish
        assert_true(step <= vm.report.available - decision.reserve, decision)
        assert_true(self._shrunk is None or
                    vm.now - self._shrunk >= SHRINK_EACH_S)
        assert_true(self._settled is None or
                    vm.now - self._settled >= AFTER_STALL_S)
        self._shrunk = vm.now

    def _check_settle(self, decision, vm):
        self.test.assertEqual(decision.wish, vm.plugged)
        self._settled = vm.now

    def _carry_out(self, decision, vm):
        if decision.verb == 'shrink' and self.jobs:
            vm.start_job(decision.wish)
            return
        vm.end_job()
        vm.wish = decision.wish

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
    """Guests whose load changes at random."""

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
        for _ in range(-int(-STEPS * STEP_S // seconds)):
            since, _ = self.constant_load(watcher, vm, seconds)
            self.assert_calm(watcher, vm, since)
            watcher.turns.clear()
        print(f'# {watcher.changes} changes, {vm.killed} kills')

    def any_guest(self):
        """Make a guest and limits; it may have more than it should."""
        choose = self.random.choice
        unit = choose((2, 128, 256, 512, 2048)) * MiB
        most = choose((1, 2, 4)) * GiB
        limits = Limits(choose((0, most // 4 // unit * unit)), most, unit)
        vm = SimulatedVM(self.random, choose((512, 1024, 4096)) * MiB)
        vm.wish = vm.plugged = choose((0, most, 4 * GiB))
        vm.swap = choose((0, 1 * GiB))
        vm.pace = choose((512, 8)) * MiB
        vm.mute = choose((0, 0.1))
        vm.seen_late = choose((0, 0.2))
        vm.false = choose((0, 0, 0.01, 1))
        return vm, limits

    def check_any_guest(self):
        """Twenty minutes, in which the load changes once."""
        vm, limits = self.any_guest()
        watcher = Watcher(self, limits, jobs=self.random.random() < 0.5)
        largest = max(limits.most, vm.plugged)
        for _ in range(2):
            vm.load(self.random.randrange(int(0.9 * vm.boot + limits.most)),
                    self.random.choice((1, 5, 20)))
            vm.unmovable = self.random.choice((0, 0, vm.plugged // 2,
                                               vm.plugged))
            low, since = self.random.random() < 0.5, vm.now + 120
            for _ in range(int(600 / STEP_S)):
                watcher.step(vm, low)
                self.assertLessEqual(vm.plugged, largest)
            if not vm.false:
                self.assert_calm(watcher, vm, since)
            watcher.turns.clear()
        return watcher.changes

    def test_a_million_steps_of_any_guests(self):
        changes = sum(self.check_any_guest()
                      for _ in range(-int(-STEPS * STEP_S // 1200)))
        print(f'# {changes} changes')

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

    def test_guest_that_can_give_nothing_is_asked_seldom(self):
        """Above its maximum as below it: each ten minutes in the end."""
        for limits in (LIMITS, Limits(0, 1 * GiB)):
            for jobs in (False, True):
                vm = SimulatedVM(self.random, BOOT)
                vm.wish = vm.plugged = vm.unmovable = 4 * GiB
                watcher = Watcher(self, limits, jobs=jobs)
                for _ in range(int(3600 / STEP_S)):
                    watcher.step(vm, True)
                self.assertLess(watcher.changes, 12)

    def test_greed_would_be_found_out(self):
        vm = SimulatedVM(self.random, BOOT)
        watcher = Watcher(self, LIMITS, GreedyLaw)
        vm.load(2 * GiB, 20)
        with self.assertRaises(AssertionError):
            for _ in range(1200):
                watcher.step(vm, True)
            self.assert_calm(watcher, vm, 120)

    def burst(self, law, speed, late=0):
        """A guest with little more than its boot memory uses 2 GiB more."""
        vm = SimulatedVM(self.random, BOOT)
        vm.late = late
        return self.burst_kills(vm, law, speed, 60, True)

    def burst_kills(self, vm, law, speed, nb_steps, host_is_low):
        """Use 2 GiB more after that, so much a second; does that kill?"""
        watcher = Watcher(self, LIMITS, law)
        for _ in range(nb_steps + self.random.randrange(2)):
            watcher.step(vm, host_is_low)
        vm.load(vm.used + 2 * GiB, 2 * GiB // speed)
        for _ in range(120):
            watcher.step(vm, host_is_low)
        return vm.killed > 0

    def test_bursts_that_the_law_survives(self):
        """As a build or an IDE; as many processes that begin at once."""
        for speed in (100 * MiB, 200 * MiB, 400 * MiB):
            for _ in range(100):
                self.assertFalse(self.burst(Law, speed), speed)

    def test_slower_bursts_that_it_survives_with_late_reports(self):
        """Each tenth comes after five seconds."""
        for _ in range(100):
            self.assertFalse(self.burst(Law, 80 * MiB, late=0.1))

    def burst_beside_a_cache(self, law, speed):
        """The device's memory is full of it."""
        vm = SimulatedVM(self.random, BOOT)
        vm.late = 0
        vm.wish = vm.plugged = 1152 * MiB
        vm.caches = 1 * GiB
        return self.burst_kills(vm, law, speed, 20, False)

    def test_burst_beside_a_cache_leaves_the_kernel_its_memory(self):
        """Which it needs to describe what the guest grows by."""
        for speed in (50 * MiB, 100 * MiB, 200 * MiB, 400 * MiB):
            for _ in range(50):
                self.assertFalse(self.burst_beside_a_cache(Law, speed), speed)

    def test_who_counts_on_caches_loses(self):
        for _ in range(10):
            self.assertTrue(self.burst_beside_a_cache(CountsOnCachesLaw,
                                                      100 * MiB))

    def test_who_does_not_look_ahead_loses(self):
        self.assertTrue(any(self.burst(ShortSightedLaw, 400 * MiB)
                            for _ in range(10)))


if __name__ == '__main__':
    virtio_mem_tap.main()
