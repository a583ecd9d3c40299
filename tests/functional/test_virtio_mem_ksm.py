#!/usr/bin/python3
"""virtio-mem and KSM: equal pages of plugged memory are merged.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import mmap
import os
from pathlib import Path

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import Guest, MiB, wait_until
from virtio_mem_guest_test import GuestTest
from virtio_mem_host import KSM, HostError

SIZE = 512 * MiB
PAGE = 4096


def merged_pages(pid):
    """Return how many pages of a process are merged."""
    path = Path(f'/proc/{pid}/ksm_merging_pages')
    return int(path.read_text(encoding='ascii'))


def merged_guest_pages(guest):
    """Return how many pages of a guest are merged; others may merge, too."""
    return merged_pages(guest.vm.get_pid())


@contextlib.contextmanager
def witness():
    """Offer KSM equal pages of this process, in a block.

    KSM sleeps while nobody offers it anything, so without them a test
    that nothing is merged would wait for ever, or prove nothing.
    """
    with mmap.mmap(-1, 64 * PAGE, mmap.MAP_PRIVATE) as pages:
        pages.madvise(mmap.MADV_MERGEABLE)
        pages.write(os.urandom(PAGE) * 64)
        yield


def wait_for_ksm(look):
    """Wait for what KSM's thread brings about some time."""
    wait_until(look, 'KSM takes too long', interval=0.5)


class VirtioMemKSM(GuestTest):
    """Two guests with the same content in plugged memory."""

    def setUp(self):
        super().setUp()
        self.require_host_memory(8 * SIZE)
        if not Path('/proc/self/ksm_merging_pages').exists():
            self.skipTest('the host needs Linux 5.19 or newer, with KSM')
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
        wait_for_ksm(lambda: min(map(merged_guest_pages, guests)) > pages // 2)
        self.assertGreater(self.ksm.count('pages_sharing'), pages // 2)
        # Merged pages are pages like any other: readable, and written to.
        for guest in guests:
            self.assertEqual(pattern.damaged_files(guest, 1), [])
        guests[0].ask('dd if=/dev/zero of=/mem/0 conv=notrunc bs=1M count=16')
        self.assertEqual(pattern.damaged_files(guests[1], 1), [])
        for guest in guests:
            pattern.erase(guest)
            guest.resize(0)
            self.assertEqual(guest.host_memory(), 0)
        # KSM notices on its next round.
        wait_for_ksm(lambda: not any(map(merged_guest_pages, guests)))

    def test_without_merge_nothing_is_merged(self):
        guests = self.two_guests('off')
        with witness():
            last = self.ksm.count('full_scans') + 2
            wait_for_ksm(lambda: self.ksm.count('full_scans') >= last
                         and merged_pages(os.getpid()) > 0)
            self.assertEqual(list(map(merged_guest_pages, guests)), [0, 0])


if __name__ == '__main__':
    virtio_mem_tap.main()
