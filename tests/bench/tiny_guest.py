"""A guest without CPUs: a virtio-mem driver that speaks qtest.

SPDX-License-Identifier: GPL-2.0-or-later

It sends one request at a time and waits for the answer, as Linux does, but
costs nothing in between, so that what is measured is QEMU.  Whatever is not
as it must be is an error.
"""

import itertools
import struct
import tempfile
import time

import virtio_mem_parts as parts
from monitor import Monitor, pool_memory, resident

MiB = 1 << 20
GiB = 1 << 30

BOOT_SIZE = 128 * MiB
DEVFN = 4 << 3
# What firmware would do: PCI's interrupt lines are wired to an ISA interrupt.
PIIX_DEVFN, PIIX_PIRQ = 1 << 3, 0x60
BAR = 0xe0000000
BAR4 = 0x20
COMMON, NOTIFY, ISR, DEVICE = 1, 2, 3, 4

# Where the rings and buffers lie in boot memory.
DESC, AVAIL, USED, REQUEST, RESPONSE, SCRATCH = (0x100000 + 0x1000 * n
                                                 for n in range(6))
QUEUE_SIZE = 128
# Requests that may be under way at once: each has two descriptors.
NB_SLOTS = QUEUE_SIZE // 2
REQUEST_SIZE, RESPONSE_SIZE = 24, 10
PLUG, UNPLUG, UNPLUG_ALL, STATE = range(4)
ACK = 0
WANTED_FEATURES = 1 << 32 | 1 << 1 | 1 << 0


class TinyGuestError(Exception):
    """The device did not do what it was told."""


