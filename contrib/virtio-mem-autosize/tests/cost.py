#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What virtio-mem-autosize costs: processor time, memory and decisions.

usage: cost.py [NB-GUESTS [SECONDS]]

The guests are simulated, by another process, in real time; each half minute on
average the load of one changes.  The host has memory for all.  PYTHONPATH must
name qemu.qmp and this directory's parent.
"""

import asyncio
import os
from pathlib import Path
import random
import subprocess
import sys
import tempfile

from fake_qemu import FakeQEMU
from simulated_vm import GiB, SimulatedVM, STEP_S

HERE = Path(__file__).resolve().parent.parent
ON_LARGE_HOST = f'''
import functools, runpy, sys
sys.path.insert(0, "{HERE}")
import autosize, budget
autosize.Autosize = functools.partial(
    autosize.Autosize, host=lambda keep: budget.Host(1 << 50, 1 << 49, 0))
runpy.run_path("{HERE}/virtio-mem-autosize", run_name="__main__")
'''


async def serve(paths):
    """Be the guests, until this process is ended."""
    vms = [SimulatedVM(random.Random(path)) for path in paths]
    for vm, path in zip(vms, paths):
        await FakeQEMU(vm, path, jobs=True).__aenter__()
    print('ready', flush=True)
    while True:
        await asyncio.sleep(STEP_S)
        for vm in vms:
            if random.random() < STEP_S / 30:
                vm.load(random.randrange(4 * GiB), 20)
            vm.step()


def measure(paths, seconds):
    """Run the tool for so long; return its usage and what it has said."""
    with tempfile.TemporaryFile('w+', encoding='utf-8') as log:
        with subprocess.Popen([sys.executable, '-c', ON_LARGE_HOST, *paths],
                              stdout=log) as tool:
            try:
                tool.wait(seconds)
            except subprocess.TimeoutExpired:
                tool.terminate()
            _, tool.returncode, usage = os.wait4(tool.pid, 0)
        log.seek(0)
        return usage, log.read().splitlines()


def main():
    nb_guests, seconds = map(int, (sys.argv[1:] + ['1', '60'][
        len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory() as directory:
        paths = [f'{directory}/{number}' for number in range(nb_guests)]
        with subprocess.Popen([sys.executable, __file__, '--serve', *paths],
                              stdout=subprocess.PIPE) as guests:
            guests.stdout.readline()
            usage, lines = measure(paths, seconds)
            guests.terminate()
    used = usage.ru_utime + usage.ru_stime
    nb_decisions = sum(' -> ' in line for line in lines)
    print(f'{nb_guests} guests, {seconds} s: {used / seconds:.2%} of a '
          f'processor, {usage.ru_maxrss >> 10} MiB, '
          f'{60 * nb_decisions / seconds:.1f} decisions a minute')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--serve']:
        asyncio.run(serve(sys.argv[2:]))
    else:
        main()
