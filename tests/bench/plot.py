"""Draw what was measured over time: a resize, and memory that follows need.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import shutil
import subprocess

import host

GiB = 1 << 30

SCRIPT = '''
set terminal pngcairo size 1200,800 font "DejaVu Sans,10"
set output "{directory}/resize.png"
set multiplot layout 2,2 columnsfirst title "{title}"
set grid
set lmargin 9
set xrange [-0.5:{seconds}]
{panels}
unset multiplot
'''
PANELS = '''
set title "{emulator}"
set xlabel ""
set ylabel "GiB"
unset logscale y
set format y "%g"
set yrange [0:{gib}]
set key bottom right
plot "{data}" using 1:2 with steps lw 2 title "requested", \\
     "{data}" using 1:3 with steps lw 2 title "plugged", \\
     "{data}" using 1:4 with lines lw 1 title "host memory of QEMU"
unset title
set xlabel "seconds"
set ylabel "monitor round trip, ms"
set logscale y
set yrange [0.05:2000]
unset key
plot "{data}" using 1:5 with impulses lc rgb "#c04040"
'''
AUTOSIZE = '''
set terminal pngcairo size 1200,800 font "DejaVu Sans,10"
set output "{directory}/autosize.png"
set multiplot layout 2,1 title "Memory that follows need"
set grid
set lmargin 9
set rmargin 20
set xrange [0:{seconds}]
set yrange [0:4.2]
set key outside
set ylabel "host memory of QEMU, GiB"
plot {memory}
set ylabel "boot memory and device, GiB"
set xlabel "seconds"
plot {limits}
unset multiplot
'''
BEFORE = 0.5


def _path(name, picture='resize'):
    return host.OUTPUT / f'{picture}-{name}.dat'


def write_samples(name, samples, start, picture='resize'):
    """Keep the samples of what began at a time."""
    host.OUTPUT.mkdir(parents=True, exist_ok=True)
    lines = [f'{s.sent - start:.4f} {s.requested / GiB:.4f} '
             f'{s.plugged / GiB:.4f} {s.rss / GiB:.4f} '
             f'{s.latency * 1000:.3f}\n'
             for s in samples if s.sent > start - BEFORE]
    _path(name, picture).write_text(''.join(lines), encoding='ascii')


def _last_column(name, column, picture='resize'):
    lines = _path(name, picture).read_text(encoding='ascii').splitlines()
    return float(lines[-1].split()[column])


def draw_autosize(setups, boot):
    """Draw autosize.png from what was kept; return its path.

    setups has for each one whether its size changes; boot is in bytes.
    """
    kept = [name for name in setups if _path(name, 'autosize').exists()]
    if not kept or not shutil.which('gnuplot'):
        return None

    def curve(name, column, style, title):
        return f'"{_path(name, "autosize")}" using 1:({column}) with {style} ' \
               f'lc {list(setups).index(name) + 1} title "{title}"'

    memory = [curve(name, '$4', 'lines lw 2', name) for name in kept]
    limits = [curve(name, f'${column}+{boot / GiB}', f'steps {style}',
                    f'{name}, {what}')
              for name in kept if setups[name]
              for column, style, what in ((3, 'lw 2', 'size'),
                                          (2, 'lw 1 dt 2', 'wish'))]
    script = AUTOSIZE.format(
        directory=host.OUTPUT, memory=', '.join(memory),
        limits=', '.join(limits),
        seconds=max(_last_column(name, 0, 'autosize') for name in kept))
    subprocess.run(['gnuplot'], input=script, text=True, check=True)
    return host.OUTPUT / 'autosize.png'


def draw(title):
    """Draw resize.png from what was kept; return its path."""
    emulators = [name for name in host.EMULATORS if _path(name).exists()]
    if not emulators or not shutil.which('gnuplot'):
        return None
    seconds = max(_last_column(name, 0) for name in emulators)
    gib = max(_last_column(name, 3) for name in emulators) * 1.1
    panels = ''.join(PANELS.format(emulator=name, data=_path(name), gib=gib)
                     for name in emulators)
    script = SCRIPT.format(directory=host.OUTPUT, title=title,
                           seconds=seconds, panels=panels)
    subprocess.run(['gnuplot'], input=script, text=True, check=True)
    return host.OUTPUT / 'resize.png'
