#!/usr/bin/python3
"""virtio-mem in mode safe: no resize ends what a real Linux runs.

SPDX-License-Identifier: GPL-2.0-or-later

The judge is the guest's counter of what its out-of-memory killer ended.  That
the same happens to a guest in mode plain is tested, too: else the scenario
would not be one.
"""

import virtio_mem_busy as busy
import virtio_mem_tap
from virtio_mem_guest import GiB, Guest, MiB, wait_until
from virtio_mem_guest_test import GuestTest

RESERVE = 256 * MiB

# In which Linux adds and removes memory.
UNIT = 128 * MiB

BALLOON = ('-device', 'virtio-balloon-pci,id=balloon0')


class VirtioMemSafe(GuestTest):
    """A guest of 1 + 3 GiB that is busy, and gets asked for all of it."""

    NB_HOGS = 10

    def busy_guest(self):
        """Boot a guest that can tell what it has, without hogs yet."""
        return self.guest(boot_size=GiB, region_size=3 * GiB,
                          more_args=BALLOON)

    def make_busy(self, guest):
        """Plug all, let the hogs take most of it, and return what is left."""
        guest.ask('modprobe virtio_balloon')
        guest.resize(3 * GiB)
        busy.start(guest, self.NB_HOGS)
        return busy.available(guest)

    def assert_alive(self, guest):
        """Nothing in the guest was ended."""
        self.assertEqual(busy.oom_kills(guest), 0)
        self.assertEqual(busy.count(guest), self.NB_HOGS)

    def wait_holds(self, guest, reason='guest-low-memory'):
        """Wait until no more is asked of the guest; return its size."""
        busy.wait_status(guest, 'waiting', reason)
        guest.wait_driver_idle()
        info = guest.device_info()
        self.assertEqual(info['size'], info['asked-size'])
        return info['size']

    def assert_right_place(self, size, available):
        """The guest kept the reserve, and gave what it could spare."""
        spare = available - RESERVE
        self.assertGreaterEqual(size, 3 * GiB - spare / 0.94 - UNIT)
        self.assertLessEqual(size, 3 * GiB - spare + 2 * UNIT)

    def test_shrink_stops_at_what_the_guest_needs_and_goes_on(self):
        self.require_host_memory(5 * GiB)
        with self.busy_guest() as guest:
            available = self.make_busy(guest)
            busy.set_safe(guest, RESERVE)
            guest.request(0)
            size = self.wait_holds(guest)
            self.assert_alive(guest)
            self.assert_right_place(size, available)
            self.assertGreaterEqual(busy.available(guest),
                                    RESERVE - 16 * MiB)
            # Something that fits in the reserve fits in the guest.
            busy.touch(guest, 200)
            self.assert_alive(guest)
            # Three of them end while it holds: now there is more to spare.
            busy.end(guest, 3)
            wait_until(lambda: guest.device_info()['size'] <=
                       size - 2 * busy.HOG, lambda: 'the guest did not give '
                       f'back what was freed: {guest.device_info()}')
            again = self.wait_holds(guest)
            self.assertEqual(busy.oom_kills(guest), 0)
            self.assertEqual(busy.count(guest), self.NB_HOGS - 3)
            self.assert_right_place(again, available + 3 * busy.HOG)

    @virtio_mem_tap.slow
    def test_plain_shrink_kills(self):
        self.require_host_memory(5 * GiB)
        with self.busy_guest() as guest:
            self.make_busy(guest)
            guest.request(0)
            wait_until(lambda: busy.available(guest) < 64 * MiB,
                       'the guest does not run out of memory')
            busy.touch(guest, 200, may_fail=True)
            wait_until(lambda: busy.oom_kills(guest) > 0,
                       'the guest had memory to spare')

    @virtio_mem_tap.slow
    def test_hog_that_starts_in_the_middle_gets_memory_back(self):
        self.require_host_memory(5 * GiB)
        with self.busy_guest() as guest:
            self.make_busy(guest)
            busy.set_safe(guest, RESERVE)
            guest.request(0)
            wait_until(lambda: guest.device_info()['size'] < 3 * GiB,
                       'the shrink does not begin')
            busy.start(guest, 1)
            self.wait_holds(guest)
            self.assertEqual(busy.oom_kills(guest), 0)
            self.assertEqual(busy.count(guest), self.NB_HOGS + 1)

    @virtio_mem_tap.slow
    def test_nothing_goes_on_two_minutes_later(self):
        self.require_host_memory(5 * GiB)
        with self.busy_guest() as guest:
            self.make_busy(guest)
            busy.set_safe(guest, RESERVE)
            guest.request(0)
            size = self.wait_holds(guest)
            guest.ask('sleep 120')
            self.assertEqual(self.wait_holds(guest), size)
            self.assert_alive(guest)

    def wait_job(self, guest):
        """Wait until the only job has ended; return what it says."""
        def concluded():
            job, = guest.vm.cmd('query-jobs')
            return job if job['status'] == 'concluded' else None

        return wait_until(concluded, lambda: 'the job goes on: '
                          f"{guest.vm.cmd('query-jobs')}")

    @virtio_mem_tap.slow
    def test_job_gives_up_and_leaves_the_guest_alone(self):
        self.require_host_memory(5 * GiB)
        with self.busy_guest() as guest:
            self.make_busy(guest)
            guest.vm.cmd('memory-device-resize', **{
                'job-id': 'job0', 'id': guest.DEVICE, 'size': 0,
                'mode': 'safe', 'reserve': RESERVE, 'stall-timeout': 5})
            job = self.wait_job(guest)
            self.assertIn('guest-low-memory', job['error'])
            info = guest.device_info()
            self.assertEqual(info['requested-size'], info['size'])
            self.assertEqual(info['size'],
                             3 * GiB - job['current-progress'])
            busy.end(guest, self.NB_HOGS)
            guest.wait_idle()
            self.assertEqual(guest.device_info()['size'], info['size'])
            self.assertEqual(busy.oom_kills(guest), 0)


