#!/usr/bin/python3
"""What QEMU says when it starts with a virtio-mem device, or gets one.

No guest runs: what a guest could not use is known before it boots.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import re
import socket
import struct
import tempfile
import threading
import unittest

import virtio_mem_parts as parts
import virtio_mem_tap

# Requests of the vhost-user protocol, and what a device of one queue that can
# do nothing answers.
ANSWERS = {1: struct.pack('<Q', 1 << 32 | 1 << 30),     # GET_FEATURES
           15: bytes(8),                                # GET_PROTOCOL_FEATURES
           17: struct.pack('<Q', 1)}                    # GET_QUEUE_NUM
HEADER = struct.Struct('<III')


class StartTest(unittest.TestCase):
    """A test that looks at what QEMU says, without a guest."""

    def setUp(self):
        if not parts.part('QEMU_BINARY').exists():
            self.skipTest('no QEMU: make')
        directory = tempfile.TemporaryDirectory(dir='/dev/shm')
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name):
        """Return a path that goes away with the test."""
        return f'{self.directory}/{name}'

    @contextlib.contextmanager
    def machine(self, *args):
        """Start QEMU, stopped; it is gone in the end, its log is there.

        Whether this host can protect unplugged memory is no matter.
        """
        vm = parts.qemu_machine().QEMUMachine(
            str(parts.part('QEMU_BINARY')), base_temp_dir=self.directory)
        vm.add_args('-S', '-nodefaults', '-global',
                    'virtio-mem-pci.protect-unplugged=off', *args)
        with vm:
            vm.launch()
            yield vm
        self.assertEqual(vm.exitcode(), 0, vm.get_log())

    def warnings(self, *args, do=lambda vm: None):
        """Return the warnings of a QEMU that is started with @args."""
        with self.machine(*args) as vm:
            do(vm)
        return [line for line in vm.get_log().splitlines()
                if 'warning: ' in line]


class VirtioMemUnusable(StartTest):
    """What Linux could never plug, and what to set instead."""

    def said(self, size, device='', boot='256M', machine='q35', more=()):
        """Return what a device with a region of @size makes QEMU say."""
        return self.warnings(
            '-machine', f'{machine},memory-backend=boot',
            '-m', f'size={boot},maxmem=160G', '-object',
            f'memory-backend-ram,id=boot,size={boot},reserve=off', '-object',
            f'memory-backend-ram,id=mem0,size={size},reserve=off', *more,
            '-device', f'virtio-mem-pci,id=vm0,memdev=mem0{device}')

    def check(self, wanted, *args, **options):
        """Check that one warning, in one line, has all of @wanted."""
        said = self.said(*args, **options)
        self.assertEqual(len(said), 1, said)
        for text in wanted:
            self.assertIn(text, said[0])

    def test_sizes_of_whole_units_say_nothing(self):
        for size in '128M', '1G', '4G':
            with self.subTest(size):
                self.assertEqual(self.said(size), [])

    def test_size_that_ends_in_a_unit(self):
        for size, usable, fits in (
                ('1026M', 0x40000000, 0x48000000),
                ('1100M', 0x40000000, 0x48000000),
                ('64M', 0, 0x8000000)):
            with self.subTest(size):
                self.check(["'mem0'", f'can use {usable:#x} of',
                            f"'size' {fits:#x}"], size)

    def test_address_inside_a_unit(self):
        self.check(["can use 0x38000000 of 0x40000000",
                    "'memaddr' 0x188000000 instead of 0x184000000"], '1G',
                   ',memaddr=0x184000000')

    def test_address_and_size(self):
        self.check(["'memaddr' 0x188000000 instead of 0x184000000 and a"
                    " 'memdev' with 'size' 0x48000000"], '1026M',
                   ',memaddr=0x184000000')

    def test_blocks_larger_than_a_unit_say_nothing(self):
        self.assertEqual(self.said('1G', ',block-size=512M'), [])

    def test_boot_memory_of_64_gib_has_units_of_2_gib(self):
        self.assertEqual(self.said('16G', boot='64G'), [])
        self.check(['can use 0x0 of 0x40000000',
                    'aligned units of 0x80000000', "'size' 0x80000000"],
                   '1G', boot='64G')

    def test_the_unit_depends_on_where_boot_memory_ends(self):
        # On this machine, 3 GiB of it are below 4 GiB.
        self.check(['units of 0x40000000', "'size' 0x80000000"], '1536M',
                   boot='64G', machine='pc')
        # It ends at 63.5 GiB, and at 64.5 GiB.
        self.assertEqual(self.said('1G', boot='62976M', machine='q35'), [])
        self.check(['units of 0x20000000'], '1152M', boot='64000M',
                   machine='q35')

    def test_second_device_behind_an_odd_one(self):
        more = ('-object', 'memory-backend-ram,id=mem1,size=3G,reserve=off',
                '-device', 'virtio-mem-pci,memdev=mem1')
        said = self.said('4G', boot='64G', more=more)
        self.assertEqual(len(said), 2, said)
        self.assertIn("'mem1': Linux can use 0x80000000 of 0xc0000000", said[0])
        self.assertIn("'memaddr' 0x1180000000 instead of 0x1140000000", said[1])

    def test_node(self):
        said = self.warnings(
            '-machine', 'q35', '-m', '256M,maxmem=8G',
            '-object', 'memory-backend-ram,id=boot,size=256M',
            '-numa', 'node,memdev=boot', '-numa', 'node,nodeid=1',
            '-object', 'memory-backend-ram,id=mem0,size=1026M,reserve=off',
            '-device', 'virtio-mem-pci,id=vm0,memdev=mem0,node=1')
        self.assertEqual(len(said), 1, said)

    def usable_size(self, boot, requested):
        """Return the usable size of a device of 16 GiB."""
        with self.machine(
                '-machine', 'q35,memory-backend=boot',
                '-m', f'size={boot},maxmem=160G', '-object',
                f'memory-backend-ram,id=boot,size={boot},reserve=off',
                '-object', 'memory-backend-ram,id=mem0,size=16G,reserve=off',
                '-device', 'virtio-mem-pci,id=vm0,memdev=mem0,'
                           f'requested-size={requested}') as vm:
            return vm.cmd('query-memory-devices')[0]['data']['usable-size']

    def test_usable_size_has_room_for_two_of_the_largest_unit(self):
        self.assertEqual(self.usable_size('256M', '1G'), 1280 << 20)
        self.assertEqual(self.usable_size('64G', '1G'), 5 << 30)
        self.assertEqual(self.usable_size('64G', '15G'), 16 << 30)
        self.assertEqual(self.usable_size('64G', '0'), 0)


class Daemon(threading.Thread):
    """A vhost-user device, in another process as far as QEMU can see."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()

    def _serve(self, link):
        while len(head := link.recv(HEADER.size, socket.MSG_WAITALL)) == \
                HEADER.size:
            request, _, size = HEADER.unpack(head)
            if size:
                link.recv(size, socket.MSG_WAITALL)
            if request in ANSWERS:
                answer = ANSWERS[request]
                link.sendall(HEADER.pack(request, 5, len(answer)) + answer)

    def run(self):
        while True:
            link, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(link,),
                             daemon=True).start()


