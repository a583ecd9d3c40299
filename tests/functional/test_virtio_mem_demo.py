#!/usr/bin/python3
"""The demo does what it says, and leaves nothing behind.

SPDX-License-Identifier: GPL-2.0-or-later

Each case gives the demo a TMPDIR of its own: whatever the demo starts has a
path below it on its command line, so what is left can be found.
"""

import contextlib
import os
from pathlib import Path
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import virtio_mem_parts as parts
import virtio_mem_tap
from virtio_mem_guest import PATIENCE, parse_size, wait_until

DEMO = parts.TOP / 'tools/demo'
STEPS = ['boot Linux', 'grow to 256 MiB', 'grow to 512 MiB',
         'guest uses 384 MiB', 'safely shrink to 0', 'back to 512 MiB',
         'guest frees it', 'shrink to 128 MiB', 'shrink to 0']

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# The demo, with a signal while QEMU's package takes an answer.
SIGNAL_IN_QMP = f'''
import os, runpy, signal, sys
sys.path[:0] = [{str(DEMO.parent)!r}, {str(Path(__file__).parent)!r}]
import virtio_mem_parts
virtio_mem_parts.qemu_machine()
from qemu.qmp.qmp_client import QMPClient

answers = 0
receive = QMPClient._do_recv

async def receive_with_signal(self):
    global answers
    answers += 1
    message = await receive(self)
    if answers == 20:
        os.kill(os.getpid(), signal.SIGTERM)
    return message

QMPClient._do_recv = receive_with_signal
sys.argv = ["demo"]
runpy.run_path({str(DEMO)!r}, run_name="__main__")
'''


def heed_signals():
    """Undo what a caller such as nohup, or a shell's '&', made us inherit."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


class Output:
    """What a process writes, as it comes."""

    def __init__(self, fd):
        self._fd = fd
        self.text = ''

    def wait_for(self, pattern):
        """Read until a pattern matches what has been read so far."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text, re.MULTILINE):
            ready, _, _ = select.select([self._fd], [], [], 1)
            data = b''
            if ready:
                data = os.read(self._fd, 1 << 16)
            if (ready and not data) or time.monotonic() > deadline:
                raise AssertionError(f'no "{pattern}" in: {self.text}')
            self.text += data.decode(errors='replace')


