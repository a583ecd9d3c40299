#!/usr/bin/python3
"""virtio-mem beside other devices: memory's, and those that reach into it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
import zlib

import virtio_mem_moves as moves
import virtio_mem_pattern as pattern
import virtio_mem_tap
import virtio_mem_tools
from virtio_mem_guest import GiB, Guest, MiB, PATIENCE, wait_until
from virtio_mem_guest_test import GuestTest

# Both are files that the guest uses as memory.
NVDIMM_SIZE = 256 * MiB
PMEM_SIZE = 128 * MiB
DIMM_SIZE = 512 * MiB
# What fills a DIMM.
NB_FILES = DIMM_SIZE // pattern.FILE_SIZE
DISK_SIZE = 96 * MiB

# Memory plugged after this can hold anything.
ONLINE_KERNEL = ('echo online_kernel > '
                 '/sys/devices/system/memory/auto_online_blocks')


class NeighboursTest(GuestTest):
    """A test with files and, beside QEMU, other programs."""

    def setUp(self):
        super().setUp()
        # In memory: disks of test machines are slow.
        directory = tempfile.TemporaryDirectory(dir='/dev/shm')
        self.addCleanup(directory.cleanup)
        self._directory = directory.name

    def path(self, name):
        """Return a path that goes away with the test."""
        return f'{self._directory}/{name}'

    def make_file(self, name, size):
        """Make a file of zeros."""
        with open(self.path(name), 'wb') as file:
            file.truncate(size)
        return self.path(name)

    def make_random_file(self, name, size):
        """Make a file that is like no other; return its checksum, too."""
        data = random.Random(name).randbytes(size)
        with open(self.path(name), 'wb') as file:
            file.write(data)
        return self.path(name), zlib.crc32(data)


class MemoryDevices(NeighboursTest):
    """All that QEMU can add to a PC's memory, in one guest."""

    BALLOON = 'virtio-balloon-pci,id=balloon'

    @contextlib.contextmanager
    def crowded_guest(self, balloon=''):
        """Boot a guest with one device of each kind, and a free slot."""
        more_args = (
            '-machine', 'nvdimm=on', '-m', 'slots=4',
            '-object', f'memory-backend-file,id=nvdimm-mem,share=on,'
                       f'mem-path={self.make_file("nvdimm", NVDIMM_SIZE)},'
                       f'size={NVDIMM_SIZE}',
            '-device', 'nvdimm,id=nvdimm,memdev=nvdimm-mem',
            '-object', f'memory-backend-file,id=pmem-mem,share=on,'
                       f'mem-path={self.make_file("pmem", PMEM_SIZE)},'
                       f'size={PMEM_SIZE}',
            '-device', 'virtio-pmem-pci,id=pmem,memdev=pmem-mem',
            '-device', self.BALLOON + balloon)
        with self.guest(more_args=more_args, room=4 * GiB) as guest:
            guest.ask('modprobe -a nfit virtio_pmem nd_pmem virtio_balloon')
            yield guest

    def plug_dimm(self, guest):
        """Plug a DIMM, which Linux puts into service like virtio-mem."""
        total = guest.mem_total()
        guest.vm.cmd('object-add', qom_type='memory-backend-ram',
                     id='dimm-mem', size=DIMM_SIZE)
        guest.vm.cmd('device_add', driver='pc-dimm', id='dimm',
                     memdev='dimm-mem')
        guest.wait_mem_total(total + DIMM_SIZE)

    def unplug_dimm(self, guest):
        """Unplug it; what it contains has to go elsewhere."""
        total = guest.mem_total()
        guest.vm.cmd('device_del', id='dimm')
        self.assertTrue(guest.vm.event_wait(
            'DEVICE_DELETED', timeout=PATIENCE,
            match={'data': {'device': 'dimm'}}))
        guest.vm.cmd('object-del', id='dimm-mem')
        guest.wait_mem_total(total - DIMM_SIZE)

    def kinds(self, guest):
        """List the kinds of memory devices that the monitor tells of."""
        return sorted(device['type']
                      for device in guest.vm.cmd('query-memory-devices'))

    def test_monitor_tells_them_apart(self):
        with self.crowded_guest() as guest:
            self.plug_dimm(guest)
            self.assertEqual(self.kinds(guest), ['dimm', 'nvdimm',
                                                 'virtio-mem', 'virtio-pmem'])

            def plugged():
                return guest.vm.cmd('query-memory-size-summary')[
                    'plugged-memory']

            before = plugged()
            guest.resize(642 * MiB)
            self.assertEqual(plugged(), before + 642 * MiB)
            self.unplug_dimm(guest)
            self.assertEqual(plugged(), before + 642 * MiB - DIMM_SIZE)
            guest.resize(0)

    def test_dimm_leaves_its_content_to_virtio_mem(self):
        with self.crowded_guest() as guest:
            self.plug_dimm(guest)
            pattern.write(guest, NB_FILES)
            guest.resize(1 * GiB)
            self.unplug_dimm(guest)
            self.assertEqual(pattern.damaged_files(guest, NB_FILES), [])
            pattern.erase(guest)
            guest.resize(0)

    def test_virtio_mem_leaves_its_content_to_a_dimm(self):
        with self.crowded_guest() as guest:
            guest.resize(512 * MiB)
            pattern.write(guest, NB_FILES)
            self.plug_dimm(guest)
            guest.resize(0)
            self.assertEqual(pattern.damaged_files(guest, NB_FILES), [])

    @virtio_mem_tap.slow
    def test_persistent_memory_is_written_from_plugged_memory(self):
        size = 32 * MiB
        with self.crowded_guest() as guest:
            guest.resize(1 * GiB)
            guest.ask(f'dd if=/dev/urandom of=/mem/random bs=1M '
                      f'count={size // MiB}')
            guest.request(256 * MiB)
            for device in self.persistent(guest):
                guest.ask(f'dd if=/mem/random of=/dev/{device} bs=1M '
                          'conv=fsync')
            guest.wait_plugged(256 * MiB)
            wanted = int(guest.ask('crc32 /mem/random').split()[0], 16)
            for name in ('nvdimm', 'pmem'):
                with open(self.path(name), 'rb') as file:
                    self.assertEqual(zlib.crc32(file.read(size)), wanted)

    def persistent(self, guest):
        """List the guest's names of its persistent memory."""
        names = guest.ask('cd /sys/block; ls -d pmem*').split()
        sectors = [int(guest.ask(f'cat /sys/block/{name}/size'))
                   for name in names]
        self.assertEqual(sorted(sectors),
                         [PMEM_SIZE // 512, NVDIMM_SIZE // 512])
        return names

    # The balloon

    def test_balloon_gives_back_what_it_took_from_unplugged_blocks(self):
        with self.crowded_guest() as guest:
            guest.resize(1 * GiB)
            total = guest.mem_total()
            guest.hmp('balloon 128')
            guest.wait_mem_total(total - 384 * MiB)
            guest.resize(256 * MiB)
            self.plug_dimm(guest)
            # To QEMU, a DIMM is memory that a balloon may take; this is not.
            guest.hmp('balloon 1024')
            guest.wait_mem_total(total - 768 * MiB + DIMM_SIZE)
            self.unplug_dimm(guest)
            guest.resize(0)

    @virtio_mem_tap.slow
    def test_balloon_reports_pages_that_are_free(self):
        with self.crowded_guest(',free-page-reporting=on') as guest:
            guest.resize(1 * GiB)
            pattern.write(guest, NB_FILES)
            used = guest.host_rss()
            pattern.erase(guest)
            # Still plugged; only the balloon can have told the host.
            wait_until(lambda: guest.host_rss() < used - 256 * MiB,
                       'no free page reporting')
            self.assertEqual(guest.device_info()['size'], 1 * GiB)
            pattern.write(guest, NB_FILES)
            self.assertEqual(pattern.damaged_files(guest, NB_FILES), [])
            pattern.erase(guest)
            guest.resize(0)

    def test_balloon_statistics_follow_the_plugged_size(self):
        with self.crowded_guest() as guest:
            def total():
                return guest.vm.cmd('qom-get', path='balloon',
                                    property='guest-stats')[
                                        'stats']['stat-total-memory']

            guest.vm.cmd('qom-set', path='balloon', value=1,
                         property='guest-stats-polling-interval')
            booted = guest.mem_total()
            for size in (512 * MiB, 256 * MiB):
                guest.resize(size)
                wait_until(lambda: total() == booted + size,
                           f'no report of {booted + size:#x} bytes')


class BlockDevices(NeighboursTest):
    """Disks that read and write plugged memory, also in other processes."""

    # Read all of it at once; before it is used, see what it has filled.
    READ = (f'dd if=/dev/vda bs={DISK_SIZE} iflag=direct 2> /dev/null | {{ '
            "dd of=/tmp/first bs=1 count=1 2> /dev/null; "
            "awk '/zone +Movable/ { m = 1 } m && "
            "/nr_zone_(in)?active_anon/ { n += $2 } "
            "END { print n }' /proc/zoneinfo; "
            "cat /tmp/first - | crc32; }")

    def read_disk(self, guest):
        """Return how much plugged memory the disk filled, and its checksum.

        That is the only movable memory, and first choice for buffers of
        programs.
        """
        pages, checksum = guest.ask(self.READ).split()[:2]
        return int(pages) * 4096, int(checksum, 16)

    def check_disk(self, guest, path, checksum):
        """Let the disk fill plugged memory, and be filled from it.

        Blocks come and go meanwhile, with holes between them in the end.
        """
        guest.ask('modprobe virtio_blk')
        guest.resize(1 * GiB)
        for size in (386 * MiB, 1026 * MiB):
            guest.request(size)
            filled, found = self.read_disk(guest)
            self.assertEqual(found, checksum)
            self.assertGreaterEqual(filled, DISK_SIZE)
            guest.wait_plugged(size)
        self.write_disk(guest, path)
        guest.resize(0)

    def write_disk(self, guest, path):
        """Copy one half of the disk to the other."""
        guest.request(514 * MiB)
        guest.ask(f'dd if=/dev/vda of=/dev/vda bs={DISK_SIZE // 2} count=1 '
                  'seek=1 iflag=direct oflag=direct')
        guest.wait_plugged(514 * MiB)
        with open(path, 'rb') as disk:
            half = disk.read(DISK_SIZE // 2)
            self.assertEqual(disk.read(), half)

    @contextlib.contextmanager
    def exported(self, path):
        """Let QEMU's storage daemon offer a disk; return it and its socket."""
        troubles = virtio_mem_tools.troubles('qemu-storage-daemon')
        if troubles:
            self.skipTest('; '.join(troubles))
        address = self.path('vhost-user')
        daemon = subprocess.Popen([
            'setpriv', '--pdeathsig', 'KILL',
            virtio_mem_tools.tool('qemu-storage-daemon'),
            '--blockdev', f'driver=file,node-name=disk,filename={path}',
            '--export', 'type=vhost-user-blk,id=export,node-name=disk,'
                        f'writable=on,addr.type=unix,addr.path={address}',
            '--pidfile', self.path('daemon.pid')])
        try:
            wait_until(lambda: os.path.exists(self.path('daemon.pid')),
                       'no vhost-user-blk')
            yield daemon, address
            self.assertIsNone(daemon.poll())
        finally:
            daemon.kill()
            daemon.wait()

    @contextlib.contextmanager
    def vhost_user_guest(self, device_options=''):
        """Boot a guest with a disk in another process; return both."""
        path, checksum = self.make_random_file('disk', DISK_SIZE)
        with self.exported(path) as (daemon, address):
            more_args = (
                '-object', 'memory-backend-memfd,id=boot,size=512M,share=on',
                '-machine', 'memory-backend=boot',
                '-chardev', f'socket,id=disk,path={address}',
                '-device', 'vhost-user-blk-pci,chardev=disk,num-queues=1')
            with self.guest(more_args=more_args, region_size=4 * GiB,
                            backend='memory-backend-memfd,share=on',
                            device_options=device_options) as guest:
                yield guest, daemon
                self.check_disk(guest, path, checksum)

    def mapped(self, daemon):
        """Return how much memory of a guest a process has mapped."""
        total = 0
        with open(f'/proc/{daemon.pid}/maps', encoding='ascii') as maps:
            for line in maps:
                if 'memfd:' in line:
                    first, end = line.split()[0].split('-')
                    total += int(end, 16) - int(first, 16)
        return total

    def test_vhost_user_disk_reaches_plugged_memory(self):
        with self.vhost_user_guest() as (guest, daemon):
            guest.ask('modprobe virtio_blk')
            self.assertGreater(self.mapped(daemon), 4 * GiB)

    @virtio_mem_tap.slow
    def test_vhost_user_disk_follows_dynamic_memslots(self):
        options = ',dynamic-memslots=on'
        with self.vhost_user_guest(options) as (guest, daemon):
            guest.ask('modprobe virtio_blk')
            before = self.mapped(daemon)
            self.assertLess(before, GiB)
            for size, nb_slots in ((512 * MiB, 1), (1026 * MiB, 2), (0, 0)):
                guest.resize(size)
                self.assertEqual(self.mapped(daemon),
                                 before + nb_slots * GiB)

    def test_disk_reaches_plugged_memory(self):
        path, checksum = self.make_random_file('disk', DISK_SIZE)
        disk = ('-blockdev', f'driver=file,node-name=disk,filename={path}',
                '-device', 'virtio-blk-pci,drive=disk')
        with self.guest(more_args=disk) as guest:
            self.check_disk(guest, path, checksum)


class Network(NeighboursTest):
    """A network card whose buffers are in plugged memory."""

    NET = ('-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net')
    SIZE = 32 * MiB

    def serve(self, work):
        """Serve one connection beside the guest; return port and thread."""
        listener = socket.create_server(('127.0.0.1', 0))

        def serve_one():
            with listener, listener.accept()[0] as connection:
                work(connection)

        thread = threading.Thread(target=serve_one, daemon=True)
        thread.start()
        return listener.getsockname()[1], thread

    def send_to(self, guest, data):
        """Send bytes to the guest, which makes them a file."""
        port, thread = self.serve(lambda connection: connection.sendall(data))
        guest.ask(f'nc 10.0.2.2 {port} > /mem/data < /dev/null')
        thread.join(PATIENCE)

    def receive_from(self, guest):
        """Return what the guest sends of its file."""
        received = []

        def receive(connection):
            while data := connection.recv(1 << 20):
                received.append(data)

        port, thread = self.serve(receive)
        guest.ask(f'nc 10.0.2.2 {port} < /mem/data')
        thread.join(PATIENCE)
        return b''.join(received)

    def free_pages(self, guest, zone):
        """Return how much memory of a zone is free, or 0 without one."""
        pages = guest.ask(f"awk '/zone +{zone}$/ {{ m = 1 }} m && "
                          "/pages free/ { print $3; exit }' /proc/zoneinfo")
        return int(pages or 0) * 4096

    def test_network_card_reaches_plugged_memory(self):
        with self.guest(more_args=self.NET) as guest:
            # The kernel's own memory now comes from the device.
            guest.ask(ONLINE_KERNEL)
            guest.resize(642 * MiB)
            before = self.free_pages(guest, 'Normal')
            guest.ask('modprobe virtio_net && ip link set eth0 up && '
                      'ip addr add 10.0.2.15/24 dev eth0')
            # A ring of 256 buffers of at least a page.
            self.assertLess(self.free_pages(guest, 'Normal'), before - MiB)
            self.check_transfers(guest)

    def check_transfers(self, guest):
        """Receive and send, while other blocks come and go."""
        data = random.Random('network').randbytes(self.SIZE)
        for size in (898 * MiB, 386 * MiB):
            guest.request(size)
            self.send_to(guest, data)
            found = guest.ask('crc32 /mem/data').split()[0]
            self.assertEqual(int(found, 16), zlib.crc32(data))
            self.assertEqual(self.receive_from(guest), data)


class FreePageHints(NeighboursTest):
    """The balloon tells a migration what need not be sent."""

    ARGS = ('-object', 'iothread,id=balloon-thread', '-device',
            'virtio-balloon-pci,free-page-hint=on,iothread=balloon-thread')

    def migrate(self, source, target):
        """Migrate a guest; return how much was sent."""
        uri = moves.listen(target)
        # Slowly, until the guest has told what is free.  It must not be
        # stopped: a balloon gives hints of a guest that runs when it begins.
        moves.limit_bandwidth(source, moves.SLOW)
        source.vm.cmd('migrate', uri=uri)

        def remaining():
            status = source.vm.cmd('query-migrate')
            return status.get('ram', {}).get('remaining', GiB)

        def hinted():
            before = remaining()
            time.sleep(2)
            return 600 * MiB > remaining() > before - 4 * moves.SLOW

        wait_until(hinted, 'no free page hinting')
        moves.limit_bandwidth(source, 0)
        moves.finish(source, target)
        return source.vm.cmd('query-migrate')['ram']['transferred']

    @virtio_mem_tap.slow
    def test_pages_that_were_freed_are_not_sent(self):
        args = (*self.ARGS, '-incoming', 'defer')
        with Guest(more_args=self.ARGS) as source, \
                Guest(more_args=args) as target:
            source.wait_boot()
            source.ask('modprobe virtio_balloon')
            # It hints at what the kernel could use, never at movable memory.
            source.ask(ONLINE_KERNEL)
            source.resize(1 * GiB)
            pattern.write(source, 12)
            source.ask('rm /mem/[4-9] /mem/1?')
            sent = self.migrate(source, target)
            # Without hints, all files are; how many come depends on time.
            self.assertLess(sent, 12 * pattern.FILE_SIZE)
            self.assertEqual(pattern.damaged_files(target, 4), [])
            pattern.write(target, 12)
            self.assertEqual(pattern.damaged_files(target, 12), [])
            target.resize(1 * GiB + 256 * MiB)
            self.assertEqual(target.complaints(), [])


if __name__ == '__main__':
    virtio_mem_tap.main()
