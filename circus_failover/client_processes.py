"""Which processes of this user are a known client, which home they use, and who else has a home in use.

It reads the process table and status files and changes nothing. What cannot be read counts as in use where
a home is about to be changed: unknown is not gone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from circus_failover import process_table
from circus_failover.agents import RUNTIMES
from circus_failover.process_table import ProbeFailed

VARIABLES: Mapping[str, str] = {"claude": "CLAUDE_CONFIG_DIR", "codex": "CODEX_HOME"}
"""The variable by which each client is told its home."""
DEFAULT_HOMES: Mapping[str, str] = {"claude": ".claude", "codex": ".codex"}
"""The home of each client without that variable, below HOME."""
_SCRIPTS = ("node", "bun", "deno")
_PAUSES = (0.0, 0.01, 0.05, 0.2)
"""Seconds before each look at an environment: it is empty while a process begins or ends (fs/proc/base.c)."""


@dataclass(frozen=True)
class Client:
    """A running client. `home` is None when its environment cannot be read."""

    pid: int
    runtime: str
    home: Path | None


@dataclass(frozen=True)
class User:
    """Who uses a home, and what says so."""

    pid: int
    evidence: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.evidence})"


def runtime_of(name: str, argv: Sequence[str]) -> str | None:
    """Return which client a process is, by its name and arguments, or None when it is none.

    An npm installation runs `node /…/bin/codex`, or `node /…/claude-code/cli.js`.
    """
    words = [os.path.basename(word) for word in argv[:1]] + [name]
    if argv[1:] and (words[0] in _SCRIPTS or name in _SCRIPTS):
        words.append(os.path.basename(argv[1]))
        if "/claude-code/" in argv[1]:
            words.append("claude")
    return next((word for word in words if word in VARIABLES), None)


def running() -> list[Client]:
    """Return the known clients that this user runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().effective != os.geteuid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            runtime = runtime_of(process.name(), process.cmdline())
            if runtime is not None:
                found.append(Client(process.pid, runtime, _home(process, runtime)))
        except psutil.Error:
            continue
    return found


def _home(process: psutil.Process, runtime: str) -> Path | None:
    """Return the home of a client that runs, as far as its environment says.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            variables = process.environ()
            if not variables and process.status() == psutil.STATUS_ZOMBIE:
                raise psutil.NoSuchProcess(process.pid)
        except psutil.NoSuchProcess:
            raise
        except (psutil.Error, OSError):
            return None
        if variables:
            return home_of(variables, runtime)
    return None


def home_of(variables: Mapping[str, str], runtime: str) -> Path | None:
    """Return the home that a client uses with this environment; None when that does not say."""
    if named := variables.get(VARIABLES[runtime]):
        return Path(os.path.abspath(named))
    if base := variables.get("HOME"):
        return Path(base) / DEFAULT_HOMES[runtime]
    return None


def users(home: Path, runtime: str) -> list[User]:
    """Return every process that has this home in use, or may.

    Args:
        home: the account home.
        runtime: whose; of a `command`, any client counts.
    """
    real = os.path.realpath(home)
    found = {user.pid: user for user in (*_by_files(real), *_by_status(home), *_by_environment(real))}
    background = RUNTIMES[runtime].background(home)
    if background is not None and process_table.may_run(background):
        found.setdefault(background.pid, User(background.pid, "the client's own daemon"))
    found.pop(os.getpid(), None)
    return [found[pid] for pid in sorted(found)]


def _by_environment(real: str) -> Iterator[User]:
    for client in running():
        if client.home is None:
            yield User(client.pid, f"{client.runtime}, whose home cannot be told")
        elif os.path.realpath(client.home) == real:
            yield User(client.pid, client.runtime)
    for process in _own():
        try:
            home = process.environ().get("FAILOVER_HOME")
        except (psutil.Error, OSError):
            continue
        if home is not None and os.path.realpath(home) == real:
            yield User(process.pid, "an agent of circus-failover, or a process of one")


def _by_files(real: str) -> Iterator[User]:
    for process in _own():
        try:
            paths = [file.path for file in process.open_files()]
        except (psutil.Error, OSError):
            continue
        for path in paths:
            if path.startswith(real + "/"):
                yield User(process.pid, f"has {os.path.basename(path)} open")
                break


def _own() -> Iterable[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.uids().effective == os.geteuid():
                yield process
        except psutil.Error:
            continue


def _by_status(home: Path) -> Iterator[User]:
    """Read the status files of Claude Code: `sessions/PID.json`, left behind by one that was killed."""
    for path in (home / "sessions").glob("*.json"):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            pid = int(said["pid"]) if "pid" in said else int(path.stem)
            start = said.get("procStart")
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        try:
            now = process_table.read(pid)
        except ProbeFailed:
            yield User(pid, f"sessions/{path.name}, which may be stale")
            continue
        if now is None or now.run_state in "ZX":
            continue
        known = process_table.LINUX and str(start).isdigit()
        if not known or int(str(start)) == now.id.start:
            yield User(pid, f"sessions/{path.name}")
