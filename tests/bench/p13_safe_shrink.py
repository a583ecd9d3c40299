"""P13: what does it cost to shrink in mode safe, if the guest needs nothing?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import host
from linux_guest import check_quiet, linux_guest
from measure import Group, Row, at_most
from virtio_mem_guest import format_size

BALLOON = ('-device', 'virtio-balloon-pci,id=balloon0')
RATIO = 'safe : plain'
ROWS = (Row('plain', 's'), Row('safe', 's'), Row(RATIO, '', at_most(1.3)))


def _resize(guest, monitor, size, mode='plain'):
    """Return the seconds that it takes."""
    guest.wait_driver_idle()
    monitor.cmd('qom-set', path='vm0', property='resize-mode', value=mode)
    start = time.monotonic()
    monitor.cmd('qom-set', path='vm0', property='requested-size', value=size)
    end = monitor.wait_plugged(lambda plugged: plugged == size, 600)
    return end - start


def run_once(run):
    """Grow and shrink one guest in both modes."""
    size = host.size()
    seconds = {}
    with linux_guest(run.directory, region_size=size, more_args=BALLOON,
                     device_options=run.device_options) as (guest, monitor):
        guest.wait_boot()
        guest.ask('modprobe virtio_balloon')
        before = guest.mem_total()
        for mode in ('plain', 'safe'):
            _resize(guest, monitor, size)
            guest.wait_mem_total(before + size)
            seconds[mode] = _resize(guest, monitor, 0, mode)
            guest.wait_mem_total(before)
        check_quiet(guest)
    return {**seconds, RATIO: seconds['safe'] / seconds['plain']}


GROUP = Group('P13', 'Linux shrinks by '
              f'{format_size(host.size())} that it does not need', ROWS,
              run_once, ours_only=True)
