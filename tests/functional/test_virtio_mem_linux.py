#!/usr/bin/python3
"""virtio-mem with the driver that counts: a real Linux grows and shrinks.

SPDX-License-Identifier: GPL-2.0-or-later

Everything is looked at from both sides, the guest's and the host's.
"""

import contextlib
import os
import pathlib
import tempfile

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB
from virtio_mem_guest_test import GuestTest

# What QEMU's own needs (translated code, page tables) and the guest's (its
# description of hot-plugged pages is kept in boot memory) may add.
SLACK = 256 * MiB


POOL = pathlib.Path('/sys/kernel/mm/hugepages/hugepages-2048kB')


def huge_pages(what):
    """Return a number of 2 MiB pages of the host's pool, or 0 without one."""
    path = POOL / f'{what}_hugepages'
    return int(path.read_text(encoding='ascii')) if path.exists() else 0


@contextlib.contextmanager
def huge_pages_for(size):
    """Enlarge the pool, if we may, so that @size bytes are free in it."""
    missing = size // (2 * MiB) - huge_pages('free')
    before = huge_pages('nr')
    pool = POOL / 'nr_hugepages'
    if missing > 0 and os.access(pool, os.W_OK):
        pool.write_text(str(before + missing), encoding='ascii')
    try:
        yield size <= huge_pages('free') * 2 * MiB
    finally:
        if huge_pages('nr') != before:
            pool.write_text(str(before), encoding='ascii')


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
            full = guest.host_rss()
            guest.ask('(sleep 1; reboot -f) > /dev/null 2>&1 &')
            guest.wait_boot()
            # Reset unplugged everything; the new Linux plugs it again, empty.
            self.assertLess(guest.host_rss(), full - pattern.FILE_SIZE)
            guest.wait_plugged(1 * GiB)

    def test_memfd_goes_back_to_the_host(self):
        with self.guest(backend='memory-backend-memfd,share=on') as guest:
            self.check_memory_goes_back(guest, 2)

    def test_shared_file_goes_back_to_its_file_system(self):
        with tempfile.NamedTemporaryFile(dir='/dev/shm') as file:
            backend = f'memory-backend-file,mem-path={file.name},share=on'
            with self.guest(backend=backend) as guest:
                self.check_memory_goes_back(guest, 2)
                blocks = os.stat(file.name).st_blocks
                self.assertLess(blocks * 512, 1 * MiB)

    def test_huge_pages_go_back_to_the_pool(self):
        size = 1 * GiB
        backend = 'memory-backend-memfd,hugetlb=on,share=on'
        with huge_pages_for(size) as enough:
            if not enough:
                self.skipTest('too few free huge pages: write at least '
                              f'{size // (2 * MiB)} to {POOL}/nr_hugepages')
            with self.guest(backend=backend, region_size=size) as guest:
                free = huge_pages('free')
                self.check_memory_goes_back(guest, 2)
                self.assertEqual(huge_pages('free'), free)


if __name__ == '__main__':
    virtio_mem_tap.main()
