# SPDX-License-Identifier: GPL-2.0-or-later
"""The program as users start it: where it is installed, signals, its status."""

import contextlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import virtio_mem_tap

HERE = Path(__file__).resolve().parent.parent
NAME = 'virtio-mem-autosize'
PACKAGES = {'PYTHONPATH': os.environ.get('PYTHONPATH', '')}


@contextlib.contextmanager
def inherited(action, *numbers):
    """Let a process that starts meanwhile inherit what signals do.

    A shell's job in the background ignores some.
    """
    before = [signal.signal(number, action) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


class Program(unittest.TestCase):

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.prefix = Path(directory.name)
        self.program = HERE / NAME

    def install(self, modules=True):
        """Install it as meson.build does, which has to name all modules."""
        (self.prefix / 'bin').mkdir()
        self.program = shutil.copy(HERE / NAME, self.prefix / 'bin')
        if modules:
            share = self.prefix / 'share/qemu' / NAME
            share.mkdir(parents=True)
            build = (HERE / 'meson.build').read_text(encoding='ascii')
            for path in HERE.glob('*.py'):
                self.assertIn(f"'{path.name}'", build)
                shutil.copy(path, share)

    def start(self, *arguments, packages=True, **options):
        """Start it; without packages, Python has none but its own."""
        environment = {'PYTHONDONTWRITEBYTECODE': '1'}
        process = subprocess.Popen(
            [sys.executable, *([] if packages else ['-S']), self.program,
             *arguments], text=True, stdout=options.pop('stdout', -1),
            stderr=subprocess.STDOUT, cwd=self.prefix,
            env=environment | (PACKAGES if packages else {}), **options)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        return process

    def run_it(self, *arguments, **options):
        """Return its status and what it says."""
        process = self.start(*arguments, **options)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def assert_runs(self):
        self.assertEqual(
            self.run_it('--once', '/none'),
            (1, '/none: left alone: /none: No such file or directory\n'))

    # Where it is

    def test_installed(self):
        self.install()
        self.assert_runs()

    def test_linked(self):
        self.program = self.prefix / NAME
        self.program.symlink_to(HERE / NAME)
        self.assert_runs()

    def test_modules_are_missing(self):
        self.install(modules=False)
        status, said = self.run_it('/none', packages=False)
        self.assertEqual(status, 1)
        self.assertIn('its own modules belong', said)
        self.assertNotIn('Traceback', said)

    def test_packages_are_missing(self):
        self.install()
        for words, *arguments in (('pip install qemu.qmp', '/none'),
                                  ('install python3-libvirt',
                                   '--connect=qemu:///system', 'none')):
            status, said = self.run_it(*arguments, packages=False)
            self.assertEqual(status, 1)
            self.assertIn(words, said)
            self.assertNotIn('Traceback', said)

    # How it begins and ends

    def test_mistake(self):
        self.assertEqual(self.run_it('/a,min=x'), (
            1, f'{NAME}: error: /a: min=x: a size is a number, of bytes or '
            'with K, M, G or T\n'))

    def test_each_signal_ends_it(self):
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
                   signal.SIGQUIT)
        for number in numbers:
            with inherited(signal.SIG_DFL, *numbers):
                process = self.start('/none')
            process.stdout.readline()
            process.send_signal(number)
            self.assertEqual(process.wait(60), 0)

    def test_nohup(self):
        with inherited(signal.SIG_IGN, signal.SIGHUP):
            process = self.start('/none')
        process.stdout.readline()
        ignored = Path(f'/proc/{process.pid}/status').read_text(
            encoding='ascii').partition('SigIgn:')[2].split()[0]
        self.assertTrue(int(ignored, 16) & 1 << signal.SIGHUP - 1)
        process.terminate()
        self.assertEqual(process.wait(60), 0)

    def test_log_is_full(self):
        with open('/dev/full', 'w', encoding='ascii') as full:
            self.assertEqual(self.run_it('--once', '/none', stdout=full)[0], 1)


if __name__ == '__main__':
    virtio_mem_tap.main()
