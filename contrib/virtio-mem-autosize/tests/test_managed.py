# SPDX-License-Identifier: GPL-2.0-or-later
"""What virtio-mem-autosize makes of the readings of one guest."""

import unittest

import virtio_mem_tap
from config import GuestConfig
from guest import Reading
from law import GiB, MiB, Report, Sizes
from managed import Managed


class Guest:
    """Says what it is told to say."""

    is_safe = True

    def __init__(self):
        self.size = 1 * GiB
        self.report = None

    async def connect(self):
        """There is nothing to connect to."""

    async def largest(self):
        """Return its largest size, and that of a block."""
        return 4 * GiB, 2 * MiB

    async def follow(self):
        """It reports anyway."""

    @staticmethod
    def process():
        """It is not known."""
        return None

    async def read(self, _):
        """Return what it says."""
        return Reading(Sizes(self.size, self.size), self.report,
                       1 * GiB + self.size, None)


class Cases(unittest.IsolatedAsyncioTestCase):

    async def test_next_report_after_a_change_is_heard(self):
        """A turn decides some time after it has looked."""
        guest = Guest()
        one = Managed(GuestConfig('web', '/run/web'), guest, lambda line: None)
        guest.report = Report(0, 2 * GiB, 600 * MiB)
        await one.look(1)
        one.decide(False, 1.1)
        guest.size = 896 * MiB
        await one.look(2)
        one.decide(False, 2.1)
        guest.report = Report(2, 2 * GiB - 128 * MiB, 100 * MiB)
        await one.look(3)
        self.assertEqual(one.decide(False, 3.1).verb, 'grow')

    async def test_guest_may_keep_its_caches(self):
        guest = Guest()
        guest.report = Report(1, 2 * GiB, 1800 * MiB, 1 * GiB, 800 * MiB)
        verbs = []
        for keeps in (False, True):
            one = Managed(GuestConfig('web', '/run/web', keeps_caches=keeps),
                          guest, lambda line: None)
            await one.look(1)
            verbs.append(one.decide(False, 1).verb)
        self.assertEqual(verbs, ['shrink', 'hold'])


if __name__ == '__main__':
    virtio_mem_tap.main()
