#!/usr/bin/python3
"""virtio-mem and Linux's driver: its modes, its reloading, its block sizes.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB
from virtio_mem_guest_test import GuestTest

DRIVER_BLOCK = 256 * MiB


def zone_size(guest, zone):
    """Return how much memory the guest's kernel manages in a zone."""
    pages = guest.ask(f'awk \'/^Node/ {{ z = $4 }} $1 == "managed" && '
                      f'z == "{zone}" {{ print $2 }}\' /proc/zoneinfo')
    return sum(int(n) for n in pages.split()) << 12


class VirtioMemDriver(GuestTest):
    """Each case boots a guest of its own."""

    def test_reloaded_driver_resizes(self):
        with self.guest() as guest:
            guest.resize(512 * MiB)
            guest.resize(0)
            guest.ask('rmmod virtio_mem && modprobe virtio_mem')
            guest.resize(512 * MiB)
            guest.resize(0)

    def test_reloaded_driver_unplugs_what_it_finds(self):
        # Memory that was plugged but never used stays so without a driver.
        log = ('-trace', 'virtio_mem_unplugged_all', '-D',
               self.temp_file('trace'))
        with self.guest(more_args=log) as guest:
            guest.ask('echo offline > '
                      '/sys/devices/system/memory/auto_online_blocks')
            guest.request(64 * MiB)
            guest.wait_plugged(64 * MiB)
            guest.ask('rmmod virtio_mem')
            self.assertEqual(guest.device_info()['size'], 64 * MiB)
            guest.request(32 * MiB)
            guest.ask('modprobe virtio_mem')
            guest.wait_plugged(32 * MiB)
            with open(log[-1], encoding='ascii') as trace:
                self.assertIn('virtio_mem_unplugged_all', trace.read())

    def test_big_block_mode_resizes(self):
        with self.guest() as guest:
            guest.ask('rmmod virtio_mem && modprobe virtio_mem force_bbm=1')
            for size in (512 * MiB, 128 * MiB, 1 * GiB, 0):
                guest.resize(size)

    def test_bbm_block_size_is_the_unit_of_growth(self):
        with self.guest() as guest:
            guest.ask('rmmod virtio_mem && modprobe virtio_mem force_bbm=1 '
                      f'bbm_block_size={DRIVER_BLOCK}')
            for size in (2 * DRIVER_BLOCK, 4 * DRIVER_BLOCK, 0):
                guest.resize(size)
            # A part of a block is no use to this driver.
            guest.request(DRIVER_BLOCK + 128 * MiB)
            guest.wait_plugged(DRIVER_BLOCK)

    def test_online_movable_makes_all_memory_movable(self):
        with self.guest() as guest:
            guest.resize(1 * GiB)
            self.assertEqual(zone_size(guest, 'Movable'), 1 * GiB)
            guest.resize(0)

    def test_auto_movable_keeps_the_ratio(self):
        policy = ('memhp_default_state=online '
                  'memory_hotplug.online_policy=auto-movable')
        with self.guest(kernel_options=policy) as guest:
            guest.resize(4 * GiB)
            movable = zone_size(guest, 'Movable')
            # By default, three quarters of all memory may be movable.
            self.assertEqual(movable, (guest.boot_size + 4 * GiB) * 3 // 4)
            guest.request(0)
            guest.wait_plugged_between(0, 4 * GiB - movable)

    def check_block_size(self, block_size, sizes):
        """Resize to some sizes with a block size, and look at the memory."""
        options = f',block-size={block_size}'
        with self.guest(region_size=4 * GiB, device_options=options) as guest:
            self.assertEqual(guest.device_info()['block-size'], block_size)
            for size in sizes:
                guest.resize(size)
            # Linux may take any memory first: more than fits beside it.
            pattern.fill(guest, '/mem/0', 768)
            self.assertGreaterEqual(guest.host_memory(),
                                    768 * MiB - guest.boot_size)
            guest.ask('rm /mem/0')
            guest.resize(0)
            self.assertEqual(guest.host_memory(), 0)

    @virtio_mem_tap.slow
    def test_blocks_of_1_mib(self):
        self.check_block_size(1 * MiB, (258 * MiB, 126 * MiB, 1 * GiB))

    @virtio_mem_tap.slow
    def test_blocks_of_2_mib(self):
        self.check_block_size(2 * MiB, (258 * MiB, 126 * MiB, 1 * GiB))

    def test_blocks_of_64_mib(self):
        self.check_block_size(64 * MiB, (320 * MiB, 64 * MiB, 1 * GiB))

    def test_blocks_of_1_gib(self):
        self.check_block_size(1 * GiB, (1 * GiB, 3 * GiB, 2 * GiB))


class VirtioMemOldDriver(VirtioMemDriver):
    """The same with the older Linux."""

    old_kernel = True
    in_ci = ('test_reloaded_driver_unplugs_what_it_finds',
             'test_bbm_block_size_is_the_unit_of_growth',
             'test_blocks_of_1_mib')


if __name__ == '__main__':
    virtio_mem_tap.main()
