#!/usr/bin/python3
"""virtio-mem with the driver that counts: a real Linux grows and shrinks.

SPDX-License-Identifier: GPL-2.0-or-later

Everything is looked at from both sides, the guest's and the host's.
"""

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import GiB, KEPT_PAGES, MiB, PATIENCE, wait_until
from virtio_mem_guest_test import GuestTest

# What QEMU's own needs (translated code, page tables) and the guest's (its
# description of hot-plugged pages is kept in boot memory) may add.
SLACK = 256 * MiB

# After so many seconds at most Linux tries again what failed.
LINUX_RETRIES = 300


class VirtioMemLinux(GuestTest):
    """Each case boots a guest of its own."""

    def check_memory_goes_back(self, guest, nb_files):
        """Fill what is plugged, check it, and take all of it away."""
        rss_boot = guest.host_rss()
        used = nb_files * pattern.FILE_SIZE
        guest.resize(used + pattern.FILE_SIZE)

        pattern.write(guest, nb_files)
        self.assertEqual(pattern.damaged_files(guest, nb_files), [])
        # Boot memory had room for some of it.
        self.assertGreater(guest.host_rss(),
                           rss_boot + used - guest.boot_size)

        pattern.erase(guest)
        self.assertGreater(guest.host_rss(),
                           rss_boot + used - guest.boot_size)
        guest.resize(0)
        self.assertLess(guest.host_rss(), rss_boot + SLACK)

    @virtio_mem_tap.slow
    def test_four_gib_hold_a_pattern_and_go_back_to_the_host(self):
        self.require_host_memory(5 * GiB)
        with self.guest() as guest:
            nb_files = 4 * GiB // pattern.FILE_SIZE - 1
            self.check_memory_goes_back(guest, nb_files)

    def test_shrinking_keeps_what_the_guest_still_uses(self):
        nb_files = 4
        with self.guest() as guest:
            guest.resize(2 * GiB)
            pattern.write(guest, nb_files)
            full = guest.host_rss()
            guest.resize(nb_files * pattern.FILE_SIZE)
            self.assertEqual(pattern.damaged_files(guest, nb_files), [])
            self.assertLess(guest.host_rss(), full + SLACK)

    def test_contents_survive_when_neighbours_come_and_go(self):
        nb_files = 4
        with self.guest() as guest:
            guest.resize(nb_files * pattern.FILE_SIZE)
            pattern.write(guest, nb_files)
            guest.ask('rm /mem/1 /mem/3')
            guest.resize(nb_files // 2 * pattern.FILE_SIZE)
            guest.resize(nb_files * pattern.FILE_SIZE)
            pattern.write(guest, nb_files, first=1, step=2)
            self.assertEqual(pattern.damaged_files(guest, nb_files), [])

    def wait_agreed(self, guest, boot_total):
        """Wait until guest, device and events tell the same size.

        The guest may go on meanwhile, so all are asked each time.
        """
        announced = [None]

        def sizes():
            size = guest.device_info()['size']
            announced.extend(event['data']['size']
                             for event in guest.vm.get_qmp_events()
                             if event['event'] == 'MEMORY_DEVICE_SIZE_CHANGE')
            return size, announced[-1], guest.mem_total() - boot_total

        def agree():
            size, told, gained = sizes()
            return size == told and abs(size - gained) <= KEPT_PAGES

        wait_until(agree, lambda: f'device, events, guest tell {sizes()}')

    def check_shrinking_stalls(self, remind):
        """Shrink to 0 while memory is in use, free it, and go on."""
        # More than boot memory can hold.
        nb_files = 12
        used = nb_files * pattern.FILE_SIZE
        with self.guest() as guest:
            boot_total = guest.mem_total()
            guest.resize(2 * GiB)
            pattern.write(guest, nb_files)
            guest.request(0)
            # Not less than boot memory cannot hold.
            least = used - boot_total
            guest.wait_plugged_between(least, used)
            # While Linux tries to move one more block away it keeps all free
            # memory for that, and may kill what asks for some.
            guest.wait_idle()
            self.assertEqual(guest.device_info()['requested-size'], 0)
            self.wait_agreed(guest, boot_total)
            self.assertEqual(pattern.damaged_files(guest, nb_files), [])
            self.assertGreaterEqual(guest.device_info()['size'], least)
            pattern.erase(guest)
            if remind:
                guest.request(0)
            guest.wait_plugged(0, timeout=LINUX_RETRIES + PATIENCE)
            guest.wait_mem_total(boot_total)
            self.assertEqual(guest.host_memory(), 0)

    def test_shrinking_stalls_at_what_is_in_use_until_it_is_freed(self):
        self.check_shrinking_stalls(remind=True)

    @virtio_mem_tap.slow
    def test_shrinking_that_stalled_goes_on_by_itself(self):
        self.check_shrinking_stalls(remind=False)

    def test_pattern_check_notices_one_lost_page(self):
        with self.guest() as guest:
            pattern.write(guest, 1)
            guest.ask('dd if=/dev/zero of=/mem/0 conv=notrunc bs=4k seek=77 '
                      'count=1')
            self.assertEqual(pattern.damaged_files(guest, 1), [0])

    def test_monitor_and_guest_agree_after_each_step(self):
        with self.guest() as guest:
            boot_total = guest.mem_total()
            for size in (128 * MiB, 1 * GiB, 642 * MiB, 2 * GiB, 0):
                guest.resize(size)
                info = guest.device_info()
                self.assertEqual(info['requested-size'], size)
                self.assertEqual(info['size'], size)
                self.assertEqual(info['max-size'], guest.region_size)
                self.assertEqual(guest.mem_total(), boot_total + size)
                for event in guest.wait_announced(size):
                    self.assertEqual(event['id'], guest.DEVICE)
                    self.assertTrue(
                        event['qom-path'].endswith(f'/{guest.DEVICE}'))

    def test_reboot_gives_the_requested_size_again(self):
        with self.guest() as guest:
            guest.resize(1 * GiB)
            pattern.write(guest, 2)
            full = guest.host_memory()
            self.assertGreaterEqual(full, 2 * pattern.FILE_SIZE)
            guest.reboot()
            # Reset unplugged everything; the new Linux plugs it again, empty.
            self.assertLess(guest.host_memory(), full - pattern.FILE_SIZE)
            guest.wait_plugged(1 * GiB)


class VirtioMemOldLinux(VirtioMemLinux):
    """The same with the older Linux."""

    old_kernel = True
    in_ci = ('test_contents_survive_when_neighbours_come_and_go',
             'test_monitor_and_guest_agree_after_each_step',
             'test_reboot_gives_the_requested_size_again')


if __name__ == '__main__':
    virtio_mem_tap.main()
