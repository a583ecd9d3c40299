"""The ways in which memory is populated and given back, and measured.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import dataclasses

import backends
import bare_threads
from measure import Row


@dataclasses.dataclass(frozen=True)
class Way:
    """What memory it is, how many threads work, and what is in the way."""

    backend: backends.Backend
    suffix: str = ''
    nb_threads: int = 2
    wrapper: tuple = ()
    polls: bool = False

    def name(self, measure):
        """The row of a measure."""
        return f'{measure}, {self.backend.name}{self.suffix}'

    def device_options(self, run):
        """Stock always has one thread."""
        threads = '' if run.emulator == 'stock' else \
            f',prealloc-threads={self.nb_threads}'
        return f',prealloc=on{threads}{run.device_options}'

    def rows(self, measure, unit, bar):
        """Yield that of a measure, and that of its part of bare threads.

        A guest that polls takes from the threads what bare ones have.
        """
        yield Row(self.name(measure), unit, bar)
        if not self.polls:
            yield Row(bare_threads.name_of(self.name(measure)), '',
                      bare_threads.BAR)

    def bare_threads(self, run, size):
        """Return the speeds of as many bare threads; or None."""
        return None if self.polls else bare_threads.measure(
            run, self.backend, size, self.nb_threads, self.wrapper)


PLAIN = tuple(Way(backend) for backend in (
    backends.ANONYMOUS, backends.ANONYMOUS_4K, backends.MEMFD,
    backends.HUGETLB))
HINDERED = tuple(Way(backend, **options)
                 for backend in (backends.ANONYMOUS, backends.MEMFD)
                 for options in (
                     {'suffix': ', guest polls', 'polls': True},
                     {'suffix': ', one processor',
                      'wrapper': ('taskset', '-c', '0')},
                     {'suffix': ', 8 threads', 'nb_threads': 8},
                     {'suffix': ', 16 threads', 'nb_threads': 16}))
WAYS = PLAIN + HINDERED
