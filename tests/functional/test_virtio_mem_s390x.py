#!/usr/bin/python3
"""virtio-mem-ccw in an s390x machine.

SPDX-License-Identifier: GPL-2.0-or-later

qtests have no channels to talk to such a device by: virtio_mem_ccw.c does it in
their place.  Debian's kernels have no driver: tools/guest-driver makes one.
"""

import contextlib
from pathlib import Path
import shutil
import struct
import subprocess
import tempfile
import unittest

import test_virtio_mem_linux as linux
import test_virtio_mem_setups as setups
import virtio_mem_parts as parts
import virtio_mem_tap
from virtio_mem_architectures import S390X
from virtio_mem_guest import GiB, MiB, PATIENCE, wait_until
from virtio_mem_guest_test import GrowingTest, GuestTest

DEVICE = '/machine/peripheral/vm0'
REGION = 2 * GiB
EVENT = 'MEMORY_DEVICE_SIZE_CHANGE'

# Of virtio_mem_ccw.c.
REPORT = 0x8000
NAMES = ('done', 'failed', 'plugged', 'fresh', 'kept', 'beyond', 'again',
         'mixed', 'unplugged', 'all')
ENTRY = 0x20000
ACK, NACK, ERROR = 0, 1, 3
MIXED = 2
PLUGGED = 4 * MiB
WRITTEN = 128 * MiB             # what it may not use
FAILED = 3


def text_section(elf):
    """Return the code in an object file that has no relocations."""
    offset, = struct.unpack_from('>Q', elf, 0x28)
    size, number, of_names = struct.unpack_from('>HHH', elf, 0x3a)
    headers = [struct.unpack_from('>IIQQQQ', elf, offset + i * size)
               for i in range(number)]
    names = elf[headers[of_names][4]:][:headers[of_names][5]]
    for name, _, _, _, start, length in headers:
        if names[name:].startswith(b'.text\0'):
            return elf[start:start + length]
    raise ValueError('no code in the object file')


def guest_image(directory):
    """Compile the guest; what the machine starts is an image from 0 on."""
    image = Path(directory, 'guest.img')
    subprocess.run(['clang', '--target=s390x-linux-gnu', '-Wall', '-Werror',
                    '-O1', '-ffreestanding', '-fno-pic', '-c', '-o',
                    image.with_suffix('.o'),
                    Path(__file__).with_name('virtio_mem_ccw.c')], check=True)
    start = struct.pack('>II', 0, 0x80000000 | ENTRY)
    image.write_bytes(start.ljust(ENTRY, b'\0') +
                      text_section(image.with_suffix('.o').read_bytes()))
    return image


