#!/usr/bin/python3
"""virtio-mem as libvirt's users have it: XML, virsh, virt-install.

SPDX-License-Identifier: GPL-2.0-or-later

The commands are those of the users' page.
"""

import contextlib
import itertools
import json
import subprocess
import unittest

import virtio_mem_autosize
import virtio_mem_busy as busy
import virtio_mem_libvirt
import virtio_mem_parts as parts
import virtio_mem_pattern as pattern
import virtio_mem_tap
import virtio_mem_tools
from virtio_mem_architectures import X86_64
from virtio_mem_guest import GiB, KERNEL_OPTIONS, MiB
from virtio_mem_host import HostError, HugePages
from virtio_mem_libvirt import (Domain, Libvirt, LibvirtError, memory_xml,
                                override_xml)

SIZE = 2 * GiB
EVENT = 'VIRTIO_MEM_UNPLUGGED_ACCESS'
SHARED = '''
    <memoryBacking>
      <source type='memfd'/>
      <access mode='shared'/>
    </memoryBacking>'''
IMMEDIATE = '''
    <memoryBacking>
      <allocation mode='immediate'/>
    </memoryBacking>'''
NODE_0 = '<source><nodemask>0</nodemask></source>'
HUGE = "<source><pagesize unit='MiB'>2</pagesize></source>"
DISK = '''
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{}'/>
      <target dev='vda' bus='virtio'/>
    </disk>'''


class LibvirtTest(unittest.TestCase):
    """Each case has a domain of its own; one daemon serves all."""

    libvirt = None
    # What another libvirt than the host's is called.
    needs = ()
    # What cases run beside QEMU.
    programs = ()
    architecture = X86_64

    def setUp(self):
        troubles = [*parts.troubles_of(*self.architecture.machine_parts,
                                       *self.architecture.guest_parts(),
                                       *self.needs),
                    *virtio_mem_libvirt.troubles(),
                    *virtio_mem_tools.troubles(*self.programs)]
        if troubles:
            self.skipTest('; '.join(troubles))
        if not self.libvirt:
            type(self).libvirt = self.daemon().__enter__()
            self.addClassCleanup(self.libvirt.close)

    def daemon(self):
        """Return one more daemon, to be started."""
        return Libvirt(*map(parts.part, self.needs))

    @contextlib.contextmanager
    def defined(self, devices=memory_xml(SIZE), **options):
        """Define a domain; a running Linux must have no complaints."""
        with Domain(self.libvirt, devices=devices,
                    architecture=self.architecture, **options) as domain:
            try:
                yield domain
                if domain.virsh('domstate') == 'running':
                    self.assertEqual(domain.complaints(), [])
            except BaseException:
                for line in self.libvirt.logs().splitlines()[-15:]:
                    print(f'# libvirt: {line}')
                raise

    @contextlib.contextmanager
    def started(self, *args, **options):
        """Define and start a domain."""
        with self.defined(*args, **options) as domain:
            domain.start()
            yield domain

    def check_resizes(self, domain):
        """Grow and shrink; guest, QEMU and libvirt must agree each time."""
        for size in (1 * GiB, 642 * MiB, 0):
            domain.resize(size)
            device = domain.devices()[domain.DEVICE]
            self.assertEqual(device['requested'], size)
            self.assertEqual(device['current'], size)

    def check_start_and_resizes(self):
        """A domain is what its description says, and resizes."""
        with self.started() as domain:
            self.assertEqual(domain.devices(), {domain.DEVICE: {
                'size': SIZE, 'block': 2 * MiB, 'requested': 0, 'current': 0,
                'node': 0}})
            self.assertEqual(int(domain.xml().find('memory').text) << 10,
                             512 * MiB + SIZE)
            self.check_resizes(domain)

    def assert_refused(self, message, command, *args, **options):
        """libvirt must refuse a command with this message."""
        with self.assertRaises(LibvirtError) as caught:
            command(*args, **options)
        self.assertIn(message, str(caught.exception))


