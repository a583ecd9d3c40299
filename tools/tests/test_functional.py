# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own "make check-functional" runs the functional tests."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import overlay
import virtio_mem_parts
import virtio_mem_tap

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / 'tests/functional'


class CheckFunctional(unittest.TestCase):

    def listed(self):
        return [path for path in FOLDER.glob('test_virtio_mem_*.py')
                if str(path.relative_to(ROOT)) not in overlay.OWN]

    def test_each_test_is_listed_with_its_time(self):
        added = re.findall(r"^\+  '(\w+)'( : \d+)?,$",
                           (FOLDER / 'meson.build.patch').read_text(), re.M)
        names = sorted(path.stem.removeprefix('test_')
                       for path in self.listed())
        self.assertEqual(sorted(n for n, time in added if time), names)
        self.assertEqual(sorted(n for n, time in added if not time), names)

    def test_nothing_is_fetched_beforehand(self):
        with tempfile.TemporaryDirectory() as folder:
            stamp = Path(folder, 'stamp')
            for path in self.listed():
                run = subprocess.run(
                    ['/usr/bin/python3', path], check=True, text=True,
                    env={**os.environ, 'QEMU_TEST_PRECACHE': str(stamp)},
                    stdout=subprocess.PIPE)
                self.assertEqual(run.stdout, '')
                stamp.unlink()

    def test_emulator_is_the_one_that_qemu_names(self):
        for name in 'QEMU_TEST_QEMU_BINARY', 'QEMU_BINARY':
            with mock.patch.dict(os.environ, {name: '/some/qemu'}):
                self.assertEqual(str(virtio_mem_parts.part('QEMU_BINARY')),
                                 '/some/qemu')
        # It names one, which for a test for arm64 is the one for arm64.
        with mock.patch.dict(os.environ, QEMU_TEST_QEMU_BINARY='/some/qemu'):
            self.assertEqual(str(virtio_mem_parts.part('ARM64_QEMU_BINARY')),
                             '/some/qemu')

    def test_without_a_guest_all_is_skipped_with_the_reason(self):
        run = subprocess.run(
            ['/usr/bin/python3', FOLDER / 'test_virtio_mem_setups.py'],
            check=True, text=True, stdout=subprocess.PIPE,
            env={**os.environ, 'GUEST_KERNEL': '/none'})
        self.assertEqual(run.stdout.count('ok '),
                         run.stdout.count('# SKIP /none is missing: run '))


if __name__ == '__main__':
    virtio_mem_tap.main()
