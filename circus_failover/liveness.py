"""Is an agent alive? By number first, by tmux only where nothing is recorded; a failed probe is `unknown`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from circus_failover import process_table, tmux
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.records import AgentRow
from circus_failover.words import Liveness

HOOK_TIMEOUT_SECS = 0.25
"""A tmux call inside circusd's only loop may not take longer; a healthy one takes 2 ms."""


@dataclass(frozen=True)
class Evidence:
    """What was found of an agent."""

    liveness: Liveness
    ours: bool = False
    """The recorded launch is what was found."""
    pane: tmux.Pane | None = None
    reason: str = ""
    server_lost: bool = False
    """The recorded launch's tmux server is proven gone."""


def recorded(row: AgentRow) -> Evidence | None:
    """Judge the recorded launch by pids alone, with no tmux call; None when none is recorded.

    A launch lives when both its process and its server do: a process that outlived its server is a
    survivor that nobody can reach.
    """
    if row.process is None:
        return None
    if row.boot != process_table.boot_id():
        return Evidence(Liveness.DEAD, reason="the host was rebooted", server_lost=True)
    try:
        runs = process_table.alive(row.process)
        server = row.server is None or process_table.alive(row.server)
    except ProbeFailed as error:
        return Evidence(Liveness.UNKNOWN, reason=str(error))
    if runs and server:
        return Evidence(Liveness.LIVE, ours=True)
    if runs:
        return Evidence(Liveness.REMAINS, reason="its tmux server is gone, it runs on", server_lost=True)
    if row.uncleared == row.generation:
        return Evidence(
            Liveness.REMAINS, reason="what may be left of its last launch", server_lost=not server
        )
    return Evidence(Liveness.DEAD, server_lost=not server)


def probe(row: AgentRow, socket: Path | None, session: str | None) -> Evidence:
    """Judge an agent by its recorded launch, else by whether its session exists.

    Args:
        row: what is remembered.
        socket: where its session would be.
        session: the session's name.
    """
    found = recorded(row)
    if found is not None and found.liveness in (Liveness.LIVE, Liveness.UNKNOWN):
        return found
    if socket is None or session is None:
        return found or Evidence(Liveness.DEAD)
    elsewhere = _session(row, socket, session)
    if elsewhere.liveness is Liveness.DEAD and found is not None:
        return found
    return elsewhere


def _session(row: AgentRow, socket: Path, session: str) -> Evidence:
    serving = tmux.serves(socket)
    if serving is False:
        return Evidence(Liveness.DEAD)
    if serving is None:
        return Evidence(Liveness.UNKNOWN, reason=f"the tmux socket {socket} cannot be connected to")
    try:
        panes = tmux.panes(socket, session, HOOK_TIMEOUT_SECS)
    except tmux.TmuxTimeout:
        return Evidence(
            Liveness.UNKNOWN,
            reason=f"the tmux server on {socket} does not answer: nothing is launched beside it; "
            "look at its process, then start again",
        )
    except tmux.TmuxError as error:
        return Evidence(Liveness.UNKNOWN, reason=str(error))
    if not panes:
        return Evidence(Liveness.DEAD)
    living = [pane for pane in panes if not pane.dead]
    if not living:
        return Evidence(Liveness.REMAINS, pane=panes[0], reason="its session holds a dead pane")
    pane = living[0]
    return Evidence(Liveness.LIVE, ours=_is_launch(row, pane), pane=pane)


def _is_launch(row: AgentRow, pane: tmux.Pane) -> bool:
    """Say whether a pane's process is the recorded launch, by the variables it was started with."""
    environment = process_table.environ(pane.pid)
    return (
        environment is not None
        and row.launch is not None
        and f"FAILOVER_LAUNCH={row.launch}".encode() in environment
    )


def process_of(pane: tmux.Pane) -> tuple[ProcessId | None, ProcessId | None]:
    """Return the pane's own process and its server, by pid and start time."""
    return process_table.identify(pane.pid), process_table.identify(pane.server_pid)
