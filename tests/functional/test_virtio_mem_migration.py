#!/usr/bin/python3
"""virtio-mem moves with its guest, between ours and QEMU's own device.

SPDX-License-Identifier: GPL-2.0-or-later

In a case for one way to move, one Linux guest moves three times: from stock
to ours, from ours to ours and from ours to stock.  VIRTIO_MEM_TEST_ALL adds
all ways with all kinds of machines, and all cases with the newest QEMU that
Debian ships in place of stock.

Where stock fails itself, the case says why and checks that it fails that way;
it prints a remark when a stock QEMU comes that does not.
"""

import contextlib
import os
import tempfile

import virtio_mem_busy as busy
import virtio_mem_moves as moves
import virtio_mem_parts as parts
import virtio_mem_pattern as pattern
import virtio_mem_tap
from virtio_mem_guest import GiB, GuestError, GuestTimeout, MiB, wait_until
from virtio_mem_guest_test import GuestTest

ROUTE = ('stock', 'ours', 'ours', 'stock')
HOPS = list(zip(ROUTE, ROUTE[1:]))

REGION = 4 * GiB
PLUGGED = 512 * MiB             # of which a part has the pattern
STEP = 64 * MiB
# Of a device of which nothing was ever requested.
USABLE_AT_MOST = 256 * MiB
PIPE = MiB // 16                # what a pipe of Linux holds
PIPES = 2 * MiB
# Linux tries again after 50 by itself.
RESUME_SECONDS = 2

NEWEST = 'pc-q35-10.0'
# The last two send the blocks after the memory ("late").
MACHINES = (NEWEST, 'pc-q35-9.2', 'pc-q35-8.0', 'pc-q35-7.2', 'pc-q35-6.2')

MEMSLOTS = ',dynamic-memslots=on'
PREALLOC = ',prealloc=on'
TCG_ABORT = 'iotlb_to_section: Assertion'
SECOND_DEVICE = (
    '-object', f'memory-backend-ram,id=mem1,size={REGION}',
    '-device', 'virtio-mem-pci,id=vm1,memdev=mem1' + PREALLOC)


