#!/usr/bin/python3
"""
Run ours and stock in turn, and print one table.

SPDX-License-Identifier: GPL-2.0-or-later

usage: tests/bench/bench.py [KEYS]

KEYS are groups of measures, such as P1,P4; without, all.  Environment:

    RUNS=N              runs of each emulator (5)
    BENCH_SIZE=SIZE     how much memory is grown (8G); the bars are for 8G
    BENCH_DEVICE=,PROPERTY=VALUE    more properties for our device alone
    BENCH_PAUSES=FACTOR the pauses of P11 (1); the bars are for 1

The table is build/bench/table.txt, table.json the same for programs,
resize.png shows the last resize of P1, autosize.png the last run of P11.
"""

import dataclasses
import json
import os
from pathlib import Path
import signal
import sys
import tempfile
import traceback

TOP = Path(__file__).resolve().parent.parent.parent
sys.path += [str(TOP / 'tests/functional'), str(TOP / 'tools')]

import host                                         # noqa: E402
import measure                                      # noqa: E402
import p1_stall                                     # noqa: E402
import p2_populate                                  # noqa: E402
import p3_resize                                    # noqa: E402
import p4_instructions                              # noqa: E402
import p5_discard                                   # noqa: E402
import p6_maximum                                   # noqa: E402
import p8_migration                                 # noqa: E402
import p9_guard                                     # noqa: E402
import p11_autosize                                 # noqa: E402
import p12_discard_runs                             # noqa: E402
import p13_safe_shrink                              # noqa: E402
import p14_longest_wait                             # noqa: E402
import plot                                         # noqa: E402
import virtio_mem_parts as parts                    # noqa: E402

MODULES = (p1_stall, p2_populate, p3_resize, p4_instructions, p5_discard,
           p6_maximum, p8_migration, p9_guard, p11_autosize,
           p12_discard_runs, p13_safe_shrink, p14_longest_wait)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a group needs to know about one run."""

    emulator: str
    directory: Path

    @property
    def device_options(self):
        """Properties that are to be tried, stock does not know them."""
        if self.emulator == 'stock':
            return ''
        return os.environ.get('BENCH_DEVICE', '')


def all_groups():
    """List the groups of all modules."""
    return [group for module in MODULES
            for group in getattr(module, 'GROUPS', None) or (module.GROUP,)]


def choose(keys):
    """List the groups that were asked for."""
    groups = all_groups()
    known = {group.key for group in groups}
    wanted = set(keys.upper().split(',')) if keys else known
    if not wanted <= known:
        sys.exit(f'bench: error: no {", ".join(sorted(wanted - known))}; '
                 f'there are {", ".join(sorted(known))}')
    return [group for group in groups if group.key in wanted]


def check_parts():
    """Say what is missing before anything takes long."""
    missing = []
    for name in host.EMULATORS:
        with host.emulator(name):
            missing += parts.troubles()
    if missing:
        sys.exit('bench: error: ' + '; '.join(missing))


def shorten(error):
    """An error in one line: what QEMU said last is the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ' ... '.join([type(error).__name__, *lines[:1], *lines[1:][-1:]])


def run_once(group, emulator, results):
    """Run one emulator once, take in what came of it."""
    with tempfile.TemporaryDirectory() as directory, host.emulator(emulator):
        try:
            values = group.run(Run(emulator, Path(directory)))
        except Exception as error:      # whatever broke: no number
            results.fail(group, emulator, shorten(error))
            print(f'  {emulator:5}  {shorten(error)}', flush=True)
            with open(host.OUTPUT / 'errors.log', 'a',
                      encoding='utf-8') as log:
                traceback.print_exc(file=log)
            return
    results.add(group, emulator, values)
    for row in group.rows:
        number = measure.format_number(values[row.name])
        print(f'  {emulator:5}  {row.name}: {number} {row.unit}', flush=True)


def write(groups, results, nb_runs):
    """Write what there is so far; a long benchmark may be interrupted."""
    lines = measure.table(groups, results)
    lines += [f'error: {key}, {emulator}: {message}'
              for key, emulator, message in results.errors]
    (host.OUTPUT / 'table.txt').write_text('\n'.join(lines) + '\n',
                                           encoding='utf-8')
    facts = {'runs': nb_runs, 'size': host.size(), 'cpus': os.cpu_count(),
             'kernel': os.uname().release, 'errors': results.errors,
             'device': os.environ.get('BENCH_DEVICE', ''),
             'rows': measure.as_json(groups, results)}
    (host.OUTPUT / 'table.json').write_text(json.dumps(facts, indent=1),
                                            encoding='utf-8')
    return lines


def takes_part(emulator, group, number):
    """Whether an emulator has something to do in a run of a group."""
    return emulator == 'ours' or not (group.ours_only or
                                      number and group.once_is_enough)


def run_all(groups, nb_runs):
    """Run ours and stock in turn, group by group; return the results."""
    results = measure.Results()
    for group in groups:
        for number in range(nb_runs):
            print(f'{group.key} {group.title}: {number + 1}/{nb_runs}',
                  flush=True)
            for emulator in measure.in_turn(host.EMULATORS, number):
                if takes_part(emulator, group, number):
                    run_once(group, emulator, results)
            write(groups, results, nb_runs)
    return results


def main():
    """Measure, and put the host's settings back whatever happens."""
    groups = choose(sys.argv[1] if len(sys.argv) > 1 else '')
    nb_runs = int(os.environ.get('RUNS') or 5)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    check_parts()
    host.OUTPUT.mkdir(parents=True, exist_ok=True)
    (host.OUTPUT / 'errors.log').unlink(missing_ok=True)
    with host.keep_free_memory():
        host.touch_most()
        results = run_all(groups, nb_runs)
    print('\n' + '\n'.join(write(groups, results, nb_runs)))
    pictures = (plot.draw(f'Linux grows, {host.size() >> 20} MiB, prealloc=on'),
                p11_autosize.draw())
    print(f'\n{host.OUTPUT}/table.txt',
          *(picture for picture in pictures if picture))
    return 1 if results.errors else 0


if __name__ == '__main__':
    sys.exit(main())
