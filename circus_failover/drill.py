"""`failoverctl drill`: a fire drill. A scratch tmux server is watched, killed, and looked for in the records.

It starts and ends nothing but that server, the one session in it, and where none runs a canary of its own in
a scratch state directory. It leaves nothing behind, however it ends; the session would end by itself too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from circus_failover import process_table, tmux
from circus_failover.canary import asking, starting, watched
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.doctor_checks import Level
from circus_failover.drill_evidence import AGENT, fields, figures, judge
from circus_failover.failure import FOUND, Failed
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.state_dir import StateDir, StateDirError

PATIENCE_SECS = 10.0
"""How long each thing is waited for: a canary, its watch, the record, the snapshot."""
SESSION_SECS = 120
"""The session, and with it the server, ends by itself after this long."""
END_SECS = 5.0
KEEN_SECS = 0.25
Say = Callable[[str], None]


@dataclass
class Report:
    """What a drill did and saw; what did not come is None."""

    number: signal.Signals
    own: bool
    """The canary was one of its own."""
    canary: dict[str, Any] | None = None
    """What the canary said of itself, without its servers."""
    server: ProcessId | None = None
    socket: str | None = None
    armed: float | None = None
    """Milliseconds from the request to the watch."""
    recorded: float | None = None
    """Milliseconds from the signal until the record was seen to be on disk, synced."""
    snapped: float | None = None
    """Milliseconds from the signal until the snapshot was seen."""
    line: str | None = None
    """The record as it stands in the log."""
    record: dict[str, str] = field(default_factory=dict)
    snapshot: dict[str, Any] | None = None
    kept: str | None = None
    """Where the snapshot is; None: it was removed."""
    wrong: list[str] = field(default_factory=list)
    """What was not as it should be; empty: the drill went well."""
    doctor: list[str] = field(default_factory=list)
    """What `doctor` would say of the canary then."""


def run(state_dir: str | None, number: signal.Signals, *, keep: bool, say: Say) -> Report:
    """Hold a drill, and clean up after it in every case.

    Args:
        state_dir: whose canary is tried; None, or without one that runs: one of the drill's own.
        number: what the server is ended with, one of `drill_evidence.EXPECTED`.
        keep: leave the snapshot; one of a canary of the drill's own is put into the current folder.
        say: is told what is being waited for.

    Returns:
        What was seen; `wrong` says what was not as it should be.

    Raises:
        Failed: it could not be held, or a canary runs and does not answer (exit 1).
        KeyboardInterrupt: somebody pressed Ctrl-C; everything is cleaned up then.
    """
    status = asking.ask(state_dir, ask="status") if state_dir is not None else None
    if status is None and state_dir is not None and (holder := asking.holder(state_dir)) is not None:
        raise Failed(f"the canary of {state_dir} (pid {holder.pid}) does not answer", FOUND)
    report = Report(number, own=status is None)
    with _interruptible() as calm, contextlib.ExitStack() as stack:
        stack.callback(say, "cleaning up")
        try:
            folder = Path(tempfile.mkdtemp(prefix="failover-drill-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            if status is None or state_dir is None:
                state_dir = str(folder / "state")
                status = _own_canary(state_dir, stack, say)
            _Drill(report, state_dir, status, folder, stack, say).hold(keep)
            if report.wrong:
                unwatched = report.server if report.armed is None else None
                report.doctor = _doctor(state_dir, unwatched)
        except (OSError, StateDirError, tmux.TmuxError, ProbeFailed) as error:
            raise Failed(f"the drill could not be held: {error}") from error
        finally:
            calm()
    return report


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Turn the signals that end a program into exceptions, until the function that is given is called.

    From the first of them on, and from that call on, none interrupts what is being cleaned up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number in numbers if before[number] is not signal.SIG_IGN]

    def calm() -> None:
        for number in caught:
            signal.signal(number, signal.SIG_IGN)

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        calm()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield calm
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _own_canary(state_dir: str, stack: contextlib.ExitStack, say: Say) -> dict[str, Any]:
    """Start a canary for a scratch state directory, and return what it says of itself."""
    say("starting a canary of its own")
    StateDir(Path(state_dir)).prepare()
    stack.callback(_end_canary, state_dir)
    starting.start(state_dir)
    status: dict[str, Any] | None = _await(lambda: asking.ask(state_dir, ask="status"))
    if status is None:
        raise Failed(f"the drill could not be held: its own canary did not answer within {PATIENCE_SECS:g} s")
    return status


def _end_canary(state_dir: str) -> None:
    canary = asking.holder(state_dir)
    if canary is not None:
        end(canary)


def end(process: ProcessId) -> None:
    """End a process of the drill's own, by number, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        process_table.send(process, number)
        if _await(lambda: not process_table.may_run(process), END_SECS):
            return


def _await(probe: Callable[[], Any], secs: float = PATIENCE_SECS, keen_secs: float = 0.0) -> Any:
    """Return the first true answer, or what was answered last.

    Args:
        probe: is asked every 20 ms.
        secs: for how long.
        keen_secs: for so long it is asked every half a millisecond, where that is measured.
    """
    begun = time.monotonic()
    while True:
        answer = probe()
        waited = time.monotonic() - begun
        if answer or waited > secs:
            return answer
        time.sleep(0.0005 if waited < keen_secs else 0.02)


def _doctor(state_dir: str, unwatched: ProcessId | None) -> list[str]:
    """Return what `doctor` would say of the canary, were a server that it does not watch an agent's."""
    from circus_failover import doctor_canary

    found = doctor_canary.Found(
        servers={} if unwatched is None else {unwatched: AGENT},
        section=None,
        dry_run=False,
        read=False,
        circusd=None,
        canary=asking.holder(state_dir),
        answer=asking.ask(state_dir, ask="status"),
    )
    checks = doctor_canary.judged(found)
    return [f"{check.finding} -> {check.remedy}" for check in checks if check.level is not Level.OK]


