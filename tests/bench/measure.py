"""What a benchmark measures, what it must reach, and the table of results.

SPDX-License-Identifier: GPL-2.0-or-later

A row is one measure.  A group is a function that runs one emulator once and
returns a value for each of its rows; the runner calls it for ours and for
stock in turn.  All values of a row have the row's unit.
"""

import dataclasses
import itertools
import statistics
from typing import Callable, Optional

MiB = 1 << 20
GiB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Bar:
    """What the median of ours must reach, given the median of stock."""

    text: str
    is_met: Callable[[float, Optional[float]], bool]
    is_for_each: bool = False       # run; the median does not matter


def at_most(limit):
    """Stock does not matter."""
    return Bar(f'<= {limit:g}', lambda ours, stock: ours <= limit)


def at_least(limit):
    """The same for what should be much."""
    return Bar(f'>= {limit:g}', lambda ours, stock: ours >= limit)


def at_most_of_stock(factor):
    """Less is better."""
    return Bar(f'<= {factor:g} x stock',
               lambda ours, stock: stock is not None
               and ours <= factor * stock)


def at_least_times_stock(factor):
    """More is better."""
    return Bar(f'>= {factor:g} x stock',
               lambda ours, stock: stock is not None
               and ours >= factor * stock)


def either(first, second):
    """One of two bars will do."""
    return Bar(f'{first.text}, or {second.text}',
               lambda ours, stock: first.is_met(ours, stock)
               or second.is_met(ours, stock))


def in_each_run(bar):
    """What must not happen even once."""
    return dataclasses.replace(bar, text=f'{bar.text} in each run',
                               is_for_each=True)


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure.  Without a bar it is there to explain others."""

    name: str
    unit: str
    bar: Optional[Bar] = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Measures that come out of the same run.

    once_is_enough holds for stock: when it takes minutes to wait for
    nothing, or when each run gives the same number.  ours_only is for what
    stock does not have.
    """

    key: str
    title: str
    rows: tuple
    run: Callable
    once_is_enough: bool = False
    ours_only: bool = False


def in_turn(names, number):
    """The order of a run: whoever is second may find a warmer host."""
    names = list(names)
    return names if number % 2 == 0 else names[::-1]


def half_span(values):
    """How far the runs lie apart."""
    return (max(values) - min(values)) / 2


class Results:
    """All values of all runs, by row and emulator."""

    EMULATORS = ('ours', 'stock')

    def __init__(self):
        self._values = {}
        self.errors = []

    def add(self, group, emulator, values):
        """Take in one run; a row without a value is a mistake."""
        assert set(values) == {row.name for row in group.rows}, values
        for name, value in values.items():
            self._values.setdefault((group.key, name, emulator),
                                    []).append(value)

    def fail(self, group, emulator, message):
        """A run that broke; it has no values."""
        self.errors.append((group.key, emulator, message))

    def values(self, group, row, emulator):
        """List the values of a row in the order of the runs."""
        return self._values.get((group.key, row.name, emulator), [])

    def median(self, group, row, emulator):
        """The median of the runs, None when there was none."""
        values = self.values(group, row, emulator)
        return statistics.median(values) if values else None

    def _reach(self, group, row, emulator):
        """The median and what else it may well have been."""
        values = self.values(group, row, emulator)
        if not values:
            return [None]
        median = statistics.median(values)
        return [median, median - half_span(values), median + half_span(values)]

    def has_failed(self, group, emulator):
        """Whether a run of this emulator broke."""
        return any(error[:2] == (group.key, emulator)
                   for error in self.errors)

    def verdict(self, group, row):
        """What the last column says; a broken run meets nothing.

        Runs that lie further apart than the bar is away tell nothing.
        """
        if row.bar is None:
            return ''
        ours = self.median(group, row, 'ours')
        broken = any(self.has_failed(group, name) for name in self.EMULATORS)
        if broken or ours is None:
            return 'no value'
        if row.bar.is_for_each:
            return 'yes' if all(row.bar.is_met(value, None) for value in
                                self.values(group, row, 'ours')) else 'NO'
        found = {row.bar.is_met(*both) for both in itertools.product(
            *(self._reach(group, row, name) for name in self.EMULATORS))}
        if len(found) > 1:
            return 'noise'
        return 'yes' if found.pop() else 'NO'


def format_number(value):
    """Write four digits, which is more than any of this is worth."""
    if value is None:
        return '-'
    if abs(value) >= 1000:
        return f'{value:.0f}'
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.4g}'


def _format_value(results, group, row, emulator):
    """The median, and how far the runs lie apart."""
    if results.has_failed(group, emulator):
        return 'error'
    values = results.values(group, row, emulator)
    median = results.median(group, row, emulator)
    if not median or len(values) < 2:
        return format_number(median)
    spread = half_span(values) / abs(median)
    return f'{format_number(median)} ±{spread:.0%}'


def _format_ratio(results, group, row):
    ours, stock = (results.median(group, row, name)
                   for name in results.EMULATORS)
    if ours is None or not stock:
        return ''
    return format_number(ours / stock)


def table(groups, results):
    """Return the lines of the table: one per row, columns aligned."""
    lines = [('', 'measure', 'unit', 'ours', 'stock', 'ratio', 'bar', 'met')]
    for group in groups:
        for row in group.rows:
            lines.append((group.key, row.name, row.unit,
                          _format_value(results, group, row, 'ours'),
                          _format_value(results, group, row, 'stock'),
                          _format_ratio(results, group, row),
                          row.bar.text if row.bar else '',
                          results.verdict(group, row)))
    widths = [max(map(len, column)) for column in zip(*lines)]
    align = ('<', '<', '<', '>', '>', '>', '<', '<')
    text = ['  '.join(f'{cell:{how}{width}}' for cell, how, width
                      in zip(line, align, widths)).rstrip()
            for line in lines]
    return [text[0], '-' * max(map(len, text)), *text[1:]]


def as_json(groups, results):
    """Return all of it for programs."""
    return [{'key': group.key, 'measure': row.name, 'unit': row.unit,
             'bar': row.bar.text if row.bar else None,
             'met': results.verdict(group, row) or None,
             **{name: {'median': results.median(group, row, name),
                       'values': results.values(group, row, name)}
                for name in results.EMULATORS}}
            for group in groups for row in group.rows]