class MigrationTest(GuestTest):
    """A test with a guest on the move; stock names the other QEMU's part."""

    stock = 'STOCK_QEMU_BINARY'
    needs = (stock,)

    def setUp(self):
        super().setUp()
        self._stack = contextlib.ExitStack()
        self.addCleanup(self._stack.close)

    def start(self, side, options, *more_args):
        """Start a QEMU; it ends with the test, at the latest."""
        options = {'machine': NEWEST, **options}
        binary = {'ours': 'QEMU_BINARY', 'stock': self.stock,
                  'base': 'STOCK_QEMU_BINARY'}[side]
        more_args = (*options.pop('more_args', ()), *more_args)
        return self._stack.enter_context(moves.MovingGuest(
            binary=binary, region_size=REGION, more_args=more_args,
            **options))

    def start_linux(self, side, options, more_tries=2):
        """Start a QEMU, and wait until its guest has booted.

        Stock's TCG may abort when firmware or Linux moves a BAR; ours is fixed
        by accel/tcg/cputlb.c.patch.
        """
        guest = self.start(side, options)
        try:
            guest.wait_boot()
            return guest
        except (GuestError, ConnectionError):
            guest.close()
            aborted = TCG_ABORT in (guest.vm.get_log() or '')
            if side != 'stock' or not aborted or not more_tries:
                raise
        print('# stock aborted while its guest booted: again', flush=True)
        return self.start_linux(side, options, more_tries - 1)

    def boot(self, side, **options):
        """Start a QEMU with a guest that has memory with a pattern."""
        guest = self.start_linux(side, options)
        guest.resize(PLUGGED)
        pattern.write(guest, 1)
        return guest

    def move(self, guest, move, hop, options):
        """Move a guest; the QEMU it came from is gone afterwards."""
        target = move(guest, lambda *more_args:
                      self.start(hop[1], options, *more_args))
        guest.close()
        return target

    def check_protected(self, side, guest, device_id='vm0'):
        """Unplugged memory comes out of reach again where that is possible."""
        if side == 'ours' and not parts.guard_trouble():
            wait_until(lambda: guest.device_info(device_id)['protected'],
                       f'{device_id} is not protected')

    def check_moved(self, side, guest, size):
        """The guest has what it had, and can go on resizing."""
        self.check_protected(side, guest)
        self.assertEqual(guest.device_info()['size'], size)
        self.assertEqual(pattern.damaged_files(guest, 1), [])
        guest.resize(size + STEP)

    def needs_of(self, move, machine):
        """Return the options that a way to move demands."""
        if move in (moves.ignore_shared, moves.cpr_reboot):
            file = self._stack.enter_context(
                tempfile.NamedTemporaryFile(dir='/dev/shm'))
            return {'machine': machine, 'backend': 'memory-backend-file,'
                    f'share=on,mem-path={file.name}'}
        if move == moves.cpr_transfer:
            # All memory is shared, also what has no backend of its own.
            return {'machine': f'{machine},aux-ram-share=on,'
                               'memory-backend=boot',
                    'backend': 'memory-backend-memfd,share=on',
                    'more_args': ('-object', 'memory-backend-memfd,id=boot,'
                                  'size=512M,share=on')}
        return {'machine': machine}

    def check_end(self, guest):
        """Nothing is damaged, and all can be unplugged again."""
        self.assertEqual(pattern.damaged_files(guest, 1), [])
        pattern.erase(guest)
        guest.resize(0)
        self.assertEqual(guest.complaints(), [])

    def check_row(self, move, machine=NEWEST, device_options=''):
        """Move a guest by all three hops."""
        options = {'device_options': device_options,
                   **self.needs_of(move, machine)}
        guest = self.boot(ROUTE[0], **options)
        size = PLUGGED
        for hop in HOPS:
            guest = self.move(guest, move, hop, options)
            self.check_moved(hop[1], guest, size)
            size += STEP
        self.check_end(guest)

    @contextlib.contextmanager
    def stock_fails(self, side, reason, error, text):
        """What is inside works, but with stock it fails in a certain way."""
        if side != 'stock':
            yield
            return
        try:
            yield
        except error as problem:
            self.assertRegex(str(problem), text)
            print(f'# stock fails: {reason}', flush=True)
        else:
            print(f'# stock no longer fails: {reason}', flush=True)


