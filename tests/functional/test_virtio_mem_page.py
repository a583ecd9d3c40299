#!/usr/bin/python3
"""The examples in the page for users work as they stand there.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import re
import shlex
import shutil
import subprocess
import textwrap
import unittest

import virtio_mem_parts as parts
import virtio_mem_tap

PAGE = parts.TOP / 'docs/system/devices/virtio-mem.rst'

# Examples that leave out what others show.
ROOM = ('-m', '1G,maxmem=17G')


def code_blocks(language):
    """Yield line number and text of the blocks of a language in the page."""
    lines = PAGE.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if line.strip() != f'.. code-block:: {language}':
            continue
        text = []
        for code in lines[number:]:
            if code.strip() and len(code) - len(code.lstrip()) <= indent:
                break
            text.append(code)
        yield number, textwrap.dedent('\n'.join(text)).strip()


class VirtioMemPage(unittest.TestCase):

    def test_options_of_qemu_start_a_machine(self):
        if troubles := parts.troubles():
            self.skipTest('; '.join(troubles))
        examples = [(number, shlex.split(text.replace('\\\n', '')))
                    for number, text in code_blocks('console')
                    if re.match('-[a-z]', text)]
        self.assertGreaterEqual(len(examples), 6)
        for number, args in examples:
            with self.subTest(line=number):
                self.check_machine(args)

    @staticmethod
    def check_machine(args):
        """Start a machine without a guest; raises what QEMU says."""
        room = () if '-m' in args else ROOM
        with parts.qemu_machine().QEMUMachine(
                str(parts.part('QEMU_BINARY')),
                args=('-accel', 'tcg', '-S', '-display', 'none', *room,
                      *args)) as vm:
            vm.launch()
            vm.cmd('query-memory-devices')

    def test_libvirt_knows_the_whole_domain(self):
        if not shutil.which('virt-xml-validate'):
            self.skipTest('virt-xml-validate is missing: run '
                          '"tools/bootstrap --tests"')
        domains = [text for _, text in code_blocks('xml')
                   if text.startswith('<domain')]
        self.assertEqual(len(domains), 1)
        run = subprocess.run(['virt-xml-validate', '-'], input=domains[0],
                             text=True, check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 0, run.stdout)


if __name__ == '__main__':
    virtio_mem_tap.main()
