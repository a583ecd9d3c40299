"""P5: how long does it take to give back all memory, and who has to wait?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import functools
import time

import backends
import bare_threads
import host
from measure import Group, Row, at_most, at_most_of_stock
from monitor import Poller
from tiny_guest import GiB, MiB, TinyGuest, TinyGuestError, UNPLUG_ALL

BACKENDS = (backends.ANONYMOUS, backends.ANONYMOUS_4K, backends.MEMFD,
            backends.HUGETLB)
NOT_SLOWER = at_most_of_stock(1)


def _names(backend):
    return [f'{what}, {backend.name}' for what in
            ('UNPLUG ALL', 'monitor during UNPLUG ALL', 'system reset')]


def _rows():
    for backend in BACKENDS:
        names = _names(backend)
        for name, bar in zip(names, (NOT_SLOWER, at_most(5), NOT_SLOWER)):
            yield Row(name, 'ms', bar)
        yield Row(bare_threads.name_of(names[0]), '', bare_threads.BAR)


def _expect_given_back(guest):
    """Nothing is plugged, and the host has its memory."""
    guest.expect_plugged(0)
    rss = guest.rss()
    if rss > 512 * MiB:
        raise TinyGuestError(f'QEMU keeps {rss >> 20} MiB')


def _unplug_all(size, guest):
    """Return how many milliseconds it takes, the second time."""
    guest.request(UNPLUG_ALL)
    _touch_all(guest, size)
    taken = guest.request(UNPLUG_ALL)
    _expect_given_back(guest)
    return taken * 1000


def _stall(run, guest):
    """Return the milliseconds of the longest round trip during the same.

    Whoever asks all the time takes a processor for that.
    """
    with Poller(guest.path('poll'), guest.vm.get_pid(),
                run.directory) as poller:
        start = time.monotonic()
        guest.request(UNPLUG_ALL)
        end = time.monotonic()
    _expect_given_back(guest)
    return 1000 * max(sample.latency for sample in poller.samples
                      if sample.sent + sample.latency >= start
                      and sample.sent <= end)


def _system_reset(guest):
    guest.monitor.events.clear()
    start = time.monotonic()
    guest.monitor.cmd('system_reset')
    guest.monitor.wait_event('RESET')
    taken = time.monotonic() - start
    _expect_given_back(guest)
    return taken * 1000


def _touch_all(guest, size):
    guest.plug_up_to(size)
    if guest.rss() < size:
        raise TinyGuestError(f'QEMU has {guest.rss() / GiB} GiB only')


def _discard(run, backend, size):
    names = _names(backend)
    values = []
    with backend.prepared(size):
        _, bare = bare_threads.measure(run, backend, size)
        with TinyGuest(size, backend=backend.option, with_poll=True,
                       by_interrupt=True,
                       device=f',prealloc=on{run.device_options}') as guest:
            guest.start()
            for measure in (functools.partial(_unplug_all, size),
                            functools.partial(_stall, run), _system_reset):
                _touch_all(guest, size)
                values.append(measure(guest))
    found = dict(zip(names, values))
    speed = size / GiB / (found[names[0]] / 1000)
    return {**found, bare_threads.name_of(names[0]): speed / bare}


def run_once(run):
    """One start for each backend."""
    values = {}
    for backend in BACKENDS:
        values.update(_discard(run, backend, host.size()))
    return values


GROUP = Group('P5', 'give back', tuple(_rows()), run_once)
