# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of the whole tool have in common: monitors of simulated guests."""

import asyncio
import contextlib
import random
import tempfile
import unittest
from unittest import mock

import autosize
import budget
from config import configure
from fake_qemu import FakeQEMU
from qmp_guest import QMPGuest
from simulated_vm import GiB, MiB, SimulatedVM, STEP_S

HOST = budget.Host(64 * GiB, 48 * GiB, 4 * GiB)
LOW_HOST = budget.Host(64 * GiB, 12 * GiB, 4 * GiB)


class ToolCase(unittest.IsolatedAsyncioTestCase):
    """Half a second of the guests' time passes in each turn of the tool."""

    GUEST = QMPGuest

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.log = []
        self.vms = []
        self.now = 0
        # All monitors are in one process, but shall not seem to be.
        for patch in (mock.patch.object(autosize, 'INTERVAL', 0.02),
                      mock.patch.object(autosize, 'SHORT_INTERVAL', 0.02),
                      mock.patch.object(QMPGuest, 'process',
                                        lambda guest: None)):
            patch.start()
            self.addCleanup(patch.stop)

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)

    def fake(self, name='a', **options):
        """Make a QEMU with a guest that is fond of memory."""
        return FakeQEMU(self.vm(), f'{self.directory}/{name}', **options)

    def vm(self):
        """Make a guest that is fond of memory."""
        vm = SimulatedVM(random.Random(1))
        vm.late = 0
        vm.used = vm.target = 600 * MiB
        self.vms.append(vm)
        return vm

    def pass_time(self, host):
        """Let time pass; return the host as it is then."""
        self.now += STEP_S
        for vm in self.vms:
            vm.step()
        return host

    def tool(self, *arguments, host=HOST, log=None):
        """Make the tool."""
        return autosize.Autosize(configure(arguments), self.GUEST,
                                 log or self.log.append,
                                 lambda keep: self.pass_time(host),
                                 lambda: self.now)

    @contextlib.asynccontextmanager
    async def running(self, *arguments, **options):
        """Run the tool; in the end it is stopped, and must not fail."""
        tool = self.tool(*arguments, **options)
        task = asyncio.create_task(tool.run())
        try:
            yield tool
        finally:
            tool.stop()
            await asyncio.wait_for(task, 30)

    async def until(self, condition):
        """Wait for what must happen."""
        for _ in range(3000):
            if condition():
                return
            await asyncio.sleep(0.01)
        self.fail(self.log)

    def said(self, words):
        """Tell whether the log has words."""
        return any(words in line for line in self.log)

    def count(self, words):
        """Return how many lines of the log have words."""
        return sum(words in line for line in self.log)
