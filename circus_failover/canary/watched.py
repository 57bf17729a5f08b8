"""What the canary is to watch, and which ends are meant: small files below the state directory.

circusd keeps one file a tmux server, for as long as an enrolled agent lives in it; the canary reads them.
A file whose server is gone is a death that nobody has recorded yet: whoever records it removes the file.
Whoever is about to close a server writes the intent first. Nothing here watches, and nothing here decides.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import namedtuple

from circus_failover.policy.server_exit import ANY as ANY
from circus_failover.policy.server_exit import ORDERLY as ORDERLY
from circus_failover.process_table import ProcessId

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "canary"
SERVERS = f"{FOLDER}/servers"
FORENSICS = "forensics"
LOCK = "locks/canary.lock"
"""Held by the one canary of a state directory while it lives; its text says who (pid and start time)."""
SOCKET = f"{FOLDER}/canary.sock"
TREES = f"{FOLDER}/trees.json"
"""The processes of each live launch as last seen: `{LAUNCH: [[pid, start, name], ...]}`."""
SEEN = f"{FOLDER}/seen"
"""Touched by circusd at each tick: until then every server that is watched had not been seen to end."""
DRILL_LOG = f"{FOLDER}/drill.log"
"""Records of drills, which are nobody's deaths."""


class WatchedAgent(
    namedtuple("WatchedAgent", ("identity", "generation", "launch", "session", "pane", "process"))
):
    """An agent that lives in a watched server."""

    __slots__ = ()
    identity: str
    generation: int
    launch: str | None
    """The launch's own name (`FAILOVER_LAUNCH`); None when somebody else started it."""
    session: str | None
    pane: str | None
    process: ProcessId | None
    """The agent's own process."""


class Watched(namedtuple("Watched", ("socket", "server", "boot", "asked_at", "drill", "agents"))):
    """One tmux server that is to be watched."""

    __slots__ = ()
    socket: str
    server: ProcessId
    boot: str
    """The host's boot that pid and start time belong to (`process_table.boot_id`)."""
    asked_at: float
    """Epoch seconds since when it is to be watched; it was alive then."""
    drill: bool
    """A scratch server of `failoverctl drill`: its record goes to DRILL_LOG, and circusd hears nothing."""
    agents: tuple[WatchedAgent, ...]

    @property
    def name(self) -> str:
        """How the server is called in file names and requests."""
        return server_name(self.server)


def server_name(server: ProcessId) -> str:
    """Return how a server is called in file names and requests: its pid and start time."""
    return f"{server.pid}-{server.start}"


def path(state_dir: str, name: str) -> str:
    """Return the path of the file that says what to watch."""
    return os.path.join(state_dir, SERVERS, f"{name}.json")


def write(state_dir: str, watched: Watched) -> None:
    """Put one server on the list, or change what is said of it; a reader sees the old file or the new one.

    Not synced: no server outlives a power cut.
    """
    content = {
        "socket": watched.socket,
        "pid": watched.server.pid,
        "start": watched.server.start,
        "boot": watched.boot,
        "asked_at": watched.asked_at,
        "drill": watched.drill,
        "agents": [agent._asdict() for agent in watched.agents],
    }
    put(path(state_dir, watched.name), json.dumps(content))


def read(state_dir: str, name: str) -> Watched | None:
    """Return what is to be watched under this name; None when it is not on the list, or makes no sense."""
    try:
        with open(path(state_dir, name), "rb") as file:
            raw = json.loads(file.read())
        return Watched(
            socket=str(raw["socket"]),
            server=ProcessId(int(raw["pid"]), int(raw["start"])),
            boot=str(raw["boot"]),
            asked_at=float(raw["asked_at"]),
            drill=bool(raw["drill"]),
            agents=tuple(_agent(agent) for agent in raw["agents"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _agent(raw: dict[str, object]) -> WatchedAgent:
    process = raw["process"]
    values = {**raw, "process": ProcessId(*process) if isinstance(process, list) else None}
    return WatchedAgent(**values)


def names(state_dir: str) -> Iterator[str]:
    """Yield the names of all servers on the list."""
    try:
        entries = os.listdir(os.path.join(state_dir, SERVERS))
    except OSError:
        return
    for entry in sorted(entries):
        if entry.endswith(".json"):
            yield entry[: -len(".json")]


def remove(state_dir: str, name: str) -> None:
    """Take a server off the list, with the intent to close it."""
    for file in (path(state_dir, name), _intent(state_dir, name)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)


def _intent(state_dir: str, name: str) -> str:
    return os.path.join(state_dir, SERVERS, f"{name}.intent")


def intend(state_dir: str, server: ProcessId, covers: str) -> None:
    """Say, before it is done, that a server's end is meant.

    Args:
        state_dir: the state directory.
        server: whose end.
        covers: ORDERLY or ANY.

    Raises:
        OSError: it could not be written: then nothing may be closed.
    """
    put(_intent(state_dir, server_name(server)), covers)


def intent(state_dir: str, server: ProcessId) -> str | None:
    """Return which ends of a server are meant (ORDERLY, ANY), or None: none is."""
    try:
        with open(_intent(state_dir, server_name(server))) as file:
            return file.read(64)
    except (OSError, ValueError):
        return None


def intents(state_dir: str) -> Iterator[ProcessId]:
    """Yield the servers whose end is meant."""
    try:
        entries = os.listdir(os.path.join(state_dir, SERVERS))
    except OSError:
        return
    for entry in entries:
        pid, _, start = entry.removesuffix(".intent").partition("-")
        if entry.endswith(".intent") and pid.isdigit() and start.isdigit():
            yield ProcessId(int(pid), int(start))


def withdraw(state_dir: str, server: ProcessId) -> None:
    """Take back an intent: the server lives on."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_intent(state_dir, server_name(server)))


def last_seen(state_dir: str) -> float | None:
    """Return when circusd last ticked, in epoch seconds, or None."""
    try:
        return os.stat(os.path.join(state_dir, SEEN)).st_mtime
    except OSError:
        return None


def put(target: str, text: str) -> None:
    """Write a small file, for its owner only; a reader sees the old one or the new one. Not synced.

    Raises:
        OSError: it could not be written; what was there stays.
    """
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", opener=_private) as file:
            file.write(text)
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o600)