class VirtioMemMigration(MigrationTest):
    """Each way to move, and each property that has to do with it."""

    def test_precopy_late_format(self):
        self.check_row(moves.precopy, machine='pc-q35-7.2')

    @virtio_mem_tap.slow
    def test_precopy_oldest_machine(self):
        self.check_row(moves.precopy, machine='pc-q35-6.2')

    def test_precopy_while_the_guest_writes(self):
        self.check_row(moves.while_writing(moves.precopy))

    @virtio_mem_tap.slow
    def test_multifd(self):
        self.check_row(moves.multifd, machine='pc-q35-9.2')

    def test_postcopy_while_the_guest_writes(self):
        self.check_row(moves.while_writing(moves.postcopy),
                       machine='pc-q35-8.0')

    @virtio_mem_tap.slow
    def test_mapped_ram(self):
        self.check_row(moves.mapped_ram)

    @virtio_mem_tap.slow
    def test_background_snapshot(self):
        self.check_row(moves.background_snapshot)

    def test_snapshot(self):
        self.check_row(moves.snapshot)

    @virtio_mem_tap.slow
    def test_cpr_transfer(self):
        self.check_row(moves.cpr_transfer)

    @virtio_mem_tap.slow
    def test_cpr_reboot(self):
        self.check_row(moves.cpr_reboot)

    @virtio_mem_tap.slow
    def test_ignore_shared(self):
        self.check_row(moves.ignore_shared)

    @virtio_mem_tap.slow
    def test_two_devices_with_memslots_and_prealloc(self):
        options = {'device_options': MEMSLOTS, 'room': REGION,
                   'more_args': SECOND_DEVICE}
        guest = self.boot(ROUTE[0], **options)
        guest.resize(PLUGGED, 'vm1')
        # More than one of them can hold.
        pattern.write(guest, 12)
        sizes = [PLUGGED, PLUGGED]
        for number, hop in enumerate(HOPS):
            guest = self.move(guest, moves.precopy, hop, options)
            for device_id in ('vm0', 'vm1'):
                self.check_protected(hop[1], guest, device_id)
            self.assertEqual([guest.device_info('vm0')['size'],
                              guest.device_info('vm1')['size']], sizes)
            self.assertEqual(pattern.damaged_files(guest, 12), [])
            sizes[number % 2] += STEP
            guest.resize(sizes[number % 2], f'vm{number % 2}')
        pattern.erase(guest)
        guest.resize(0, 'vm1')
        guest.resize(0, 'vm0')
        self.assertEqual(guest.complaints(), [])

    def load_balloon_above(self, guest, address):
        """Have the balloon's ring beyond an address: fill what is below.

        Linux keeps memory of its own together, and begins below.  Pipes that
        nobody reads are such memory: 2 MiB of it.
        """
        rings = []
        while len(rings) < USABLE_AT_MOST // PIPES:
            guest.ask('modprobe virtio_balloon')
            rings.append(moves.ring_address(guest, 'balloon'))
            if rings[-1] > address:
                return
            guest.ask('rmmod virtio_balloon')
            guest.ask(f'for i in $(seq {PIPES // PIPE}); do '
                      f'head -c {PIPE} /dev/zero | sleep 99999 & done')
        self.fail(f'none of {[hex(ring) for ring in rings]} is beyond '
                  f'{address:#x}')

    def test_postcopy_after_lowering_requested_size(self):
        """A ring lies beyond what the target takes for usable (R-1)."""
        options = {'first_args': ('-device', 'virtio-balloon-pci,id=balloon')}
        guest = self.start_linux(ROUTE[0], options)
        guest.ask('echo online_kernel > '
                  '/sys/devices/system/memory/auto_online_blocks')
        guest.resize(1 * GiB)
        # Linux fills memory from below, with few exceptions.
        guest.ask(f'head -c {2 * USABLE_AT_MOST} /dev/zero > /mem/low')
        first = guest.device_info()['memaddr']
        self.load_balloon_above(guest, first + USABLE_AT_MOST)
        pattern.write(guest, 2)
        total = guest.mem_total()
        for balloon, hop in zip((384, 448, 384), HOPS):
            # An unused ring is as good as a lost one.
            guest.hmp(f'balloon {balloon}')
            guest.wait_mem_total(total - guest.boot_size + balloon * MiB)
            guest.request(0)
            moves.wait_size_change(guest, 1 * GiB)
            with self.stock_fails(hop[1], 'R-1: the ring\'s block is taken '
                                  'for unplugged', moves.MoveFailed,
                                  '^(failed|postcopy-paused): (.|\n)*'
                                  'uffd_copy_page.*errno=17'):
                guest = self.move(guest, moves.postcopy, hop, options)
                self.check_protected(hop[1], guest)
                guest.request(1 * GiB)
                guest.wait_plugged(1 * GiB)
                self.assertEqual(pattern.damaged_files(guest, 2), [])


