# SPDX-License-Identifier: GPL-2.0-or-later
"""
A QMP server with a simulated guest behind it.

With jobs=True it has memory-device-resize, else it is like stock QEMU.
"""

import asyncio
import json

from config import parse_port
from simulated_vm import GiB, WATCH_S

GREETING = {'QMP': {'version': {'qemu': {'major': 10, 'minor': 0, 'micro': 0},
                                'package': ''}, 'capabilities': []}}
TOP = '/machine/peripheral'


class FakeQEMU:
    """Serves one monitor; use it as an asynchronous context manager."""

    def __init__(self, vm, path, jobs=False, balloon=True, reporting=True,
                 devices=('vm0',)):
        self.vm = vm
        self.path = path
        self.hangs = False
        self.sets = []                  # (property, value)
        self.properties = {'guest-stats-polling-interval': 0,
                           'free-page-reporting': reporting}
        self._commands = ['memory-device-resize'] if jobs else []
        self.resizes = []               # the arguments of all jobs
        self.jobs = {}                  # job by id, the newest runs or ran
        self._progress = None           # (plugged, since)
        self._reached = None            # when the job did
        self._kinds = {name: 'virtio-mem-pci' for name in devices}
        if balloon:
            self._kinds['balloon0'] = 'virtio-balloon-pci'
        self._server = None
        self._writers = set()

    async def __aenter__(self):
        await self.come_back()
        return self

    async def __aexit__(self, *_):
        await self.go_away()

    async def go_away(self):
        """Close all, as a QEMU that ends."""
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await asyncio.sleep(0)

    async def come_back(self):
        """Serve, on a Unix socket or on a port."""
        where = parse_port(self.path)
        self._server = await (
            asyncio.start_server(self._serve, *where) if where else
            asyncio.start_unix_server(self._serve, self.path))

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        self._send(writer, GREETING)
        try:
            async for message in self._messages(reader):
                await self._answer(writer, message)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    @staticmethod
    async def _messages(reader):
        """Clients need not end messages in any way."""
        text = ''
        while data := await reader.read(1 << 16):
            text += data.decode()
            while text.strip():
                try:
                    message, end = json.JSONDecoder().raw_decode(text.lstrip())
                except ValueError:
                    break
                text = text.lstrip()[end:]
                yield message

    @staticmethod
    def _send(writer, message):
        writer.write(json.dumps(message).encode() + b'\n')

    async def _answer(self, writer, message):
        if self.hangs:
            return
        command = message['execute'].replace('-', '_')
        arguments = {key.replace('-', '_'): value for key, value in
                     message.get('arguments', {}).items()}
        try:
            answer = {'return': getattr(self, f'do_{command}')(**arguments)}
        except LookupError as error:
            answer = {'error': {'class': 'GenericError', 'desc': str(error)}}
        self._send(writer, answer | {'id': message.get('id')})

    # Commands

    @staticmethod
    def do_qmp_capabilities(**_):
        """Begin."""
        return {}

    def do_qom_list(self, path):
        """List devices."""
        if path == TOP:
            return [{'name': name, 'type': f'child<{kind}>'}
                    for name, kind in self._kinds.items()]
        return []

    def do_qom_get(self, path, property):
        """Look at a property."""
        self._follow()
        name = path.rpartition('/')[2]
        if property == 'guest-stats':
            return self._stats()
        known = self.properties | {'requested-size': self.vm.wish,
                                   'size': self.vm.plugged, 'memaddr': GiB}
        if name not in self._kinds or property not in known:
            raise LookupError(f"Property '{name}.{property}' not found")
        return known[property]

    def _stats(self):
        report = self.vm.report
        if not report or not self.properties['guest-stats-polling-interval']:
            return {'last-update': 0, 'stats': {}}
        stats = {'stat-total-memory': report.total,
                 'stat-available-memory': report.available,
                 'stat-free-memory': report.free,
                 'stat-disk-caches': report.caches,
                 'stat-swap-out': report.swap_out,
                 'stat-oom-kills': report.oom_kills,
                 'stat-alloc-stalls': (1 << 64) - 1}
        return {'last-update': 1000 + int(report.made), 'stats': stats}

    def do_qom_set(self, path, property, value):
        """Set a property."""
        self._follow()
        if path == f'{TOP}/balloon0':
            self.properties[property] = value
        elif property == 'requested-size':
            self._end_job('superseded')
            self.vm.wish = value
        else:
            raise LookupError(f"Property '{path}.{property}' not found")
        self.sets.append((property, value))

    def do_query_memory_devices(self):
        """Show the device."""
        self._follow()
        job = self._running()
        return [{'type': 'virtio-mem', 'data': {
            'memaddr': GiB, 'max-size': self.vm.largest,
            'block-size': self.vm.block, 'requested-size': self.vm.wish,
            'size': self.vm.plugged} | (
                {'resize-job': job['id']} if job else {})}]

    def do_query_memory_size_summary(self):
        """Show all memory."""
        return {'base-memory': self.vm.boot, 'plugged-memory': self.vm.plugged}

    # Jobs

    def do_query_commands(self):
        """List commands that not all QEMUs have."""
        return [{'name': name} for name in self._commands]

    def do_memory_device_resize(self, **arguments):
        """Start a job."""
        name = arguments['job_id']
        if name in self.jobs:
            raise LookupError(f"Job ID '{name}' already in use")
        if self._running():
            raise LookupError(f"'vm0' is resized by job "
                              f"'{self._running()['id']}' already")
        self.resizes.append(arguments)
        self.jobs[name] = {'id': name, 'status': 'running',
                           'type': 'memory-device-resize'}
        self.vm.wish = arguments['size']
        self._progress, self._reached = (self.vm.plugged, self.vm.now), None

    def do_query_jobs(self):
        """Show all jobs."""
        self._follow()
        return list(self.jobs.values())

    def do_job_cancel(self, id):
        """End it, and keep what it has reached."""
        self._follow()
        if self._running() is not self.jobs[id]:
            raise LookupError(f"Job '{id}' in state 'concluded' cannot accept "
                              "command verb 'cancel'")
        self._end_job('cancelled')

    def do_job_dismiss(self, id):
        """Forget it."""
        if self._running() is self.jobs[id]:
            raise LookupError(f"Job '{id}' in state 'running' cannot accept "
                              "command verb 'dismiss'")
        del self.jobs[id]

    def _running(self):
        return next((job for job in self.jobs.values()
                     if job['status'] == 'running'), None)

    def _follow(self):
        """A job ends when it is done, and when it comes no further."""
        if not self._running():
            return
        if self.vm.plugged == self.vm.wish:
            self._watch()
        elif self.vm.plugged != self._progress[0]:
            self._progress = self.vm.plugged, self.vm.now
        elif self.vm.now - self._progress[1] >= \
                self.resizes[-1]['stall_timeout']:
            self._end_job('guest-low-memory')

    def _watch(self):
        if self._reached is None:
            self._reached = self.vm.now
        elif self.vm.now - self._reached >= WATCH_S:
            self._running()['status'] = 'concluded'

    def _end_job(self, reason):
        job = self._running()
        if job:
            job |= {'status': 'concluded', 'error': f"'vm0' stays: {reason}"}
            self.vm.wish = self.vm.plugged
