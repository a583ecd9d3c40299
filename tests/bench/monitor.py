"""A monitor client that is cheap enough to ask every millisecond.

SPDX-License-Identifier: GPL-2.0-or-later

As a program it does that, in a process of its own so that nothing else
delays it:

    monitor.py SOCKET PID FILE PERIOD

asks query-memory-devices on SOCKET each PERIOD seconds until its standard input
ends, then writes a list of samples to FILE, see Sample.
"""

import gc
import json
import os
from pathlib import Path
import re
import select
import socket
import subprocess
import sys
import time
from typing import NamedTuple

PERIOD = 0.001


class Sample(NamedTuple):
    """One question.  Times are seconds of the monotonic clock."""

    sent: float
    latency: float
    requested: int
    plugged: int
    rss: int


class MonitorError(Exception):
    """QEMU refused a command, or is gone."""


class Monitor:
    """A QMP connection with one command at a time, events kept aside."""

    def __init__(self, path, timeout=120):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._file = self._socket.makefile('rb')
        self.events = []
        self._receive()
        self.cmd('qmp_capabilities')

    def close(self):
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _receive(self):
        line = self._file.readline()
        if not line:
            raise MonitorError('QEMU closed the monitor')
        return json.loads(line)

    def cmd(self, command, **arguments):
        """Run a command and return what it returns."""
        message = {'execute': command, 'arguments': arguments}
        self._socket.sendall(json.dumps(message).encode() + b'\n')
        while True:
            answer = self._receive()
            if 'return' in answer:
                return answer['return']
            if 'error' in answer:
                raise MonitorError(f'{command}: {answer["error"]["desc"]}')
            self.events.append(answer)

    def wait_event(self, name):
        """Wait for an event that has not been asked for before."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event['event'] == name:
                    return event
            self.events.append(self._receive())

    def device(self):
        """The only memory device."""
        (device,) = self.cmd('query-memory-devices')
        return device['data']

    def wait_plugged(self, is_done, timeout, pause=0.002):
        """Return the time at which the plugged size was found right."""
        deadline = time.monotonic() + timeout
        while not is_done(self.device()['size']):
            if time.monotonic() > deadline:
                raise MonitorError(f'after {timeout} s the device still is '
                                   f'{self.device()}')
            time.sleep(pause)
        return time.monotonic()


def resident(pid):
    """How much host memory a process has, huge pages of a pool apart.

    Unlike smaps this does not walk page tables, nor does it take the lock
    of the process's mappings.
    """
    fields = Path(f'/proc/{pid}/statm').read_text(encoding='ascii').split()
    return int(fields[1]) * os.sysconf('SC_PAGE_SIZE')


def pool_memory(pid):
    """How many huge pages of a pool a process has, in bytes."""
    status = Path(f'/proc/{pid}/status').read_text(encoding='ascii')
    (found,) = re.findall(r'^HugetlbPages:\s+(\d+) kB$', status, re.MULTILINE)
    return int(found) << 10


def _sample(monitor, pid):
    sent = time.monotonic()
    device = monitor.device()
    latency = time.monotonic() - sent
    return Sample(sent, latency, device['requested-size'], device['size'],
                  resident(pid))


def _poll(path, pid, period):
    """Ask in each period, or at once when the last answer was late."""
    monitor = Monitor(path)
    samples = [_sample(monitor, pid)]
    print('started', flush=True)
    due = time.monotonic()
    while True:
        due = max(due + period, time.monotonic())
        wait = max(due - time.monotonic(), 0)
        if select.select([sys.stdin], [], [], wait)[0]:
            return samples
        samples.append(_sample(monitor, pid))


def main():
    """Be the process that asks."""
    path, pid, file, period = sys.argv[1:]
    gc.disable()
    samples = _poll(path, pid, float(period))
    Path(file).write_text(json.dumps(samples), encoding='ascii')


class Poller:
    """The process that asks; a context manager around what it watches."""

    def __init__(self, path, pid, directory, period=PERIOD):
        self._file = Path(directory) / 'samples.json'
        # A client that waits for its turn would blame QEMU for it.
        command = [sys.executable, __file__, str(path), str(pid),
                   str(self._file), str(period)]
        if os.geteuid() == 0:
            command = ['nice', '-n', '-10', *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.samples = []

    def __enter__(self):
        if not self._process.stdout.readline():
            self._process.wait()
            raise MonitorError('the monitor client did not start')
        return self

    def __exit__(self, kind, *_):
        self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        if kind is not None:
            return
        if status:
            raise MonitorError(f'the monitor client ended with {status}')
        self.samples = [Sample(*values) for values in
                        json.loads(self._file.read_text(encoding='ascii'))]


if __name__ == '__main__':
    main()
