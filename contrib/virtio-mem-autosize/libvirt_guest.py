# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest by libvirt."""

import xml.etree.ElementTree as ET

import libvirt

from blocking import Caller
from guest import GuestError, Reading, Refused, Reports
from law import Report, Sizes

KiB = 1 << 10
NS = '{http://libvirt.org/schemas/domain/qemu/1.0}'

# It prints each error of libvirt otherwise.
libvirt.registerErrorHandler(lambda *_: None, None)


def size_of(parent, name):
    """Return a size of libvirt's, which it writes in KiB."""
    element = parent.find(name)
    if element is None:
        # A domain that is shut down is shown without its present sizes.
        raise GuestError('it does not run')
    return int(element.text) * KiB


class LibvirtGuest:
    """One virtio-mem device of a running domain."""

    def __init__(self, config):
        self.config = config
        self.is_safe = False            # the domain asks for mode safe
        self._libvirt = Caller('libvirt')
        self._connection = None
        self._domain = None
        self._alias = None
        self._period = None             # of its statistics, before us
        self._reports = Reports()
        self._is_gone = False

    async def _do(self, function, *arguments):
        """Call libvirt, which blocks, beside the other guests."""
        try:
            return await self._libvirt.call(function, *arguments)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                self._is_gone = True
            raise GuestError(str(error)) from error

    # Beginning and end

    async def connect(self):
        """Connect, and find all that is needed."""
        self._connection = await self._do(libvirt.open, self.config.uri)
        try:
            self._domain = await self._do(self._connection.lookupByName,
                                          self.config.address)
            await self._check_runs()
            xml = await self._xml()
            self._alias = self._choose_device(xml)
            self._check_balloon(xml)
            self.is_safe = self._asks_for_safe(xml)
        except BaseException:
            await self.close()
            raise

    async def follow(self):
        """Have its balloon report each second; again, if others ended that."""
        period = await self._get_period()
        if period != 1:
            self._period = period
            await self._set_period(1)

    async def _get_period(self):
        stats = (await self._xml()).find('devices/memballoon/stats')
        return 0 if stats is None else int(stats.get('period', 0))

    async def _set_period(self, seconds):
        await self._do(self._domain.setMemoryStatsPeriod, seconds,
                       libvirt.VIR_DOMAIN_AFFECT_LIVE)

    async def _check_runs(self):
        self._is_gone = not await self._do(self._domain.isActive)
        if self._is_gone:
            raise GuestError('it does not run')

    def is_gone(self):
        """Whether it has ended, as far as that can be known."""
        return self._is_gone

    @staticmethod
    def process():
        """No two entries are for the same domain."""
        return None

    @staticmethod
    def resident():
        """What the host has of it, libvirt says with all else."""
        return None

    async def _xml(self):
        text = await self._do(self._domain.XMLDesc, 0)
        return ET.fromstring(text)

    @staticmethod
    def _devices(xml):
        return {memory.find('alias').get('name'): memory for memory in
                xml.findall("devices/memory[@model='virtio-mem']")
                if memory.find('alias') is not None}

    def _choose_device(self, xml):
        found = self._devices(xml)
        wanted = self.config.device
        if wanted in found:
            return wanted
        if wanted or not found:
            raise GuestError('it does not run, or has no virtio-mem device '
                             f'{wanted or ""}'.rstrip() + "; add: <memory "
                             "model='virtio-mem'>")
        if len(found) > 1:
            raise GuestError('it has several virtio-mem devices; choose one '
                             f'by device={"|".join(sorted(found))}')
        return next(iter(found))

    def _check_balloon(self, xml):
        balloon = xml.find('devices/memballoon')
        if balloon is None or balloon.get('model') == 'none':
            raise GuestError('it has no balloon device, whose statistics are '
                             "needed; add: <memballoon model='virtio' "
                             "freePageReporting='on'/>")
        if self.config.reporting and balloon.get('freePageReporting') != 'on':
            raise GuestError('its balloon does not report free pages, which '
                             'saves more than resizing; add to <memballoon>: '
                             "freePageReporting='on'; or go on without: "
                             '--without-reporting')

    def _asks_for_safe(self, xml):
        path = f"{NS}override/{NS}device[@alias='{self._alias}']/" \
               f"{NS}frontend/{NS}property[@name='resize-mode']"
        mode = xml.find(path)
        return mode is not None and mode.get('value') == 'safe'

    async def close(self):
        """Let go of the guest, and leave all but its size as it was."""
        try:
            if self._period is not None and await self._get_period() == 1:
                await self._set_period(self._period)
        except GuestError:
            pass
        self._period = None
        try:
            await self._do(self._connection.close)
        except GuestError:
            pass

    # What is, and what should be

    async def _target(self):
        await self._check_runs()
        xml = await self._xml()
        memory = self._devices(xml).get(self._alias)
        if memory is None or memory.find('target') is None:
            raise GuestError('its virtio-mem device is gone')
        return xml, memory, memory.find('target')

    async def largest(self):
        """Return the maximum size of the device, and its block size."""
        *_, target = await self._target()
        return size_of(target, 'size'), size_of(target, 'block')

    async def read(self, now):
        """Look at it."""
        xml, _, target = await self._target()
        sizes = Sizes(size_of(target, 'requested'), size_of(target, 'current'))
        stats = await self._do(self._domain.memoryStats)
        # <memory> has all of each device, plugged or not.
        granted = size_of(xml, 'memory') - size_of(target, 'size') + max(sizes)
        return Reading(sizes, self._report(stats, now), granted,
                       stats['rss'] * KiB if 'rss' in stats else None)

    def _report(self, stats, now):
        made = self._reports.made(stats.get('last_update'), now)
        if made is None or not {'available', 'usable'} <= set(stats):
            return None
        # libvirt's "available" is the total.
        free, swap = stats.get('unused'), stats.get('swap_out')
        return Report(made, stats['available'] * KiB, stats['usable'] * KiB,
                      stats.get('disk_caches', 0) * KiB,
                      None if free is None else free * KiB,
                      None if swap is None else swap * KiB)

    async def ask(self, decision):
        """Ask the guest for another size, as virsh does."""
        _, memory, target = await self._target()
        requested = target.find('requested')
        requested.text = str(decision.wish // KiB)
        requested.set('unit', 'KiB')
        try:
            await self._libvirt.call(self._domain.updateDeviceFlags,
                                     ET.tostring(memory, encoding='unicode'),
                                     libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise Refused(str(error)) from error
