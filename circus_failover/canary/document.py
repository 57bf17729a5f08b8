"""One death as a document: what happened, to whom, and how the host was; trimmed until it fits.

A section that fails says so in its place; none may cost the others theirs. What is left out is said, where it
was and at the top.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections import namedtuple

from circus_failover.canary import core_dump, host, pane_tail
from circus_failover.canary.scene import Scan, failed, shortened, tried
from circus_failover.logfmt import timestamp
from circus_failover.process_table import ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from circus_failover.canary.death import Death
    from circus_failover.canary.scene import Scene
    from circus_failover.canary.watched import WatchedAgent

    Json = Any

LIMIT_BYTES = 256 * 1024
AGENT_BYTES = 150
PROCESS_BYTES = 40
"""What an agent, and a process of its tree, takes at least: its keys."""

_NOT_ASCII = re.compile(r"[^\n -~]+")


def render(scene: Scene, death: Death, armed: Mapping[str, int]) -> bytes:
    """Return the snapshot of a death as JSON, at most LIMIT_BYTES of it.

    Args:
        scene: what the deaths of that moment share.
        death: which one.
        armed: the OOM counters when it was armed.

    Raises:
        ValueError: it does not fit, with nothing in its lists.
    """
    content = b""
    sizes = tried(_sizes, scene, death)
    for room in _rooms():
        # No need to write down what cannot fit.
        if not failed(sizes) and _least(sizes, room) > LIMIT_BYTES:
            continue
        content = _readable(_Document(scene, death, room).content(armed))
        if len(content) <= LIMIT_BYTES:
            return content
    raise ValueError(f"{len(content)} bytes with nothing in the lists, expected at most {LIMIT_BYTES}")


def _readable(content: Json) -> bytes:
    """Return JSON for people to read in place, whatever the names in it would do to a terminal."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return _NOT_ASCII.sub(_escaped, text).encode() + b"\n"


def _escaped(match: re.Match[str]) -> str:
    found = match[0]
    if found.isprintable():
        return found
    return "".join(ch if ch.isprintable() else _code(ord(ch)) for ch in found)


def _code(code: int) -> str:
    """Return a character as JSON escapes it: beyond 16 bits as two surrogates (RFC 8259, 7)."""
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 | code & 0x3FF:04x}"


class _Room(namedtuple("_Room", ("pane_bytes", "processes", "kernel_lines", "agents"))):
    """How much of each list a document takes; of an agent's lists, for each agent."""

    __slots__ = ()
    pane_bytes: int
    processes: int
    kernel_lines: int
    agents: int


def _rooms() -> Iterator[_Room]:
    """Yield ever less room. Agents go last, when their own lists are empty: who died matters most."""
    for step in range(26):
        yield _Room(pane_tail.BYTES >> step, 512 >> step, 64 >> step, 1024 >> max(0, step - 14))


def _sizes(scene: Scene, death: Death) -> list[tuple[int, int, int]]:
    """Return of each agent how long its own texts are, its pane log in bytes, and its tree in processes."""
    found = []
    for agent in death.watched.agents:
        pane = scene.pane_log(agent.identity)
        noted = () if failed(scene.trees) else scene.trees.get(agent.launch, ())
        texts = (agent.identity, agent.launch, agent.session, agent.pane)
        found.append(
            (
                sum(len(shortened(text)) for text in texts if text),
                0 if failed(pane) else pane_tail.size(pane["lines"]),
                len(noted),
            )
        )
    return found


def _least(sizes: list[tuple[int, int, int]], room: _Room) -> int:
    """Return how many bytes a document takes at least with so much room."""
    return sum(
        AGENT_BYTES + texts + min(pane, room.pane_bytes) + min(processes, room.processes) * PROCESS_BYTES
        for texts, pane, processes in sizes[: room.agents]
    )


