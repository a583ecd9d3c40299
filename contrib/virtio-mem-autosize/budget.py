# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the host can give to guests that want to grow.

Pure.  Sizes are bytes.  The host keeps its part free, and must be able to give
each guest all that the guest was granted: what a guest has plugged and not
touched yet is promised to it.
"""

from typing import NamedTuple

# Below that part of its memory, the host wants what guests can spare.
LOW_PART = 5
# What QEMU's process has beside the guest's memory, about.
OF_QEMU = 64 << 20


class Host(NamedTuple):
    """The host's memory."""
    total: int
    available: int
    keep: int                   # free for itself


class Claim(NamedTuple):
    """What a guest may have of the host."""
    granted: int                # boot memory, plugged, and asked to plug
    resident: int               # of that, and QEMU itself
    share: int = 1

    @property
    def promised(self):
        """How much more it may take."""
        return max(0, self.granted + OF_QEMU - self.resident)


def room(host, claims):
    """Return what is left to grant."""
    promised = sum(claim.promised for claim in claims)
    return max(0, host.available - host.keep - promised)


def is_low(host, claims):
    """Tell whether guests should spare what they can."""
    return room(host, claims) < host.total // LOW_PART


def divide(size, demands):
    """Divide a size by shares among demands: {name: (wanted, share)}.

    What a guest does not want is for the others.
    """
    granted, left = {}, dict(demands)
    while left:
        shares = sum(share for _, share in left.values())
        content = {name: wanted for name, (wanted, share) in left.items()
                   if wanted * shares <= size * share}
        if not content:
            granted.update((name, size * share // shares)
                           for name, (_, share) in left.items())
            return granted
        granted.update(content)
        size -= sum(content.values())
        left = {name: demand for name, demand in left.items()
                if name not in content}
    return granted


def _reduced(decision, sizes, granted, unit):
    """Return a decision to grow as far as the host can bear it."""
    wish = (max(sizes.wish, sizes.plugged) + granted) // unit * unit
    if wish >= decision.wish:
        return decision
    if wish > sizes.plugged:
        return decision._replace(wish=wish, reason=f'{decision.reason}; the '
                                 'host has no more')
    # A shrink that is under way must not go on.
    verb = 'settle' if sizes.wish < sizes.plugged else 'hold'
    return decision._replace(verb=verb, wish=max(sizes.wish, sizes.plugged),
                             reason=f'{decision.reason}; the host has none',
                             is_denied=True)


def limit(host, claims, sizes, decisions, units):
    """Return decisions that the host can bear; all by the guest's name."""
    growths = {name: decision for name, decision in decisions.items()
               if decision.verb == 'grow'}
    granted = divide(room(host, claims.values()), {
        name: (decision.wish - max(sizes[name].wish, sizes[name].plugged),
               claims[name].share)
        for name, decision in growths.items()})
    return decisions | {
        name: _reduced(decision, sizes[name], granted[name], units[name])
        for name, decision in growths.items()}
