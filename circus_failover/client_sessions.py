"""Finds the tmux sessions in which a known client runs, whoever started them. It only looks.

A client may be what a pane runs itself, or a child of the shell that a person typed it into. Everything is
known by number: the pane's process, the client's, the server's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from circus_failover import process_table, tmux
from circus_failover.client_processes import home_of, runtime_of
from circus_failover.process_table import ProbeFailed, ProcessId


@dataclass(frozen=True)
class ClientSession:
    """A session with a client in it."""

    socket: Path
    session: str
    panes: int
    """How many panes the session has."""
    pane_process: ProcessId
    """What the pane runs: the client, or a shell above it."""
    process: ProcessId
    """The client's own process."""
    runtime: str
    argv: tuple[str, ...]
    home: Path | None
    """The account home that the client uses; None: that cannot be told."""
    working_dir: Path | None
    launch: bool
    """An agent of a fleet: it was launched by a supervisor."""


def usual_sockets(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the sockets in the folder in which tmux puts those of this user (tmux(1), -L)."""
    folder = Path(environment.get("TMUX_TMPDIR") or "/tmp") / f"tmux-{os.getuid()}"
    try:
        return sorted(path for path in folder.iterdir() if stat.S_ISSOCK(path.lstat().st_mode))
    except OSError:
        return []


def find(sockets: Iterable[Path], trouble: list[str]) -> Iterator[ClientSession]:
    """Yield every session with a client in it, of the servers that answer.

    Args:
        sockets: of the servers to ask.
        trouble: gets one sentence for each server that did not answer.
    """
    children: dict[int, list[int]] = {}
    for pid, found in process_table.table().items():
        children.setdefault(found.parent, []).append(pid)
    for socket in sockets:
        if tmux.serves(socket) is False:
            continue
        try:
            for session in tmux.sessions(socket):
                yield from _clients(socket, session, children)
        except tmux.TmuxError as error:
            trouble.append(f"{socket}: {error}")


def _clients(socket: Path, session: str, children: Mapping[int, Sequence[int]]) -> Iterator[ClientSession]:
    panes = tmux.panes(socket, session)
    for pane in panes:
        if pane.dead:
            continue
        queue = [pane.pid]
        while queue:
            pid = queue.pop(0)
            found = _client(pid)
            if found is None:
                queue.extend(children.get(pid, ()))
                continue
            runtime, argv = found
            above, own = _identity(pane.pid), _identity(pid)
            if above is not None and own is not None:
                variables = _environment(pid)
                yield ClientSession(
                    socket=socket,
                    session=session,
                    panes=len(panes),
                    pane_process=above,
                    process=own,
                    runtime=runtime,
                    argv=argv,
                    home=None if variables is None else home_of(variables, runtime),
                    working_dir=_working_dir(pid),
                    launch=bool(variables and variables.get("FAILOVER_LAUNCH")),
                )
            break


def _client(pid: int) -> tuple[str, tuple[str, ...]] | None:
    """Return the runtime of a process and its argv, when it is a known client."""
    try:
        process = psutil.Process(pid)
        argv, name = tuple(process.cmdline()), process.name()
    except (psutil.Error, OSError):
        return None
    runtime = runtime_of(name, argv)
    if runtime is None:
        return None
    # A script's interpreter is found by its first line again.
    scripted = os.path.basename(argv[0]) != runtime and len(argv) > 1 and not argv[1].startswith("-")
    return runtime, argv[1:] if scripted else argv


def _identity(pid: int) -> ProcessId | None:
    try:
        return process_table.identify(pid)
    except ProbeFailed:
        return None


def _environment(pid: int) -> dict[str, str] | None:
    try:
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return None


def _working_dir(pid: int) -> Path | None:
    try:
        return Path(psutil.Process(pid).cwd())
    except (psutil.Error, OSError):
        return None