class _Document:
    """What one snapshot holds, and what was left out of it."""

    def __init__(self, scene: Scene, death: Death, room: _Room) -> None:
        self._scene, self._death, self._room = scene, death, room
        self._left_out: dict[str, int] = {}

    def content(self, armed: Mapping[str, int]) -> Json:
        found = {
            "taken_at": self._scene.at,
            "trimmed": None,
            "server": tried(self._server),
            "agents": tried(self._agents),
            "core_dump": tried(self._core_dump),
            "kernel_log": tried(self._kernel_log),
            "cgroup": tried(_cgroup, armed),
            **self._scene.host,
        }
        if self._left_out:
            what = ", ".join(f"{number} {what}" for what, number in self._left_out.items())
            found["trimmed"] = f"left out, to stay below {LIMIT_BYTES // 1024} KB: {what}"
        return found

    def _leave_out(self, number: int, what: str) -> int:
        self._left_out[what] = self._left_out.get(what, 0) + number
        return number

    def _first(self, rows: list[Json], limit: int, what: str) -> list[Json]:
        """Return the first of a list, and a mark in place of the others."""
        if len(rows) <= limit:
            return rows
        return [*rows[:limit], {"left_out": self._leave_out(len(rows) - limit, what)}]

    def _server(self) -> Json:
        death, server = self._death, self._death.watched.server
        return {
            "socket": shortened(death.watched.socket),
            "pid": server.pid,
            "start": server.start,
            "drill": death.watched.drill,
            "at": death.at,
            "time": timestamp(death.at),
            "up_secs": death.up,
            "signal": death.number,
            "signal_name": None if death.number is None else _signal_name(death.number),
            "status": death.status,
            "how": death.how,
            "cause": str(death.cause),
            "detected": str(death.detected),
            "last_seen": death.seen,
            "evidence": shortened(death.evidence),
        }

    def _agents(self) -> Json:
        agents = self._death.watched.agents
        rows = [tried(self._agent, agent) for agent in agents[: self._room.agents]]
        less = len(agents) - len(rows)
        return [*rows, {"left_out": self._leave_out(less, "agents")}] if less else rows

    def _agent(self, agent: WatchedAgent) -> Json:
        own = agent.process
        return {
            "identity": shortened(agent.identity),
            "generation": agent.generation,
            "launch": shortened(agent.launch),
            "session": shortened(agent.session),
            "pane": shortened(agent.pane),
            "process": own and {"pid": own.pid, "start": own.start, "lives": self._scene.lives(own)},
            "tree": tried(self._tree, agent),
            "also_living": tried(self._also_living, agent),
            "pane_log": tried(self._pane_log, agent),
        }

    def _tree(self, agent: WatchedAgent) -> Json:
        """Return the processes of a launch as last noted, those that live first."""
        trees = self._scene.trees
        if agent.launch is None or failed(trees):
            return None if agent.launch is None else trees
        rows = []
        for pid, start, name in trees.get(agent.launch, ()):
            process = ProcessId(int(pid), int(start))
            lives = self._scene.lives(process)
            rows.append(
                {"pid": process.pid, "start": process.start, "name": shortened(str(name)), "lives": lives}
            )
        rows.sort(key=lambda row: not row["lives"])
        return self._first(rows, self._room.processes, "processes")

    def _also_living(self, agent: WatchedAgent) -> Json:
        """Return what else of a launch lives, by the launch that its environment names."""
        scan, trees = self._scene.scan, self._scene.trees
        if agent.launch is None or not isinstance(scan, Scan):
            return None if agent.launch is None else scan
        noted = () if failed(trees) else trees.get(agent.launch, ())
        known = {agent.process, *(ProcessId(pid, start) for pid, start, _ in noted)}
        rows = [
            {"pid": process.id.pid, "start": process.id.start, "name": process.name}
            for process in scan.carrying.get(agent.launch, ())
            if process.id not in known
        ]
        return self._first(rows, self._room.processes, "processes")

    def _pane_log(self, agent: WatchedAgent) -> Json:
        found = self._scene.pane_log(agent.identity)
        if failed(found):
            return found
        lines = pane_tail.last(found["lines"], self._room.pane_bytes)
        less = pane_tail.size(found["lines"]) - pane_tail.size(lines)
        if not less:
            return found
        return {**found, "lines": lines, "left_out_bytes": self._leave_out(less, "bytes of pane logs")}

    def _kernel_log(self) -> Json:
        found = self._scene.kernel_log
        if failed(found):
            return found
        lines = found[self._death.watched.server.pid]
        less = len(lines) - self._room.kernel_lines
        if less <= 0:
            return lines
        return [{"left_out": self._leave_out(less, "kernel log lines")}, *lines[less:]]

    def _core_dump(self) -> Json:
        return core_dump.find(
            self._death.watched.server.pid,
            self._death.at,
            number=self._death.number,
            status=self._death.status,
            pattern=os.fsdecode(host.read(core_dump.PATTERN) or b"").strip(),
            uses_pid=(host.read(core_dump.USES_PID) or b"0").strip() != b"0",
        )


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def _cgroup(armed: Mapping[str, int]) -> Json:
    folder = host.cgroup_of(armed)
    return {
        "folder": folder,
        "counters_at_arming": dict(armed),
        "counters_now": host.counters_of(armed),
        "values": None if folder is None else host.cgroup_values(folder),
    }
