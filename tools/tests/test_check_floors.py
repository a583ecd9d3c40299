# SPDX-License-Identifier: GPL-2.0-or-later
"""An arrow that goes up is found, and the device itself has none."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

TOOL = Path(__file__).resolve().parents[1] / 'check-floors'

# Work stands above blocks, and plug above work.
HOUSE = {
    'blocks.h': 'int virtio_mem_blocks_nb(void);\n',
    'blocks.c': '#include "virtio-mem-blocks.h"\n'
                'int virtio_mem_blocks_nb(void)\n{\n}\n',
    'work.h': '#include "virtio-mem-blocks.h"\n'
              'static inline int virtio_mem_work_next(int\n'
              '                                       i)\n'
              '{\n    return virtio_mem_blocks_nb();\n}\n',
    'work.c': '#include "virtio-mem-work.h"\n'
              'static int work_do(void)\n{\n'
              '    /* virtio_mem_plug_range() waits */\n'
              '    say("not virtio_mem_plug_range()");\n'
              '    return virtio_mem_blocks_nb();\n}\n',
    'plug.h': 'int virtio_mem_plug_range(int first,\n'
              '                          int last);\n',
    'plug.c': '#include "virtio-mem-plug.h"\n'
              '#include "virtio-mem-work.h"\n'
              'int virtio_mem_plug_range(int first, int last)\n{\n'
              '    return virtio_mem_work_next(first);\n}\n'
}


class CheckFloors(unittest.TestCase):

    def check(self, **changed):
        """Return (status, mistakes) for HOUSE with some files changed."""
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / 'hw/virtio'
            folder.mkdir(parents=True)
            house = HOUSE | {f'{name[:-2].replace("_", "-")}.{name[-1]}': text
                             for name, text in changed.items()}
            for name, text in house.items():
                (folder / f'virtio-mem-{name}').write_text(text)
            run = subprocess.run([TOOL, root], text=True, check=False,
                                 stdout=subprocess.PIPE)
        said = run.stdout.replace('hw/virtio/virtio-mem-', '')
        return run.returncode, said.splitlines()

    def test_the_device_has_no_arrow_that_goes_up(self):
        run = subprocess.run([TOOL], text=True, check=False,
                             stdout=subprocess.PIPE)
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertRegex(run.stdout, r'^\d+ files, \d+ functions')

    def test_downwards_is_silent(self):
        self.assertEqual(self.check(), (
            0, ['6 files, 3 functions, no arrow that goes up']))

    def test_an_include_that_goes_up(self):
        self.assertEqual(self.check(
            blocks_h='#include "virtio-mem-work.h"\n' + HOUSE['blocks.h']), (
                1, ['blocks.h: #include "virtio-mem-work.h": virtio-mem-work'
                    ' is not below virtio-mem-blocks']))

    def test_a_call_that_goes_up(self):
        self.assertEqual(self.check(
            work_c=HOUSE['work.c'] + 'int x(void)\n{\n'
            '    virtio_mem_plug_range(1, 2);\n}\n'), (
                1, ['work.c: virtio_mem_plug_range(): virtio-mem-plug is not'
                    ' below virtio-mem-work']))

    def test_a_part_sees_the_types_of_the_whole_and_calls_nothing(self):
        whole = {'guard_c': 'int virtio_mem_guard_new(void)\n{\n}\n'}
        part = '#include "virtio-mem-guard.h"\n'
        self.assertEqual(self.check(**whole, guard_ring_c=part)[0], 0)
        self.assertEqual(self.check(
            **whole, guard_ring_c=part + 'int x(void)\n{\n'
            '    virtio_mem_guard_new();\n}\n')[1], [
                'guard-ring.c: virtio_mem_guard_new(): virtio-mem-guard is not'
                ' below virtio-mem-guard-ring'])

    def test_a_neighbour_is_not_below(self):
        self.assertEqual(self.check(
            wire_c='#include "virtio-mem-blocks.h"\n')[1], [
                'wire.c: #include "virtio-mem-blocks.h": virtio-mem-blocks is'
                ' not below virtio-mem-wire'])

    def test_the_proxy_sees_the_public_header_only(self):
        self.assertEqual(self.check(
            pci_c='#include "hw/virtio/virtio-mem.h"\n'
                  '#include "virtio-mem-blocks.h"\n')[1], [
                      'pci.c: #include "virtio-mem-blocks.h": virtio-mem-blocks'
                      ' is not below virtio-mem-pci'])

    def test_a_file_on_no_floor(self):
        self.assertEqual(self.check(attic_c='')[1], [
            'attic.c: on no floor of tools/check-floors'])

    def test_a_prototype_away_from_home(self):
        self.assertEqual(self.check(
            plug_h=HOUSE['plug.h'] + 'int virtio_mem_blocks_nb(void);\n')[1],
            ['plug.h: virtio_mem_blocks_nb() is not defined beside it'])


if __name__ == '__main__':
    virtio_mem_tap.main()
