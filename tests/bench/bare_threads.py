"""The second yardstick: what bare threads reach on this host, just now.

SPDX-License-Identifier: GPL-2.0-or-later

They make the same system calls in the same slices (bare-threads.c) and do
nothing else.  So what is measured as a fraction of their speed is what the
device adds, whatever the host is.
"""

import subprocess

import virtio_mem_parts as parts
from measure import GiB, MiB, at_least

BAR = at_least(0.95)
SOURCE = parts.TOP / 'tests/bench/bare-threads.c'
POPULATE_SLICE = 2 * MiB


def _discard_slice(backend):
    is_slow = backend.is_shared and not backend.is_pool
    return (4 if is_slow else 32) * MiB


def name_of(measure):
    """Return the name of the row beside that of a measure."""
    return f'{measure}, of bare threads'


def measure(run, backend, size, nb_threads=2, wrapper=()):
    """Return the speed at which they populate, and give back, in GiB/s."""
    program = run.directory / 'bare-threads'
    subprocess.run(['gcc', '-O2', '-Wall', '-Werror', '-pthread', '-o',
                    program, SOURCE], check=True)
    found = subprocess.run(
        [*wrapper, program, backend.kind, str(size), str(POPULATE_SLICE),
         str(_discard_slice(backend)), str(nb_threads)],
        check=True, capture_output=True, text=True)
    return [size / GiB / float(seconds) for seconds in found.stdout.split()]
