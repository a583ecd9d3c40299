# SPDX-License-Identifier: GPL-2.0-or-later
"""
A guest as far as the law sees it: memory, a load, a driver that takes its time,
and reports that are late.

Sizes are bytes.  A step is half a second.
"""

from law import GiB, MiB, Report, Sizes

STEP_S = 0.5
# Of what is plugged, that part of other memory describes it.
DESCRIBES = 0.05
# What others do not get of boot memory, and what describes new memory with it.
KERNEL = 40 * MiB
DESCRIPTION = 64
# A job watches the guest for so long after it has its size.
WATCH_S = 2


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
        self.in_boot = self.used        # of that, in boot memory
        self.caches = 100 * MiB
        self.target = self.used         # of the load
        self.rate = 0                   # at which it gets there, a step
        self.unmovable = 0              # of what is plugged
        self.pace = 512 * MiB           # of a shrink, a step
        self.killed = 0
        self.swap = 0                   # that is left
        self.swapped = 0
        self.stalls = 0
        self.now = 0.0
        self.late = 0.02                # part of the reports
        self.mute = 0                   # part of the minutes without any
        self.false = 0                  # part of the reports
        self.seen_late = 0              # part that is seen a step later
        self.report = None
        self._due = 0.0
        self._next = None               # report
        self._stalls_at = None          # (plugged, since) of a job
        self._reached = None            # when a job did

    @property
    def total(self):
        """Memory that the guest's kernel manages."""
        return int(self.boot * 0.95) + self.plugged

    @property
    def free(self):
        """Memory that holds nothing."""
        return self._usable - self.used - self.caches

    @property
    def _usable(self):
        return self.total - int(DESCRIBES * self.plugged)

    @property
    def available(self):
        """What processes can have."""
        return max(0, self._usable - self.used - 32 * MiB)

    @property
    def in_device(self):
        """What processes use of the device's memory."""
        return self.used - self.in_boot

    @property
    def kernels(self):
        """Boot memory that the kernel can have."""
        return self._usable - self.plugged - self.in_boot

    @property
    def sizes(self):
        """What the device says."""
        return Sizes(self.wish, self.plugged)

    def load(self, used, seconds):
        """Let processes use so much, in so many seconds."""
        self.target = used
        self.rate = max(abs(used - self.used) / max(seconds, STEP_S) * STEP_S,
                        1 * MiB)

    # Jobs, in mode safe

    @property
    def has_job(self):
        """Whether a job is not over."""
        return self._stalls_at is not None

    def start_job(self, wish):
        """Shrink, and watch."""
        assert not self.has_job
        self.wish = wish
        self._stalls_at, self._reached = (self.plugged, self.now), None

    def end_job(self):
        """Keep what it has reached."""
        if self.has_job:
            self._stalls_at, self.wish = None, self.plugged

    def _follow_job(self):
        if not self.has_job:
            return
        if self.plugged != self._stalls_at[0]:
            self._stalls_at = self.plugged, self.now
        if self.plugged > self.wish:
            if self.now - self._stalls_at[1] >= 8:
                self.end_job()
        elif self._reached is None:
            self._reached = self.now
        elif self.now - self._reached >= WATCH_S:
            self.end_job()

    # Time

    def step(self):
        """Let half a second pass."""
        self.now += STEP_S
        self._use()
        self._resize()
        self._follow_job()
        self.report, self._next = self._next or self.report, None
        if self.now >= self._due:
            self._tell()

    def _use(self):
        way = self.target - self.used
        self._take(int(max(-self.rate, min(self.rate, way))))
        short = self.used + 32 * MiB - self._usable
        if short > 0:
            self._run_short(short)
        # Caches take what they can get, slowly, and go first.
        room = self._usable - self.used
        self.stalls += room < 64 * MiB
        self.caches = max(0, min(self.caches + 2 * MiB, room - 64 * MiB,
                                 2 * GiB))

    def _take(self, size):
        """Processes take what is unused, the device's first, then caches.

        Caches are in the device's memory first, too.
        """
        if size < 0:
            self.in_boot += size * self.in_boot // max(self.used, 1)
        else:
            room = self.plugged - self.in_device - self.caches
            unused = self.kernels + min(0, room) - KERNEL
            self.in_boot += max(0, min(size - max(0, room), unused))
        self.used += size

    def _run_short(self, short):
        """The kernel swaps, or kills; then the load starts anew some time."""
        if self.swap >= short:
            self.swap -= short
            self.swapped += short
            self._take(-short)
        else:
            self.killed += 1
            self._take(-short - 64 * MiB)
        self.target = self.used

    def _resize(self):
        way = self.wish - self.plugged
        if way > 0:
            described = DESCRIPTION * max(0, self.kernels - KERNEL)
            self.plugged += min(way, 1 * GiB, described) // self.block * \
                self.block
        elif way < 0:
            movable = max(0, self.plugged - self.unmovable)
            can = min(-way, self.pace, movable,
                      max(0, self.available - 16 * MiB))
            self.plugged -= can // self.block * self.block
            self.in_boot = max(self.in_boot, self.used - self.plugged)

    def _tell(self):
        """The balloon's driver reports each second, sometimes late."""
        late = self.random.random() < self.late
        mute = self.mute and self.random.random() < self.mute / 60
        self._due = self.now + (60 if mute else 5 if late else 1)
        report = Report(
            made=self.now, total=self.total, available=self.available,
            caches=self.caches, free=max(0, self.free),
            swap_out=self.swapped, oom_kills=self.killed,
            alloc_stalls=self.stalls)
        if self.false and self.random.random() < self.false:
            report = self._lie(report)
        if self.seen_late and self.random.random() < self.seen_late:
            self._next = report
        else:
            self.report = report

    def _lie(self, report):
        """Say anything that the protocol allows."""
        return Report(report.made, *(
            self.random.choice((0, self.random.randrange(1 << 32),
                                (1 << 64) - 2)) for _ in report[1:]))
