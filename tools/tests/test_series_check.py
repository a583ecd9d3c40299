# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/series-check finds what is wrong with a commit, and does it once."""

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import program
import virtio_mem_tap

TOOLS = Path(__file__).resolve().parent.parent
SCRIPTS = ('checkpatch.pl', 'get_maintainer.pl')

# A compiler that knows two lines of C, and counts how often it was called.
BUILD = """#!/bin/sh -e
cd "$(dirname "$0")/../build/series-check"
echo "$@" >>../calls
if grep -r no_such_function tree/hw; then exit 1; fi
build=$1
shift
for program in "$@"; do
    mkdir -p "$(dirname "$build/$program")"
    { echo '#!/bin/sh'; grep -ho 'exit 1' "tree/$program.c" || true
    } >"$build/$program"
    chmod +x "$build/$program"
done
"""
LICENSE = '/* SPDX-License-Identifier: GPL-2.0-or-later */\n'
TEST = 'tests/unit/test-virtio-mem-x.c'
LISTING = """[[explained]]
warning = "added, moved or deleted file"
why = "Of no interest here."
"""
MAINTAINERS = """Maintainers
-----------
everything
M: A <a@example.org>
F: *
F: */

virtio-mem
M: B <b@example.org>
S: Supported
F: hw/mem.c
F: tests/unit/test-virtio-mem*
"""
BASE = {name: '' for name in ('COPYING', 'Makefile', 'README.rst', 'docs/x',
                              'linux-user/x', 'system/x')} | {
    'VERSION': '10.0.99\n', 'MAINTAINERS': MAINTAINERS,
    'qemu-system-x86_64.c': '', 'hw/old.c': 'int old;\n'}


tool = program.load('series-check')


class SeriesCheck(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.root = Path(tmp.name)
        check = self.root / 'build/series-check'
        self.patch(mock.patch.multiple(
            tool, ROOT=self.root, SERIES=self.root / 'build/series',
            CHECK=check, TREE=check / 'tree', LOG=check / 'log'))
        self.patch(mock.patch.dict(os.environ, {
            f'GIT_{role}_{what}': value for role in ('AUTHOR', 'COMMITTER')
            for what, value in (('NAME', 'T'), ('EMAIL', 't@example.org'))}))
        self.write(self.root / 'tools', {'build': BUILD,
                                         'series.toml': LISTING})
        (self.root / 'tools/build').chmod(0o755)
        self.tree = self.root / 'build/series/tree'
        self.write(self.tree, BASE)
        (self.tree / 'scripts').mkdir()
        for script in SCRIPTS:
            shutil.copy(TOOLS.parent / 'build/base/scripts' / script,
                        self.tree / 'scripts')
        self.git('init', '--quiet', '--initial-branch=virtio-mem')
        self.commit('base', {})
        self.git('tag', 'virtio-mem-base')

    def patch(self, patched):
        patched.start()
        self.addCleanup(patched.stop)

    def git(self, *args):
        subprocess.run(['git', '-C', self.tree, *args], check=True,
                       stdout=subprocess.DEVNULL)

    @staticmethod
    def write(top, files):
        for path, text in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)

    def commit(self, subject, files):
        self.write(self.tree, files)
        self.git('add', '--all')
        self.git('commit', '--quiet', '--signoff', '--message',
                 f'{subject}\n\nSays why.')

    def again(self, subject, files):
        """Replace the last commit."""
        self.git('reset', '--quiet', '--hard', 'HEAD~')
        self.commit(subject, files)

    def check(self):
        """Return (status, what was said)."""
        said, status = io.StringIO(), 0
        with contextlib.redirect_stdout(said):
            try:
                tool.main()
            except SystemExit as error:
                status = error.code
        return status, said.getvalue()

    def passes(self):
        status, said = self.check()
        self.assertEqual(status, 0, said)
        return said

    def fails(self, why):
        """It fails for that reason, and again when it is repeated."""
        for _ in range(2):
            status, said = self.check()
            self.assertEqual(status, 1, said)
            self.assertIn(why, said)

    def count_builds(self):
        """How many builds there were since the last call."""
        calls = self.root / 'build/calls'
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.write_text('')
        return len(lines)

    def test_good_series_is_checked_once(self):
        self.commit('one', {'hw/old.c': 'int older;\n'})
        self.commit('two', {TEST: LICENSE})
        self.assertIn('ok 2 - two (checkpatch: 1 warnings explained; builds;'
                      ' tests pass)\n1 new files have a maintainer\n'
                      '2 passed, 0 failed', self.passes())
        self.assertEqual(self.count_builds(), 4)
        self.passes()
        self.assertEqual(self.count_builds(), 0)

    def test_what_only_documents_is_not_built(self):
        self.commit('one', {'hw/old.c': 'int older;\n'})
        self.passes()
        self.count_builds()
        self.commit('two', {'docs/x': 'text\n'})
        self.passes()
        self.assertEqual(self.count_builds(), 0)
        self.again('two', {'docs/x': 'text\n', 'hw/old.c': 'int oldest;\n'})
        self.passes()
        self.assertEqual(self.count_builds(), 2)

    def test_commit_that_does_not_build(self):
        self.commit('one', {'hw/old.c': 'int no_such_function;\n'})
        self.commit('two', {'hw/old.c': 'int older;\n'})
        self.fails('not ok - one\nbuild of patch failed')

    def test_style_only_builds_nothing(self):
        self.commit('one', {'hw/old.c': 'int no_such_function;\n'})
        self.commit('two', {TEST: LICENSE})
        with mock.patch.object(tool, 'STYLE_ONLY', True):
            self.assertIn('ok 2 - two (checkpatch: 1 warnings explained)',
                          self.passes())
        self.assertEqual(self.count_builds(), 0)

    def test_commit_whose_test_fails(self):
        self.commit('one', {TEST: f'{LICENSE}/* exit 1 */\n'})
        self.fails('tests/unit/test-virtio-mem-x of build/patch failed')

    def test_bad_style(self):
        self.commit('one', {'hw/old.c': 'int older;\n\tint tab;\n'})
        self.fails('ERROR: code indent should never use tabs')

    def test_warning_that_nobody_explained(self):
        self.commit('one', {'hw/old.c': f'/* {"long " * 16}*/\n'})
        self.fails('WARNING: line over 80 characters')

    def test_file_that_is_nobodys(self):
        self.commit('one', {'hw/mem.c': f'{LICENSE}int ours;\n',
                            'hw/orphan.c': f'{LICENSE}int theirs;\n'})
        self.fails('no maintainer for hw/orphan.c')


if __name__ == '__main__':
    virtio_mem_tap.main()
