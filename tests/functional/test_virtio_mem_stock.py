#!/usr/bin/python3
"""What is said of QEMU's own device, seen on QEMUs that Debian ships.

SPDX-License-Identifier: GPL-2.0-or-later

What users see of it is here, too, and means the same.  What README.md says is
different is done to both, and must be different; what takes a driver or a
migration with a guest is in test_virtio_mem_migration.py and in qtests.
VIRTIO_MEM_TEST_ALL adds the newest QEMU that Debian ships.
"""

import contextlib
import struct
import tempfile
import unittest

import virtio_mem_parts as parts
import virtio_mem_stub
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB, wait_until
from virtio_mem_stub import Stub, anonymous_memory

OURS = 'QEMU_BINARY'
REGION = 1 * GiB
REQUESTED = 256 * MiB
# Types of machine that all of them know.
MACHINES = ('pc-q35-10.0', 'pc-i440fx-10.0', 'pc-q35-9.2', 'pc-q35-7.2',
            'pc-i440fx-6.2')
EVENT = 'MEMORY_DEVICE_SIZE_CHANGE'


class Refused(Exception):
    """QEMU did not start: what it said."""


class StockTest(unittest.TestCase):
    """A test that compares ours with a QEMU of Debian's."""

    stock = 'STOCK_QEMU_BINARY'

    def setUp(self):
        troubles = [*parts.troubles(self.stock), *virtio_mem_stub.troubles()]
        if troubles:
            self.skipTest('; '.join(troubles))

    @contextlib.contextmanager
    def started(self, binary, *args):
        """Start a machine whose processors stand still."""
        vm = parts.qemu_machine().QEMUMachine(
            str(parts.part(binary)), qmp_timer=60,
            wrapper=['setpriv', '--pdeathsig', 'KILL'],
            base_temp_dir=tempfile.gettempdir())
        vm.add_args('-nodefaults', '-accel', 'tcg', '-S', '-object',
                    f'memory-backend-ram,id=mem0,size={REGION}', *args)
        try:
            try:
                vm.launch()
            except parts.qemu_machine().machine.VMLaunchFailure:
                raise Refused(vm.get_log()) from None
            yield vm
        finally:
            vm.shutdown(hard=True)

    def machine(self, binary, *more_args, device='', machine=MACHINES[0]):
        """The same of a PC with a device."""
        return self.started(
            binary, '-machine', machine, '-m', '512M,slots=2,maxmem=8G',
            '-device', f'virtio-mem-pci,id=vm0,memdev=mem0{device}',
            *more_args)

    def query(self, vm):
        """Return what query-memory-devices says of the device."""
        return vm.cmd('query-memory-devices')[0]['data']

    def check(self, look, ours, stock):
        """What a function of the binary returns is different like this."""
        self.assertEqual(look(OURS), ours)
        self.assertEqual(look(self.stock), stock)


