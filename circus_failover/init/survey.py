"""What is on this machine: clients, account homes, tmux sessions that run a client. It only looks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from circus_failover import asked_client, client_processes
from circus_failover.agents import RUNTIMES
from circus_failover.client_processes import DEFAULT_HOMES, VARIABLES, Client
from circus_failover.client_sessions import ClientSession, find, usual_sockets
from circus_failover.settings import DEFAULT_LINKS
from circus_failover.words import Credentials

VERSION_SECS = 10.0
"""A client that a version manager starts through npm takes a second; one that hangs must not hang init."""
_MARKS = {
    "claude": (".credentials.json", ".claude.json", "settings.json", "projects", "history.jsonl"),
    "codex": ("auth.json", "config.toml", "sessions", "history.jsonl"),
}
"""What tells a home from another folder with such a name."""


@dataclass(frozen=True)
class Installed:
    """A client on PATH."""

    runtime: str
    program: str
    version: str | None


@dataclass(frozen=True)
class HomeFound:
    """A folder that is, or may be, an account's home."""

    runtime: str
    path: Path
    evidence: str
    credentials: Credentials
    how: str
    usual: bool = True
    """It is where homes are, or named; not only used by some process."""
    root: Path | None = None
    """The folder that its links to shared state lead into, when they all lead into one."""


@dataclass(frozen=True)
class Survey:
    """What is on this machine."""

    clients: tuple[Installed, ...]
    homes: tuple[HomeFound, ...]
    sessions: tuple[ClientSession, ...]
    trouble: tuple[str, ...] = ()
    """A sentence for each tmux server that did not answer."""


def look(variables: Mapping[str, str], sockets: Iterable[Path] = (), accounts: Iterable[Path] = ()) -> Survey:
    """Look at this machine.

    Args:
        variables: the environment: HOME, PATH, TMUX_TMPDIR.
        sockets: further tmux sockets to look at.
        accounts: further homes to look at.
    """
    running = client_processes.running()
    trouble: list[str] = []
    sessions = tuple(find([*usual_sockets(variables), *sockets], trouble))
    return Survey(
        tuple(_installed(variables)),
        tuple(_homes(variables, running, accounts)),
        sessions,
        tuple(trouble),
    )


def _installed(variables: Mapping[str, str]) -> Iterator[Installed]:
    for runtime in VARIABLES:
        program = which(runtime, path=variables.get("PATH"))
        if program is not None:
            yield Installed(runtime, program, _version(program, variables))


def _version(program: str, variables: Mapping[str, str]) -> str | None:
    """Ask a client for its version, with a home of its own so that it touches no account's."""
    with tempfile.TemporaryDirectory(prefix="failover-init-") as scratch:
        environment = {**variables, "DISABLE_AUTOUPDATER": "1", **dict.fromkeys(VARIABLES.values(), scratch)}
        return asked_client.version(program, environment, VERSION_SECS)


def _homes(
    variables: Mapping[str, str], running: Iterable[Client], accounts: Iterable[Path]
) -> Iterator[HomeFound]:
    found: dict[str, tuple[str, Path, str, bool]] = {}

    def add(runtime: str, path: Path, evidence: str, usual: bool = True) -> None:
        if path.is_dir():
            found.setdefault(os.path.realpath(path), (runtime, path, evidence, usual))

    base = Path(variables.get("HOME") or os.path.expanduser("~"))
    for runtime, name in DEFAULT_HOMES.items():
        add(runtime, base / name, "the default home")
        for path in _beside(base, name + "-"):
            if runtime_of_home(path) == runtime:
                add(runtime, path, "by its name")
    for runtime, variable in VARIABLES.items():
        if named := variables.get(variable):
            add(runtime, Path(os.path.abspath(named)), f"{variable} here")
    for path in accounts:
        if (kind := runtime_of_home(path)) is not None:
            add(kind, path, "named")
    for client in running:
        if client.home is not None:
            add(client.runtime, client.home, f"used by pid {client.pid}", False)
    for runtime, path, evidence, usual in found.values():
        report = RUNTIMES[runtime].check_home(None, path, variables, ())
        root = _root(path, runtime)
        yield HomeFound(runtime, path, evidence, report.credentials, report.how, usual, root)


def _beside(base: Path, prefix: str) -> list[Path]:
    try:
        return sorted(base / name for name in os.listdir(base) if name.startswith(prefix))
    except OSError:
        return []


def runtime_of_home(path: Path) -> str | None:
    """Return whose home a folder is by what is in it and its name; None when it looks like none."""
    try:
        names = set(os.listdir(path))
    except OSError:
        return None
    likely = sorted(_MARKS, key=lambda runtime: (runtime not in path.name, runtime))
    found = [runtime for runtime in likely if names.intersection(_MARKS[runtime])]
    return found[0] if found else None


def _root(home: Path, runtime: str) -> Path | None:
    roots = set()
    for name in DEFAULT_LINKS[runtime]:
        if (home / name).is_symlink():
            target = Path(os.path.realpath(home / name))
            roots.add(target.parent if target.name == name else None)
    return roots.pop() if len(roots) == 1 else None