class VirtioMemDemo(unittest.TestCase):
    """Each case runs the demo once."""

    def setUp(self):
        troubles = parts.troubles()
        if troubles:
            self.skipTest('; '.join(troubles))
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(self.kill_left_processes)
        self.tmp = directory.name
        self.env = dict(os.environ, TMPDIR=self.tmp, SIZE='512M',
                        PYTHONDONTWRITEBYTECODE='1', TERM='xterm',
                        PYTHONIOENCODING='utf-8')
        self.env.pop('KEEP', None)
        self.env.pop('NO_COLOR', None)

    def run_demo(self, *program, **env):
        """Run the demo to its end, without a terminal; program replaces it."""
        return subprocess.run([sys.executable, *(program or [DEMO])],
                              timeout=PATIENCE,
                              env=dict(self.env, **env), text=True,
                              stdin=subprocess.DEVNULL, check=False,
                              capture_output=True)

    def left_processes(self):
        """List the processes that mention our directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as cmdline:
                    if self.tmp.encode() in cmdline.read():
                        found.append(int(pid))
            except OSError:
                pass    # It has ended meanwhile.
        return found

    def assert_nothing_left(self, output=None):
        """No process, no socket, no log; output is what the demo said."""
        self.assertEqual(self.left_processes(), [], output)
        self.assertEqual(os.listdir(self.tmp), [], output)

    def wait_no_process(self):
        """What has been told to end does so soon."""
        wait_until(lambda: not self.left_processes(),
                   lambda: f'{self.left_processes()} are left')

    def kill_left_processes(self):
        """After a failure, too, nothing goes on for ever."""
        for pid in self.left_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_no_process()

    def table_rows(self, output):
        """Return the rows of the final table: name -> numbers."""
        rows = {}
        for line in output.splitlines():
            match = re.fullmatch(r'  (\S.*?)((?: +\d+\.\d\d){4}) +([\d.]+) s',
                                 line)
            if match:
                rows[match[1]] = [float(n) for n in match[2].split()]
        return rows

    def test_plain_run_ends_with_a_true_table(self):
        demo = self.run_demo()
        self.assertEqual(demo.returncode, 0, demo.stderr)
        self.assertEqual(demo.stderr, '')
        self.assertNotIn('\033', demo.stdout)
        self.assertNotIn('\r', demo.stdout)
        rows = self.table_rows(demo.stdout)
        self.assertEqual(list(rows), STEPS)
        booted = rows['boot Linux']
        for name, (requested, plugged, guest, _) in rows.items():
            if name == 'safely shrink to 0':
                # All that it can spare beside its files and the reserve.
                self.assertEqual(requested, 0)
                self.assertGreaterEqual(plugged, 0.125)
                self.assertLess(plugged, 0.5)
            else:
                self.assertEqual(plugged, requested, name)
            self.assertAlmostEqual(guest, booted[2] + plugged, delta=0.02)
        host = {name: row[3] for name, row in rows.items()}
        self.assertGreater(host['guest uses 384 MiB'], booted[3] + 0.3)
        self.assertGreater(host['guest frees it'], booted[3] + 0.3)
        self.assertLess(host['shrink to 0'], booted[3] + 0.15)
        self.assertIn('"waiting: guest-low-memory"', demo.stdout)
        self.assert_nothing_left()

    def test_printed_commands_work_when_pasted(self):
        demo = self.run_demo()
        pasted = re.search(r'^(.*\\\n)+.*$', demo.stdout, re.MULTILINE)[0]
        typed = re.findall(r'^  (\(qemu\)|guest \$) (.*)', demo.stdout,
                           re.MULTILINE)
        self.assertEqual(len(typed), len(STEPS))
        qemu = subprocess.Popen(
            ['setpriv', '--pdeathsig', 'KILL', 'sh', '-c', f'exec {pasted}'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        with qemu:
            try:
                self.type_commands(qemu, typed)
                qemu.stdin.write(b'\x01x')
                self.assertEqual(qemu.wait(timeout=PATIENCE), 0)
            finally:
                qemu.kill()

    def type_commands(self, qemu, typed):
        """Type commands at their prompts; the guest obeys them."""
        screen = Output(qemu.stdout.fileno())
        screen.wait_for(r'guest \$ ')
        here = 'guest $'
        for prompt, command in typed:
            if prompt != here:
                self.type_line(qemu, screen, prompt, '\x01c')
                here = prompt
            answer = self.type_line(qemu, screen, prompt, command)
            self.assertNotRegex(answer, '[Ee]rror|not found|No such')
            size = re.search('requested-size (.*)', command)
            if size:
                self.wait_plugged(qemu, screen, size[1])

    def type_line(self, qemu, screen, prompt, line):
        """Type a line and return what is shown up to the next prompt."""
        screen.text = ''
        qemu.stdin.write(f'{line}\n'.encode())
        # The guest's shell asks the terminal where its cursor is.
        screen.wait_for(rf'{re.escape(prompt)} (\x1b\[6n)?\Z')
        return screen.text

    def wait_plugged(self, qemu, screen, size):
        """At the monitor: wait until the guest has followed a request."""
        line = f'  size: {parse_size(size) if size != "0" else 0}\r\n'
        wait_until(lambda: line in self.type_line(qemu, screen, '(qemu)',
                                                  'info memory-devices'),
                   lambda: f'no "{line.strip()}" in: {screen.text}')

    def test_ctrl_c_on_a_terminal_leaves_nothing(self):
        pid, terminal = pty.fork()
        if pid == 0:
            heed_signals()
            os.execve(sys.executable, [sys.executable, DEMO],
                      dict(self.env, SIZE='1G'))
        try:
            screen = Output(terminal)
            screen.wait_for('guest uses 768 MiB')
            self.assertEqual(len(self.left_processes()), 1)
            os.write(terminal, b'\x03')
            screen.wait_for('ended by SIGINT; the guest is gone\r\n')
            # To close the terminal first would be another signal.
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(status), 130)
        # The cursor is back; each sample went over the one before.
        self.assertGreater(screen.text.rfind('\033[?25h'),
                           screen.text.rfind('\033[?25l'))
        self.assertGreater(screen.text.count('\r  boot Linux'), 3)
        self.assert_nothing_left()

    def start_demo(self, **env):
        """Start the demo without a terminal."""
        demo = subprocess.Popen([sys.executable, DEMO],
                                env=dict(self.env, **env),
                                stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT,
                                preexec_fn=heed_signals)
        self.addCleanup(demo.stdout.close)
        self.addCleanup(demo.wait)
        self.addCleanup(demo.kill)
        return demo

    def wait_heeds_signals(self, demo):
        """While it starts, Python may print SIGINT's traceback and go on."""
        status = Path(f'/proc/{demo.pid}/status')

        def look():
            caught = re.search('SigCgt:\t(.*)', status.read_text('ascii'))
            return int(caught[1], 16) >> (signal.SIGHUP - 1) & 1

        wait_until(look, 'the demo does not heed signals', 30, 0.001)

    def test_any_signal_at_any_moment_leaves_nothing(self):
        # Python starts, the parts are checked, QEMU starts, Linux boots.
        delays = [0.03 * n for n in range(1, 20)] + [1, 2]
        for number, delay in enumerate(delays):
            signum = SIGNALS[number % len(SIGNALS)]
            demo = self.start_demo()
            time.sleep(delay)
            if signum == signal.SIGINT:
                self.wait_heeds_signals(demo)
            demo.send_signal(signum)
            # 130, or what Python makes of a signal while it is starting.
            output, _ = demo.communicate(timeout=PATIENCE)
            self.assertNotEqual(demo.returncode, 0, output)
            self.assert_nothing_left(output)

    def test_signal_while_qmp_answers_leaves_nothing(self):
        # What cleans up uses the loop that the signal finds running.
        demo = self.run_demo('-c', SIGNAL_IN_QMP)
        self.assertEqual(demo.returncode, 130, demo.stderr)
        self.assertIn('demo: ended by SIGTERM', demo.stderr)
        self.assert_nothing_left()

    def test_guest_does_not_survive_a_killed_demo(self):
        demo = self.start_demo()
        Output(demo.stdout.fileno()).wait_for('boot Linux')
        self.assertEqual(len(self.left_processes()), 1)
        demo.kill()
        self.wait_no_process()

    def test_kept_guest_answers_and_ends_as_told(self):
        demo = self.run_demo(KEEP='1')
        self.assertEqual(demo.returncode, 0, demo.stderr)
        end = re.search(r'^  (kill (\d+); rm -r \S+)$', demo.stdout,
                        re.MULTILINE)
        self.assertEqual(self.left_processes(), [int(end[2])])
        human, qmp = re.findall(r'^  (PYTHONPATH=.*)', demo.stdout,
                                re.MULTILINE)
        self.assertIn('"vm0"', self.ask_monitor(human, 'info memory-devices'))
        self.assertIn("'requested-size': 0", self.ask_monitor(
            qmp, 'query-memory-devices').replace('"', "'"))
        subprocess.run(end[1], shell=True, check=True)
        self.wait_no_process()
        self.assert_nothing_left()

    def ask_monitor(self, shell, command):
        """Type one command at the monitor of a guest that was kept."""
        return subprocess.run(shell, shell=True, input=f'{command}\n',
                              text=True, capture_output=True, check=True,
                              timeout=PATIENCE).stdout

    def test_each_missing_part_is_named_with_its_remedy(self):
        for variable, (_, command) in parts.PARTS.items():
            demo = self.run_demo(**{variable: '/nowhere/at-all'})
            self.assertEqual(demo.returncode, 1)
            self.assertIn(f'/nowhere/at-all is missing: run "{command}"',
                          demo.stderr)
            self.assertIn(variable, demo.stderr)
            self.assert_nothing_left()

    def test_each_bad_wish_is_named_with_its_remedy(self):
        wishes = [({'SIZE': '3'}, 'SIZE=3 is not a size'),
                  ({'SIZE': '700M'}, 'SIZE=700M is not a multiple of 512M'),
                  ({'SIZE': '0G'}, 'SIZE=0G is not a multiple of 512M'),
                  ({'SIZE': '999999G'}, 'needs 1000000.00 GiB of host memory'),
                  ({'ACCEL': 'xen'}, 'ACCEL=xen is neither tcg nor kvm')]
        for env, complaint in wishes:
            demo = self.run_demo(**env)
            self.assertEqual(demo.returncode, 1)
            self.assertIn(complaint, demo.stderr)
            self.assertRegex(demo.stderr, '(run with|:) [A-Z]+=')
            self.assertEqual(demo.stdout, '')
            self.assert_nothing_left()


if __name__ == '__main__':
    virtio_mem_tap.main()
