"""Where the parts of a test machine are, and what mends their absence.

SPDX-License-Identifier: GPL-2.0-or-later

A part is a file that "make" produces and the environment can replace:

    QEMU_BINARY     the emulator
    GUEST_KERNEL    the Linux to boot
    GUEST_INITRD    its initramfs, see tools/guest-image
    ACCEL           tcg (the default) or kvm

and, for tests that ask for it:

    OLD_GUEST_KERNEL, OLD_GUEST_INITRD    a second, older Linux
    ARM64_QEMU_BINARY, ARM64_GUEST_KERNEL, ARM64_GUEST_INITRD, ARM64_FIRMWARE
                    the same for arm64, where a machine boots without firmware
    ARM64_16K_GUEST_KERNEL, ARM64_16K_GUEST_INITRD
                    a Linux for arm64 with pages of 16 KiB
    S390X_QEMU_BINARY, S390X_GUEST_KERNEL, S390X_GUEST_INITRD, S390X_FIRMWARE
                    the same for a mainframe, which boots Linux without firmware
    STOCK_QEMU_BINARY    the emulator as Debian ships it
    STOCK_NEXT_QEMU_BINARY    the newest emulator that Debian ships
    LIBVIRT_NEXT    the newest libvirt that Debian ships, unpacked
"""

import ctypes
import fcntl
import os
from pathlib import Path
import re
import sys

TOP = Path(__file__).resolve().parent.parent.parent

# variable -> (default below the top directory, the command that makes it)
PARTS = {
    'QEMU_BINARY': ('build/qemu/qemu-system-x86_64', 'make'),
    'GUEST_KERNEL': ('build/guest/vmlinuz', 'tools/fetch guest'),
    'GUEST_INITRD': ('build/guest/initrd.img', 'tools/guest-image'),
}
OPTIONAL_PARTS = {
    'OLD_GUEST_KERNEL': ('build/old-guest/vmlinuz', 'tools/fetch old-guest'),
    'OLD_GUEST_INITRD': ('build/old-guest/initrd.img',
                         'tools/guest-image build/old-guest'),
    'ARM64_QEMU_BINARY': ('build/aarch64/qemu-system-aarch64',
                          'tools/build aarch64'),
    'ARM64_GUEST_KERNEL': ('build/guest-arm64/vmlinuz',
                           'tools/fetch guest-arm64'),
    'ARM64_GUEST_INITRD': ('build/guest-arm64/initrd.img',
                           'tools/guest-image build/guest-arm64'),
    'ARM64_FIRMWARE': ('build/guest-arm64/firmware.fd',
                       'tools/fetch guest-arm64'),
    'ARM64_16K_GUEST_KERNEL': ('build/guest-arm64-16k/vmlinuz',
                               'tools/fetch guest-arm64-16k'),
    'ARM64_16K_GUEST_INITRD': ('build/guest-arm64-16k/initrd.img',
                               'tools/guest-image build/guest-arm64-16k'),
    'S390X_GUEST_KERNEL': ('build/guest-s390x/vmlinuz',
                           'tools/fetch guest-s390x'),
    'S390X_GUEST_INITRD': ('build/guest-s390x/initrd.img',
                           'make guest-s390x'),
    'S390X_QEMU_BINARY': ('build/s390x/qemu-system-s390x',
                          'tools/build s390x'),
    'S390X_FIRMWARE': (
        'build/pkg/qemu-system-data/usr/share/qemu/s390-ccw.img',
        'tools/fetch packages'),
    'STOCK_QEMU_BINARY': ('build/stock/qemu-system-x86_64', 'make stock'),
    'STOCK_NEXT_QEMU_BINARY': ('build/stock-next/qemu-system-x86_64',
                               'make stock-next'),
    'LIBVIRT_NEXT': ('build/pkg/libvirt-next', 'make libvirt-next'),
}

