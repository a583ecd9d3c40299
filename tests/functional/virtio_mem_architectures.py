"""What depends on the kind of processor that a guest has.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
from typing import NamedTuple

import virtio_mem_parts as parts


class Architecture(NamedTuple):
    """A machine for a Linux guest, and the parts it is made of.

    port is what Linux calls its serial ports, without the number; cpu is the
    processor that TCG makes, None means the emulator's default; transport is
    what virtio devices end in; firmware names the part without which a machine
    does not start; kernel is one of several that can be booted.
    """

    name: str
    prefix: str
    machine: str
    cpu: str | None
    port: str
    transport: str = 'pci'
    firmware: str = ''
    kernel: str = ''

    @property
    def machine_parts(self):
        """Name the parts that a machine is made of."""
        return (self.emulator, *([self.firmware] if self.firmware else []))

    @property
    def emulator(self):
        """Name the part that runs it."""
        return f'{self.prefix}QEMU_BINARY'

    def guest_parts(self, old=False):
        """Name the parts that a guest boots from."""
        prefix = 'OLD_' if old else self.prefix + self.kernel
        return f'{prefix}GUEST_KERNEL', f'{prefix}GUEST_INITRD'

    def firmware_args(self):
        """List the options for what starts before Linux."""
        return ['-bios', str(parts.part(self.firmware))] if self.firmware \
            else []

    def port_args(self, *chardevs):
        """List the options for serial ports that end in character devices."""
        if self.transport == 'pci':
            return [arg for name in chardevs
                    for arg in ('-serial', f'chardev:{name}')]
        # A mainframe's own consoles take lines, not bytes.
        return ['-device', f'virtio-serial-{self.transport}', *(
            arg for name in chardevs
            for arg in ('-device', f'virtconsole,chardev={name}'))]

    def processor_args(self):
        """List the options that say what runs the guest's instructions.

        Only a host of its own kind can do that for it.
        """
        native = os.uname().machine == self.name
        if native and parts.accelerator() == 'kvm':
            return ['-accel', 'kvm', '-cpu', 'host']
        accel = parts.accelerator() if native else 'tcg'
        return ['-accel', accel, *(['-cpu', self.cpu] if self.cpu else [])]


X86_64 = Architecture('x86_64', '', 'q35', None, 'ttyS')
# Signing pointers as the architecture says costs TCG a third of its time.
ARM64 = Architecture('aarch64', 'ARM64_', 'virt', 'max,pauth-impdef=on',
                     'ttyAMA')
# The same with a kernel that has pages of 16 KiB.
ARM64_16K = ARM64._replace(kernel='16K_')
S390X = Architecture('s390x', 'S390X_', 's390-ccw-virtio', None, 'hvc', 'ccw',
                     firmware='S390X_FIRMWARE')