class VirtioMemS390x(unittest.TestCase):
    """What a host and its guest do to the device."""

    def setUp(self):
        troubles = parts.troubles_of('S390X_QEMU_BINARY', 'S390X_FIRMWARE')
        if troubles:
            self.skipTest('; '.join(troubles))

    @contextlib.contextmanager
    def machine(self, *more_args, options=''):
        """Start a machine with a device."""
        vm = parts.qemu_machine().QEMUMachine(
            str(parts.part('S390X_QEMU_BINARY')), qmp_timer=60,
            wrapper=['setpriv', '--pdeathsig', 'KILL'],
            base_temp_dir=tempfile.gettempdir())
        vm.add_args('-nodefaults', '-machine', 's390-ccw-virtio', '-accel',
                    'tcg', '-S', '-m', '512M,maxmem=8G', '-bios',
                    str(parts.part('S390X_FIRMWARE')), '-object',
                    f'memory-backend-ram,id=mem0,size={REGION}', '-device',
                    f'virtio-mem-ccw,id=vm0,memdev=mem0{options}', *more_args)
        try:
            vm.launch()
            yield vm
        finally:
            vm.shutdown(hard=True)

    def query(self, vm):
        """Return what query-memory-devices says of the only device."""
        device, = vm.cmd('query-memory-devices')
        self.assertEqual(device['type'], 'virtio-mem')
        return device['data']

    def request(self, vm, size):
        """Change what is requested of the guest."""
        vm.cmd('qom-set', path=DEVICE, property='requested-size', value=size)

    def test_device_is_there_and_protected(self):
        with self.machine(options=',requested-size=256M') as vm:
            device = self.query(vm)
            self.assertEqual(
                {name: device[name] for name in (
                    'id', 'memdev', 'size', 'requested-size', 'max-size')},
                {'id': 'vm0', 'memdev': '/objects/mem0', 'size': 0,
                 'requested-size': 256 * MiB, 'max-size': REGION})
            self.assertGreaterEqual(device['memaddr'], 512 * MiB)
            self.assertGreaterEqual(device['usable-size'], 256 * MiB)
            self.assertEqual(device['protected'], not parts.guard_trouble())

    def test_requested_size_changes_within_its_limits(self):
        with self.machine() as vm:
            self.request(vm, 1 * GiB)
            device = self.query(vm)
            self.assertEqual(device['requested-size'], 1 * GiB)
            self.assertGreaterEqual(device['usable-size'], 1 * GiB)
            for wrong, limit in ((2 * REGION, hex(REGION)),
                                 (4096, "'block-size'")):
                with self.assertRaisesRegex(parts.qmp_error(), limit):
                    self.request(vm, wrong)
            self.assertEqual(self.query(vm)['requested-size'], 1 * GiB)
            vm.cmd('system_reset')
            self.assertEqual(self.query(vm)['size'], 0)

    def test_another_one_is_plugged_in(self):
        with self.machine() as vm:
            vm.cmd('object-add', id='mem1', qom_type='memory-backend-ram',
                   size=GiB)
            vm.cmd('device_add', driver='virtio-mem-ccw', id='vm1',
                   memdev='mem1', requested_size=64 * MiB)
            first, second = (device['data'] for device in
                             vm.cmd('query-memory-devices'))
            self.assertEqual(second['id'], 'vm1')
            self.assertGreaterEqual(second['memaddr'],
                                    first['memaddr'] + REGION)

    def test_state_is_saved_and_loaded(self):
        with tempfile.NamedTemporaryFile() as file:
            with self.machine(options=',requested-size=256M') as vm:
                address = self.query(vm)['memaddr']
                vm.cmd('migrate', uri=f'file:{file.name}')
                self.wait_migrated(vm)
            with self.machine('-incoming', 'defer') as vm:
                vm.cmd('migrate-incoming', uri=f'file:{file.name}')
                self.wait_migrated(vm)
                device = self.query(vm)
                self.assertEqual(device['requested-size'], 256 * MiB)
                self.assertEqual(device['memaddr'], address)
                self.assertIn(EVENT, [event['event']
                                      for event in vm.get_qmp_events()])

    # With a guest

    def report(self, vm):
        """Return what the guest has said."""
        text = vm.cmd('human-monitor-command',
                      command_line=f'xp /{len(NAMES)}xw {REPORT}')
        words = [int(word, 16) for line in text.splitlines()
                 for word in line.partition(':')[2].split()]
        return dict(zip(NAMES, words))

    def wait_report(self, vm, done):
        """Wait until the guest has done something, return what it said."""
        def look():
            said = self.report(vm)
            return said if said['done'] in (done, FAILED) else None

        return wait_until(look, lambda: f'the guest says {self.report(vm)}')

    def check_plugged(self, vm):
        """The guest has plugged and used two blocks."""
        self.assertEqual(self.wait_report(vm, 1), {
            'done': 1, 'failed': 0, 'plugged': ACK, 'fresh': 1, 'kept': 1,
            'beyond': NACK, 'again': ERROR, 'mixed': MIXED, 'unplugged': 0,
            'all': 0})
        self.assertEqual(self.query(vm)['size'], PLUGGED)

    def check_gives_back(self, vm):
        """When nothing is requested any more, the guest unplugs both."""
        self.request(vm, 0)
        said = self.wait_report(vm, 2)
        self.assertEqual((said['unplugged'], said['all']), (ACK, ACK))
        self.assertEqual(self.query(vm)['size'], 0)

    @contextlib.contextmanager
    def guest(self, *more_args):
        """Start a machine with the guest, which does nothing yet."""
        if not shutil.which('clang'):
            self.skipTest('clang is missing: run "tools/bootstrap --fuzz"')
        with tempfile.TemporaryDirectory() as directory, self.machine(
                '-kernel', str(guest_image(directory)), *more_args,
                options=f',block-size=2M,requested-size={PLUGGED}') as vm:
            yield vm

    def wait_event(self, vm, name, **data):
        """Wait until QEMU tells this."""
        while True:
            told = vm.event_wait(name, PATIENCE)['data']
            if told == {**told, **data}:
                return

    def test_guest_plugs_uses_and_gives_back(self):
        with self.guest() as vm:
            vm.cmd('cont')
            self.check_plugged(vm)
            if not parts.guard_trouble():
                self.wait_event(vm, 'VIRTIO_MEM_UNPLUGGED_ACCESS', write=True,
                                address=self.query(vm)['memaddr'] + WRITTEN)
            self.check_gives_back(vm)
            self.wait_event(vm, EVENT, size=0)

    def test_guest_plugs_again_after_a_reset(self):
        with self.guest() as vm:
            vm.cmd('cont')
            self.check_plugged(vm)
            self.check_gives_back(vm)
            self.request(vm, PLUGGED)
            vm.cmd('system_reset')
            self.check_plugged(vm)

    def test_guest_moves_with_its_memory(self):
        with tempfile.NamedTemporaryFile() as file:
            with self.guest() as vm:
                vm.cmd('cont')
                self.check_plugged(vm)
                vm.cmd('migrate', uri=f'file:{file.name}')
                self.wait_migrated(vm)
            with self.guest('-incoming', 'defer') as vm:
                vm.cmd('migrate-incoming', uri=f'file:{file.name}')
                self.wait_migrated(vm)
                vm.cmd('cont')
                self.check_plugged(vm)
                self.check_gives_back(vm)

    def wait_migrated(self, vm):
        """Wait until a migration has come to its good end."""
        wait_until(lambda: vm.cmd('query-migrate').get('status') in
                   ('completed', 'failed'), 'the migration does not end')
        self.assertEqual(vm.cmd('query-migrate')['status'], 'completed')


class VirtioMemS390xLinux(GrowingTest, GuestTest):
    """Linux, with its own driver."""

    architecture = S390X
    in_ci = ()

    test_reboot_gives_the_requested_size_again = \
        linux.VirtioMemLinux.test_reboot_gives_the_requested_size_again
    test_migrated_guest_keeps_its_memory_and_resizes = \
        setups.VirtioMemSetups.test_migrated_guest_keeps_its_memory_and_resizes


if __name__ == '__main__':
    virtio_mem_tap.main()
