# SPDX-License-Identifier: GPL-2.0-or-later
"""
How large the virtio-mem device of one guest should be: sizes, statistics and
time go in; a wish, a mode and a reason come out.

Pure: no clock, no monitor, no other guest.  Sizes are bytes, times seconds of
any clock that does not go back.

What the guest uses is U, its memory without what is available and with a part
of its caches.  It should have B in hand.  Below half of that it grows, at once
and doubling, or before that if it will get there soon; far above it shrinks,
slowly.  What processes take quickly has to come from unused memory, not from
caches.  This is stable, because

- it acts only on a report that is younger than the last change;
- the band between growing and shrinking is wider than a step;
- growing forbids shrinking for a while.
"""

from collections import deque
from typing import NamedTuple, Optional

MiB = 1 << 20
GiB = 1 << 30

# Some of the cache is worth its memory.
CACHE_WORTH = 0.25
# What a guest should have in hand: so much, or so much of what it uses.
LEAST_IN_HAND = 512 * MiB
PART_IN_HAND = 4
# How far to look ahead: a report may be a second old, a growth takes another.
AHEAD_S = 2
REPORT_S = 1
# Whose use grows faster than that part of it a second is looked at more often.
HURRY_PART = 16
# Where processes take memory that was unused: that part of what should be in
# hand, within that time.
TAKEN_PART = 4
TAKEN_S = 30
# A growth, doubled by each one before it that is younger than that.
GROWTH = 512 * MiB
GROWTHS_S = 10
# A shrink: a part of the surplus, that often, and so long after trouble.
SHRINK_PART = 8
SHRINK_EACH_S = 5
AFTER_GROWTH_S = 30
AFTER_PRESSURE_S = 60
SWAP_RATE = 1 * MiB
# A guest that comes no closer for so long does not, for now.
STALL_S = 10
AFTER_STALL_S = 60
AFTER_STALLS_S = 600
# What was said so long ago says nothing of now.
LATE_S = 10
# Linux describes memory in memory that it has: a 64th, and not all it has.
MOST_OF_OTHER = 16
HOUR_S = 3600
MINUTE_S = 60


class Limits(NamedTuple):
    """What the user allows."""
    least: int
    most: int
    unit: int = 128 * MiB       # in which the guest adds memory
    keeps_caches: bool = False  # while the host has plenty


class Sizes(NamedTuple):
    """Of the device."""
    wish: int                   # what the guest is asked for
    plugged: int                # what it has


class Report(NamedTuple):
    """What the guest's balloon driver said; None: it does not say that."""
    made: float                 # not before that
    total: int
    available: int
    caches: int = 0
    free: Optional[int] = None
    swap_out: Optional[int] = None
    oom_kills: Optional[int] = None
    alloc_stalls: Optional[int] = None


class Decision(NamedTuple):
    """What to ask the guest for."""
    verb: str                   # grow, shrink, settle, hold
    wish: int
    reason: str
    mode: str = 'plain'         # or safe: not at the guest's expense
    reserve: int = 0            # that a safe shrink leaves
    is_denied: bool = False     # by the host


def mib(size):
    """Write a size as logs have it."""
    return f'{size // MiB} MiB'


