"""Ticks with a clock for CPU around each, and a count of the programs that are started.

Run in a process of its own, of which nothing else is measured:
`timed_ticks.py CLASS ENDPOINT PUBSUB_ENDPOINT TICKS` runs a plugin as Circus runs it and changes nothing but
wraps its tick; `timed_ticks.py naive STORE` looks once at every agent of a store as one would in a script:
one tmux client and one look at the process table an agent. At its end it prints JSON: `cpu` and `clock`,
lists of seconds, the first tick first, and `programs`, how many were started. CPU includes that of children,
once they have ended.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

INTERVAL_SECS = 0.3
"""Between the starts of two ticks."""
# By which Python says that it starts another process (PEP 578; "Audit events table", Python 3.10 to 3.13).
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"})
started: list[str] = []


def heard(event: str, details: tuple[Any, ...]) -> None:
    """Note the start of a process."""
    if event in _STARTS:
        started.append(event)


class Stopwatch:
    """Collects what ticks take."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.clock: list[float] = []
        self._begun = (0.0, 0.0)

    def begin(self) -> None:
        """A tick begins."""
        self._begun = _used(), time.perf_counter()

    def end(self) -> None:
        """It has ended."""
        self.clock.append(time.perf_counter() - self._begun[1])
        self.cpu.append(_used() - self._begun[0])


def _used() -> float:
    """Return the CPU seconds of all threads of this process and of its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_plugin(watch: Stopwatch, name: str, endpoint: str, pubsub_endpoint: str, ticks: int) -> None:
    """Run a plugin until it has ticked so many times."""
    from circus.util import resolve_name

    made = resolve_name(f"circus_failover.plugins.{name}")
    plugin = made(endpoint, pubsub_endpoint, 1.0, interval=str(INTERVAL_SECS))
    one_tick = plugin._one_tick

    async def timed(begun: float) -> None:
        watch.begin()
        await one_tick(begun)
        watch.end()
        if len(watch.cpu) == ticks:
            plugin.stop()

    plugin._one_tick = timed
    plugin.start()


def run_naive(watch: Stopwatch, store: Path) -> None:
    """Look at every agent once: is its session there, does its process run?

    Raises:
        RuntimeError: it is not so.
    """
    from circus_failover import process_table
    from circus_failover.store import open_reader

    reader = open_reader(store)
    rows = reader.agents().values()
    reader.close()
    watch.begin()
    for row in rows:
        client = ["tmux", "-S", str(row.socket), "has-session", "-t", f"={row.session}"]
        there = subprocess.run(client, stdin=subprocess.DEVNULL, check=False).returncode == 0
        if not there or row.pid not in process_table.table():
            raise RuntimeError(f"{row.identity} is not there")
    watch.end()


if __name__ == "__main__":
    sys.addaudithook(heard)
    measuring = Stopwatch()
    if sys.argv[1] == "naive":
        run_naive(measuring, Path(sys.argv[2]))
    else:
        run_plugin(measuring, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print(json.dumps({"cpu": measuring.cpu, "clock": measuring.clock, "programs": len(started)}))
