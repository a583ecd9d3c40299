# SPDX-License-Identifier: GPL-2.0-or-later
"""The closing line counts cases, and nothing that went wrong is lost."""

import contextlib
import functools
import io
import re
import tomllib
import unittest
from unittest import mock

import summary
import virtio_mem_facts
import virtio_mem_tap


class Summary(unittest.TestCase):

    def report(self, *runs):
        """Return (status, lines) for runs given as (result, output)."""
        log = [{'name': f'virtio-mem:unit / test-{n}', 'result': result,
                'stdout': output} for n, (result, output) in enumerate(runs)]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = summary.report(log)
        return status, said.getvalue().splitlines()

    def said(self, show, runs):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            show(runs)
        return said.getvalue().splitlines()

    def test_cases_are_counted_not_programs(self):
        status, said = self.report(
            ('OK', '1..2\nok 1 /a/b\n# note\nok 2 /a/c\n'),
            ('OK', 'ok 1 - x\n'))
        self.assertEqual((status, said),
                         (0, ['3 passed, 0 failed, 0 skipped']))

    def test_program_without_cases_is_one_case(self):
        status, said = self.report(('OK', 'all is well\n'))
        self.assertEqual((status, said),
                         (0, ['1 passed, 0 failed, 0 skipped']))

    def test_skipped_case_is_shown_with_its_reason(self):
        _, said = self.report(('OK', 'ok 1 a\nok 2 b # SKIP no huge pages\n'))
        self.assertEqual(said, ['skipped: test-0 b: no huge pages',
                                '1 passed, 0 failed, 1 skipped'])

    def test_strictly_a_skip_needs_a_listed_reason(self):
        for reason, outcome in (('/dev/kvm cannot be used', 'skipped'),
                                ('too lazy', 'failed')):
            with mock.patch.object(summary, 'report', functools.partial(
                    summary.report, strict=True)):
                status, said = self.report(
                    ('OK', f'ok 1 a\nok 2 b # SKIP {reason}\n'))
            self.assertIn(f'{outcome}: test-0 b: ', said[0])
            self.assertIn(reason, said[0])
            self.assertEqual(status, outcome == 'failed')

    def test_what_the_host_has_is_no_reason_to_skip(self):
        for reason, fact in (
                ('/dev/kvm cannot be used (no such file)', 'KVM: yes'),
                ('userfaultfd may not be used', 'userfaultfd: yes'),
                ('this host has no userfaultfd: it', 'userfaultfd: yes')):
            for facts, outcome in (([], 'skipped'), ([fact], 'failed')):
                self.assertEqual(
                    summary.strictly('skipped', reason, facts)[0], outcome)

    def test_each_allowed_skip_says_why(self):
        listed = tomllib.loads(summary.SKIPS.read_text())['allowed']
        for entry in listed:
            self.assertEqual(set(entry) - {'unless'}, {'reason', 'why'})
            self.assertFalse(re.search(entry['reason'], 'too lazy'))
            if 'unless' in entry:
                name, has = entry['unless'].split(': ')
                self.assertEqual(has, 'yes')
                self.assertIn(name, [fact.split(': ')[0]
                                     for fact in virtio_mem_facts.facts()])

    def test_log_of_a_failed_program_is_shown(self):
        said = self.said(summary.show_logs, [
            {'name': 'a', 'result': 'OK', 'stdout': 'all is well\n'},
            {'name': 'b', 'result': 'FAIL', 'stdout': 'not ok 1 b\n',
             'stderr': 'Bail out!\n'}])
        self.assertEqual(said, ['--- log of b (FAIL):', '    not ok 1 b',
                                '    Bail out!'])

    def test_ten_slowest_programs_are_named(self):
        said = self.said(summary.show_slowest, [
            {'name': f't{n}', 'duration': n} for n in range(12)])
        self.assertEqual(said[0], 'slowest:    11.0 s  t11')
        self.assertEqual(len(said), 10)

    def test_skipped_program_is_shown_with_its_reason(self):
        _, said = self.report(('OK', 'ok 1 a\n'),
                              ('SKIP', '1..0 # SKIP no /dev/kvm\n'))
        self.assertEqual(said, ['skipped: test-1: no /dev/kvm',
                                '1 passed, 0 failed, 1 skipped'])

    def test_failed_case_fails_the_run(self):
        status, said = self.report(('FAIL', 'ok 1 a\nnot ok 2 /b/c\n'))
        self.assertEqual((status, said), (1, [
            'failed: test-0 /b/c', '1 passed, 1 failed, 0 skipped']))

    def test_failed_case_is_shown_with_what_was_said(self):
        _, said = self.report(('FAIL', 'ok 1 a\n# about a\nnot ok 2 - b\n'
                                       '# Traceback\n# 1 != 2\nok 3 c\n'))
        self.assertEqual(said, [
            'failed: test-0 b', '# Traceback', '# 1 != 2',
            '2 passed, 1 failed, 0 skipped'])

    def test_crash_is_a_failure_though_no_case_failed(self):
        status, said = self.report(('ERROR', '1..3\nok 1 a\n'))
        self.assertEqual((status, said), (1, [
            'failed: test-0: error', '1 passed, 1 failed, 0 skipped']))

    def test_timeout_is_a_failure(self):
        status, said = self.report(('TIMEOUT', ''))
        self.assertEqual((status, said), (1, [
            'failed: test-0: timeout', '0 passed, 1 failed, 0 skipped']))

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(self.report(),
                         (1, ['0 passed, 0 failed, 0 skipped']))


if __name__ == '__main__':
    virtio_mem_tap.main()
