"""A guest whose memory is in use, so that it cannot be taken away.

SPDX-License-Identifier: GPL-2.0-or-later

Hogs hold data: Linux gives pages of zeros up under pressure.  Sizes are bytes.
"""

from virtio_mem_guest import MiB, wait_until

HOG = 256 * MiB

# /bin/dd is a process of that name; it has read all before it writes to a pipe
# that nothing empties.
PIECE = f'''
[ -e /tmp/piece ] || dd if=/dev/urandom of=/tmp/piece bs=1M count=16;
for i in $(seq {HOG // MiB // 16}); do cat /tmp/piece; done > /mem/hog
'''
START = '''
for n in $(seq {number}); do
/bin/dd if=/mem/hog bs={HOG} count=1 | sleep 99999 &
done > /dev/null 2>&1
'''


def _line(text):
    return ' '.join(text.split())


def start(guest, number):
    """Let that many processes take HOG bytes, and wait until they have it."""
    wanted = held(guest) + number * (HOG - 4 * MiB)
    guest.ask(_line(PIECE))
    guest.ask(_line(START.format(number=number, HOG=HOG)))
    wait_until(lambda: held(guest) >= wanted,
               lambda: f'the hogs have {held(guest):#x} bytes, not {wanted:#x}')
    guest.ask('rm /mem/hog')


def burst(guest, size):
    """Let one more process take so much, as fast as it can; do not wait."""
    pieces = ' '.join(['/tmp/piece'] * (size // MiB // 16))
    guest.ask(f'(cat {pieces} | /bin/dd bs={size} count=1 iflag=fullblock | '
              'sleep 99999) > /dev/null 2>&1 &')


def _pids(guest):
    return guest.ask('grep -lx dd /proc/[0-9]*/comm 2> /dev/null | '
                     'cut -d / -f 3').split()


def held(guest):
    """Return how much memory all hogs have."""
    files = ' '.join(f'/proc/{pid}/status' for pid in _pids(guest))
    return int(guest.ask(f'cat {files} /dev/null 2> /dev/null | awk '
                         "'/VmRSS/ { n += $2 } END { print n + 0 }'")) << 10


def count(guest):
    """Return how many hogs there are."""
    return len(_pids(guest))


def end(guest, number):
    """End some of them."""
    guest.ask('kill ' + ' '.join(_pids(guest)[:number]))


def touch(guest, mib, may_fail=False):
    """Let a process use memory for a moment."""
    guest.ask(f'for i in $(seq {-(-mib // 16)}); do cat /tmp/piece; done | '
              f'/bin/dd of=/dev/null bs={mib}M count=1 iflag=fullblock' +
              (' || true' if may_fail else ''))


def available(guest):
    """Return what the guest's kernel calls available."""
    line = guest.ask('grep MemAvailable /proc/meminfo')
    return int(line.split()[1]) << 10


def oom_kills(guest):
    """Return how many processes were ended since boot."""
    return int(guest.ask('grep oom_kill /proc/vmstat').split()[1])


def given_back(guest):
    """Return how many bytes the device gave back in mode safe."""
    result, = guest.vm.cmd('query-stats', target='virtio-mem', providers=[
        {'provider': 'virtio-mem', 'names': ['given-back-bytes']}])
    return result['stats'][0]['value']


def free_in_zone(guest, zone):
    """Return how much of a zone of node 0 is free."""
    pages = guest.ask(f"awk '/zone +{zone}$/ {{ found = 1 }} "
                      f"found && /pages free/ {{ print $3; exit }}' "
                      f"/proc/zoneinfo")
    return int(pages) << 12


def set_safe(guest, reserve=0):
    """Have the guest resized in mode safe from now on."""
    guest.hmp(f'qom-set {guest.DEVICE} resize-reserve {reserve}')
    guest.hmp(f'qom-set {guest.DEVICE} resize-mode safe')


def wait_status(guest, status, reason=None):
    """Wait until the device says so."""
    def said():
        info = guest.device_info()
        return info['resize-status'], info.get('resize-reason')

    wait_until(lambda: said() == (status, reason),
               lambda: f'the device says {said()}, not {status}, {reason}')
