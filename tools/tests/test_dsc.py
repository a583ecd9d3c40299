# SPDX-License-Identifier: GPL-2.0-or-later
"""A source package with the series, of a made-up QEMU of Debian's."""

import contextlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import made_up_project
import overlay
import program
import virtio_mem_tap
from made_up_project import edit, write

dsc = program.load('dsc')
WHEN = datetime(2026, 11, 29, tzinfo=timezone.utc)


def run(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, **options)


class Version(unittest.TestCase):

    @staticmethod
    def is_before(one, other):
        return not subprocess.run(
            ['dpkg', '--compare-versions', one, 'lt', other],
            check=False).returncode

    def test_behind_the_base_and_before_the_next(self):
        for base, following in (
                ('1:10.0.13+ds-0+deb13u1',
                 ['1:10.0.13+ds-0+deb13u1.1', '1:10.0.13+ds-0+deb13u2',
                  '1:10.0.13+ds-1', '1:10.0.14+ds-0+deb13u1']),
                ('1:10.0.2+ds-2',
                 ['1:10.0.2+ds-2+deb13u1', '1:10.0.2+ds-2.1',
                  '1:10.0.2+ds-3~bpo13+1', '1:10.0.2+ds-3']),
                ('1:10.0.2+ds-2+deb13u1~bpo12+1',
                 ['1:10.0.2+ds-2+deb13u1~bpo12+2', '1:10.0.2+ds-2+deb13u1'])):
            ours = dsc.own_version(base, WHEN)
            for before in (base, f'{base}+b1', f'{base}+b12'):
                self.assertTrue(self.is_before(before, ours), before)
            for after in following:
                self.assertTrue(self.is_before(ours, after), after)

    def test_later_commits_sort_later(self):
        self.assertTrue(self.is_before(
            dsc.own_version('1:1-1', WHEN),
            dsc.own_version('1:1-1', WHEN.replace(second=1))))


