"""Find the tmux session of an agent, and become a client of it. Nothing is started or ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from circus.exc import CallError
from circus.util import DEFAULT_ENDPOINT_DEALER

from circus_failover import process_table, tmux
from circus_failover.circusd_site import ask, existing_ini, listens, site_of
from circus_failover.failure import UNREACHABLE, Failed
from circus_failover.problems import nearest
from circus_failover.process_table import ProbeFailed
from circus_failover.state_dir import StateDir
from circus_failover.store import StoreError, open_reader


@dataclass(frozen=True)
class Target:
    """A session, by its server's socket and its exact name."""

    socket: Path
    session: str


def find(name: str, ini: str | None, endpoint: str | None, timeout: float) -> Target:
    """Find the session of an agent that runs.

    Args:
        name: the agent.
        ini: a circus.ini whose store answers when circusd does not; None: only circusd is asked.
        endpoint: where circusd listens; None: where `ini` says, else CIRCUSCTL_ENDPOINT or Circus's default.
        timeout: seconds to wait for circusd.

    Raises:
        Failed: there is no such agent, it does not run, its server does not answer, or nobody can tell.
        SettingsError: `ini` or its failover.yaml cannot be read.
    """
    site = site_of(existing_ini(ini)) if ini is not None else None
    where = endpoint or (site.endpoint if site else None) or os.environ.get("CIRCUSCTL_ENDPOINT")
    where = where or str(DEFAULT_ENDPOINT_DEALER)
    answer: dict[str, Any] | None = None
    if listens(where):
        try:
            answer = ask(where, "fleet", timeout, names=[name])
        except CallError:
            answer = None
    if answer is not None:
        if answer.get("status") != "ok":
            raise Failed(str(answer.get("reason")))
        return _running(answer["agents"][0])
    if site is None:
        raise Failed(
            f"no answer from {where}: circusd is not running there or listens elsewhere (--endpoint, "
            "CIRCUSCTL_ENDPOINT); with --ini circus.ini its store is asked",
            UNREACHABLE,
        )
    return _stored(site.state, name, [str(agent["name"]) for agent in site.fleet.agents])


def _running(agent: dict[str, Any]) -> Target:
    """The session of an agent as `fleet` shows it."""
    name = agent["identity"]
    if agent.get("wedged"):
        raise Failed(
            f"{name} cannot be shown: its tmux server on {agent['socket']} does not answer (explain {name})"
        )
    if agent["pid"] is None or not agent["socket"] or not agent["session"]:
        reason = f" ({agent['reason']})" if agent["reason"] else ""
        raise Failed(f"{name} is not running, it is {agent['phase']}{reason}: failoverctl start {name}")
    return _served(name, Target(Path(agent["socket"]), agent["session"]))


def _stored(state: StateDir, name: str, declared: Sequence[str]) -> Target:
    """The session of an agent as the store remembers it, when its process still runs."""
    try:
        reader = open_reader(state.store)
    except StoreError as error:
        raise Failed(f"circusd does not answer, and {error}", UNREACHABLE) from error
    try:
        rows = reader.agents()
    finally:
        reader.close()
    row = rows.get(name)
    if row is None and name not in declared:
        raise Failed(f"no agent {name!r} in {state.store}{nearest(name, {*rows, *declared})}")
    if row is None:
        raise Failed(f"{name} is not running: it was never started")
    try:
        lives = row.boot == process_table.boot_id() and row.process and process_table.alive(row.process)
    except ProbeFailed as error:
        raise Failed(f"whether {name} runs is unknown: {error}") from error
    if not lives or row.socket is None or row.session is None:
        raise Failed(f"{name} is not running, and circusd does not answer: failoverctl up starts it")
    return _served(name, Target(Path(row.socket), row.session))


def _served(name: str, target: Target) -> Target:
    if tmux.serves(target.socket) is False:
        raise Failed(f"{name} cannot be shown: no tmux server listens on {target.socket}")
    return target


def become(argv: list[str]) -> NoReturn:
    """Replace this process by a tmux client, one that may run inside another tmux.

    Raises:
        Failed: tmux cannot be run.
    """
    inside = ("TMUX", "TMUX_PANE")
    environment = {name: value for name, value in os.environ.items() if name not in inside}
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        raise Failed(f"{argv[0]} cannot be run: {error.strerror}") from error
