"""What host memory a process has, mapping by mapping.

SPDX-License-Identifier: GPL-2.0-or-later
"""

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


def file_memory(pid, first):
    """Return how much memory the file has that a process maps at first."""
    for path in Path(f'/proc/{pid}/map_files').iterdir():
        if int(path.name.partition('-')[0], 16) == first:
            return path.stat().st_blocks * 512
    return 0
