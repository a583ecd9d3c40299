# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of a project are laid over a tree, again and again."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

OVERLAY = Path(__file__).resolve().parent.parent / 'overlay.py'

NUMBERS = ''.join(f'line {n}\n' for n in range(1, 31))
PATCH = """\
Says why.

--- a/dir/numbers
+++ b/dir/numbers
@@ -3,4 +3,5 @@
 line 3
 line 4
+between
 line 5
 line 6
@@ -19,4 +20,5 @@
 line 19
 line 20
+another
 line 21
 line 22
"""


class Overlay(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.base, self.project, self.tree = (
            Path(tmp.name, d) for d in ('base', 'project', 'tree'))
        self.write(self.base, {
            'VERSION': '10.0.99\n', 'dir/numbers': NUMBERS, 'dir/same': 'x\n',
            'dir/whole': 'theirs\n', 'hw/virtio/virtio-mem.c': 'theirs\n'})
        self.write(self.project, {
            'dir/whole': 'ours\n', 'new/file': 'new\n',
            'dir/numbers.patch': PATCH, 'README.md': '', '.hidden': '',
            'CONTRIBUTING.md': '',
            'tools/tool': '', 'dir/whole~': '', 'tests/bench/b': '',
            'dir/numbers.orig': ''})

    @staticmethod
    def write(top, files):
        for path, text in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)

    def overlay(self):
        return subprocess.run([OVERLAY, self.base, self.project, self.tree],
                              text=True, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)

    def lay(self):
        run = self.overlay()
        self.assertEqual(run.returncode, 0, run.stdout)
        return run.stdout

    def refused(self):
        run = self.overlay()
        self.assertNotEqual(run.returncode, 0)
        return run.stdout

    def times(self):
        return {p: p.stat().st_mtime_ns for p in self.tree.rglob('*')
                if p.is_file() and p.name != '.overlay'}

    def test_file_is_linked(self):
        self.lay()
        self.assertEqual((self.tree / 'dir/whole').resolve(),
                         (self.project / 'dir/whole').resolve())
        self.assertEqual((self.tree / 'new/file').read_text(), 'new\n')

    def test_patch_is_applied(self):
        self.lay()
        text = (self.tree / 'dir/numbers').read_text()
        self.assertIn('line 4\nbetween\nline 5\n', text)
        self.assertIn('line 20\nanother\nline 21\n', text)

    def test_base_is_untouched(self):
        self.lay()
        self.assertEqual((self.base / 'dir/numbers').read_text(), NUMBERS)
        self.assertEqual((self.base / 'dir/whole').read_text(), 'theirs\n')

    def test_stock_device_is_removed(self):
        self.lay()
        self.assertFalse((self.tree / 'hw/virtio/virtio-mem.c').exists())

    def test_files_of_the_project_itself_stay_out(self):
        self.lay()
        for path in ('README.md', 'CONTRIBUTING.md', '.hidden', 'tools',
                     'tests/bench',
                     'dir/whole~', 'dir/numbers.orig', 'dir/numbers.patch'):
            self.assertFalse((self.tree / path).exists(), path)

    def test_only_what_git_knows_is_laid_over(self):
        for command in ('init', '--quiet'), ('add', 'new', 'dir'):
            subprocess.run(['git', '-C', self.project, *command], check=True)
        self.write(self.project, {'core': '', 'dir/late.c': '', 'dir/a~': ''})
        said = self.lay()
        self.assertTrue((self.tree / 'new/file').exists())
        self.assertIn('git does not know it', said)
        self.assertIn(': core dir/late.c\n', said)
        for path in 'core', 'dir/late.c':
            self.assertFalse((self.tree / path).exists(), path)
        subprocess.run(['git', '-C', self.project, 'add', 'dir/late.c'],
                       check=True)
        self.lay()
        self.assertTrue((self.tree / 'dir/late.c').exists())

    def test_a_checkout_that_git_refuses_is_an_error(self):
        self.write(self.project, {'.git': 'gitdir: /none\n'})
        self.assertIn('git does not list the files', self.refused())

    def test_second_run_touches_nothing(self):
        self.lay()
        before = self.times()
        self.assertEqual(self.lay(), '')
        self.assertEqual(self.times(), before)

    def test_one_new_file_touches_no_other(self):
        self.lay()
        before = self.times()
        self.write(self.project, {'dir/second': '2\n'})
        self.lay()
        now = self.times()
        self.assertEqual(now.pop(self.tree / 'dir/second') > 0, True)
        self.assertEqual(now, before)

    def test_changed_patch_starts_from_the_base(self):
        self.lay()
        self.write(self.project,
                   {'dir/numbers.patch': PATCH.replace('between', 'amid')})
        self.lay()
        text = (self.tree / 'dir/numbers').read_text()
        self.assertIn('line 4\namid\nline 5\n', text)
        self.assertNotIn('between', text)

    def test_removed_overlay_restores_the_base(self):
        self.lay()
        for path in ('dir/whole', 'dir/numbers.patch', 'new/file'):
            (self.project / path).unlink()
        self.lay()
        self.assertEqual((self.tree / 'dir/whole').read_text(), 'theirs\n')
        self.assertFalse((self.tree / 'dir/whole').is_symlink())
        self.assertEqual((self.tree / 'dir/numbers').read_text(), NUMBERS)
        self.assertFalse(os.path.lexists(self.tree / 'new/file'))

    def test_another_base_makes_another_tree(self):
        self.lay()
        self.base = self.base.rename(self.base.with_name('base2'))
        self.write(self.base, {'dir/same': 'y\n'})
        self.lay()
        self.assertEqual((self.tree / 'dir/same').read_text(), 'y\n')

    def test_patch_that_does_not_apply_names_file_and_hunk(self):
        text = NUMBERS.replace('line 21\n', 'line twenty-one\n')
        self.write(self.base, {'dir/numbers': text})
        said = self.refused()
        self.assertIn('dir/numbers.patch: hunk 2 (@@ -19,4 +20,5 @@) does not '
                      'apply to dir/numbers of QEMU 10.0.99', said)
        self.assertNotIn('hunk 1', said)

    def test_fuzz_is_refused(self):
        # patch(1) would take this with fuzz 1: only an outer line differs.
        text = NUMBERS.replace('line 3\n', 'line three\n')
        self.write(self.base, {'dir/numbers': text})
        self.assertIn('hunk 1', self.refused())

    def test_refusal_changes_nothing(self):
        self.lay()
        before = self.times()
        self.write(self.project, {'dir/numbers.patch':
                                  PATCH.replace('line 21', 'line 99'),
                                  'dir/second': '2\n'})
        self.refused()
        self.assertEqual(self.times(), before)

    def test_patch_of_a_missing_file_is_refused(self):
        (self.base / 'dir/numbers').unlink()
        self.assertIn('QEMU has no file dir/numbers', self.refused())

    def test_patch_of_another_file_is_refused(self):
        self.write(self.project,
                   {'dir/same.patch': PATCH})
        self.assertIn('dir/same.patch must edit dir/same and nothing else, '
                      'it names: dir/numbers', self.refused())

    def test_a_file_may_have_several_patches(self):
        self.write(self.project, {'dir/numbers.end.patch': (
            '--- a/dir/numbers\n+++ b/dir/numbers\n@@ -29,2 +29,3 @@\n'
            ' line 29\n line 30\n+last\n')})
        self.lay()
        text = (self.tree / 'dir/numbers').read_text()
        self.assertIn('between\n', text)
        self.assertTrue(text.endswith('line 30\nlast\n'))

    def test_series_of_the_base_may_have_files_of_its_own(self):
        self.write(self.project, {
            'bases/11.1/dir/whole': 'ours for 11.1\n',
            'bases/11.1/new/other': 'only there\n',
            'bases/11.1/dir/numbers.patch': PATCH.replace('between', 'amid'),
            'bases/11.2/dir/whole': 'ours for 11.2\n'})
        for version, whole, added in (
                ('10.0.99', 'ours\n', 'between'),
                ('11.1.3', 'ours for 11.1\n', 'amid'),
                ('11.11.0', 'ours\n', 'between'),
                ('11.1.0', 'ours for 11.1\n', 'amid'),
                ('10.0.13', 'ours\n', 'between')):
            self.write(self.base, {'VERSION': f'{version}\n'})
            self.lay()
            self.assertEqual((self.tree / 'dir/whole').read_text(), whole)
            self.assertIn(f'line 4\n{added}\nline 5\n',
                          (self.tree / 'dir/numbers').read_text())
            self.assertEqual((self.tree / 'new/file').read_text(), 'new\n')
            self.assertEqual((self.tree / 'new/other').exists(),
                             version.startswith('11.1.'))
            self.assertFalse((self.tree / 'bases').exists())

    def test_empty_patch_of_a_series_drops_one(self):
        self.write(self.base, {'VERSION': '11.1.3\n'})
        self.write(self.project, {'bases/11.1/dir/numbers.patch': ''})
        self.lay()
        self.assertEqual((self.tree / 'dir/numbers').read_text(), NUMBERS)
        self.write(self.project, {'bases/11.1/dir/same.patch': ''})
        self.assertIn('bases/11.1/dir/same.patch is empty, to be in the place '
                      'of dir/same.patch, but there is none', self.refused())

    def test_whole_file_of_a_series_needs_no_patch(self):
        self.write(self.base, {'VERSION': '11.1.3\n'})
        self.write(self.project, {'bases/11.1/dir/numbers': 'whole\n'})
        self.lay()
        self.assertEqual((self.tree / 'dir/numbers').read_text(), 'whole\n')

    def test_units_of_a_series_are_its_own(self):
        self.write(self.base, {
            'VERSION': '11.1.3\n',
            'MAINTAINERS': 'One\nM: a\n\nTwo\nM: b\n'})
        self.write(self.project, {
            'MAINTAINERS': '# unit: replaces\nOne\nM: ours\n',
            'bases/11.1/MAINTAINERS': '# unit: replaces\nTwo\nM: theirs\n'})
        self.lay()
        self.assertEqual((self.tree / 'MAINTAINERS').read_text(),
                         'One\nM: a\n\nTwo\nM: theirs\n')

    def test_mistakes_in_a_series_name_its_file(self):
        self.write(self.base, {'VERSION': '11.1.3\n'})
        for path, text, mistake in (
                ('numbers.patch', PATCH.replace('line 21', 'line 99'),
                 'numbers.patch: hunk 2'),
                ('same.patch', PATCH, 'same.patch must edit dir/same and '),
                ('whole.patch', PATCH.replace('dir/numbers', 'dir/whole'),
                 'whole.patch exist')):
            source = self.project / 'bases/11.1/dir' / path
            self.write(source.parent, {path: text})
            self.assertIn(f'bases/11.1/dir/{mistake}', self.refused())
            source.unlink()

    def test_file_of_a_series_that_git_does_not_know_is_named(self):
        self.write(self.base, {'VERSION': '11.1.3\n'})
        for command in ('init', '--quiet'), ('add', '--all'):
            subprocess.run(['git', '-C', self.project, *command], check=True)
        self.write(self.project, {'bases/11.1/late': '',
                                  'bases/11.2/other': ''})
        self.assertIn('git does not know it', self.lay())
        self.assertFalse((self.tree / 'late').exists())

    def test_file_and_patch_of_one_path_are_refused(self):
        self.write(self.project, {'dir/numbers': 'whole\n'})
        self.assertIn('both dir/numbers and dir/numbers.patch exist',
                      self.refused())


if __name__ == '__main__':
    virtio_mem_tap.main()
