"""What a worker does when it ends an agent: the one deliberate end it was told of.

Every step may be repeated: a worker that died half-way is started again by circusd's next tick. It ends
only processes that are proven, by pid and start time, to belong to the launch it was told of
(`launch_processes`), and names what it left alone. That a server may end is said first (`server_intent`).
`worker` holds the agent's lock meanwhile, and sends the report.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from circus_failover import crashpoint, launch_processes, private_file, process_table, server_intent, tmux
from circus_failover.canary import watched
from circus_failover.process_table import ProcessId
from circus_failover.words import IntentAction

POLL_SECS = 0.05
HANGUP_AFTER_SECS = 1.0
"""An interactive shell ignores SIGTERM and honours SIGHUP (bash(1), SIGNALS)."""
KILL_WAIT_SECS = 5.0
SURVIVOR_SECS = 5.0
"""The grace of what outlived its server: it has no terminal any more, and the next launch waits."""
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
    own_server: bool = False
    """Whether the agent has its tmux server for itself."""
    state_dir: str | None = None
    """The state directory; None in the order of an earlier version: then nothing is said of its server."""
    intent: str | None = None
    """What the end is for, an `IntentAction`."""
    runtime: str | None = None
    home: Path | None = None
    """The account home that the client used."""

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
            own_server=bool(raw.get("own_server", False)),
            state_dir=raw.get("state_dir"),
            intent=raw.get("intent"),
            runtime=raw.get("runtime"),
            home=Path(raw["home"]) if raw.get("home") else None,
        )

    @property
    def alarm_secs(self) -> int:
        """After so many seconds a worker that hangs is killed; it would hold the lock for ever."""
        return int(max(self.stop_secs, SURVIVOR_SECS) * ROUNDS + PATIENCE_SECS)

    @property
    def outlived(self) -> bool:
        """Whether what is left of a dead launch is left without its server."""
        lost = self.server is not None and not process_table.may_run(self.server)
        return lost and self.intent == IntentAction.CLEAR

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


@dataclass(frozen=True)
class _Session:
    """What was learned of a session, and what could not be done about it."""

    note: str = ""
    screen: str | None = None
    """What it showed last."""
    status: int | None = None
    number: int | None = None
    """The signal that ended its process."""
    ended_at: float | None = None
    """When tmux says that its process ended, in epoch seconds."""
    lives_on: bool = False
    """It is there, with a process that is not the launch's."""


@dataclass
class _Notes:
    """What a worker has found, for itself and for one that takes over: in the order's `tree` file."""

    path: Path
    processes: list[ProcessId]
    session: _Session | None

    @classmethod
    def read(cls, path: Path) -> _Notes:
        """Return what an earlier worker has left; which of its processes run, `launch_processes` finds."""
        session = None
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            raw = json.loads(path.read_bytes())["session"]
            session = _Session(**raw) if raw is not None else None
        return cls(path, [], session)

    def write(self) -> None:
        """Write it all down, durably."""
        processes = [[process.pid, process.start] for process in self.processes]
        session = asdict(self.session) if self.session is not None else None
        private_file.replace(self.path, json.dumps({"processes": processes, "session": session}))


def _carry_out(order: Order) -> dict[str, Any]:
    started = time.monotonic()
    said: list[str] = []
    if server_intent.covers(order) == watched.ANY:
        said.append(server_intent.announce(order, order.server))
    notes = _Notes.read(order.tree)
    processes = notes.processes
    killed: list[ProcessId] = []
    strangers: tuple[ProcessId, ...] = ()
    # An agent that ends may start something that outlives it, so what belongs to it is looked for again.
    for _ in range(ROUNDS):
        found = launch_processes.find(order)
        strangers = found.strangers
        new = [process for process in found.own if process not in processes]
        if processes and not any(process_table.may_run(process) for process in new):
            break
        processes += new
        # Written before the first signal: a worker that takes over still knows orphans of a dead parent.
        notes.write()
        crashpoint.reached("worker-before-signal")
        killed += _end(new, order)
        crashpoint.reached("worker-after-signal")
        if not new:
            break
    left = [process.pid for process in processes if process_table.may_run(process)]
    said.append(_sweep(order, processes))
    alone = [
        [process.pid, launch_processes.called(process)]
        for process in strangers
        if process not in processes and process_table.may_run(process)
    ]
    session = _close_session(order, notes)
    if left:
        said.insert(0, f"processes {left} did not end after SIGKILL")
    said.append(session.note)
    if alone:
        named = ", ".join(f"pid {pid} ({name})" for pid, name in alone)
        said.append(f"left alone, since nothing proves that it belongs to this launch: {named}")
    return {
        "outcome": "left" if left else "ended",
        "reason": "; ".join(note for note in dict.fromkeys(said) if note),
        "killed": [process.pid for process in killed],
        "left": left,
        "alone": alone,
        "exit_status": session.status,
        "exit_signal": session.number,
        "ended_at": session.ended_at,
        "session_lives_on": session.lives_on,
        "last_output": session.screen,
        "secs": round(time.monotonic() - started, 3),
    }


