# SPDX-License-Identifier: GPL-2.0-or-later
"""
Calls that block, beside the event loop.

asyncio's threads will not do: the program ends when they have, and a few that
hang keep all others from their turn.
"""

import asyncio
import concurrent.futures
import threading

from guest import GuestError, PATIENCE


def _run(future, function, arguments):
    try:
        future.set_result(function(*arguments))
    except Exception as error:          # pylint: disable=broad-except
        future.set_exception(error)


class Caller:
    """Has one call at a time, and waits for it no longer than others can."""

    def __init__(self, name):
        self._name = name
        self._call = None
        self._hangs = False             # it was waited for

    async def call(self, function, *arguments):
        """Return what a function returns, or raise what it raises."""
        if self._call and not self._call.done():
            await self._wait_before()
        self._call = concurrent.futures.Future()
        self._call.set_running_or_notify_cancel()
        threading.Thread(target=_run, args=(self._call, function, arguments),
                         daemon=True).start()
        await self._wait()
        return self._call.result()

    async def _wait_before(self):
        """A task that was cancelled leaves a call behind."""
        if self._hangs:
            raise GuestError(f'{self._name} still does not answer')
        await self._wait()

    async def _wait(self):
        done = asyncio.wrap_future(self._call)
        self._hangs = not (await asyncio.wait([done], timeout=PATIENCE))[0]
        if self._hangs:
            raise GuestError(f'no answer from {self._name} in {PATIENCE} s')
        # Who called for it has it, or went away.
        done.exception()
