"""tmux servers that are there to be killed: started side by side, ended by number."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground import Ground
from circus_failover import process_table
from circus_failover.process_table import ProcessId

TIMEOUT_SECS = 30.0
AT_ONCE = 8
"""How many servers are started side by side."""


@dataclass(frozen=True)
class Server:
    """A tmux server of its own, with a session in which nothing happens."""

    number: int
    socket: Path
    process: ProcessId


class Servers:
    """Starts tmux servers, several side by side; the ground ends them."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._sockets = ground.started("sockets")
        self._count = 0

    def start(self, count: int) -> list[Server]:
        """Return so many new servers."""
        numbers = range(self._count, self._count + count)
        self._count += count
        with ThreadPoolExecutor(AT_ONCE) as starters:
            return list(starters.map(self._start, numbers))

    def _start(self, number: int) -> Server:
        path = self._sockets / f"{number}.sock"
        command = ["tmux", "-S", str(path), "-f", "/dev/null", "new-session", "-d", "-P", "-F", "#{pid}"]
        told = subprocess.run(
            [*command, "sleep", "100000"],
            env=self._ground.environment,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_SECS,
            check=True,
        )
        pid = int(told.stdout)
        process = process_table.identify(pid)
        if process is None:
            raise RuntimeError(f"the server of {path} (pid {pid}) is gone already")
        return Server(number, path, process)


def kill(servers: Sequence[Server]) -> list[int]:
    """End servers by SIGKILL, one right after the other; return the epoch nanoseconds just before each.

    Raises:
        RuntimeError: one had ended before.
    """
    handles = [os.pidfd_open(server.process.pid) for server in servers]
    try:
        if not all(process_table.alive(server.process) for server in servers):
            raise RuntimeError("a server has ended that was to be killed")
        times = []
        for handle in handles:
            times.append(time.time_ns())
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return times
    finally:
        for handle in handles:
            os.close(handle)
