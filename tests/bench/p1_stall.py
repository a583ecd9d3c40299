"""P1: does the VM stall while Linux grows memory that is preallocated?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import host
import plot
from linux_guest import (Timer, check_quiet, initrd_with_timer, linux_guest)
from measure import Group, Row, at_most, at_most_of_stock, either
from monitor import Poller
from trace_log import longest_hold
from virtio_mem_guest import GuestError, format_size

BAR = either(at_most(5), at_most_of_stock(0.02))
MONITOR = 'longest monitor round trip, growing'
TIMER = 'longest gap of a guest timer, growing'
IDLE_MONITOR = 'longest monitor round trip, idle'
IDLE_TIMER = 'longest gap of a guest timer, idle'
# What a host does to each process is in an idle second, too.
BEYOND_IDLE = {f'{name}, less idle': (name, idle) for name, idle in
               ((MONITOR, IDLE_MONITOR), (TIMER, IDLE_TIMER))}
HOLD = 'longest lock hold, growing'
GROW = 'growing'
ROWS = (Row(MONITOR, 'ms', BAR), Row(IDLE_MONITOR, 'ms'),
        Row(TIMER, 'ms', BAR), Row(IDLE_TIMER, 'ms'),
        *(Row(name, 'ms', at_most(2)) for name in BEYOND_IDLE),
        Row(HOLD, 'ms'), Row(GROW, 's'))
IDLE = 1.0


def _longest(samples, start, end):
    """Milliseconds of the longest round trip that touches a span of time."""
    latencies = [sample.latency for sample in samples
                 if sample.sent + sample.latency >= start
                 and sample.sent <= end]
    if len(latencies) < 2:
        raise GuestError('the monitor was not watched')
    return max(latencies) * 1000


def _watch_growth(run, guest, monitor):
    """Return values and samples of an idle second and of the growth."""
    size = host.size()
    with Poller(run.directory / 'poll', guest.vm.get_pid(),
                run.directory) as poller:
        timer = Timer(guest)
        begin = time.monotonic()
        time.sleep(IDLE)
        idle_gap = timer.stop()
        timer = Timer(guest)
        start = time.monotonic()
        monitor.cmd('qom-set', path='vm0', property='requested-size',
                    value=size)
        end = monitor.wait_plugged(lambda plugged: plugged == size, 600,
                                   pause=0.05)
        gap = timer.stop()
    samples = poller.samples
    return samples, start, {
        MONITOR: _longest(samples, start, end), TIMER: gap,
        IDLE_MONITOR: _longest(samples, begin, begin + IDLE),
        IDLE_TIMER: idle_gap, GROW: end - start}


def run_once(run):
    """Boot, watch, grow."""
    host.touch(host.size())
    initrd = initrd_with_timer(run.directory)
    args = ('-qmp', f'unix:{run.directory}/poll,server=on,wait=off')
    options = f',prealloc=on{run.device_options}'
    with host.environment(GUEST_INITRD=str(initrd)), \
         linux_guest(run.directory, more_args=args, device_options=options,
                     region_size=host.size()) as (guest, monitor):
        guest.wait_boot()
        before = guest.mem_total()
        samples, start, values = _watch_growth(run, guest, monitor)
        guest.wait_mem_total(before + host.size())
        check_quiet(guest)
    for name, (growing, idle) in BEYOND_IDLE.items():
        values[name] = max(values[growing] - values[idle], 0)
    values[HOLD] = longest_hold(run.directory / 'guest.trace')
    plot.write_samples(run.emulator, samples, start)
    return values


GROUP = Group('P1', f'Linux grows {format_size(host.size())}, prealloc=on',
              ROWS, run_once)