class VirtioMemBusy(MigrationTest):
    """The guest may not resize while it moves, and goes on afterwards."""

    def hold(self, guest, uri, size):
        """Start a migration that does not end, and let the guest hear BUSY."""
        moves.begin(guest, uri, moves.SLOW)
        self.assertEqual(moves.wait_status(guest, 'active'), 'active')
        heard = moves.interrupts(guest)
        guest.request(size)
        moves.wait_interrupts(guest, heard + 2)
        self.assertEqual(moves.status(guest), 'active')
        self.assertNotEqual(guest.device_info()['size'], size)

    def check_resumes(self, side, guest, size):
        """Within some time of the guest's, it begins to do as told."""
        began = moves.uptime(guest)
        with self.stock_fails(side, 'nobody tells the guest that it can go on',
                              GuestTimeout, 'another size'):
            moves.wait_size_change(guest, size - STEP, RESUME_SECONDS)
            self.assertLess(moves.uptime(guest) - began, RESUME_SECONDS)
        if side == 'stock':
            guest.request(size)         # to ask again reminds it
        guest.wait_plugged(size)

    def check_target_resumes(self, move):
        """A resize that is requested on the way is done after each hop."""
        guest = self.boot(ROUTE[0])
        size = PLUGGED
        for hop in HOPS:
            size += STEP
            target = self.start(hop[1], {}, '-incoming', 'defer')
            move(guest, target, size)
            guest.close()
            guest = target
            self.check_resumes(hop[1], guest, size)
            self.check_protected(hop[1], guest)
        self.check_end(guest)

    def precopy(self, source, target, size):
        """Request a size during a precopy migration."""
        self.hold(source, moves.listen(target), size)
        moves.limit_bandwidth(source, 0)
        moves.finish(source, target)

    def postcopy(self, source, target, size):
        """Request a size during a postcopy migration."""
        moves.enable('postcopy-ram', source, target)
        self.hold(source, moves.listen(target), size)
        source.vm.cmd('migrate-start-postcopy')
        moves.finish(source, target)

    def test_goes_on_after_precopy(self):
        self.check_target_resumes(self.precopy)

    def test_goes_on_after_postcopy(self):
        self.check_target_resumes(self.postcopy)

    def check_source_resumes(self, side):
        """A guest that stays where it is goes on there."""
        guest = self.boot(side)
        self.hold(guest, 'exec:cat > /dev/null', PLUGGED + STEP)
        guest.vm.cmd('migrate_cancel')
        moves.wait_status(guest, 'cancelled')
        self.check_resumes(side, guest, PLUGGED + STEP)

        moves.enable('background-snapshot', guest)
        self.hold(guest, 'exec:cat > /dev/null', PLUGGED + 2 * STEP)
        moves.limit_bandwidth(guest, 0)
        moves.wait_status(guest, 'completed')
        self.check_resumes(side, guest, PLUGGED + 2 * STEP)
        self.check_protected(side, guest)
        self.check_end(guest)

    def test_goes_on_where_it_is(self):
        self.check_source_resumes('ours')

    @virtio_mem_tap.slow
    def test_goes_on_where_it_is_in_stock(self):
        self.check_source_resumes('stock')


class NewestStock:
    """The same where stock is the newest QEMU that Debian ships."""

    stock = 'STOCK_NEXT_QEMU_BINARY'
    needs = (stock,)
    in_ci = ()


class VirtioMemMigrationNewest(NewestStock, VirtioMemMigration):
    """Rings have 128 slots, as the guest boots there."""

    needs = (*NewestStock.needs, 'STOCK_QEMU_BINARY')

    def test_ring_of_1024_slots(self):
        """Of all virtio devices since 10.0.13: none is of virtio-mem's making.

        A guest that booted there cannot go where queues have their own sizes.
        """
        options = {'machine': NEWEST}
        for side in ('ours', 'base'):
            guest = self.start_linux(side, options)
            with self.stock_fails('stock', f'slots of {side} are refused',
                                  moves.MoveFailed, 'exceeds allocated max'):
                self.move(guest, moves.precopy, (side, 'stock'), options)

    def test_cpr_transfer(self):
        """Nor is this: what 11.1 hands over, no 10.0 can read."""
        for side in ('ours', 'base'):
            options = self.needs_of(moves.cpr_transfer, NEWEST)
            guest = self.start_linux('stock', options)
            with self.stock_fails(
                    'stock', f'cpr-transfer to {side}',
                    parts.qemu_machine().machine.VMLaunchFailure,
                    'vmstate_load_state error'):
                self.move(guest, moves.cpr_transfer, ('stock', side), options)


