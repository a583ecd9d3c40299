"""P8: how long does a guest sleep after a migration?  P10: what moves?

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

import host
from linux_guest import check_quiet, linux_guest
from measure import Group, Row, at_most, at_most_of_stock
from monitor import MonitorError
from tiny_guest import GiB, MiB, TinyGuest, TinyGuestError
from virtio_mem_guest import wait_until

BUSY = 'virtio_mem_send_response type=2'
LIMIT = 90      # Linux' first pause is 50 s long
WAKE = 'end of migration to next plug'
BYTES, TIME = 'precopy: bytes', 'precopy: time'
PREALLOC = 'precopy to prealloc: time'
SIZE, PLUGGED = 64 * GiB, 1 * GiB


def _migrate(source, uri, bandwidth):
    source.cmd('migrate-set-parameters', **{'max-bandwidth': bandwidth,
                                            'downtime-limit': 300})
    source.cmd('migrate', uri=uri)


def _wait(condition, what, timeout=120):
    """Return the time at which a condition was found true."""
    wait_until(condition, f'not yet: {what}', timeout, 0.005)
    return time.monotonic()


def _wait_migrated(source):
    def is_over():
        status = source.cmd('query-migrate').get('status')
        if status in ('failed', 'cancelled'):
            raise MonitorError(f'migration {status}')
        return status == 'completed'
    _wait(is_over, 'migration completed')
    return source.cmd('query-migrate')


def _hear_busy(run, monitor):
    """Have the guest ask for memory while it cannot get any."""
    trace = run.directory / 'source.trace'
    monitor.cmd('qom-set', path='vm0', property='requested-size',
                value=2 * PLUGGED)
    _wait(lambda: BUSY in trace.read_text(encoding='utf-8'),
          'the guest is told BUSY')


def wake(run):
    """Seconds between the guest's first steps and its first plug."""
    options = {'region_size': 4 * GiB, 'device_options': run.device_options}
    uri = f'unix:{run.directory}/migration'
    with linux_guest(run.directory, 'source', **options) as (guest, source), \
         linux_guest(run.directory, 'target', **options,
                     more_args=('-incoming', uri)) as (there, target):
        guest.wait_boot()
        guest.resize(PLUGGED)
        _migrate(source, uri, 1 * MiB)
        _hear_busy(run, source)
        source.cmd('migrate-set-parameters', **{'max-bandwidth': GiB})
        _wait_migrated(source)
        start = _wait(lambda: target.cmd('query-status')['running'],
                      'the target runs')
        if target.device()['requested-size'] != 2 * PLUGGED:
            target.cmd('qom-set', path='vm0', property='requested-size',
                       value=2 * PLUGGED)
        end = target.wait_plugged(lambda size: size > PLUGGED, LIMIT)
        check_quiet(there)
    return {WAKE: end - start}


def _precopy(run, size, byte=None, target_options=''):
    """Migrate a guest that does nothing; return what its source knows."""
    options = {'backend': 'memory-backend-ram,reserve=off'}
    uri = f'unix:{run.directory}/migration'
    host.touch(3 * size)
    with TinyGuest(SIZE, **options, device=run.device_options) as source, \
         TinyGuest(SIZE, **options, device=run.device_options + target_options,
                   args=('-incoming', uri)) as target:
        source.start()
        source.plug_up_to(size)
        if byte is not None:
            source.fill(source.address, size, byte)
        _migrate(source.monitor, uri, 1024 * GiB)
        facts = _wait_migrated(source.monitor)
        target.expect_plugged(size)
        if target_options and target.rss() < size:
            raise TinyGuestError(f'the target has {target.rss() >> 20} MiB')
    return facts


def precopy(run):
    """Bytes and milliseconds; and where the target allocates memory first.

    Stock does so with one thread.  What holds nothing is not copied, so that
    little else takes time.
    """
    facts = _precopy(run, PLUGGED, byte=0x5a)
    threads = '' if run.emulator == 'stock' else ',prealloc-threads=2'
    empty = _precopy(run, host.size() // 2,
                     target_options=f',prealloc=on{threads}')
    return {BYTES: facts['ram']['transferred'] / MiB,
            TIME: facts['total-time'], PREALLOC: empty['total-time']}


GROUPS = (
    Group('P8', 'guest that heard BUSY', (Row(WAKE, 's', at_most(1)),), wake,
          once_is_enough=True),
    Group('P10', 'precopy of 64 GiB, 1 GiB plugged',
          (Row(BYTES, 'MiB', at_most_of_stock(1)),
           Row(TIME, 'ms', at_most_of_stock(1)),
           Row(PREALLOC, 'ms', at_most_of_stock(1))), precopy),
)