class VirtioMemLibvirt(LibvirtTest):
    """What the users' page does, and what else users might."""

    libvirt = None
    programs = ('qemu-img',)

    # Starting

    def test_domain_starts_as_described_and_resizes(self):
        self.check_start_and_resizes()

    def test_requested_size_is_plugged_at_start(self):
        with self.started(memory_xml(SIZE, requested=512 * MiB)) as domain:
            domain.wait_current(512 * MiB)
            domain.resize(256 * MiB)

    def test_larger_blocks_are_kept(self):
        device = memory_xml(SIZE, block=64 * MiB)
        with self.started(device) as domain:
            self.assertEqual(domain.device_info()['block-size'], 64 * MiB)
            self.assert_refused('integer multiple of block size',
                                domain.request, 98 * MiB)
            domain.resize(256 * MiB)

    def test_config_changes_what_the_domain_starts_with(self):
        with self.defined() as domain:
            domain.virsh('update-memory-device', '--config',
                         '--requested-size', '512MiB')
            domain.start()
            domain.wait_current(512 * MiB)
            domain.virsh('update-memory-device', '--config',
                         '--requested-size', '1GiB')
            self.assertEqual(domain.device_info()['requested-size'],
                             512 * MiB)
            self.assertEqual(domain.devices('--inactive')[0]['requested'],
                             1 * GiB)

    def test_current_is_what_the_domain_is_now(self):
        def update(domain, *options):
            return domain.virsh('update-memory-device', *options)

        def requested(domain, *options):
            device, = domain.devices(*options).values()
            return device['requested']

        with self.defined() as domain:
            update(domain, '--current', '--requested-size', '256MiB')
            self.assertEqual(requested(domain), 256 * MiB)
            domain.virsh('start', '--paused')
            update(domain, '--current', '--requested-size', '512MiB')
            self.assertEqual(requested(domain), 512 * MiB)
            self.assertEqual(requested(domain, '--inactive'), 256 * MiB)
            self.assertEqual(domain.device_info()['requested-size'],
                             512 * MiB)
            self.assertIn('<requested unit="KiB">1048576</requested>', update(
                domain, '--print-xml', '--requested-size', '1GiB').replace(
                    "'", '"'))
            self.assertEqual(requested(domain), 512 * MiB)
            with self.live_and_config_fail():
                update(domain, '--live', '--config', '--requested-size',
                       '128MiB')
                self.assertEqual(requested(domain), 128 * MiB)
                self.assertEqual(requested(domain, '--inactive'), 128 * MiB)

    def live_and_config_fail(self):
        """libvirt 9.0 does not say to QEMU which device it means."""
        return self.assertRaisesRegex(LibvirtError, r'peripheral/\(null\)')

    def qemu_property(self, domain, name):
        """Return what QEMU has for a property of the device."""
        return domain.vm.cmd('qom-get', property=name,
                             path=f'/machine/peripheral/{domain.DEVICE}')

    def test_immediate_allocation_is_of_what_is_plugged(self):
        with self.defined(backing=IMMEDIATE, cells=(64 * MiB,)) as domain:
            domain.virsh('start', '--paused')
            self.assertTrue(self.qemu_property(domain, 'prealloc'))

    def check_node_of_the_host(self, **options):
        """QEMU is told where the memory shall be, and obeys or says why not."""
        device = memory_xml(SIZE, source=NODE_0)
        with self.defined(device, **options) as domain:
            told = self.libvirt.virsh('domxml-to-native', 'qemu-argv',
                                      '--domain', domain.name)
            self.assertIn('"host-nodes":[0],"policy":"bind"', told)
            try:
                domain.virsh('start', '--paused')
            except LibvirtError as error:
                # Built without libnuma.
                self.assertIn('NUMA node binding are not supported by this '
                              'QEMU', str(error))
                return
            self.assertIn(('bind', [0]), [
                (memdev['policy'], memdev['host-nodes'])
                for memdev in domain.vm.cmd('query-memdev')])

    def test_memory_comes_from_a_node_of_the_host(self):
        self.check_node_of_the_host()

    def test_memfd_resizes(self):
        with self.started(backing=SHARED) as domain:
            backend = domain.vm.cmd('query-memdev')
            self.assertEqual({memdev['share'] for memdev in backend}, {True})
            self.check_resizes(domain)

    @contextlib.contextmanager
    def huge_pages(self, size):
        """Let the host have so many huge pages for a domain."""
        try:
            with HugePages().pool(size // (2 * MiB)) as pool:
                yield pool
        except HostError as error:
            self.skipTest(str(error))

    def test_huge_pages_go_back_to_the_pool(self):
        with self.huge_pages(1 * GiB) as pool:
            with self.started(memory_xml(1 * GiB, source=HUGE)) as domain:
                self.assertEqual(pool.available(), 512)
                domain.resize(512 * MiB)
                self.assertEqual(pool.available(), 256)
                domain.resize(128 * MiB)
                self.assertEqual(pool.available(), 448)
            self.assertEqual(pool.available(), 512)

    def test_domain_waits_for_huge_pages(self):
        with self.huge_pages(128 * MiB) as pool:
            with self.started(memory_xml(1 * GiB, source=HUGE)) as domain:
                domain.request(512 * MiB)
                domain.wait_current(128 * MiB)
                # A guest that asks again meanwhile would get half of it.
                domain.virsh('suspend')
                pool.make_available(192)
                domain.virsh('resume')
                domain.wait_current(512 * MiB)

    # Several devices

    def test_alias_chooses_the_device(self):
        with self.started(memory_xml(SIZE) * 2) as domain:
            self.assert_refused(
                'multiple memory devices found, use --alias or --node to '
                'select one', domain.virsh, 'update-memory-device',
                '--requested-size', '512MiB')
            domain.resize(512 * MiB, 'virtiomem1')
            self.assertEqual(domain.current('virtiomem0'), 0)

    def test_node_chooses_the_device(self):
        devices = memory_xml(SIZE) + memory_xml(SIZE, node=1)
        cells = (256 * MiB, 256 * MiB)
        with self.started(devices, cells=cells) as domain:
            booted = domain.node_total(1)
            total = domain.mem_total()
            domain.virsh('update-memory-device', '--node', 1,
                         '--requested-size', '512MiB')
            domain.wait_current(512 * MiB, 'virtiomem1')
            domain.wait_mem_total(total + 512 * MiB)
            self.assertEqual(domain.current('virtiomem0'), 0)
            self.assertEqual(domain.node_total(1), booted + 512 * MiB)

    def test_attached_device_resizes_and_is_detached(self):
        with self.started() as domain:
            booted = domain.mem_total()
            domain.virsh_text(memory_xml(1 * GiB, requested=256 * MiB),
                              'attach-device', domain.name, '-')
            domain.wait_current(256 * MiB, 'virtiomem1')
            domain.wait_mem_total(booted + 256 * MiB)
            domain.resize(512 * MiB, 'virtiomem1')
            domain.resize(0, 'virtiomem1')
            # Its description must be what the device is now.
            domain.virsh_text(domain.description('virtiomem1'),
                              'detach-device', domain.name, '-')
            domain.wait_detached('virtiomem1')
            domain.resize(256 * MiB)

    def test_device_in_use_is_not_detached(self):
        with self.started() as domain:
            domain.resize(256 * MiB)
            self.assert_refused(
                'virtio-mem device cannot get unplugged while some of its '
                'memory is still plugged', domain.virsh,
                'detach-device-alias', domain.DEVICE)
            domain.resize(0)
            domain.virsh('detach-device-alias', domain.DEVICE)
            domain.wait_detached(domain.DEVICE)

    # Watching

    def test_event_tells_a_new_size(self):
        with self.started() as domain:
            with self.libvirt.popen(
                    'virsh', 'event', domain.name,
                    'memory-device-size-change', '--timeout', '60') as client:
                # It does not say when it has begun to listen.
                sizes = itertools.cycle((256 * MiB, 128 * MiB))
                while client.poll() is None:
                    domain.resize(next(sizes))
                told, _ = client.communicate()
        self.assertRegex(told, "event 'memory-device-size-change' for domain "
                               f"'{domain.name}':\n"
                               f'alias: {domain.DEVICE}\n'
                               r'size: \d+')

    def test_use_of_unplugged_memory_is_told(self):
        trouble = parts.guard_trouble()
        if trouble:
            self.skipTest(trouble)
        protect = override_xml(Domain.DEVICE, protect_unplugged='on')
        with self.started(override=protect) as domain:
            device = domain.device_info()
            self.assertTrue(device['protected'])
            domain.ask('rmmod virtio_mem')
            with self.libvirt.popen(
                    'virsh', 'qemu-monitor-event', domain.name, '--event',
                    EVENT, '--timeout', '60') as client:
                # It does not say when it has begun to listen.
                address = device['memaddr']
                while client.poll() is None:
                    domain.ask(f'devmem {address:#x} 32 0xdeadbeef')
                    address += device['block-size']
                told, _ = client.communicate()
            self.assertRegex(told, f"event {EVENT} at .* for domain "
                                   f"'{domain.name}': ")
            data = json.loads(told[told.index('{'):told.rindex('}') + 1])
            self.assertEqual(data['id'], domain.DEVICE)
            self.assertTrue(data['write'])
            self.assertIn(data['address'], range(device['memaddr'], address,
                                                 device['block-size']))
            domain.ask('modprobe virtio_mem')
            domain.resize(256 * MiB)

    def test_statistics_follow_the_plugged_size(self):
        with self.started() as domain:
            domain.ask('modprobe virtio_balloon')
            domain.virsh('dommemstat', '--period', 1, '--live')
            booted = domain.wait_statistics(0)['available']
            domain.resize(1 * GiB)
            grown = domain.wait_statistics(booted + 1 * GiB)
            self.assertEqual(grown['available'], booted + 1 * GiB)
            self.assertGreater(grown['unused'], 1 * GiB)

    @virtio_mem_tap.slow
    def test_autosize_resizes_a_domain(self):
        def autosize(domain):
            return self.libvirt.run(*virtio_mem_autosize.command(
                '--once', '--host-free', '1M', '--without-reporting',
                '--connect', 'qemu:///system', f'{domain},min=256M'))

        with self.started() as domain:
            domain.ask('modprobe virtio_balloon')
            self.assertIn('guest: grow 0 MiB -> 256 MiB: below its minimum',
                          autosize(domain.name))
            domain.wait_current(256 * MiB)
            domain.resize(2 * GiB)
            self.assertIn('guest: shrink 2048 MiB -> ', autosize(domain.name))
            self.assertLess(domain.current(), 2 * GiB)
            device = domain.devices()[domain.DEVICE]
            self.assertGreaterEqual(device['requested'], device['current'])

    @virtio_mem_tap.slow
    def test_one_property_makes_a_shrink_harmless(self):
        nb_hogs = 6
        safe = override_xml(Domain.DEVICE, resize_mode='safe')
        with self.started(override=safe) as domain:
            domain.ask('modprobe virtio_balloon')
            domain.resize(SIZE)
            busy.start(domain, nb_hogs)
            domain.request(0)
            busy.wait_status(domain, 'waiting', 'guest-low-memory')
            self.assertEqual(busy.oom_kills(domain), 0)
            self.assertEqual(busy.count(domain), nb_hogs)
            domain.wait_current(domain.device_info()['size'])
            # The wish stands, so it goes on when there is more to spare.
            busy.end(domain, nb_hogs)
            domain.wait_plugged(0, domain.DEVICE)
            domain.wait_current(0)

    # Stopping and going on

    def check_kept(self, domain, move):
        """Save and restore a domain; it must notice nothing."""
        domain.resize(768 * MiB)
        pattern.write(domain, 2)
        total = domain.mem_total()
        move()
        domain.connect()
        self.assertEqual(domain.current(), 768 * MiB)
        self.assertEqual(domain.mem_total(), total)
        self.assertEqual(pattern.damaged_files(domain, 2), [])
        pattern.erase(domain)
        domain.resize(1 * GiB)
        domain.resize(0)

    def test_restored_domain_keeps_its_memory(self):
        with self.started() as domain:
            def move():
                domain.virsh('save', domain.path('saved'))
                self.assertEqual(domain.virsh('domstate'), 'shut off')
                self.libvirt.virsh('restore', domain.path('saved'))

            self.check_kept(domain, move)

    @virtio_mem_tap.slow
    def test_migrated_domain_keeps_its_memory(self):
        with self.daemon() as other, self.started() as domain:
            self.check_kept(domain, lambda: domain.migrate(other))

    @virtio_mem_tap.slow
    def test_managed_save_keeps_memory(self):
        with self.started() as domain:
            def move():
                domain.virsh('managedsave')
                self.assertEqual(domain.virsh('domstate'), 'shut off')
                domain.virsh('start')

            self.check_kept(domain, move)

    @virtio_mem_tap.slow
    def test_snapshot_brings_size_and_memory_back(self):
        image = self.libvirt.path('snapshot.qcow2')
        subprocess.run([virtio_mem_tools.tool('qemu-img'), 'create', '-q',
                        '-f', 'qcow2', image, '1M'], check=True)
        with self.started(memory_xml(SIZE) + DISK.format(image)) as domain:
            domain.resize(768 * MiB)
            pattern.write(domain, 2)
            domain.virsh('snapshot-create-as', 'full')
            pattern.erase(domain)
            domain.resize(0)
            domain.virsh('snapshot-revert', 'full')
            domain.connect()
            domain.wait_current(768 * MiB)
            self.assertEqual(pattern.damaged_files(domain, 2), [])
            pattern.erase(domain)
            domain.resize(0)

    def check_memory_after_reboot(self, reboot):
        """A reboot empties the device, then the guest plugs again."""
        with self.started() as domain:
            domain.resize(512 * MiB)
            grown = domain.mem_total()
            reboot(domain)
            domain.wait_boot()
            domain.wait_current(512 * MiB)
            domain.wait_mem_total(grown)
            domain.resize(0)

    def test_reset_domain_plugs_again(self):
        self.check_memory_after_reboot(lambda domain: domain.virsh('reset'))

    @virtio_mem_tap.slow
    def test_rebooted_domain_plugs_again(self):
        def reboot(domain):
            domain.virsh('reboot', '--mode', 'acpi')
            # What a distribution does when that button is pressed.
            domain.ask('(sleep 1; poweroff -f) > /dev/null 2>&1 &')

        self.check_memory_after_reboot(reboot)

    def test_destroyed_domain_starts_empty(self):
        with self.started() as domain:
            domain.resize(512 * MiB)
            domain.virsh('destroy')
            self.assertEqual(domain.virsh('domstate'), 'shut off')
            self.assertNotIn('current', domain.devices()[0])
            domain.start()
            self.assertEqual(domain.current(), 0)

    def test_daemon_that_was_restarted_knows_the_size(self):
        with self.started() as domain:
            domain.resize(512 * MiB)
            self.libvirt.restart_daemon()
            self.assertEqual(domain.current(), 512 * MiB)
            domain.resize(256 * MiB)

    # What cannot be

    def test_impossible_descriptions_are_refused(self):
        impossible = {
            'block size must be a power of two':
                memory_xml(SIZE, block=3 * MiB),
            'block size too small, must be at least 2048KiB':
                memory_xml(SIZE, block=1 * MiB),
            'requested size must be smaller than or equal to @size':
                memory_xml(SIZE, requested=SIZE + 2 * MiB),
            'requested size must be an integer multiple of block size':
                memory_xml(SIZE, requested=3 * MiB),
            'the guest has only \'1\' NUMA nodes configured':
                memory_xml(SIZE, node=1),
            'maximum memory size must be equal or greater than the actual '
            'memory size': memory_xml(9 * GiB),
        }
        for message, device in impossible.items():
            with self.subTest(message):
                self.assert_refused(message, self.start_and_end, device)

    def start_and_end(self, device):
        """Try whether a domain with a device starts."""
        with Domain(self.libvirt, devices=device) as domain:
            domain.virsh('start')

    def test_size_is_refused_by_qemu_with_its_reason(self):
        device = memory_xml(64 * MiB, block=128 * MiB)
        self.assert_refused('memdev size 0x4000000 has to be multiples of '
                            "'block-size' (0x8000000)", self.start_and_end,
                            device)

    def test_impossible_requests_are_refused(self):
        with self.started() as domain:
            domain.resize(256 * MiB)
            self.assert_refused(
                'requested size must be smaller than or equal to @size '
                '(2097152KiB)', domain.request, SIZE + 2 * MiB)
            self.assert_refused(
                'requested size must be an integer multiple of block size',
                domain.request, 3 * MiB)
            self.assert_refused(
                'no memory device found', domain.request, 2 * MiB, 'none')
            self.assert_refused(
                'would exceed domain\'s maxMemory config size',
                domain.virsh_text, memory_xml(8 * GiB), 'attach-device',
                domain.name, '-')
            self.assertEqual(domain.current(), 256 * MiB)
            domain.resize(512 * MiB)

    # virt-install

    def test_virt_install_makes_a_domain_that_resizes(self):
        domain = Domain(self.libvirt, 'installed')
        self.addCleanup(domain.close)
        self.libvirt.run(
            'virt-install', '--name', domain.name, '--virt-type',
            parts.accelerator().replace('tcg', 'qemu'),
            '--vcpus', '2', '--machine', 'q35', '--cpu',
            'numa.cell.id=0,numa.cell.cpus=0-1,numa.cell.memory=4194304',
            '--memory', 'maxMemory=12288,maxMemory.slots=2', '--memdev',
            'model=virtio-mem,target.size=8192,target.node=0,'
            'target.block=2048,target.requested=0',
            '--boot', f'kernel={parts.part("GUEST_KERNEL").resolve()},'
                      f'initrd={parts.part("GUEST_INITRD").resolve()},'
                      f'kernel_args="{KERNEL_OPTIONS}"',
            '--serial', f'file,path={domain.path("console.log")}',
            '--serial', f'unix,mode=bind,path={domain.path("shell")}',
            '--import', '--disk', 'none', '--network', 'none', '--graphics',
            'none', '--osinfo', 'detect=off,require=off', '--noautoconsole')
        domain.connect()
        domain.wait_boot()
        self.assertEqual(domain.devices(), {domain.DEVICE: {
            'size': 8 * GiB, 'block': 2 * MiB, 'requested': 0, 'current': 0,
            'node': 0}})
        self.check_resizes(domain)
        self.assertEqual(domain.complaints(), [])


class VirtioMemLibvirtNewest(VirtioMemLibvirt):
    """The same with the newest libvirt that Debian ships, and what it adds."""

    libvirt = None
    needs = ('LIBVIRT_NEXT',)
    in_ci = ()

    def live_and_config_fail(self):
        """The device that is described for the next start has no address."""
        return self.assertRaisesRegex(
            LibvirtError, 'cannot modify memory address from .* to \'0x0\'')

    def require(self, *version):
        """Skip a case of what a version of libvirt brought."""
        if self.libvirt.version() < version:
            self.skipTest(f'libvirt {self.libvirt.version()} is older than '
                          f'{version}')

    def address(self, domain):
        """Return where libvirt says that the memory is."""
        found = domain.xml().find("devices/memory/target/address")
        return int(found.get('base'), 16)

    def check_switch(self, name, **described):
        """QEMU's property is on as described, and the device resizes."""
        with self.started(memory_xml(SIZE, **described)) as domain:
            self.assertTrue(self.qemu_property(domain, name))
            self.check_resizes(domain)

    def test_dynamic_memslots(self):
        self.require(10, 1)
        self.check_switch('dynamic-memslots',
                          attributes="dynamicMemslots='yes'")

    def check_address(self, domain, wanted):
        """The only device is where it was before the domain moved."""
        domain.connect()
        device, = domain.vm.cmd('query-memory-devices')
        self.assertEqual(device['data']['memaddr'], wanted)
        self.assertEqual(self.address(domain), wanted)

    def test_address_is_kept(self):
        """It is not where QEMU would have put it, as another one is gone.

        Names of its own, which name backends as well, libvirt does not keep.
        """
        self.require(9, 4)
        devices = (memory_xml(SIZE, alias='ua-first') +
                   memory_xml(SIZE, alias='ua-second'))
        with self.daemon() as other, self.started(devices) as domain:
            domain.virsh('detach-device-alias', 'ua-first')
            domain.wait_detached('ua-first')
            address = self.address(domain)
            self.assertEqual(address, 4 * GiB + SIZE)
            domain.virsh('managedsave')
            domain.virsh('start')
            self.check_address(domain, address)
            domain.migrate(other)
            self.check_address(domain, address)

    def test_address_may_be_given(self):
        self.require(9, 4)
        with self.started(memory_xml(SIZE, address=8 * GiB)) as domain:
            self.assertEqual(self.address(domain), 8 * GiB)
            self.assertEqual(domain.device_info()['memaddr'], 8 * GiB)
            self.check_resizes(domain)

    def test_no_slots_are_needed(self):
        self.require(9, 5)
        with self.started(slots='') as domain:
            domain.virsh_text(memory_xml(1 * GiB, requested=256 * MiB),
                              'attach-device', domain.name, '-')
            domain.wait_current(256 * MiB, 'virtiomem1')

    def test_device_is_attached_to_a_domain_that_is_off(self):
        self.require(10, 0)
        with self.defined(devices='') as domain:
            domain.virsh_text(memory_xml(SIZE, requested=256 * MiB),
                              'attach-device', '--config', domain.name, '-')
            domain.start()
            domain.wait_current(256 * MiB)
            domain.resize(0)

    def test_packed_ring(self):
        self.require(11, 9)
        self.check_switch('packed', driver="<driver packed='on'/>")

    def test_node_of_the_host_is_strict(self):
        self.require(12, 0)
        tuning = "<numatune><memory mode='preferred' nodeset='0'/></numatune>"
        self.check_node_of_the_host(tuning=tuning)


if __name__ == '__main__':
    virtio_mem_tap.main()
