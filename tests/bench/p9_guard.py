"""P9: what does it cost that unplugged memory cannot be used?

SPDX-License-Identifier: GPL-2.0-or-later

Two machines differ in nothing but the guard and do the same in turn, so that
both find the same host.  Requests take less time than it may take the host to
find a processor, so QEMU has one and who measures has another.  Stock has no
guard.
"""

import contextlib
import os
import statistics

import host
from linux_guest import check_quiet, linux_guest
from measure import Group, MiB, Row, at_most, in_turn
from p3_resize import grow_and_shrink
from tiny_guest import PLUG, TinyGuest, UNPLUG

AT_ONCE = 128 * MiB
ROUNDS = 500
LINUX_ROUNDS = 6
GUARDS = ('on', 'off')
DEVICES = {'untouched': '', 'touched': ',prealloc=on'}
LINUX = 'Linux grows and shrinks'
HERE, THERE = 0, os.cpu_count() - 1


def _name(kind, content):
    return f'{kind} of 128 MiB, {content}'


def _rows():
    for content in DEVICES:
        for kind in ('PLUG', 'UNPLUG'):
            yield Row(_name(kind, content), 'on : off', at_most(1.05))
    yield Row(LINUX, 'on : off', at_most(1.02))


def _options(run, guard):
    return f',protect-unplugged={guard}{run.device_options}'


def _ratio(times):
    on, off = (statistics.median(times[guard]) for guard in GUARDS)
    return on / off


@contextlib.contextmanager
def _at(processor):
    """Stay on a processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _requests(run, content):
    """Plug and unplug again and again; return the two ratios."""
    plug, unplug = ({guard: [] for guard in GUARDS} for _ in range(2))
    with contextlib.ExitStack() as stack:
        guests = {}
        for guard in GUARDS:
            guests[guard] = stack.enter_context(
                TinyGuest(AT_ONCE, wrapper=('taskset', '-c', str(THERE)),
                          device=DEVICES[content] + _options(run, guard)))
        stack.enter_context(_at(HERE))
        for guest in guests.values():
            guest.start()
        nb_blocks = AT_ONCE // guests['on'].block_size
        for number in range(ROUNDS):
            for guard in in_turn(GUARDS, number):
                plug[guard].append(guests[guard].request(PLUG, 0, nb_blocks))
                unplug[guard].append(guests[guard].request(UNPLUG, 0,
                                                           nb_blocks))
    return {_name('PLUG', content): _ratio(plug),
            _name('UNPLUG', content): _ratio(unplug)}


def _linux(run):
    """Linux grows and shrinks as in P3, again and again."""
    taken = {guard: [] for guard in GUARDS}
    with contextlib.ExitStack() as stack:
        guests = {guard: stack.enter_context(linux_guest(
            run.directory, guard, region_size=host.size(),
            device_options=_options(run, guard))) for guard in GUARDS}
        for guest, _ in guests.values():
            guest.wait_boot()
        for number in range(LINUX_ROUNDS):
            for guard in in_turn(GUARDS, number):
                taken[guard].append(sum(grow_and_shrink(*guests[guard])))
        for guest, _ in guests.values():
            check_quiet(guest)
    return _ratio(taken)


def run_once(run):
    """Measure each with the guard and without."""
    host.touch(2 * AT_ONCE)
    values = {}
    for content in DEVICES:
        values.update(_requests(run, content))
    host.touch(host.size())
    values[LINUX] = _linux(run)
    return values


GROUP = Group('P9', 'with the guard and without', tuple(_rows()), run_once,
              ours_only=True)
