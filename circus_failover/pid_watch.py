"""Tell circusd's loop at once when an agent's process ends, without polling, where the kernel can.

Speed only: every tick re-reads the process table, so a lost notice costs a delay and nothing else.
Linux 5.3+ has pidfds; elsewhere nothing is watched and the tick notices.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from circus_failover import process_table
from circus_failover.process_table import ProbeFailed, ProcessId


class PidWatch:
    """Pidfds of running agents on one loop."""

    def __init__(self, loop: Any, ended: Callable[[str], None]) -> None:
        """Args:
        loop: the tornado loop that circusd runs.
        ended: called with the identity of an agent whose process ended.
        """
        self._loop = loop
        self._ended = ended
        self._watched: dict[str, tuple[ProcessId, int]] = {}

    def watch(self, identity: str, process: ProcessId) -> None:
        """Watch an agent's process, in place of the one watched before."""
        held = self._watched.get(identity)
        if held is not None and held[0] == process:
            return
        self.forget(identity)
        if not hasattr(os, "pidfd_open"):
            return
        try:
            handle = os.pidfd_open(process.pid)
        except OSError:
            return
        try:
            same = process_table.alive(process)
        except ProbeFailed:
            same = False
        if not same:
            os.close(handle)
            return
        self._watched[identity] = (process, handle)
        self._loop.add_handler(handle, lambda fd, events: self._notice(identity), self._loop.READ)

    def watches(self, identity: str) -> bool:
        """Say whether an agent's end will be noticed without looking."""
        return identity in self._watched

    def _notice(self, identity: str) -> None:
        self.forget(identity)
        self._ended(identity)

    def forget(self, identity: str) -> None:
        """Stop watching an agent's process."""
        held = self._watched.pop(identity, None)
        if held is not None:
            self._loop.remove_handler(held[1])
            os.close(held[1])

    def close(self) -> None:
        """Stop watching everything."""
        for identity in list(self._watched):
            self.forget(identity)
