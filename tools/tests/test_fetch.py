# SPDX-License-Identifier: GPL-2.0-or-later
"""What is fetched, from mirrors that lack what real ones lack."""

import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

import virtio_mem_tap

FETCH = Path(__file__).resolve().parent.parent / 'fetch'


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Mirror(unittest.TestCase):
    """A directory that apt reads, with an index of what may be gone."""

    CONF = """
        Dir::Etc::SourceList "{apt}/sources.list";
        Dir::Etc::SourceParts "/dev/null";
        Dir::Etc::Parts "/dev/null";
        Dir::State "{apt}";
        Dir::State::Lists "{apt}/lists";
        Dir::State::status "{apt}/status";
        Dir::Cache "{apt}/cache";
        APT::Architecture "{arch}";
        APT::Architectures {{ "{arch}"; }};
        APT::Sandbox::User "root";
        """

    def setUp(self):
        for program in 'dpkg-source', 'dpkg-scanpackages', 'apt-get':
            if not shutil.which(program):
                self.skipTest(f'{program} is missing: tools/bootstrap')
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.build, self.mirror, self.work = (
            Path(tmp.name, d) for d in ('build', 'mirror', 'work'))
        self.mirror.mkdir()
        self.set_up_apt('apt', 'amd64')
        self.set_up_apt('apt-arm64', 'arm64')

    def set_up_apt(self, folder, arch, mirror=None):
        """Let apt know the mirror, or another one, and nothing else."""
        apt = self.build / folder
        for folder in 'lists/partial', 'cache/archives/partial':
            (apt / folder).mkdir(parents=True)
        write(apt / 'status', '')
        write(apt / 'sources.list', ''.join(
            f'{kind} [trusted=yes] copy:{mirror or self.mirror} ./\n'
            for kind in ('deb', 'deb-src')))
        # Newer than tools/apt-isolated, which therefore makes none of its own.
        write(apt / 'apt.conf', self.CONF.format(apt=apt, arch=arch))

    def add_source(self, version):
        """Put a source package of QEMU into the mirror."""
        upstream = version.partition('-')[0]
        tree = self.work / f'qemu-{upstream}'
        write(tree / 'VERSION', f'{upstream.partition("+")[0]}\n')
        with lzma.open(self.mirror / f'qemu_{upstream}.orig.tar.xz', 'w') \
                as packed, tarfile.open(fileobj=packed, mode='w') as archive:
            archive.add(tree, tree.name)
        write(tree / 'debian/source/format', '3.0 (quilt)\n')
        write(tree / 'debian/control',
              'Source: qemu\nMaintainer: T <t@t>\n\n'
              'Package: qemu\nArchitecture: all\nDescription: it\n')
        write(tree / 'debian/changelog',
              f'qemu (1:{version}) unstable; urgency=low\n\n  * It.\n\n'
              ' -- T <t@t>  Sat, 01 Jan 2022 00:00:00 +0000\n')
        shutil.copy(self.mirror / f'qemu_{upstream}.orig.tar.xz', self.work)
        self.run_quietly('dpkg-source', '-b', tree.name, cwd=self.work)
        for path in self.work.glob(f'qemu_{version}.*'):
            shutil.copy(path, self.mirror)

    def add_package(self, name, files, depends='', arch='amd64', version='1'):
        """Put a binary package into the mirror."""
        top = self.work / f'{name}-{arch}'
        shutil.rmtree(top, ignore_errors=True)
        for path in files:
            write(top / path, f'{path} {arch}\n')
        write(top / 'DEBIAN/control',
              f'Package: {name}\nVersion: {version}\nArchitecture: {arch}\n'
              f'Maintainer: T <t@t>\nDescription: it\n'
              f'{depends and "Depends: " + depends}\n')
        # Names as in a pool, without the epoch.
        name = f'{name}_{version.rpartition(":")[2]}_{arch}.deb'
        self.run_quietly('dpkg-deb', '-b', top, self.mirror / name)

    @staticmethod
    def run_quietly(*command, **kwargs):
        return subprocess.run(command, check=True, text=True,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, **kwargs).stdout

    def publish(self, *gone):
        """Make the index, and then lose the files of some names."""
        for kind, tool, *options in (
                ('Sources', 'dpkg-scansources'),
                ('Packages', 'dpkg-scanpackages', '--multiversion')):
            write(self.mirror / kind,
                  self.run_quietly(tool, *options, '.', cwd=self.mirror))
        for pattern in gone:
            for path in self.mirror.glob(pattern):
                path.unlink()

    def fetch(self, what, status=0):
        """Run tools/fetch, return what it says."""
        env = {**os.environ, 'BUILD': str(self.build)}
        env.pop('QEMU_SRC', None)
        run = subprocess.run([FETCH, what], check=False, text=True, env=env,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, status, run.stdout)
        return run.stdout

    def base(self):
        return (self.build / 'base/VERSION').read_text().strip()

    # The source of QEMU

    def add_sources(self):
        for version in '10.0.2+ds-1', '10.0.13+ds-1', '11.1.0+ds-1':
            self.add_source(version)

    def test_newest_of_the_series_is_taken(self):
        self.add_sources()
        self.publish()
        self.fetch('base')
        self.assertEqual(self.base(), '10.0.13')

    def test_older_one_is_taken_when_the_newest_is_gone(self):
        self.add_sources()
        self.publish('qemu_10.0.13*')
        said = self.fetch('base')
        self.assertIn('source package qemu 1:10.0.13+ds-1', said)
        self.assertEqual(self.base(), '10.0.2')

    def test_tarball_alone_is_enough(self):
        self.add_sources()
        self.publish('*.dsc', '*.debian.tar.xz', 'qemu_10.0.13*orig*')
        self.assertIn("upstream's tarball of qemu 1:10.0.2+ds-1 alone",
                      self.fetch('base'))
        self.assertEqual(self.base(), '10.0.2')

    def test_tarball_that_is_not_the_listed_one_is_refused(self):
        self.add_source('10.0.13+ds-1')
        self.publish('*.dsc', '*.debian.tar.xz')
        tarball = self.mirror / 'qemu_10.0.13+ds.orig.tar.xz'
        tarball.write_bytes(tarball.read_bytes() + b'x')
        self.fetch('base', status=1)
        self.assertFalse((self.build / 'base').exists())

    def test_all_that_was_tried_is_said(self):
        self.add_sources()
        self.publish('qemu_10.0.*')
        said = self.fetch('base', status=1)
        self.assertIn('can download neither a source package nor upstream\'s '
                      'tarball of qemu 1:10.0.13+ds-1 1:10.0.2+ds-1;', said)
        self.assertIn('QEMU_SRC=DIR', said)

    def test_no_listed_version_is_said(self):
        self.add_source('11.1.0+ds-1')
        self.publish()
        self.assertIn('found no source package qemu 10.0.x',
                      self.fetch('base', status=1))

    def test_what_was_downloaded_needs_no_mirror(self):
        self.add_sources()
        self.publish()
        self.fetch('base')
        shutil.rmtree(self.build / 'debian-qemu')
        (self.build / 'base').unlink()
        self.publish('*')
        self.assertIn('downloaded before', self.fetch('base'))
        self.assertEqual(self.base(), '10.0.13')

    # Kernels

    def add_kernel(self, version, split):
        """A kernel in one package, or in the parts that Debian makes of it."""
        image, depends = f'linux-image-{version}', ''
        modules = f'usr/lib/modules/{version}'
        if split:
            self.add_package(f'linux-binary-{version}', [f'{modules}/vmlinuz'])
            self.add_package(f'linux-modules-{version}',
                             [f'{modules}/kernel/lib/x.ko.xz'])
            self.add_package(f'linux-base-{version}',
                             [f'{modules}/modules.builtin'])
            self.add_package('linux-base', ['usr/bin/linux-version'])
            self.add_package(image, [f'usr/share/doc/{image}/copyright'],
                             f'linux-base (>= 4.12~), linux-base-{version}, '
                             f'linux-binary-{version} (= 1), '
                             f'linux-modules-{version} (= 1)')
        else:
            self.add_package(image, [f'boot/vmlinuz-{version}',
                                     f'{modules}/modules.builtin'], depends)
        self.add_package('linux-image-cloud-amd64', ['usr/share/doc/x'], image)
        self.add_package('busybox-static', ['usr/bin/busybox'])

    def test_kernel_is_found_in_one_package_and_in_several(self):
        for split in False, True:
            with self.subTest(split=split):
                self.add_kernel('7.2.13-cloud-amd64', split)
                self.publish()
                self.fetch('guest')
                guest = self.build / 'guest'
                self.assertIn('7.2.13', (guest / 'vmlinuz').read_text())
                self.assertTrue((guest / 'modules/modules.builtin').exists())
                self.assertTrue((guest / 'busybox').exists())
                for folder in 'guest', 'pkg', 'apt/lists', 'download':
                    shutil.rmtree(self.build / folder)
                (self.build / 'apt/lists/partial').mkdir(parents=True)
                (self.build / 'apt/updated').unlink()

    def test_arm64_guest_is_fetched_beside_the_other(self):
        self.add_kernel('6.12.1-cloud-amd64', split=False)
        name = 'linux-image-6.12.1-cloud-arm64'
        self.add_package(name, ['boot/vmlinuz-6.12.1-cloud-arm64',
                                'usr/lib/modules/6.12.1/modules.builtin'],
                         arch='arm64')
        self.add_package('linux-image-cloud-arm64', ['x'], name, 'arm64')
        self.add_package('busybox-static', ['usr/bin/busybox'], arch='arm64')
        self.add_package('qemu-efi-aarch64', ['usr/share/QEMU_EFI.fd'],
                         arch='all')
        self.publish()
        for what, arch in ('guest-arm64', 'arm64'), ('guest', 'amd64'):
            self.fetch(what)
            for part in 'vmlinuz', 'busybox':
                self.assertIn(arch, (self.build / what / part).read_text())
        self.assertTrue((self.build / 'guest-arm64/firmware.fd').exists())

    def test_s390x_guest_comes_with_the_source_of_a_driver(self):
        version = '7.2.12+deb14'
        modules = f'usr/lib/modules/{version}-s390x'
        self.add_package(f'linux-image-{version}-s390x', [
            f'{modules}/vmlinuz', f'{modules}/modules.builtin'], arch='s390x')
        self.add_package('linux-image-s390x', ['x'],
                         f'linux-image-{version}-s390x', 's390x')
        self.add_package('busybox-static', ['usr/bin/busybox'], arch='s390x')
        for part, arch in ('s390x', 's390x'), ('common', 'all'):
            name = f'linux-headers-{version}-{part}'
            self.add_package(name, [f'usr/src/{name}/Makefile'], arch=arch)
        self.add_linux_source('7.2')
        self.publish()
        self.set_up_apt('apt-s390x-forky', 's390x')
        self.fetch('guest-s390x')
        guest = self.build / 'guest-s390x'
        for path in ('vmlinuz', 'busybox', 'headers/Makefile',
                     'headers-s390x/Makefile', 'scripts/module-common.c',
                     'drivers/virtio/virtio_mem.c'):
            self.assertTrue((guest / path).exists() or
                            (guest / 'source' / path).exists(), path)
        self.assertFalse((guest / 'source/Makefile').exists())

    def add_linux_source(self, series):
        """Linux's source is an archive in a package."""
        name = f'linux-source-{series}'
        archive = f'usr/src/{name}.tar.xz'
        self.add_package(name, [archive], arch='all')
        for path in ('Makefile', 'scripts/module-common.c',
                     'drivers/virtio/virtio_mem.c'):
            write(self.work / name / path, '')
        top = self.work / f'{name}-all'
        self.run_quietly('tar', '-cJf', top / archive, name, cwd=self.work)
        self.run_quietly('dpkg-deb', '-b', top,
                         self.mirror / f'{name}_1_all.deb')

    def test_large_pages_come_with_another_flavour(self):
        for flavour in 'cloud-arm64', 'arm64-16k':
            name = f'linux-image-6.12.1-{flavour}'
            self.add_package(name, [f'boot/vmlinuz-6.12.1-{flavour}',
                                    'usr/lib/modules/6.12.1/modules.builtin'],
                             arch='arm64')
            self.add_package(f'linux-image-{flavour}', ['x'], name, 'arm64')
        self.add_package('busybox-static', ['usr/bin/busybox'], arch='arm64')
        self.publish()
        self.fetch('guest-arm64-16k')
        self.assertIn('16k', (self.build / 'guest-arm64-16k/vmlinuz'
                              ).read_text())

    def test_what_cannot_be_had_is_told_and_all_else_goes_on(self):
        self.publish()
        env = {name: value for name, value in os.environ.items()
               if 'GUEST' not in name and 'MAKE' not in name}
        for target in 'old-guest', 'guest-arm64':
            for prefix, status in ('', 2), ('maybe-', 0):
                run = subprocess.run(
                    ['make', '-C', FETCH.parent.parent, prefix + target],
                    check=False, text=True, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**env, 'BUILD': str(self.build)})
                self.assertEqual(run.returncode, status, run.stdout)
                self.assertRegex(run.stdout, 'found no guest kernel for .*; '
                                             'tried, of copy:')

    def test_package_without_a_kernel_is_told(self):
        self.add_kernel('7.2.13-cloud-amd64', split=False)
        self.add_package('linux-image-7.2.13-cloud-amd64',
                         ['usr/lib/modules/7.2.13/modules.builtin'])
        self.publish()
        self.assertIn('found no kernel in', self.fetch('guest', status=1))

    # Newer programs

    def add_newest(self, version):
        """QEMU of Debian's, which is nothing without its C library."""
        self.add_package('libc6', ['lib64/ld-linux-x86-64.so.2'])
        self.add_package('qemu-system-x86', ['usr/bin/qemu-system-x86_64'],
                         'libc6', version=version)

    def set_up_suites(self, *names, mirror=None):
        for name in names:
            self.set_up_apt(f'apt-{name}', 'amd64', mirror)

    def test_newest_qemu_comes_with_all_it_needs(self):
        self.add_newest('1:10.0.13+ds-1')
        self.add_newest('1:11.1.3+ds-1')
        self.publish()
        self.set_up_suites('trixie-backports')
        self.assertIn('qemu-system-x86=1:11.1.3+ds-1',
                      self.fetch('stock-next'))
        usr = self.build / 'pkg/stock-next/usr'
        for name in 'bin/qemu-system-x86_64', 'lib64/ld-linux-x86-64.so.2':
            self.assertTrue((usr / name).exists())
        program = self.build / 'stock-next/qemu-system-x86_64'
        self.assertTrue(os.access(program, os.X_OK))
        # What was unpacked needs no mirror, and runs anew.
        program.unlink()
        self.publish('*')
        self.fetch('stock-next')
        self.assertTrue(program.exists())

    def test_next_suite_is_asked_when_the_newest_is_gone(self):
        self.add_newest('1:11.1.2+ds-3')
        self.publish()
        older = self.work / 'older'
        shutil.copytree(self.mirror, older)
        self.set_up_suites('forky', 'sid', mirror=older)
        self.add_newest('1:11.1.3+ds-1')
        self.publish('qemu-system-x86*')
        self.set_up_suites('trixie-backports')
        said = self.fetch('stock-next')
        self.assertIn('qemu-system-x86=1:11.1.3+ds-1', said)
        self.assertIn('qemu-system-x86=1:11.1.2+ds-3', said)
        self.assertTrue((self.build / 'pkg/stock-next').exists())

    def test_without_a_newer_one_all_that_was_tried_is_said(self):
        self.add_newest('1:10.0.13+ds-1')
        self.publish()
        self.set_up_suites('trixie-backports', 'forky', 'sid')
        said = self.fetch('stock-next', status=1)
        self.assertIn('can download no package qemu-system-x86 that is newer '
                      'than 1:10.0.: ', said)
        self.assertEqual(said.count('No newer one is listed; tried, of '), 4)
        self.assertFalse((self.build / 'stock-next').exists())

    def test_parts_of_libvirt_are_of_one_version(self):
        names = ('libvirt-daemon', 'libvirt-clients',
                 'libvirt-daemon-driver-qemu')
        for name in names:
            self.add_package(name, [f'usr/{name}'], version='11.3.0-3')
        self.publish()
        debian13 = self.work / 'debian13'
        shutil.copytree(self.mirror, debian13)
        for name in names:
            self.add_package(name, [f'usr/{name}'], version='12.9.0-1')
        self.publish(f'{names[-1]}_12*')
        self.set_up_suites('trixie-backports', 'forky', 'sid')
        write(self.build / 'apt/sources.list',
              f'deb [trusted=yes] copy:{debian13} ./\n')
        said = self.fetch('libvirt-next')
        for version in '12.9.0-1', '11.3.0-3':
            self.assertIn(' '.join(f'{name}={version}' for name in names), said)
        self.assertEqual(len(list((self.build / 'download/libvirt-next').glob(
            '*_11.3.0-3_*.deb'))), len(names))


