"""A pattern in the guest's memory that the host can tell from any other.

SPDX-License-Identifier: GPL-2.0-or-later

The guest writes files in its tmpfs /mem; no two files are alike.  The host
computes on its own what checksum each one must have, so that a page that
got lost at any time, even while the pattern was written, is found.
"""

import functools
import zlib

from virtio_mem_guest import MiB

FILE_SIZE = 256 * MiB

# File N repeats "N 1 2 3 .. LAST_NUMBER", one number to a line: long, because
# a TCG guest copies fast but starts system calls slowly.
LAST_NUMBER = 11000

# Two workers, one per CPU: each of them takes every second file.
SHELL = '''
f=$(seq 1 {last_number});
write() {{ yes "$1 $f" |
           dd of=/mem/$1 bs=1M count={mib} iflag=fullblock 2>/dev/null; }};
check() {{ crc32 /mem/$1; }};
each() {{ for n in $(seq $1 {stride} {last});
          do {action} $n || return; done; }};
each {first} & other=$!;
each {second} && wait $other
'''


@functools.lru_cache(None)
def _expected(number):
    """Return the checksum of a whole file."""
    numbers = '\n'.join(map(str, range(1, LAST_NUMBER + 1)))
    text = f'{number} {numbers}\n'.encode() * 64
    left = FILE_SIZE
    checksum = 0
    while left:
        chunk = text[:left]
        checksum = zlib.crc32(chunk, checksum)
        left -= len(chunk)
    return checksum


def _run(guest, action, numbers):
    command = SHELL.format(action=action, first=numbers.start,
                           second=numbers.start + numbers.step,
                           stride=2 * numbers.step, last=numbers.stop - 1,
                           last_number=LAST_NUMBER, mib=FILE_SIZE // MiB)
    return guest.ask(' '.join(command.split()))


def write(guest, nb_files, first=0, step=1):
    """Let the guest fill nb_files times FILE_SIZE of its memory.

    With first and step: only some of these files.
    """
    _run(guest, 'write', range(first, nb_files, step))


def damaged_files(guest, nb_files, first=0, step=1):
    """List the files that do not hold the pattern (any more)."""
    numbers = range(first, nb_files, step)
    found = {}
    for line in _run(guest, 'check', numbers).splitlines():
        checksum, path = line.split()
        found[int(path.rpartition('/')[2])] = int(checksum, 16)
    return [number for number in numbers
            if found.get(number) != _expected(number)]


def fill(guest, path, mib):
    """Let the guest write a file that no host drops pages of.

    Linux drops pages of zeros when it splits a huge page.  mib is a multiple
    of 8: a piece of that size is copied, which is faster than a pipe.
    """
    guest.ask(f'yes "$(seq 1 {LAST_NUMBER})" | '
              f'dd of={path}.piece bs=1M count=8 iflag=fullblock && '
              f'(for n in $(seq {mib // 8}); do cat {path}.piece || exit; '
              f'done) > {path} && rm {path}.piece')


def erase(guest):
    """Let the guest free the memory."""
    guest.ask('rm /mem/*')
