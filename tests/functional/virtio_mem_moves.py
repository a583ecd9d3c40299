"""The ways in which a running guest gets from one QEMU to another.

SPDX-License-Identifier: GPL-2.0-or-later

A move takes the source, a running Guest, and start(), which starts the target
with more options and returns it.  It returns the target, where the guest then
runs; the source is stopped for good, or gone.  When that fails for a reason
that QEMU knows, MoveFailed has all that was said about it.
"""

import contextlib
import json
import os
import socket
import threading

import virtio_mem_parts as parts
from virtio_mem_guest import Guest, MiB, PATIENCE, wait_until

POLL = 0.02

# Bytes per second, for what must not be over before something else is done.
SLOW = 2 * MiB

ENDS = ('completed', 'failed', 'cancelled', 'postcopy-paused')


class MoveFailed(Exception):
    """QEMU on one of the sides gave up."""


class MovingGuest(Guest):
    """A guest that can be told to go while its target is being waited for.

    One thread can talk to one QEMU at a time by its usual monitor; this one
    has a second.  first_args are options for devices that are to be loaded
    before virtio-mem is.
    """

    def __init__(self, first_args=(), **options):
        super().__init__(**options)
        self._first_args = first_args

    def machine_args(self):
        """List the options that say what machine this is."""
        monitor = f'unix:{self.path("second")},server=on,wait=off'
        return [*self._first_args, *super().machine_args(), '-qmp', monitor]

    def tell(self, command, **arguments):
        """Execute a command by the second monitor, from any thread."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(self.path('second'))
            lines = monitor.makefile('rw')
            lines.readline()                # the greeting
            for execute in ({'execute': 'qmp_capabilities'},
                            {'execute': command, 'arguments': arguments}):
                lines.write(json.dumps(execute) + '\n')
                lines.flush()
                answer = {'event': None}
                while 'event' in answer:
                    answer = json.loads(lines.readline())
                if 'return' not in answer:
                    raise MoveFailed(answer)


# What to look at

def uptime(guest):
    """Return how many seconds the guest has run, by its own clock."""
    return float(guest.ask('cat /proc/uptime').split()[0])


def interrupts(guest):
    """Return how many interrupts the guest took from virtio devices."""
    lines = guest.ask('grep virtio /proc/interrupts').splitlines()
    return sum(int(number) for line in lines for number in line.split()[1:3])


def wait_interrupts(guest, number):
    """Wait until there were so many of them."""
    _poll(lambda: interrupts(guest) >= number, f'interrupt {number}')


def wait_size_change(guest, old_size, timeout=PATIENCE):
    """Wait until the first block came or went."""
    _poll(lambda: guest.device_info()['size'] != old_size,
          f'another size than {old_size:#x}', timeout)


def ring_address(guest, device):
    """Return where in the guest's memory a device's first ring is."""
    return guest.vm.cmd('x-query-virtio-queue-status', queue=0,
                        path=f'/machine/peripheral/{device}/virtio-backend'
                        )['vring-desc']


# What all have in common

def enable(name, *guests):
    """Switch a capability on."""
    capability = {'capability': name, 'state': True}
    for guest in guests:
        guest.vm.cmd('migrate-set-capabilities', capabilities=[capability])


def is_enabled(name, guest):
    """Return whether a capability is on."""
    return {'capability': name, 'state': True} in guest.vm.cmd(
        'query-migrate-capabilities')


def limit_bandwidth(guest, limit):
    """Limit how many bytes are sent per second; 0 means as many as can be."""
    guest.vm.cmd('migrate-set-parameters', max_bandwidth=limit)


def status(guest):
    """Return what state the migration of a guest is in."""
    return guest.vm.cmd('query-migrate').get('status', 'none')


def _poll(look, what, timeout=PATIENCE):
    return wait_until(look, f'no {what}', timeout, POLL)


def wait_status(guest, *wanted):
    """Wait for one of some states, or the end; return the state."""
    def look():
        now = status(guest)
        return now if now in wanted or now in ENDS else None
    return _poll(look, ' or '.join(wanted))


def wait_running(guest):
    """Wait until the guest runs in a QEMU."""
    _poll(lambda: guest.vm.cmd('query-status')['status'] == 'running',
          'running')


def _raise_failed(source, target):
    """Collect what both sides say; the target may be dead already."""
    said = [status(source),
            source.vm.cmd('query-migrate').get('error-desc', '')]
    if target:
        target.close()
        said.append(target.vm.get_log() or '')
    raise MoveFailed(': '.join(text.strip() for text in said if text))


def finish(source, target=None):
    """Wait until the guest has left the source, and runs at the target."""
    if wait_status(source, 'completed') != 'completed':
        _raise_failed(source, target)
    if target:
        try:
            wait_running(target)
        except (ConnectionError, EOFError, parts.qmp_error()):
            _raise_failed(source, target)


def listen(target):
    """Let a target wait for a migration, and return where."""
    uri = f'unix:{target.path("migration")}'
    target.vm.cmd('migrate-incoming', uri=uri)
    return uri


def begin(source, uri, limit=0):
    """Begin a migration; a limit of bytes per second holds from then on.

    QEMU's TCG may lose what a vCPU writes in the first moments (ours is fixed
    by include/exec/ram_addr.h.patch, stock is not): nothing runs meanwhile.  A
    background snapshot tracks writes in another way, and stops vCPUs by itself;
    cpr-reboot stops all.
    """
    if is_enabled('background-snapshot', source) or \
            source.vm.cmd('query-migrate-parameters')['mode'] == 'cpr-reboot':
        limit_bandwidth(source, limit)
        source.vm.cmd('migrate', uri=uri)
        return
    limit_bandwidth(source, SLOW)
    source.vm.cmd('stop')
    source.vm.cmd('migrate', uri=uri)
    wait_status(source, 'active')
    source.vm.cmd('cont')
    limit_bandwidth(source, limit)


def start_both(source, start, *capabilities):
    """Start a target that waits, with capabilities on both sides."""
    target = start('-incoming', 'defer')
    for capability in capabilities:
        enable(capability, source, target)
    return target


# Over a socket

def precopy(source, start, *capabilities):
    """Copy memory while the guest runs, then what has changed since."""
    target = start_both(source, start, *capabilities)
    begin(source, listen(target))
    finish(source, target)
    return target


def multifd(source, start):
    """The same by several connections."""
    return precopy(source, start, 'multifd')


def ignore_shared(source, start):
    """Leave memory alone that both sides map."""
    target = precopy(source, start, 'x-ignore-shared')
    sent = source.vm.cmd('query-migrate')['ram']['total']
    shared = source.device_info()['max-size']
    if sent >= shared:
        raise MoveFailed(f'{sent:#x} bytes of RAM, {shared:#x} are shared')
    return target


def postcopy(source, start):
    """Let the guest run at the target, and fetch memory as it is needed."""
    target = start_both(source, start, 'postcopy-ram')
    begin(source, listen(target), SLOW)
    source.vm.cmd('migrate-start-postcopy')
    if wait_status(source, 'postcopy-active') not in ('postcopy-active',
                                                      'completed'):
        _raise_failed(source, target)
    limit_bandwidth(source, 0)
    finish(source, target)
    sent = source.vm.cmd('query-migrate')['ram']['postcopy-bytes']
    if not sent:
        raise MoveFailed('nothing was left for postcopy')
    return target


# Through files

def through_file(source, start, *capabilities, mode='normal'):
    """Write everything to a file, and load it when the source is gone."""
    path = source.vm.temp_dir + '.stream'
    for capability in capabilities:
        enable(capability, source)
    source.vm.cmd('migrate-set-parameters', mode=mode)
    try:
        begin(source, f'file:{path}')
        finish(source)
        target = start('-incoming', 'defer')
        for capability in capabilities:
            enable(capability, target)
        target.vm.cmd('migrate-set-parameters', mode=mode)
        target.vm.cmd('migrate-incoming', uri=f'file:{path}')
        finish(target)
        wait_running(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return target


def mapped_ram(source, start):
    """Write each page to a fixed place in a file."""
    return through_file(source, start, 'mapped-ram')


def cpr_reboot(source, start):
    """Leave shared memory where it is; the host might boot in between."""
    return through_file(source, start, 'x-ignore-shared', mode='cpr-reboot')


def background_snapshot(source, start):
    """Write a moment of a guest that runs on, and go on from that moment."""
    return through_file(source, start, 'background-snapshot')


def add_disk(guest, path):
    """Give a guest a disk with room for snapshots, that it does not see."""
    with open(path, 'wb'):
        pass
    guest.vm.cmd('blockdev-add', driver='file', node_name='file0',
                 filename=path)
    guest.vm.cmd('blockdev-create', job_id='create', options={
        'driver': 'qcow2', 'file': 'file0', 'size': MiB})
    _poll(lambda: guest.vm.cmd('query-jobs')[0]['status'] == 'concluded',
          'end of blockdev-create')
    guest.vm.cmd('job-dismiss', id='create')
    guest.vm.cmd('blockdev-add', driver='qcow2', node_name='disk0',
                 file='file0')


def snapshot(source, start):
    """Write a snapshot to a disk, and start from it."""
    path = source.vm.temp_dir + '.qcow2'
    try:
        add_disk(source, path)
        source.hmp('savevm here')
        source.close()
        target = start('-drive', f'if=none,id=old,file={path}',
                       '-loadvm', 'here')
        wait_running(target)
        target.hmp('drive_del old')
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return target


# On one host

def cpr_transfer(source, start):
    """Hand the memory itself over."""
    cpr, main = (f'{source.vm.temp_dir}/{name}' for name in ('cpr', 'main'))

    def channel(kind, path):
        address = {'transport': 'socket', 'type': 'unix', 'path': path}
        return {'channel-type': kind, 'addr': address}

    def migrate():
        _poll(lambda: os.path.exists(cpr), cpr)
        source.tell('migrate', channels=[channel('main', main),
                                         channel('cpr', cpr)])

    source.vm.cmd('migrate-set-parameters', mode='cpr-transfer')
    # The target's monitor answers when the memory is there, not before.
    thread = threading.Thread(target=migrate)
    thread.start()
    try:
        target = start('-incoming', 'defer', '-incoming',
                       f'cpr,addr.transport=socket,addr.type=unix,'
                       f'addr.path={cpr}')
        target.vm.cmd('migrate-incoming', uri=f'unix:{main}')
    finally:
        thread.join()
    finish(source, target)
    return target


# With a guest that is not idle

WRITER = '''
touch /tmp/go;
(while [ -e /tmp/go ]; do
     dd if=/mem/0 of=/mem/copy bs=1M count=64 conv=notrunc; done;
 touch /tmp/gone) > /dev/null 2>&1 &
'''
CHECKER = '''
rm /tmp/go; while ! rm /tmp/gone; do sleep 0.1; done 2> /dev/null;
cmp -n 67108864 /mem/0 /mem/copy && rm /mem/copy
'''


def while_writing(move):
    """Make a move one of a guest that writes memory all the time."""
    def move_writer(source, start):
        source.vm.cmd('migrate-set-parameters', downtime_limit=10000)
        source.ask(' '.join(WRITER.split()))
        target = move(source, start)
        target.ask(' '.join(CHECKER.split()))
        return target
    return move_writer
