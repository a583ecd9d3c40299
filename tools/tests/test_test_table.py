# SPDX-License-Identifier: GPL-2.0-or-later
"""Holes between the plan of tests and the tests are noticed."""

import tempfile
import unittest
from pathlib import Path

import program
import virtio_mem_tap

table = program.load('test-table')

PLAN = '''# A comment

== A heading
D1 a demand
D2 vacuous (not tested: there is nothing to see)
PC1 a policy
T001 [D1 PC1] a case
T02A another
R-1 a weak spot
'''

TESTS = {'T001': ['a/b'], 'T02A': ['a/c', 'a/d'], 'R-1': ['a/b']}


class TestTable(unittest.TestCase):

    def read(self, **files):
        """Read tests from files of these names (plug=...) and contents."""
        with tempfile.TemporaryDirectory() as tmp:
            for name, text in files.items():
                Path(tmp, f'virtio-mem-{name}-test.c').write_text(text)
            return table.read_tests(Path(tmp))

    def assert_mistakes(self, plan, tests, *mistakes):
        self.assertEqual(list(table.Plan(plan).find_mistakes(tests)),
                         list(mistakes))

    def test_row_may_have_several_numbers_or_none(self):
        tests = self.read(plug='{ "T030 R-3", "plug/one", f },\n'
                               '{ "", "plug/two", f },\n'
                               '{ "T02A",\n  "plug/three", f, .once = true },')
        self.assertEqual(tests, {'T030': ['plug/one'], 'R-3': ['plug/one'],
                                 'T02A': ['plug/three']})

    def test_same_path_twice_is_refused(self):
        with self.assertRaisesRegex(SystemExit, r'"plug/one" is in virtio-mem-a'
                                    r'-test\.c already'):
            self.read(a='{ "T030", "plug/one", f },',
                      b='{ "T031", "plug/one", f },')

    def test_whole_plan_makes_no_mistake(self):
        self.assert_mistakes(PLAN, TESTS)

    def test_case_without_test_is_noticed(self):
        self.assert_mistakes(PLAN, {'T001': ['a/b'], 'R-1': ['a/b']},
                             'T02A has no test: another')

    def test_weak_spot_without_test_is_noticed(self):
        self.assert_mistakes(PLAN, {'T001': ['a/b'], 'T02A': ['a/c']},
                             'R-1 has no test: a weak spot')

    def test_requirement_without_case_is_noticed(self):
        self.assert_mistakes(PLAN.replace('[D1 PC1]', '[PC1]'), TESTS,
                             'D1 has no case: a demand')

    def test_number_that_is_not_planned_is_noticed(self):
        self.assert_mistakes(PLAN, {**TESTS, 'T999': ['a/e']},
                             'T999 is not in the plan: a/e')

    def test_requirement_that_is_none_is_noticed(self):
        self.assert_mistakes(PLAN.replace('D1 PC1', 'D1 PC1 D9'), TESTS,
                             'D9 is covered, but no requirement')

    def test_requirements_cannot_be_carried_by_tests(self):
        self.assert_mistakes(PLAN, {**TESTS, 'D1': ['a/e']},
                             'D1 is not in the plan: a/e')

    def test_number_twice_is_refused(self):
        with self.assertRaisesRegex(SystemExit, 'plan:10: R-1 is there'):
            table.Plan(PLAN + 'R-1 the same number\n')

    def test_line_that_is_nothing_is_refused(self):
        for line in 'T1', 'no number', 'T001 [] nothing', 'T001 [D1]':
            with self.assertRaisesRegex(SystemExit, 'plan:1: wants'):
                table.Plan(line)

    def test_table_shows_each_case_with_its_tests(self):
        self.assertEqual(table.Plan(PLAN).format(TESTS),
                         'T001 a case\n     a/b\n'
                         'T02A another\n     a/c\n     a/d\n'
                         'R-1 a weak spot\n     a/b')


if __name__ == '__main__':
    virtio_mem_tap.main()
