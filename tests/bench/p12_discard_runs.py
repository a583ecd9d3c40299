"""P12: what does it cost to give back a fragmented device?

SPDX-License-Identifier: GPL-2.0-or-later

Every second block is plugged and was never touched, so that nothing is to be
given back: what is measured is the way there.  The guard is off, stock has
none: with it, each of the runs takes two of the host's mappings.
"""

import time

from measure import Group, MiB, Row, at_most_of_stock
from tiny_guest import PLUG, TinyGuest, UNPLUG_ALL

NB_RUNS = 260000
BLOCK_SIZE = MiB
UNPLUG, RESET = (f'{what}, {NB_RUNS} runs'
                 for what in ('UNPLUG ALL', 'system reset'))
ROWS = tuple(Row(name, 'ms', at_most_of_stock(1)) for name in (UNPLUG, RESET))


def _options(run):
    guard = '' if run.emulator == 'stock' else ',protect-unplugged=off'
    return f',block-size={BLOCK_SIZE}{guard}{run.device_options}'


def _plug(guest):
    guest.start()
    guest.request_all((PLUG, 2 * number, 1) for number in range(NB_RUNS))
    guest.expect_plugged(NB_RUNS * BLOCK_SIZE)


def _unplug_all(guest):
    taken = guest.request(UNPLUG_ALL)
    guest.expect_plugged(0)
    return taken * 1000


def _system_reset(guest):
    guest.monitor.events.clear()
    start = time.monotonic()
    guest.monitor.cmd('system_reset')
    guest.monitor.wait_event('RESET')
    taken = time.monotonic() - start
    guest.expect_plugged(0)
    return taken * 1000


def run_once(run):
    """Both in one start."""
    values = {}
    with TinyGuest(2 * NB_RUNS * BLOCK_SIZE, device=_options(run),
                   backend='memory-backend-ram,reserve=off',
                   args=('-cpu', 'max,phys-bits=46')) as guest:
        for name, measure in ((UNPLUG, _unplug_all), (RESET, _system_reset)):
            _plug(guest)
            values[name] = measure(guest)
    return values


GROUP = Group('P12', 'give back many runs', ROWS, run_once)
