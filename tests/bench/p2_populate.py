"""P2: how fast is memory preallocated?

Each request takes this driver some time, too; so there are few, for much.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import backends
import host
from measure import GiB, Group, Row, at_least_times_stock
from tiny_guest import TinyGuest

BACKENDS = (backends.ANONYMOUS, backends.ANONYMOUS_4K, backends.MEMFD,
            backends.HUGETLB)
BAR = at_least_times_stock(1.8)
ROWS = tuple(Row(f'populate, {backend.name}', 'GiB/s', BAR)
             for backend in BACKENDS)


def _populate(run, backend, size):
    with backend.prepared(size), \
         TinyGuest(size, backend=backend.option,
                   device=f',prealloc=on{run.device_options}') as guest:
        return size / GiB / guest.start().plug_up_to(size, at_once=GiB)


def run_once(run):
    """One start for each backend; half the size is plenty."""
    return {row.name: _populate(run, backend, host.size() // 2)
            for row, backend in zip(ROWS, BACKENDS)}


GROUP = Group('P2', 'populate', ROWS, run_once)
