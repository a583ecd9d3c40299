"""P2: how fast is memory preallocated?

Each request takes this driver some time, too; so there are few, for much.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import dataclasses

import backends
import bare_threads
import host
from measure import GiB, Group, Row, at_least_times_stock
from tiny_guest import TinyGuest

BAR = at_least_times_stock(1)


@dataclasses.dataclass(frozen=True)
class Way:
    """What memory is populated, and what is in the way."""

    backend: backends.Backend
    suffix: str = ''
    nb_threads: int = 2
    wrapper: tuple = ()
    polls: bool = False

    @property
    def name(self):
        """The row of its speed."""
        return f'populate, {self.backend.name}{self.suffix}'

    def device_options(self, run):
        """Stock always has one thread."""
        threads = '' if run.emulator == 'stock' else \
            f',prealloc-threads={self.nb_threads}'
        return f',prealloc=on{threads}{run.device_options}'

    def rows(self):
        """A guest that polls takes from the threads what bare ones have."""
        yield Row(self.name, 'GiB/s', BAR)
        if not self.polls:
            yield Row(bare_threads.name_of(self.name), '', bare_threads.BAR)

    def bare_threads(self, run, size):
        """Return the speed of as many bare threads."""
        return bare_threads.measure(run, self.backend, size, self.nb_threads,
                                    self.wrapper)[0]

    def populate(self, run, size):
        """Return the speed of the device."""
        with TinyGuest(size, backend=self.backend.option,
                       device=self.device_options(run),
                       wrapper=self.wrapper,
                       by_interrupt=not self.polls) as guest:
            taken = guest.start().plug_up_to(size, at_once=GiB,
                                             polls=self.polls)
        return size / GiB / taken


def _ways():
    for backend in (backends.ANONYMOUS, backends.ANONYMOUS_4K,
                    backends.MEMFD, backends.HUGETLB):
        yield Way(backend)
    for backend in (backends.ANONYMOUS, backends.MEMFD):
        yield Way(backend, ', guest polls', polls=True)
        yield Way(backend, ', one processor', wrapper=('taskset', '-c', '0'))
        yield Way(backend, ', 16 threads', nb_threads=16)


WAYS = tuple(_ways())


def run_once(run):
    """One start for each way; half the size is plenty."""
    size = host.size() // 2
    values = {}
    for way in WAYS:
        with way.backend.prepared(size):
            bare = 0 if way.polls else way.bare_threads(run, size)
            values[way.name] = way.populate(run, size)
        if bare:
            values[bare_threads.name_of(way.name)] = values[way.name] / bare
    return values


GROUP = Group('P2', 'populate', tuple(row for way in WAYS
                                      for row in way.rows()), run_once)
