# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file has its patch in the series, and build files grow with them."""

import importlib.machinery
import importlib.util
import tomllib
import unittest
from pathlib import Path

import overlay
import virtio_mem_tap

TOOLS = Path(__file__).resolve().parent.parent


def load_series():
    """Import tools/series, which is a program."""
    loader = importlib.machinery.SourceFileLoader('series',
                                                  str(TOOLS / 'series'))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('series', loader))
    loader.exec_module(module)
    return module


series = load_series()


class Assign(unittest.TestCase):

    PATCHES = [{'subject': 'first', 'files': ['a/*']},
               {'subject': 'second', 'files': ['b/x.c', 'b/x.h']}]

    def test_every_file_of_the_overlay_is_in_one_patch(self):
        listing = tomllib.loads((TOOLS / 'series.toml').read_text())
        wanted = overlay.plan(TOOLS.parent / 'build/base', TOOLS.parent)
        paths = [path for path, what in wanted.items() if what is not None]
        self.assertEqual(set(series.assign(listing['patch'], paths)),
                         set(paths))

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


if __name__ == '__main__':
    virtio_mem_tap.main()
