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
each() {{ for n in $(seq $2 2 {last}); do $1 $n || return; done; }};
each {action} {first} & other=$!;
each {action} {second} && wait $other
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


def _run(guest, action, nb_files):
    command = SHELL.format(action=action, first=0, second=1,
                           last=nb_files - 1, last_number=LAST_NUMBER,
                           mib=FILE_SIZE // MiB)
    return guest.ask(' '.join(command.split()), timeout=300)


def write(guest, nb_files):
    """Let the guest fill nb_files times FILE_SIZE of its memory."""
    _run(guest, 'write', nb_files)


def damaged_files(guest, nb_files):
    """List the files that do not hold the pattern (any more)."""
    found = {}
    for line in _run(guest, 'check', nb_files).splitlines():
        checksum, path = line.split()
        found[int(path.rpartition('/')[2])] = int(checksum, 16)
    return [number for number in range(nb_files)
            if found.get(number) != _expected(number)]


def erase(guest):
    """Let the guest free the memory."""
    guest.ask('rm /mem/*')
