"""How long QEMU's big lock was held for one piece of a request.

SPDX-License-Identifier: GPL-2.0-or-later

Read from the device's trace events, with time stamps.  The lock is held from
the start of a request to its answer, but for what lies between
virtio_mem_work_begin, if that says "away", and virtio_mem_work_end.
"""

import re

LINE = re.compile(r'\d+@(\d+\.\d+):virtio_mem_(\w+) ?(.*)')
REQUEST = re.compile(r'(un)?plug_request|unplug_all_request|state_request')


def events(text):
    """List (seconds, name without virtio_mem_, arguments)."""
    return [(float(time), name, arguments)
            for time, name, arguments in LINE.findall(text)]


def holds(found):
    """List the seconds of each piece in which the lock was held."""
    result = []
    since = None
    is_away = False
    for time, name, arguments in found:
        if REQUEST.fullmatch(name) or name == 'work_end' and is_away:
            since, is_away = time, False
        elif since is not None and name == 'send_response':
            result.append(time - since)
            since = None
        elif since is not None and name == 'work_begin' \
                and 'away=1' in arguments:
            result.append(time - since)
            since, is_away = None, True
    return result


def longest_hold(path):
    """Return milliseconds; a trace without a request is an error."""
    found = holds(events(path.read_text(encoding='utf-8')))
    if not found:
        raise ValueError(f'{path} has no request that was answered')
    return max(found) * 1000
