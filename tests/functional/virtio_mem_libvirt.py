"""libvirt as users have it: a daemon, its clients, and a domain to resize.

SPDX-License-Identifier: GPL-2.0-or-later

The daemon sees the host's files, but what it and its clients write in /etc,
/run and /var is their own: see virtio_mem_libvirtd.  All go down with this
process, even by SIGKILL.
"""

import contextlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET

import virtio_mem_parts as parts
from virtio_mem_architectures import X86_64
from virtio_mem_guest import Guest, MiB, PATIENCE, QUIET, Shell, wait_until

PROGRAMS = {'libvirtd': 'libvirt-daemon', 'virsh': 'libvirt-clients',
            'virt-install': 'virtinst', 'nsenter': 'util-linux'}
# Where daemons are is not in every user's PATH.
PATH = f'{os.environ.get("PATH", os.defpath)}:/usr/sbin:/sbin'


class LibvirtError(Exception):
    """A libvirt client failed: what it said."""


# Namespaces for the daemon, where it mounts what it changes.
UNSHARE = ('setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount', '--pid',
           '--fork', '--kill-child=KILL', '--mount-proc')


def troubles():
    """List what is missing, each with what mends it."""
    missing = sorted({package for program, package in PROGRAMS.items()
                      if not shutil.which(program, path=PATH)})
    result = []
    if missing:
        result.append(f'the packages {" ".join(missing)} are missing: '
                      f'run "tools/bootstrap --tests"')
    test = subprocess.run([*UNSHARE, 'mount', '-t', 'tmpfs', 'tmpfs',
                           '/mnt'], capture_output=True, text=True,
                          check=False)
    if test.returncode:
        result.append(f'libvirt gets no place of its own '
                      f'({test.stderr.strip()}): run as root')
    return result


class Libvirt:
    """A libvirt daemon; use it as a context manager.

    root is where another libvirt than the host's was unpacked.
    """

    def __init__(self, root=None):
        self._root = [root] if root else []
        self._directory = tempfile.TemporaryDirectory(prefix='virtio-mem-')
        self._unshare = None
        self._enter = []

    def __enter__(self):
        script = Path(__file__).with_name('virtio_mem_libvirtd')
        # What virt-install takes if it is not told otherwise.
        os.symlink(parts.part('QEMU_BINARY').resolve(),
                   self.path('qemu-system-x86_64'))
        with open(self.path('namespace.log'), 'wb') as log:
            self._unshare = subprocess.Popen(
                [*UNSHARE, script, self._directory.name, *self._root],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=dict(os.environ, PATH=f'{self._directory.name}:{PATH}'))
        try:
            self._wait_for_daemon()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End the daemon and all domains, at once."""
        self._unshare.kill()
        self._unshare.wait()
        self._directory.cleanup()

    def path(self, name):
        """Return a path that daemon, domains and tests see alike."""
        return f'{self._directory.name}/{name}'

    def uri(self):
        """Return where clients of other daemons find this one."""
        return f'qemu+unix:///system?socket={self.path("libvirt-sock")}'

    def version(self):
        """Return the daemon's version, as numbers."""
        line = self.virsh('version', '--daemon').splitlines()[-1]
        return tuple(map(int, line.split()[-1].split('.')))

    def logs(self):
        """Return what daemon and domains wrote."""
        return '\n'.join(log.read_text(errors='replace') for log in
                         sorted(Path(self._directory.name).glob('*.log')))

    def _wait_for_daemon(self, previous=None):
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(LibvirtError, OSError, ValueError):
                self._enter = self._enter_command()
                if self.run('cat', '/run/libvirtd.pid') != previous:
                    self.run('virsh', 'list')
                    return
            if time.monotonic() > deadline or self._unshare.poll():
                raise LibvirtError(f'libvirtd does not serve: {self.logs()}')
            time.sleep(0.1)

    def _enter_command(self):
        """Return what runs a program where the daemon is."""
        pid = self._unshare.pid
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text(
            encoding='ascii')
        return ['nsenter', '--target', str(int(children)), '--mount', '--pid']

    def restart_daemon(self):
        """End the daemon, as an upgrade of it does; another one takes over."""
        pid = self.run('cat', '/run/libvirtd.pid')
        self.run('kill', pid)
        self._wait_for_daemon(previous=pid)

    def popen(self, *command, **options):
        """Start a client, as a user of the daemon's host would."""
        env = dict(os.environ, PATH=PATH, LC_ALL='C',
                   LIBVIRT_DEFAULT_URI='qemu:///system')
        return subprocess.Popen([*self._enter, *command], env=env, text=True,
                                stdout=subprocess.PIPE, **options)

    def run(self, *command, text=''):
        """Run a client, give it a text to read, return what it printed."""
        with self.popen(*command, stdin=subprocess.PIPE,
                        stderr=subprocess.PIPE) as client:
            try:
                output, errors = client.communicate(text, PATIENCE)
            except BaseException:
                client.kill()
                raise
        if client.returncode:
            raise LibvirtError(errors.strip())
        return output.strip()

    def virsh(self, *args, text=''):
        """Run a command of virsh; a "-" at its end reads the text."""
        if args[-1] == '-':
            args = (*args[:-1], '/dev/stdin')
        return self.run('virsh', *map(str, args), text=text)


