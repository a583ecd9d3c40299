# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is to the rest of the program, by QMP or by libvirt."""

from typing import NamedTuple, Optional

from law import Report, Sizes

# Seconds.
PATIENCE = 10


class GuestError(Exception):
    """The guest, its monitor or libvirt is gone, or cannot do its part."""


class Refused(GuestError):
    """It is there, and will not do what it was asked for."""


class Reading(NamedTuple):
    """A guest at one moment.  Sizes are bytes."""
    sizes: Sizes
    report: Optional[Report]
    granted: int                # boot memory, plugged, and asked to plug
    resident: Optional[int]     # of it on the host, if that is known
    ended: Optional[str] = None     # why a shrink ended by itself
    is_at_work: bool = False    # our job is not over
    owner: Optional[str] = None     # another's job that resizes it

    def asked(self, wish):
        """Return it as it is when the guest was asked for that.

        What it was to plug before, it may have plugged meanwhile.
        """
        old, plugged = self.sizes
        more = max(0, wish - max(old, plugged))
        return self._replace(sizes=Sizes(wish, plugged),
                             granted=self.granted + more)


class Reports:
    """Says when a report was made at the earliest.

    Reports carry the second in which they were made, by the clock of the host
    of the guest.  A report that was not there at the last look was made after
    it, by our clock.
    """

    def __init__(self):
        self._stamp = None
        self._made = None
        self._looked = None

    def made(self, stamp, now):
        """Return that for the report with this stamp; None: there is none."""
        if stamp and stamp != self._stamp:
            # It may be old when it is seen first.
            self._made = self._looked if self._stamp is not None else 0
            self._stamp = stamp
        elif not stamp:
            self._stamp, self._made = self._stamp or 0, None
        self._looked = now
        return self._made
