# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host can give, and guests that live on one."""

import os
import random
import unittest

import budget
import virtio_mem_tap
from budget import Claim, Host
from guest import Reading
from law import Decision, GiB, Law, Limits, MiB, Sizes
from simulated_vm import SimulatedVM, STEP_S

SEED = int(os.environ.get('SEED', '0')) or random.randrange(1 << 32)
UNIT = 128 * MiB


class Cases(unittest.TestCase):

    def test_room_is_what_nobody_was_promised(self):
        host = Host(16 * GiB, 8 * GiB, 1 * GiB)
        claims = [Claim(2 * GiB, 1 * GiB), Claim(1 * GiB, 2 * GiB)]
        self.assertEqual(budget.room(host, claims), 6 * GiB - 64 * MiB)
        self.assertFalse(budget.is_low(host, claims))
        self.assertTrue(budget.is_low(host._replace(available=5 * GiB),
                                      claims))
        self.assertEqual(budget.room(host._replace(available=1 * GiB),
                                     claims), 0)

    def test_shares(self):
        self.assertEqual(budget.divide(90, {'a': (100, 1), 'b': (100, 2)}),
                         {'a': 30, 'b': 60})

    def test_what_one_does_not_want_is_for_the_others(self):
        self.assertEqual(budget.divide(90, {'a': (100, 1), 'b': (10, 2),
                                            'c': (100, 1)}),
                         {'a': 40, 'b': 10, 'c': 40})
        self.assertEqual(budget.divide(90, {'a': (20, 1), 'b': (30, 1)}),
                         {'a': 20, 'b': 30})
        self.assertEqual(budget.divide(90, {}), {})

    def limited(self, available, wish, sizes=Sizes(1 * GiB, 1 * GiB)):
        decision = Decision('grow', wish, 'low')
        return budget.limit(Host(16 * GiB, available, 0),
                            {'a': Claim(2 * GiB, 2 * GiB + 64 * MiB)},
                            {'a': sizes}, {'a': decision}, {'a': UNIT})['a']

    def test_growth_is_what_there_is(self):
        self.assertEqual(self.limited(8 * GiB, 2 * GiB).wish, 2 * GiB)
        self.assertEqual(self.limited(300 * MiB, 2 * GiB).wish,
                         1 * GiB + 256 * MiB)

    def test_nothing_is_left(self):
        decision = self.limited(100 * MiB, 2 * GiB)
        self.assertEqual((decision.verb, decision.wish), ('hold', 1 * GiB))
        self.assertIn('the host has none', decision.reason)

    def test_shrink_ends_even_if_nothing_is_left(self):
        decision = self.limited(0, 2 * GiB, Sizes(512 * MiB, 1 * GiB))
        self.assertEqual((decision.verb, decision.wish), ('settle', 1 * GiB))


class Simulation(unittest.TestCase):
    """Guests whose loads come and go, on a host that cannot bear all."""

    HOST = 12 * GiB
    KEEP = 1 * GiB

    def setUp(self):
        print(f'# SEED={SEED}')
        self.random = random.Random(SEED)
        self.vms = {name: SimulatedVM(self.random) for name in 'abcd'}
        self.laws = {name: Law(Limits(0, 4 * GiB)) for name in self.vms}
        self.readings = {}
        self.asked = {}             # wishes that guests have not heard yet
        self.denied = 0

    def host(self):
        """Return the host as it is: free pages are reported to it."""
        used = sum(self.resident(vm) for vm in self.vms.values())
        return Host(self.HOST, self.HOST - used, self.KEEP)

    @staticmethod
    def resident(vm):
        """Return what a QEMU has."""
        return vm.boot + vm.plugged - max(0, vm.free) + budget.OF_QEMU

    def claims(self):
        """Return what guests may have, by what was read of them last."""
        return {name: Claim(reading.granted, self.resident(self.vms[name]))
                for name, reading in self.readings.items()}

    def look(self, name):
        """Read a guest, if it has heard what it was asked for."""
        vm = self.vms[name]
        if name in self.asked:
            vm.wish = self.asked.pop(name)
        self.readings[name] = Reading(
            vm.sizes, vm.report, vm.boot + max(vm.wish, vm.plugged), None)

    def step(self):
        """Decide for all that answer in time, as the tool does."""
        present = [name for name in self.vms
                   if name not in self.readings or self.random.random() < 0.8]
        for name in present:
            self.look(name)
        host, claims = self.host(), self.claims()
        low = budget.is_low(host, claims.values())
        wanted = {name: self.decide(name, low) for name in present}
        decisions = budget.limit(
            host, claims, {name: self.readings[name].sizes
                           for name in present},
            wanted, dict.fromkeys(self.vms, UNIT))
        for name, decision in decisions.items():
            self.denied += decision != wanted[name]
            self.ask(name, decision)
        for vm in self.vms.values():
            vm.step()

    def decide(self, name, low):
        """Apply the law."""
        reading = self.readings[name]
        return self.laws[name].decide(reading.sizes, reading.report, low,
                                      self.vms[name].now)

    def ask(self, name, decision):
        """Let a guest hear it, now or when it is read next."""
        if decision.verb == 'hold':
            return
        self.laws[name].carried_out(decision, self.vms[name].now)
        self.readings[name] = self.readings[name].asked(decision.wish)
        self.asked[name] = decision.wish

    def assert_budget(self):
        """If all guests took all they have, the host would keep its part."""
        most = sum(vm.boot + max(vm.wish, vm.plugged, self.asked.get(name, 0))
                   + budget.OF_QEMU for name, vm in self.vms.items())
        self.assertLessEqual(most, self.HOST - self.KEEP)

    def test_budget_is_kept(self):
        for turn in range(30_000):
            if turn % int(60 / STEP_S) == 0:
                vm = self.random.choice(list(self.vms.values()))
                vm.load(self.random.randrange(int(4 * GiB)),
                        self.random.choice((1, 10, 30)))
            self.step()
            self.assert_budget()
        self.assertGreater(self.denied, 0)

    def test_guests_take_turns(self):
        """What one gives back is for the other."""
        grown = set()
        for vm in self.vms.values():
            vm.late = 0
        for turn in range(8):
            for number, vm in enumerate(self.vms.values()):
                vm.load(3500 * MiB if turn % 4 == number else 300 * MiB, 60)
            for _ in range(int(600 / STEP_S)):
                self.step()
                self.assert_budget()
                grown |= {name for name, vm in self.vms.items()
                          if vm.used > 3 * GiB}
        self.assertEqual(grown, set(self.vms))


if __name__ == '__main__':
    virtio_mem_tap.main()
