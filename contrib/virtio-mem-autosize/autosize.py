# SPDX-License-Identifier: GPL-2.0-or-later
"""All guests and the host: looks, decides, asks, until it is stopped."""

import asyncio
import time

import budget
from managed import Managed

# Seconds between looks, and while a guest is short of memory.
INTERVAL = 1
SHORT_INTERVAL = 0.25
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
        self._managed = [Managed(guest, new_guest(guest), log)
                         for guest in config.guests]
        self._host = host
        self._clock = clock
        self._looks = {}                # tasks, by name
        self._acted = {}                # what was read then, by name
        self._stop = asyncio.Event()

    def stop(self):
        """End in order, soon."""
        self._stop.set()

    async def run(self):
        """Go on until stop(), or for one decision each; then settle all."""
        deadline = self._clock() + ONCE_S
        try:
            while not self._stop.is_set():
                await self._turn()
                if self._config.once and (self._all_acted() or
                                          self._clock() > deadline):
                    break
                await self._pause()
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
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
        settle, now = not self._config.dry_run, self._clock()
        await asyncio.gather(*(one.end(now, settle) for one in self._managed))

    # A turn

    async def _look(self):
        """Read all guests; one that takes long is read by a later turn."""
        now = self._clock()
        for one in self._managed:
            if one.name not in self._looks:
                self._looks[one.name] = asyncio.create_task(one.look(now))
        await asyncio.wait(self._looks.values(), timeout=INTERVAL)
        done = {name for name, look in self._looks.items() if look.done()}
        for name in done:
            self._looks.pop(name).result()
        return [one for one in self._managed
                if one.name in done and one.law]

    async def _turn(self):
        present = await self._look()
        known = [one for one in self._managed if one.law and one.reading]
        claims = {one.name: one.claim for one in known}
        host = self._host(self._config.host_free)
        low, now = budget.is_low(host, claims.values()), self._clock()
        decisions = budget.limit(
            host, claims, {one.name: one.reading.sizes for one in known},
            {one.name: one.decide(low, now) for one in present},
            {one.name: one.unit for one in present})
        await asyncio.gather(*(self._act(one, decisions[one.name], now)
                               for one in present))

    async def _act(self, one, decision, now):
        if self._config.once and one.name in self._acted and \
                decision.verb != 'settle':
            return
        one.tell(decision, self._config.verbose or self._config.once)
        if not self._config.dry_run:
            await one.ask(decision, now)
        if decision.verb != 'hold' or one.law.has_judged():
            self._acted.setdefault(one.name, one.reading)

    def _all_acted(self):
        """Whether there is nothing left to wait for, for --once."""
        return all(self._has_acted(one) for one in self._managed)

    def _has_acted(self, one):
        before = self._acted.get(one.name)
        if not before or not one.reading or one.reading is before:
            return False
        sizes = one.reading.sizes
        return self._config.dry_run or sizes.wish == sizes.plugged or \
            not one.law.is_moving(self._clock())
