# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file has its patch in the series, and build files grow with them."""

import contextlib
import io
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path
from unittest import mock

import made_up_project
import overlay
import program
import virtio_mem_tap
from made_up_project import edit, write

TOOLS = Path(__file__).resolve().parent.parent


series = program.load('series')


class Assign(unittest.TestCase):

    PATCHES = [{'subject': 'first', 'files': ['a/*']},
               {'subject': 'second', 'files': ['b/x.c', 'b/x.h']}]

    def test_every_file_of_the_overlay_is_in_one_patch(self):
        listing = tomllib.loads((TOOLS / 'series.toml').read_text())
        base = TOOLS.parent / 'build/base'
        if not base.exists():
            self.skipTest(f'{base} is missing: make tree')
        wanted = overlay.plan(base, TOOLS.parent)
        pieces = list(series.pieces(base, wanted))
        self.assertEqual(set(series.assign(listing['patch'], pieces)),
                         set(pieces))

    def test_patterns_find_their_files(self):
        self.assertEqual(
            series.assign(self.PATCHES, ['a/1', 'a/2', 'b/x.c', 'b/x.h']),
            {'a/1': 0, 'a/2': 0, 'b/x.c': 1, 'b/x.h': 1})

    def test_mistakes_are_told(self):
        for paths, mistake in (
                (['a/1', 'b/x.c', 'b/x.h', 'c'], 'in no patch: c'),
                (['a/1', 'b/x.c'], 'no file matches b/x.h')):
            with self.assertRaisesRegex(series.SeriesError, mistake):
                series.assign(self.PATCHES, paths)
        with self.assertRaisesRegex(series.SeriesError, 'in two patches'):
            series.assign(self.PATCHES + [{'subject': 'third',
                                           'files': ['a/1']}],
                          ['a/1', 'b/x.c', 'b/x.h'])


class Grown(unittest.TestCase):

    BASE = 'head\ntail\n'
    FINAL = ("head\ntests = [\n  'virtio-mem-a-test',\n  'other',\n"
             "  'virtio-mem-b-test',\n]\n'test-virtio-mem-c': files(\n"
             "  'virtio-mem-c.c',\n  'virtio-mem-d.c'),\ntail\n")
    OURS = {f'tests/{name}' for name in (
        'virtio-mem-a-test.c', 'virtio-mem-b-test.c', 'virtio-mem-c.c',
        'virtio-mem-d.c', 'test-virtio-mem-c.c')}

    def grown(self, *present):
        return series.grown('tests/meson.build', self.BASE, self.FINAL,
                            self.OURS, {f'tests/{name}' for name in present})

    def test_lists_have_what_is_there(self):
        self.assertEqual(self.grown('virtio-mem-a-test.c'),
                         "head\ntests = [\n  'virtio-mem-a-test',\n"
                         "  'other',\n]\ntail\n")

    def test_a_test_comes_with_all_that_it_needs(self):
        self.assertNotIn('virtio-mem-c', self.grown(
            'test-virtio-mem-c.c', 'virtio-mem-c.c'))
        self.assertIn('virtio-mem-d.c', self.grown(
            'test-virtio-mem-c.c', 'virtio-mem-c.c', 'virtio-mem-d.c'))

    def test_all_files_make_the_final_text(self):
        self.assertEqual(self.grown(*(Path(p).name for p in self.OURS)),
                         self.FINAL)


