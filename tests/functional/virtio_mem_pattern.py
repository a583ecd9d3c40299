"""A pattern in the guest's memory that the host can tell from any other.

SPDX-License-Identifier: GPL-2.0-or-later

The guest writes files in its tmpfs /mem; no two files are alike.  The host
computes on its own what checksum each one must have, so that a page that
got lost at any time, even while the pattern was written, is found.
"""

import functools
import zlib

from virtio_mem_guest import MiB

# Small: what a TCG guest writes and reads is most of what many tests cost.
FILE_SIZE = 64 * MiB

# File N repeats "N 1 2 3 .. LAST_NUMBER", one number to a line.  Such a text is
# no multiple of 4 bytes, so no two pages of a file are alike.
LAST_NUMBER = 11001
TEXT_SIZE = 53 << 10            # or a little more
# A TCG guest copies fast, but starts system calls and programs slowly: some
# texts are made a piece, which is copied until the file is full.
PIECE_TEXTS = 20
PIECES = FILE_SIZE // (PIECE_TEXTS * TEXT_SIZE) + 1

# Two workers, one per CPU: each of them takes every second file.
SHELL = '''
times() {{ yes $1 | head -n $2; }};
write() {{ seq $1 $1 > /tmp/text$1; seq 1 {last_number} >> /tmp/text$1;
           cat $(times /tmp/text$1 {piece_texts}) > /tmp/piece$1;
           cat $(times /tmp/piece$1 {pieces}) > /mem/$1;
           truncate -s {size} /mem/$1;
           rm /tmp/text$1 /tmp/piece$1; }};
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
    text = f'{number}\n{numbers}\n'.encode() * 64
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
                           last_number=LAST_NUMBER, size=FILE_SIZE,
                           piece_texts=PIECE_TEXTS, pieces=PIECES)
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
    of 8: a piece of that size is copied.
    """
    guest.ask(f'seq {LAST_NUMBER} > {path}.text && '
              f'cat $(yes {path}.text | head -n 160) > {path}.piece && '
              f'truncate -s 8M {path}.piece && '
              f'cat $(yes {path}.piece | head -n {mib // 8}) > {path} && '
              f'rm {path}.text {path}.piece')


def erase(guest):
    """Let the guest free the memory."""
    guest.ask('rm /mem/*')
