"""P3: how long does Linux take to grow and to shrink?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import host
from linux_guest import check_quiet, linux_guest
from measure import Group, Row, at_most_of_stock
from virtio_mem_guest import format_size

BOTH = 'grow and shrink'
ROWS = (Row(BOTH, 's', at_most_of_stock(1.02)), Row('grow', 's'),
        Row('shrink', 's'))


def _resize(monitor, size):
    start = time.monotonic()
    monitor.cmd('qom-set', path='vm0', property='requested-size', value=size)
    return monitor.wait_plugged(lambda plugged: plugged == size, 600) - start


def grow_and_shrink(guest, monitor):
    """Grow, wait until all is online, shrink; return the seconds of both."""
    size = host.size()
    guest.wait_driver_idle()
    before = guest.mem_total()
    grow = _resize(monitor, size)
    guest.wait_mem_total(before + size)
    shrink = _resize(monitor, 0)
    guest.wait_mem_total(before)
    return grow, shrink


def run_once(run):
    """One guest, once."""
    with linux_guest(run.directory, region_size=host.size(),
                     device_options=run.device_options) as (guest, monitor):
        guest.wait_boot()
        grow, shrink = grow_and_shrink(guest, monitor)
        check_quiet(guest)
    return {BOTH: grow + shrink, 'grow': grow, 'shrink': shrink}


GROUP = Group('P3', f'Linux grows and shrinks {format_size(host.size())}',
              ROWS, run_once)
