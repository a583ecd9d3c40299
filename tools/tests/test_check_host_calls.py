# SPDX-License-Identifier: GPL-2.0-or-later
"""A call to the host without a row, and a row without a call, are found."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import program
import virtio_mem_tap

TOOL = Path(__file__).resolve().parents[1] / 'check-host-calls'
check = program.load('check-host-calls')

CODE = '''
/* mmap() is not called here. */
int virtio_mem_x_take(void *host, uint64_t size,
                      int fd)
{
    say("nor open()");
    if (madvise(host, size, 1)) {
        return -errno;
    }
    madvise(host, size, 2);
    close(fd);
    return vmem->read(fd) + x.write(fd) + my_open(fd);
}

static VirtIOMEMVerdict coroutine_fn
x_give(int fd)
{
    return uffd_create_fd(open("/dev/x", fd), true);
}
'''

TABLE = '''# A comment

== virtio-mem-x.c
virtio_mem_x_take madvise: BUSY [fault/anonymous fault/memfd]
virtio_mem_x_take madvise: nothing (not tested: reason)
x_give open: nothing [fault/anonymous]
x_give uffd_create_fd: no guard [fault/anonymous]
'''


class CheckHostCalls(unittest.TestCase):

    def check(self, code=CODE, table=TABLE):
        """Return (status, what is said) for a file and its table."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in (('hw/virtio/virtio-mem-x.c', code),
                               (check.TABLE, table)):
                (Path(root) / path).parent.mkdir(parents=True)
                (Path(root) / path).write_text(text)
            run = subprocess.run([TOOL, root], text=True, check=False,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        return run.returncode, run.stdout

    def assert_mistake(self, mistake, **changed):
        status, said = self.check(**changed)
        self.assertEqual(status, 1)
        self.assertIn(mistake, said)
        self.assertEqual(said.count('\n'), 1, said)

    def test_the_device_has_a_row_for_each_call(self):
        run = subprocess.run([TOOL], text=True, check=False,
                             stdout=subprocess.PIPE)
        self.assertEqual((run.returncode, run.stdout), (0, ''))

    def test_calls_of_a_file(self):
        self.assertEqual(list(check.calls_of(CODE)), [
            ('virtio_mem_x_take', 'madvise'), ('virtio_mem_x_take', 'madvise'),
            ('x_give', 'uffd_create_fd'), ('x_give', 'open')])

    def test_complete_table_is_silent(self):
        self.assertEqual(self.check(), (0, ''))

    def test_a_new_call_needs_a_row(self):
        self.assert_mistake(
            'virtio-mem-x.c: x_give() calls fallocate(), which has no row',
            code=CODE.replace('return uffd', 'fallocate(fd); return uffd'))

    def test_a_second_call_of_a_kind_needs_a_row(self):
        self.assert_mistake(
            'virtio_mem_x_take() calls madvise(), which has no row',
            code=CODE.replace('close(fd)', 'madvise(host, size, 3)'))

    def test_a_row_without_a_call(self):
        self.assert_mistake('virtio-mem-x.c: x_give() does not call mmap()',
                            table=TABLE + 'x_give mmap: no [fault/memfd]\n')

    def test_a_test_that_does_not_exist(self):
        self.assert_mistake('x_give open: no such test: fault/unheard-of',
                            table=TABLE.replace('nothing [fault/anonymous]',
                                                'nothing [fault/unheard-of]'))

    def test_a_row_without_a_test(self):
        self.assert_mistake(
            f'{check.TABLE}:6: wants "function call: what then [test ...]"',
            table=TABLE.replace('nothing [fault/anonymous]', 'nothing'))


if __name__ == '__main__':
    virtio_mem_tap.main()
