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

    BOOT = GiB
    REGION = 3 * GiB
    NB_HOGS = 10

    def busy_guest(self, more_args=()):
        """Boot a guest that can tell what it has, without hogs yet."""
        self.require_host_memory(self.BOOT + self.REGION + GiB)
        return self.guest(boot_size=self.BOOT, region_size=self.REGION,
                          more_args=(*BALLOON, *more_args))

    def make_busy(self, guest):
        """Plug all, let the hogs take most of it, and return what is left."""
        guest.ask('modprobe virtio_balloon')
        guest.resize(self.REGION)
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
        print(f'# available before: {available >> 20} MiB, now: '
              f'{size >> 20} MiB of {self.REGION >> 20} plugged', flush=True)
        spare = available - RESERVE
        self.assertGreaterEqual(size, self.REGION - spare / 0.94 - UNIT)
        self.assertLessEqual(size, self.REGION - spare + 2 * UNIT)

    def start_job(self, guest, **options):
        """Start a job that takes all of the memory away."""
        guest.vm.cmd('memory-device-resize', **{
            'job-id': 'job0', 'id': guest.DEVICE, 'size': 0, **options})

    def count_polls(self):
        """Return how often the device has asked for statistics."""
        with open(self.trace, encoding='utf-8') as lines:
            return sum('virtio_mem_resize_poll' in line for line in lines)

    def assert_asked_for_nothing(self, guest):
        """While two reports come that the user asked for, there is no other."""
        balloon = '/machine/peripheral/balloon0'
        polls = self.count_polls()
        guest.vm.cmd('qom-set', path=balloon, value=1,
                     property='guest-stats-polling-interval')
        for _ in range(2):
            before = guest.vm.cmd('qom-get', path=balloon,
                                  property='guest-stats')['last-update']
            wait_until(lambda before=before: guest.vm.cmd(
                'qom-get', path=balloon, property='guest-stats'
                )['last-update'] > before, 'the balloon reports nothing')
        guest.vm.cmd('qom-set', path=balloon, value=0,
                     property='guest-stats-polling-interval')
        self.assertEqual(self.count_polls(), polls)

    def test_shrink_stops_at_what_the_guest_needs_and_goes_on(self):
        self.trace = self.temp_file('trace')
        with self.busy_guest(('-trace', 'virtio_mem_resize_*', '-D',
                              self.trace)) as guest:
            available = self.make_busy(guest)
            busy.set_safe(guest, RESERVE)
            self.assert_asked_for_nothing(guest)
            self.assertEqual(self.count_polls(), 0)
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
            # Nothing is asked for while nothing is resized.
            guest.request(again)
            wait_until(lambda: guest.device_info()['resize-status'] == 'done',
                       lambda: f'it goes on: {guest.device_info()}')
            self.assertGreater(self.count_polls(), 0)
            self.assert_asked_for_nothing(guest)

    # What the other cases are measured by: this scenario is one.
    @virtio_mem_tap.slow
    def test_plain_shrink_kills(self):
        with self.busy_guest() as guest:
            self.make_busy(guest)
            self.start_job(guest, mode='plain', deadline=60)
            wait_until(lambda: busy.available(guest) < 64 * MiB,
                       'the guest does not run out of memory')
            busy.touch(guest, 200, may_fail=True)
            wait_until(lambda: busy.oom_kills(guest) > 0,
                       'the guest had memory to spare')
            # At least, the ratchet stops with the job.
            self.assertIn('deadline', self.wait_job(guest)['error'])
            info = guest.device_info()
            self.assertEqual(info['asked-size'], info['size'])

    @virtio_mem_tap.slow
    def test_hog_that_starts_in_the_middle_gets_memory_back(self):
        with self.busy_guest() as guest:
            # When it has that, 400 MiB are more than what must stay.
            size = self.REGION - (self.make_busy(guest) - RESERVE - 256 * MiB)
            busy.set_safe(guest, RESERVE)
            guest.request(0)
            wait_until(lambda: guest.device_info()['size'] <= size,
                       'the shrink does not get on')
            busy.burst(guest, 400 * MiB)
            self.wait_holds(guest)
            self.assertEqual(busy.oom_kills(guest), 0)
            wait_until(lambda: busy.held(guest) > self.NB_HOGS *
                       (busy.HOG - 4 * MiB) + 390 * MiB,
                       'the last one did not get what it needs')
            self.wait_holds(guest)
            self.assertEqual(busy.oom_kills(guest), 0)
            self.assertEqual(busy.count(guest), self.NB_HOGS + 1)
            # On a slow host, that may have stopped the shrink in time. Now it
            # holds, and one more takes most of the reserve.
            busy.burst(guest, busy.available(guest) - RESERVE // 4)
            wait_until(lambda: busy.given_back(guest) > 0,
                       'the guest got nothing back')
            self.wait_holds(guest)
            self.assertEqual(busy.oom_kills(guest), 0)

    @virtio_mem_tap.slow
    def test_nothing_goes_on_two_minutes_later(self):
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
        with self.busy_guest() as guest:
            self.make_busy(guest)
            self.start_job(guest, mode='safe', reserve=RESERVE,
                           **{'stall-timeout': 5})
            job = self.wait_job(guest)
            self.assertIn('guest-low-memory', job['error'])
            info = guest.device_info()
            self.assertEqual(info['requested-size'], info['size'])
            self.assertEqual(info['size'],
                             self.REGION - job['current-progress'])
            busy.end(guest, self.NB_HOGS)
            guest.wait_idle()
            self.assertEqual(guest.device_info()['size'], info['size'])
            self.assertEqual(busy.oom_kills(guest), 0)


class VirtioMemSafeLarger(VirtioMemSafe):
    """The same with 2 + 4 GiB."""

    BOOT = 2 * GiB
    REGION = 4 * GiB
    NB_HOGS = 18
    in_ci = ()


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
