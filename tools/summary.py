# SPDX-License-Identifier: GPL-2.0-or-later
"""
Count the test cases of the runs in a Meson test log.

Meson counts programs; one program runs many cases.
"""

import re
import tomllib
from collections import Counter
from pathlib import Path

SKIPS = Path(__file__).resolve().parent / 'skips.toml'
NB_SLOWEST = 10
# Of each program that failed, so much is shown.
NB_LOG_LINES = 300
GOOD = ('OK', 'SKIP', 'EXPECTEDFAIL')

# A case, its directive, and the lines that the program says about it.
CASE = re.compile(r'^(not )?ok\b[ \d]*(?:- )?(.*?)[ \t]*'
                  r'(?:#[ \t]*(SKIP|TODO)\b[ \t]*(.*))?$((?:\n#.*)*)',
                  re.I | re.M)
ALL_SKIPPED = re.compile(r'^1\.\.0\s*#\s*SKIP\S*\s*(.*)', re.I | re.M)


def program_name(run):
    """The name of the program that was run."""
    return run['name'].removeprefix('virtio-mem:').split(' / ')[-1]


def cases(run):
    """Yield (outcome, case, reason) of one program's run."""
    name = program_name(run)
    output = run.get('stdout', '')
    failed = False
    for not_ok, case, directive, reason, said in CASE.findall(output):
        if (directive or '').upper() == 'SKIP':
            yield 'skipped', f'{name} {case}', reason
        elif not_ok and not directive:
            failed = True
            yield 'failed', f'{name} {case}{said}', ''
        else:
            yield 'passed', f'{name} {case}', ''
    # A crash or a timeout may leave no "not ok" behind.
    if run['result'] not in GOOD:
        if not failed:
            yield 'failed', name, run['result'].lower()
    elif not CASE.search(output):
        reason = ALL_SKIPPED.search(output)
        outcome = 'skipped' if run['result'] == 'SKIP' else 'passed'
        yield outcome, name, reason[1] if reason else ''


def may_skip(reason, facts):
    """Whether tools/skips.toml says why a case may be skipped for @reason."""
    allowed = tomllib.loads(SKIPS.read_text())['allowed']
    return any(re.search(entry['reason'], reason) and
               entry.get('unless') not in facts for entry in allowed)


def strictly(outcome, reason, facts):
    """What a case counts as that may only be skipped with good reason."""
    if outcome != 'skipped' or may_skip(reason, facts):
        return outcome, reason
    return 'failed', (f'skipped ({reason or "without a reason"}), which '
                      'tools/skips.toml does not allow')


def show_logs(runs):
    """Show what the programs said that failed, the end of it."""
    for run in runs:
        if run['result'] not in GOOD:
            lines = (run.get('stdout', '') +
                     run.get('stderr', '')).splitlines()
            print(f'--- log of {program_name(run)} ({run["result"]}):')
            for line in lines[-NB_LOG_LINES:]:
                print(f'    {line}')


def show_slowest(runs):
    """Name the programs that took longest."""
    timed = sorted((run for run in runs if 'duration' in run),
                   key=lambda run: run['duration'], reverse=True)
    for run in timed[:NB_SLOWEST]:
        print(f'slowest: {run["duration"]:7.1f} s  {program_name(run)}')


def report(runs, strict=False, facts=()):
    """
    Show why cases were skipped and how others failed, close with the line "N
    passed, N failed, N skipped".  Return 1 if one failed or none ran, or 0.  If
    @strict, a case that was skipped for a reason that is not on the list, or is
    none on a host of which @facts are known, has failed.
    """
    count = Counter()
    notable = {'skipped': [], 'failed': []}
    for run in runs:
        for outcome, case, reason in cases(run):
            if strict:
                outcome, reason = strictly(outcome, reason, facts)
            count[outcome] += 1
            if outcome in notable:
                notable[outcome].append(
                    f'{case}: {reason}' if reason else case)
    for outcome, lines in notable.items():
        for line in lines:
            print(f'{outcome}: {line}')
    print(f'{count["passed"]} passed, {count["failed"]} failed, '
          f'{count["skipped"]} skipped')
    return 1 if count['failed'] or not count['passed'] else 0
