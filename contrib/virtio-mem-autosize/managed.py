# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest under the law, as long as it can be reached."""

import re

import budget
from guest import GuestError, Refused
from law import Decision, Law, Limits, mib

# Seconds until a guest that is gone is looked for again, or one that refuses
# is asked again.
FIRST_PAUSE = 1
LONGEST_PAUSE = 30
# Until a guest that does not report is said to be one.
REPORT_S = 10


class Pause:
    """Says what goes wrong once, and when to try again: later each time."""

    def __init__(self, say):
        self._say = say
        self._trouble = None
        self._until = 0
        self._length = FIRST_PAUSE

    def note(self, trouble, now):
        """It went wrong."""
        if trouble != self._trouble:
            self._say(trouble)
        self._trouble = trouble
        self._until = now + self._length
        self._length = min(2 * self._length, LONGEST_PAUSE)

    @property
    def is_needed(self):
        """Whether it went wrong last."""
        return self._trouble is not None

    def is_on(self, now):
        """Whether it is too early to try again."""
        return now < self._until

    def end(self):
        """It went well."""
        self._trouble, self._until, self._length = None, 0, FIRST_PAUSE


class Managed:
    """Connects, reads and asks; what fails is said once, and tried again."""

    def __init__(self, config, guest, log, others=()):
        self.config = config
        self.name = config.name
        self.law = None                 # None: not connected
        self.unit = config.unit
        self.reading = None             # the last, while its QEMU runs
        self._looked = None             # when, for that one
        self.is_mute = False            # it reports nothing
        self._guest = guest
        self._log = log
        self._others = others
        self._absence = Pause(self.say)
        self._refusal = Pause(self.say)
        self._is_new = True
        self._shrinks = False           # because we said so
        self._heard = None              # when, of the last report
        self._owner = None              # of the job that was spoken of
        self._said = None

    def say(self, text):
        """Write a line of the log, if that is possible."""
        try:
            self._log(f'{self.name}: {text}')
        except OSError:
            pass

    def claim(self, is_fresh):
        """Return what it may have of the host's memory; None: nothing.

        A reading that is not fresh does not say what it has given back since.
        """
        if not self.law and self._guest.is_gone():
            self.reading, self._shrinks = None, False
        reading = self.reading
        if not reading:
            return None
        resident = self._guest.resident()
        if resident is None:
            resident = self._resident(reading) if is_fresh else 0
        return budget.Claim(reading.granted, resident, self.config.share)

    @staticmethod
    def _resident(reading):
        """If the host does not know, believe the guest what it does not use."""
        if reading.resident is not None:
            return reading.resident
        free = reading.report.free if reading.report else None
        return reading.granted - min(free or 0, reading.granted)

    # Coming and going

    async def look(self, now):
        """Read it, after connecting to it if need be; tell whether it is."""
        if not self.law and self._absence.is_on(now):
            return False
        try:
            if not self.law:
                await self._connect()
            reading = await self._guest.read(now)
            await self._note_report(reading.report, now)
        except GuestError as error:
            await self.drop(error, now)
            return False
        self.reading, self._looked = reading, now
        self._welcome()
        self._note_jobs(reading)
        return True

    async def _connect(self):
        await self._guest.connect()
        try:
            law = Law(self._limits(*await self._guest.largest()))
            await self._guest.follow()
            self._check_alone()
        except BaseException:
            await self._guest.close()
            raise
        self.law = law
        self.is_mute, self._heard = False, None

    def _check_alone(self):
        """Two laws would both spend what one report says is there."""
        process = self.process()
        for other in self._others:
            if process and other.law and other.process() == process:
                raise GuestError(f'it is the same QEMU as {other.name}, and '
                                 'one of its devices can be resized')

    def process(self):
        """Return what tells its QEMU from others, if that is known."""
        return self._guest.process()

    def _welcome(self):
        """It is there when all that is needed was there once."""
        if not self._is_new:
            return
        self._is_new = False
        self._absence.end()
        limits = self.law.limits
        self.say(f'found, {mib(limits.least)} to {mib(limits.most)}; ' + (
            'shrinks in mode safe' if self._guest.is_safe else
            'shrinks are less safe: there is no mode safe'))

    def _limits(self, largest, block):
        config = self.config
        for key, size in (('min', config.least), ('max', config.most),
                          ('unit', config.unit)):
            if size and size > largest:
                raise GuestError(f'{key}={mib(size)} is more than its device '
                                 f'has: {mib(largest)}')
        self.unit = max(config.unit, block)
        most = largest if config.most is None else config.most
        least, most = -(-config.least // block) * block, most // block * block
        if least > most or config.most and not most:
            raise GuestError(f'no size between min={config.least} and '
                             f'max={config.most} is a multiple of its block '
                             f'size, {block}')
        return Limits(least, most, self.unit, config.keeps_caches)

    async def drop(self, error, now):
        """Leave a guest alone that cannot be reached; look for it later."""
        if self.law:
            self.law = self._said = None
            await self._guest.close()
        self._is_new = True
        self._absence.note(f'left alone: {error}', now)

    async def _note_report(self, report, now):
        if self._heard is None or report and not (
                self.reading and report == self.reading.report):
            self.is_mute, self._heard = False, now
        elif now - self._heard >= REPORT_S and not self.is_mute:
            self.is_mute = True
            self.say(('reports no statistics any more' if report else
                      'reports no statistics') + '; does it run, with a '
                     'driver for its balloon?')
            await self._guest.follow()

    def _note_jobs(self, reading):
        if reading.ended:
            self.say(f'ended: {reading.ended}')
        if reading.owner and reading.owner != self._owner:
            self.say(f"left as it is: job '{reading.owner}' resizes it")
        self._owner = reading.owner
        if not reading.is_at_work and \
                reading.sizes.wish >= reading.sizes.plugged:
            self._shrinks = False

    # Decisions

    def decide(self, host_is_low, now):
        """Apply the law.

        What the reading says is older than the reading's end: the next report
        is younger.
        """
        reading = self.reading
        decision = self.law.decide(reading.sizes, reading.report, host_is_low,
                                   self._looked, reading.is_at_work)
        why_not = f"job '{reading.owner}' resizes it" if reading.owner else \
            'it has refused a moment ago' if self._refusal.is_on(now) else None
        if why_not and decision.verb != 'hold':
            return Decision('hold', reading.sizes.wish,
                            f'{decision.reason}; {why_not}')
        return decision

    def tell(self, decision, verbose):
        """Say what is decided and does not happen, or not yet, once."""
        told = (decision.verb, decision.wish, re.sub(r'\d+', '',
                                                     decision.reason))
        if told == self._said or decision.verb == 'hold' and not (
                verbose or decision.is_denied):
            return
        self._announce(decision)
        self._said = told

    def _announce(self, decision):
        self._said = None
        mode = f' ({decision.mode})' if self._guest.is_safe and \
            decision.verb == 'shrink' else ''
        self.say(f'{decision.verb} {mib(self.reading.sizes.plugged)} -> '
                 f'{mib(decision.wish)}{mode}: {decision.reason}')

    async def ask(self, decision, now):
        """Have the guest do it.

        Once it is asked, it may have what was granted, also if it is gone
        before it answers.
        """
        before, self.reading = self.reading, self.reading.asked(decision.wish)
        self._shrinks = self._shrinks or decision.verb == 'shrink'
        try:
            await self._guest.ask(decision)
        except Refused as error:
            self.reading = before
            self._refusal.note(f'{decision.verb} was refused: {error}', now)
        except GuestError as error:
            await self.drop(error, now)
        else:
            self._refusal.end()
            self.law.carried_out(decision, now)
            self._announce(decision)

    @property
    def has_failed(self):
        """Whether it cannot do its part, at least for now."""
        return not self.law or self.is_mute or self._refusal.is_needed

    # The end

    async def end(self, now, settle):
        """Leave it in a state in which it may stay."""
        is_lost = settle and self._shrinks and not self._guest.is_gone()
        if not self.law and not is_lost:
            return
        try:
            if not self.law:
                await self._guest.connect()
            self.reading = await self._guest.read(now)
            if settle and (self.reading.is_at_work or self.reading.sizes.wish
                           < self.reading.sizes.plugged):
                await self._settle()
        except GuestError as error:
            self.say(f'not settled: {error}')
        await self._guest.close()

    async def _settle(self):
        """End what we have begun, and no more than that."""
        if self.reading.owner or not (self._shrinks or
                                      self.reading.is_at_work):
            self.say('not settled: others asked for what it is to give')
            return
        decision = Decision('settle', self.reading.sizes.plugged, 'the end')
        await self._guest.ask(decision)
        self._announce(decision)
