"""Wait one's turn behind a running Circus command, instead of failing with ConflictError.

Circus runs one synchronised command at a time and refuses the rest (circus.util.synchronized, 0.19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from circus.exc import ConflictError

RETRY_SECS = 0.02


class Turns:
    """First come, first served, for everything of ours that needs Circus's one exclusive command."""

    def __init__(self, arbiter: Any) -> None:
        self._arbiter = arbiter
        self._queue = asyncio.Lock()

    async def run(self, command: Callable[[], Any]) -> Any:
        """Run `command` as soon as no other Circus command runs, and return what it returns.

        Args:
            command: calls a synchronised method of the arbiter or a watcher, and returns its future.

        Raises:
            ConflictError: circusd restarts itself, so that the command's objects are gone.
        """
        async with self._queue:
            while True:
                if self._arbiter._restarting:
                    raise ConflictError("circusd is restarting")
                if self._arbiter._exclusive_running_command is None:
                    try:
                        future = command()
                        break
                    except ConflictError:
                        pass
                await asyncio.sleep(RETRY_SECS)
            return await _outcome(future) if asyncio.isfuture(future) else future

    async def hold(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run `work` as Circus's one exclusive command, for what Circus offers only unsynchronised.

        Args:
            name: what a conflicting client is told that runs.
            work: the coroutine; Circus starts no other command and no periodic management meanwhile.
        """
        async with self._queue:
            while self._arbiter._exclusive_running_command is not None or self._arbiter._restarting:
                if self._arbiter._restarting:
                    raise ConflictError("circusd is restarting")
                await asyncio.sleep(RETRY_SECS)
            self._arbiter._exclusive_running_command = name
            try:
                return await work()
            finally:
                self._arbiter._exclusive_running_command = None


async def _outcome(future: Any) -> Any:
    """Wait for a future of Circus's.

    Its TransformableFuture (circus.util, 0.19) cannot be awaited: its done callback takes no context, and is
    never called when what it waits for fails. What it waits for can, and it says how the result is turned.
    """
    upstream = getattr(future, "_upstream_future", None)
    if upstream is None:
        return await future
    future._result = await upstream
    return future.result()
