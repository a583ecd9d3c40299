#!/usr/bin/python3
"""Guests that use memory of a virtio-mem device without plugging it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import socket
import tempfile
import time
import unittest

import virtio_mem_parts as parts
import virtio_mem_stub
import virtio_mem_tap
from virtio_mem_guest import GiB, MiB, PATIENCE
from virtio_mem_guest_test import GuestTest
from virtio_mem_stub import Stub, anonymous_memory

EVENT = 'VIRTIO_MEM_UNPLUGGED_ACCESS'
# As much as fits into a packet of gdb's.
PIECE = 1024
# What gdb hears of an access that failed.
REFUSED = 'E14'

SANDBOX = ('-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,'
                       'resourcecontrol=deny')


def accesses(vm):
    """Return the accesses that QEMU has told of until now."""
    vm.cmd('query-status')
    return [event['data'] for event in vm.get_qmp_events()
            if event['event'] == EVENT]


class Gdb:
    """The packets of gdb's that read and write memory."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)

    def close(self):
        """Hang up."""
        self._socket.close()

    def _ask(self, packet):
        data = packet.encode()
        self._socket.sendall(b'$%s#%02x' % (data, sum(data) & 0xff))
        answer = b''
        while answer[-3:-2] != b'#':
            received = self._socket.recv(1 << 16)
            if not received:
                raise ConnectionError('QEMU closed the connection')
            answer += received
        self._socket.sendall(b'+')
        return answer[answer.index(b'$') + 1:-3].decode()

    def choose(self, is_physical):
        """Let addresses be physical from now on, or virtual."""
        answer = self._ask(f'Qqemu.PhyMemMode:{is_physical}')
        if answer != 'OK':
            raise ValueError(f'gdb: "{answer}"')

    def read(self, address, size):
        """Return what is there."""
        return bytes.fromhex(self._ask(f'm{address:x},{size:x}'))

    def write(self, address, data):
        """Put something there, return the answer."""
        return self._ask(f'M{address:x},{len(data):x}:{data.hex()}')


class VirtioMemGuardStub(unittest.TestCase):
    """Without an operating system, so also where KVM cannot boot one."""

    def setUp(self):
        troubles = [*parts.troubles(), parts.guard_trouble(),
                    *virtio_mem_stub.troubles()]
        if any(troubles):
            self.skipTest('; '.join(filter(None, troubles)))

    def check_absorbed(self, accel):
        with Stub(accel, ',protect-unplugged=on') as stub:
            before = anonymous_memory(stub.vm)
            stub.vm.cmd('cont')
            # All is written; the first word is lost, the last not yet.
            self.assertEqual(stub.wait_serial(3), 'W01')
            # Page tables and the ROM of the stub included.
            self.assertLess(anonymous_memory(stub.vm), before + 8 * MiB)
            seen = accesses(stub.vm)
            self.assertEqual(seen[0]['address'], 4 * GiB)
            self.assertTrue(seen[0]['write'])
            self.assertEqual(stub.vm.cmd('query-status')['status'], 'running')

    def check_stopped(self, accel):
        with Stub(accel, ',unplugged-access=stop') as stub:
            stub.vm.cmd('cont')
            self.assertTrue(stub.vm.event_wait('STOP', timeout=PATIENCE))
            self.assertEqual(stub.vm.cmd('query-status')['status'],
                             'guest-panicked')
            self.assertEqual(accesses(stub.vm)[0]['address'], 4 * GiB)

    def check_gdb(self, gdb, vm):
        # Boot memory is gdb's to change.
        gdb.read(4 * GiB, PIECE)
        self.assertEqual(gdb.write(1 * MiB, b'\x55' * PIECE), 'OK')
        self.assertEqual(gdb.read(1 * MiB, PIECE), b'\x55' * PIECE)
        before = anonymous_memory(vm)
        for address in range(4 * GiB, 5 * GiB, 2 * MiB):
            self.assertEqual(gdb.write(address, b'\x55' * PIECE), REFUSED)
            self.assertEqual(gdb.read(address, PIECE), bytes(PIECE))
        self.assertLess(anonymous_memory(vm), before + 1 * MiB)

    def test_gdb_is_not_held_against_the_guest(self):
        with tempfile.TemporaryDirectory() as directory, \
             Stub('tcg', ',protect-unplugged=on',
                  ('-gdb', f'unix:{directory}/gdb,server=on,wait=off')
                  ) as stub:
            with contextlib.closing(Gdb(f'{directory}/gdb')) as gdb:
                # Without paging, virtual addresses are physical ones.
                for is_physical in 0, 1:
                    gdb.choose(is_physical)
                    self.check_gdb(gdb, stub.vm)
            self.assertEqual(accesses(stub.vm), [])

    def require_kvm(self):
        trouble = parts.kvm_trouble()
        if trouble:
            self.skipTest(trouble)

    def test_access_is_absorbed(self):
        self.check_absorbed('tcg')

    def test_access_through_kvm_is_absorbed(self):
        self.require_kvm()
        self.check_absorbed('kvm')

    def test_access_stops_the_machine(self):
        self.check_stopped('tcg')

    def test_access_through_kvm_stops_the_machine(self):
        self.require_kvm()
        self.check_stopped('kvm')


class VirtioMemGuardLinux(GuestTest):
    """Linux keeps root from the memory only while the driver is there."""

    def setUp(self):
        super().setUp()
        trouble = parts.guard_trouble()
        if trouble:
            self.skipTest(trouble)

    def write_unplugged(self, guest, offsets):
        base = guest.device_info()['memaddr']
        for offset in offsets:
            guest.ask(f'devmem {base + offset:#x} 32 0xdeadbeef')

    def check_root_writes(self, **options):
        with self.guest(**options) as guest:
            guest.ask('rmmod virtio_mem')
            accesses(guest.vm)
            before = anonymous_memory(guest.vm)
            base = guest.device_info()['memaddr']
            start = time.monotonic()
            self.write_unplugged(guest, [i * 64 * MiB + 0x678
                                         for i in range(120)])
            seen = accesses(guest.vm)
            while not seen or seen[-1]['count'] < 120:
                event = guest.vm.event_wait(EVENT, timeout=PATIENCE)
                seen.append(event['data'])
            seconds = time.monotonic() - start

            self.assertEqual(seen[0]['address'], base + 0x678)
            self.assertEqual(seen[-1]['count'], 120)
            self.assertLessEqual(len(seen), seconds + 1)
            self.assertLess(anonymous_memory(guest.vm), before + 64 * MiB)
            # The guest lives, and its memory is its own.
            guest.ask('modprobe virtio_mem')
            guest.resize(1 * GiB)
            guest.resize(0)

    def test_root_writes_unplugged_memory(self):
        self.check_root_writes()

    def test_root_writes_when_qemu_is_in_a_sandbox(self):
        self.check_root_writes(device_options=',protect-unplugged=on',
                               more_args=SANDBOX)

    def test_root_stops_the_machine(self):
        with self.guest(device_options=',unplugged-access=stop') as guest:
            guest.ask('rmmod virtio_mem')
            base = guest.device_info()['memaddr']
            guest.ask(f'(sleep 1; devmem {base + 5 * MiB:#x} 8 1) &')
            self.assertTrue(guest.vm.event_wait('STOP', timeout=PATIENCE))
            self.assertEqual(guest.vm.cmd('query-status')['status'],
                             'guest-panicked')
            guest.vm.cmd('cont')
            guest.ask('modprobe virtio_mem')
            guest.resize(256 * MiB)


if __name__ == '__main__':
    virtio_mem_tap.main()
