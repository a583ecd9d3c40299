# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest under the law, as long as it can be reached."""

import re

import budget
from guest import GuestError
from law import Decision, Law, Limits, mib

# Seconds until a guest that is gone is looked for again.
FIRST_PAUSE = 1
LONGEST_PAUSE = 30
# Until a guest that never reported is said to be one.
REPORT_S = 10


class Managed:
    """Connects, reads and asks; what fails is said once, and tried again."""

    def __init__(self, config, guest, log):
        self.config = config
        self.name = config.name
        self.law = None                 # None: not connected
        self.unit = config.unit
        self.reading = None
        self._guest = guest
        self._log = log
        self._trouble = None
        self._retry = 0
        self._pause = FIRST_PAUSE
        self._mute_until = None
        self._said = None

    def say(self, text):
        """Write a line of the log."""
        self._log(f'{self.name}: {text}')

    @property
    def claim(self):
        """What it may have of the host's memory."""
        reading = self.reading
        resident = reading.resident
        if resident is None:
            # Then the guest is believed what it does not use.
            free = reading.report.free if reading.report else None
            resident = reading.granted - (free or 0)
        return budget.Claim(reading.granted, resident, self.config.share)

    # Coming and going

    async def look(self, now):
        """Read it, after connecting to it if need be."""
        if not self.law and now < self._retry:
            return
        try:
            if not self.law:
                await self._connect(now)
            self.reading = await self._guest.read(now)
            self._note_report(now)
            if self.reading.ended:
                self.say(f'ended: {self.reading.ended}')
        except GuestError as error:
            await self.drop(error, now)

    async def _connect(self, now):
        await self._guest.connect()
        try:
            largest, block = await self._guest.largest()
            self.law = Law(self._limits(largest, block))
        except GuestError:
            await self._guest.close()
            raise
        self._trouble, self._pause = None, FIRST_PAUSE
        self._mute_until = now + REPORT_S
        limits = self.law.limits
        self.say(f'found, {mib(limits.least)} to {mib(limits.most)}; ' + (
            'shrinks in mode safe' if self._guest.is_safe else
            'shrinks are less safe: there is no mode safe'))

    def _limits(self, largest, block):
        config = self.config
        for key, size in (('min', config.least), ('max', config.most)):
            if size and size > largest:
                raise GuestError(f'{key}={mib(size)} is more than its device '
                                 f'has: {mib(largest)}')
        self.unit = max(config.unit, block)
        most = largest if config.most is None else config.most
        return Limits(-(-config.least // block) * block,
                      most // block * block, self.unit)

    async def drop(self, error, now):
        """Forget a guest that cannot be reached; look for it later."""
        if self.law:
            self.law = self.reading = self._said = None
            await self._guest.close()
        if str(error) != self._trouble:
            self.say(f'left alone: {error}')
            self._trouble = str(error)
        self._retry = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _note_report(self, now):
        if self.reading.report:
            self._mute_until = None
        elif self._mute_until is not None and now >= self._mute_until:
            self._mute_until = None
            self.say('reports no statistics; does it run, with a driver for '
                     'its balloon?')

    # Decisions

    def decide(self, host_is_low, now):
        """Apply the law."""
        return self.law.decide(self.reading.sizes, self.reading.report,
                               host_is_low, now)

    def tell(self, decision, verbose):
        """Say what is decided, once."""
        told = (decision.verb, decision.wish, re.sub(r'\d+', '',
                                                     decision.reason))
        if told == self._said or decision.verb == 'hold' and not verbose:
            return
        self._said = told
        sizes = self.reading.sizes
        mode = f' ({decision.mode})' if self._guest.is_safe and \
            decision.verb == 'shrink' else ''
        self.say(f'{decision.verb} {mib(sizes.plugged)} -> '
                 f'{mib(decision.wish)}{mode}: {decision.reason}')

    async def ask(self, decision, now):
        """Have the guest do it."""
        if decision.verb == 'hold':
            return
        try:
            await self._guest.ask(decision)
        except GuestError as error:
            await self.drop(error, now)
        else:
            self.law.carried_out(decision, now)

    async def end(self, now, settle):
        """Leave it in a state in which it may stay."""
        if not self.law:
            return
        try:
            sizes = (await self._guest.read(now)).sizes
            if settle and sizes.wish < sizes.plugged:
                decision = Decision('settle', sizes.plugged, 'the end')
                self.tell(decision, True)
                await self._guest.ask(decision)
        except GuestError as error:
            self.say(f'not settled: {error}')
        await self._guest.close()
