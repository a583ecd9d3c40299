"""The kinds of host memory that are measured.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import dataclasses

import host

PLAIN = 'memory-backend-ram'
SHARED = 'memory-backend-memfd'


@dataclasses.dataclass(frozen=True)
class Backend:
    """A memory backend, and what the host needs for it."""

    name: str
    option: str
    is_pool: bool = False
    is_small: bool = False

    @property
    def is_shared(self):
        """Whether a file holds it."""
        return self.option.startswith(SHARED)

    @property
    def kind(self):
        """What bare-threads calls it."""
        if self.is_pool:
            return 'hugetlb'
        return 'memfd' if self.is_shared else 'anonymous'

    def prepared(self, size):
        """Return a context in which QEMU can be started with it."""
        if self.is_pool:
            return host.huge_pages(size)
        host.touch(size)
        return host.small_pages() if self.is_small else \
            contextlib.nullcontext()


ANONYMOUS = Backend('anonymous, THP', PLAIN)
ANONYMOUS_4K = Backend('anonymous, 4 KiB', PLAIN, is_small=True)
MEMFD = Backend('memfd', SHARED)
HUGETLB = Backend('hugetlb', f'{SHARED},hugetlb=on,hugetlbsize=2M',
                  is_pool=True)
