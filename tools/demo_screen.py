"""Draw the demo's table: its last row lives while a step is under way.

SPDX-License-Identifier: GPL-2.0-or-later

On a terminal the row of the current step is drawn anew with each sample and
stays when the step is done.  Elsewhere there is a plain line per second and
the table comes at the end.
"""

import os
import shutil
import sys
import time

GIB = 1 << 30

NAME_WIDTH = 18
COLUMNS = {'requested': 10, 'plugged': 9, 'guest': 8, 'host': 8}
TIME_WIDTH = 8
FIXED_WIDTH = 2 + NAME_WIDTH + 1 + sum(COLUMNS.values()) + TIME_WIDTH
MAX_BAR_WIDTH = 30

HIDE_CURSOR = '\033[?25l'
SHOW_CURSOR = '\033[?25h'

LEGEND = '''\
Sizes in GiB: what the monitor requested of the device, what the guest has
plugged, what Linux in the guest manages in all (MemTotal), and what QEMU
uses of the host's memory (RSS).
'''


def gib(size):
    """Write a size in GiB; None is a size that cannot be known yet."""
    return '-' if size is None else f'{size / GIB:.2f}'


def seconds(duration):
    """Write a duration."""
    return f'{duration:.1f} s'


class Style:
    """What this output can show: colours, line drawing characters."""

    CODES = {'bold': '1', 'dim': '2', 'done': '32', 'active': '36'}

    def __init__(self, stream):
        self.live = stream.isatty() and os.environ.get('TERM') != 'dumb'
        self._colours = self.live and not os.environ.get('NO_COLOR')
        unicode = 'utf' in (stream.encoding or '').lower()
        self.full, self.half, self.empty, self.rule = (
            '━╸──' if unicode else '#  -')

    def paint(self, name, text):
        """Return text in one of the styles of CODES."""
        if not self._colours or not text:
            return text
        return f'\033[{self.CODES[name]}m{text}\033[0m'

    def bar(self, width, fraction, colour):
        """Draw a progress bar, in steps of half a character."""
        halves = int(width * 2 * fraction)
        head = self.full * (halves // 2) + self.half * (halves % 2)
        tail = self.empty * (width - len(head))
        return self.paint(colour, head) + self.paint('dim', tail)

    def pulse(self, width, phase):
        """Draw a bar for a step whose end cannot be foreseen."""
        length = max(width // 4, 1)
        room = width - length
        # To and fro: 0 .. room .. 0.
        start = room - abs(int(phase * width) % (2 * room + 1) - room)
        return (self.paint('dim', self.empty * start) +
                self.paint('active', self.full * length) +
                self.paint('dim', self.empty * (room - start)))


class Table:
    """The table of steps; one row per step, the last one may be unfinished."""

    def __init__(self, stream=sys.stdout):
        self._stream = stream
        self._style = Style(stream)
        self._rows = []
        self._said = 0
        width = shutil.get_terminal_size().columns - 1
        self._bar_width = min(width - FIXED_WIDTH - 1, MAX_BAR_WIDTH)
        if not self._style.live or self._bar_width < 4:
            self._bar_width = 0

    def _write(self, text):
        self._stream.write(text)
        self._stream.flush()

    def say(self, text, style=None):
        """Print lines of text."""
        self._write(self._style.paint(style, text) + '\n' if style
                    else text + '\n')

    def say_command(self, prompt, command):
        """Print a command to be typed at a prompt."""
        self.say(f'  {self._style.paint("dim", prompt)} {command}')

    def rule(self):
        """Print a line across the table."""
        width = FIXED_WIDTH - 2 + (self._bar_width + 1) * bool(self._bar_width)
        self.say('  ' + self._style.rule * width, 'dim')

    def header(self):
        """Print the names of the columns."""
        gap = ' ' * (self._bar_width + 1) if self._bar_width else ''
        names = ''.join(name.rjust(width) for name, width in COLUMNS.items())
        self.say(f'  {"step":{NAME_WIDTH}} {gap}{names}'
                 f'{"time":>{TIME_WIDTH}}', 'bold')
        self.rule()

    def begin(self):
        """Start: on a terminal, with the head of the table."""
        self.say('')
        self.say(LEGEND)
        if self._style.live:
            self.header()
            self._write(HIDE_CURSOR)

    def _row(self, name, sizes, duration, bar=''):
        cells = ''.join(gib(size).rjust(width)
                        for size, width in zip(sizes, COLUMNS.values()))
        return (f'  {name:{NAME_WIDTH}} {bar}{" " if bar else ""}{cells}'
                f'{seconds(duration):>{TIME_WIDTH}}')

    def _bar(self, fraction, duration):
        if not self._bar_width:
            return ''
        if fraction is None:
            return self._style.pulse(self._bar_width, duration)
        colour = 'done' if fraction == 1 else 'active'
        return self._style.bar(self._bar_width, fraction, colour)

    def _say_progress(self, name, fraction, sizes):
        percent = '' if fraction is None else f'{fraction:4.0%}'
        values = '  '.join(f'{column} {gib(size)}'
                           for column, size in zip(COLUMNS, sizes))
        self.say(f'{name:{NAME_WIDTH}} {percent:>4}  {values}')
        self._said = time.monotonic()

    def update(self, name, fraction, sizes, duration):
        """Show how far the current step is; fraction None: nobody knows."""
        if self._style.live:
            row = self._row(name, sizes, duration,
                            self._bar(fraction, duration))
            self._write(f'\r{row}\033[K')
        elif time.monotonic() - self._said >= 1:
            self._say_progress(name, fraction, sizes)

    def finish(self, name, sizes, duration):
        """The current step is done."""
        self._rows.append((name, sizes, duration))
        if self._style.live:
            self.update(name, 1, sizes, duration)
            self._write('\n')
        else:
            self._say_progress(name, 1, sizes)

    def abandon(self):
        """The current step will not be done: leave its row as it is."""
        if self._style.live:
            self._write(f'{SHOW_CURSOR}\n')

    def end(self):
        """Close the table, with the sum of the times."""
        if self._style.live:
            self._write(SHOW_CURSOR)
        else:
            self.say('')
            self.header()
            for name, sizes, duration in self._rows:
                self.say(self._row(name, sizes, duration))
        self.rule()
        total = sum(duration for _, _, duration in self._rows)
        width = FIXED_WIDTH + bool(self._bar_width) * (self._bar_width + 1)
        self.say(f'{seconds(total):>{width}}')
