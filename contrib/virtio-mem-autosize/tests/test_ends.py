# SPDX-License-Identifier: GPL-2.0-or-later
"""How virtio-mem-autosize ends, and what it leaves behind."""

import asyncio
from unittest import mock

import virtio_mem_tap
from simulated_vm import GiB, MiB
from tool_case import LOW_HOST, ToolCase


class Ends(ToolCase):

    async def test_dry_run_changes_nothing_in_the_end(self):
        async with self.fake() as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            async with self.running('--dry-run', qemu.path):
                await self.until(lambda: self.said('shrink 4096 MiB -> '))
            self.assertEqual(qemu.sets, [('guest-stats-polling-interval', 1),
                                         ('guest-stats-polling-interval', 0)])

    async def test_what_others_set_meanwhile_stays(self):
        async with self.fake() as qemu:
            async with self.running(qemu.path):
                await self.until(lambda: self.said('found'))
                qemu.properties['guest-stats-polling-interval'] = 5
            self.assertEqual(
                qemu.properties['guest-stats-polling-interval'], 5)

    async def once(self, *arguments, **options):
        """Return whether --once has nothing to complain about."""
        return await asyncio.wait_for(
            self.tool('--once', *arguments, **options).run(), 30)

    async def test_once_ends(self):
        async with self.fake('a') as busy, self.fake('b') as idle:
            busy.vm.used = busy.vm.target = 800 * MiB
            self.assertTrue(await self.once(busy.path, idle.path))
            self.assertEqual(busy.vm.plugged, 512 * MiB)
            self.assertEqual(idle.vm.wish, 0)

    async def test_once_waits_for_a_job(self):
        async with self.fake(jobs=True) as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            self.assertTrue(await self.once(qemu.path))
            self.assertFalse(self.said('the end'))
            self.assertEqual(len(qemu.resizes), 1)

    async def test_once_has_failed_without_a_guest(self):
        async with self.fake() as qemu:
            none = f'{self.directory}/none'
            self.assertFalse(await self.once(qemu.path, none))
        self.assertLess(self.now, 30)

    async def test_once_has_failed_without_statistics(self):
        async with self.fake() as qemu:
            qemu.vm._tell = lambda: None
            self.assertFalse(await self.once(qemu.path))
        self.assertLess(self.now, 30)

    async def test_once_has_failed_when_it_was_refused(self):
        def refuse(**_):
            raise LookupError('no')
        async with self.fake(jobs=True) as qemu:
            qemu.vm.wish = qemu.vm.plugged = 4 * GiB
            qemu.do_memory_device_resize = refuse
            with mock.patch('managed.FIRST_PAUSE', 0):
                self.assertFalse(await self.once(qemu.path))
        self.assertLess(self.now, 30)

    async def test_once_rescues_a_guest_that_it_shrinks(self):
        async with self.fake() as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = 4 * GiB
            vm.pace = 8 * MiB
            task = asyncio.create_task(self.once(qemu.path, host=LOW_HOST))
            await self.until(lambda: vm.wish < vm.plugged)
            shrunk = vm.wish
            vm.load(vm.available - 100 * MiB + vm.used, 1)
            await task
            self.assertGreater(vm.wish, shrunk)
            self.assertEqual((vm.wish, vm.killed), (4 * GiB, 0))

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

    async def test_end_finds_a_guest_again(self):
        def refuse():
            raise LookupError('not now')
        async with self.fake() as qemu:
            vm = qemu.vm
            vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            async with self.running(qemu.path, host=LOW_HOST):
                await self.until(lambda: vm.wish < vm.plugged)
                qemu.do_query_memory_size_summary = refuse
                await self.until(lambda: self.said('left alone'))
                del qemu.do_query_memory_size_summary
            self.assertEqual(vm.wish, 4 * GiB, self.log)

    async def test_what_others_ask_for_is_left_alone(self):
        async with self.fake() as qemu:
            vm = qemu.vm
            vm.plugged = vm.unmovable = 1 * GiB
            async with self.running(qemu.path):
                await self.until(lambda: self.said('found'))
            self.assertEqual(vm.wish, 0)
            self.assertTrue(self.said('not settled: others asked for'))

    async def test_end_while_it_connects(self):
        for command in ('query-memory-devices', 'qom-set', 'qom-list'):
            async with self.fake() as qemu:
                tool = self.tool(qemu.path)
                answer = qemu._answer

                async def answer_late(writer, message):
                    if message['execute'] == command:
                        tool.stop()
                        await asyncio.sleep(0.1)
                    await answer(writer, message)

                qemu._answer = answer_late
                await asyncio.wait_for(tool.run(), 30)
                await self.until(lambda: not qemu._writers)
                self.assertEqual(
                    qemu.properties['guest-stats-polling-interval'], 0)

    async def test_log_that_fails_ends_nothing(self):
        def log(line):
            self.log.append(line)
            raise OSError(28, 'No space left on device')
        async with self.fake('a') as one, self.fake('b') as two:
            vms = one.vm, two.vm
            for vm in vms:
                vm.wish = vm.plugged = vm.unmovable = 4 * GiB
            tool = self.tool(one.path, two.path, host=LOW_HOST, log=log)
            task = asyncio.create_task(tool.run())
            await self.until(lambda: all(vm.wish < vm.plugged for vm in vms))
            tool.stop()
            await asyncio.wait_for(task, 30)
            for qemu in one, two:
                self.assertEqual(qemu.vm.wish, 4 * GiB)
                self.assertEqual(qemu.sets[-1],
                                 ('guest-stats-polling-interval', 0))


if __name__ == '__main__':
    virtio_mem_tap.main()
