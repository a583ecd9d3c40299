# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mem-autosize against monitors of simulated guests."""

import asyncio
import contextlib
import random
import tempfile
import unittest
from unittest import mock

import autosize
import budget
import virtio_mem_tap
from config import configure
from fake_qemu import FakeQEMU
from qmp_guest import QMPGuest
from simulated_vm import GiB, MiB, SimulatedVM, STEP_S

HOST = budget.Host(64 * GiB, 48 * GiB, 4 * GiB)
LOW_HOST = budget.Host(64 * GiB, 12 * GiB, 4 * GiB)


class Tool(unittest.IsolatedAsyncioTestCase):
    """Half a second of the guests' time passes in each turn of the tool."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.log = []
        self.vms = []
        self.now = 0
        for name in ('INTERVAL', 'SHORT_INTERVAL'):
            patch = mock.patch.object(autosize, name, 0.02)
            patch.start()
            self.addCleanup(patch.stop)

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)

    def fake(self, name='a', **options):
        """Make a QEMU with a guest that is fond of memory."""
        vm = SimulatedVM(random.Random(1), largest=options.pop('largest',
                                                               4 * GiB))
        vm.late = 0
        vm.used = vm.target = 600 * MiB
        self.vms.append(vm)
        return FakeQEMU(vm, f'{self.directory}/{name}', **options)

    def pass_time(self, host):
        """Let time pass; return the host as it is then."""
        self.now += STEP_S
        for vm in self.vms:
            vm.step()
        return host

    def tool(self, *arguments, host=HOST):
        """Make the tool."""
        return autosize.Autosize(configure(arguments), QMPGuest,
                                 self.log.append,
                                 lambda keep: self.pass_time(host),
                                 lambda: self.now)

    @contextlib.asynccontextmanager
    async def running(self, *arguments, **options):
        """Run the tool; in the end it is stopped, and must not fail."""
        tool = self.tool(*arguments, **options)
        task = asyncio.create_task(tool.run())
        try:
            yield tool
        finally:
            tool.stop()
            await asyncio.wait_for(task, 30)

    async def until(self, condition):
        """Wait for what must happen."""
        for _ in range(3000):
            if condition():
                return
            await asyncio.sleep(0.01)
        self.fail(self.log)

    def said(self, words):
        """Tell whether the log has words."""
        return any(words in line for line in self.log)

    # Growing and shrinking

    async def test_guest_grows(self):
        async with self.fake() as qemu:
            async with self.running(qemu.path):
                qemu.vm.load(1500 * MiB, 10)
                await self.until(lambda: qemu.vm.plugged >= 1 * GiB)
            self.assertEqual(qemu.vm.killed, 0)
            self.assertTrue(self.said('shrinks are less safe'))
            self.assertTrue(self.said('grow 0 MiB -> 512 MiB: '))
            self.assertNotIn('resize-mode', dict(qemu.sets))

    async def test_limits_and_shares_are_kept(self):
        async with self.fake() as qemu:
            async with self.running(f'{qemu.path},min=256M,max=768M'):
                await self.until(lambda: qemu.vm.plugged == 256 * MiB)
                qemu.vm.load(3 * GiB, 30)
                await self.until(lambda: qemu.vm.killed)
            self.assertEqual(qemu.vm.wish, 768 * MiB)

    async def test_host_has_no_more(self):
        host = budget.Host(64 * GiB, 5 * GiB, 4 * GiB)
        async with self.fake() as qemu:
            with mock.patch('qmp_guest.resident', lambda pid: 600 * MiB):
                async with self.running('--verbose', qemu.path, host=host):
                    qemu.vm.load(1400 * MiB, 10)
                    await self.until(lambda: qemu.vm.used > 1300 * MiB)
                    await self.until(lambda: qemu.vm.now > 60)
            # Of 1 GiB, 424 MiB are promised, and 64 MiB are for QEMU.
            self.assertEqual(qemu.vm.plugged, 512 * MiB)
            self.assertTrue(self.said('the host has none'))

    # Jobs

    JOB = 'virtio-mem-autosize-vm0'

    async def test_shrinks_are_jobs(self):
        async with self.fake(jobs=True) as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            async with self.running(qemu.path):
                await self.until(lambda: qemu.vm.plugged < 3 * GiB)
            self.assertEqual(qemu.resizes[0], {
                'job_id': self.JOB, 'id': '/machine/peripheral/vm0',
                'size': 4 * GiB - 384 * MiB, 'mode': 'safe',
                'reserve': 256 * MiB, 'stall_timeout': 8})
            self.assertNotIn('requested-size', dict(qemu.sets))
            self.assertEqual(qemu.jobs, {})
            self.assertTrue(self.said('shrinks in mode safe'))
            self.assertTrue(self.said('(safe): '))

    async def test_growth_supersedes_a_job(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 1 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: vm.wish < vm.plugged)
                vm.load(1700 * MiB, 1)
                await self.until(lambda: vm.plugged > 1 * GiB)
                await self.until(lambda: not qemu.jobs)
            self.assertFalse(self.said('ended'))
            self.assertEqual(vm.killed, 0)

    async def test_job_that_gives_up_is_not_repeated_soon(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: self.said(
                    "ended: 'vm0' stays: guest-low-memory"))
                ended = vm.now
                self.assertEqual(vm.wish, 4 * GiB)
                await self.until(lambda: len(qemu.resizes) > 1)
                self.assertGreaterEqual(vm.now - ended, 50)
            self.assertFalse(self.said('gets no further'))

    async def test_end_cancels_a_job(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: vm.wish < vm.plugged)
            self.assertEqual(vm.wish, 4 * GiB)
            self.assertEqual(qemu.jobs, {})
            self.assertNotIn('requested-size', dict(qemu.sets))

    async def test_job_of_a_predecessor_ends(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.plugged = vm.unmovable = vm.wish = 1 * GiB
            qemu.do_memory_device_resize(job_id=self.JOB, size=0,
                                         stall_timeout=1000)
            async with self.running(qemu.path):
                await self.until(lambda: not qemu.jobs)
            self.assertEqual(vm.wish, 1 * GiB)
            self.assertTrue(self.said('settle'))

    async def test_job_of_another_is_left_alone(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = 4 * GiB
            qemu.jobs['mine'] = {'id': 'mine', 'status': 'concluded'}
            async with self.running(qemu.path):
                await self.until(lambda: vm.plugged < 4 * GiB)
                refused = LookupError("'vm0' is resized by job 'yours' already")
                qemu.do_memory_device_resize = mock.Mock(side_effect=refused)
                await self.until(lambda: self.said(
                    "left alone: memory-device-resize: 'vm0' is resized by"))
            self.assertEqual(list(qemu.jobs), ['mine'])

    # What is missing

    async def assert_left_alone(self, words, *arguments, **options):
        async with self.fake(**options) as qemu:
            async with self.running(qemu.path + ''.join(
                    f',{argument}' for argument in arguments)):
                await self.until(lambda: self.log)
            self.assertIn('left alone: ', self.log[0])
            self.assertIn(words, self.log[0])
            self.assertNotIn('requested-size', dict(qemu.sets))

    async def test_no_balloon(self):
        await self.assert_left_alone(
            '-device virtio-balloon-pci,free-page-reporting=on',
            balloon=False)

    async def test_no_reporting(self):
        await self.assert_left_alone('free-page-reporting=on',
                                     reporting=False)

    async def test_no_device(self):
        await self.assert_left_alone('-device virtio-mem-pci,id=vm0',
                                     devices=())

    async def test_several_devices(self):
        await self.assert_left_alone('device=vm0|vm1', devices=('vm0', 'vm1'))

    async def test_maximum_beyond_the_device(self):
        await self.assert_left_alone(
            'max=8192 MiB is more than its device has: 4096 MiB', 'max=8G')

    async def test_without_reporting(self):
        async with self.fake(reporting=False) as qemu:
            async with self.running('--without-reporting', qemu.path):
                await self.until(lambda: self.said('found'))

    async def test_guest_without_balloon_driver(self):
        async with self.fake() as qemu:
            with mock.patch.object(qemu.vm, '_tell'):
                async with self.running(qemu.path):
                    await self.until(lambda: self.said(
                        'reports no statistics'))
            self.assertEqual(qemu.vm.wish, 0)

    # Beginning and end

    async def test_dry_run_changes_nothing_in_the_end(self):
        async with self.fake() as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            async with self.running('--dry-run', qemu.path):
                await self.until(lambda: self.said('shrink 4096 MiB -> '))
            self.assertEqual(qemu.sets, [('guest-stats-polling-interval', 1),
                                         ('guest-stats-polling-interval', 0)])

    async def test_once_ends(self):
        async with self.fake('a') as busy, self.fake('b') as idle:
            busy.vm.used = busy.vm.target = 800 * MiB
            await asyncio.wait_for(
                self.tool('--once', busy.path, idle.path).run(), 30)
            self.assertEqual(busy.vm.plugged, 512 * MiB)
            self.assertEqual(idle.vm.wish, 0)

    async def test_end_settles(self):
        async with self.fake() as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: vm.wish < vm.plugged)
            self.assertEqual((vm.wish, vm.plugged), (4 * GiB, 4 * GiB))

    async def test_predecessor_that_was_killed(self):
        async with self.fake() as qemu:
            vm = qemu.vm
            vm.plugged = vm.unmovable = 1 * GiB
            async with self.running(qemu.path):
                await self.until(lambda: vm.wish == 1 * GiB)
            self.assertTrue(self.said('settle'))

    # Coming and going

    async def test_guest_comes_back(self):
        async with self.fake('a') as qemu, self.fake('b') as other:
            async with self.running(qemu.path, other.path):
                await self.until(lambda: self.said('a: found'))
                await qemu.go_away()
                await self.until(lambda: self.said('a: left alone'))
                self.log.clear()
                await qemu.come_back()
                await self.until(lambda: self.said('a: found'))
            self.assertFalse(self.said('b: '))

    async def test_absent_guest_is_said_once(self):
        async with self.fake('a') as qemu:
            async with self.running(qemu.path, f'{self.directory}/none'):
                await self.until(lambda: qemu.vm.now > 60)
        self.assertEqual(len([line for line in self.log
                              if 'none: left alone' in line]), 1)

    async def test_monitor_that_hangs_keeps_nothing_else(self):
        async with self.fake('a') as qemu, self.fake('b') as other:
            with mock.patch('qmp_guest.PATIENCE', 1):
                async with self.running(qemu.path, other.path):
                    await self.until(lambda: self.said('a: found'))
                    qemu.hangs = True
                    other.vm.load(900 * MiB, 1)
                    await self.until(lambda: other.vm.plugged)
                    await self.until(lambda: self.said('a: left alone'))


if __name__ == '__main__':
    virtio_mem_tap.main()
