"""What this host is like, where tests depend on it: probed, never guessed.

SPDX-License-Identifier: GPL-2.0-or-later

tools/check says all of it at the start of a run.
"""

import ctypes
import functools
import mmap
import os
from pathlib import Path

import virtio_mem_mappings as mappings
import virtio_mem_parts as parts

MiB = 1 << 20

HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage')


@functools.cache
def reading_costs_memory():
    """Tell whether the host gives memory to a guest that only reads.

    Linux maps one page of zeros for all that was never written; with
    transparent huge pages, which QEMU asks for, only where use_zero_page is
    set.
    """
    size = 16 * MiB
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for offset in range(0, size, mmap.PAGESIZE):
        assert not memory[offset]
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return mappings.memory(os.getpid(), address, address + size) > size // 2


def _setting(path):
    """Return what a file of sysfs says, if there is one."""
    try:
        return path.read_text(encoding='ascii').strip()
    except OSError:
        return 'absent'


def facts():
    """List what can make a test pass on one host and fail on another."""
    uname = os.uname()
    total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    processors = len(os.sched_getaffinity(0))
    reading = 'costs memory' if reading_costs_memory() else 'costs nothing'
    return [
        f'Linux {uname.release} on {uname.machine}, {processors} processors, '
        f'load {os.getloadavg()[0]:.1f}',
        f'memory: {total // MiB} MiB, {parts.mem_available() // MiB} MiB of '
        'it available',
        f'reading memory that was never written {reading} (huge pages: '
        f'{_setting(HUGE_PAGES / "enabled")}, zero page: '
        f'{_setting(HUGE_PAGES / "use_zero_page")})',
        f'KVM: {parts.kvm_trouble() or "yes"}',
        f'userfaultfd: {parts.guard_trouble() or "yes"}',
    ]
