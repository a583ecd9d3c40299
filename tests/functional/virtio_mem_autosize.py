"""virtio-mem-autosize as its users run it, and loads for its guests.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile

import virtio_mem_parts as parts
from virtio_mem_guest import MiB, PATIENCE, wait_until

TOOL = Path(__file__).resolve().parents[2] / \
    'contrib/virtio-mem-autosize/virtio-mem-autosize'

# Of the data of a hog.
SEED_SIZE = 16 * MiB


def command(*arguments):
    """Return the command line of the tool, with QEMU's Python packages."""
    parts.qemu_machine()
    return ['env', f'PYTHONPATH={":".join(filter(None, sys.path))}',
            '/usr/bin/python3', str(TOOL), *map(str, arguments)]


class Autosize:
    """The running tool; use it as a context manager, which ends it."""

    def __init__(self, *arguments):
        self._log = tempfile.NamedTemporaryFile('r+', encoding='utf-8')
        self._process = subprocess.Popen(command(*arguments), stdout=self._log,
                                         stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if failure:
            for line in self.lines():
                print(f'# autosize: {line}')
        self._log.close()

    def lines(self):
        """Return what it has said."""
        return Path(self._log.name).read_text(encoding='utf-8').splitlines()

    def wait_line(self, pattern, timeout=PATIENCE):
        """Wait until it has said something."""
        def look():
            found = [line for line in self.lines() if re.search(pattern, line)]
            if not found and self._process.poll() is not None:
                raise AssertionError(f'ended without "{pattern}": '
                                     f'{self.lines()}')
            return found
        return wait_until(look, lambda: f'no "{pattern}" in {self.lines()}',
                          timeout)[0]

    def wait(self):
        """Wait until it ends by itself; return its status."""
        return self._process.wait(PATIENCE)

    def kill(self):
        """End it without a chance to clean up."""
        self._process.kill()
        self._process.wait()

    def end(self, number=signal.SIGTERM):
        """Send a signal, and return the status with which it ends."""
        self._process.send_signal(number)
        return self.wait()


class Hogs:
    """Processes in the guest that hold data until they are told to go.

    They leave so much available; who wants no process to be killed leaves
    enough for those that the guest runs beside them.  Linux gives up pages that
    hold zeros, and refuses a process more than there is.
    """

    LARGEST = 256 * MiB

    def __init__(self, guest, left):
        guest.ask(f'dd if=/dev/urandom of=/mem/seed bs={SEED_SIZE} count=1 '
                  'iflag=fullblock 2> /dev/null')
        self._guest = guest
        size = available(guest) - left
        while size >= SEED_SIZE:
            self._hold(min(size, self.LARGEST) // SEED_SIZE)
            size -= self.LARGEST

    def _hold(self, nb_seeds):
        self._guest.ask(
            f'(for i in $(seq {nb_seeds}); do cat /mem/seed; done | '
            f'dd bs={nb_seeds * SEED_SIZE} count=1 iflag=fullblock | '
            'sleep 9999) > /dev/null 2>&1 &')

    def free(self):
        """Let them go."""
        self._guest.ask('killall sleep')


def available(guest):
    """Return what processes of the guest can have."""
    line = guest.ask('grep MemAvailable /proc/meminfo')
    return int(line.split()[1]) << 10


def killed(guest):
    """Return how many processes the guest's kernel has killed."""
    return int(guest.ask('grep "oom_kill " /proc/vmstat').split()[1])
