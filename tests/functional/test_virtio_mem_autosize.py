#!/usr/bin/python3
"""virtio-mem-autosize with a Linux guest whose processes come and go.

SPDX-License-Identifier: GPL-2.0-or-later

A guest with 1 GiB is short of memory when it has less than 256 MiB available.
"""

import contextlib
import signal

import virtio_mem_tap
import virtio_mem_busy as busy
from virtio_mem_autosize import LEFT, Autosize, Hogs, take
from virtio_mem_guest import GiB, MiB, wait_until
from virtio_mem_guest_test import GuestTest


BOOT_SIZE = 1 * GiB


class VirtioMemAutosize(GuestTest):

    BINARY = 'QEMU_BINARY'
    HAS_JOBS = True

    @contextlib.contextmanager
    def started(self):
        """Boot a guest with all that the tool needs; give its monitor, too."""
        monitor = self.temp_file('qmp')
        self.require_host_memory(5 * GiB)
        with self.guest(
                region_size=4 * GiB, boot_size=BOOT_SIZE, binary=self.BINARY,
                kernel_options='memhp_default_state=online_movable',
                more_args=('-device', 'virtio-balloon-pci,id=balloon0,'
                           'free-page-reporting=on',
                           '-qmp', f'unix:{monitor},server=on,wait=off')
                ) as guest:
            guest.ask('modprobe virtio_balloon')
            yield guest, monitor

    def grow(self, guest):
        """Let processes take what makes the guest short of memory."""
        hogs = Hogs(guest)
        hogs.fill(LEFT)
        wait_until(lambda: guest.device_info()['size'] >= 512 * MiB,
                   'the guest did not grow')
        self.assertEqual(busy.oom_kills(guest), 0)
        return hogs

    def assert_settled(self, guest):
        """Nothing more is asked of the guest than it has given."""
        device = guest.device_info()
        self.assertGreaterEqual(device['requested-size'], device['size'])

    def test_guest_grows_before_it_runs_out(self):
        with self.started() as (guest, monitor):
            with Autosize('--host-free', '1M', monitor) as tool:
                tool.wait_line('found')
                self.grow(guest)
                self.assertEqual(tool.end(), 0)
            self.assert_settled(guest)

    def test_budget_of_the_host_is_kept(self):
        with self.started() as (guest, monitor):
            with Autosize('--verbose', '--host-free', '1000T',
                          f'{monitor},min=256M') as tool:
                tool.wait_line('below its minimum; the host has none')
                self.assertEqual(tool.end(signal.SIGINT), 0)
            self.assertEqual(guest.device_info()['requested-size'], 0)

    @virtio_mem_tap.slow
    def test_guest_shrinks_when_it_is_idle(self):
        with self.started() as (guest, monitor):
            guest.resize(3 * GiB)
            with Autosize('--host-free', '1M', monitor) as tool:
                tool.wait_line('shrink ')
                wait_until(lambda: guest.device_info()['size'] < 3 * GiB,
                           'the guest did not shrink')
                # The load that comes then is not harmed.
                Hogs(guest).fill(512 * MiB)
                self.assertEqual(tool.end(signal.SIGHUP), 0)
            self.assert_settled(guest)
            self.assertEqual(busy.oom_kills(guest), 0)

    def assert_job_ends(self, guest):
        """A shrink that nobody follows ends by itself, if it is a job."""
        jobs = guest.vm.cmd('query-jobs')
        self.assertEqual(bool(jobs), self.HAS_JOBS)
        if jobs:
            wait_until(lambda: guest.vm.cmd('query-jobs')[0]['status'] ==
                       'concluded', 'the job goes on')
            self.assert_settled(guest)

    @virtio_mem_tap.slow
    def test_killed_tool_is_taken_over_from(self):
        with self.started() as (guest, monitor):
            guest.resize(4 * GiB)
            with Autosize('--host-free', '1000T', monitor) as tool:
                tool.wait_line('shrink ')
                tool.kill()
            self.assert_job_ends(guest)
            # What a shrink looks like that nobody ends.
            hogs = Hogs(guest)
            hogs.fill(1 * GiB)
            guest.request(0)
            with Autosize('--host-free', '1000T', monitor) as tool:
                tool.wait_line('(settle|grow|host has none)')
                hogs.free()
                tool.wait_line('shrink ')
                self.assertEqual(tool.end(), 0)
            self.assert_settled(guest)

    @virtio_mem_tap.slow
    def test_guests_take_turns_within_a_budget(self):
        with self.started() as (first, one), self.started() as (second, two):
            hogs, others = Hogs(first), Hogs(second)

            def size(guest):
                return guest.device_info()['size']

            def is_kept():
                granted = [BOOT_SIZE + max(device['size'],
                                           device['requested-size'])
                           for device in (first.device_info(),
                                          second.device_info())]
                self.assertLessEqual(sum(granted), 3 * GiB)

            with Autosize('--verbose', '--host-free', '1G', one, two,
                          host_size=4 * GiB, guests=(first, second)) as tool:
                take(first, hogs, lambda: size(first) >= 512 * MiB, is_kept)
                take(second, others, lambda:
                     'the host has none' in tool.last_line(two), is_kept)
                hogs.free()
                take(second, others, lambda: size(second) >= 512 * MiB,
                     is_kept)
                others.free()
                take(first, hogs, lambda: size(first) >= 512 * MiB, is_kept)
                self.assertEqual(tool.end(), 0)
            for guest in (first, second):
                self.assert_settled(guest)
                self.assertEqual(busy.oom_kills(guest), 0)


class WithStock(VirtioMemAutosize):
    """QEMU's own device, without resize-mode."""

    BINARY = 'STOCK_QEMU_BINARY'
    HAS_JOBS = False
    needs = ('STOCK_QEMU_BINARY',)
    in_ci = ()


if __name__ == '__main__':
    virtio_mem_tap.main()
