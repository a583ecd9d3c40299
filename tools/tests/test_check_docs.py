# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in the pages that name nothing are found, and so are long lines."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import program
import virtio_mem_tap

check_docs = program.load('check-docs')
TOOL = Path(__file__).resolve().parents[1] / 'check-docs'


class CheckDocs(unittest.TestCase):

    def check(self, *literals):
        """Return (status, mistakes) for a page with these literals."""
        return self.check_page('.rst', ''.join(f'See ``{literal}``.\n'
                                               for literal in literals))

    def check_page(self, suffix, text):
        with tempfile.NamedTemporaryFile('w', suffix=suffix) as page:
            page.write(text)
            page.flush()
            run = subprocess.run([TOOL, page.name], text=True, check=False,
                                 stdout=subprocess.PIPE)
            said = run.stdout.replace(f'{page.name}:', '')
        return run.returncode, said.splitlines()

    def test_names_that_exist_are_silent(self):
        self.assertEqual(self.check(
            'virtio_mem_plug_range()', 'plug/one-block',
            'stream/early-payload', '/virtio-mem/packed/plug/one-block',
            'test_memfd_goes_back', 'virtio-mem.c',
            'hw/virtio/', 'tests/qtest/virtio-mem-*-test.c',
            'migration/ram.c', '/dev/userfaultfd'), (0, []))

    def test_other_words_are_not_names(self):
        self.assertEqual(self.check(
            'size', 'requested-size', 'prealloc=on', 'virtio_notify_config()',
            'uint64_t'), (0, []))

    def test_function_that_is_only_called_or_mentioned_is_none(self):
        self.assertEqual(self.check('virtio_mem_plug_a_range()'),
                         (1, ['1: virtio_mem_plug_a_range(): '
                              'no such function']))

    def test_every_kind_of_name_is_checked(self):
        for literal, mistake in (
                ('plug/no-such-claim', 'no such test'),
                ('stream/one-block', 'no such test'),
                ('/virtio-mem/no-such-ring/plug/one-block', 'no such test'),
                ('test_no_such_case', 'no such test case'),
                ('hw/virtio/virtio-memory.c', 'no such file'),
                # Not in QEMU's tree.
                ('tools/check-docs', 'no such file')):
            self.assertEqual(self.check('virtio_mem_plug_range()', literal),
                             (1, [f'2: {literal}: {mistake}']))

    def test_names_in_pages_of_the_project(self):
        self.assertEqual(self.check_page('.md', (
            'Say `make check T=unit` or `make help`, see `tools/check-docs`,\n'
            '[page](docs/devel/virtio-mem.rst), `build/series`, `-m slow`.\n'
            '    `make nothing` is code\n')), (1, [
                '3: make nothing: no such target']))
        self.assertEqual(self.check_page('.md', (
            'Say `make all-of-it`, see `tools/check-nothing` and\n'
            '[page](docs/devel/virtio-memory.rst).\n')), (1, [
                '1: make all-of-it: no such target',
                '1: tools/check-nothing: no such file',
                '2: docs/devel/virtio-memory.rst: no such file']))

    def test_long_lines_are_found_but_in_code(self):
        for suffix in '.rst', '.md':
            self.assertEqual(self.check_page(suffix, 'x' * 80 + '\n'),
                             (0, []))
            self.assertEqual(self.check_page(suffix, '\n' + 'x' * 81 + '\n'),
                             (1, ['2: column 81: line is too long']))
        self.assertEqual(self.check_page('.md', '    ' + 'x' * 80), (0, []))
        self.assertEqual(self.check_page('.rst', (
            '* .. code-block:: console\n\n    ' + 'x' * 80 + '\n\n'
            '  ' + 'y' * 80 + '\n')),
            (1, ['5: column 82: line is too long']))

    def test_picture_of_the_floors(self):
        floors = [[name for name in line.split()
                   if check_docs.is_file_of_device(name)]
                  for line in program.load('check-floors').FLOORS.splitlines()]
        floors = [floor for floor in floors if floor]

        def picture():
            text = '\n\n'.join(
                '\n'.join(f'    {name}  what it is' for name in floor)
                for floor in floors)
            return f'above or beside it::\n\n{text}\n\nMore.\n'
        self.assertEqual(self.check_page('.rst', picture()), (0, []))
        floors[-1].append('roof')
        self.assertEqual(self.check_page('.rst', picture()), (1, [
            '3: state roof: tools/check-floors has: state']))
        floors.pop()
        self.assertEqual(self.check_page('.rst', picture()), (1, [
            '3: : tools/check-floors has: state']))


if __name__ == '__main__':
    virtio_mem_tap.main()
