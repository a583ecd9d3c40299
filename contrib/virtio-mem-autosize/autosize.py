# SPDX-License-Identifier: GPL-2.0-or-later
"""All guests and the host: looks, decides, asks, until it is stopped."""

import asyncio
import time

import budget
from managed import Managed

# Seconds between looks, and while a guest is short of memory.
INTERVAL = 1
SHORT_INTERVAL = 0.25
# How long a turn waits for guests that it reads.
LOOK_S = 0.5
# How long --once may take.
ONCE_S = 60


def host_memory(keep):
    """Return the host's memory."""
    sizes = {}
    with open('/proc/meminfo', encoding='ascii') as meminfo:
        for line in meminfo:
            name, size = line.split(':')
            sizes[name] = int(size.split()[0]) << 10
    total = sizes['MemTotal']
    return budget.Host(total, sizes['MemAvailable'],
                       total // 10 if keep is None else keep)


class Autosize:
    """The program without its command line."""

    def __init__(self, config, new_guest, log, host=host_memory,
                 clock=time.monotonic):
        self._config = config
        self._managed = []
        for guest in config.guests:
            self._managed.append(Managed(guest, new_guest(guest), log,
                                         self._managed))
        self._host = host
        self._clock = clock
        self._tasks = {}                # that look or ask, by name
        self._acted = set()             # names, for --once
        self._stop = asyncio.Event()

    def stop(self):
        """End in order, soon."""
        self._stop.set()

    async def run(self):
        """Go on until stop(), or for one decision each; then settle all.

        Return whether there is nothing to complain about.
        """
        deadline = self._clock() + ONCE_S
        try:
            while not self._stop.is_set():
                await self._turn()
                if self._config.once and (self._is_done() or
                                          self._clock() > deadline):
                    break
                await self._pause()
            return not self._config.once or self._all_acted()
        finally:
            await self._end()

    async def _pause(self):
        now = self._clock()
        busy = any(one.law and one.law.is_busy(now) for one in self._managed)
        try:
            await asyncio.wait_for(self._stop.wait(),
                                   SHORT_INTERVAL if busy else INTERVAL)
        except asyncio.TimeoutError:
            pass

    async def _end(self):
        """One that hangs must not keep the others from their end."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        settle, now = not self._config.dry_run, self._clock()
        ends = await asyncio.gather(
            *(one.end(now, settle) for one in self._managed),
            return_exceptions=True)
        for one, error in zip(self._managed, ends):
            if error:
                one.say(f'not settled: {error!r}')

    # A turn

    async def _look(self):
        """Read all guests; return those that were.

        One that takes long to read, or to do what it is asked for, has its
        turn later.
        """
        now = self._clock()
        late = [one for one in self._managed if self._has_read(one, now)]
        new = {one.name: asyncio.create_task(one.look(now))
               for one in self._managed
               if one.name not in self._tasks and one not in late}
        self._tasks |= new
        if new:
            await asyncio.wait(new.values(), timeout=LOOK_S)
        return late + [one for one in self._managed
                       if one.name in new and self._has_read(one, now)]

    def _has_read(self, one, now):
        task = self._tasks.get(one.name)
        if not task or not task.done():
            return False
        del self._tasks[one.name]
        error = task.exception()
        if error:
            # What a guest, or libvirt, never says is no reason to end.
            self._tasks[one.name] = asyncio.create_task(
                one.drop(repr(error), now))
        return not error and task.result() and one.law

    async def _turn(self):
        present = await self._look()
        claims = {one.name: one.claim(one in present) for one in self._managed}
        claims = {name: claim for name, claim in claims.items() if claim}
        host = self._host(self._config.host_free)
        low, now = budget.is_low(host, claims.values()), self._clock()
        decisions = budget.limit(
            host, claims, {one.name: one.reading.sizes for one in present},
            {one.name: one.decide(low, now) for one in present},
            {one.name: one.unit for one in present})
        for one in present:
            if self._may_act(one, decisions[one.name]):
                self._act(one, decisions[one.name], now)

    def _may_act(self, one, decision):
        """With --once, what was begun may still have to end early."""
        sizes = one.reading.sizes
        return not self._config.once or one.name not in self._acted or (
            sizes.wish < sizes.plugged and decision.verb in ('grow', 'settle'))

    def _act(self, one, decision, now):
        if decision.verb == 'hold' or self._config.dry_run:
            one.tell(decision, self._config.verbose or self._config.once)
        else:
            self._tasks[one.name] = asyncio.create_task(
                one.ask(decision, now))
        if decision.verb != 'hold' or one.law.has_judged():
            self._acted.add(one.name)

    # Once

    def _is_done(self):
        """Whether there is nothing left to wait for."""
        now = self._clock()
        return all(one.name not in self._tasks and
                   (one.has_failed or self._has_acted(one, now))
                   for one in self._managed)

    def _has_acted(self, one, now):
        if one.name not in self._acted:
            return False
        sizes = one.reading.sizes
        return self._config.dry_run or not one.law.is_moving(now) or \
            sizes.wish == sizes.plugged and not one.reading.is_at_work

    def _all_acted(self):
        return all(one.name in self._acted and not one.has_failed
                   for one in self._managed)