class Package(unittest.TestCase):

    DEBIAN = {
        'debian/source/format': '3.0 (quilt)\n',
        'debian/control': 'Source: qemu\nMaintainer: T <t@t>\n\n'
                          'Package: qemu\nArchitecture: all\n'
                          'Description: it\n',
        'debian/changelog': 'qemu (1:10.0.99+ds-1) trixie; urgency=low\n\n'
                            '  * It.\n\n'
                            ' -- T <t@t>  Sat, 01 Jan 2022 00:00:00 +0000\n',
        'debian/patches/series': 'own.patch\n',
        'debian/patches/own.patch': edit('theirs', 'upstream', 'debian'),
        dsc.PACKAGE: 'usr/bin/x\n'}
    UPSTREAM = {'VERSION': '10.0.99\n', 'Kconfig': 'on\n', 'notes': 'old\n',
                'theirs': 'upstream\n',
                **dict.fromkeys(overlay.REMOVED, 'int theirs;\n' * 30)}
    PROJECT = made_up_project.files(**{'contrib/tool': '#!/bin/sh\n'})

    def setUp(self):
        if not shutil.which('dpkg-source'):
            self.skipTest('dpkg-source is missing: tools/bootstrap')
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.project = Path(tmp.name, 'project')
        self.build = self.project / 'build'
        for patch in (*made_up_project.patches(dsc.series, self.project,
                                               self.build / 'series'),
                      mock.patch.multiple(
                          dsc, BUILD=self.build, BASE=self.build / 'base',
                          TREE=self.build / 'tree',
                          DOWNLOAD=self.build / 'download',
                          RESULT=self.build / 'dsc')):
            self.enterContext(patch)
        self.make_base()
        self.make_project()

    def make_base(self):
        """Have Debian's package fetched, and unpacked."""
        download = self.build / 'download'
        source = download / 'qemu-10.0.99+ds'
        write(source, self.UPSTREAM)
        with lzma.open(download / 'qemu_10.0.99+ds.orig.tar.xz', 'w') \
                as packed, tarfile.open(fileobj=packed, mode='w') as archive:
            archive.add(source, source.name)
        write(source, self.DEBIAN)
        run('dpkg-source', '-b', source.name, cwd=download)
        shutil.rmtree(source)
        run('dpkg-source', '-x', 'qemu_10.0.99+ds-1.dsc', '../debian-qemu',
            cwd=download)
        (self.build / 'base').symlink_to(self.build / 'debian-qemu')

    def make_project(self):
        """Lay a project over the base, and make its series."""
        write(self.project, {**self.PROJECT, '.gitignore': 'build\n'})
        (self.project / 'contrib/tool').chmod(0o755)
        for command in ('init', '--quiet'), ('add', '--all'), \
                ('commit', '--quiet', '--message', 'all'):
            run('git', '-C', self.project, *command)
        overlay.lay_over(self.build / 'base', self.project,
                         self.build / 'tree')
        self.do(dsc.series.main, 'series', str(self.build / 'base'))

    @staticmethod
    def do(main, *argv):
        out = io.StringIO()
        with mock.patch.object(sys, 'argv', list(argv)), \
                contextlib.redirect_stdout(out):
            main()
        return out.getvalue()

    def refused(self, why):
        with self.assertRaisesRegex(SystemExit, why):
            self.do(dsc.main, 'dsc')

    def test_unpacks_to_the_prepared_tree(self):
        said = self.do(dsc.main, 'dsc')
        self.assertIn('2 patches; unpacks to the 6 files', said)
        package = next((self.build / 'dsc').glob('*.dsc'))
        self.assertIn(str(package), said)
        self.assertEqual(len(list((self.build / 'dsc').iterdir())), 3)
        run('dpkg-source', '-x', package, self.build / 'again')
        for path, text in (('notes', 'new\n'), ('theirs', 'debian\n'),
                           ('Kconfig', 'on\n'),
                           ('hw/virtio/virtio-mem.c', made_up_project.TEXT)):
            self.assertEqual((self.build / 'again' / path).read_text(), text)
        self.assertFalse(
            (self.build / 'again/hw/virtio/virtio-mem-pci.c').exists())
        self.assertTrue(os.access(self.build / 'again/contrib/tool', os.X_OK))

    def test_debian_says_what_is_new(self):
        self.do(dsc.main, 'dsc')
        run('dpkg-source', '-x', next((self.build / 'dsc').glob('*.dsc')),
            self.build / 'again')
        debian = self.build / 'again/debian'
        newest, _, before = (debian / 'changelog').read_text().partition(
            '\nqemu (')
        self.assertRegex(newest, r'\Aqemu \(1:10\.0\.99\+ds-1\+cvirtiomem\d+\)'
                                 ' trixie; urgency=')
        self.assertIn('\n -- T <T>  ', newest)
        self.assertTrue(self.DEBIAN['debian/changelog'].endswith(before))
        self.assertEqual((debian / dsc.PACKAGE[7:]).read_text(),
                         f'usr/bin/x\n{dsc.INSTALLED}')

    def test_the_same_commit_makes_the_same_package(self):
        packages = []
        for _ in range(2):
            self.do(dsc.main, 'dsc')
            packages.append(next((self.build / 'dsc').glob('*.dsc'))
                            .read_text())
        self.assertEqual(*packages)

    def test_any_difference_is_seen(self):
        tree = self.build / 'tree'
        (tree / 'theirs').write_text('other\n')
        self.refused('1 files of the package are not those of .*: theirs')
        (tree / 'theirs').write_text('debian\n')
        (tree / 'contrib/tool').resolve().chmod(0o644)
        self.refused(': contrib/tool')
        (tree / 'contrib/tool').resolve().chmod(0o755)
        write(tree, {'more': ''})
        self.refused(': more')
        (tree / 'more').unlink()
        (tree / 'Kconfig').unlink()
        self.refused(': Kconfig')

    def test_what_is_missing_is_named(self):
        shutil.move(self.build / 'series', self.build / 'elsewhere')
        self.refused('series/tree is missing: make series')
        (self.build / 'download/qemu_10.0.99+ds-1.dsc').unlink()
        self.refused(r'qemu_10.0.99\+ds-1.dsc is missing.*tools/fetch base')
        shutil.rmtree(self.build / 'debian-qemu/debian')
        self.refused('is not unpacked of Debian\'s source package')


if __name__ == '__main__':
    virtio_mem_tap.main()
