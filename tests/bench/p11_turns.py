"""P11, second part: two guests that take turns under one budget.

SPDX-License-Identifier: GPL-2.0-or-later

Each has 1 GiB and a device of 3 GiB; a host of 4 GiB, on which nothing else
runs, keeps 1 GiB for itself.  What is left is enough for one to grow, while the
other waits until the first has given back what it does not need any more.
"""

import contextlib
import time

from linux_guest import check_quiet, linux_guest
from measure import GiB, MiB, Row, at_most, in_each_run
from virtio_mem_autosize import Autosize, Hogs, take
from virtio_mem_busy import oom_kills

BOOT, REGION, ENOUGH = 1 * GiB, 3 * GiB, 512 * MiB
HOST, KEEP = 4 * GiB, 1 * GiB
FIRST, SECOND = 'first of two grows', 'second, when the first is done'
AGAIN, GRANTED = 'first again', 'granted to both, at most'
KILLED = 'processes killed, of both'

ROWS = (Row(FIRST, 's'), Row(SECOND, 's'), Row(AGAIN, 's'),
        Row(GRANTED, 'GiB', in_each_run(at_most((HOST - KEEP) / GiB))),
        Row(KILLED, '', in_each_run(at_most(0))))


@contextlib.contextmanager
def _guest(run, name):
    """Boot a guest; give it, its processes and the monitor for the tool."""
    monitor = run.directory / f'{name}.tool'
    args = ('-device', 'virtio-balloon-pci,free-page-reporting=on',
            '-qmp', f'unix:{monitor},server=on,wait=off')
    with linux_guest(run.directory, name, boot_size=BOOT, region_size=REGION,
                     device_options=run.device_options, more_args=args,
                     kernel_options='virtio_balloon.load') as (guest, _):
        guest.wait_boot()
        yield guest, Hogs(guest), monitor
        check_quiet(guest)


def _size(guest):
    return guest.device_info()['size']


class _Turns:
    """What guests take, and what they were granted most."""

    def __init__(self, *guests):
        self._guests = guests
        self.granted = 0

    def _look(self):
        devices = [guest.device_info() for guest in self._guests]
        self.granted = max(self.granted, sum(
            BOOT + max(device['size'], device['requested-size'])
            for device in devices))

    def take(self, guest, hogs, is_enough=None):
        """Return the seconds until a guest has enough."""
        start = time.monotonic()
        take(guest, hogs, is_enough or (lambda: _size(guest) >= ENOUGH),
             self._look)
        return time.monotonic() - start


def run_once(run):
    """The second guest wants memory while the first holds it."""
    with _guest(run, 'first') as (first, hogs, one), \
            _guest(run, 'second') as (second, others, two), \
            Autosize('--host-free', KEEP, one, two, host_size=HOST,
                     guests=(first, second)) as tool:
        turns, values = _Turns(first, second), {}
        values[FIRST] = turns.take(first, hogs)
        turns.take(second, others,
                   lambda: 'the host has none' in tool.last_line(two))
        hogs.free()
        values[SECOND] = turns.take(second, others)
        others.free()
        values[AGAIN] = turns.take(first, hogs)
        tool.end()
        values[GRANTED] = turns.granted / GiB
        values[KILLED] = oom_kills(first) + oom_kills(second)
    return values
