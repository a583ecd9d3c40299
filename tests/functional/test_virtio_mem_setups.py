#!/usr/bin/python3
"""virtio-mem and Linux in company: other drivers' modes, other devices.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import virtio_mem_moves as moves
import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import Guest, GiB, MiB
from virtio_mem_guest_test import GuestTest


class VirtioMemSetups(GuestTest):
    """Each case boots a guest of its own."""

    def test_balloon_beside_it_inflates_and_deflates(self):
        balloon = ('-device', 'virtio-balloon-pci')
        with self.guest(more_args=balloon) as guest:
            guest.resize(1 * GiB)
            total = guest.mem_total()
            guest.ask('modprobe virtio_balloon')
            # The balloon's sizes are those of boot memory alone, but it
            # takes its pages from anywhere.
            guest.hmp('balloon 256')
            guest.wait_mem_total(total - 256 * MiB)
            guest.resize(512 * MiB)
            guest.hmp('balloon 512')
            guest.wait_mem_total(total - 512 * MiB)
            guest.resize(0)

    def test_migrated_guest_keeps_its_memory_and_resizes(self):
        incoming = ('-incoming', 'defer')
        kind = {'architecture': self.architecture}
        with Guest(**kind) as source, \
             Guest(more_args=incoming, **kind) as target:
            source.wait_boot()
            source.resize(1 * GiB)
            pattern.write(source, 2)
            moves.begin(source, moves.listen(target))
            moves.finish(source, target)
            self.assertEqual(pattern.damaged_files(target, 2), [])
            self.assertEqual(target.device_info()['size'], 1 * GiB)
            target.resize(768 * MiB)
            self.assertEqual(pattern.damaged_files(target, 2), [])
            pattern.erase(target)
            target.resize(0)
            self.assertEqual(target.complaints(), [])


if __name__ == '__main__':
    virtio_mem_tap.main()
