# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-mem-autosize against simulated domains of libvirt."""

import asyncio
import sys
from unittest import mock

import fake_libvirt
import virtio_mem_tap
from simulated_vm import GiB, MiB
from tool_case import LOW_HOST, ToolCase

sys.modules['libvirt'] = fake_libvirt
from libvirt_guest import LibvirtGuest                  # noqa: E402


class Libvirt(ToolCase):

    GUEST = LibvirtGuest

    def setUp(self):
        super().setUp()
        fake_libvirt.domains.clear()

    def domain(self, name='a', **options):
        """Make a domain with a guest that is fond of memory."""
        domain = fake_libvirt.domains[name] = fake_libvirt.Domain(
            self.vm(), **options)
        return domain

    def running(self, *arguments, **options):
        """Run the tool."""
        return super().running('--connect', 'qemu:///system', *arguments,
                               **options)

    async def test_domain_grows(self):
        domain = self.domain()
        async with self.running('a'):
            domain.vm.load(1500 * MiB, 10)
            await self.until(lambda: domain.vm.plugged >= 1 * GiB)
            self.assertEqual(domain.period, 1)
        self.assertEqual(domain.vm.killed, 0)
        self.assertTrue(self.said('a: grow 0 MiB -> '))
        self.assertTrue(self.said('shrinks are less safe'))
        self.assertEqual(domain.period, 7)

    async def test_period_that_others_set_meanwhile_stays(self):
        domain = self.domain()
        async with self.running('a'):
            await self.until(lambda: self.said('found'))
            domain.period = 5
        self.assertEqual(domain.period, 5)

    async def test_domain_shrinks(self):
        domain = self.domain(override=fake_libvirt.SAFE)
        domain.vm.wish = domain.vm.plugged = 4 * GiB
        async with self.running('a', host=LOW_HOST):
            await self.until(lambda: domain.vm.plugged < 3 * GiB)
        self.assertTrue(self.said('shrinks in mode safe'))
        self.assertGreaterEqual(domain.vm.wish, domain.vm.plugged)

    async def test_domain_that_is_shut_down_and_started(self):
        one, two = self.domain('a'), self.domain('b')
        for domain in one, two:
            domain.vm.wish = domain.vm.plugged = domain.vm.unmovable = 4 * GiB
        async with self.running('a', 'b', host=LOW_HOST) as tool:
            await self.until(lambda: all(
                domain.vm.wish < domain.vm.plugged for domain in (one, two)))
            one.runs = False
            await self.until(lambda: self.said('a: left alone: it does not'))
            self.assertIsNone(tool._managed[0].claim(False))
            one.runs = True
            await self.until(lambda: self.count('a: found') == 2)
        self.assertEqual(two.vm.wish, 4 * GiB)
        self.assertFalse(self.said('b: left alone'))

    async def test_libvirt_that_hangs(self):
        domain, other = self.domain('a'), self.domain('b')
        with mock.patch('blocking.PATIENCE', 0.3):
            async with self.running('a', 'b') as tool:
                await self.until(lambda: self.count('found') >= 2)
                domain.answers.clear()
                await self.until(lambda: self.said('a: left alone: no answer '
                                                   'from libvirt'))
                # It may still take all that it was granted.
                claim = tool._managed[0].claim(False)
                self.assertEqual((claim.granted, claim.resident),
                                 (1 * GiB, 0))
                await self.until(lambda: self.said('still does not answer'))
                other.vm.load(900 * MiB, 1)
                await self.until(lambda: other.vm.plugged)
        domain.answers.set()

    async def test_libvirt_that_hangs_in_the_end(self):
        domain = self.domain()
        with mock.patch('blocking.PATIENCE', 0.3):
            async with self.running('a'):
                await self.until(lambda: self.said('found'))
                domain.answers.clear()
        domain.answers.set()

    async def test_libvirt_that_is_asked_when_the_end_comes(self):
        domain = self.domain()
        vm = domain.vm
        vm.wish = vm.plugged = vm.unmovable = 4 * GiB
        async with self.running('a', host=LOW_HOST) as tool:
            await self.until(lambda: vm.wish < vm.plugged)
            domain.answers.clear()
            await self.until(lambda: domain.is_asked)
            tool.stop()
            await asyncio.sleep(0.1)
            domain.answers.set()
        self.assertEqual(vm.wish, 4 * GiB, self.log)

    async def test_domain_that_is_not_there_any_more(self):
        self.domain()
        async with self.running('a') as tool:
            await self.until(lambda: self.said('found'))
            domain = fake_libvirt.domains.pop('a')
            self.assertTrue(tool._managed[0].claim(True))
            domain.isActive = fake_libvirt.gone
            await self.until(lambda: not tool._managed[0].claim(True))

    async def test_refusal(self):
        domain = self.domain()
        domain.refuses = 'a job is active'
        domain.vm.used = domain.vm.target = 800 * MiB
        async with self.running('a'):
            await self.until(lambda: domain.vm.now > 20)
            self.assertEqual(self.log[1:],
                             ['a: grow was refused: a job is active'])
            domain.refuses = None
            await self.until(lambda: domain.vm.plugged)

    # What is missing

    async def assert_left_alone(self, words, *arguments, **options):
        domain = self.domain(**options)
        async with self.running(*arguments or ('a',)):
            await self.until(lambda: self.log)
        self.assertIn('left alone: ', self.log[0])
        self.assertIn(words, self.log[0])
        self.assertEqual((domain.vm.wish, domain.period), (0, 7))

    async def test_no_domain(self):
        await self.assert_left_alone("Domain not found: 'b'", 'b')

    async def test_no_device(self):
        await self.assert_left_alone("add: <memory model='virtio-mem'>",
                                     devices=())

    async def test_several_devices(self):
        await self.assert_left_alone('device=ua-vm0|ua-vm1',
                                     devices=('ua-vm0', 'ua-vm1'))

    async def test_no_balloon(self):
        await self.assert_left_alone("add: <memballoon model='virtio'",
                                     balloon="<memballoon model='none'/>")

    async def test_no_reporting(self):
        await self.assert_left_alone("freePageReporting='on'",
                                     balloon="<memballoon model='virtio'/>")

    async def test_maximum_beyond_the_device(self):
        await self.assert_left_alone('max=8192 MiB is more', 'a,max=8G')

    async def test_one_of_several_devices(self):
        domain = self.domain(devices=('ua-vm0', 'ua-vm1'))
        async with self.running('a,device=ua-vm1'):
            domain.vm.load(900 * MiB, 10)
            await self.until(lambda: domain.vm.plugged)


if __name__ == '__main__':
    virtio_mem_tap.main()