class Monitor:
    """What Guest wants of QEMU, by way of libvirt."""

    def __init__(self, libvirt, name):
        self._libvirt = libvirt
        self._name = name

    def cmd(self, command, **arguments):
        """Run a QMP command."""
        arguments = {key.replace('_', '-'): value
                     for key, value in arguments.items()}
        answer = json.loads(self._libvirt.virsh(
            'qemu-monitor-command', self._name, '--cmd',
            json.dumps({'execute': command, 'arguments': arguments})))
        return answer['return']


class Domain(Guest):
    """A domain with devices of virtio-mem, and the Linux in it.

    XML is made of the parts that tests vary; sizes are bytes.  A domain is
    defined when the block starts, and gone after it.
    """

    DEVICE = 'virtiomem0'

    def __init__(self, libvirt, name='guest', **parts_of_xml):
        # Not Guest's: libvirt decides what QEMU is to be told.
        # pylint: disable=super-init-not-called
        self.libvirt = libvirt
        self.name = name
        self.vm = Monitor(libvirt, name)
        self._shell = None
        self._xml = domain_xml(libvirt, name, **parts_of_xml)

    def __enter__(self):
        self.virsh_text(self._xml, 'define', '-')
        return self

    def __exit__(self, failure, *_):
        if failure:
            self.show_console()
        self.close()

    def show_console(self):
        """Say what guest and emulator said last."""
        super().show_console()
        log = f'/var/log/libvirt/qemu/{self.name}.log'
        with contextlib.suppress(LibvirtError):
            for line in self.libvirt.run('tail', '-n', '5', log).splitlines():
                print(f'# QEMU: {line}')

    def close(self):
        """Destroy and forget the domain."""
        self._hang_up()
        for command in (['destroy', self.name],
                        ['undefine', self.name, '--managed-save',
                         '--snapshots-metadata']):
            with contextlib.suppress(LibvirtError):
                self.libvirt.virsh(*command)

    def path(self, name):
        """Return a path of a file of this domain."""
        return self.libvirt.path(f'{self.name}-{name}')

    def virsh(self, command, *args):
        """Run a command of virsh on this domain."""
        return self.libvirt.virsh(command, self.name, *args)

    def virsh_text(self, text, *args):
        """Run a command of virsh that reads a text."""
        return self.libvirt.virsh(*args, text=text)

    def start(self):
        """Start the domain and wait until its Linux serves commands."""
        self.virsh('start')
        self.connect()
        self.wait_boot()

    def connect(self):
        """Connect to the shell of a domain that was started."""
        self._hang_up()
        self._shell = Shell(self.path('shell'))

    def migrate(self, libvirt):
        """Let the domain run, and be defined, where another daemon is.

        Its sockets are there, too.
        """
        xml = Path(self.path('elsewhere.xml'))
        xml.write_text(self.virsh('dumpxml', '--migratable').replace(
            self.libvirt.path(''), libvirt.path('')), encoding='utf-8')
        self.virsh('migrate', '--live', '--persistent', '--undefinesource',
                   '--desturi', libvirt.uri(), '--xml', xml, '--migrateuri',
                   f'unix://{self.path("migration")}')
        self.libvirt = libvirt
        self.vm = Monitor(libvirt, self.name)

    def xml(self, *options):
        """Return the domain's description."""
        return ET.fromstring(self.virsh('dumpxml', *options))

    def devices(self, *options):
        """Return the descriptions of the devices, by alias if they have one.

        What is not in the XML is missing here, too.
        """
        result = {}
        for memory in self.xml(*options).findall(
                "devices/memory[@model='virtio-mem']"):
            alias = memory.find('alias')
            target = memory.find('target')
            name = len(result) if alias is None else alias.get('name')
            result[name] = {
                field: int(target.find(field).text) << 10
                for field in ('size', 'block', 'requested', 'current')
                if target.find(field) is not None}
            result[name]['node'] = int(target.find('node').text)
        return result

    def description(self, device_id):
        """Return the part of the domain's description that is a device."""
        return ET.tostring(self.xml().find(
            f"devices/memory/alias[@name='{device_id}']/.."),
            encoding='unicode')

    def current(self, device_id=DEVICE):
        """Return libvirt's idea of how much the guest has plugged."""
        return self.devices()[device_id]['current']

    def wait_current(self, size, device_id=DEVICE):
        """Wait until libvirt says that the guest has plugged so much."""
        wait_until(lambda: self.current(device_id) == size,
                   lambda: f'<current> of {device_id} is '
                           f'{self.current(device_id):#x}, not {size:#x}; for '
                           f'QEMU, {self.device_info(device_id)}')

    def device_info(self, device_id=DEVICE):
        """Return QEMU's view of a device."""
        return super().device_info(device_id)

    def request(self, size, device_id=DEVICE):
        """Ask the guest to change the plugged size; do not wait."""
        self.virsh('update-memory-device', '--alias', device_id,
                   '--requested-size', f'{size // MiB}MiB')

    def resize(self, size, device_id=DEVICE):
        """Request a size; wait until guest, QEMU and libvirt have it."""
        super().resize(size, device_id)
        self.wait_current(size, device_id)

    def wait_detached(self, device_id):
        """Wait until libvirt has heard that a device is gone."""
        wait_until(lambda: device_id not in self.devices(),
                   f'{device_id} is still there')

    def statistics(self):
        """Return what libvirt knows of the domain's memory, in bytes."""
        return {line.split()[0]: int(line.split()[1]) << 10
                for line in self.virsh('dommemstat').splitlines()}

    def wait_statistics(self, available):
        """Wait until the guest reports so much memory, or any for 0."""
        def look():
            statistics = self.statistics()
            enough = statistics.get('available', -1) >= available
            return statistics if enough else None
        return wait_until(look, lambda: f'the statistics remain '
                                        f'{self.statistics()}')


