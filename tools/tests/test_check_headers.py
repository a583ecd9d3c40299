# SPDX-License-Identifier: GPL-2.0-or-later
"""A header that needs another one before it is found."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

TOOL = Path(__file__).resolve().parents[1] / 'check-headers'


class CheckHeaders(unittest.TestCase):

    def test_only_what_does_not_compile_alone_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            alone = Path(folder) / 'alone.h'
            alone.write_text('#include "qom/object.h"\nObject *alone(void);\n')
            needy = Path(folder) / 'needy.h'
            needy.write_text('void needy(MemoryRegion *mr);\n'
                             'void very_needy(VirtIOMEM *vmem);\n')
            run = subprocess.run([TOOL, alone, needy], text=True, check=False,
                                 stdout=subprocess.PIPE)
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn('2 headers, 1 do not compile alone', run.stdout)
        self.assertRegex(run.stdout, "unknown type name .VirtIOMEM.")
        self.assertNotIn('alone.h:', run.stdout)


if __name__ == '__main__':
    virtio_mem_tap.main()