class GuestImage(unittest.TestCase):
    """tools/guest-image says what fetches a part that is not there."""

    def test_part_that_is_missing_is_told_by_any_name_of_the_guest(self):
        top = FETCH.parent.parent
        for guest in 'build/guest-none', top / 'build/guest-none':
            run = subprocess.run(['tools/guest-image', guest], cwd=top,
                                 text=True, check=False,
                                 stderr=subprocess.PIPE)
            self.assertEqual(run.returncode, 1)
            self.assertRegex(run.stderr, '^guest-image: .*/busybox is missing: '
                                         'run "tools/fetch guest-none"$')


class QemuSrc(unittest.TestCase):
    """QEMU_SRC takes an unpacked QEMU 10.0.x, or of a series with a folder."""

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.build = Path(tmp.name, 'build')
        self.source = Path(tmp.name, 'qemu')
        self.build.mkdir()

    def fetch(self, program=FETCH):
        return subprocess.run(
            [program, 'base'], check=False, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={
                **os.environ, 'BUILD': str(self.build),
                'QEMU_SRC': str(self.source)})

    def test_10_0_is_taken_where_it_is(self):
        self.source.mkdir()
        (self.source / 'VERSION').write_text('10.0.3\n')
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual((self.build / 'base').resolve(),
                         self.source.resolve())

    def test_other_version_is_refused(self):
        self.source.mkdir()
        (self.source / 'VERSION').write_text('9.2.0\n')
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('is QEMU 9.2.0, this needs a 10.0.x', run.stdout)

    def test_series_with_a_folder_is_taken(self):
        project = self.build.parent / 'project'
        shutil.copytree(FETCH.parent, project / 'tools')
        write(self.source / 'VERSION', '11.1.3\n')
        run = self.fetch(project / 'tools/fetch')
        self.assertIn('is QEMU 11.1.3, this needs a 10.0.x, or a folder '
                      'bases/11.1 of what is different there', run.stdout)
        (project / 'bases/11.1').mkdir(parents=True)
        self.assertEqual(self.fetch(project / 'tools/fetch').returncode, 0)
        self.assertEqual((self.build / 'base').resolve(),
                         self.source.resolve())

    def test_directory_that_is_no_qemu_is_refused(self):
        self.source.mkdir()
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('has no file VERSION', run.stdout)

    def test_missing_directory_is_refused(self):
        run = self.fetch()
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('no such directory', run.stdout)


if __name__ == '__main__':
    virtio_mem_tap.main()
