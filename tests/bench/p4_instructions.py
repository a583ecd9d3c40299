"""P4: how many instructions does QEMU need for a request?

SPDX-License-Identifier: GPL-2.0-or-later

Valgrind counts, in all threads.  What qtest needs to put the request there,
ring and poll is counted by doing the same without ringing, and taken off.
The doorbell is served where it is rung (ioeventfd=off): with an eventfd,
rounds of the main loop would be counted, and there are more or fewer of them
by chance.
"""

import re
import subprocess

from measure import Group, Row, at_most_of_stock
from tiny_guest import MiB, PLUG, STATE, TinyGuest, UNPLUG

BAR = at_most_of_stock(1)
SIZES = {1: '1 block', 64: '64 blocks'}
KINDS = {'PLUG': PLUG, 'STATE': STATE, 'UNPLUG': UNPLUG}
NB_REQUESTS = 250
# A round of the main loop more or less is chance: the least counts.
NB_REPEATS = 5

ROWS = tuple(Row(f'{kind} of {size}', 'instr.', BAR)
             for size in SIZES.values() for kind in KINDS)


class Counter:
    """Reads callgrind's count of a running QEMU."""

    def __init__(self, directory):
        self._file = directory / 'callgrind'
        self._nb_dumps = 0
        self.wrapper = ('valgrind', '-q', '--tool=callgrind',
                        f'--callgrind-out-file={self._file}')

    def take(self, pid):
        """Return what was counted since last asked."""
        subprocess.run(['callgrind_control', '--dump', str(pid)], check=True,
                       stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        self._nb_dumps += 1
        dump = self._file.with_name(f'{self._file.name}.{self._nb_dumps}')
        found = re.search(r'^totals: (\d+)$', dump.read_text(), re.MULTILINE)
        return int(found[1])


def _count_requests(guest, counter, kind, nb_blocks):
    """Return instructions, and how often the guest had to look."""
    guest.polls = 0
    for number in range(NB_REQUESTS):
        guest.request(kind, number * nb_blocks, nb_blocks)
    return counter.take(guest.vm.get_pid()), guest.polls


def _count_qtest(guest, counter, nb_blocks):
    """Return the instructions of the same without device and looking."""
    for number in range(NB_REQUESTS):
        guest.pretend(STATE, number * nb_blocks, nb_blocks)
    return counter.take(guest.vm.get_pid())


def _count_poll(guest, counter):
    """Return the instructions of looking once."""
    for _ in range(NB_REQUESTS):
        guest.is_answered()
    return counter.take(guest.vm.get_pid()) / NB_REQUESTS


def _count(guest, counter, nb_blocks):
    """Return the instructions of one request of each kind."""
    totals, qtest, poll = {kind: [] for kind in KINDS}, [], []
    for _ in range(NB_REPEATS):
        for kind, number in KINDS.items():
            totals[kind].append(_count_requests(guest, counter, number,
                                                nb_blocks))
        qtest.append(_count_qtest(guest, counter, nb_blocks))
        poll.append(_count_poll(guest, counter))
    return {f'{kind} of {SIZES[nb_blocks]}':
            min(total - min(qtest) - polls * min(poll)
                for total, polls in found) / NB_REQUESTS
            for kind, found in totals.items()}


def run_once(run):
    """All measures in one start."""
    counter = Counter(run.directory)
    values = {}
    with TinyGuest(NB_REQUESTS * max(SIZES) * 2 * MiB,
                   backend='memory-backend-ram,reserve=off',
                   device=f',ioeventfd=off{run.device_options}',
                   wrapper=counter.wrapper) as guest:
        guest.start()
        counter.take(guest.vm.get_pid())
        for nb_blocks in SIZES:
            values.update(_count(guest, counter, nb_blocks))
    return values


GROUP = Group('P4', 'instructions of a request', ROWS, run_once)
