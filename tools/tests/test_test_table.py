# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of test cases follows the tests, and gaps in it are noticed."""

import tempfile
import unittest
from pathlib import Path

import program
import virtio_mem_tap

table = program.load('test-table')


class TestTable(unittest.TestCase):

    def read(self, **files):
        """Read tests from files of these names (plug=...) and contents."""
        with tempfile.TemporaryDirectory() as tmp:
            for name, text in files.items():
                Path(tmp, f'virtio-mem-{name}-test.c').write_text(text)
            return table.read_tests(Path(tmp))

    def full(self):
        return {case: ['a/b'] for group in table.GROUPS
                for case in table.cases_of(group)}

    def test_row_may_have_several_numbers_or_none(self):
        tests = self.read(plug='{ "T030 R-3", "plug/one", f },\n'
                               '{ "", "plug/two", f },\n'
                               '{ "T02A",\n  "plug/three", f, .once = true },')
        self.assertEqual(tests, {'T030': ['plug/one'], 'R-3': ['plug/one'],
                                 'T02A': ['plug/three']})

    def test_same_path_twice_is_refused(self):
        with self.assertRaises(SystemExit):
            self.read(a='{ "T030", "plug/one", f },',
                      b='{ "T031", "plug/one", f },')

    def test_all_cases_make_no_mistake(self):
        self.assertEqual(list(table.find_mistakes(self.full())), [])

    def test_missing_case_is_noticed(self):
        tests = self.full()
        del tests['T161']
        self.assertEqual(list(table.find_mistakes(tests)),
                         ['T161 has no test'])

    def test_unknown_case_is_noticed(self):
        tests = {**self.full(), 'T999': ['a/b']}
        self.assertEqual(list(table.find_mistakes(tests)),
                         ['T999 is no case: a/b'])

    def test_only_the_part_between_markers_changes(self):
        page = f'before\n{table.BEGIN}\nold\n{table.END}\nafter\n'
        once = table.replace_between_markers('page', page, 'new')
        self.assertEqual(once, f'before\n{table.BEGIN}\n\nnew\n'
                               f'{table.END}\nafter\n')
        self.assertEqual(table.replace_between_markers('page', once, 'new'),
                         once)

    def test_page_without_markers_is_refused(self):
        with self.assertRaises(SystemExit):
            table.replace_between_markers('page', 'no markers\n', 'new')


if __name__ == '__main__':
    virtio_mem_tap.main()
