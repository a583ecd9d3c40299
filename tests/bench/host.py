"""The host under a benchmark: its memory, its settings, its emulators.

SPDX-License-Identifier: GPL-2.0-or-later

Settings of the whole host are put back.
"""

import contextlib
import ctypes
import os
from pathlib import Path
import subprocess
import sys

import virtio_mem_parts as parts
from virtio_mem_guest import GiB, MiB, parse_size
from virtio_mem_host import HostError, HugePages, settings

EMULATORS = {'ours': 'build/qemu/qemu-system-x86_64',
             'stock': 'build/stock/qemu-system-x86_64'}
OUTPUT = parts.TOP / 'build/bench'
REPORTING = Path('/sys/module/page_reporting/parameters/page_reporting_order')
NEVER = 11      # an order that no free page has

PR_SET_THP_DISABLE = 41
MADV_HUGEPAGE, MADV_POPULATE_WRITE = 14, 23
TOUCH = f'''
import mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE)
area.madvise({MADV_HUGEPAGE})
for start in range(0, len(area), {GiB}):
    size = min({GiB}, len(area) - start)
    area.madvise({MADV_POPULATE_WRITE}, start, size)
'''


def size():
    """How much memory is grown, 8 GiB if BENCH_SIZE does not say."""
    return parse_size(os.environ.get('BENCH_SIZE') or '8G')


@contextlib.contextmanager
def environment(**variables):
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def emulator(name):
    """Make ours or stock the emulator that guests are run by."""
    return environment(QEMU_BINARY=str(parts.TOP / EMULATORS[name]))


def require_memory(amount):
    """Rather no number than one from a host that swaps."""
    available = parts.mem_available()
    if available < amount:
        raise HostError(f'{amount >> 20} MiB of free memory needed, '
                        f'{available >> 20} MiB available; '
                        'try a smaller BENCH_SIZE')


def keep_free_memory():
    """Keep a host that is a virtual machine from giving free memory back.

    It would have to get it again, at a speed that is not its own.
    """
    if not os.access(REPORTING, os.W_OK):
        return contextlib.nullcontext()
    return settings(REPORTING.parent, {REPORTING.name: NEVER})


def touch(amount):
    """Use host memory and free it again: the first use may be slow."""
    if not amount:
        return
    require_memory(amount + 512 * MiB)
    subprocess.run([sys.executable, '-c', TOUCH, str(amount)], check=True)


def touch_most():
    """Once, before anything is measured: then most free memory was used."""
    spare = parts.mem_available() - 3 * GiB
    touch(max(min(spare, 2 * size() + 2 * GiB), 0) // GiB * GiB)


def huge_pages(amount):
    """Have so much memory in the host's pool of huge pages."""
    pool = HugePages()
    return pool.pool(amount // pool.page_size)


@contextlib.contextmanager
def small_pages():
    """Whatever is started inside gets no transparent huge pages."""
    def disable(value):
        if ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, value, 0, 0, 0):
            raise HostError('prctl(PR_SET_THP_DISABLE) failed')

    disable(1)
    try:
        yield
    finally:
        disable(0)
