#!/usr/bin/python3
"""virtio-mem in an arm64 machine with Linux.

SPDX-License-Identifier: GPL-2.0-or-later

One case of its own, and what the tests of an x86-64 guest have, where it does
not depend on that machine.
"""

import test_virtio_mem_backends as backends
import test_virtio_mem_guard as guard
import test_virtio_mem_libvirt as libvirt
import test_virtio_mem_linux as linux
import test_virtio_mem_machine as machine
import test_virtio_mem_safe as safe
import test_virtio_mem_setups as setups
import virtio_mem_parts as parts
import virtio_mem_tap
from virtio_mem_architectures import ARM64, ARM64_16K
from virtio_mem_guest_test import GrowingTest, GuestTest


class VirtioMemArm64(GrowingTest, GuestTest):
    """The machine is described by a device tree: no firmware, no ACPI."""

    architecture = ARM64


class VirtioMemArm64LargePages(GrowingTest, GuestTest):
    """Debian has kernels with pages of 16 KiB, not of 64."""

    architecture = ARM64_16K
    in_ci = ()


class VirtioMemArm64Linux(linux.VirtioMemLinux):
    """Contents, stalls and reboots."""

    architecture = ARM64
    in_ci = ()
    # What TCG takes to check so much would be taken for a guest that hangs.
    test_four_gib_hold_a_pattern_and_go_back_to_the_host = None
    # Linux 6.12 was seen to panic there, once, where it should have stalled:
    # "System is deadlocked on memory".
    test_shrinking_stalls_at_what_is_in_use_until_it_is_freed = None
    test_shrinking_that_stalled_goes_on_by_itself = None


class VirtioMemArm64Setups(setups.VirtioMemSetups):
    """A balloon beside it, and a migration."""

    architecture = ARM64
    in_ci = ()


class VirtioMemArm64Libvirt(libvirt.LibvirtTest):
    """A domain of libvirt's.

    To one without ACPI, as it has no firmware, libvirt 9.0 gives an option that
    QEMU no longer knows.
    """

    libvirt = None
    needs = ('LIBVIRT_NEXT',)
    architecture = ARM64
    in_ci = ()

    def test_domain_starts_as_described_and_resizes(self):
        self.check_start_and_resizes()


class VirtioMemArm64Guard(guard.VirtioMemGuardLinux):
    """A root that uses unplugged memory."""

    architecture = ARM64
    in_ci = ()


class VirtioMemArm64HugePages(backends.VirtioMemHugePages):
    """Memory from the host's pool."""

    architecture = ARM64
    in_ci = ()


class VirtioMemArm64Safe(safe.VirtioMemSafe):
    """Mode safe, and the job."""

    architecture = ARM64
    in_ci = ()


class VirtioMemArm64Nodes(machine.VirtioMemNodes):
    """Linux knows a device's node by ACPI only, which firmware hands over."""

    architecture = ARM64
    in_ci = ()
    needs = ('ARM64_FIRMWARE',)
    firmware = ('-bios', str(parts.part('ARM64_FIRMWARE')))


if __name__ == '__main__':
    virtio_mem_tap.main()
