# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU_SRC takes an unpacked QEMU 10.0.x and nothing else."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

FETCH = Path(__file__).resolve().parent.parent / 'fetch'


class QemuSrc(unittest.TestCase):

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.build = Path(tmp.name, 'build')
        self.source = Path(tmp.name, 'qemu')
        self.build.mkdir()

    def fetch(self):
        return subprocess.run(
            [FETCH, 'base'], check=False, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={
                **os.environ, 'BUILD': str(self.build),
                'QEMU_SRC': str(self.source)})

    def test_10_0_is_taken_where_it_is(self):
        self.source.mkdir()
        (self.source / 'VERSION').write_text('10.0.3\n')
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual((self.build / 'base').resolve(),
                         self.source.resolve())

    def test_other_version_is_refused(self):
        self.source.mkdir()
        (self.source / 'VERSION').write_text('9.2.0\n')
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('is QEMU 9.2.0, this needs a 10.0.x', run.stdout)

    def test_directory_that_is_no_qemu_is_refused(self):
        self.source.mkdir()
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('has no file VERSION', run.stdout)

    def test_missing_directory_is_refused(self):
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('no such directory', run.stdout)


if __name__ == '__main__':
    virtio_mem_tap.main()
