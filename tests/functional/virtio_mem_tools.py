"""Programs of QEMU that tests run beside the emulator.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import virtio_mem_parts as parts


def tool(name):
    """Return the program that was built, or installed, with the emulator."""
    directory = parts.part('QEMU_BINARY').resolve().parent
    # Where the build has it that is not in the build's top directory.
    built = directory / 'storage-daemon' / name
    return built if built.exists() else directory / name


def troubles(*names):
    """List what is missing, each with the command that mends it."""
    return [f'{tool(name)} is missing: run "tools/check functional"'
            for name in names if not tool(name).exists()]