class TinyGuest:
    """A machine with one virtio-mem device; use it as a context manager."""

    def __init__(self, size, backend='memory-backend-ram', device='',
                 args=(), wrapper=(), with_poll=False, accel='qtest',
                 by_interrupt=False):
        self._common = self._notify = self._config = self._isr = None
        self._by_interrupt, self._is_raised = by_interrupt, False
        self._multiplier = self._nb_sent = 0
        self.address = self.block_size = 0
        self.polls = 0
        self.vm = self._machine(wrapper, accel)
        self.vm.add_args(*self._machine_args(size, backend, device), *args)
        self._sockets = ('monitor', 'poll') if with_poll else ('monitor',)
        self.monitor = None

    def __enter__(self):
        try:
            for name in self._sockets:
                self.vm.add_args(
                    '-qmp', f'unix:{self.path(name)},server=on,wait=off')
            self.vm.launch()
            self.monitor = Monitor(self.path('monitor'))
        except BaseException:
            self.vm.shutdown(hard=True)
            raise
        return self

    def __exit__(self, *_):
        self.monitor.close()
        self.vm.shutdown(hard=True)

    def path(self, name):
        """Return a path in the directory that goes away with the guest."""
        return f'{self.vm.temp_dir}/{name}'

    @staticmethod
    def _machine(wrapper, accel):
        parts.qemu_machine()
        from qemu.machine.qtest import QEMUQtestMachine

        class Machine(QEMUQtestMachine):
            """One that may have vCPUs."""

            @property
            def _base_args(self):
                return [accel if arg == 'qtest' else arg
                        for arg in super()._base_args]

            def qtest_line(self, timeout):
                """Wait for what qtest says next, in seconds at most."""
                self._qtest._sock.settimeout(timeout)
                return self._qtest._sockfile.readline()

        return Machine(
            str(parts.part('QEMU_BINARY')), qmp_timer=600,
            wrapper=('setpriv', '--pdeathsig', 'KILL', *wrapper),
            base_temp_dir=tempfile.gettempdir())

    @staticmethod
    def _machine_args(size, backend, device):
        """A backend alone if device is None."""
        args = ['-nodefaults', '-machine', 'pc', '-smp', '2', '-m',
                f'{BOOT_SIZE >> 20}M,maxmem={(BOOT_SIZE + size) >> 20}M',
                # A log of all that is said would cost more than the rest.
                '-qtest-log', 'none',
                '-object', f'{backend},id=mem0,size={size}']
        if device is not None:
            args += ['-device', 'virtio-mem-pci,id=vm0,memdev=mem0,addr=04.0,'
                                f'requested-size={size}{device}']
        return args

    def rss(self):
        """Return how much host memory QEMU has, huge pages of a pool, too."""
        pid = self.vm.get_pid()
        return resident(pid) + pool_memory(pid)

    # qtest

    def _qtest(self, command):
        """Return the words of the answer behind OK."""
        answer = self.vm.qtest(command).split()
        while self._is_interrupt(answer):
            answer = self.vm.qtest_line(None).split()
        if not answer or answer[0] != 'OK':
            raise TinyGuestError(f'qtest "{command}" says {answer}')
        return answer[1:]

    def _is_interrupt(self, words):
        """Tell what is said of an interrupt from answers, and remember it."""
        self._is_raised = self._is_raised or words[:2] == ['IRQ', 'raise']
        return words[:1] == ['IRQ']

    def _wait_for_interrupt(self, timeout):
        while not self._is_raised:
            words = self.vm.qtest_line(timeout).split()
            if not self._is_interrupt(words):
                raise TinyGuestError(f'qtest says {words}, unasked')
        self._end_interrupt()

    def _end_interrupt(self):
        if self._is_raised:
            self.read('b', self._isr)
            self._is_raised = False

    def read(self, width, address):
        """Read a number of 'b', 'w' or 'l' width."""
        return int(self._qtest(f'read{width} {address:#x}')[0], 0)

    def write(self, width, address, value):
        """Write a number of 'b', 'w', 'l' or 'q' width."""
        self._qtest(f'write{width} {address:#x} {value:#x}')

    def write_bytes(self, address, data):
        """Write anything."""
        self._qtest(f'write {address:#x} {len(data)} 0x{data.hex()}')

    def read_bytes(self, address, size):
        """Read anything."""
        return bytes.fromhex(
            self._qtest(f'read {address:#x} {size}')[0].removeprefix('0x'))

    def fill(self, address, size, byte):
        """Write the same byte all over."""
        self._qtest(f'memset {address:#x} {size:#x} {byte:#x}')

    # PCI

    def _pci_select(self, register, devfn):
        address = 1 << 31 | devfn << 8 | (register & ~3)
        self._qtest(f'outl 0xcf8 {address:#x}')

    def _pci_read(self, register):
        self._pci_select(register, DEVFN)
        return int(self._qtest('inl 0xcfc')[0], 0) >> (8 * (register & 3))

    def _pci_write(self, register, value, devfn=DEVFN):
        self._pci_select(register, devfn)
        self._qtest(f'outl 0xcfc {value:#x}')

    def _capabilities(self):
        """Map the kinds of virtio's structures to where they are."""
        found = {}
        at = self._pci_read(0x34) & 0xff
        while at:
            if self._pci_read(at) & 0xff == 9:
                kind = self._pci_read(at + 3) & 0xff
                found.setdefault(kind, (at, self._pci_read(at + 8)))
            at = self._pci_read(at + 1) & 0xff
        return found

    def _pci_up(self):
        found = self._capabilities()
        if not {COMMON, NOTIFY, ISR, DEVICE} <= set(found):
            raise TinyGuestError(f'no modern virtio device, but {found}')
        self._pci_write(BAR4, BAR)
        self._pci_write(BAR4 + 4, 0)
        self._pci_write(4, 6)
        self._common = BAR + found[COMMON][1]
        self._config = BAR + found[DEVICE][1]
        self._isr = BAR + found[ISR][1]
        self._notify = BAR + found[NOTIFY][1]
        self._multiplier = self._pci_read(found[NOTIFY][0] + 16)

    # The driver

    def _features(self):
        offered = 0
        for half in (0, 1):
            self.write('l', self._common, half)
            offered |= self.read('l', self._common + 4) << (32 * half)
        for half in (0, 1):
            self.write('l', self._common + 8, half)
            self.write('l', self._common + 12, (offered & WANTED_FEATURES)
                       >> (32 * half) & 0xffffffff)

    def _queue_up(self):
        self.fill(DESC, 0x6000, 0)
        self.write_bytes(DESC, b''.join(
            struct.pack('<QIHHQIHH', REQUEST + slot * REQUEST_SIZE,
                        REQUEST_SIZE, 1, 2 * slot + 1,
                        RESPONSE + slot * RESPONSE_SIZE, RESPONSE_SIZE, 2, 0)
            for slot in range(NB_SLOTS)))
        self.write_bytes(AVAIL, struct.pack(
            f'<HH{QUEUE_SIZE}H', not self._by_interrupt, 0,
            *(2 * (number % NB_SLOTS) for number in range(QUEUE_SIZE))))
        self.write('w', self._common + 0x16, 0)
        for offset, address in ((0x20, DESC), (0x28, AVAIL), (0x30, USED)):
            self.write('l', self._common + offset, address)
            self.write('l', self._common + offset + 4, 0)
        self.write('w', self._common + 0x18, QUEUE_SIZE)
        self._notify += self._multiplier * self.read('w', self._common + 0x1e)
        self.write('w', self._common + 0x1c, 1)
        self._nb_sent = 0

    def start(self):
        """Bring the driver up, after launch and after each system reset."""
        if self._by_interrupt:
            self._qtest('irq_intercept_in ioapic')
            self._pci_write(PIIX_PIRQ, 0x0b0b0b0b, PIIX_DEVFN)
        self._pci_up()
        status = self._common + 0x14
        self.write('b', status, 0)
        self.write('b', status, 3)
        self._features()
        self.write('b', status, 11)
        self._queue_up()
        self.write('b', status, 15)
        if self.read('b', status) != 15:
            raise TinyGuestError('the device does not accept its driver')
        self.block_size = self.read('l', self._config)
        self.address = (self.read('l', self._config + 16) |
                        self.read('l', self._config + 20) << 32)
        return self

    # Requests

    def _put(self, requests):
        """Write requests into the slots whose turn it is."""
        slot = self._nb_sent % NB_SLOTS
        assert slot + len(requests) <= NB_SLOTS
        self.write_bytes(REQUEST + slot * REQUEST_SIZE, b''.join(
            struct.pack('<HHHHQHHHH', kind, 0, 0, 0,
                        self.address + first * self.block_size, nb_blocks,
                        0, 0, 0)
            for kind, first, nb_blocks in requests))
        self.write_bytes(RESPONSE + slot * RESPONSE_SIZE,
                         b'\xff' * RESPONSE_SIZE * len(requests))

    def _send(self, requests):
        """Put requests into the queue, without telling the device."""
        self._put(requests)
        self._nb_sent += len(requests)
        self.write('w', AVAIL + 2, self._nb_sent & 0xffff)

    def send(self, kind, first=0, nb_blocks=0):
        """Put a request into the queue, without telling the device."""
        self._send([(kind, first, nb_blocks)])

    def kick(self):
        """Ring the doorbell."""
        self.write('w', self._notify, 0)

    def is_answered(self):
        """Ask once whether the device is done."""
        self.polls += 1
        return self.read('w', USED + 2) == self._nb_sent & 0xffff

    def _check_answers(self, requests):
        """Every request in a benchmark must succeed."""
        slot = (self._nb_sent - len(requests)) % NB_SLOTS
        answers = self.read_bytes(RESPONSE + slot * RESPONSE_SIZE,
                                  RESPONSE_SIZE * len(requests))
        for number, request in enumerate(requests):
            (answer,) = struct.unpack_from('<H', answers,
                                           number * RESPONSE_SIZE)
            if answer != ACK:
                raise TinyGuestError(f'request {request} was answered '
                                     f'{answer}')

    def pretend(self, kind, first, nb_blocks):
        """Cost qtest what request() does, polls apart, and tell nobody."""
        self._put([(kind, first, nb_blocks)])
        self.write('w', AVAIL + 2, self._nb_sent & 0xffff)
        self.write('w', SCRATCH, 0)
        self.read_bytes(SCRATCH, RESPONSE_SIZE)

    def request(self, kind, first=0, nb_blocks=0, timeout=300, polls=False):
        """Send a request; return the seconds from doorbell to answer.

        A real guest waits for an interrupt; so may this one.  Or else it asks:
        a long wait must not cost the host a CPU, and is a hundredth too long
        at most; a short one is exact.  If it @polls, it asks all the time.
        """
        self.send(kind, first, nb_blocks)
        taken = self._ring(timeout, polls)
        self._check_answers([(kind, first, nb_blocks)])
        return taken

    def _ring(self, timeout=300, polls=False):
        """Ring the doorbell, wait until the device has nothing to do."""
        start = time.monotonic()
        self.kick()
        while not self.is_answered():
            waited = time.monotonic() - start
            if waited > timeout:
                raise TinyGuestError(f'no answer in {timeout} s')
            if polls:
                continue
            if self._by_interrupt:
                self._wait_for_interrupt(timeout - waited)
            elif waited > 0.001:
                time.sleep(max(0.0002, waited / 100))
        taken = time.monotonic() - start
        self._end_interrupt()
        return taken

    def request_all(self, requests):
        """Send many requests, as many at a time as the queue has room for."""
        requests = iter(requests)
        while some := list(itertools.islice(
                requests, NB_SLOTS - self._nb_sent % NB_SLOTS)):
            self._send(some)
            self._ring()
            self._check_answers(some)

    def plug_up_to(self, size, start=0, at_once=128 * MiB, polls=False):
        """Plug the first blocks, by default as many at once as Linux does.

        Return the seconds that the device took.
        """
        taken = []
        step = max(at_once // self.block_size, 1)
        end = size // self.block_size
        for first in range(start, end, step):
            taken.append(self.request(PLUG, first, min(step, end - first),
                                      polls=polls))
        self.expect_plugged(size)
        return sum(taken)

    def expect_plugged(self, size):
        """What the monitor says must be what the driver did."""
        found = self.monitor.device()['size']
        if found != size:
            raise TinyGuestError(f'{found:#x} is plugged, not {size:#x}')
