# SPDX-License-Identifier: GPL-2.0-or-later
"""
Count the test cases of the runs in a Meson test log.

Meson counts programs; one program runs many cases.
"""

import re
from collections import Counter

# A case, its directive, and the lines that the program says about it.
CASE = re.compile(r'^(not )?ok\b[ \d]*(?:- )?(.*?)[ \t]*'
                  r'(?:#[ \t]*(SKIP|TODO)\b[ \t]*(.*))?$((?:\n#.*)*)',
                  re.I | re.M)
ALL_SKIPPED = re.compile(r'^1\.\.0\s*#\s*SKIP\S*\s*(.*)', re.I | re.M)


def cases(run):
    """Yield (outcome, case, reason) of one program's run."""
    name = run['name'].removeprefix('virtio-mem:').split(' / ')[-1]
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
    if run['result'] not in ('OK', 'SKIP', 'EXPECTEDFAIL'):
        if not failed:
            yield 'failed', name, run['result'].lower()
    elif not CASE.search(output):
        reason = ALL_SKIPPED.search(output)
        outcome = 'skipped' if run['result'] == 'SKIP' else 'passed'
        yield outcome, name, reason[1] if reason else ''


def report(runs):
    """
    Show why cases were skipped and how others failed, close with the line "N
    passed, N failed, N skipped".  Return 1 if one failed or none ran, or 0.
    """
    count = Counter()
    notable = {'skipped': [], 'failed': []}
    for run in runs:
        for outcome, case, reason in cases(run):
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