class VirtioMemStock(StockTest):
    """QEMU 10.0 in the version that ours is built from."""

    # What is the same

    def properties(self, vm, typename):
        """Return {name: (type, default)} of a device."""
        return {entry['name']: (entry['type'], entry.get('default-value'))
                for entry in vm.cmd('device-list-properties',
                                    typename=typename)}

    def test_properties(self):
        """All of stock's, but for what all virtio devices gained since."""
        with self.machine(OURS) as ours, self.machine(self.stock) as stock:
            gained = (self.properties(stock, 'virtio-balloon-pci').keys() -
                      self.properties(ours, 'virtio-balloon-pci').keys())
            for typename in 'virtio-mem-pci', 'virtio-mem':
                have = self.properties(ours, typename)
                wanted = self.properties(stock, typename)
                self.assertGreater(len(wanted), 5)
                self.assertEqual({name: have.get(name) for name in wanted
                                  if name not in gained},
                                 {name: wanted[name] for name in wanted
                                  if name not in gained})

    def values(self, vm):
        """Return the values of the device's properties, and of its child."""
        result = {}
        for path in ('/machine/peripheral/vm0',
                     '/machine/peripheral/vm0/virtio-backend'):
            for entry in vm.cmd('qom-list', path=path):
                # Some can only be written.
                with contextlib.suppress(parts.qmp_error()):
                    result[path, entry['name']] = vm.cmd(
                        'qom-get', path=path, property=entry['name'])
        return result

    def test_values_with_each_machine(self):
        """As old types of machines set them."""
        for machine in MACHINES:
            with self.subTest(machine), \
                    self.machine(OURS, machine=machine) as ours, \
                    self.machine(self.stock, machine=machine) as stock:
                have, wanted = self.values(ours), self.values(stock)
                self.assertEqual(
                    {key: (have[key], value) for key, value in wanted.items()
                     if key in have and have[key] != value}, {})
                device, other = self.query(ours), self.query(stock)
                self.assertEqual(device, {**device, **other})
                # README.md's "only the guest sees it".
                self.assertGreaterEqual(device.keys() - other.keys(),
                                        {'usable-size', 'resize-status'})
                told, other = (vm.cmd(
                    'human-monitor-command',
                    command_line='info memory-devices').splitlines()
                    for vm in (ours, stock))
                self.assertEqual([line for line in other if line not in told],
                                 [])

    # What is different, as README.md lists it

    def test_writer_of_unplugged_memory(self):
        def write(binary):
            with Stub('tcg', binary=binary) as stub:
                stub.vm.cmd('cont')
                return stub.wait_serial(3)

        trouble = parts.guard_trouble()
        if trouble:
            self.skipTest(trouble)
        # Whether the first and the last word are still there.
        self.check(write, 'W01', 'W11')

    def test_start_with_more_requested_than_there_is(self):
        def start(binary):
            try:
                with self.machine(binary, device=',requested-size=2G') as vm:
                    return self.query(vm)['requested-size']
            except Refused:
                return None

        self.check(start, None, 2 * GiB)

    def test_prealloc_of_a_backend_in_use(self):
        def fill(binary):
            with self.machine(binary) as vm:
                before = anonymous_memory(vm)
                with contextlib.suppress(parts.qmp_error()):
                    vm.cmd('qom-set', path='/objects/mem0',
                           property='prealloc', value=True)
                return anonymous_memory(vm) - before > REGION // 2

        self.check(fill, False, True)

    def test_resize_while_being_removed(self):
        def resize(binary):
            with self.machine(binary, machine='pc-i440fx-10.0') as vm:
                vm.cmd('device_del', id='vm0')
                with contextlib.suppress(parts.qmp_error()):
                    vm.cmd('qom-set', property='requested-size', value=REGION,
                           path='/machine/peripheral/vm0/virtio-backend')
                return self.query(vm)['requested-size']

        self.check(resize, 0, REGION)

    def test_on_virtio_mmio(self):
        def start(binary):
            try:
                with self.started(binary, '-machine', 'microvm', '-device',
                                  'virtio-mem,memdev=mem0') as vm:
                    return vm.cmd('query-memory-devices')
            except Refused:
                return None

        self.check(start, None, [])

    # Streams

    def save(self, binary, path):
        """Write the state of a device that has nothing plugged."""
        with self.machine(binary,
                          device=f',requested-size={REQUESTED}') as vm:
            vm.cmd('migrate', uri=f'file:{path}')
            self.wait_migrated(vm)

    def wait_migrated(self, vm):
        """Wait for the end of a migration, return how it ended."""
        return wait_until(lambda: vm.cmd('query-migrate').get('status') in
                          ('completed', 'failed') and
                          vm.cmd('query-migrate')['status'],
                          'the migration does not end', interval=0.02)

    @contextlib.contextmanager
    def loaded(self, binary, path):
        """Load a state; the caller sees whether that was possible."""
        with self.machine(binary, '-incoming', 'defer') as vm:
            vm.cmd('migrate-incoming', uri=f'file:{path}',
                   exit_on_error=False)
            yield vm, self.wait_migrated(vm)

    def test_forged_stream(self):
        def load(binary):
            with tempfile.NamedTemporaryFile() as file:
                self.save(binary, file.name)
                stream = file.read()
                # The usable region and what is requested of it.
                sizes = struct.pack('>QQ', 2 * REQUESTED, REQUESTED)
                self.assertEqual(stream.count(sizes), 1)
                forged = struct.pack('>QQ', 2 * REQUESTED, REQUESTED + 1)
                file.seek(0)
                file.write(stream.replace(sizes, forged))
                file.flush()
                with self.loaded(binary, file.name) as (vm, status):
                    return status, self.query(vm)['requested-size']

        self.check(load, ('failed', 0), ('completed', REQUESTED + 1))

    def test_size_event_after_loading(self):
        def load(binary):
            with tempfile.NamedTemporaryFile() as file:
                self.save(binary, file.name)
                with self.loaded(binary, file.name) as (vm, status):
                    self.assertEqual(status, 'completed')
                    return EVENT in [event['event']
                                     for event in vm.get_qmp_events()]

        self.check(load, True, False)


class VirtioMemNewestStock(VirtioMemStock):
    """The newest QEMU that Debian ships."""

    stock = 'STOCK_NEXT_QEMU_BINARY'
    in_ci = ()


if __name__ == '__main__':
    virtio_mem_tap.main()
