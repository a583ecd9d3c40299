# SPDX-License-Identifier: GPL-2.0-or-later
"""
Named units: definitions that this repository owns inside QEMU's own files.

qapi/machine.json holds QAPI definitions, each with its doc comment;
MAINTAINERS holds sections.  Each unit follows a line that says what is
expected of QEMU's file:

    # unit: replaces    QEMU has a unit of this name, ours takes its place
    # unit: adds        QEMU has none, ours goes behind the unit before it
                        (the first: to the end of the file)

Both are checked, so that the day QEMU renames a unit or gains one of the
same name does not pass unnoticed.  What stands before the first such line
(licence, explanations) stays here.
"""

import re

MARKER = re.compile(r'^# unit: (\w+)$')
QAPI_NAME = re.compile(
    r"^\{ '(?:struct|union|enum|alternate|event|command)': '([^']+)'")


class UnitError(Exception):
    """A unit that is not what its marker says."""


def _qapi_units(lines):
    """Yield (name, first, end) of the definitions of a QAPI schema."""
    end = 0
    for i, line in enumerate(lines):
        match = QAPI_NAME.match(line)
        if i < end or not match:
            continue
        first, depth, end = i, 0, i
        while end == i or depth > 0:
            depth += len(re.findall(r'[{[]', lines[end]))
            depth -= len(re.findall(r'[]}]', lines[end]))
            end += 1
        if first > 0 and lines[first - 1] == '##':
            first = max(j for j in range(first - 1) if lines[j] == '##')
        yield match[1], first, end


def _maintainers_units(lines):
    """Yield (name, first, end) of the sections of a MAINTAINERS file."""
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and re.match(r'[A-Z]:\s', lines[i + 1]) \
                and line and not re.match(r'[A-Z]:\s', line):
            end = i
            while end < len(lines) and lines[end]:
                end += 1
            yield line, i, end


FORMATS = {
    'qapi/machine.json': _qapi_units,
    'MAINTAINERS': _maintainers_units,
}


def _own_units(path, text):
    """Return [(verb, name, lines)] of our file of units."""
    units, verb = [], None
    lines = text.splitlines()
    found = {first: (name, end) for name, first, end in FORMATS[path](lines)}
    for i, line in enumerate(lines):
        match = MARKER.match(line)
        if match:
            verb = match[1]
            if verb not in ('replaces', 'adds'):
                raise UnitError(f'{path}:{i + 1}: "{line}": a unit either '
                                '"replaces" or "adds"')
            if i + 1 not in found:
                raise UnitError(f'{path}:{i + 1}: no unit follows "{line}"')
        if i in found:
            name, end = found[i]
            if not i or not MARKER.match(lines[i - 1]):
                raise UnitError(f'{path}:{i + 1}: the unit {name} needs a line '
                                '"# unit: replaces" or "# unit: adds" above')
            units.append((verb, name, lines[i:end]))
    return units


def merge(path, theirs, ours):
    """Return the text of QEMU's file @path with the units of our file."""
    lines, last = theirs.splitlines(), None
    for verb, name, unit in _own_units(path, ours):
        place = {n: (first, end) for n, first, end in FORMATS[path](lines)}
        if verb == 'replaces' and name not in place:
            raise UnitError(f'{path}: the unit {name} should replace QEMU\'s, '
                            'but QEMU has none of that name')
        if verb == 'adds' and name in place:
            raise UnitError(f'{path}: the unit {name} should be new, '
                            'but QEMU has one of that name')
        if verb == 'replaces':
            first, end = place[name]
            lines[first:end] = unit
        else:
            end = place[last][1] if last else len(lines)
            lines[end:end] = [''] + unit
        last = name
    return '\n'.join(lines) + '\n'
