"""P2: how fast is memory preallocated?

Each request takes this driver some time, too; so there are few, for much.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import bare_threads
import host
from measure import GiB, Group, at_least_times_stock
from tiny_guest import TinyGuest
from ways import WAYS

POPULATE = 'populate'


def _populate(run, way, size):
    """Return the speed of the device."""
    with TinyGuest(size, backend=way.backend.option, wrapper=way.wrapper,
                   device=way.device_options(run),
                   by_interrupt=not way.polls) as guest:
        taken = guest.start().plug_up_to(size, at_once=GiB, polls=way.polls)
    return size / GiB / taken


def run_once(run):
    """One start for each way; half the size is plenty."""
    size = host.size() // 2
    values = {}
    for way in WAYS:
        name = way.name(POPULATE)
        with way.backend.prepared(size):
            bare = way.bare_threads(run, size)
            values[name] = _populate(run, way, size)
        if bare:
            values[bare_threads.name_of(name)] = values[name] / bare[0]
    return values


GROUP = Group('P2', 'populate',
              tuple(row for way in WAYS for row in way.rows(
                  POPULATE, 'GiB/s', at_least_times_stock(1))), run_once)
