"""What a worker does when it ends an agent: the one deliberate end it was told of.

Every step may be repeated: a worker that died half-way is started again by circusd's next tick. It ends
only processes that are proven, by pid and start time, to belong to the launch it was told of. `worker`
holds the agent's lock meanwhile, and sends the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import crashpoint, private_file, process_table, tmux
from circus_failover.process_table import ProbeFailed, ProcessId

POLL_SECS = 0.05
HANGUP_AFTER_SECS = 1.0
"""An interactive shell ignores SIGTERM and honours SIGHUP (bash(1), SIGNALS)."""
KILL_WAIT_SECS = 5.0
ROUNDS = 3
SETTLE_SECS = 2.0
PATIENCE_SECS = 60.0
"""What a worker may take beyond the agent's grace: a dozen tmux calls of 2 s, and the wait after SIGKILL."""


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    action: int
    identity: str
    generation: int
    launch: str | None
    """The launch's own name; None for a session that somebody else started."""
    agent: ProcessId | None
    server: ProcessId | None
    socket: Path
    session: str
    pane: str | None
    stop_secs: float
    spool: Path
    lock: Path
    tree: Path
    supervisor: int
    """Pid of the circusd that gave the order, which is never ended, wherever it was started from."""

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Order:
        """Read an order as circusd wrote it."""
        return cls(
            action=raw["action"],
            identity=raw["identity"],
            generation=raw["generation"],
            launch=raw["launch"],
            agent=_process(raw["agent"]),
            server=_process(raw["server"]),
            socket=Path(raw["socket"]),
            session=raw["session"],
            pane=raw["pane"],
            stop_secs=raw["stop_secs"],
            spool=Path(raw["spool"]),
            lock=Path(raw["lock"]),
            tree=Path(raw["tree"]),
            supervisor=raw["supervisor"],
        )

    @property
    def alarm_secs(self) -> int:
        """After so many seconds a worker that hangs is killed; it would hold the lock for ever."""
        return int(self.stop_secs * ROUNDS + PATIENCE_SECS)

    def carry_out(self) -> dict[str, Any]:
        """End the launch and return the report; what went wrong is in it, as outcome `failed`."""
        report: dict[str, Any] = {
            "kind": "ended",
            "action": self.action,
            "identity": self.identity,
            "generation": self.generation,
        }
        try:
            report.update(_carry_out(self))
        except Exception as error:
            report.update(outcome="failed", reason=f"{type(error).__name__}: {error}")
        return report


def _process(raw: Sequence[int] | None) -> ProcessId | None:
    return ProcessId(raw[0], raw[1]) if raw else None


def _carry_out(order: Order) -> dict[str, Any]:
    started = time.monotonic()
    processes: list[ProcessId] = []
    killed: list[ProcessId] = []
    # An agent that ends may start something that outlives it, so what belongs to it is looked for again.
    for _ in range(ROUNDS):
        new = [process for process in _launch_processes(order) if process not in processes]
        if processes and not any(_runs(process) for process in new):
            break
        processes += new
        # Written before the first signal: a worker that takes over still knows orphans of a dead parent.
        private_file.replace(order.tree, json.dumps([[process.pid, process.start] for process in processes]))
        crashpoint.reached("worker-before-signal")
        killed += _end(new, order)
        crashpoint.reached("worker-after-signal")
        if not new:
            break
    left = [process.pid for process in processes if _runs(process)]
    screen, status, number, note = _close_session(order)
    outcome = "left" if left else "ended"
    reasons = [note] if note else []
    if left:
        reasons.insert(0, f"processes {left} did not end after SIGKILL")
    return {
        "outcome": outcome,
        "reason": "; ".join(reasons),
        "killed": [process.pid for process in killed],
        "left": left,
        "exit_status": status,
        "exit_signal": number,
        "last_output": screen,
        "secs": round(time.monotonic() - started, 3),
    }


