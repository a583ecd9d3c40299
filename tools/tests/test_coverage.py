# SPDX-License-Identifier: GPL-2.0-or-later
"""What no test reaches is noticed, and what none can take does not count."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import program
import virtio_mem_tap

coverage = program.load('coverage')


class Coverage(unittest.TestCase):

    def file(self, text, *lines):
        """Make a File of lines (number, count, counts of branches...)."""
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp, 'virtio-mem-x.c')
            path.write_text(text)
            return coverage.File(path, {'lines': [
                {'line_number': number, 'count': count,
                 'branches': [{'count': one} for one in branches]}
                for number, count, *branches in lines]})

    def test_lines_and_branches_are_counted(self):
        file = self.file('if (a)\nb();\nc();\n', (1, 3, 3, 0), (2, 3), (3, 0))
        self.assertEqual(file.nb_lines(), (2, 3))
        self.assertEqual(file.nb_branches(), (1, 2))
        self.assertEqual(list(file.missed()), [(1, '1 of 2'), (3, 'line')])

    def test_assertion_that_never_fails_is_reached(self):
        file = self.file('assert(a &&\n(b));\nc();\n', (1, 1, 1, 0),
                         (2, 1, 1, 0), (3, 1, 1, 0))
        self.assertEqual(list(file.missed()), [(3, '1 of 2')])

    def test_lock_is_no_loop(self):
        file = self.file('WITH_QEMU_LOCK_GUARD(&lock) {\n', (1, 1, 1, 0))
        self.assertEqual(file.nb_branches(), (0, 0))

    def test_macro_has_no_branch(self):
        file = self.file('g_autofree char *a = b();\nQLIST_REMOVE(a, next);\n'
                         'g_clear_pointer(&a, g_free);\n', (1, 1, 1, 0),
                         (2, 1, 1, 0), (3, 1, 1, 0))
        self.assertEqual(file.nb_branches(), (0, 0))

    def test_what_cannot_be_reached_is_no_line(self):
        file = self.file('default:\ng_assert_not_reached();\n', (2, 0))
        self.assertEqual(file.nb_lines(), (0, 0))

    def test_reason_is_shown(self):
        file = self.file('return -errno;\n', (1, 0))
        rules = {'unreached': [{'file': 'virtio-mem-x.c', 'line': 'errno',
                                'reason': 'why'}]}
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            coverage.show_missed([file], rules)
        self.assertEqual(said.getvalue().splitlines()[1:], [
            'virtio-mem-x.c', '    1     line  return -errno;',
            '                (why)'])

    def test_sum_is_of_all_files(self):
        files = [self.file('a\nb\n', (1, 1, 1, 0), (2, 0)),
                 self.file('a\n', (1, 1, 1, 1))]
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(coverage.show_table(files), ((2, 3), (3, 4)))


if __name__ == '__main__':
    virtio_mem_tap.main()
