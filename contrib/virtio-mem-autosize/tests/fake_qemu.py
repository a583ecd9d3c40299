# SPDX-License-Identifier: GPL-2.0-or-later
"""
A QMP server with a simulated guest behind it.
"""

import asyncio
import json

from simulated_vm import GiB

GREETING = {'QMP': {'version': {'qemu': {'major': 10, 'minor': 0, 'micro': 0},
                                'package': ''}, 'capabilities': []}}
TOP = '/machine/peripheral'


class FakeQEMU:
    """Serves one monitor; use it as an asynchronous context manager."""

    def __init__(self, vm, path, modes=False, balloon=True, reporting=True,
                 devices=('vm0',)):
        self.vm = vm
        self.path = path
        self.hangs = False
        self.sets = []                  # (property, value)
        self.properties = {'guest-stats-polling-interval': 0,
                           'free-page-reporting': reporting}
        if modes:
            self.properties |= {'resize-mode': 'plain', 'resize-reserve': 0}
        self._modes = modes
        self._kinds = {name: 'virtio-mem-pci' for name in devices}
        if balloon:
            self._kinds['balloon0'] = 'virtio-balloon-pci'
        self._server = None
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
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
        """Serve again."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

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
        """List devices, or properties."""
        if path == TOP:
            return [{'name': name, 'type': f'child<{kind}>'}
                    for name, kind in self._kinds.items()]
        names = ['resize-mode', 'resize-reserve'] if self._modes else []
        return [{'name': name, 'type': 'str'} for name in names]

    def do_qom_get(self, path, property):
        """Look at a property."""
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
        if path == f'{TOP}/balloon0' or property.startswith('resize-'):
            self.properties[property] = value
        elif property == 'requested-size':
            self.vm.wish = value
        else:
            raise LookupError(f"Property '{path}.{property}' not found")
        self.sets.append((property, value))

    def do_query_memory_devices(self):
        """Show the device."""
        return [{'type': 'virtio-mem', 'data': {
            'memaddr': GiB, 'max-size': self.vm.largest,
            'block-size': self.vm.block}}]

    def do_query_memory_size_summary(self):
        """Show all memory."""
        return {'base-memory': self.vm.boot, 'plugged-memory': self.vm.plugged}
