#!/usr/bin/python3
"""virtio-mem and what else a machine does: nodes, hot-plug, sleep, dumps.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct

import virtio_mem_facts as facts
import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import (GiB, GuestError, KERNEL_OPTIONS, MiB,
                              PATIENCE)
from virtio_mem_guest_test import GuestTest

TiB = 1024 * GiB

# Linux has a bit more or less memory after each boot, but adds 128 MiB or more
# at once.
TOLERANCE = 64 * MiB

TWO_NODES = (
    '-smp', '2,sockets=2',
    '-object', 'memory-backend-ram,id=boot0,size=256M',
    '-object', 'memory-backend-ram,id=boot1,size=256M',
    '-numa', 'node,nodeid=0,cpus=0,memdev=boot0',
    '-numa', 'node,nodeid=1,cpus=1,memdev=boot1',
    '-object', 'memory-backend-ram,id=mem1,size=2G',
    '-device', 'virtio-mem-pci,id=vm1,memdev=mem1,node=1')

PT_LOAD = 1


def plugged_by_node(guest):
    """Return the lines of "info numa" that tell what is plugged."""
    text = guest.vm.cmd('human-monitor-command', command_line='info numa')
    return [line.strip() for line in text.splitlines() if 'plugged' in line]


def loaded_ranges(path):
    """List (address, size) of the memory in a core file of 64 bits."""
    with open(path, 'rb') as core:
        header = core.read(64)
        offset, = struct.unpack_from('<Q', header, 32)
        size, count = struct.unpack_from('<HH', header, 54)
        core.seek(offset)
        table = core.read(size * count)
    entries = (struct.unpack_from('<IIQQQQ', table, n * size)
               for n in range(count))
    return [(address, size) for kind, _, _, _, address, size in entries
            if kind == PT_LOAD]


class VirtioMemNodes(GuestTest):
    """A machine with two NUMA nodes."""

    firmware = ()

    def test_each_of_two_devices_belongs_to_its_node(self):
        with self.guest(more_args=(*TWO_NODES, *self.firmware),
                        room=2 * GiB) as guest:
            boot = [guest.node_total(0), guest.node_total(1)]
            guest.resize(512 * MiB)
            guest.resize(1 * GiB, 'vm1')
            self.assertEqual(guest.node_total(0), boot[0] + 512 * MiB)
            self.assertEqual(guest.node_total(1), boot[1] + 1 * GiB)
            self.assertEqual(plugged_by_node(guest),
                             ['node 0 plugged: 512 MB',
                              'node 1 plugged: 1024 MB'])
            guest.resize(0)
            self.assertEqual(guest.node_total(1), boot[1] + 1 * GiB)


class VirtioMemOldNodes(VirtioMemNodes):
    """The same with the older Linux."""

    old_kernel = True
    in_ci = ()


class VirtioMemMachine(GuestTest):
    """Each case boots a guest of its own."""

    def check_machine(self, machine):
        """Resize and reboot a machine of some kind."""
        with self.guest(machine=machine) as guest:
            boot_total = guest.mem_total()
            guest.resize(1 * GiB)
            guest.reboot()
            guest.wait_mem_total_above(boot_total + 1 * GiB - TOLERANCE)
            self.assertEqual(guest.device_info()['size'], 1 * GiB)
            guest.resize(0)

    def test_q35(self):
        self.check_machine('q35')

    @virtio_mem_tap.slow
    def test_pc(self):
        self.check_machine('pc')

    def test_device_is_reached_while_the_memory_map_changes(self):
        with self.guest(programs=True, more_args=(
                '-device', 'pci-testdev,addr=10',
                '-device', 'pci-testdev,addr=11')) as guest:
            guest.ask('cd /sys/bus/pci/devices && '
                      'echo 1 > 0000:00:11.0/enable && '
                      'mmio 0000:00:10.0/config 0000:00:11.0/resource0 10000')

    def check_hot_plug(self, guest, bus):
        """Add a device to a running guest, resize it, and remove it."""
        boot_total = guest.mem_total()
        guest.vm.cmd('object-add', qom_type='memory-backend-ram', id='mem1',
                     size=1 * GiB)
        guest.vm.cmd('device_add', driver='virtio-mem-pci', id='vm1',
                     memdev='mem1', bus=bus, requested_size=512 * MiB)
        guest.wait_plugged(512 * MiB, 'vm1')
        guest.wait_mem_total(boot_total + 512 * MiB)
        guest.resize(256 * MiB)
        guest.resize(0, 'vm1')
        guest.vm.cmd('device_del', id='vm1')
        self.assertTrue(guest.vm.event_wait(
            'DEVICE_DELETED', timeout=PATIENCE,
            match={'data': {'device': 'vm1'}}))
        guest.vm.cmd('object-del', id='mem1')
        self.assertEqual(guest.mem_total(), boot_total + 256 * MiB)

    def test_device_comes_and_goes_on_q35(self):
        port = ('-device', 'pcie-root-port,id=rp0,chassis=1')
        with self.guest(more_args=port, room=2 * GiB) as guest:
            self.check_hot_plug(guest, 'rp0')

    @virtio_mem_tap.slow
    def test_device_comes_and_goes_on_pc(self):
        with self.guest(machine='pc', room=2 * GiB) as guest:
            self.check_hot_plug(guest, 'pci.0')

    def test_suspended_guest_keeps_size_and_contents(self):
        with self.guest() as guest:
            guest.resize(1 * GiB)
            pattern.write(guest, 2)
            guest.suspend()
            self.assertEqual(guest.device_info()['size'], 1 * GiB)
            guest.wake_up()
            self.assertEqual(pattern.damaged_files(guest, 2), [])
            self.assertEqual(guest.device_info()['size'], 1 * GiB)
            pattern.erase(guest)
            guest.resize(1536 * MiB)
            guest.resize(0)

    def test_kexec_starts_over_with_the_requested_size(self):
        trace = self.temp_file('trace')
        with self.guest(programs=True, boot_size=1 * GiB, more_args=(
                '-trace', 'virtio_mem_unplugged_all', '-D', trace)) as guest:
            boot_total = guest.mem_total()
            guest.resize(1 * GiB)
            pattern.write(guest, 2)
            guest.ask('kexec /vmlinuz /initrd.img "$(cat /proc/cmdline)"')
            guest.ask('(sleep 1; kexec -e) > /dev/null 2>&1 &')
            guest.wait_boot()
            guest.wait_mem_total_above(boot_total + 1 * GiB - TOLERANCE)
            with open(trace, encoding='ascii') as log:
                self.assertIn('virtio_mem_unplugged_all', log.read())
            self.assertLess(guest.host_memory(), pattern.FILE_SIZE)
            guest.resize(0)

    def test_crash_kernel_reads_what_is_plugged_and_nothing_else(self):
        # In Linux's blocks of 128 MiB, half plugged ones are in the dump, too.
        marked = 64 * MiB
        with self.guest(programs=True, boot_size=640 * MiB,
                        kernel_options='crashkernel=192M') as guest:
            guest.resize(386 * MiB)
            guest.ask(f'head -c {marked} /dev/zero | tr "\\0" "\\245" '
                      '> /mem/marked')
            guest.ask('kexec -p /vmlinuz /initrd.img '
                      f'"{KERNEL_OPTIONS} nr_cpus=1"')
            # These were plugged when the dump was prepared.
            guest.resize(130 * MiB)
            used = guest.host_memory()
            guest.ask('(sleep 1; echo c > /proc/sysrq-trigger) '
                      '> /dev/null 2>&1 &')
            guest.wait_boot()
            found = int(guest.ask('tr -cd "\\245" < /proc/vmcore | wc -c'))
            self.assertGreaterEqual(found, marked)
            self.assertLess(found, marked + 32 * MiB)
            plugged = guest.device_info()['size']
            self.assertEqual(plugged, 130 * MiB)
            most = plugged if facts.reading_costs_memory() else used
            self.assertLess(guest.host_memory(), most + 8 * MiB)

    def test_dump_leaves_unplugged_memory_out(self):
        core = self.temp_file('core')
        with self.guest() as guest:
            guest.resize(386 * MiB)
            guest.vm.cmd('dump-guest-memory', paging=False,
                         protocol=f'file:{core}')
            device = guest.device_info()
            first = device['memaddr']
            dumped = sum(size for address, size in loaded_ranges(core)
                         if first <= address < first + device['max-size'])
            self.assertEqual(dumped, 386 * MiB)

    def test_one_of_1024_gib_is_plugged(self):
        with self.guest(region_size=1 * TiB,
                        backend='memory-backend-ram,reserve=off',
                        more_args=('-cpu', 'qemu64,phys-bits=42')) as guest:
            rss_boot = guest.host_rss()
            guest.resize(1 * GiB)
            pattern.write(guest, 3)
            self.assertEqual(pattern.damaged_files(guest, 3), [])
            pattern.erase(guest)
            guest.resize(0)
            self.assertLess(guest.host_rss(), rss_boot + 256 * MiB)
            self.assertEqual(guest.host_memory(), 0)


class VirtioMemOldMachine(VirtioMemMachine):
    """The same with the older Linux."""

    old_kernel = True
    in_ci = ('test_suspended_guest_keeps_size_and_contents',
             'test_kexec_starts_over_with_the_requested_size')

    def test_suspended_guest_keeps_size_and_contents(self):
        """Before Linux 6.10, the driver does not let the guest suspend."""
        with self.guest() as guest:
            guest.resize(1 * GiB)
            with self.assertRaisesRegex(GuestError, 'not permitted'):
                guest.ask('echo mem > /sys/power/state')
            self.assertEqual(guest.device_info()['size'], 1 * GiB)
            guest.resize(0)


if __name__ == '__main__':
    virtio_mem_tap.main()
