"""Settings of the host that tests change, and put back.

SPDX-License-Identifier: GPL-2.0-or-later

Whoever changes a setting holds a lock on it, so that several tests, also of
several checkouts, take turns.  virtio-mem-busy-test takes the same lock.
"""

import contextlib
import fcntl
import os
from pathlib import Path
import subprocess
import tempfile

from virtio_mem_guest import MiB

KERNEL = Path('/sys/kernel/mm')


class HostError(Exception):
    """The host cannot be set up as a test wants it: why, and the remedy."""


@contextlib.contextmanager
def settings(directory, values):
    """Set files in a directory of sysfs, and put them back in any case.

    The block may set them again.
    """
    directory = Path(directory)
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = {name: (directory / name).read_text(encoding='ascii')
                  for name in values}
        try:
            for name, value in values.items():
                set_value(directory / name, value)
            yield
        finally:
            for name, value in before.items():
                set_value(directory / name, value)
    finally:
        os.close(lock)


def set_value(path, value):
    """Write a setting."""
    try:
        path.write_text(str(value), encoding='ascii')
    except OSError as error:
        raise HostError(f'cannot write {path} ({error.strerror}): '
                        f'run as root') from None


class HugePages:
    """The host's pool of huge pages of one size."""

    def __init__(self, page_size=2 * MiB):
        self.page_size = page_size
        self.directory = (KERNEL / 'hugepages' /
                          f'hugepages-{page_size >> 10}kB')

    def count(self, what):
        """Return one of the pool's numbers of pages: nr, free or resv."""
        path = self.directory / f'{what}_hugepages'
        return int(path.read_text(encoding='ascii'))

    def available(self):
        """Return how many pages nobody has reserved."""
        return self.count('free') - self.count('resv')

    def make_available(self, nb_pages):
        """Let there be exactly so many available pages."""
        wanted = self.count('nr') + nb_pages - self.available()
        set_value(self.directory / 'nr_hugepages', wanted)
        if self.available() != nb_pages:
            raise HostError(
                f'the host has no room for {nb_pages} huge pages: free some '
                f'memory, or reboot it with hugepagesz={self.page_size} '
                f'hugepages={wanted}')

    @contextlib.contextmanager
    def pool(self, nb_pages):
        """Let there be so many available pages in a block."""
        if not self.directory.exists():
            raise HostError(f'the host knows no huge pages of '
                            f'{self.page_size >> 10} KiB')
        before = self.count('nr')
        with settings(self.directory, {'nr_hugepages': before}):
            self.make_available(nb_pages)
            yield self

    @contextlib.contextmanager
    def mount(self, options=''):
        """Mount a hugetlbfs in a block, which gets its path."""
        with tempfile.TemporaryDirectory() as directory:
            mount = subprocess.run(
                ['mount', '-t', 'hugetlbfs', '-o',
                 f'pagesize={self.page_size}{options}', 'none', directory],
                check=False, capture_output=True, text=True)
            if mount.returncode:
                reason = mount.stderr.partition('\n')[0]
                raise HostError(f'cannot mount a hugetlbfs ({reason}): run as '
                                'root')
            try:
                yield directory
            finally:
                subprocess.run(['umount', '--lazy', directory], check=True)


class KSM:
    """The host's merging of equal pages."""

    DIRECTORY = KERNEL / 'ksm'

    def count(self, what):
        """Return one of KSM's numbers: pages_sharing, full_scans."""
        path = self.DIRECTORY / what
        return int(path.read_text(encoding='ascii'))

    @contextlib.contextmanager
    def running(self):
        """Merge as fast as one CPU can, in a block; then undo it."""
        if not self.DIRECTORY.exists():
            raise HostError('the host\'s kernel has no KSM')
        fast = {'run': 1, 'pages_to_scan': 20000, 'sleep_millisecs': 1}
        # Absent before Linux 6.7: it skips pages that did not merge before.
        if (self.DIRECTORY / 'smart_scan').exists():
            fast['smart_scan'] = 0
        with settings(self.DIRECTORY, fast):
            try:
                yield self
            finally:
                set_value(self.DIRECTORY / 'run', 2)
