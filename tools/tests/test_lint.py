# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/lint finds what it is there for, and says what it could not do."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import program
import virtio_mem_tap

lint = program.load('lint')

# A test whose first part passes, and its second one if it equals 1.
SUBTESTS = '''\
import unittest
import virtio_mem_tap


class Case(unittest.TestCase):

    def test_it(self):
        for part in 1, {}:
            with self.subTest(part):
                self.assertEqual(part, 1)


virtio_mem_tap.main()
'''


class Lint(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.root = Path(tmp.name)
        for name, value in (('ROOT', self.root), ('PASSED', self.root / 'ok'),
                            ('explanations', lambda: [])):
            patched = mock.patch.object(lint, name, value)
            patched.start()
            self.addCleanup(patched.stop)

    def write(self, name, text):
        (self.root / name).write_text(text)
        return name

    def test_long_line_is_found(self):
        good = self.write('good.c', 'x' * 80 + '\n')
        bad = self.write('bad.c', '\n' + 'x' * 81 + '\n')
        self.assertEqual(lint.check_widths([good, bad]),
                         'bad.c:2: column 81: line is too long\n')

    def test_qapi_is_narrower(self):
        (self.root / 'qapi').mkdir()
        name = self.write('qapi/x.json', 'x' * 70 + '\n' + 'x' * 71 + '\n')
        self.assertEqual(lint.check_widths([name]),
                         'qapi/x.json:2: column 71: line is too long\n')

    def test_pages_and_patches_may_be_wide(self):
        names = [self.write(name, 'x' * 99) for name in ('a.md', 'b.patch')]
        self.assertEqual(lint.check_widths(names), '')

    def test_unknown_name_in_a_program_is_found(self):
        name = self.write('tool', '#!/usr/bin/python3\nprint(nothing)\n')
        self.assertIn("undefined name 'nothing'", lint.check_python([name]))

    def test_style_of_python_is_checked(self):
        name = self.write('a.py', 'x=1\n')
        self.assertIn('E225', lint.check_python_style([name]))

    def test_style_is_checked_until_it_is_good(self):
        if not lint.CHECKPATCH.exists():
            self.skipTest(f'{lint.CHECKPATCH} is missing: make tree')
        name = self.write('a.c', 'int f(void)\n{\n\treturn 0;\n}\n')
        for _ in range(2):
            self.assertIn('code indent should never use tabs',
                          lint.check_style([name]))
        self.write(name, 'int f(void)\n{\n    return 0;\n}\n')
        self.assertEqual(lint.check_style([name]), '')
        with mock.patch.object(lint, 'run', self.fail):
            self.assertEqual(lint.check_style([name]), '')

    def test_headers_are_compiled_until_they_are_good(self):
        said = [(1, 'a.h:1: unknown type name'), (0, '1 headers, 0 do not')]
        checker = self.root / 'check-headers'
        checker.write_text('')
        name = self.write('a.h', 'Unknown a;')
        with mock.patch.object(lint, 'TREE', self.root), \
                mock.patch.object(lint, 'HEADERS', checker), \
                mock.patch.object(lint, 'run', lambda *_: said.pop(0)):
            self.assertIn('unknown type', lint.check_headers([name]))
            self.write(name, 'int a;')
            for _ in range(2):
                self.assertEqual(lint.check_headers([name]), '')
        self.assertEqual(said, [])

    def test_headers_need_a_tree(self):
        with mock.patch.object(lint, 'TREE', self.root / 'none'), \
                self.assertRaisesRegex(lint.Skipped, 'make tree'):
            lint.check_headers([])

    def test_failed_test_of_a_tool_is_found(self):
        (self.root / 'tools/tests').mkdir(parents=True)
        (self.root / 'tests').symlink_to(program.TOOLS.parent / 'tests')
        bad = self.write('tools/tests/test_bad.py', SUBTESTS.format(2))
        good = self.write('tools/tests/test_good.py', SUBTESTS.format(1))
        needy = self.write('tools/tests/test_dsc.py', 'raise SystemExit(1)\n')
        for _ in range(2):
            said = lint.check_tools([good, bad, needy])
            self.assertEqual(said.count('not ok 1 - Case.test_it\n'), 1, said)
        with mock.patch.object(lint, 'CHECKPATCH', self.root / good):
            self.assertEqual(lint.check_tools([good, needy]), '')
        with mock.patch.object(lint, 'run', self.fail):
            self.assertEqual(lint.check_tools([good, needy]), '')

    def test_explained_warning_is_none(self):
        if not lint.CHECKPATCH.exists():
            self.skipTest(f'{lint.CHECKPATCH} is missing: make tree')
        name = self.write('a.c', '#if defined(__x86_64__)\n#endif\n')
        self.assertIn('architecture specific', lint.check_style([name]))
        with mock.patch.object(lint, 'explanations',
                               lambda: [lint.re.compile('architecture')]):
            self.assertEqual(lint.check_style([name]), '')

    def test_what_cannot_be_checked_is_said(self):
        said = io.StringIO()
        with mock.patch.object(lint, 'CHECKPATCH', self.root / 'none'), \
                contextlib.redirect_stdout(said):
            self.assertTrue(lint.do('style', []))
        self.assertIn('style: not checked, this lacks: ', said.getvalue())

    def test_missing_program_is_said_with_the_remedy(self):
        with self.assertRaisesRegex(lint.Skipped, 'no-such.*bootstrap --lint'):
            lint.output_of('no-such-program')


if __name__ == '__main__':
    virtio_mem_tap.main()
