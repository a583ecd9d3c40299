"""A Linux guest with one virtio-mem device, to be watched from both sides.

SPDX-License-Identifier: GPL-2.0-or-later

The host's side is QMP and /proc, the guest's side is the shell that
tools/guest-init serves on the second serial port.  Sizes are bytes.
"""

import asyncio
import contextlib
import os
import re
import socket
import tempfile
import time

import virtio_mem_mappings as mappings
import virtio_mem_parts as parts
from virtio_mem_architectures import X86_64

MiB = 1 << 20
GiB = 1 << 30

# On a busy host Linux may mistake a late timer for a broken one, and panic:
# no_timer_check.  Its tests of ciphers take a fifth of a boot.
QUIET = 'quiet no_timer_check cryptomgr.notests'
KERNEL_OPTIONS = f'console={X86_64.port}0 {QUIET}'

# What MemTotal may differ by from one boot to the next.
KEPT_PAGES = 64 << 10

# Seconds to wait for anything; a fifth would do on an idle host.
PATIENCE = 300

# What Linux prints when a device does something that no driver expects.  A
# lockup that it sees is the host's: too busy to run the guest at all.
COMPLAINTS = re.compile(
    r'WARNING: |BUG: (?!soft lockup|workqueue lockup)|kernel BUG|Oops|'
    r'blocked for more than|marking device broken|Kernel panic')


class GuestError(Exception):
    """The guest did not do what it was told."""


class GuestTimeout(GuestError):
    """The guest did not do what it was told in time; it still may."""


def wait_until(look, problem, timeout=PATIENCE, interval=0.1):
    """Look until there is something true to see, and return that.

    When the time is up, problem says what is wrong: a string, or a function
    that has a last look and returns one.
    """
    deadline = time.monotonic() + timeout
    while not (seen := look()):
        if time.monotonic() > deadline:
            text = problem() if callable(problem) else problem
            raise GuestTimeout(f'{text}, after {timeout} s')
        time.sleep(interval)
    return seen


def process_ticks(pid):
    """Return how much time a process had of the host's processors."""
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        user, system = stat.read().rpartition(')')[2].split()[11:13]
    return int(user) + int(system)


class Shell:
    """The guest's shell for programs: one command at a time."""

    ANSWER = re.compile(rb'(.*?)\x1e(\d+) (\d+)\n', re.DOTALL)

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._received = b''
        self._last_id = 0

    def close(self):
        """Hang up; the guest does not notice."""
        self._socket.close()

    def _receive(self, deadline):
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise GuestTimeout('the guest gave no answer in time') from None
        if not data:
            raise GuestError('QEMU closed the serial port')
        self._received += data

    def wait_answer(self, wanted, timeout):
        """Return output and status of a command; 0 is the end of boot.

        Answers to commands that were given up on earlier are dropped.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = self.ANSWER.match(self._received)
            if not found:
                self._receive(deadline)
                continue
            self._received = self._received[found.end():]
            if int(found[2]) == wanted:
                return found[1].decode(), int(found[3])

    def ask(self, command, timeout):
        """Run a one-line command, return its output without the last \\n."""
        assert '\n' not in command
        self._last_id += 1
        self._socket.sendall(f'{self._last_id} {command}\n'.encode())
        output, status = self.wait_answer(self._last_id, timeout)
        if status:
            raise GuestError(f'"{command}" failed in the guest with status '
                             f'{status}: {output.strip()}')
        return output.rstrip('\n')


def format_size(size):
    """Write a size as QEMU's options take it: 512M, 4G."""
    for unit, letter in ((GiB, 'G'), (MiB, 'M')):
        if size and size % unit == 0:
            return f'{size // unit}{letter}'
    return str(size)


def parse_size(text):
    """Read a size as QEMU's options take it: 512M, 4G."""
    match = re.fullmatch(r'(\d+)([MG])', text)
    if not match:
        raise ValueError(f'{text} is not a size such as 512M or 4G')
    return int(match[1]) * (GiB if match[2] == 'G' else MiB)