class VirtioMemSafeOlder(VirtioMemSafe):
    """The same with a Linux that does not look up while it shrinks."""

    old_kernel = True
    in_ci = ()


class VirtioMemSafeGrowth(GuestTest):
    """256 MiB of boot memory, asked for 32 GiB."""

    # It costs the host what the guest touches only.
    FAR = {'boot_size': 256 * MiB, 'region_size': 64 * GiB,
           'backend': 'memory-backend-ram,reserve=off', 'more_args': BALLOON}

    def far_guest(self, kernel_options=''):
        """Boot a guest that can grow far."""
        return self.guest(kernel_options=kernel_options, **self.FAR)

    def grow(self, guest):
        """Ask for 32 GiB in mode safe; return where it ends, and why."""
        guest.ask('modprobe virtio_balloon')
        busy.set_safe(guest)
        guest.request(32 * GiB)
        wait_until(lambda: guest.device_info()['resize-status'] == 'waiting',
                   lambda: f'it goes on: {guest.device_info()}')
        info = guest.device_info()
        return info['size'], info['resize-reason']

    def test_growth_ends_where_the_boot_memory_could_not_bear_more(self):
        with self.far_guest() as guest:
            total = guest.mem_total()
            size, reason = self.grow(guest)
            self.assertEqual(reason, 'growth-limit')
            self.assertLessEqual(size, 16 * total)
            self.assertGreater(size, 16 * total - UNIT - UNIT)
            self.assertGreater(busy.free_in_zone(guest, 'DMA32'), 64 * MiB)
            self.assertEqual(busy.oom_kills(guest), 0)

    def test_growth_ends_when_nothing_in_the_guest_uses_it(self):
        with self.far_guest('memhp_default_state=offline') as guest:
            size, reason = self.grow(guest)
            self.assertEqual(reason, 'guest-memory-offline')
            self.assertLessEqual(size, GiB + UNIT)

    @virtio_mem_tap.slow
    def test_plain_growth_leaves_the_kernel_nothing(self):
        def ended():
            return ('Kernel panic' in guest.console() or
                    guest.device_info()['resize-status'] == 'stalled')

        # Its kernel has complaints, if it still can.
        with Guest(old_kernel=self.old_kernel, **self.FAR) as guest:
            guest.wait_boot()
            guest.request(32 * GiB)
            wait_until(ended, lambda: f'it goes on: {guest.device_info()}')
            self.assertLess(guest.device_info()['size'], 16 * GiB)
            if 'Kernel panic' not in guest.console():
                self.assertLess(busy.free_in_zone(guest, 'DMA32'), 32 * MiB)

    def check_reaches_all(self, policy):
        """With such a policy, mode plain is fine."""
        with self.far_guest(policy) as guest:
            guest.request(32 * GiB)
            guest.wait_plugged(32 * GiB)
            guest.wait_mem_total_above(30 * GiB)
            self.assertEqual(busy.oom_kills(guest), 0)

    @virtio_mem_tap.slow
    def test_auto_movable_bears_it(self):
        self.check_reaches_all('memhp_default_state=online '
                               'memory_hotplug.online_policy=auto-movable')

    @virtio_mem_tap.slow
    def test_kernel_zone_bears_it(self):
        self.check_reaches_all('memhp_default_state=online')


if __name__ == '__main__':
    virtio_mem_tap.main()
