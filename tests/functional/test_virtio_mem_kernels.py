#!/usr/bin/python3
"""What the protection costs in page tables, by the kernel of the host.

The program is a unit test of the guard.  Its hosts are the one at hand and,
as guests of that, those with the older kernels that tests have.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
from pathlib import Path
import re
import subprocess
import tarfile

import virtio_mem_parts as parts
import virtio_mem_tap
import virtio_mem_tools
from virtio_mem_guest import GiB
from virtio_mem_guest_test import GuestTest

PROGRAM = 'tests/unit/test-virtio-mem-guard-rogue'
CASE = '/virtio-mem/guard/small-blocks-leave-no-tables'
# What the case has not plugged, and writes to, once in each 2 MiB.
UNPLUGGED = 4 * GiB
# Tables for the pages that are lent, and some for the program.
FEW = 256 << 10


def libraries(program):
    """List the libraries that a program needs, and what loads them."""
    output = subprocess.run(['ldd', program], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return re.findall(r'(/\S+) \(0x', output)


def pack(program, archive):
    """Put a program and its libraries into an archive."""
    with tarfile.open(archive, 'w', dereference=True) as tar:
        tar.add(program, 'program')
        for path in libraries(program):
            tar.add(path, Path(path).name)
    # A disk consists of sectors.
    size = os.path.getsize(archive)
    os.truncate(archive, size + -size % 512)


def frees_tables(machine, release):
    """Tell what the page says of such a host."""
    version = re.match(r'(\d+)\.(\d+)', release).groups()
    return machine == 'x86_64' and tuple(map(int, version)) >= (6, 14)


class KernelTest(GuestTest):
    """Each case prints its figure."""

    def setUp(self):
        super().setUp()
        troubles = [*virtio_mem_tools.troubles(PROGRAM),
                    parts.guard_trouble()]
        if any(troubles):
            self.skipTest('; '.join(filter(None, troubles)))
        self.program = str(virtio_mem_tools.tool(PROGRAM))

    def check(self, machine, release, output):
        """Compare what the program printed with what the page says."""
        self.assertRegex(output, r'(?m)^ok 1 ')
        self.assertNotIn('SKIP', output)
        found = re.search(r'VmPTE: (\d+) kB before, (\d+) kB after', output)
        before, after = map(int, found.groups())
        print(f'# Linux {release}, {machine}: VmPTE {before} kB, with '
              f'{UNPLUGGED >> 20} MiB that a rogue wrote to {after} kB')
        gain = (after - before) << 10
        if frees_tables(machine, release):
            self.assertLess(gain, FEW)
        else:
            self.assertLess(gain, UNPLUGGED // 512 + FEW)
            # Or the page promises too little.
            self.assertGreater(gain, UNPLUGGED // 512 - FEW)


class VirtioMemHostKernel(KernelTest):
    """The kernel at hand."""

    def test_page_tables(self):
        run = subprocess.run([self.program, '--tap', '-k', '-p', CASE],
                             check=False, text=True, stdout=subprocess.PIPE)
        uname = os.uname()
        self.check(uname.machine, uname.release, run.stdout)


class VirtioMemGuestKernel(KernelTest):
    """A guest is the host."""

    def test_page_tables(self):
        archive = self.temp_file('program.tar')
        pack(self.program, archive)
        drive = f'if=none,id=disk,format=raw,readonly=on,file={archive}'
        with self.guest(more_args=('-drive', drive, '-device',
                                   'virtio-blk-pci,drive=disk')) as guest:
            guest.ask('modprobe virtio_blk && tar -x -f /dev/vda -C /tmp')
            output = guest.ask('/tmp/ld-* --library-path /tmp /tmp/program '
                               f'--tap -k -p {CASE}')
            machine = guest.ask('uname -m')
            release = guest.ask('uname -r')
        self.check(machine, release, output)


class VirtioMemOldGuestKernel(VirtioMemGuestKernel):
    """The same with the older Linux."""

    old_kernel = True
    in_ci = ()


if __name__ == '__main__':
    virtio_mem_tap.main()
