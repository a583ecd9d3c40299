# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mem-autosize where shrinks are jobs."""

from unittest import mock

import virtio_mem_tap
from simulated_vm import GiB, MiB
from tool_case import LOW_HOST, ToolCase


class Jobs(ToolCase):

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

    async def test_concluded_job_of_another_is_left_alone(self):
        async with self.fake(jobs=True) as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            qemu.jobs['mine'] = {'id': 'mine', 'status': 'concluded'}
            async with self.running(qemu.path):
                await self.until(lambda: qemu.vm.plugged < 4 * GiB)
        self.assertEqual(list(qemu.jobs), ['mine'])

    async def test_running_job_of_another_is_left_alone(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            qemu.do_memory_device_resize(job_id='mine', size=0,
                                         stall_timeout=1000)
            async with self.running(qemu.path, host=LOW_HOST):
                # The law would have ended it.
                await self.until(lambda: vm.now > 30)
            self.assertEqual(qemu.jobs['mine']['status'], 'running')
            self.assertEqual(vm.wish, 0)
            self.assertEqual(self.count("job 'mine' resizes it"), 1)
            self.assertTrue(self.said('not settled: others'))

    async def test_refusal_is_said_once_and_repeated_seldom(self):
        refusing = mock.Mock(side_effect=LookupError('in no mood'))
        async with self.fake(jobs=True) as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            qemu.do_memory_device_resize = refusing
            async with self.running(qemu.path):
                await self.until(lambda: qemu.vm.now > 150)
        self.assertEqual(len(self.log), 2, self.log)
        self.assertIn('shrink was refused: memory-device-resize: in no mood',
                      self.log[1])
        self.assertLess(refusing.call_count, 12)

    async def test_job_that_watches_is_not_over(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = 4 * GiB
            vm.pace = 40 * MiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: len(qemu.resizes) > 5)
        self.assertFalse(self.said('refused') or self.said('left alone'))

    async def test_each_shrink_is_a_line(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: len(qemu.resizes) > 2)
        self.assertEqual(self.count(': shrink '), len(qemu.resizes))

    async def test_dry_run_forgets_no_job(self):
        async with self.fake(jobs=True) as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = 4 * GiB
            qemu.jobs[self.JOB] = {'id': self.JOB, 'status': 'concluded',
                                   'error': 'why'}
            async with self.running('--dry-run', qemu.path):
                await self.until(lambda: self.said(': shrink '))
        self.assertEqual(list(qemu.jobs), [self.JOB])
        self.assertFalse(self.said('why'))


if __name__ == '__main__':
    virtio_mem_tap.main()