def _launch_processes(order: Order) -> list[ProcessId]:
    """Return what belongs to this launch: its tree, what carries its name, and what was found before."""
    found: dict[ProcessId, None] = {}
    if order.agent is not None:
        found.update(dict.fromkeys(process_table.descendants(order.agent)))
    found.update(dict.fromkeys(_carrying(order)))
    with contextlib.suppress(OSError, ValueError, TypeError):
        found.update(dict.fromkeys(ProcessId(*pair) for pair in json.loads(order.tree.read_bytes())))
    # A server inherits the variables of the client that started it; it is no agent. Neither is a keeper.
    infrastructure = {order.server} if order.server else set()
    # circusd may have been started from an agent's own shell: it, its keepers and plugins are nobody's agent.
    supervisor = process_table.identify(order.supervisor)
    if supervisor is not None:
        infrastructure.update(process_table.descendants(supervisor))
    # By pid alone: whoever listens there now is a server, also one that replaced the recorded one.
    never = {os.getpid(), tmux.server_pid(order.socket)}
    return [process for process in found if process not in infrastructure and process.pid not in never]


def _carrying(order: Order) -> list[ProcessId]:
    return process_table.carrying(order.launch) if order.launch else []


def _runs(process: ProcessId) -> bool:
    try:
        return process_table.alive(process)
    except ProbeFailed:
        return True


def _end(processes: Sequence[ProcessId], order: Order) -> list[ProcessId]:
    """Ask the launch to end, wait out its grace, kill what is left; return what had to be killed."""
    # The agent alone is asked first, so that it can end its own tools; its orphans are asked when it is gone.
    main = [process for process in processes if process == order.agent] or list(processes)
    begun = time.monotonic()
    asked: dict[ProcessId, float] = {}
    hung_up: set[ProcessId] = set()
    while time.monotonic() - begun < order.stop_secs:
        running = [process for process in processes if _runs(process)]
        if not running:
            return []
        wanted = [process for process in main if process in running] or running
        now = time.monotonic()
        for process in wanted:
            if process not in asked:
                process_table.send(process, signal.SIGTERM)
                asked[process] = now
            elif process not in hung_up and now - asked[process] >= HANGUP_AFTER_SECS:
                process_table.send(process, signal.SIGHUP)
                process_table.send(process, signal.SIGCONT)
                hung_up.add(process)
        time.sleep(POLL_SECS)
    killed = [process for process in processes if process_table.send(process, signal.SIGKILL)]
    begun = time.monotonic()
    while any(_runs(process) for process in killed) and time.monotonic() - begun < KILL_WAIT_SECS:
        time.sleep(POLL_SECS)
    return killed


def _close_session(order: Order) -> tuple[str | None, int | None, int | None, str]:
    """Keep the last screen and the exit status, then close the session if it is this launch's.

    Returns:
        Last screen, exit status, signal number, and what could not be done.
    """
    try:
        panes = tmux.panes(order.socket, order.session)
        mine = [pane for pane in panes if pane.pane == order.pane] if order.pane else panes
        if order.server is not None and panes and panes[0].server_pid != order.server.pid:
            return None, None, None, "another server serves its socket now: its session was left alone"
        if not mine:
            return None, None, None, ""
        pane = _settled(order, mine[0])
        screen = tmux.capture(order.socket, pane.pane)
        if not pane.dead and not _of_launch(order, pane):
            return screen, None, None, "its session holds a process of somebody else and was left alone"
        tmux.close_session(order.socket, order.session)
        return screen, pane.dead_status, pane.dead_signal, ""
    except tmux.TmuxTimeout as error:
        return None, None, None, f"its session could not be closed: {error}"
    except tmux.TmuxError as error:
        return None, None, None, f"its session could not be closed: {error}"


def _of_launch(order: Order, pane: tmux.Pane) -> bool:
    """Say whether a living pane is this launch's own, by pid or by the variables it was started with."""
    if order.agent is not None and pane.pid == order.agent.pid:
        return True
    return any(process.pid == pane.pid for process in _carrying(order))


def _settled(order: Order, pane: tmux.Pane) -> tmux.Pane:
    """Give tmux a moment to reap the pane's process and to read what it printed last.

    tmux knows an exit status as soon as it has reaped the process, and calls the pane dead once it has read
    the terminal to its end (server_child_exited, window_pane_read_callback, tmux 3.3a): either may be first.
    """

    def whole() -> bool:
        return pane.dead and (pane.dead_status is not None or pane.dead_signal is not None)

    begun = time.monotonic()
    while not whole() and time.monotonic() - begun < SETTLE_SECS:
        if not pane.dead and order.agent is not None and pane.pid == order.agent.pid and _runs(order.agent):
            break
        tmux.prod(order.socket)
        time.sleep(POLL_SECS)
        again = [found for found in tmux.panes(order.socket, order.session) if found.pane == pane.pane]
        if not again:
            break
        pane = again[0]
    return pane
