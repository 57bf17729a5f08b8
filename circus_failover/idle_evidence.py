"""Gathers what the idle policy decides by: the terminal at hardly a cost, clients and tools at some.

Nothing is decided here. What cannot be told is None or a probe that failed, never "idle".
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import process_table, tmux
from circus_failover.policy.health import Health
from circus_failover.policy.idle import Probe
from circus_failover.process_table import LINUX, ProbeFailed, ProcessId, ProcessStat
from circus_failover.records import AgentRow

if TYPE_CHECKING:
    from circus_failover.observing import Observer

TMUX_SECS = 2.0
LOOK_SECS = 0.5
"""How old a look at the process table may be that several probes share."""
_CLIENTS = "#{session_attached}\t#{session_group_attached}\t#{session_last_attached}\t#{@failover_left}"
_MARK = b"FAILOVER_LAUNCH="


class Terminals:
    """When agents' terminals last moved; which terminal a process has is looked up once."""

    def __init__(self) -> None:
        self._paths: dict[ProcessId, str] = {}

    def last_activity(self, process: ProcessId, now: float) -> float | None:
        """Return when an agent's terminal last moved, at the latest, in epoch seconds.

        Args:
            process: the agent's own process.
            now: epoch seconds.

        Returns:
            None: it cannot be told.
        """
        path = self._paths.get(process)
        if path is None:
            path = process_table.terminal(process.pid)
            if path is None:
                return None
            self._paths[process] = path
        try:
            return latest_movement(os.stat(path).st_mtime, now)
        except OSError:
            return None

    def keep(self, processes: set[ProcessId]) -> None:
        """Forget the terminals of all processes but these."""
        self._paths = {process: path for process, path in self._paths.items() if process in processes}

    def __len__(self) -> int:
        return len(self._paths)


def latest_movement(mtime: float, now: float) -> float:
    """Return the latest moment at which a terminal with this time of change can have moved.

    Linux moves it only when the seconds differ in more than their lowest three bits (tty_update_time() in
    drivers/tty/tty_io.c, 6.18): output a second ago may show as nearly eight.
    """
    return max(mtime, min(now, (int(mtime) | 7) + 0.99)) if LINUX else mtime


@dataclass(frozen=True)
class Clients:
    """Who looks at a session: how many now, and when the last one left, in epoch seconds.

    In a server that is not an agent's own (`tmux.OWN_SERVER_CONFIG`) only when it came is known.
    """

    attached: int
    last_attached: float | None


def clients(socket: Path, session: str, timeout: float = TMUX_SECS) -> Clients:
    """Ask a tmux server who is attached to a session, directly or through its group.

    Args:
        socket: the server's.
        session: by its exact name.
        timeout: seconds to wait for the answer.

    Raises:
        tmux.TmuxError: it did not answer, or has no such session.
    """
    text = tmux.run(socket, ["display-message", "-p", "-t", f"={session}:", _CLIENTS], timeout)
    # With a target that is missing, tmux 3.3a answers 0 and prints the format with nothing in it.
    here, group, *times = (text.rstrip("\n").split("\t") + ["", ""])[:4]
    if not here.isdigit():
        raise tmux.TmuxError(f"there is no session {session} on {socket}")
    attached = max(int(here), int(group) if group.isdigit() else 0)
    # Whole seconds: it may have been at the end of one.
    return Clients(attached, max((float(at) + 0.99 for at in times if at.isdigit()), default=None))


@dataclass(frozen=True)
class Processes:
    """One look at the process table."""

    at: float
    """Monotonic seconds."""
    stats: dict[int, ProcessStat]
    children: dict[int, list[ProcessStat]]
    _launches: dict[int, bytes | None] = field(default_factory=dict)

    def tools(self, row: AgentRow) -> int:
        """Return how many processes an agent has started since it was ready, and that still run.

        They are those below it, and those that carry its launch's name: a daemon, the orphan of a tool.

        Raises:
            ProbeFailed: its own process is not there.
        """
        agent = row.process
        if agent is None or agent.pid not in self.stats or self.stats[agent.pid].id != agent:
            raise ProbeFailed("its process was not found")
        # One that was never proven ready (started by hand) had no boot: all that it started is its tools.
        since = agent.start if row.ready_ticks is None else row.ready_ticks
        # A server, and a circusd, may have been started from an agent's own shell: they are no tools.
        never = {agent.pid, row.server_pid, os.getpid(), os.getppid()}
        young = {
            pid for pid, stat in self.stats.items() if stat.id.start > since and stat.run_state not in "ZX"
        }
        found = young & self._below(agent.pid)
        if row.launch is not None:
            mark = _MARK + row.launch.encode()
            found |= {pid for pid in young if self._launch(pid) == mark}
        return len(found - never)

    def _below(self, pid: int) -> set[int]:
        found, queue = {pid}, [pid]
        while queue:
            for child in self.children.get(queue.pop(), ()):
                if child.id.pid not in found:
                    found.add(child.id.pid)
                    queue.append(child.id.pid)
        return found

    def _launch(self, pid: int) -> bytes | None:
        """Return the variable that names the launch a process belongs to; it is read once a look."""
        if pid not in self._launches:
            entries = process_table.environ(pid) or ()
            self._launches[pid] = next((entry for entry in entries if entry.startswith(_MARK)), None)
        return self._launches[pid]


def look() -> Processes:
    """Take one look at the process table."""
    at, stats = time.monotonic(), process_table.table()
    children: dict[int, list[ProcessStat]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat)
    return Processes(at, stats, children)


class Looks:
    """Looks at the process table that probes in several threads share, each no older than `LOOK_SECS`."""

    def __init__(self, take: Callable[[], Processes] = look) -> None:
        self._take = take
        self._lock = threading.Lock()
        self._last: Processes | None = None

    def recent(self) -> Processes:
        """Return a look that is recent, taken now when there is none."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last.at > LOOK_SECS:
                self._last = self._take()
            return self._last


@dataclass(frozen=True)
class Probed:
    """What a probe found."""

    probe: Probe
    last_attached: float | None
    """When a client last left, as far as the server knows, in epoch seconds."""


def with_health(found: Probe, health: Health, last_activity: float | None) -> Probe:
    """Return a probe with what an agent was seen to do, and when its client last did something."""
    seen = health.evidence or health.what
    return replace(found, state=health.state, seen=seen, last_activity=last_activity)


def probe(row: AgentRow, looks: Looks, observer: Observer | None = None) -> Probed:
    """Look for clients and tools of one agent: one call of tmux, and a look at the process table.

    Never raises: a probe that fails says why.

    Args:
        row: what is recorded of it.
        looks: the looks at the process table that are shared.
        observer: also looks at what its client tells, if its runtime does.
    """
    try:
        if row.socket is None or row.session is None:
            raise ProbeFailed("where its session is was not recorded")
        seen = clients(Path(row.socket), row.session)
        found = Probe(seen.attached, looks.recent().tools(row))
        if observer is not None and observer.tells(row):
            health, observed = observer.observe(row, time.time())
            found = with_health(found, health, observed.last_activity)
        return Probed(found, seen.last_attached)
    except (tmux.TmuxError, ProbeFailed, OSError, ValueError) as error:
        return Probed(Probe(None, None, str(error) or type(error).__name__), None)