class VirtioMemBusyNewest(NewestStock, VirtioMemBusy):
    """Whether it tells the guest to go on, too."""


MOVES = (moves.precopy, moves.multifd, moves.postcopy, moves.mapped_ram,
         moves.background_snapshot, moves.snapshot, moves.cpr_transfer,
         moves.ignore_shared)


class VirtioMemSafeMoves(MigrationTest):
    """A guest that leaves in the middle of a shrink in mode safe."""

    BOOT = {'boot_size': GiB,
            'more_args': ('-device', 'virtio-balloon-pci,id=balloon0')}
    PLUGGED = 3 * GiB
    NB_HOGS = 10
    RESERVE = 256 * MiB

    def leave_in_the_middle(self, to):
        """Begin a shrink that would hold, and move the guest meanwhile."""
        guest = self.start_linux('ours', self.BOOT)
        guest.ask('modprobe virtio_balloon')
        guest.resize(self.PLUGGED)
        busy.start(guest, self.NB_HOGS)
        guest.vm.cmd('memory-device-resize', **{
            'job-id': 'job0', 'id': guest.DEVICE, 'size': 0, 'mode': 'safe',
            'reserve': self.RESERVE})
        wait_until(lambda: guest.device_info()['size'] < self.PLUGGED,
                   'the shrink does not begin')
        target = moves.precopy(guest, lambda *more_args: self.start(
            to, self.BOOT, *more_args))
        job, = guest.vm.cmd('query-jobs')
        self.assertIn('migrated', job['error'])
        guest.close()
        return target

    def check_stays(self, guest):
        """What was asked for last is all that happens."""
        size = guest.device_info()['requested-size']
        self.assertGreater(size, 0)
        guest.wait_plugged(size)
        guest.ask('sleep 60')
        self.assertEqual(guest.device_info()['size'], size)
        self.assertEqual(busy.oom_kills(guest), 0)
        self.assertEqual(busy.count(guest), self.NB_HOGS)

    @virtio_mem_tap.slow
    def test_stays_where_it_was_in_ours(self):
        self.require_host_memory(10 * GiB)
        self.check_stays(self.leave_in_the_middle('ours'))

    @virtio_mem_tap.slow
    def test_stays_where_it_was_in_stock_and_is_safe_afterwards(self):
        self.require_host_memory(10 * GiB)
        guest = self.leave_in_the_middle('stock')
        self.check_stays(guest)
        guest = self.move(guest, moves.precopy, ('stock', 'ours'),
                          {**self.BOOT, 'device_options': ',resize-mode=safe'})
        self.check_stays(guest)
        guest.request(0)
        busy.wait_status(guest, 'waiting', 'guest-low-memory')
        self.assertEqual(busy.oom_kills(guest), 0)
        self.assertEqual(busy.count(guest), self.NB_HOGS)


class VirtioMemMigrationMatrix(MigrationTest):
    """All ways to move: with all machines, and with some properties."""


class VirtioMemMatrixNewest(NewestStock, VirtioMemMigrationMatrix):
    """The same, with that QEMU."""


def add_row(move, name, **options):
    """Add a case to the matrix, and to that with the newest stock."""
    name = f'test_{move.__name__}_with_{name}'
    setattr(VirtioMemMigrationMatrix, name,
            lambda self: self.check_row(move, **options))
    if move == moves.cpr_transfer:
        setattr(VirtioMemMatrixNewest, name, None)


if os.environ.get('VIRTIO_MEM_TEST_ALL'):
    for way in MOVES:
        for machine_type in MACHINES:
            add_row(way, machine_type, machine=machine_type)
        add_row(way, 'memslots', device_options=MEMSLOTS)
        add_row(way, 'prealloc', device_options=PREALLOC)


if __name__ == '__main__':
    virtio_mem_tap.main()