def git(top, *args):
    return subprocess.run(
        ['git', '-C', top, *args], check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip()


class Base(unittest.TestCase):
    """A series of two patches, for one base and another."""

    SECRET = 'static int known_to_nobody;\n'
    BASE = {'VERSION': '10.0.99\n', 'Kconfig': 'on\n', 'notes': 'old\n',
            **dict.fromkeys(overlay.REMOVED, SECRET * 30)}

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.base, self.project, self.result = (
            Path(tmp.name, d) for d in ('base', 'project', 'result'))
        for patch in made_up_project.patches(series, self.project,
                                             self.result):
            self.enterContext(patch)
        write(self.base, self.BASE)
        write(self.project, made_up_project.files())
        self.commit(self.project)

    @staticmethod
    def commit(top):
        git(top, 'init', '--quiet')
        git(top, 'add', '--all')
        git(top, 'commit', '--quiet', '--message', 'all')

    def series(self):
        with mock.patch.object(sys, 'argv', ['series', str(self.base)]), \
                contextlib.redirect_stdout(io.StringIO()):
            series.main()

    def refused(self, why):
        with self.assertRaisesRegex(SystemExit, why):
            self.series()

    def check(self):
        tree = self.result / 'tree'
        self.assertEqual((tree / 'Kconfig').read_text(), 'on\n')
        self.assertEqual((tree / 'notes').read_text(), 'new\n')
        self.assertEqual((tree / 'hw/virtio/virtio-mem.c').read_text(),
                         made_up_project.TEXT)
        self.assertEqual(
            git(tree, 'log', '--format=%s', 'virtio-mem-base..virtio-mem'),
            'two\none')

    def test_unpacked_source(self):
        self.series()
        self.check()

    def test_stray_file_is_in_no_patch_and_stops_nothing(self):
        write(self.project, {'core': 'dumped', 'notes~': 'old'})
        self.series()
        self.check()
        self.assertFalse((self.result / 'tree/core').exists())

    def test_git_tree_is_left_alone(self):
        self.commit(self.base)
        write(self.base, {'notes': 'newer\n'})
        git(self.base, 'commit', '--quiet', '--all', '--message', 'change')
        git(self.base, 'revert', '--no-edit', 'HEAD')
        write(self.base, {'scribble': 'of no interest\n'})
        head = git(self.base, 'rev-parse', 'HEAD')
        self.series()
        self.check()
        self.assertEqual(git(self.result / 'tree', 'rev-parse',
                             'virtio-mem-base'), head)
        self.assertEqual(
            git(self.base, 'for-each-ref', '--format=%(objectname)'), head)

    def test_git_tree_that_has_a_series_already(self):
        self.commit(self.base)
        git(self.base, 'switch', '--quiet', '--create', 'virtio-mem')
        git(self.base, 'tag', 'virtio-mem-base')
        git(self.base, 'commit', '--quiet', '--allow-empty', '--message', 'x')
        self.series()
        self.check()

    def test_patches_apply_but_do_not_tell_what_was_removed(self):
        self.commit(self.base)
        self.series()
        patches = sorted(self.result.glob('*.patch'))
        self.assertEqual(len(patches), 3)
        for patch in patches:
            self.assertNotIn(self.SECRET.strip(), patch.read_text())
        git(self.base, 'am', *patches[1:])
        self.assertEqual(git(self.base, 'rev-parse', 'HEAD^{tree}'),
                         git(self.result / 'tree', 'rev-parse',
                             'virtio-mem^{tree}'))

    def test_edits_of_one_file_are_patches_of_their_own(self):
        lines = ''.join(f'{n}\n' for n in range(20))
        write(self.base, {'notes': f'old\n{lines}old\n'})
        second = ('Why.\n\n--- a/notes\n+++ b/notes\n@@ -21,2 +21,2 @@\n'
                  ' 19\n-old\n+newer\n')
        write(series.ROOT, {'notes.end.patch': second})
        git(series.ROOT, 'add', '--all')
        listing = series.ROOT / 'tools/series.toml'
        listing.write_text(listing.read_text().replace(
            '["notes"]', '["notes.end.patch"]').replace(
            '["hw/virtio/virtio-mem.c"]',
            '["hw/virtio/virtio-mem.c", "notes.patch"]'))
        self.series()
        for commit, text in (('virtio-mem~', f'old\n{lines}newer\n'),
                             ('virtio-mem', f'new\n{lines}newer\n')):
            self.assertEqual(git(self.result / 'tree', 'show',
                                 f'{commit}:notes') + '\n', text)

    def test_base_of_another_series_has_files_of_its_own(self):
        write(self.base, {'VERSION': '11.1.0\n', 'notes': 'now\n'})
        self.refused('is QEMU 11.1.0, this needs a 10.0.x, or a folder '
                     'bases/11.1')
        write(series.ROOT,
              {'bases/11.1/notes.patch': edit('notes', 'now', 'new')})
        git(series.ROOT, 'add', '--all')
        self.series()
        self.check()

    def test_git_tree_with_changes_is_refused(self):
        self.commit(self.base)
        write(self.base, {'notes': 'newer\n'})
        self.refused('has changes that are not committed, first of all notes')

    def test_other_trees_are_refused(self):
        (self.base / 'hw/virtio/virtio-mem.c').unlink()
        self.refused('has no hw/virtio/virtio-mem.c to replace')
        write(self.base, {'VERSION': '9.2.0\n'})
        self.refused('is QEMU 9.2.0, this needs a 10.0.x')
        (self.base / 'VERSION').unlink()
        self.refused('has no file VERSION')

    def test_patch_that_does_not_fit_is_refused(self):
        write(self.base, {'notes': 'something else\n'})
        self.refused('hunk 1 .* does not apply to notes')


if __name__ == '__main__':
    virtio_mem_tap.main()