def _end(processes: Sequence[ProcessId], order: Order) -> list[ProcessId]:
    """Ask the launch to end, wait out its grace, kill what is left; return what had to be killed."""
    outlived = order.outlived
    grace = SURVIVOR_SECS if outlived else order.stop_secs
    # The agent alone is asked first, so that it can end its own tools; its orphans are asked when it is gone.
    agent = [] if outlived else [process for process in processes if process == order.agent]
    main = agent or list(processes)
    begun = time.monotonic()
    asked: dict[ProcessId, float] = {}
    hung_up: set[ProcessId] = set()
    while time.monotonic() - begun < grace:
        running = [process for process in processes if process_table.may_run(process)]
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
    while (
        any(process_table.may_run(process) for process in killed)
        and time.monotonic() - begun < KILL_WAIT_SECS
    ):
        time.sleep(POLL_SECS)
    return killed


def _sweep(order: Order, processes: Sequence[ProcessId]) -> str:
    """Remove the files by which processes of the launch that are gone still claim to run; return what failed.

    A client that is killed leaves them, and they would say of a later process with its pid what was never so.
    """
    if order.runtime is None or order.home is None:
        return ""
    # Only here: an agent without an account needs no runtime, and the import is a sixth of a worker's start.
    from circus_failover.agents import RUNTIMES

    for process in [*([order.agent] if order.agent else []), *processes]:
        if process_table.may_run(process):
            continue
        for path in RUNTIMES[order.runtime].stale_files([order.home], process):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                return f"{path}, which a killed client left, could not be removed: {error.strerror}"
    return ""


def _close_session(order: Order, notes: _Notes) -> _Session:
    """Keep the last screen and the exit status, then close the session if it is this launch's."""
    # Where it is gone, a worker that closed it and died may have known how the agent ended.
    session, silent = notes.session or _Session(), False
    try:
        panes = tmux.panes(order.socket, order.session)
        mine = [pane for pane in panes if pane.pane == order.pane] if order.pane else panes
        if order.server is not None and panes and panes[0].server_pid != order.server.pid:
            session = _Session("another server serves its socket now: its session was left alone")
        elif mine:
            pane = _settled(order, mine[0])
            screen = tmux.capture(order.socket, pane.pane)
            if pane.dead or _of_launch(order, pane):
                session = _Session(screen=screen)
                # Another program may have taken the pane over: how that ended says nothing of the agent.
                if order.agent is None or pane.pid == order.agent.pid:
                    # One that was found dead, and without a time: that of the prod says nothing.
                    ended_at = mine[0].dead_time if mine[0].dead else pane.dead_time
                    session = _Session("", screen, pane.dead_status, pane.dead_signal, ended_at)
                notes.session = session
                # Nobody is kept from ending an agent by a full disk.
                with contextlib.suppress(OSError):
                    notes.write()
                note = server_intent.close(order, order.server or process_table.identify(pane.server_pid))
                return replace(session, note=note)
            note = "its session holds a process of somebody else and was left alone"
            session = _Session(note, screen, lives_on=True)
            if order.launch is None:
                # It was adopted, and is its owner's again.
                tmux.keep_dead_pane(order.socket, pane.pane, keep=False)
    except tmux.TmuxError as error:
        silent = isinstance(error, tmux.TmuxTimeout)
        session = replace(notes.session or _Session(), note=f"its session could not be closed: {error}")
    if order.intent == IntentAction.CLEAR and not silent:
        # How an agent ended that nobody ended is not known before it is known whether its server went.
        server_intent.await_end(order, order.server)
    server_intent.leave(order, order.server, silent=silent)
    return session


def _of_launch(order: Order, pane: tmux.Pane) -> bool:
    """Say whether a living pane is this launch's own, by pid or by the variables it was started with."""
    if order.agent is not None and pane.pid == order.agent.pid:
        return True
    return launch_processes.carries(order, pane.pid)


def _settled(order: Order, pane: tmux.Pane) -> tmux.Pane:
    """Give tmux a moment to reap the pane's process and to read what it printed last.

    tmux knows an exit status as soon as it has reaped the process, and calls the pane dead once it has read
    the terminal to its end (server_child_exited, window_pane_read_callback, tmux 3.3a): either may be first.
    What the kernel has not handed on by the time that the process is reaped is lost (`launch_file.LEAVE`).
    """

    def whole() -> bool:
        return pane.dead and (pane.dead_status is not None or pane.dead_signal is not None)

    begun = time.monotonic()
    while not whole() and time.monotonic() - begun < SETTLE_SECS:
        if (
            not pane.dead
            and order.agent is not None
            and pane.pid == order.agent.pid
            and process_table.may_run(order.agent)
        ):
            break
        tmux.prod(order.socket)
        time.sleep(POLL_SECS)
        again = [found for found in tmux.panes(order.socket, order.session) if found.pane == pane.pane]
        if not again:
            break
        pane = again[0]
    return pane
