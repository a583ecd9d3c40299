#!/usr/bin/python3
"""virtio-mem and the kinds of host memory: all of it goes back.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import itertools
import os
import pathlib
import subprocess
import tempfile

import virtio_mem_mappings as mappings
import virtio_mem_parts as parts
import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB, PATIENCE, format_size, wait_until
from virtio_mem_guest_test import GuestTest
from virtio_mem_host import HostError, HugePages

REGION = 256 * MiB
# Not even root may write everywhere.
ORDINARY = ('setpriv', '--pdeathsig', 'KILL', '--bounding-set',
            '-dac_override,-dac_read_search')
REFUSED = 'virtio_mem_send_response type=2'


def some_options():
    """Return (share, reserve, prealloc): all, or four with all pairs."""
    options = list(itertools.product(('on', 'off'), repeat=3))
    if virtio_mem_tap.test_all():
        return options
    return [each for each in options if each.count('off') % 2 == 0]


class Device:
    """One of several devices, each with other options."""

    def __init__(self, name, backend, options, region_size=REGION):
        self.name = name
        self.region_size = region_size
        self.share, self.reserve, self.prealloc = options
        self.args = (
            '-object', f'{backend},id={name}-mem,share={self.share},'
                       f'reserve={self.reserve},'
                       f'size={format_size(region_size)}',
            '-device', f'virtio-mem-pci,id={name},memdev={name}-mem,'
                       f'prealloc={self.prealloc}')

    def __str__(self):
        return (f'share={self.share} reserve={self.reserve} '
                f'prealloc={self.prealloc}')


class BackendTest(GuestTest):
    """A test of several devices in one guest."""

    @contextlib.contextmanager
    def needed(self, resource):
        """Enter what the host must have; skip the test if it has not."""
        with contextlib.ExitStack() as stack:
            try:
                value = stack.enter_context(resource)
            except HostError as error:
                self.skipTest(str(error))
            yield value

    def memory(self, guest, device):
        """Return how much memory the host has for a device: (RSS, file)."""
        pid = guest.vm.get_pid()
        return (guest.host_memory(device.name),
                mappings.file_memory(pid, guest.host_address(device.name)))

    def check_device(self, guest, device):
        """Let the guest use a device's memory, and take it away."""
        used = device.region_size
        guest.resize(used, device.name)
        plugged, _ = self.memory(guest, device)
        if device.prealloc == 'on':
            self.assertGreaterEqual(plugged, used)
        # New memory is the only movable memory there is.
        pattern.fill(guest, '/mem/used', used // 4 * 3 // MiB)
        mapped, in_file = self.memory(guest, device)
        self.assertGreater(mapped, used // 2)
        if device.share == 'on':
            self.assertGreater(in_file, used // 2)
        guest.ask('rm /mem/used')
        guest.resize(0, device.name)
        self.assertEqual(self.memory(guest, device), (0, 0))

    def check_devices(self, backend, options, region_size=REGION):
        """Check that the memory of each device goes back to the host.

        backend gets the number of the device.
        """
        devices = [Device(f'vm{n}', backend.format(n=n), each, region_size)
                   for n, each in enumerate(options, 1)]
        with self.guest(more_args=[a for d in devices for a in d.args],
                        room=len(devices) * 2 * max(region_size, GiB),
                        region_size=128 * MiB) as guest:
            for device in devices:
                with self.subTest(str(device)):
                    self.check_device(guest, device)


class VirtioMemBackends(BackendTest):
    """All kinds of memory, with all options."""

    def test_ram_goes_back(self):
        self.check_devices('memory-backend-ram', some_options())

    def test_memfd_goes_back(self):
        self.check_devices('memory-backend-memfd', some_options())

    @virtio_mem_tap.slow
    def test_files_on_tmpfs_go_back(self):
        with tempfile.TemporaryDirectory(dir='/dev/shm') as directory:
            self.check_devices(
                f'memory-backend-file,mem-path={directory}/{{n}}',
                some_options())
            self.assertEqual(sum(entry.stat().st_blocks for entry
                                 in os.scandir(directory)), 0)

    @contextlib.contextmanager
    def huge_pages(self, page_size, options):
        """Let there be just the huge pages that devices need.

        The block gets the pool, and the size of each device.
        """
        region_size = max(page_size, REGION)
        reserved = sum(reserve == 'on' for _, reserve, _ in options)
        nb_pages = (reserved + 1) * region_size // page_size
        self.require_host_memory(nb_pages * page_size + GiB)
        with self.needed(HugePages(page_size).pool(nb_pages)) as pool:
            yield pool, region_size
            self.assertEqual(pool.available(), nb_pages)

    def check_huge_files(self, page_size, options):
        """Check devices with files on hugetlbfs."""
        with self.huge_pages(page_size, options) as (pool, region_size), \
             self.needed(pool.mount()) as directory:
            self.check_devices(f'memory-backend-file,mem-path={directory}',
                               options, region_size)

    def check_huge_memfds(self, page_size, options):
        """The same with memfd."""
        with self.huge_pages(page_size, options) as (_, region_size):
            self.check_devices(
                'memory-backend-memfd,hugetlb=on,'
                f'hugetlbsize={format_size(page_size)}', options, region_size)

    @virtio_mem_tap.slow
    def test_memfd_of_2_mib_pages_goes_back(self):
        self.check_huge_memfds(2 * MiB, some_options())

    def test_files_of_2_mib_pages_go_back(self):
        self.check_huge_files(2 * MiB, some_options())

    @virtio_mem_tap.slow
    def test_memfd_of_1_gib_pages_goes_back(self):
        self.check_huge_memfds(1 * GiB, [('on', 'off', 'on'),
                                         ('off', 'off', 'off')])

    def test_files_of_1_gib_pages_go_back(self):
        self.check_huge_files(1 * GiB, [('on', 'off', 'on'),
                                        ('off', 'on', 'off')])


class VirtioMemHugePages(BackendTest):
    """One device with the only huge pages there are."""

    def test_huge_pages_go_back_to_the_pool(self):
        nb_files = 2
        size = (nb_files + 1) * pattern.FILE_SIZE
        nb_pages = size // (2 * MiB)
        with self.needed(HugePages().pool(nb_pages)) as pool, self.guest(
                backend='memory-backend-memfd,hugetlb=on,reserve=off',
                device_options=',prealloc=on') as guest:
            guest.resize(size)
            self.assertEqual(pool.available(), 0)
            pattern.write(guest, nb_files)
            self.assertEqual(pattern.damaged_files(guest, nb_files), [])
            pattern.erase(guest)
            guest.resize(size // 2)
            self.assertEqual(pool.available(), nb_pages // 2)
            guest.resize(0)
            self.assertEqual(pool.available(), nb_pages)


class VirtioMemShortage(BackendTest):
    """What users read who have too few huge pages, or may not use them."""

    def output_of_failing(self, *args, wrapper=()):
        """Return what QEMU says when it cannot start."""
        run = subprocess.run(
            [*wrapper, parts.part('QEMU_BINARY'), '-nodefaults', '-display',
             'none', *args], check=False, text=True, timeout=PATIENCE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 1, run.stdout)
        return run.stdout

    def test_start_up_names_the_pages_that_lack(self):
        with self.needed(HugePages().pool(3)):
            text = self.output_of_failing(
                '-object', 'memory-backend-memfd,id=mem0,hugetlb=on,size=8M')
            self.assertIn("'mem0': 4 pages of 2048 KiB", text)

    def test_start_up_without_permission_names_the_path(self):
        if os.geteuid():
            self.skipTest('only root can give files away: run as root')
        with self.needed(HugePages().mount(',mode=0700')) as directory:
            os.chown(directory, 65534, 65534)
            text = self.output_of_failing(
                '-object', f'memory-backend-file,id=mem0,mem-path={directory},'
                'size=8M', wrapper=ORDINARY)
            self.assertIn(directory, text)
            self.assertIn('Permission denied', text)

    def test_hot_plug_names_the_pages_that_lack(self):
        with self.needed(HugePages().pool(3)), self.guest() as guest:
            with self.assertRaisesRegex(
                    parts.qmp_error(),
                    "'mem1': 4 pages of 2048 KiB"):
                guest.vm.cmd('object-add', qom_type='memory-backend-memfd',
                             id='mem1', hugetlb=True, size=8 * MiB)

    def test_plug_beyond_the_pool_warns_once_and_goes_on_with_more(self):
        trace = pathlib.Path(self.temp_file('trace'))
        with self.needed(HugePages().pool(128)) as pool, self.guest(
                backend='memory-backend-memfd,hugetlb=on,reserve=off',
                device_options=',prealloc=on', more_args=(
                    '-trace', 'virtio_mem_send_response', '-D', str(trace))
                ) as guest:
            guest.request(512 * MiB)
            guest.wait_plugged(256 * MiB)
            wait_until(lambda: REFUSED in trace.read_text('ascii'),
                       'the guest asks for no more')
            self.assertEqual(guest.device_info()['size'], 256 * MiB)
            # A guest that asks again meanwhile would get half of it.
            guest.vm.cmd('stop')
            pool.make_available(128)
            guest.vm.cmd('cont')
            guest.wait_plugged(512 * MiB)
            pattern.fill(guest, '/mem/used', 400)
            guest.ask('rm /mem/used')
            guest.resize(0)
        warnings = [line for line in guest.vm.get_log().splitlines()
                    if 'warning: ' in line]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertRegex(warnings[0],
                         "'mem0'.* more huge pages of 2048 KiB .*"
                         'hugepages-2048kB/nr_hugepages')


if __name__ == '__main__':
    virtio_mem_tap.main()
