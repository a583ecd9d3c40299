# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest by QEMU's monitor, QMP."""

import asyncio
import errno
import os
import re
import socket
import struct

from qemu.qmp import ExecuteError, QMPClient, QMPError

from config import parse_port
from guest import GuestError, PATIENCE, Reading, Refused, Reports
from law import Report, STALL_S, Sizes

DEVICES = ('/machine/peripheral', '/machine/peripheral-anon')
# Of the balloon.
INTERVAL = 'guest-stats-polling-interval'
# What shrinks safely.
RESIZE = 'memory-device-resize'
# It gives up before the law does, and can say why.
STALL_TIMEOUT_S = STALL_S - 2
# For the end of a job that was cancelled.
END_S = 5
# What it is to connect where nothing listens, on one address or on several.
NO_LISTENER = (errno.ECONNREFUSED, errno.ENOENT)
# A statistic that the guest does not have.
ABSENT = (1 << 64) - 1


def connected_socket(path):
    """Connect to a Unix socket, without waiting for others to leave it."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def peer(sock):
    """Return the process at the other end of a Unix socket, if it is here."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack('3i', credentials)[0] or None


def resident(pid):
    """Return how much of a process is in memory, if that can be known."""
    try:
        with open(f'/proc/{pid}/statm', encoding='ascii') as statm:
            return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, ValueError, IndexError):
        return None