class Guest:
    """A running guest; use it as a context manager.

    After the block QEMU is gone, with its sockets and logs, whatever
    happened inside; and it goes down with this process, even by SIGKILL.
    room is what maxmem leaves for more devices, or devices that are plugged in
    later; binary names the part (virtio_mem_parts) that runs it, and machine
    another type than the architecture's usual one.  Only a guest
    made with keep=True can be left behind, by leave(); it has a human monitor
    and a QMP socket for whoever takes over.  programs=True gives it /bin/mmio,
    and /bin/kexec with a kernel and an initramfs to start.
    """

    DEVICE = 'vm0'

    def __init__(self, region_size=8 * GiB, boot_size=512 * MiB,
                 backend='memory-backend-ram', device_options='',
                 more_args=(), room=0, keep=False, binary=None,
                 machine=None, old_kernel=False, kernel_options='',
                 programs=False, architecture=X86_64):
        self.region_size = region_size
        self.boot_size = boot_size
        self.backend = backend
        self._device_options = device_options
        self._more_args = more_args
        self._max_size = boot_size + region_size + room
        self.architecture = architecture
        self._machine = machine or architecture.machine
        self._kernel, self._initrd = map(
            parts.part, architecture.guest_parts(old_kernel))
        if programs:
            self._initrd = self._initrd.with_name('programs.img')
        self.kernel_options = (f'console={architecture.port}0 '
                               f'{QUIET} {kernel_options}')
        self._shell = None
        self._left = False
        # QEMU has its own session, so that Ctrl-C reaches us alone and we
        # can end it in order.
        wrapper = ['setsid']
        if not keep:
            wrapper = ['setpriv', '--pdeathsig', 'KILL'] + wrapper
        self._keep = keep
        self.vm = parts.qemu_machine().QEMUMachine(
            str(parts.part(binary or architecture.emulator)),
            wrapper=wrapper, qmp_timer=60,
            base_temp_dir=tempfile.gettempdir())

    def __enter__(self):
        try:
            self.vm.add_args(*self.machine_args(), *self._port_args())
            self.vm.launch()
            self._shell = Shell(self.path('shell'))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, failure, *_):
        if failure:
            self.show_console()
        if not self._left:
            self.close()

    def close(self):
        """End QEMU, at once: nothing in the guest needs saving."""
        self._hang_up()
        self.vm.shutdown(hard=True)

    def _hang_up(self):
        if self._shell:
            self._shell.close()
            self._shell = None

    def leave(self):
        """Let go of a guest that goes on without us."""
        self._hang_up()
        self._left = True

    # What the machine is made of

    def machine_args(self):
        """List the options that say what machine this is."""
        return [
            '-nodefaults', '-machine', self._machine,
            *self.architecture.firmware_args(),
            *self.architecture.processor_args(), '-smp', '2',
            '-m', f'{format_size(self.boot_size)},maxmem='
                  f'{format_size(self._max_size)}',
            '-object', f'{self.backend},id=mem0,'
                       f'size={format_size(self.region_size)}',
            '-device', f'virtio-mem-{self.architecture.transport},'
                       f'id={self.DEVICE},memdev=mem0{self._device_options}',
            '-kernel', str(self._kernel), '-initrd', str(self._initrd),
            '-append', self.kernel_options.strip(),
            *self._more_args,
        ]

    def path(self, name):
        """Return a path in the directory that goes away with the guest."""
        return f'{self.vm.temp_dir}/{name}'

    def _port_args(self):
        def socket_at(name):
            return f'unix:{self.path(name)},server=on,wait=off'

        args = ['-chardev', f'file,id=console,path={self.path("console.log")}',
                '-chardev', f'socket,id=shell,path={self.path("shell")},'
                            'server=on,wait=off',
                *self.architecture.port_args('console', 'shell')]
        if self._keep:
            args += ['-monitor', socket_at('monitor'),
                     '-qmp', socket_at('qmp')]
        return args

    def console(self):
        """Return what the guest wrote on its console so far."""
        with open(self.path('console.log'), 'rb') as log:
            return log.read().decode(errors='replace')

    def show_console(self):
        """Say what the guest said last, beside the cause of a failure."""
        with contextlib.suppress(OSError):
            for line in self.console().splitlines()[-20:]:
                print(f'# guest: {line}')

    # The guest's side

    def ask(self, command, timeout=PATIENCE):
        """Run a command in the guest and return what it printed."""
        return self._shell.ask(command, timeout)

    def wait_boot(self, timeout=PATIENCE):
        """Wait until the guest serves commands, after launch or reboot."""
        self._shell.wait_answer(0, timeout)

    def reboot(self):
        """Let the guest reboot, and wait until it serves commands again."""
        self.ask('(sleep 1; reboot -f) > /dev/null 2>&1 &')
        self.wait_boot()

    def suspend(self):
        """Let the guest suspend to RAM, and wait until it sleeps."""
        self.ask("(sleep 1; echo mem > /sys/power/state; "
                 r"printf '\0360 0\n' > "
                 f"/dev/{self.architecture.port}1) > /dev/null 2>&1 &")
        self.vm.event_wait('SUSPEND', PATIENCE)

    def wake_up(self):
        """Wake the guest, and wait until it serves commands again."""
        self.vm.cmd('system_wakeup')
        self.wait_boot()

    def mem_total(self):
        """Return how much memory the guest's kernel manages."""
        line = self.ask('grep MemTotal /proc/meminfo')
        return int(line.split()[1]) << 10

    def node_total(self, node):
        """Return how much memory the guest's kernel has in a NUMA node."""
        line = self.ask(f'grep MemTotal /sys/devices/system/node/node{node}'
                        f'/meminfo')
        return int(line.split()[3]) << 10

    def complaints(self):
        """List the lines of the kernel's log that no test should cause."""
        return [line for line in self.ask('dmesg').splitlines()
                if COMPLAINTS.search(line)]

    # The host's side

    def hmp(self, command):
        """Run a human monitor command; what it prints is an error."""
        output = self.vm.cmd('human-monitor-command', command_line=command)
        if output:
            raise GuestError(f'monitor command "{command}": {output.strip()}')

    def device_info(self, device_id=DEVICE):
        """Return query-memory-devices' view of a device."""
        for device in self.vm.cmd('query-memory-devices'):
            if device['data'].get('id') == device_id:
                return device['data']
        raise GuestError(f'query-memory-devices does not know {device_id}')

    def wait_announced(self, size):
        """Return the size changes announced up to the one to a size."""
        announced = []
        while not announced or announced[-1]['size'] != size:
            try:
                event = self.vm.event_wait('MEMORY_DEVICE_SIZE_CHANGE',
                                           PATIENCE)
            except asyncio.TimeoutError:
                raise GuestTimeout(f'no event announced {size:#x}, but '
                                   f'{announced}') from None
            announced.append(event['data'])
        return announced

    def driver_is_idle(self):
        """Tell whether the guest's driver has done all that it can.

        After it unplugged a block of Linux's, its kernel worker removes that
        from Linux; MemTotal goes up and down once more meanwhile, and a driver
        that is unloaded in that moment leaves the block behind.
        """
        return self.ask("cat /proc/[0-9]*/comm 2> /dev/null | awk "
                        "'/[+]events_freezable/ { n++ } END { print n + 0 }'"
                        ) == '0'

    def wait_driver_idle(self):
        """Wait until the driver has done what it was asked for last."""
        wait_until(self.driver_is_idle, 'the guest\'s driver is busy')

    def wait_idle(self):
        """Wait until the guest's processors have nothing but timers to do.

        Unlike wait_driver_idle() this does not ask the guest, which may have no
        memory to run what would answer.
        """
        ticks_per_second = os.sysconf('SC_CLK_TCK')

        def idle():
            before = self.host_ticks()
            time.sleep(2)
            return self.host_ticks() - before < ticks_per_second // 4

        wait_until(idle, 'the guest is busy')

    def host_ticks(self):
        """Return how much time QEMU had of the host's processors."""
        return process_ticks(self.vm.get_pid())

    def host_rss(self):
        """Return how much host memory QEMU uses, huge pages included."""
        total = 0
        with open(f'/proc/{self.vm.get_pid()}/smaps_rollup',
                  encoding='ascii') as smaps:
            for line in smaps:
                if re.match(r'(Rss|Shared_Hugetlb|Private_Hugetlb):', line):
                    total += int(line.split()[1]) << 10
        return total

    def host_address(self, device_id=DEVICE):
        """Return where a device's region is in QEMU's address space."""
        gpa = self.device_info(device_id)['memaddr']
        output = self.vm.cmd('human-monitor-command',
                             command_line=f'gpa2hva {gpa:#x}')
        return int(output.split()[-1], 16)

    def host_memory(self, device_id=DEVICE):
        """Return how much host memory a device's region has."""
        first = self.host_address(device_id)
        end = first + self.device_info(device_id)['max-size']
        return mappings.memory(self.vm.get_pid(), first, end)

    def request(self, size, device_id=DEVICE):
        """Ask the guest to change the plugged size; do not wait."""
        self.hmp(f'qom-set {device_id} requested-size {format_size(size)}')

    def wait_plugged(self, size, device_id=DEVICE, timeout=PATIENCE):
        """Wait until the device says that the guest has complied."""
        self.wait_plugged_between(size, size, device_id, timeout)

    def wait_plugged_between(self, least, most, device_id=DEVICE,
                             timeout=PATIENCE):
        """Wait until the plugged size is within limits."""
        wait_until(
            lambda: least <= self.device_info(device_id)['size'] <= most,
            lambda: f'plugged size is not from {least:#x} to {most:#x}: '
                    f'{self.device_info(device_id)}', timeout)

    def resize(self, size, device_id=DEVICE):
        """Request a size and wait until both sides have it.

        The driver may be at work still for a request() that was not waited for.
        """
        self.wait_driver_idle()
        gained = size - self.device_info(device_id)['size']
        expected = self.mem_total() + gained
        self.request(size, device_id)
        self.wait_plugged(size, device_id)
        self.wait_driver_idle()
        self.wait_mem_total(expected)

    def wait_mem_total_above(self, size):
        """Wait until the guest's kernel manages more than so much memory."""
        wait_until(lambda: self.mem_total() > size,
                   lambda: f'the guest\'s MemTotal is {self.mem_total():#x}, '
                           f'not above {size:#x}')

    def wait_mem_total(self, expected):
        """Wait until the guest's kernel manages so much memory.

        It has new memory only some time after it plugged it, when the
        memory is online.  A kernel may keep some pages more or less for itself
        than it did when it booted last.
        """
        wait_until(lambda: abs(self.mem_total() - expected) <= KEPT_PAGES,
                   lambda: f'the guest\'s MemTotal is {self.mem_total():#x}, '
                           f'not {expected:#x}')
