# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest as far as the law sees it: memory, a load, a driver that takes its time,
and reports that are late.

Sizes are bytes.  A step is half a second.
"""

from law import GiB, MiB, Report, Sizes

STEP_S = 0.5
# What a byte plugged is to the guest: the rest describes memory.
WORTH = 0.95


class SimulatedVM:
    """A guest with boot memory, a device, and processes that use memory."""

    def __init__(self, random, boot=1 * GiB, largest=4 * GiB, block=2 * MiB):
        self.random = random
        self.boot = boot
        self.largest = largest
        self.block = block
        self.wish = 0
        self.plugged = 0
        self.used = 300 * MiB           # by processes
        self.caches = 100 * MiB
        self.target = self.used         # of the load
        self.rate = 0                   # at which it gets there, a step
        self.unmovable = 0              # of what is plugged
        self.killed = 0
        self.swapped = 0
        self.now = 0.0
        self.late = 0.02                # part of the reports
        self.report = None
        self._due = 0.0

    @property
    def total(self):
        """Memory that the guest's kernel manages."""
        return int(self.boot * 0.95 + self.plugged * WORTH)

    @property
    def free(self):
        """Memory that holds nothing."""
        return self.total - self.used - self.caches

    @property
    def available(self):
        """What processes can have."""
        return max(0, self.total - self.used - 32 * MiB)

    @property
    def sizes(self):
        """What the device says."""
        return Sizes(self.wish, self.plugged)

    def load(self, used, seconds):
        """Let processes use so much, in so many seconds."""
        self.target = used
        self.rate = max(abs(used - self.used) / max(seconds, STEP_S) * STEP_S,
                        1 * MiB)

    def step(self):
        """Let half a second pass."""
        self.now += STEP_S
        self._use()
        self._resize()
        if self.now >= self._due:
            self._tell()

    def _use(self):
        way = self.target - self.used
        if way:
            self.used += int(max(-self.rate, min(self.rate, way)))
        short = self.used + 32 * MiB - self.total
        if short > 0:
            # The kernel kills, and the load starts anew some time.
            self.killed += 1
            self.used -= short + 64 * MiB
            self.target = self.used
        # Caches take what they can get, slowly, and go first.
        room = self.total - self.used
        self.caches = max(0, min(self.caches + 2 * MiB, room - 64 * MiB,
                                 2 * GiB))

    def _resize(self):
        way = self.wish - self.plugged
        if way > 0:
            self.plugged += min(way, 1 * GiB)
        elif way < 0:
            movable = max(0, self.plugged - self.unmovable)
            can = min(-way, 512 * MiB, movable,
                      max(0, self.available - 16 * MiB))
            self.plugged -= can // self.block * self.block

    def _tell(self):
        """The balloon's driver reports each second, sometimes late."""
        late = self.random.random() < self.late
        self._due = self.now + (5 if late else 1)
        self.report = Report(
            made=self.now, total=self.total, available=self.available,
            caches=self.caches, free=max(0, self.free),
            swap_out=self.swapped, oom_kills=self.killed, alloc_stalls=0)
