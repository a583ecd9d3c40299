"""P6: what does the mere maximum size cost?

SPDX-License-Identifier: GPL-2.0-or-later

Nothing of it is touched: the backend reserves nothing.  QEMU's core keeps
bitmaps for all memory, so start and RSS are those with the device less those
of the same machine without it.
"""

import statistics
import time

from measure import Group, MiB, Row, at_most, at_most_of_stock
from tiny_guest import GiB, PLUG, STATE, TinyGuest, UNPLUG, UNPLUG_ALL

TiB = 1 << 40
SIZES = {'8 GiB': 8 * GiB, '256 GiB': 256 * GiB, '16 TiB': 16 * TiB}
SMALL, MIDDLE, LARGE = SIZES
LONGEST_STATE = 65535
NB_PLUGS = 300
NB_STATES = 30

FLAT = at_most(1.1)
ROWS = (
    *(Row(f'start without device, {size}', 'ms') for size in SIZES),
    *(Row(f'start with device, {size}', 'ms') for size in (SMALL, MIDDLE)),
    Row(f'start with device, {LARGE}', 'ms', at_most_of_stock(1.02)),
    Row(f'start with : without, {LARGE}', '', FLAT),
    *(Row(f'RSS without device, {size}', 'MiB') for size in SIZES),
    *(Row(f'RSS for device, {size}', 'MiB') for size in SIZES),
    # Both carry the noise of some pages.
    Row(f'RSS beyond bitmap, {LARGE} - {SMALL}', 'MiB', at_most(0.5)),
    *(Row(f'PLUG of 1 block, {size}', 'us') for size in SIZES),
    Row(f'PLUG of 1 block, {LARGE} : {SMALL}', '', FLAT),
    # Looks at each word of the bitmap.
    *(Row(f'UNPLUG ALL of 1 block, {size}', 'us') for size in SIZES),
    *(Row(f'STATE of {LONGEST_STATE} blocks, {size}', 'us')
      for size in (MIDDLE, LARGE)),
    Row(f'STATE of {LONGEST_STATE} blocks, {LARGE} : {MIDDLE}', '', FLAT),
)


def _microseconds(guest, count, *request):
    """The median: one that was interrupted does not count."""
    return statistics.median(guest.request(*request)
                             for _ in range(count)) * 1e6


def _plug(guest):
    """Plug and unplug the same block: only PLUG counts."""
    taken = []
    for _ in range(NB_PLUGS):
        taken.append(guest.request(PLUG, 0, 1))
        guest.request(UNPLUG, 0, 1)
    return statistics.median(taken) * 1e6


def _unplug_all(guest):
    taken = []
    for _ in range(NB_STATES):
        guest.request(PLUG, 0, 1)
        taken.append(guest.request(UNPLUG_ALL))
    return statistics.median(taken) * 1e6


def _start(size, device):
    """Return a guest that is to be entered, and the time of the attempt."""
    return time.monotonic(), TinyGuest(
        size, backend='memory-backend-ram,reserve=off', device=device,
        args=('-cpu', 'max,phys-bits=46'))


def _measure_without(name, size):
    begin, machine = _start(size, device=None)
    with machine as guest:
        return {f'start without device, {name}':
                (time.monotonic() - begin) * 1000,
                f'RSS without device, {name}': guest.rss() / MiB}


def _measure_with(run, name, size):
    begin, machine = _start(size, run.device_options)
    with machine as guest:
        ready = time.monotonic() - begin
        rss = guest.rss()
        guest.start()
        values = {f'start with device, {name}': ready * 1000,
                  f'RSS for device, {name}': rss / MiB,
                  f'PLUG of 1 block, {name}': _plug(guest),
                  f'UNPLUG ALL of 1 block, {name}': _unplug_all(guest)}
        if size // guest.block_size >= LONGEST_STATE:
            values[f'STATE of {LONGEST_STATE} blocks, {name}'] = \
                _microseconds(guest, NB_STATES, STATE, 0, LONGEST_STATE)
        return values, size // guest.block_size


def derive(values, blocks):
    """Add what follows from all starts; blocks are the numbers of blocks."""
    for name in SIZES:
        values[f'RSS for device, {name}'] -= \
            values[f'RSS without device, {name}']
    bitmaps = (blocks[LARGE] - blocks[SMALL]) / 8 / MiB
    values[f'RSS beyond bitmap, {LARGE} - {SMALL}'] = \
        values[f'RSS for device, {LARGE}'] - \
        values[f'RSS for device, {SMALL}'] - bitmaps
    values[f'start with : without, {LARGE}'] = \
        values[f'start with device, {LARGE}'] / \
        values[f'start without device, {LARGE}']
    for what, small in (('PLUG of 1 block', SMALL),
                        (f'STATE of {LONGEST_STATE} blocks', MIDDLE)):
        values[f'{what}, {LARGE} : {small}'] = \
            values[f'{what}, {LARGE}'] / values[f'{what}, {small}']
    return values


def run_once(run):
    """Two starts for each size."""
    values, blocks = {}, {}
    for name, size in SIZES.items():
        values.update(_measure_without(name, size))
        found, blocks[name] = _measure_with(run, name, size)
        values.update(found)
    return derive(values, blocks)


GROUP = Group('P6', f'maximum up to {LARGE}', ROWS, run_once)