KVM_DEVICE = '/dev/kvm'
KVM_GET_API_VERSION = 0xae00

USERFAULTFD_DEVICE = '/dev/userfaultfd'
# The system call's number; most architectures have that of arm64.
NR_USERFAULTFD = 323 if os.uname().machine == 'x86_64' else 282


def part(variable):
    """Return the path of a part, present or not.

    QEMU's own "make check-functional" names the emulator in its way, which is
    the one for the machine that a test is for.
    """
    default, _ = (PARTS | OPTIONAL_PARTS)[variable]
    qemus_name = 'QEMU_TEST_' + re.sub('^(ARM64|S390X)_', '', variable)
    return Path(os.environ.get(variable) or
                os.environ.get(qemus_name) or TOP / default)


def accelerator():
    """Return what runs the guest's instructions."""
    return os.environ.get('ACCEL') or 'tcg'


def _qemu_python():
    """Return the Python packages of the QEMU that is to be run.

    Its build directory names its source; a QEMU from elsewhere is driven
    well enough by the packages of the prepared tree.
    """
    config = part('QEMU_BINARY').resolve().with_name('config-host.mak')
    if config.exists():
        for line in config.read_text().splitlines():
            if line.startswith('SRC_PATH='):
                return Path(line.partition('=')[2].strip('\'"')) / 'python'
    return TOP / 'build/tree/python'


def qemu_machine():
    """Import qemu.machine, by PYTHONPATH or from QEMU's own tree."""
    try:
        import qemu.machine
    except ImportError:
        sys.path.append(str(_qemu_python()))
        import qemu.machine
    return qemu.machine


def qmp_error():
    """Return the exception of QEMU's monitor."""
    qemu_machine()
    from qemu.qmp import QMPError
    return QMPError


def kvm_trouble():
    """Say why KVM cannot be used, if that is so."""
    try:
        with open(KVM_DEVICE, 'r+b', buffering=0) as kvm:
            fcntl.ioctl(kvm, KVM_GET_API_VERSION)
        return None
    except OSError as error:
        return f'{KVM_DEVICE} cannot be used ({error.strerror})'


def guard_trouble():
    """Say why unplugged memory cannot be protected, if that is so."""
    try:
        os.close(os.open(USERFAULTFD_DEVICE, os.O_RDWR))
        return None
    except OSError:
        fd = ctypes.CDLL(None, use_errno=True).syscall(NR_USERFAULTFD,
                                                       os.O_CLOEXEC)
    if fd < 0:
        return (f'userfaultfd may not be used '
                f'({os.strerror(ctypes.get_errno())}): '
                f'let your user open {USERFAULTFD_DEVICE}')
    os.close(fd)
    return None


def _accelerator_trouble():
    if accelerator() == 'tcg':
        return None
    if accelerator() != 'kvm':
        return f'ACCEL={accelerator()} is neither tcg nor kvm: ACCEL=tcg'
    trouble = kvm_trouble()
    return trouble and f'{trouble}: run with ACCEL=tcg'


def mem_available():
    """Return how much memory the host can spare."""
    with open('/proc/meminfo', encoding='ascii') as meminfo:
        for line in meminfo:
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) << 10
    return 0


def troubles(*optional):
    """List what is missing, each with the command that mends it.

    The names of optional parts say that these are needed, too.
    """
    return troubles_of(*PARTS, *optional)


def troubles_of(*variables):
    """The same for a machine that is made of other parts."""
    result = []
    for variable in dict.fromkeys(variables):
        _, command = (PARTS | OPTIONAL_PARTS)[variable]
        path = part(variable)
        if not path.exists():
            result.append(f'{path} is missing: run "{command}", '
                          f'or set {variable}')
    try:
        qemu_machine()
    except ImportError:
        result.append('QEMU\'s Python packages are missing: run "make"')
    result.append(_accelerator_trouble())
    return [trouble for trouble in result if trouble]
