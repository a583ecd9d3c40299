#!/usr/bin/python3
"""Print what guests with virtio-mem cost the host, without and with KSM.

SPDX-License-Identifier: GPL-2.0-or-later

Each guest has some memory plugged that is idle, or full of random content, or
full of the same content in all guests.  The cost is the sum of QEMU's
proportional set sizes.  Needs root, for KSM, and memory for all guests.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'functional'))

# pylint: disable=wrong-import-position
import virtio_mem_parts as parts
import virtio_mem_pattern as pattern
from virtio_mem_guest import GiB, Guest, MiB
from virtio_mem_host import KSM, HostError

SETTLED_SCANS = 3


def proportional_size(guest):
    """Return a guest's share of the host's memory."""
    path = Path(f'/proc/{guest.vm.get_pid()}/smaps_rollup')
    for line in path.read_text(encoding='ascii').splitlines():
        if line.startswith('Pss:'):
            return int(line.split()[1]) << 10
    raise HostError(f'{path} has no Pss')


def cost(guests):
    """Return what all guests cost."""
    return sum(map(proportional_size, guests))


def fill_idle(_guest, _nb_files):
    """Leave memory as it is."""


def fill_random(guest, nb_files):
    """Fill memory with what no other page has."""
    guest.ask(f'head -c {nb_files * pattern.FILE_SIZE} /dev/urandom '
              '> /mem/random', timeout=600)


CONTENTS = {'idle': fill_idle, 'random': fill_random, 'equal': pattern.write}


def settle(ksm):
    """Wait until KSM has seen all pages often enough to have merged them."""
    last = ksm.count('full_scans') + SETTLED_SCANS
    while ksm.count('full_scans') < last:
        time.sleep(0.5)


def measure(nb_guests, nb_files, fill):
    """Return what 1 to nb_guests guests cost, without and with KSM."""
    without = []
    with_ksm = []
    with contextlib.ExitStack() as stack:
        guests = []
        for _ in range(nb_guests):
            guest = stack.enter_context(Guest())
            guest.wait_boot()
            guest.resize((nb_files + 1) * pattern.FILE_SIZE)
            fill(guest, nb_files)
            guests.append(guest)
            without.append(cost(guests))
        with KSM().running() as ksm:
            while guests:
                settle(ksm)
                with_ksm.insert(0, cost(guests))
                guests.pop().close()
    return without, with_ksm


def main():
    """Read the arguments, print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--guests', type=int, default=4,
                        help='up to so many guests (%(default)s)')
    parser.add_argument('--files', type=int, default=2,
                        help=f'content of each guest, in units of '
                             f'{pattern.FILE_SIZE // MiB} MiB (%(default)s)')
    args = parser.parse_args()
    if parts.troubles():
        sys.exit('ksm: ' + '; '.join(parts.troubles()))
    print(f'Host memory in GiB; each guest has '
          f'{args.files * pattern.FILE_SIZE / GiB:.2f} GiB of content.\n')
    print('content  KSM ' + ''.join(f'{n:>9}' for n in
                                    range(1, args.guests + 1)) + '  guests')
    try:
        for name, fill in CONTENTS.items():
            results = measure(args.guests, args.files, fill)
            for setting, costs in zip(('off', 'on'), results):
                print(f'{name:8} {setting:4}' +
                      ''.join(f'{each / GiB:9.2f}' for each in costs),
                      flush=True)
    except HostError as problem:
        sys.exit(f'ksm: {problem}')


if __name__ == '__main__':
    main()
