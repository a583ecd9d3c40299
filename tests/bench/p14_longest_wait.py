"""P14: how long does a holder of the BQL wait for unplugged huge pages?

SPDX-License-Identifier: GPL-2.0-or-later

The main loop reads across the border of two unplugged pages, and needs both at
once, while vCPUs write to other unplugged pages (rogue.S).  QEMU's log of qtest
has a time before the read and one behind it, both with the BQL held.  When the
host gives the processor to others in between, that counts, too: the row whose
vCPUs write to memory of their own shows how much it is.  Stock has no guard.
"""

import re
import statistics
import subprocess
import time

import backends
import host
import virtio_mem_parts as parts
from measure import Group, MiB, Row, at_most
from tiny_guest import GiB, TinyGuest, TinyGuestError

SOURCE = parts.TOP / 'tests/bench/rogue.S'
FLAG, COUNTS = 0x7000, 0x7100       # as there
NB_ROGUES = 16
NB_READS = 300
PAGE = 2 * MiB
ADDRESS = 4 * GiB
SIZE = 32 * PAGE
# Pages behind those of the rogues.
FIRST, LAST = 17, 31
PATIENCE = 60

QUIET, LONGEST, MEDIAN = (
    f'longest wait, {NB_ROGUES} vCPUs elsewhere',
    f'longest wait, {NB_ROGUES} rogue vCPUs',
    f'median wait, {NB_ROGUES} rogue vCPUs')
ROWS = (Row(QUIET, 'ms'), Row(LONGEST, 'ms', at_most(100)), Row(MEDIAN, 'ms'))


def waits(log):
    """List the milliseconds that each read of 8 bytes took, in their order."""
    found = re.findall(r'^\[R \+([0-9.]+)\] readq .*\n\[S \+([0-9.]+)\] OK',
                       log, re.MULTILINE)
    return [1000 * (float(end) - float(begin)) for begin, end in found]


def _firmware(directory):
    """Return the file of rogue.S, assembled."""
    built, firmware = directory / 'rogue.o', directory / 'rogue.bin'
    subprocess.run(['gcc', '-m64', '-c', SOURCE, '-o', built], check=True)
    subprocess.run(['ld', '-Ttext', '0', '--oformat', 'binary', '-e', '_start',
                    '-o', firmware, built], check=True)
    return firmware


def _counts(guest):
    return [guest.read('l', COUNTS + 8 * number)
            for number in range(NB_ROGUES)]


def _wait_all_at_work(guest):
    """All processors go on counting."""
    before = _counts(guest)
    deadline = time.monotonic() + PATIENCE
    while any(now == then for now, then in zip(_counts(guest), before)):
        if time.monotonic() > deadline:
            raise TinyGuestError(f'some of {NB_ROGUES} vCPUs do nothing')
        time.sleep(0.01)


def _read_across(guest):
    for number in range(NB_READS):
        page = FIRST + number % (LAST - FIRST)
        word = guest.read('q', ADDRESS + page * PAGE - 4)
        if word:
            raise TinyGuestError(f'unplugged memory reads as {word:#x}')
        time.sleep(0.001)


def _both(run, log):
    """Read without rogues, then beside them."""
    device = (f',memaddr={ADDRESS:#x},protect-unplugged=on'
              f'{run.device_options}')
    with host.huge_pages(2 * SIZE), \
         TinyGuest(SIZE, backend=backends.HUGETLB.option, device=device,
                   accel='tcg,thread=multi',
                   args=('-smp', str(NB_ROGUES), '-bios',
                         str(_firmware(run.directory)),
                         '-qtest-log', str(log))) as guest:
        _wait_all_at_work(guest)
        _read_across(guest)
        guest.write('b', FLAG, 1)
        _wait_all_at_work(guest)
        _read_across(guest)
        _wait_all_at_work(guest)
        guest.vm.shutdown()     # as it should be, so that the log is written


def run_once(run):
    """All measures in one start."""
    log = run.directory / 'qtest.log'
    _both(run, log)
    found = waits(log.read_text(encoding='ascii'))
    if len(found) != 2 * NB_READS:
        raise TinyGuestError(f'{len(found)} reads in the log')
    return {QUIET: max(found[:NB_READS]),
            LONGEST: max(found[NB_READS:]),
            MEDIAN: statistics.median(found[NB_READS:])}


GROUP = Group('P14', 'wait for unplugged huge pages', ROWS, run_once,
              ours_only=True)