def up(size, unit):
    """Round up."""
    return -(-size // unit) * unit


def grew(new, old):
    """By how much a counter grew, if it is one."""
    return 0 if new is None or old is None else max(0, new - old)


class Memory:
    """What one report, and those shortly before it, say of a guest."""

    def __init__(self, report, recent=()):
        before = recent[-1].report if recent else report
        self.report = report
        self.available = report.available
        self.used = max(0, report.total - report.available +
                        int(CACHE_WORTH * report.caches))
        self.in_hand = max(LEAST_IN_HAND, self.used // PART_IN_HAND)
        self.overdue = 0                # seconds that the next report is
        self.takes_unused = any(self._took_unused(then) for then in recent)
        seconds = max(report.made - before.made, 1)
        self.use_rate = max(0, self._in_use(report) - self._in_use(before)
                            ) // seconds
        self.swap_rate = grew(report.swap_out, before.swap_out) / seconds
        self.killed = grew(report.oom_kills, before.oom_kills)
        self.stalled = grew(report.alloc_stalls, before.alloc_stalls)

    @staticmethod
    def _in_use(report):
        return report.total - report.available

    def _took_unused(self, then):
        """Whether processes have what nothing was in then."""
        taken = min(then.unused - self.unused,
                    self._in_use(self.report) - self._in_use(then.report))
        return taken >= self.in_hand // TAKEN_PART

    @property
    def unused(self):
        """What is available without taking its caches."""
        if self.report.free is None:
            return max(0, self.available - self.report.caches)
        return min(self.available, self.report.free)

    @property
    def usable(self):
        """What is available, and half of that if it is in caches.

        They may be in memory of the device only, which is of no use to the
        guest's kernel itself.  What processes take may then be the last that
        is; without it, the kernel cannot even add memory.
        """
        if self.takes_unused:
            return self.unused
        return (self.available + self.unused) // 2

    @property
    def soon(self):
        """What is available when a growth could help, if it goes on so."""
        return self.usable - int((AHEAD_S + self.overdue) * self.use_rate)

    @property
    def low(self):
        """Whether the guest has too little in hand, now or soon."""
        return self.soon < self.in_hand // 2


class Law:
    """Decides for one guest, and remembers what that takes."""

    def __init__(self, limits):
        self.limits = limits
        self._sizes = None
        self._memory = None             # of the last report
        self._recent = deque()          # and those before it
        self._other = None              # memory that is not the device's
        self._changed = None            # when sizes did last
        self._asked = None              # when the wish did last
        self._growths = deque()         # of the last seconds
        self._grown = None
        self._pressed = None
        self._swapping = False
        self._shrunk = None
        self._goal = None               # of the last shrink, till it is over
        self._stalled = None            # when a shrink last did
        self._stall_pause = AFTER_STALL_S
        self._judged = False
        self._at_work = False           # a shrink is not over, say others
        self._peaks = deque()           # largest use, by minute

    def decide(self, sizes, report, host_is_low, now, is_at_work=False):
        """Say what to ask the guest for next.

        A guest that has its size may still be at work: it is watched then.
        """
        self._at_work = is_at_work
        self._look(sizes, now)
        self._take(report, now)
        if sizes.wish < sizes.plugged:
            return self._decide_in_shrink(sizes, report, now)
        if sizes.wish > sizes.plugged and \
                self._within(self._changed, STALL_S, now):
            return Decision('hold', sizes.wish, 'the guest works on it')
        if not report or report.made < self._changed:
            return Decision('hold', sizes.wish, 'waits for a report')
        if self._is_late(report.made, now):
            return Decision('hold', sizes.wish, 'its reports are late')
        return self._decide_settled(sizes, host_is_low, now)

    def carried_out(self, decision, now):
        """Take note that the guest was asked for that."""
        if decision.verb == 'hold':
            return
        self._changed = self._asked = now
        self._goal = decision.wish if decision.verb == 'shrink' else None
        if decision.verb == 'grow':
            self._growths.append(now)
            self._grown = now
        elif decision.verb == 'shrink':
            self._shrunk = now
        elif decision.verb == 'settle':
            self._note_stall(now)

    def is_busy(self, now):
        """Whether a report that comes soon is worth more than others."""
        memory = self._memory
        return self._within(self._grown, GROWTHS_S, now) or (
            memory and self._sizes.plugged < self._most() and
            (memory.available < memory.in_hand or
             memory.use_rate > memory.in_hand // HURRY_PART))

    def is_moving(self, now):
        """Whether the guest may still be at what it was asked for."""
        return self._within(self._changed, STALL_S, now)

    def has_judged(self):
        """Whether a decision was made by what the guest said."""
        return self._judged

    # What happened

    def _look(self, sizes, now):
        old = self._sizes
        if old != sizes:
            self._changed = now
        if not old or old.wish != sizes.wish:
            self._asked = now
        self._sizes = sizes
        if self._goal is not None and sizes.wish == sizes.plugged:
            self._note_end_of_shrink(now)

    def _note_end_of_shrink(self, now):
        """It has its size, or the device has given up."""
        if self._sizes.plugged > self._goal:
            self._note_stall(now)
        else:
            self._stalled, self._stall_pause = None, AFTER_STALL_S
        self._goal = None

    def _note_stall(self, now):
        if self._stalled is not None:
            self._stall_pause = min(2 * self._stall_pause, AFTER_STALLS_S)
        self._stalled = now

    def _take(self, report, now):
        """Take in a report, if it is news."""
        if not report or self._memory and report == self._memory.report:
            if self._memory:
                self._memory.overdue = max(
                    0, now - self._memory.report.made - REPORT_S)
            return
        while len(self._recent) > 1 and \
                report.made - self._recent[0].report.made > TAKEN_S:
            self._recent.popleft()
        self._memory = Memory(report, self._recent)
        self._recent.append(self._memory)
        if self._other is None or report.made >= self._changed:
            self._other = max(0, report.total - self._sizes.plugged)
        self._note_pressure(now)
        self._note_peak(now)

    def _note_pressure(self, now):
        """An unplug makes the guest reclaim, too: that is no pressure."""
        memory, sizes = self._memory, self._sizes
        self._swapping = memory.swap_rate > SWAP_RATE or memory.killed > 0
        unplugs = sizes.plugged > sizes.wish
        if memory.swap_rate or memory.killed or \
                memory.stalled and not unplugs:
            self._pressed = now

    def _note_peak(self, now):
        minute, used = now // MINUTE_S, self._memory.used
        if self._peaks and self._peaks[-1][0] == minute:
            used = max(used, self._peaks.pop()[1])
        self._peaks.append((minute, used))
        while self._peaks[0][0] < minute - HOUR_S // MINUTE_S:
            self._peaks.popleft()

    @staticmethod
    def _is_late(then, now):
        return now - then > LATE_S

    @staticmethod
    def _within(then, seconds, now):
        return then is not None and now - then < seconds

    # Decisions

    def _decide_in_shrink(self, sizes, report, now):
        """The guest works on it, which may turn out wrong, or take for ever."""
        memory = self._memory
        if report and report.made >= self._asked:
            if memory.low:
                return self._grow(sizes, now)
            if memory.killed:
                return self._settle(sizes, 'a process was killed')
        if report and self._is_late(max(report.made, self._asked), now):
            return self._settle(sizes, 'its reports are late')
        if self._within(self._changed, STALL_S, now):
            return Decision('hold', sizes.wish, 'the guest works on it')
        # What the guest cannot do now must not happen at any time later.
        return self._settle(sizes, 'the guest gets no further')

    @staticmethod
    def _settle(sizes, why):
        """Ask for what there is, whatever the limits are."""
        return Decision('hold' if sizes.wish == sizes.plugged else 'settle',
                        sizes.plugged, why)

    def _decide_settled(self, sizes, host_is_low, now):
        self._judged = True
        if sizes.plugged < self._least():
            return self._obey_minimum(sizes)
        if sizes.plugged > self.limits.most:
            return self._obey_maximum(sizes, now)
        if self._memory.low or self._swapping:
            return self._grow(sizes, now)
        why_not = self._why_no_shrink(now)
        if why_not:
            return Decision('hold', sizes.wish, why_not)
        return self._shrink(sizes, host_is_low)

    def _most(self):
        """The limit, or what the guest's kernel can describe."""
        described = MOST_OF_OTHER * self._other // self.limits.unit
        return min(self.limits.most, described * self.limits.unit)

    def _least(self):
        return min(self.limits.least, self._most())

    def _obey_minimum(self, sizes):
        """What is missing is added at once."""
        wish = max(sizes.wish, self._least())
        return Decision('grow' if wish > sizes.wish else 'hold', wish,
                        'below its minimum')

    def _obey_maximum(self, sizes, now):
        """What is too much is taken with care."""
        in_hand, unit = self._memory.in_hand, self.limits.unit
        surplus = self._memory.available - in_hand
        why_not = 'in use' if surplus < unit else self._why_no_shrink(now)
        if why_not:
            return Decision('hold', sizes.wish,
                            f'above its maximum, {why_not}')
        step = max(surplus // 2 // unit * unit, unit)
        return Decision('shrink', max(self.limits.most, sizes.plugged - step),
                        'above its maximum', 'safe', in_hand // 2)

    def _grow(self, sizes, now):
        memory, reason = self._memory, self._why_grow()
        if sizes.wish > sizes.plugged:
            return Decision('hold', sizes.wish,
                            f'{reason}; the guest gets no further')
        while self._growths and now - self._growths[0] >= GROWTHS_S:
            self._growths.popleft()
        more = max(GROWTH << min(len(self._growths), 10),
                   memory.in_hand - memory.soon)
        if not memory.low and not memory.killed:
            # What was swapped out need not all come back.
            more = min(more, self._largest() + memory.in_hand -
                       memory.report.total)
        wish = min(up(sizes.plugged + max(more, 0), self.limits.unit),
                   self._most())
        if wish <= sizes.plugged:
            return self._settle(sizes, f'{reason}; it has its maximum')
        return Decision('grow', wish, reason)

    def _why_grow(self):
        memory = self._memory
        if memory.usable < memory.in_hand // 2:
            what = 'available' if memory.usable == memory.available else \
                'unused' if memory.takes_unused else \
                'available with half of its caches'
            return f'{mib(memory.usable)} {what}, ' \
                   f'less than half of {mib(memory.in_hand)}'
        if memory.low:
            what = f'{mib(memory.available)} available'
            if memory.takes_unused:
                what += f', {mib(memory.unused)} unused'
            return f'{what}, {mib(memory.use_rate)} less each second'
        return 'a process was killed' if memory.killed else 'it swaps'

    def _largest(self):
        return max(used for _, used in self._peaks)

    def _why_no_shrink(self, now):
        if self._at_work:
            return 'is still watched after the last shrink'
        if self._within(self._grown, AFTER_GROWTH_S, now):
            return 'grew a moment ago'
        if self._within(self._pressed, AFTER_PRESSURE_S, now):
            return 'was short of memory a moment ago'
        if self._within(self._stalled, self._stall_pause, now):
            return 'could not shrink a moment ago'
        if self._within(self._shrunk, SHRINK_EACH_S, now):
            return 'shrank a moment ago'
        return None

    def _shrink(self, sizes, host_is_low):
        memory, unit = self._memory, self.limits.unit
        keep = memory.in_hand * (1 if host_is_low else 2)
        spare, what = memory.available, 'available'
        if self.limits.keeps_caches and not host_is_low:
            spare, what = memory.unused, 'unused'
        if spare <= keep + keep // 2:
            return Decision('hold', sizes.wish, 'has what it needs')
        surplus = spare - keep
        step = max(surplus // SHRINK_PART // unit * unit, unit)
        wish = max(up(sizes.plugged - step, unit), self.limits.least)
        if wish >= sizes.plugged or sizes.plugged - wish > surplus:
            return Decision('hold', sizes.wish, 'has what it needs')
        return Decision('shrink', wish,
                        f'{mib(spare)} {what}, more than '
                        f'{mib(keep + keep // 2)}', 'safe',
                        memory.in_hand // 2)
