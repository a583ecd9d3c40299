"""What all tests with a Linux guest have in common.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import unittest

import virtio_mem_parts as parts
from virtio_mem_guest import Guest


class GuestTest(unittest.TestCase):
    """A test that boots guests, where that is possible."""

    def setUp(self):
        troubles = parts.troubles()
        if troubles:
            self.skipTest('; '.join(troubles))

    def require_host_memory(self, size):
        """Skip a test that would make the host swap."""
        available = parts.mem_available()
        if available < size:
            self.skipTest(f'{size >> 20} MiB of host memory needed, '
                          f'{available >> 20} MiB available')

    @contextlib.contextmanager
    def guest(self, **options):
        """Boot a guest; in the end its kernel must have nothing to say."""
        with Guest(**options) as guest:
            try:
                guest.wait_boot()
                yield guest
                self.assertEqual(guest.complaints(), [])
            except BaseException:
                for line in guest.console().splitlines()[-20:]:
                    print(f'# guest: {line}')
                raise
