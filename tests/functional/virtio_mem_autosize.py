"""virtio-mem-autosize as its users run it, and loads for its guests.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile

import virtio_mem_parts as parts
import virtio_mem_busy as busy
from virtio_mem_guest import MiB, PATIENCE, process_ticks, wait_until

TOOL = Path(__file__).resolve().parents[2] / \
    'contrib/virtio-mem-autosize/virtio-mem-autosize'

# The tool on a host where nothing but guests runs.
ON_HOST = '''
import functools, runpy, sys
sys.path.insert(0, "{tool.parent}")
import autosize, budget, qmp_guest
def host(keep):
    used = sum(map(qmp_guest.resident, {pids}))
    return budget.Host({size}, {size} - used, keep)
autosize.Autosize = functools.partial(autosize.Autosize, host=host)
runpy.run_path("{tool}", run_name="__main__")
'''

# Leaves a guest with 1 GiB short of memory, and its own programs alive.
LEFT = 208 * MiB
# Of the data of a hog.
SEED_SIZE = 16 * MiB


def command(*arguments, program=(TOOL,)):
    """Return the command line of the tool, with QEMU's Python packages."""
    parts.qemu_machine()
    return ['env', f'PYTHONPATH={":".join(filter(None, sys.path))}',
            '/usr/bin/python3', *map(str, (*program, *arguments))]


class Autosize:
    """The running tool; use it as a context manager, which ends it.

    A host of a size has nothing but the guests; other programs of the real one
    come and go.
    """

    def __init__(self, *arguments, host_size=None, guests=()):
        program = (TOOL,)
        if host_size:
            program = ('-c', ON_HOST.format(
                tool=TOOL, size=host_size,
                pids=[guest.vm.get_pid() for guest in guests]))
        self._log = tempfile.NamedTemporaryFile('r+', encoding='utf-8')
        self._process = subprocess.Popen(command(*arguments, program=program),
                                         stdout=self._log,
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

    def last_line(self, name):
        """Return what it has said last of a guest."""
        return ([line for line in self.lines() if line.startswith(f'{name}: ')]
                or [''])[-1]

    def nb_decisions(self):
        """Return how often it has decided to change something."""
        return sum(bool(re.search(r': (grow|shrink|settle) \d', line))
                   for line in self.lines())

    def processor_s(self):
        """Return for how many seconds it had a processor."""
        return process_ticks(self._process.pid) / os.sysconf('SC_CLK_TCK')

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

    Linux gives up pages that hold zeros, and refuses a process more than there
    is.
    """

    LARGEST = 256 * MiB
    # It has read all before it writes; its reader takes no more than a byte.
    HOLD = ('(for i in $(seq {nb_seeds}); do cat /mem/seed; done | '
            'dd bs={size} count=1 iflag=fullblock | '
            '(head -c 1 > /dev/null; echo >> /tmp/full; exec sleep 9999)) '
            '> /dev/null 2>&1 &')
    NB_FULL = ('$(( $(wc -l < /tmp/full) + '
               "$(awk '/^oom_kill / { print $2 }' /proc/vmstat) ))")

    def __init__(self, guest):
        guest.ask(f'dd if=/dev/urandom of=/mem/seed bs={SEED_SIZE} count=1 '
                  'iflag=fullblock 2> /dev/null')
        self._guest = guest
        self._begin()

    def _begin(self):
        self._guest.ask(': > /tmp/full')
        self._wanted = busy.oom_kills(self._guest)

    def start(self, *sizes):
        """Let one for each size begin to fill it, all at once."""
        self._wanted += len(sizes)
        self._guest.ask(' '.join(
            self.HOLD.format(nb_seeds=size // SEED_SIZE,
                             size=size // SEED_SIZE * SEED_SIZE)
            for size in sizes))

    def fill(self, left):
        """Start as many as leave so much available.

        Who wants no process to be killed leaves enough for those that the guest
        runs beside them.
        """
        size = busy.available(self._guest) - left
        while size >= SEED_SIZE:
            self.start(min(size, self.LARGEST))
            size -= self.LARGEST

    def wait(self):
        """Wait until each one is full, or was killed."""
        self._guest.ask(f'until [ {self.NB_FULL} -ge {self._wanted} ]; '
                        'do sleep 0.05; done')

    def free(self):
        """Let them go."""
        self.wait()
        self._guest.ask('killall sleep')
        self._begin()


def take(guest, hogs, is_enough, look):
    """Let processes take what the guest gets, until it is enough.

    Something else may have to be looked at meanwhile.
    """
    while not is_enough():
        hogs.fill(LEFT)
        hogs.wait()
        wait_until(lambda: look() or is_enough() or
                   busy.available(guest) > 300 * MiB,
                   lambda: f'not enough: {guest.device_info()}')
