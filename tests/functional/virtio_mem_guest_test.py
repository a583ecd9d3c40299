"""What all tests with a Linux guest have in common.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import tempfile
import unittest

import virtio_mem_parts as parts
import virtio_mem_pattern as pattern
from virtio_mem_architectures import X86_64
from virtio_mem_guest import GiB, Guest


class GuestTest(unittest.TestCase):
    """A test that boots guests, where that is possible.

    A subclass with old_kernel repeats the cases with the older Linux, all of
    them when VIRTIO_MEM_TEST_ALL is set, else those that in_ci names.
    """

    # Names of parts that not all tests need.
    needs = ()
    old_kernel = False
    architecture = X86_64

    def setUp(self):
        troubles = parts.troubles_of(
            *self.architecture.machine_parts, *self.needs,
            *self.architecture.guest_parts(self.old_kernel))
        if troubles:
            self.skipTest('; '.join(troubles))

    def temp_file(self, name):
        """Return the path of a file that goes away with the test."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f'{directory.name}/{name}'

    def require_host_memory(self, size):
        """Skip a test that would make the host swap."""
        available = parts.mem_available()
        if available < size:
            self.skipTest(f'{size >> 20} MiB of host memory needed, '
                          f'{available >> 20} MiB available')

    @contextlib.contextmanager
    def guest(self, **options):
        """Boot a guest; in the end its kernel must have nothing to say."""
        guest = Guest(old_kernel=self.old_kernel,
                      architecture=self.architecture, **options)
        try:
            with guest:
                guest.wait_boot()
                yield guest
                self.assertEqual(guest.complaints(), [])
        except BaseException:
            for line in (guest.vm.get_log() or '').splitlines():
                print(f'# QEMU: {line}')
            raise


class GrowingTest:
    """The one case that each kind of machine has, beside GuestTest."""

    def test_guest_grows_and_gives_all_back(self):
        with self.guest() as guest:
            boot_total = guest.mem_total()
            guest.resize(1 * GiB)
            self.assertEqual(guest.mem_total(), boot_total + 1 * GiB)
            pattern.write(guest, 3)
            self.assertEqual(pattern.damaged_files(guest, 3), [])
            self.assertGreaterEqual(guest.host_memory(), pattern.FILE_SIZE)
            pattern.erase(guest)
            guest.resize(0)
            self.assertEqual(guest.mem_total(), boot_total)
            self.assertEqual(guest.host_memory(), 0)