def memory_xml(size, requested=0, node=0, block=2 * MiB, source='',
               attributes='', address=None, driver='', alias=None):
    """Describe a device."""
    name = f"<alias name='{alias}'/>" if alias else ''
    base = '' if address is None else f"<address base='{address:#x}'/>"
    return f'''
      <memory model='virtio-mem'>
        {driver}
        {source}
        <target {attributes}>
          <size unit='MiB'>{size // MiB}</size>
          <node>{node}</node>
          <block unit='MiB'>{block // MiB}</block>
          <requested unit='KiB'>{requested >> 10}</requested>
          {base}
        </target>
        {name}
      </memory>'''


def override_xml(device, **properties):
    """Describe properties of a device that libvirt does not know."""
    lines = ''.join(f"<qemu:property name='{name.replace('_', '-')}' "
                    f"type='string' value='{value}'/>"
                    for name, value in properties.items())
    return f'''
    <qemu:override>
      <qemu:device alias='{device}'>
        <qemu:frontend>{lines}</qemu:frontend>
      </qemu:device>
    </qemu:override>'''


def domain_xml(libvirt, name, devices='', cells=(512 * MiB,), backing='',
               max_size=9 << 30, override='', slots="slots='2'", tuning='',
               architecture=X86_64):
    """Describe a domain with our kernel, two serial ports and a balloon.

    One CPU for each cell, or two for the only one.
    """
    accel = parts.accelerator()
    nb_cpus = max(len(cells), 2)
    numa = ''.join(
        f"<cell id='{n}' cpus='{n if len(cells) > 1 else '0-1'}' "
        f"memory='{size // MiB}' unit='MiB'/>"
        for n, size in enumerate(cells))
    return f'''
  <domain type='{'kvm' if accel == 'kvm' else 'qemu'}'
          xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
    <name>{name}</name>
    <maxMemory {slots} unit='MiB'>{max_size // MiB}</maxMemory>
    <memory unit='MiB'>{sum(cells) // MiB}</memory>
    {backing}
    {tuning}
    <vcpu>{nb_cpus}</vcpu>
    <os>
      <type arch='{architecture.name}'
        machine='{architecture.machine}'>hvm</type>
      {boot_xml(architecture)}
    </os>
    {processor_xml(architecture, numa)}
    <devices>
      <emulator>{parts.part(architecture.emulator)}</emulator>
      <serial type='file'>
        <source path='{libvirt.path(f'{name}-console.log')}'/>
        <target port='0'/>
      </serial>
      <serial type='unix'>
        <source mode='bind' path='{libvirt.path(f'{name}-shell')}'/>
        <target port='1'/>
      </serial>
      <memballoon model='virtio'/>
      {devices}
    </devices>
    {override}
  </domain>'''


def processor_xml(architecture, numa):
    """Describe processors, and what tells of them: without firmware, no ACPI.
    """
    if not architecture.cpu:
        return f'<features><acpi/></features><cpu><numa>{numa}</numa></cpu>'
    model = architecture.cpu.partition(',')[0]
    return f'''
    <cpu mode='custom' match='exact' check='none'>
      <model fallback='forbid'>{model}</model>
      <numa>{numa}</numa>
    </cpu>'''


def boot_xml(architecture):
    """Describe how a guest boots."""
    kernel, initrd = (parts.part(name).resolve()
                      for name in architecture.guest_parts())
    return f'''
      <kernel>{kernel}</kernel>
      <initrd>{initrd}</initrd>
      <cmdline>console={architecture.port}0 {QUIET}</cmdline>'''