class _Drill:
    """One drill, from the server's start to its record."""

    def __init__(
        self,
        report: Report,
        state_dir: str,
        status: dict[str, Any],
        folder: Path,
        stack: contextlib.ExitStack,
        say: Say,
    ) -> None:
        self._report, self._state, self._folder = report, state_dir, folder
        self._stack, self._say = stack, say
        self._log = os.path.join(state_dir, watched.DRILL_LOG)
        report.canary = {name: value for name, value in status.items() if name != "servers"}

    def hold(self, keep: bool) -> None:
        """Start the server, have it watched, end it, and look for the record and the snapshot."""
        report = self._report
        one = self._start()
        report.server, report.socket = one.server, one.socket
        self._say("waiting for the canary to arm it")
        if not self._arm(one):
            return
        self._say(f"waiting for the record of its end by {report.number.name}")
        begin, at = _size(self._log), time.time()
        if not process_table.send(one.server, report.number):
            report.wrong.append("the scratch server had ended before it was sent a signal")
            return
        report.line = _await(lambda: self._line(begin, one), keen_secs=KEEN_SECS)
        if report.line is None:
            report.wrong.append(f"no record within {PATIENCE_SECS:g} s in {self._log}")
            return
        # It is taken off the list when its record is synced.
        if _await(lambda: not os.path.exists(watched.path(self._state, one.name)), keen_secs=KEEN_SECS):
            report.recorded = _since(at)
        else:
            report.wrong.append(f"it was recorded, and is on the list after {PATIENCE_SECS:g} s still")
        report.record = fields(report.line)
        report.wrong += judge(report.number, one, report.record, self._status() or {})
        self._snapshot(one, at, keep)

    def _start(self) -> Watched:
        """Start the scratch server, with one session in it."""
        self._say("starting a scratch tmux server")
        socket = self._folder / "s"
        self._stack.callback(_end_server, socket)
        form = "#{pid} #{pane_pid} #{pane_id}"
        new = ["-f", os.devnull, "new-session", "-d", "-s", AGENT, "-P", "-F", form]
        with _no_core_dumps():
            told = tmux.run(socket, [*new, "sleep", str(SESSION_SECS)], PATIENCE_SECS)
        server_pid, pane_pid, pane = told.split()
        server, process = process_table.identify(int(server_pid)), process_table.identify(int(pane_pid))
        if server is None or process is None:
            raise Failed("the drill could not be held: the scratch tmux server ended by itself")
        self._stack.callback(end, process)
        self._stack.callback(end, server)
        agent = WatchedAgent(AGENT, 1, None, AGENT, pane, process)
        return Watched(str(socket), server, process_table.boot_id(), time.time(), True, (agent,))

    def _arm(self, one: Watched) -> bool:
        """Put the server on the list, and wait until the canary watches it."""
        self._stack.callback(asking.poke, self._state, one.name)
        self._stack.callback(watched.remove, self._state, one.name)
        at = time.time()
        watched.write(self._state, one)
        asking.ask(self._state, ask="look", server=one.name)

        def armed() -> float | None:
            servers = (self._status() or {}).get("servers", ())
            same = (each for each in servers if (each["pid"], each["start"]) == tuple(one.server))
            return next((each["since"] for each in same), None)

        since = _await(armed)
        if since is None:
            self._report.wrong.append(f"the canary did not arm it within {PATIENCE_SECS:g} s")
            return False
        self._report.armed = max(0.0, (since - at) * 1000)
        return True

    def _status(self) -> dict[str, Any] | None:
        return asking.ask(self._state, ask="status")

    def _line(self, begin: int, one: Watched) -> str | None:
        """Return the record of this very server, once all of it is in the log behind `begin`."""
        if _size(self._log) == begin:
            return None
        try:
            with open(self._log, "rb") as file:
                file.seek(begin if begin < os.fstat(file.fileno()).st_size else 0)
                text = file.read().decode(errors="replace")
        except OSError:
            return None
        lines = text[: text.rfind("\n") + 1].splitlines()
        return next((line for line in reversed(lines) if fields(line).get("socket") == one.socket), None)

    def _snapshot(self, one: Watched, at: float, keep: bool) -> None:
        report, path = self._report, self._report.record.get("forensics")
        if not path:
            report.wrong.append("the record names no snapshot")
            return
        self._say("waiting for its snapshot")
        if not _await(lambda: os.path.exists(path), keen_secs=KEEN_SECS):
            report.wrong.append(f"no snapshot within {PATIENCE_SECS:g} s: {path}")
            return
        report.snapped = _since(at)
        try:
            report.snapshot = figures(path, one.server)
            if not keep:
                os.unlink(path)
            elif report.own:
                report.kept = shutil.move(path, os.path.join(os.getcwd(), os.path.basename(path)))
            else:
                report.kept = path
        except (OSError, ValueError) as error:
            report.wrong.append(f"the snapshot {path} cannot be read: {error}")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _since(at: float) -> float:
    return (time.time() - at) * 1000


@contextlib.contextmanager
def _no_core_dumps() -> Iterator[None]:
    """Have what is started meanwhile leave no core dump: a drill's crash is of no interest to anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _end_server(socket: Path) -> None:
    """End whoever serves the scratch socket, also when the start of it was interrupted."""
    pid = tmux.server_pid(socket)
    process = process_table.identify(pid) if pid is not None else None
    if process is not None:
        end(process)
