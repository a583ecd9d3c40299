#!/usr/bin/python3
"""virtio-mem and Linux in company: other drivers' modes, other devices.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import Guest, GiB, MiB
from virtio_mem_guest_test import GuestTest


class VirtioMemSetups(GuestTest):
    """Each case boots a guest of its own."""

    def test_driver_can_be_reloaded(self):
        with self.guest() as guest:
            guest.resize(512 * MiB)
            guest.resize(0)
            guest.ask('rmmod virtio_mem && modprobe virtio_mem')
            guest.resize(512 * MiB)
            guest.resize(0)

    def test_driver_in_big_block_mode_resizes(self):
        with self.guest() as guest:
            guest.ask('rmmod virtio_mem && modprobe virtio_mem force_bbm=1')
            for size in (512 * MiB, 128 * MiB, 1 * GiB, 0):
                guest.resize(size)

    def test_memory_belongs_to_the_numa_node_of_the_device(self):
        numa = ('-object', 'memory-backend-ram,id=boot,size=512M',
                '-numa', 'node,nodeid=0,cpus=0-1,memdev=boot',
                '-numa', 'node,nodeid=1')
        with self.guest(device_options=',node=1', more_args=numa) as guest:
            guest.resize(1 * GiB)
            self.assertEqual(guest.device_info()['node'], 1)
            line = guest.ask(
                'grep MemTotal /sys/devices/system/node/node1/meminfo')
            self.assertEqual(int(line.split()[3]) << 10, 1 * GiB)

    def test_device_comes_and_goes_while_linux_runs(self):
        port = ('-device', 'pcie-root-port,id=rp0,chassis=1')
        with self.guest(more_args=port, room=2 * GiB) as guest:
            boot_total = guest.mem_total()
            guest.vm.cmd('object-add', qom_type='memory-backend-ram',
                         id='mem1', size=1 * GiB)
            guest.vm.cmd('device_add', driver='virtio-mem-pci', id='vm1',
                         memdev='mem1', bus='rp0',
                         requested_size=512 * MiB)
            guest.wait_plugged(512 * MiB, 'vm1')
            guest.wait_mem_total(boot_total + 512 * MiB)
            guest.resize(256 * MiB)
            guest.resize(0, 'vm1')
            guest.vm.cmd('device_del', id='vm1')
            self.assertTrue(guest.vm.event_wait(
                'DEVICE_DELETED', timeout=60.0,
                match={'data': {'device': 'vm1'}}))
            guest.vm.cmd('object-del', id='mem1')
            self.assertEqual(guest.mem_total(), boot_total + 256 * MiB)

    def test_balloon_beside_it_inflates_and_deflates(self):
        balloon = ('-device', 'virtio-balloon-pci')
        with self.guest(more_args=balloon) as guest:
            guest.resize(1 * GiB)
            total = guest.mem_total()
            guest.ask('modprobe virtio_balloon')
            # The balloon's sizes are those of boot memory alone, but it
            # takes its pages from anywhere.
            guest.hmp('balloon 256')
            guest.wait_mem_total(total - 256 * MiB)
            guest.resize(512 * MiB)
            guest.hmp('balloon 512')
            guest.wait_mem_total(total - 512 * MiB)
            guest.resize(0)

    def migrate(self, source, target):
        """Migrate a guest and wait until it runs at its target."""
        uri = f'unix:{target.path("migration")}'
        target.vm.cmd('migrate-incoming', uri=uri)
        source.vm.cmd('migrate', uri=uri)
        deadline = time.monotonic() + 120
        while target.vm.cmd('query-status')['status'] != 'running':
            status = source.vm.cmd('query-migrate')
            self.assertNotEqual(status.get('status'), 'failed', status)
            self.assertLess(time.monotonic(), deadline, status)
            time.sleep(0.2)

    def test_migrated_guest_keeps_its_memory_and_resizes(self):
        incoming = ('-incoming', 'defer')
        with Guest() as source, Guest(more_args=incoming) as target:
            source.wait_boot()
            source.resize(1 * GiB)
            pattern.write(source, 2)
            self.migrate(source, target)
            self.assertEqual(pattern.damaged_files(target, 2), [])
            self.assertEqual(target.device_info()['size'], 1 * GiB)
            target.resize(768 * MiB)
            self.assertEqual(pattern.damaged_files(target, 2), [])
            pattern.erase(target)
            target.resize(0)
            self.assertEqual(target.complaints(), [])


if __name__ == '__main__':
    virtio_mem_tap.main()