class VirtioMemPrivate(StartTest):
    """Memory that a vhost-user device cannot use."""

    BASE = ('-machine', 'pc,memory-backend=boot', '-m', '256M,maxmem=8G',
            '-object', 'memory-backend-memfd,id=boot,size=256M,share=on')
    SHARED = 'memory-backend-memfd,id=mem0,size=1G,share=on'
    PRIVATE = ('memory-backend-ram,id=mem0,size=1G',
               'memory-backend-memfd,id=mem0,size=1G,share=off')
    MEMORY = ('-device', 'virtio-mem-pci,id=vm0,memdev=mem0')

    def vhost_user(self, name):
        """Start a daemon; return the arguments for a device of its own."""
        path = self.path(name)
        Daemon(path).start()
        return ('-chardev', f'socket,id={name},path={path}',
                '-device', f'vhost-user-rng-pci,chardev={name}')

    def check(self, said):
        """Check that one warning names the memory and the remedy."""
        self.assertEqual(len(said), 1, said)
        self.assertTrue(re.search("'/objects/mem0' is private.*'share'.*'on'",
                                  said[0]), said)

    def test_private_memory_is_told_in_either_order(self):
        for n, backend in enumerate(self.PRIVATE):
            memory = '-object', backend, *self.MEMORY
            with self.subTest(backend):
                self.check(self.warnings(
                    *self.BASE, *memory, *self.vhost_user(f'behind{n}')))
                self.check(self.warnings(
                    *self.BASE, *self.vhost_user(f'before{n}'), *memory))

    def test_it_is_told_once(self):
        self.check(self.warnings(
            *self.BASE, '-object', self.PRIVATE[0], *self.MEMORY,
            *self.vhost_user('one'), *self.vhost_user('two')))

    def test_shared_memory_is_fine(self):
        self.assertEqual(self.warnings(
            *self.BASE, '-object', self.SHARED, *self.MEMORY,
            *self.vhost_user('one')), [])

    def test_it_is_told_when_memory_is_hot_plugged(self):
        def plug(vm):
            vm.cmd('object-add', qom_type='memory-backend-ram', id='mem0',
                   size=1 << 30)
            vm.cmd('device_add', driver='virtio-mem-pci', memdev='mem0')
        self.check(self.warnings(*self.BASE, *self.vhost_user('one'), do=plug))

    def test_it_is_told_when_the_device_is_hot_plugged(self):
        Daemon(self.path('late')).start()

        def plug(vm):
            vm.cmd('chardev-add', id='late', backend={
                'type': 'socket', 'data': {'server': False, 'addr': {
                    'type': 'unix', 'data': {'path': self.path('late')}}}})
            vm.cmd('device_add', driver='vhost-user-rng-pci', chardev='late')
        self.check(self.warnings(*self.BASE, '-object', self.PRIVATE[0],
                                 *self.MEMORY, do=plug))


