"""P11: what does it save to resize a guest as it needs memory, at what price?

SPDX-License-Identifier: GPL-2.0-or-later

A Linux guest is idle, allocates, reads and is idle again: with 4 GiB that it
has for good, with free page reporting, with virtio-mem-autosize, with both, and
with both where the tool leaves it its caches.  The tool begins with the boot
memory alone.  Stock has no part in this.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import time
from typing import NamedTuple

import host
import p11_turns
import plot
from linux_guest import check_quiet, linux_guest
from measure import GiB, Group, MiB, Row, at_least, at_most, in_each_run
from monitor import Poller
from virtio_mem_autosize import Autosize, Hogs
from virtio_mem_busy import oom_kills

BOOT, REGION, FILE = 1 * GiB, 3 * GiB, 1 * GiB
MOUNT = '/mem/disk'
HOG = 256 * MiB
# Of the pauses, which are for people in a hurry to make shorter.
PACE = float(os.environ.get('BENCH_PAUSES') or 1)
SAMPLE_S = 0.1


class Setup(NamedTuple):
    """What takes memory back from the guest."""

    reporting: bool
    tool: bool
    options: str = ''               # of the guest, for the tool


FIXED, BOTH = 'fixed', 'both'
SETUPS = {FIXED: Setup(False, False), 'reporting': Setup(True, False),
          'tool': Setup(False, True), BOTH: Setup(True, True),
          'caches kept': Setup(True, True, ',caches=keep')}
OTHERS = [name for name in SETUPS if name != FIXED]
TOOLS = [name for name in SETUPS if SETUPS[name].tool]
MEAN, HIGHEST, LIMIT = 'mean host memory', 'highest host memory', 'mean limit'
SAVED, KILLED = 'host memory saved', 'processes killed'
DECISIONS, PROCESSOR = 'decisions', 'processor time of the tool'
ALLOCATE, READ = 'allocate 1.5 GiB', 'read 1 GiB'
READ_AGAIN, BURST = 'read it again', '8 allocate 2 GiB'
PHASES = (ALLOCATE, READ, READ_AGAIN, BURST)


def _name(measure, setup):
    return f'{measure}, {setup}'


def _rows():
    for measure in (MEAN, HIGHEST, LIMIT):
        for name in SETUPS:
            yield Row(_name(measure, name), 'GiB')
    for name in OTHERS:
        yield Row(_name(SAVED, name), '%',
                  at_least(30) if name == BOTH else None)
    for name, setup in SETUPS.items():
        yield Row(_name(KILLED, name), '',
                  in_each_run(at_most(0)) if setup.tool else None)
    for phase in PHASES:
        yield Row(_name(phase, FIXED), 's')
        for name in OTHERS:
            yield Row(_name(phase, name), 'x fixed',
                      at_most(1.1) if name == BOTH else None)
    for name in TOOLS:
        yield Row(_name(DECISIONS, name), '')
        yield Row(_name(PROCESSOR, name), 's')
    yield from p11_turns.ROWS


class Workload:
    """What the guest does, one thing after the other."""

    READ = f'dd if={MOUNT}/file of=/dev/null bs=1M 2> /dev/null'

    def __init__(self, guest):
        self._guest = guest
        self._hogs = Hogs(guest)
        self.seconds = {}

    def _allocate(self, nb_hogs):
        self._hogs.start(*[HOG] * nb_hogs)
        self._hogs.wait()

    def _timed(self, phase, function, *arguments):
        start = time.monotonic()
        function(*arguments)
        self.seconds[phase] = time.monotonic() - start

    def _allocate_one_by_one(self, nb_hogs):
        for _ in range(nb_hogs):
            self._allocate(1)

    def run(self):
        """All of it: five minutes, or a little less."""
        time.sleep(30 * PACE)
        self._timed(ALLOCATE, self._allocate_one_by_one, 6)
        time.sleep(45 * PACE)
        self._hogs.free()
        self._timed(READ, self._guest.ask, self.READ)
        time.sleep(75 * PACE)
        self._timed(READ_AGAIN, self._guest.ask, self.READ)
        self._timed(BURST, self._allocate, 8)
        self._hogs.free()
        time.sleep(30 * PACE)


def _write_disk(path):
    """Make a file system with one file.

    Linux keeps what it read of a disk itself until nobody has it open, and in
    memory that is not the device's; what it read of a file, for long, anywhere.
    """
    content = path.with_suffix('.content')
    content.mkdir()
    with open(content / 'file', 'wb') as file:
        for _ in range(FILE // (16 * MiB)):
            file.write(os.urandom(16 * MiB))
    subprocess.run(['/sbin/mke2fs', '-q', '-t', 'ext4', '-d', content, path,
                    f'{2 * FILE // MiB}M'], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.rmtree(content)


@contextlib.contextmanager
def _guest(run, setup):
    """Boot a guest and give it what it begins with."""
    reporting = 'on' if setup.reporting else 'off'
    args = ['-device', 'virtio-balloon-pci,'
            f'free-page-reporting={reporting}',
            '-drive', f'file={run.directory}/disk,if=none,id=disk,'
            'format=raw,readonly=on', '-device', 'virtio-blk-pci,drive=disk']
    for name in ('poll', 'tool'):
        args += ['-qmp', f'unix:{run.directory}/{name},server=on,wait=off']
    with linux_guest(run.directory, boot_size=BOOT, region_size=REGION,
                     device_options=run.device_options, more_args=args,
                     kernel_options='virtio_balloon.load') as (guest, _):
        guest.wait_boot()
        guest.ask(f'modprobe virtio_blk; mkdir {MOUNT}; '
                  f'mount -t ext4 -o ro /dev/vda {MOUNT}')
        if not setup.tool:
            guest.resize(REGION)
        yield guest
        check_quiet(guest)


def _watch(run, guest):
    """Let the guest work; return seconds by phase, samples and the start."""
    with Poller(run.directory / 'poll', guest.vm.get_pid(), run.directory,
                SAMPLE_S) as poller:
        workload, start = Workload(guest), time.monotonic()
        workload.run()
    return workload.seconds, poller.samples, start


def _with_tool(run, guest, values, name):
    """The same beside the tool."""
    setup = SETUPS[name]
    with Autosize(*([] if setup.reporting else ['--without-reporting']),
                  f'{run.directory}/tool{setup.options}') as tool:
        tool.wait_line('found')
        result = _watch(run, guest)
        values[_name(PROCESSOR, name)] = tool.processor_s()
        values[_name(DECISIONS, name)] = tool.nb_decisions()
        tool.end()
    return result


def _measure(run, name, values):
    """Measure one set-up; return the seconds of each phase."""
    host.touch(BOOT + REGION)
    with _guest(run, SETUPS[name]) as guest:
        seconds, samples, start = _with_tool(run, guest, values, name) \
            if SETUPS[name].tool else _watch(run, guest)
        values[_name(KILLED, name)] = oom_kills(guest)
    resident = [sample.rss / GiB for sample in samples]
    values[_name(MEAN, name)] = statistics.fmean(resident)
    values[_name(HIGHEST, name)] = max(resident)
    values[_name(LIMIT, name)] = statistics.fmean(
        (BOOT + sample.plugged) / GiB for sample in samples)
    plot.write_samples(name, samples, start, 'autosize')
    return seconds


def run_once(run):
    """All set-ups, one after the other; then two guests in turn."""
    _write_disk(run.directory / 'disk')
    values = {}
    seconds = {name: _measure(run, name, values) for name in SETUPS}
    mean = values[_name(MEAN, FIXED)]
    for name in OTHERS:
        values[_name(SAVED, name)] = \
            100 * (1 - values[_name(MEAN, name)] / mean)
    for phase in PHASES:
        fixed = values[_name(phase, FIXED)] = seconds[FIXED][phase]
        for name in OTHERS:
            values[_name(phase, name)] = seconds[name][phase] / fixed
    return values | p11_turns.run_once(run)


def draw():
    """Draw the last run, if there was one."""
    return plot.draw_autosize({name: setup.tool
                               for name, setup in SETUPS.items()}, BOOT)


GROUP = Group('P11', 'memory that follows need', tuple(_rows()), run_once,
              ours_only=True)
