#!/usr/bin/python3
"""A QEMU that was installed: what a host gets by "make install".

SPDX-License-Identifier: GPL-2.0-or-later

It is installed below a DESTDIR, so nothing of the host changes; QEMU finds what
belongs to it from where it is.
"""

import os
from pathlib import Path
import subprocess
import tempfile
from unittest import mock

import virtio_mem_libvirt
import virtio_mem_parts as parts
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB
from virtio_mem_guest_test import GuestTest
from virtio_mem_libvirt import Domain, Libvirt, memory_xml

INSTALL = parts.TOP / 'tools/install'
PREFIX = '/opt/virtio-mem'


def run(*command, **options):
    """Run a program; its failure is ours. Return what it prints."""
    run = subprocess.run(list(map(str, command)), check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         **options)
    if run.returncode:
        raise AssertionError(f'{command} failed: {run.stdout}')
    return run.stdout


class VirtioMemInstall(GuestTest):
    """One installation serves all cases; the end of it is checked, too."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.destdir = Path(directory.name, 'host')
        cls.env = {**os.environ, 'DESTDIR': str(cls.destdir),
                   'PREFIX': PREFIX}
        print(f'# {run(INSTALL, env=cls.env).splitlines()[-2]}', flush=True)

    def setUp(self):
        binary = mock.patch.dict(os.environ, {
            'QEMU_BINARY': str(self.program('qemu-system-x86_64'))})
        binary.start()
        self.addCleanup(binary.stop)
        super().setUp()

    def program(self, name):
        """Return where a program was installed."""
        return Path(f'{self.destdir}{PREFIX}/bin/{name}')

    def test_each_emulator_has_the_device_and_its_firmware(self):
        for target, machine, device in (
                ('x86_64', 'q35', 'virtio-mem-pci'),
                ('aarch64', 'virt', 'virtio-mem-pci'),
                ('s390x', 's390-ccw-virtio', 'virtio-mem-ccw')):
            emulator = self.program(f'qemu-system-{target}')
            self.assertIn('protect-unplugged',
                          run(emulator, '-device', f'{device},help'))
            # Nothing is missing of what it loads, with its default devices.
            self.assertNotIn('qemu-system', run(
                emulator, '-machine', machine, '-display', 'none', '-S',
                '-monitor', 'stdio', input='quit\n'))

    def test_memory_may_be_bound_to_nodes_of_the_host(self):
        self.assertIn('host-nodes', run(
            self.program('qemu-system-x86_64'), '-object',
            'memory-backend-ram,help'))

    def test_autosize_finds_its_modules(self):
        self.assertIn('usage', run(self.program('virtio-mem-autosize'),
                                   '--help'))

    def test_linux_boots_and_resizes(self):
        with self.guest(region_size=2 * GiB) as guest:
            for size in (1 * GiB, 256 * MiB, 0):
                guest.resize(size)

    def test_libvirt_takes_it_as_emulator(self):
        troubles = virtio_mem_libvirt.troubles()
        if troubles:
            self.skipTest('; '.join(troubles))
        with Libvirt() as libvirt, \
                Domain(libvirt, devices=memory_xml(2 * GiB)) as domain:
            self.assertEqual(domain.xml().find('devices/emulator').text,
                             str(self.program('qemu-system-x86_64')))
            domain.start()
            domain.resize(1 * GiB)
            domain.resize(0)

    def test_nothing_is_left_of_another_installation(self):
        with tempfile.TemporaryDirectory() as directory:
            env = {**self.env, 'DESTDIR': f'{directory}/host'}
            run(INSTALL, env=env)
            self.assertEqual(run('diff', '-r', env['DESTDIR'], self.destdir),
                             '')
            run(INSTALL, '--uninstall', env=env)
            self.assertEqual(os.listdir(directory), [])


if __name__ == '__main__':
    virtio_mem_tap.main()