def started(pid):
    """Return when a process started; None: there is none."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8',
                  errors='replace') as stat:
            return stat.read().rpartition(')')[2].split()[19]
    except (OSError, IndexError):
        return None


class QMPGuest:
    """One virtio-mem device and the balloon beside it."""

    def __init__(self, config):
        self.config = config
        self.is_safe = False            # shrinks are jobs
        self._qmp = None
        self._pid = None
        self._started = None            # when it did
        self._is_refused = False        # nothing listens any more
        self._hangs = False             # it did not answer
        self._device = None             # QOM paths
        self._address = None            # of the device's memory
        self._job = None                # its ID
        self._has_job = False           # which there may be, of a predecessor
        self._is_at_work = False        # it is not over
        self._has_stopped_it = False
        self._balloon = None
        self._interval = None           # of its statistics, before us
        self._reports = Reports()

    async def _do(self, command, **arguments):
        arguments = {name.replace('_', '-'): value
                     for name, value in arguments.items()}
        try:
            return await asyncio.wait_for(
                self._qmp.execute(command, arguments), PATIENCE)
        except asyncio.TimeoutError:
            self._hangs = True
            raise GuestError(f'no answer to {command} in {PATIENCE} s'
                             ) from None
        except ExecuteError as error:
            raise Refused(f'{command}: {error}') from error
        except (QMPError, OSError) as error:
            raise GuestError(f'{command}: {error}') from error

    async def _get(self, path, name):
        return await self._do('qom-get', path=path, property=name)

    async def _set(self, path, name, value):
        await self._do('qom-set', path=path, property=name, value=value)

    # Beginning and end

    async def connect(self):
        """Connect, and find all that is needed."""
        address = self.config.address
        try:
            await self._open(address)
        except BlockingIOError:
            raise GuestError(f'{address}: the monitor is in use') from None
        except asyncio.TimeoutError:
            raise GuestError(f'{address}: no monitor answers; is it in use?'
                             ) from None
        except (QMPError, OSError) as error:
            self._is_refused = any(f'[Errno {number}]' in str(error)
                                   for number in NO_LISTENER)
            reason = getattr(error, 'strerror', None) or error
            raise GuestError(f'{address}: {reason}') from error
        try:
            await self._find()
        except BaseException:
            await self.close()
            raise

    async def _open(self, address):
        """QMPClient closes what it could not greet."""
        self._qmp = QMPClient(self.config.name)
        self._hangs = self._is_refused = False
        where = parse_port(address)
        if not where:
            where = connected_socket(address)
            self._pid = peer(where)
            self._started = started(self._pid)
        await asyncio.wait_for(self._qmp.connect(where), PATIENCE)

    def is_gone(self):
        """Whether its QEMU has ended, as far as that can be known."""
        if self._pid:
            return started(self._pid) != self._started
        return self._is_refused

    def process(self):
        """Return what tells its QEMU from others, if that is known."""
        return (self._pid, self._started) if self._pid else None

    def resident(self):
        """Return what the host knows of its memory at this moment."""
        return resident(self._pid) if self._pid else None

    async def _children(self):
        """List (QOM path, type, name) of all devices that users may name."""
        result = []
        for top in DEVICES:
            for child in await self._do('qom-list', path=top):
                kind = child['type'].removeprefix('child<').rstrip('>')
                result.append((f'{top}/{child["name"]}', kind, child['name']))
        return result

    async def _find(self):
        children = await self._children()
        self._device = self._choose_device(children)
        balloons = [path for path, kind, _ in children
                    if kind.startswith('virtio-balloon')]
        if not balloons:
            raise GuestError('it has no balloon device, whose statistics are '
                             'needed; add: -device virtio-balloon-pci,'
                             'free-page-reporting=on')
        self._balloon = balloons[0]
        await self._check_reporting()
        await self._find_command()
        self._address = await self._get(self._device, 'memaddr')

    async def follow(self):
        """Have its balloon report each second; again, if others ended that."""
        interval = await self._get(self._balloon, INTERVAL)
        if interval != 1:
            self._interval = interval
            await self._set(self._balloon, INTERVAL, 1)

    async def _find_command(self):
        """See whether shrinks can be jobs, and how ours is called."""
        self.is_safe = self._has_job = RESIZE in {
            command['name'] for command in await self._do('query-commands')}
        name = self._device.rpartition('/')[2]
        self._job = re.sub(r'[^\w.-]', '-', f'virtio-mem-autosize-{name}')

    def _choose_device(self, children):
        found = {name: path for path, kind, name in children
                 if kind.startswith('virtio-mem')}
        wanted = self.config.device
        if wanted in found:
            return found[wanted]
        if wanted or not found:
            raise GuestError(f'it has no virtio-mem device '
                             f'{wanted or ""}'.rstrip() + '; add: -object '
                             'memory-backend-ram,id=mem0,size=SIZE -device '
                             f'virtio-mem-pci,id={wanted or "vm0"},memdev=mem0')
        if len(found) > 1:
            raise GuestError('it has several virtio-mem devices; choose one '
                             f'by device={"|".join(sorted(found))}')
        return next(iter(found.values()))

    async def _check_reporting(self):
        if self.config.reporting and not await self._get(
                self._balloon, 'free-page-reporting'):
            raise GuestError('its balloon does not report free pages, which '
                             'saves more than resizing; add to it: '
                             'free-page-reporting=on; or go on without: '
                             '--without-reporting')

    async def close(self):
        """Let go of the guest, and leave all but its size as it was."""
        try:
            await self._restore()
        except GuestError:
            pass
        self._interval = None
        try:
            await asyncio.wait_for(self._qmp.disconnect(), PATIENCE)
        except (QMPError, OSError, EOFError, asyncio.TimeoutError):
            pass

    async def _restore(self):
        if self._hangs:
            return
        if self._interval is not None and \
                await self._get(self._balloon, INTERVAL) == 1:
            await self._set(self._balloon, INTERVAL, self._interval)
        await self._wait_job()

    # What is, and what should be

    async def largest(self):
        """Return the maximum size of the device, and its block size."""
        data = await self._info()
        return data['max-size'], data['block-size']

    async def _info(self):
        """Return query-memory-devices' view, which knows devices by memory."""
        for device in await self._do('query-memory-devices'):
            if device['type'] == 'virtio-mem' and \
                    device['data']['memaddr'] == self._address:
                return device['data']
        raise GuestError('its virtio-mem device is gone')

    async def read(self, now):
        """Look at it."""
        # Nobody reads what it tells without being asked.
        self._qmp.events.clear()
        data = await self._info()
        sizes = Sizes(data['requested-size'], data['size'])
        owner = data.get('resize-job', self._job)
        ended = await self._look_at_job() if self._has_job else None
        stats = await self._get(self._balloon, 'guest-stats')
        memory = await self._do('query-memory-size-summary')
        granted = memory['base-memory'] + memory.get('plugged-memory', 0) + \
            max(0, sizes.wish - sizes.plugged)
        return Reading(sizes, self._report(stats, now), granted,
                       self.resident(), ended, self._is_at_work,
                       None if owner == self._job else owner)

    def _report(self, answer, now):
        stats = {name.removeprefix('stat-'): value
                 for name, value in answer['stats'].items()
                 if value not in (ABSENT, -1)}
        made = self._reports.made(answer['last-update'], now)
        if made is None or not {'total-memory', 'available-memory'} <= \
                set(stats):
            return None
        return Report(made, stats['total-memory'], stats['available-memory'],
                      stats.get('disk-caches', 0), stats.get('free-memory'),
                      stats.get('swap-out'), stats.get('oom-kills'),
                      stats.get('alloc-stalls'))

    async def ask(self, decision):
        """Ask the guest for another size.

        A job is superseded by another wish, or cancelled: that keeps what it
        has reached since it was looked at.
        """
        self._has_stopped_it = decision.verb != 'shrink'
        if decision.verb == 'shrink' and self.is_safe:
            await self._do(RESIZE, job_id=self._job, id=self._device,
                           size=decision.wish, mode=decision.mode,
                           reserve=decision.reserve,
                           stall_timeout=STALL_TIMEOUT_S)
            self._has_job = True
        elif decision.verb == 'settle' and self._has_job:
            await self._cancel_job()
        else:
            await self._set(self._device, 'requested-size', decision.wish)

    # The job of a shrink

    async def _look_at_job(self):
        """Forget it when it is over; return why it has failed, if it has."""
        jobs = {job['id']: job for job in await self._do('query-jobs')}
        job = jobs.get(self._job)
        self._is_at_work = bool(job) and job['status'] != 'concluded'
        if self._is_at_work or job and self.config.dry_run:
            return None
        self._has_job = False
        if not job:
            return None
        await self._do('job-dismiss', id=self._job)
        return None if self._has_stopped_it else job.get('error')

    async def _cancel_job(self):
        """One that is over in this moment has settled by itself."""
        try:
            await self._do('job-cancel', id=self._job)
        except GuestError:
            await self._look_at_job()
            if self._has_job:
                raise

    async def _wait_job(self):
        """Let the one that was stopped end."""
        for _ in range(END_S * 10):
            if not self._has_job or not self._has_stopped_it:
                break
            await self._look_at_job()
            await asyncio.sleep(0.1)
