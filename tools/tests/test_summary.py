# SPDX-License-Identifier: GPL-2.0-or-later
"""The closing line counts cases, and nothing that went wrong is lost."""

import contextlib
import io
import unittest

import summary
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
