# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed goes away again, and nothing else does."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import program
import virtio_mem_tap

install = program.load('install')
PREFIX = '/opt/q'
EMULATOR = f'{PREFIX}/bin/qemu-system-x86_64'


def write(top, files):
    for path, text in files.items():
        path = Path(f'{top}{path}')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tree(top):
    """All that is below @top: {path: text, where a link points, or None}."""
    return {str(path.relative_to(top)):
            os.readlink(path) if path.is_symlink() else
            path.read_text() if path.is_file() else None
            for path in top.rglob('*')}


class Case(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.top = Path(tmp.name)
        self.image, self.host = self.top / 'image', self.top / 'host'
        self.host.mkdir()
        self.place = install.Place(PREFIX, str(self.host))
        self.make_image({EMULATOR: 'one', f'{PREFIX}/share/qemu/bios': 'b'})

    def make_image(self, files):
        subprocess.run(['rm', '-rf', self.image], check=True)
        write(self.image, files)
        (self.image / f'.{PREFIX}/bin/kvm').symlink_to('qemu-system-x86_64')
        (self.image / f'.{EMULATOR}').chmod(0o755)

    def put(self):
        return install.put(self.image, self.place)

    def take_away(self):
        with contextlib.redirect_stdout(io.StringIO()):
            return install.take_away(self.place)

    def refused(self, why, do, *args):
        with self.assertRaisesRegex(install.InstallError, why):
            do(*args)


class Manifest(Case):

    def test_all_of_the_image_is_there(self):
        self.assertEqual(self.put(), [])
        there = tree(self.host)
        self.assertTrue(there.pop(f'opt/q/{install.LIST}'))
        del there['opt/q/share/virtio-mem']
        self.assertEqual(there, tree(self.image))
        self.assertEqual((self.host / f'.{EMULATOR}').stat().st_mode & 0o777,
                         0o755)

    def test_nothing_is_left(self):
        self.put()
        self.assertEqual(self.take_away(), [])
        self.assertEqual(tree(self.host), {})

    def test_what_was_there_stays(self):
        write(self.host, {f'{PREFIX}/bin/other': 'theirs', '/opt/x': 'x'})
        before = tree(self.host)
        self.put()
        self.take_away()
        self.assertEqual(tree(self.host), before)

    def test_what_came_later_stays(self):
        self.put()
        write(self.host, {f'{PREFIX}/share/qemu/later': 'theirs'})
        self.take_away()
        self.assertEqual({path: text for path, text in tree(self.host).items()
                          if text}, {'opt/q/share/qemu/later': 'theirs'})

    def test_file_of_others_is_not_replaced(self):
        write(self.host, {EMULATOR: 'theirs'})
        before = tree(self.host)
        self.refused('not installed here before.*qemu-system-x86_64', self.put)
        self.assertEqual(tree(self.host), before)

    def test_not_even_if_it_is_the_same(self):
        write(self.host, {EMULATOR: 'one'})
        self.refused('not installed here before', self.put)

    def test_link_of_others_is_not_replaced(self):
        (self.host / 'opt/q/bin').mkdir(parents=True)
        (self.host / 'opt/q/bin/kvm').symlink_to('/nowhere')
        self.refused('not installed here before', self.put)

    def test_changed_file_stays_and_is_named(self):
        self.put()
        write(self.host, {EMULATOR: 'built by hand'})
        self.refused('changed since', self.put)
        self.assertEqual(self.take_away(), [f'{self.host}{EMULATOR}'])
        self.assertEqual({path: text for path, text in tree(self.host).items()
                          if text}, {EMULATOR[1:]: 'built by hand'})

    def test_again_replaces_and_removes(self):
        self.put()
        self.make_image({EMULATOR: 'two', f'{PREFIX}/share/new/file': 'n'})
        self.assertEqual(self.put(), [])
        there = tree(self.host)
        self.assertEqual(there[EMULATOR[1:]], 'two')
        self.assertNotIn('opt/q/share/qemu/bios', there)
        self.take_away()
        self.assertEqual(tree(self.host), {})

    def test_program_that_runs_is_replaced(self):
        source = f'{self.image}{EMULATOR}'
        subprocess.run(['cp', '/bin/sleep', source], check=True)
        self.put()
        with subprocess.Popen([f'{self.host}{EMULATOR}', '600']) as running:
            self.addCleanup(running.kill)
            self.make_image({EMULATOR: 'two'})
            self.put()
            self.assertIsNone(running.poll())
            running.kill()
        self.assertEqual((self.host / f'.{EMULATOR}').read_text(), 'two')

    def test_interrupted_at_each_step(self):
        """It can be repeated, or undone, from wherever it stopped."""
        for undo in (self.take_away, lambda: (self.put(), self.take_away())):
            for steps in range(3):
                self.make_image({EMULATOR: 'one', f'{PREFIX}/old': 'o'})
                self.put()
                self.make_image({EMULATOR: 'two', f'{PREFIX}/new': 'n'})
                with self.stopped_after(steps), self.assertRaises(OSError):
                    self.put()
                undo()
                self.assertEqual(tree(self.host), {})

    @staticmethod
    def stopped_after(steps):
        """Let no more than so many files be copied."""
        copy, left = install.shutil.copy2, [steps]

        def copy_some(source, target, **options):
            left[0] -= 1
            copy(source, target, **options)
            if left[0] < 0:
                raise OSError('disk full')
        return mock.patch.object(install.shutil, 'copy2', copy_some)


class BadInput(Case):

    def test_prefix(self):
        for prefix in ('', 'opt/q', '/', '/opt/../q', '/opt/a b', '/opt/$x'):
            self.refused(f'^PREFIX={prefix.rstrip("/").replace("$", ".")} is '
                         'not an absolute path', install.Place, prefix)
        self.assertEqual(install.Place('/opt/q/').prefix, '/opt/q')

    def test_destdir(self):
        self.refused('^DESTDIR=here is not an absolute path', install.Place,
                     PREFIX, 'here')

    def test_destdir_that_takes_no_files(self):
        write(self.top, {'/file': ''})
        for destdir in ('/proc/nowhere', f'{self.top}/file'):
            place = install.Place(PREFIX, destdir)
            self.refused(f'^DESTDIR={destdir}: cannot write to '
                         f'(/proc|{self.top}/file): .*choose another DESTDIR',
                         place.check_writable)
        self.place.check_writable()
        self.assertEqual(tree(self.host), {})

    def test_prefix_that_takes_no_files(self):
        self.refused('^PREFIX=/proc/q: cannot write to /proc: .*or be root',
                     install.Place('/proc/q').check_writable)

    def test_nothing_to_uninstall(self):
        self.refused(f'nothing is installed here: no {self.host}{PREFIX}/',
                     self.take_away)

    def test_broken_list(self):
        for text in ('', '{}', '[]', '{"files": {}'):
            write(self.host, {f'{PREFIX}/{install.LIST}': text})
            for do in self.put, self.take_away:
                self.refused('is no list of what was installed', do)

    def test_firmware(self):
        names = {name: package for package, listed in install.FIRMWARE.items()
                 for name in listed}
        for name, package in names.items():
            write(self.top, {f'/pkg/{package}/usr/share/x/{name}': name})
        found = install.find_firmware(self.top / 'pkg')
        self.assertEqual({path.read_text() for path in found}, set(names))
        (self.top / 'pkg/seabios/usr/share/x/bios-256k.bin').unlink()
        self.refused('pkg/seabios has no bios-256k.bin; fetch the package',
                     install.find_firmware, self.top / 'pkg')

    def test_emulator_of_others_is_seen_before_the_build(self):
        write(self.host, {EMULATOR: 'theirs'})
        with mock.patch.object(install, 'build') as build:
            self.refused('not installed here before', install.install,
                         self.place)
        build.assert_not_called()


if __name__ == '__main__':
    virtio_mem_tap.main()
