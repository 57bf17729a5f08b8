"""What is looked at once for all deaths of one moment: the host, its processes, the kernel log, pane logs.

Processes are known by their short names only: command lines and environments carry secrets. Of environments
nothing is kept but which launch they name. What cannot be read is an answer: see `tried`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import namedtuple

from circus_failover import process_table
from circus_failover.canary import host, pane_tail, watched
from circus_failover.process_table import ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from circus_failover.canary.watched import Watched

    Json = Any

PANES = "panes"
TREES_BYTES = 32 * 1024 * 1024
TOP = 25
TEXT_CHARS = 1000

# As circus_failover.agent_settings has it, whose import takes too long here.
_IDENTITY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def tried(make: Callable[..., Json], *arguments: Any) -> Json:
    """Return what `make` returns; when it raises, what went wrong, as `{"error": text}`."""
    try:
        return make(*arguments)
    except Exception as error:
        return {"error": shortened(f"{type(error).__name__}: {error}")}


def failed(section: Json) -> bool:
    """Say whether a section is what `tried` returns instead of one."""
    return isinstance(section, dict) and list(section) == ["error"]


def shortened(raw: object) -> Json:
    """Return a text without what is too long about it, and anything else as it is."""
    return raw[:TEXT_CHARS] if isinstance(raw, str) else raw


class Process(namedtuple("Process", ("id", "lives", "kernel", "name", "rss_kb"))):
    """A process as the one scan saw it."""

    __slots__ = ()
    id: ProcessId
    lives: bool
    """It has not ended: it is no zombie."""
    kernel: bool
    """It is a thread of the kernel, or has no memory left: it has no environment either."""
    name: str
    rss_kb: int


class Scan:
    """The process table, read once."""

    def __init__(self, launches: Iterable[str]) -> None:
        """Read it.

        Args:
            launches: whose processes are to be found by their environment (`FAILOVER_LAUNCH`).

        Raises:
            OSError: there is no /proc.
        """
        wanted = {f"FAILOVER_LAUNCH={launch}".encode(): launch for launch in launches}
        self.processes: dict[int, Process] = {}
        self.carrying: dict[str, list[Process]] = {}
        self.unreadable = 0
        for entry in os.listdir("/proc"):
            raw = host.read(f"/proc/{entry}/stat") if entry.isdigit() else None
            if not raw:
                continue
            process = _process(int(entry), raw)
            self.processes[process.id.pid] = process
            if not wanted or not process.lives or process.kernel:
                continue
            environment = process_table.environ(process.id.pid)
            if environment is None:
                self.unreadable += 1
                continue
            for found in wanted.keys() & environment:
                self.carrying.setdefault(wanted[found], []).append(process)

    def lives(self, process: ProcessId) -> bool:
        """Say whether this very process still ran."""
        found = self.processes.get(process.pid)
        return found is not None and found.id == process and found.lives

    def summary(self) -> Json:
        """Return how many processes there are, and which take the most memory."""
        top = sorted(self.processes.values(), key=lambda process: -process.rss_kb)[:TOP]
        return {
            "number": len(self.processes),
            "environments_unreadable": self.unreadable,
            "top_by_memory": [
                {"pid": process.id.pid, "name": process.name, "rss_kb": process.rss_kb} for process in top
            ],
        }


def _process(pid: int, raw: bytes) -> Process:
    # The name is in parentheses and may hold anything, so the fields start after the last one (proc(5)).
    end = raw.rindex(b")")
    fields = raw[end + 2 :].split()
    return Process(
        id=ProcessId(pid, int(fields[19])),
        lives=fields[0] not in (b"Z", b"X"),
        kernel=fields[20] == b"0",
        name=raw[raw.index(b"(") + 1 : end].decode("utf-8", "backslashreplace"),
        rss_kb=int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


class Scene:
    """What all snapshots of one moment share."""

    def __init__(self, state_dir: str, servers: list[Watched]) -> None:
        """Look at everything once; what goes by soonest comes first.

        Args:
            state_dir: the state directory.
            servers: those that ended.
        """
        self.at = time.time()
        self._state_dir = state_dir
        self._panes: dict[str, Json] = {}
        self.host = {
            "memory_kb": tried(host.memory),
            "swap_kb": tried(host.swap),
            "pressure": tried(host.pressure),
            "load": tried(host.load),
        }
        launches = {agent.launch for server in servers for agent in server.agents if agent.launch}
        self.scan: Scan | Json = tried(Scan, launches)
        self.host["processes"] = tried(self.scan.summary) if isinstance(self.scan, Scan) else self.scan
        self.trees: Json = tried(_trees, state_dir)
        self.kernel_log: Json = tried(_kernel_log, [server.server for server in servers])

    def lives(self, process: ProcessId) -> bool | None:
        """Say whether a process still ran; None: the process table could not be read."""
        return self.scan.lives(process) if isinstance(self.scan, Scan) else None

    def pane_log(self, identity: str) -> Json:
        """Return the last lines that an agent's pane printed."""
        if identity not in self._panes:
            self._panes[identity] = tried(_pane_log, self._state_dir, identity)
        return self._panes[identity]


def _trees(state_dir: str) -> Json:
    path = os.path.join(state_dir, watched.TREES)
    with open(path, "rb") as file:
        found = json.loads(file.read(TREES_BYTES))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object")
    return found


def _kernel_log(servers: list[ProcessId]) -> Json:
    ticks = os.sysconf("SC_CLK_TCK")
    found = host.kernel_lines({server.pid: server.start / ticks for server in servers})
    if found is None:
        raise PermissionError(f"{host.KMSG} cannot be read here")
    return found


def _pane_log(state_dir: str, identity: str) -> Json:
    if not _IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity[:100]!r} is no identity")
    name = os.path.join(PANES, f"{identity}.log")
    size, lines = pane_tail.tail(os.path.join(state_dir, name))
    return {"file": name, "bytes": size, "lines": lines}