class VirtioMemUnprotected(StartTest):
    """Unplugged memory that this host cannot keep out of reach."""

    def said(self, protect):
        """Return what a device says whose memory is a copy of a file."""
        return self.warnings(
            '-machine', 'q35', '-m', '256M,maxmem=8G', '-object',
            'memory-backend-file,id=mem0,size=1G,share=off,reserve=off,'
            f'mem-path={self.path("memory")}',
            '-device',
            f'virtio-mem-pci,memdev=mem0,protect-unplugged={protect}')

    def test_auto_tells_why_it_does_not_protect(self):
        said = self.said('auto')
        self.assertEqual(len(said), 1, said)
        self.assertRegex(said[0], "virtio-mem 'mem0': unplugged memory is not"
                                  " protected: .*private mapping.*'share' to"
                                  " 'on'")

    def test_off_says_nothing(self):
        self.assertEqual(self.said('off'), [])


class VirtioMemTooLarge(StartTest):
    """What does not fit is told with what would."""

    def refused(self, *args):
        """Return what a QEMU says that does not start."""
        vm = parts.qemu_machine().QEMUMachine(
            str(parts.part('QEMU_BINARY')), base_temp_dir=self.directory)
        vm.add_args('-S', '-nodefaults', '-machine', 'q35', *args)
        with self.assertRaises(Exception), vm:
            vm.launch()
        return vm.get_log()

    def test_no_room_below_maxmem(self):
        said = self.refused(
            '-m', '256M,maxmem=1280M',
            '-object', 'memory-backend-ram,id=mem0,size=2G,reserve=off',
            '-device', 'virtio-mem-pci,memdev=mem0')
        self.assertIn('not enough space, currently 0x0 in use of total space '
                      'for memory devices 0x40000000, 0x80000000 needed for '
                      "'mem0', 0x40000000 left", said)

    def test_odd_size(self):
        said = self.refused(
            '-m', '256M,maxmem=8G',
            '-object', 'memory-backend-ram,id=mem0,size=1025M,reserve=off',
            '-device', 'virtio-mem-pci,memdev=mem0')
        self.assertRegex(said, 'backend memory size must be multiple of '
                               "0x200000, 'size' of '.*mem0' is 0x40100000")


if __name__ == '__main__':
    virtio_mem_tap.main()
