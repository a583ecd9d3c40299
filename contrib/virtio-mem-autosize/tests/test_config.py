# SPDX-License-Identifier: GPL-2.0-or-later
"""What users of virtio-mem-autosize can ask for, and what makes no sense."""

import tempfile
import unittest

import virtio_mem_tap
from config import ConfigError, configure, parse_port

MiB, GiB = 1 << 20, 1 << 30


class Configuration(unittest.TestCase):

    def file(self, text):
        """Write a file, return the option that names it."""
        file = tempfile.NamedTemporaryFile('w', encoding='utf-8')
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return f'--config={file.name}'

    def assert_refused(self, words, *arguments):
        with self.assertRaises(ConfigError) as caught:
            configure(arguments)
        self.assertIn(words, str(caught.exception))

    def test_command_line(self):
        config = configure(['--host-free', '2G', '--dry-run', '/run/a',
                            '/run/b,min=512M,max=8G,share=2,device=vm1,'
                            'unit=256M,caches=keep'])
        self.assertEqual((config.host_free, config.dry_run, config.once),
                         (2 * GiB, True, False))
        first, second = config.guests
        self.assertEqual((first.address, first.uri, first.least, first.most,
                          first.share, first.keeps_caches, first.reporting),
                         ('/run/a', None, 0, None, 1, False, True))
        self.assertEqual((second.least, second.most, second.share,
                          second.device, second.unit, second.keeps_caches),
                         (512 * MiB, 8 * GiB, 2, 'vm1', 256 * MiB, True))

    def test_libvirt(self):
        config = configure(['--connect', 'qemu:///system', 'web', 'db,max=4G'])
        self.assertEqual([(guest.address, guest.uri)
                          for guest in config.guests],
                         [('web', 'qemu:///system'), ('db', 'qemu:///system')])

    def test_file_says_it_in_the_same_words(self):
        config = configure([self.file('''
            [host]
            free = 3G
            [guest web]
            monitor = /run/web
            max = 8G
            [guest db]
            domain = db
            share = 3
            '''.replace('\n            ', '\n'))])
        web, database = config.guests
        self.assertEqual(config.host_free, 3 * GiB)
        self.assertEqual((web.name, web.address, web.uri, web.most),
                         ('web', '/run/web', None, 8 * GiB))
        self.assertEqual((database.name, database.uri, database.share),
                         ('db', 'qemu:///system', 3))

    def test_command_line_wins(self):
        option = self.file('[host]\nfree = 3G\n')
        config = configure([option, '--host-free', '1G', '/run/a'])
        self.assertEqual(config.host_free, 1 * GiB)

    def test_what_makes_no_sense(self):
        self.assert_refused('no guest is named')
        self.assert_refused('/run/a: min=2x: a size is', '/run/a,min=2x')
        self.assert_refused('host-free=much: a size is', '--host-free=much',
                            '/run/a')
        self.assert_refused('min=2G is more than max=1G', '/run/a,min=2G,'
                            'max=1G')
        self.assert_refused('share=0: a share is', '/run/a,share=0')
        self.assert_refused('unit=100M: a unit is', '/run/a,unit=100M')
        self.assert_refused('caches=some: caches are', '/run/a,caches=some')
        self.assert_refused('size is unknown; there are: min, max',
                            '/run/a,size=1G')
        self.assert_refused('"min" is no KEY=VALUE', '/run/a,min')
        self.assert_refused('named twice: /run/a', '/run/a', '/run/a')

    def test_files_that_make_no_sense(self):
        self.assert_refused('No such file', '--config=/none')
        self.assert_refused('[guests] is neither', self.file('[guests]\n'))
        self.assert_refused('[host]: size is unknown',
                            self.file('[host]\nsize=1\n'))
        self.assert_refused('needs either monitor=SOCKET or domain=NAME',
                            self.file('[guest a]\nmax=1G\n'))
        self.assert_refused('no section headers', self.file('max=1G\n'))

    def test_numbers_are_of_ascii(self):
        self.assert_refused('share=\u00b2: a share is', '/run/a,share=\u00b2')
        self.assert_refused('min=\u0661G: a size is', '/run/a,min=\u0661G')
        # That is the name of a socket.
        self.assertIsNone(parse_port('host:\u00b2'))

    def test_ports(self):
        self.assertEqual(parse_port('localhost:4444'), ('localhost', 4444))
        self.assertEqual(parse_port('[::1]:4444'), ('::1', 4444))
        self.assertIsNone(parse_port('/run/a:4444'))
        self.assert_refused('a port is 65535 or less', 'localhost:65536')

    def test_guests_of_other_hosts(self):
        for argument in 'web.example.com:4444', '192.0.2.1:4444':
            self.assert_refused(f'{argument} is on another host', argument)
        self.assert_refused('is on another host, whose memory is not seen',
                            '--connect', 'qemu+ssh://root@web/system', 'a')
        for uri in 'qemu:///session', 'qemu+tcp://localhost/system':
            configure(['--connect', uri, 'a'])

    def test_what_is_there_twice(self):
        self.assert_refused('min is there twice', '/run/a,min=1G,min=2G')
        self.assert_refused('the monitor or domain of a guest is named twice',
                            self.file('[guest a]\nmonitor=/run/x\ndevice=a\n'
                                      '[guest b]\nmonitor=/run/../run/x\n'))

    def test_what_is_empty(self):
        self.assert_refused('a guest needs a name', ',min=1G')
        self.assert_refused('a guest needs a name',
                            self.file('[guest ]\nmonitor=/run/a\n'))
        self.assert_refused('host-free=: a size is', '--host-free=', '/run/a')
        self.assert_refused('host-free=: a size is', '/run/a',
                            self.file('[host]\nfree=\n'))


if __name__ == '__main__':
    virtio_mem_tap.main()
