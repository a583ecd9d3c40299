"""A guest of a few instructions, that uses memory without asking.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import pathlib
import shutil
import subprocess
import tempfile

import virtio_mem_parts as parts
from virtio_mem_guest import wait_until


def troubles():
    """List what is missing, each with the command that mends it."""
    return [f'{program} is missing: run "tools/bootstrap"'
            for program in ('gcc', 'ld') if not shutil.which(program)]


def anonymous_memory(vm):
    """Return how much memory QEMU has of its own."""
    status = pathlib.Path(f'/proc/{vm.get_pid()}/status').read_text('ascii')
    return sum(int(line.split()[1]) << 10 for line in status.splitlines()
               if line.startswith(('RssAnon:', 'VmPTE:')))


class Stub:
    """A machine that runs virtio_mem_stub.S in place of its firmware.

    binary names the part (virtio_mem_parts) that it is made of.
    """

    def __init__(self, accel, device_options='', more_args=(),
                 binary='QEMU_BINARY'):
        self._dir = tempfile.TemporaryDirectory()
        here = pathlib.Path(self._dir.name)
        source = pathlib.Path(__file__).with_name('virtio_mem_stub.S')
        subprocess.run(['gcc', '-m64', '-c', source, '-o', here / 'stub.o'],
                       check=True)
        subprocess.run(['ld', '-Ttext', '0', '--oformat', 'binary', '-e',
                        '_start', '-o', here / 'stub.bin', here / 'stub.o'],
                       check=True)
        self._serial = here / 'serial'
        self.vm = parts.qemu_machine().QEMUMachine(
            str(parts.part(binary)), qmp_timer=60,
            wrapper=['setpriv', '--pdeathsig', 'KILL'],
            base_temp_dir=tempfile.gettempdir())
        self.vm.add_args(
            '-nodefaults', '-machine', 'pc', '-accel', accel, '-S',
            '-bios', str(here / 'stub.bin'),
            '-serial', f'file:{self._serial}', '-m', '512M,maxmem=16G',
            '-object', 'memory-backend-ram,id=mem0,size=8G',
            '-device', f'virtio-mem-pci,id=vm0,memdev=mem0{device_options}',
            *more_args)

    def __enter__(self):
        self.vm.launch()
        return self

    def __exit__(self, *_):
        self.vm.shutdown(hard=True)
        self._dir.cleanup()

    def wait_serial(self, length):
        """Return what the stub said, when it has said that much."""
        def look():
            text = self._serial.read_text('ascii')
            return text if len(text) >= length else None

        return wait_until(look, lambda: 'the stub said no more than "'
                          f'{self._serial.read_text("ascii")}"', interval=0.01)
