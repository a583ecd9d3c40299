"""What the demo does to its guest, step by step.

SPDX-License-Identifier: GPL-2.0-or-later

A step has a name, the command that a person would type for it and where
(prompt), begin(), which starts it, and progress(), which is called with the
newest sample until it returns 1.
"""

from typing import NamedTuple, Optional

from virtio_mem_guest import GuestTimeout, MiB, format_size


class Sample(NamedTuple):
    """The four sizes that the demo shows; see demo_screen.LEGEND."""

    requested: int
    plugged: int
    mem_total: Optional[int]
    host_rss: int


def take_sample(guest, booted):
    """Look at the guest from both sides."""
    info = guest.device_info()
    return Sample(info['requested-size'], info['size'],
                  guest.mem_total() if booted else None, guest.host_rss())


def say_size(size):
    """Write a size for people: 4 GiB, 512 MiB."""
    text = format_size(size)
    return f'{text[:-1]} {text[-1]}iB'


class Boot:
    """Linux boots, until it serves commands."""

    name = 'boot Linux'
    prompt = command = None

    def begin(self, guest, _):
        """QEMU is running already."""
        self._guest = guest

    def progress(self, _):
        """Nobody knows how long Linux takes."""
        try:
            self._guest.wait_boot(timeout=0.05)
        except GuestTimeout:
            return None
        return 1


class Resize:
    """The monitor requests a size, the guest complies."""

    prompt = '(qemu)'

    def __init__(self, before, size, verb=None):
        verb = verb or ('grow' if size > before else 'shrink')
        self.name = f'{verb} to {say_size(size)}' if size else f'{verb} to 0'
        self.command = f'qom-set vm0 requested-size {format_size(size)}'
        self._size = size

    def begin(self, guest, sample):
        """Ask the device to ask the guest."""
        self._guest = guest
        self._start = sample
        self._change = self._size - sample.plugged
        guest.hmp(self.command)

    def progress(self, sample):
        """Done when the device has the size and the guest the memory.

        A growing guest plugs first and puts online later, a shrinking one
        puts offline first and unplugs later: the slower of the two counts.
        Then the driver may still have to remove what it unplugged.
        """
        if not self._change:
            return 1
        plugged = (sample.plugged - self._start.plugged) / self._change
        online = (sample.mem_total - self._start.mem_total) / self._change
        fraction = max(0.0, min(plugged, online))
        if fraction == 1 and not self._guest.driver_is_idle():
            return 0.99
        return fraction


class Fill:
    """The guest writes to its memory, as programs do."""

    prompt = 'guest $'

    def __init__(self, size):
        self.name = f'guest uses {say_size(size)}'
        self.command = ('dd if=/dev/zero of=/mem/data bs=1M '
                        f'count={size // MiB}')
        self._size = size

    def begin(self, guest, _):
        """Start writing, in the background."""
        self._guest = guest
        guest.ask(f'{self.command} > /tmp/dd.log 2>&1 &')

    def progress(self, _):
        """Done when all is written."""
        size = self._guest.ask('stat -c %s /mem/data || echo 0')
        return int(size.splitlines()[-1]) / self._size


class AskForAll:
    """All memory of a guest that is busy is requested, in mode safe.

    The guest keeps what it needs, and says so; a plain request would have gone
    on until the guest has to end programs.
    """

    name = 'safely shrink to 0'
    prompt = '(qemu)'
    command = 'virtio-mem -s vm0 0'

    def begin(self, guest, _):
        """Start the job."""
        self._guest = guest
        self._status = None
        guest.hmp(self.command)

    def progress(self, _):
        """Done when the device says why it asks for nothing more."""
        info = self._guest.device_info()
        if info['resize-status'] != 'waiting':
            return None
        self.verdict = f"{info['resize-status']}: {info['resize-reason']}"
        return 1


class Free:
    """The guest frees what it wrote; it still has the memory."""

    name = 'guest frees it'
    prompt = 'guest $'
    command = 'rm /mem/data'

    def begin(self, guest, _):
        """Free it all."""
        guest.ask(self.command)

    def progress(self, _):
        """It was done at once."""
        return 1


def steps(size):
    """List the demo's steps; the guest grows up to size."""
    return [
        Boot(),
        Resize(0, size // 2),
        Resize(size // 2, size),
        Fill(size * 3 // 4),
        AskForAll(),
        Resize(0, size, verb='back'),
        Free(),
        Resize(size, size // 4),
        Resize(size // 4, 0),
    ]
