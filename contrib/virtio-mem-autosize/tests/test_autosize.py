# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mem-autosize against monitors of simulated guests."""

import contextlib
import socket
from unittest import mock

import autosize
import budget
import qmp_guest
import virtio_mem_tap
from fake_qemu import FakeQEMU
from simulated_vm import GiB, MiB
from tool_case import ToolCase


class Tool(ToolCase):

    # Growing and shrinking

    async def test_guest_grows(self):
        async with self.fake() as qemu:
            async with self.running(qemu.path):
                qemu.vm.load(1500 * MiB, 10)
                await self.until(lambda: qemu.vm.plugged >= 1 * GiB)
            self.assertEqual(qemu.vm.killed, 0)
            self.assertTrue(self.said('shrinks are less safe'))
            self.assertTrue(self.said('grow 0 MiB -> '))
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

    async def test_same_qemu_by_two_monitors(self):
        async with self.fake('a') as one, self.fake('b') as two:
            with mock.patch.object(qmp_guest.QMPGuest, 'process',
                                   lambda guest: 1):
                async with self.running(one.path, two.path):
                    await self.until(lambda: self.said('it is the same QEMU'))
                    await self.until(lambda: two.vm.now > 60)
        self.assertEqual(self.count('found'), 1)
        self.assertEqual(self.count('same QEMU'), 1)

    async def test_limits_that_fit_no_block(self):
        for limits in ('min=3M,max=3M', 'max=1M'):
            self.log.clear()
            await self.assert_left_alone('is a multiple of its block size',
                                         limits)

    async def test_unit_beyond_the_device(self):
        await self.assert_left_alone('unit=8192 MiB is more than', 'unit=8G')

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
            with mock.patch('qmp_guest.PATIENCE', 0.5):
                async with self.running(qemu.path, other.path):
                    await self.until(lambda: self.said('a: found'))
                    qemu.hangs = True
                    other.vm.load(900 * MiB, 1)
                    await self.until(lambda: other.vm.plugged)
                    await self.until(lambda: self.said('a: left alone'))

    @contextlib.contextmanager
    def listener(self, sock, address):
        """Listen, and accept nobody, as a QEMU that hangs; the queue is full.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(sock)
            sock.bind(address)
            sock.listen(0)
            for _ in range(3):
                client = stack.enter_context(socket.socket(sock.family))
                client.setblocking(False)
                client.connect_ex(sock.getsockname())
            yield sock

    async def assert_serves_others(self, address, words=None):
        """One that cannot be reached keeps others from nothing."""
        with mock.patch('qmp_guest.PATIENCE', 3600):
            async with self.fake('b') as other:
                async with self.running(other.path, address):
                    if words:
                        await self.until(lambda: self.said(words))
                    await self.until(lambda: self.said('b: found'))
                    other.vm.load(900 * MiB, 1)
                    await self.until(lambda: other.vm.plugged)
                    self.assertEqual(self.said('left alone'), bool(words))

    async def test_socket_that_is_in_use(self):
        path = f'{self.directory}/in-use'
        with self.listener(socket.socket(socket.AF_UNIX), path):
            await self.assert_serves_others(path, 'the monitor is in use')

    async def test_port_where_nothing_answers(self):
        with self.listener(socket.socket(), ('127.0.0.1', 0)) as sock:
            await self.assert_serves_others(
                f'127.0.0.1:{sock.getsockname()[1]}')

    @staticmethod
    def free_port():
        """Return an address where nothing listens."""
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            return f'127.0.0.1:{sock.getsockname()[1]}'

    async def test_guest_by_port(self):
        """It is believed what it does not use, but not more than it has."""
        async with FakeQEMU(self.vm(), self.free_port()) as qemu:
            vm = qemu.vm
            async with self.running(qemu.path) as tool:
                vm.load(900 * MiB, 1)
                await self.until(lambda: vm.plugged and vm.now > 20)
                claim = tool._managed[0].claim(True)
                self.assertEqual(claim.granted, vm.boot + vm.plugged)
                self.assertLess(claim.resident, claim.granted)
                # What is read later may have given all of it back.
                self.assertEqual(tool._managed[0].claim(False).resident, 0)
                vm.report = vm.report._replace(free=1 << 50, made=vm.now)
                vm._tell = lambda: None
                await self.until(lambda: tool._managed[0].claim(
                    True).resident == 0)

    async def test_port_where_nothing_listens(self):
        address = self.free_port().replace('127.0.0.1', 'localhost')
        async with self.running(address):
            await self.until(lambda: self.said('left alone'))

    async def test_port_whose_qemu_has_ended(self):
        async with FakeQEMU(self.vm(), self.free_port()) as qemu:
            async with self.running(qemu.path) as tool:
                await self.until(lambda: self.said('found'))
                self.assertTrue(tool._managed[0].claim(True))
                await qemu.go_away()
                await self.until(lambda: not tool._managed[0].claim(True))

    async def test_monitor_that_hangs_when_it_is_asked(self):
        async with self.fake('a') as qemu, self.fake('b') as other:
            answer = qemu._answer

            async def hang(writer, message):
                if message.get('arguments', {}).get(
                        'property') != 'requested-size':
                    await answer(writer, message)

            qemu._answer = hang
            qemu.vm.used = qemu.vm.target = 800 * MiB
            with mock.patch('qmp_guest.PATIENCE', 3600):
                async with self.running(qemu.path, other.path):
                    await self.until(lambda: other.vm.now > 20)
                    other.vm.load(900 * MiB, 1)
                    await self.until(lambda: other.vm.plugged)

    async def test_answer_that_makes_no_sense(self):
        async with self.fake('a') as qemu, self.fake('b') as other:
            qemu._stats = lambda: {'stats': 3}
            async with self.running(qemu.path, other.path):
                await self.until(lambda: self.said('a: left alone'))
                other.vm.load(900 * MiB, 1)
                await self.until(lambda: other.vm.plugged)

    async def test_events_are_forgotten(self):
        clients = []

        class Client(qmp_guest.QMPClient):
            """Is known to this test."""

            def __init__(self, *arguments):
                super().__init__(*arguments)
                clients.append(self)

        async with self.fake() as qemu:
            with mock.patch('qmp_guest.QMPClient', Client):
                async with self.running(qemu.path):
                    await self.until(lambda: self.said('found'))
                    for writer in qemu._writers:
                        qemu._send(writer, {
                            'event': 'RTC_CHANGE', 'data': {'offset': 1},
                            'timestamp': {'seconds': 1, 'microseconds': 2}})
                    await self.until(lambda: clients[0].events.history)
                    await self.until(clients[0].events.empty)
                    self.assertLess(len(clients[0].events.history), 9)

    async def test_guest_that_stops_reporting(self):
        async with self.fake() as qemu:
            async with self.running(qemu.path):
                await self.until(lambda: qemu.vm.now > 5)
                qemu.vm._tell = lambda: None
                await self.until(lambda: self.said(
                    'reports no statistics any more'))

    async def test_statistics_that_others_ended_begin_again(self):
        async with self.fake() as qemu:
            interval = 'guest-stats-polling-interval'
            async with self.running(qemu.path):
                await self.until(lambda: qemu.vm.now > 5)
                qemu.properties[interval] = 0
                await self.until(lambda: qemu.properties[interval] == 1)
            self.assertEqual(qemu.properties[interval], 0)

    # The host's memory is spent once

    async def spend(self, host, gone):
        """Let one guest take what there is and go; the other wants it, too.

        Return what both were asked for.
        """
        with mock.patch('qmp_guest.resident', lambda pid: 1088 * MiB):
            async with self.fake('a') as one, self.fake('b') as two:
                async with self.running('--verbose', one.path, two.path,
                                        host=host):
                    await self.until(lambda: self.count('found') >= 2)
                    answer = one._answer

                    async def answer_once(writer, message):
                        await answer(writer, message)
                        if one.vm.wish:
                            one.hangs = True

                    one._answer = answer_once
                    one.vm.load(900 * MiB, 1)
                    await self.until(lambda: one.hangs and (
                        not gone or self.said('a: left alone')))
                    two.vm.load(900 * MiB, 1)
                    await self.until(lambda: two.vm.wish or
                                     self.said('the host has no'))
                    await self.until(lambda: two.vm.now > 60)
                    one.hangs = False
                    return one.vm.wish + two.vm.wish

    async def test_what_one_was_asked_for_is_not_for_another(self):
        host = budget.Host(64 * GiB, 4608 * MiB, 4 * GiB)
        with mock.patch('qmp_guest.PATIENCE', 3):
            self.assertEqual(await self.spend(host, False), 512 * MiB)

    async def test_guest_that_hangs_keeps_what_it_has(self):
        host = budget.Host(64 * GiB, 4608 * MiB, 4 * GiB)
        with mock.patch('qmp_guest.PATIENCE', 0.3):
            self.assertEqual(await self.spend(host, True), 512 * MiB)

    async def test_guest_that_has_ended_keeps_nothing(self):
        async with self.fake() as qemu:
            async with self.running(qemu.path) as tool:
                await self.until(lambda: self.said('found'))
                await qemu.go_away()
                await self.until(lambda: self.said('left alone'))
                self.assertTrue(tool._managed[0].claim(False))
                with mock.patch('qmp_guest.started', lambda pid: None):
                    self.assertIsNone(tool._managed[0].claim(False))

    def test_memory_of_this_host(self):
        host = autosize.host_memory(None)
        self.assertTrue(0 < host.available < host.total)
        self.assertEqual(host.keep, host.total // 10)
        self.assertEqual(autosize.host_memory(1).keep, 1)

    async def test_denied_growth_is_said(self):
        host = budget.Host(64 * GiB, 4 * GiB, 4 * GiB)
        async with self.fake() as qemu:
            qemu.vm.used = qemu.vm.target = 800 * MiB
            async with self.running(qemu.path, host=host):
                await self.until(lambda: self.said('the host has none'))
                await self.until(lambda: qemu.vm.now > 20)
        self.assertEqual(self.count('the host has none'), 1)


if __name__ == '__main__':
    virtio_mem_tap.main()
