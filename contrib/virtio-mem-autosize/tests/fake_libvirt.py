# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's binding as far as the tool uses it, with simulated domains."""

import re
import threading

VIR_DOMAIN_AFFECT_LIVE = 1
VIR_ERR_NO_DOMAIN = 42
DEVICE = '''<memory model='{model}'><target>
<size unit='KiB'>{size}</size><node>0</node><block unit='KiB'>2048</block>
<requested unit='KiB'>{wish}</requested>{current}</target>
<alias name='{alias}'/></memory>'''
BALLOON = "<memballoon model='virtio' freePageReporting='on'>" \
    "<stats period='{period}'/></memballoon>"
SAFE = '''<override xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>
<device alias='ua-vm0'><frontend>
<property name='resize-mode' type='string' value='safe'/>
</frontend></device></override>'''


class libvirtError(Exception):
    """As the real one is called."""

    def get_error_code(self):
        """Tell which it is."""
        return VIR_ERR_NO_DOMAIN if 'not found' in str(self) else 0


def registerErrorHandler(_function, _context):
    """Nothing is printed anyhow."""


class Domain:
    """A persistent domain; a user may shut it down."""

    def __init__(self, vm, devices=('ua-vm0',), balloon=BALLOON, override=''):
        self.vm = vm
        self.devices = devices
        self.balloon = balloon
        self.override = override
        self.runs = True
        self.answers = threading.Event()
        self.answers.set()
        self.is_asked = False           # and does not answer
        self.period = 7
        self.refuses = None

    def isActive(self):
        """Tell whether it runs."""
        self.is_asked = not self.answers.is_set()
        self.answers.wait()
        return self.runs

    def XMLDesc(self, _flags):
        """Without the present size if it does not run."""
        self.answers.wait()
        vm = self.vm
        current = f"<current unit='KiB'>{vm.plugged >> 10}</current>"
        return f'''<domain type='kvm'>
<memory unit='KiB'>{vm.boot + vm.largest >> 10}</memory>
<devices>{''.join(DEVICE.format(
    model='virtio-mem', alias=alias, size=vm.largest >> 10,
    wish=vm.wish >> 10, current=current if self.runs else '')
    for alias in self.devices)}
{self.balloon.format(period=self.period)}</devices>{self.override}</domain>'''

    def setMemoryStatsPeriod(self, period, _flags):
        """How often the balloon reports."""
        self.period = period

    def memoryStats(self):
        """What it has reported, and what the host knows."""
        report, vm = self.vm.report, self.vm
        stats = {'rss': vm.boot + vm.plugged - max(0, vm.free) >> 10}
        if report:
            stats |= {'available': report.total >> 10,
                      'usable': report.available >> 10,
                      'unused': report.free >> 10,
                      'disk_caches': report.caches >> 10,
                      'swap_out': report.swap_out >> 10,
                      'last_update': 1000 + int(report.made)}
        return stats

    def updateDeviceFlags(self, xml, _flags):
        """Ask for another size."""
        if self.refuses:
            raise libvirtError(self.refuses)
        self.vm.wish = int(re.search(r'<requested unit="KiB">(\d+)',
                                     xml)[1]) << 10


def gone():
    """What is called of a domain that ended and was transient."""
    raise libvirtError('Domain not found')


domains = {}


class _Connection:
    @staticmethod
    def lookupByName(name):
        """Find a domain."""
        if name not in domains:
            raise libvirtError(f"Domain not found: '{name}'")
        return domains[name]

    @staticmethod
    def close():
        """Let go."""


def open(_uri):
    """Connect."""
    return _Connection()
