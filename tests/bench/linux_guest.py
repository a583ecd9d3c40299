"""A Linux guest to be measured: functional tests' guest and a timer in it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import gzip
import subprocess
import time

import program
import virtio_mem_parts as parts
from monitor import Monitor
from virtio_mem_guest import Guest, GuestError

SOURCE = parts.TOP / 'tests/bench/timer-gap.c'
TRACE = 'virtio_mem_*'


def initrd_with_timer(directory):
    """Return an initramfs that has timer-gap, too.

    Linux unpacks archives that follow each other.
    """
    timer = directory / 'timer-gap'
    subprocess.run(['gcc', '-O2', '-Wall', '-Werror', '-static', '-o',
                    timer, SOURCE], check=True)
    archive = program.load('guest-image').Archive()
    archive.add_file('bin/timer-gap', timer.read_bytes(), 0o755)
    result = directory / 'initrd.img'
    result.write_bytes(parts.part('GUEST_INITRD').read_bytes() +
                       gzip.compress(archive.finish()))
    return result


@contextlib.contextmanager
def linux_guest(directory, name='guest', more_args=(), **options):
    """Boot a guest; give it and a monitor, at directory/name.monitor.

    Its trace is directory/name.trace.  In the end its kernel must have
    nothing to say.
    """
    path = directory / f'{name}.monitor'
    args = ('-qmp', f'unix:{path},server=on,wait=off',
            '-msg', 'timestamp=on',
            '-trace', f'{TRACE},file={directory}/{name}.trace', *more_args)
    with Guest(more_args=args, **options) as guest:
        monitor = Monitor(path)
        try:
            yield guest, monitor
        finally:
            monitor.close()


def check_quiet(guest):
    """A guest that complains is no benchmark."""
    complaints = guest.complaints()
    if complaints:
        raise GuestError(f'the guest complains: {complaints}')


class Timer:
    """timer-gap at work in a guest."""

    STOP = ('kill $(pidof timer-gap); while pidof timer-gap; do sleep 0.1; '
            'done > /dev/null; cat /tmp/gap')

    def __init__(self, guest):
        self._guest = guest
        self._started = time.monotonic()
        guest.ask('timer-gap > /tmp/gap 2>&1 & sleep 0.2; '
                  'pidof timer-gap || cat /tmp/gap')

    def stop(self):
        """Return the longest gap in milliseconds."""
        answer = self._guest.ask(self.STOP).split()
        if len(answer) != 2 or not answer[0].isdigit() or int(answer[1]) < 10:
            raise GuestError(f'timer-gap in the guest says {answer}')
        elapsed = (time.monotonic() - self._started) * 1000
        gap = int(answer[0]) / 1000
        if gap > elapsed:
            raise GuestError(f'a gap of {gap} ms within {elapsed} ms')
        return gap
