#!/usr/bin/python3
"""virtio-mem and KSM: equal pages of plugged memory are merged.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import Guest, GuestTimeout, MiB
from virtio_mem_guest_test import GuestTest
from virtio_mem_host import KSM, HostError

SIZE = 512 * MiB
PAGE = 4096


def wait_count(ksm, what, least, timeout=180):
    """Wait until one of KSM's numbers is large enough."""
    deadline = time.monotonic() + timeout
    while ksm.count(what) < least:
        if time.monotonic() > deadline:
            raise GuestTimeout(f'{what} is {ksm.count(what)}, not {least}')
        time.sleep(0.5)


class VirtioMemKSM(GuestTest):
    """Two guests with the same content in plugged memory."""

    def setUp(self):
        super().setUp()
        self.require_host_memory(8 * SIZE)
        try:
            self.ksm = self.enterContext(KSM().running())
        except HostError as error:
            self.skipTest(str(error))

    def two_guests(self, merge):
        """Boot guests that differ in nothing; only mem0 may be merged."""
        options = {'backend': f'memory-backend-ram,merge={merge}',
                   'more_args': ('-machine', 'mem-merge=off')}
        guests = [self.enterContext(Guest(**options)) for _ in range(2)]
        for guest in guests:
            guest.wait_boot()
            guest.resize(SIZE)
            pattern.write(guest, 1)
        return guests

    def test_equal_plugged_memory_is_merged_and_goes_back(self):
        guests = self.two_guests('on')
        pages = pattern.FILE_SIZE // PAGE
        wait_count(self.ksm, 'pages_sharing', pages // 2)
        # Merged pages are pages like any other: readable, and written to.
        for guest in guests:
            self.assertEqual(pattern.damaged_files(guest, 1), [])
        guests[0].ask('dd if=/dev/zero of=/mem/0 conv=notrunc bs=1M count=64')
        self.assertEqual(pattern.damaged_files(guests[1], 1), [])
        for guest in guests:
            pattern.erase(guest)
            guest.resize(0)
            self.assertEqual(guest.host_memory(), 0)
        self.assertEqual(self.ksm.count('pages_sharing'), 0)

    def test_without_merge_nothing_is_merged(self):
        self.two_guests('off')
        wait_count(self.ksm, 'full_scans', self.ksm.count('full_scans') + 2)
        self.assertEqual(self.ksm.count('pages_sharing'), 0)


if __name__ == '__main__':
    virtio_mem_tap.main()
