# SPDX-License-Identifier: GPL-2.0-or-later
"""A name in the developer page that is nobody's is found."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

TOOL = Path(__file__).resolve().parents[1] / 'check-docs'


class CheckDocs(unittest.TestCase):

    def check(self, *literals):
        """Return (status, mistakes) for a page with these literals."""
        with tempfile.NamedTemporaryFile('w', suffix='.rst') as page:
            page.write(''.join(f'See ``{literal}``.\n'
                               for literal in literals))
            page.flush()
            run = subprocess.run([TOOL, page.name], text=True, check=False,
                                 stdout=subprocess.PIPE)
            said = run.stdout.replace(f'{page.name}:', '')
        return run.returncode, said.splitlines()

    def test_names_that_exist_are_silent(self):
        self.assertEqual(self.check(
            'virtio_mem_plug_range()', 'plug/one-block',
            'stream/early-payload', '/virtio-mem/packed/plug/one-block',
            'test_memfd_goes_back', 'virtio-mem.c',
            'hw/virtio/', 'tests/qtest/virtio-mem-*-test.c',
            'migration/ram.c'), (0, []))

    def test_other_words_are_not_names(self):
        self.assertEqual(self.check(
            'size', 'requested-size', 'prealloc=on', 'virtio_notify_config()',
            'uint64_t'), (0, []))

    def test_function_that_is_only_called_or_mentioned_is_none(self):
        self.assertEqual(self.check('virtio_mem_plug_a_range()'),
                         (1, ['1: virtio_mem_plug_a_range(): '
                              'no such function']))

    def test_every_kind_of_name_is_checked(self):
        for literal, mistake in (
                ('plug/no-such-claim', 'no such test'),
                ('stream/one-block', 'no such test'),
                ('/virtio-mem/no-such-ring/plug/one-block', 'no such test'),
                ('test_no_such_case', 'no such test case'),
                ('hw/virtio/virtio-memory.c', 'no such file'),
                # Not in QEMU's tree.
                ('tools/check-docs', 'no such file')):
            self.assertEqual(self.check('virtio_mem_plug_range()', literal),
                             (1, [f'2: {literal}: {mistake}']))


if __name__ == '__main__':
    virtio_mem_tap.main()
