"""What host memory a process has, mapping by mapping.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
from pathlib import Path


def memory(pid, first, end):
    """Return how much host memory a process has in a range of addresses.

    Mappings that lie partly in the range count as a whole.
    """
    total = 0
    inside = False
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as smaps:
        for line in smaps:
            name, _, rest = line.partition(' ')
            if not name.endswith(':'):
                start, after = (int(n, 16) for n in name.split('-'))
                inside = start < end and after > first
            elif inside and name in ('Rss:', 'Shared_Hugetlb:',
                                     'Private_Hugetlb:'):
                total += int(rest.split()[0]) << 10
    return total


def _mapped_file(pid, address):
    """Return device and inode of the file that is mapped at an address."""
    with open(f'/proc/{pid}/maps', encoding='utf-8') as maps:
        for line in maps:
            bounds, _, _, device, inode = line.split()[:5]
            first, end = (int(n, 16) for n in bounds.split('-'))
            if first <= address < end:
                major, minor = (int(n, 16) for n in device.split(':'))
                return os.makedev(major, minor), int(inode)
    raise LookupError(f'process {pid} has no memory at {address:#x}')


def file_memory(pid, address):
    """Return how much memory the file has that is mapped at an address.

    That is 0 without a file.  The process must have it open, as QEMU has:
    only root may ask for the file by way of the mapping.
    """
    wanted = _mapped_file(pid, address)
    if not wanted[1]:
        return 0
    for path in Path(f'/proc/{pid}/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) == wanted:
                return stat.st_blocks * 512
    raise LookupError(f'process {pid} maps a file at {address:#x} that it has '
                      f'not open')
