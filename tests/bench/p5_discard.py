"""P5: how long does it take to give back all memory, and who has to wait?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import functools
import time

import bare_threads
import host
from measure import Group, Row, at_most, at_most_of_stock
from monitor import Poller
from tiny_guest import GiB, MiB, TinyGuest, TinyGuestError, UNPLUG_ALL
from ways import PLAIN, WAYS

NOT_SLOWER = at_most_of_stock(1)
UNPLUG, STALL, RESET = ('UNPLUG ALL', 'monitor during UNPLUG ALL',
                        'system reset')


def _rows():
    for way in WAYS:
        yield from way.rows(UNPLUG, 'ms', NOT_SLOWER)
        if way in PLAIN:
            yield Row(way.name(STALL), 'ms', at_most(5))
            yield Row(way.name(RESET), 'ms', NOT_SLOWER)


def _expect_given_back(guest):
    """Nothing is plugged, and the host has its memory."""
    guest.expect_plugged(0)
    rss = guest.rss()
    if rss > 512 * MiB:
        raise TinyGuestError(f'QEMU keeps {rss >> 20} MiB')


def _unplug_all(size, way, guest):
    """Return how many milliseconds it takes, the second time."""
    guest.request(UNPLUG_ALL)
    _touch_all(guest, size)
    taken = guest.request(UNPLUG_ALL, polls=way.polls)
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


def _measures(run, way, size):
    """Map what is measured to how."""
    found = {UNPLUG: functools.partial(_unplug_all, size, way)}
    if way in PLAIN:
        found[STALL] = functools.partial(_stall, run)
        found[RESET] = _system_reset
    return found


def _discard(run, way, size):
    values = {}
    with way.backend.prepared(size):
        bare = way.bare_threads(run, size)
        with TinyGuest(size, backend=way.backend.option, wrapper=way.wrapper,
                       device=way.device_options(run), with_poll=True,
                       by_interrupt=not way.polls) as guest:
            guest.start()
            for what, measure in _measures(run, way, size).items():
                _touch_all(guest, size)
                values[way.name(what)] = measure(guest)
    if bare:
        name = way.name(UNPLUG)
        speed = size / GiB / (values[name] / 1000)
        values[bare_threads.name_of(name)] = speed / bare[1]
    return values


def run_once(run):
    """One start for each way; half the size is plenty for the last."""
    values = {}
    for way in WAYS:
        size = host.size() if way in PLAIN else host.size() // 2
        values.update(_discard(run, way, size))
    return values


GROUP = Group('P5', 'give back', tuple(_rows()), run_once)
