"""What a worker does when it types a task: into its agent's terminal, so that it is taken exactly once.

The input line is cleared, the text is pasted, and once the screen shows it Enter is sent; the task is taken
when the screen moved and the text does not wait there any more. Nothing is typed into a pane that does not
run the agent's very process: tmux itself is told to look before it acts.

A worker may be killed anywhere and started again with the same order. What cannot be repeated is Enter, so it
is written down before it is sent: from then on (`entering`) nothing is pasted again, and the screen tells
whether Enter is still wanted. Where it cannot be told (tmux does not answer) the worker ends without a
report, with exit code 70, and is started again later. Before Enter every failure is harmless: the line is
cleared and the outcome is `not-taken`.

A program that does not ask for bracketed paste (a plain shell) takes the lines of a text one by one, as they
come: for it, only a text of one line is taken or not taken as a whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circus_failover import crashpoint, echo, private_file, process_table, tmux
from circus_failover.process_table import ProbeFailed, ProcessId

POLL_SECS = 0.05
CLEAR_SECS = 0.15
"""How long a program may take to show that a key cleared something; a slower one clears it all the same."""
CLEAR_ROUNDS = 20
ECHO_SECS = 5.0
ECHO_BYTES_PER_SEC = 100_000
"""A large text is allowed more time; the stand-in shows 1 MiB within 0.3 s, a busy machine is slower."""
SETTLE_SECS = 1.0
TAKEN_SECS = 10.0
LAST_LOOK_SECS = 3.0
"""How long a worker whose agent is to be ended, or whose time is over, looks whether the task was taken.

Only where Enter was sent and the text waits still. On a busy machine an agent may take it late, and what it
took when nobody looked any more would be typed once more.
"""
ENDED_SECS = 2.0
PATIENCE_SECS = 30.0
"""What a worker may take beyond the time it is given: clearing, and a few tmux calls of 2 s."""


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    task: int
    identity: str
    generation: int
    launch: str | None
    agent: ProcessId | None
    server: ProcessId | None
    socket: Path
    session: str
    pane: str | None
    text_file: Path
    journal: Path
    spool: Path
    lock: Path
    secs: float
    expires_at: float | None
    """Epoch seconds after which nothing is typed or entered any more; None: there is no such time."""

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Order:
        """Read an order as circusd wrote it."""
        return cls(
            task=raw["task"],
            identity=raw["identity"],
            generation=raw["generation"],
            launch=raw["launch"],
            agent=ProcessId(*raw["agent"]) if raw["agent"] else None,
            server=ProcessId(*raw["server"]) if raw["server"] else None,
            socket=Path(raw["socket"]),
            session=raw["session"],
            pane=raw["pane"],
            text_file=Path(raw["text_file"]),
            journal=Path(raw["journal"]),
            spool=Path(raw["spool"]),
            lock=Path(raw["lock"]),
            secs=float(raw["secs"]),
            expires_at=float(raw["expires_at"]) if raw.get("expires_at") is not None else None,
        )

    @property
    def alarm_secs(self) -> int:
        """After so many seconds a worker that hangs is killed."""
        return int(self.secs + PATIENCE_SECS) + 1

    def carry_out(self) -> dict[str, Any] | None:
        """Type the task and return the report; None when it cannot be told whether it was taken."""
        return _Typist(self).carry_out()

    @property
    def name(self) -> list[Any]:
        """Say which delivery this is; what a journal tells of another one means nothing."""
        agent = [self.agent.pid, self.agent.start] if self.agent else None
        return [self.task, self.identity, self.generation, self.launch, agent]


class _Gone(Exception):
    """The agent's process is not there, or not in its pane: nothing may be typed."""


class _NotTaken(Exception):
    """The agent does not take the task now; the text says why."""


class _Typist:
    """One worker at its order: how far it is, and whether it was told to stop."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._pane = order.pane or ""
        self._kept = self._read_journal()
        self._stage = "entering" if self._kept.get("stage") in ("entering", "taken") else "checking"
        """How far it is. From `entering` on, a failure does not prove that the task was not taken."""
        self._entered: float | None = self._kept.get("entered_at")
        """When Enter was sent, in epoch seconds, at the earliest."""
        self._until = time.monotonic() + order.secs
        self._stopped: float | None = None
        """Since when circusd wants to end the agent, which needs the lock (SIGTERM)."""

    def carry_out(self) -> dict[str, Any] | None:
        signal.signal(signal.SIGTERM, self._stop)
        try:
            outcome, note = self._deliver()
        except _Gone as gone:
            outcome, note = "gone", str(gone)
        except (_NotTaken, tmux.TmuxError, OSError, ValueError) as error:
            if self._stage == "entering":
                return None
            if self._stage != "checking" and not isinstance(error, tmux.TmuxTimeout):
                self._clear_quietly()
            outcome, note = "not-taken", str(error)
        return {
            "kind": "typed",
            "task": self._order.task,
            "identity": self._order.identity,
            "generation": self._order.generation,
            "outcome": outcome,
            "stage": self._stage,
            "entered_at": self._entered,
            "note": note,
        }

    def _stop(self, *_: object) -> None:
        if self._stopped is None:
            self._stopped = time.monotonic()

    # -- the steps -----------------------------------------------------------------------------------

    def _deliver(self) -> tuple[str, str]:
        kept = self._kept
        # An earlier worker saw it and died before it could say so.
        if kept.get("stage") == "taken":
            return "taken", str(kept["note"])
        self._find()
        if kept.get("stage") == "not-taken":
            self._stage = "clearing"
            raise _NotTaken(str(kept["note"]))
        if kept.get("stage") == "entering":
            return self._enter(echo.Waiting(**kept["waiting"]), again=True)
        text = self._order.text_file.read_text(encoding="utf-8")
        self._heed()
        self._stage = "clearing"
        self._clear()
        waiting = self._paste(text)
        self._heed()
        self._entered = time.time()
        self._write_journal("entering", waiting=asdict(waiting))
        self._stage = "entering"
        return self._enter(waiting, again=False)

    def _find(self) -> None:
        """Make sure that the agent runs in its pane; find the pane where nobody has noted it."""
        order = self._order
        if order.agent is None:
            raise _Gone("the agent's process is not known")
        if not self._pane:
            panes = tmux.panes(order.socket, order.session)
            mine = [pane.pane for pane in panes if pane.pid == order.agent.pid]
            if not mine:
                raise _Gone(f"no pane of session {order.session} runs the agent, pid {order.agent.pid}")
            self._pane = mine[0]
        self._look()

    def _clear(self) -> None:
        """Empty the input line, whatever the program holds there: half a task, or what somebody has typed.

        C-u clears the line in the stand-in, and in a terminal's own line editing (termios(3), VKILL); Claude
        Code 2.1 takes it too. readline clears what is before the cursor, and editors of several lines one of
        them: so the cursor goes to the end first, and it is repeated as long as that changes something.
        """
        shown = echo.words(self._look())
        for _ in range(CLEAR_ROUNDS):
            self._press("C-e", "C-u")
            until = time.monotonic() + CLEAR_SECS
            while (now := echo.words(self._look())) == shown and time.monotonic() < until:
                time.sleep(POLL_SECS)
            if now == shown:
                return
            shown = now

    def _paste(self, text: str) -> echo.Waiting:
        """Paste the text and return how it stands in the input line."""
        self._heed()
        before = self._look()
        self._stage = "pasting"
        crashpoint.reached("typing-before-paste")
        buffer = f"failover-{self._order.task}-{self._owner.pid}"
        if not tmux.paste(self._order.socket, self._pane, self._owner, buffer, text):
            raise _Gone(self._elsewhere())
        crashpoint.reached("typing-after-paste")
        self._stage = "echo"
        begun = time.monotonic()
        until = min(begun + ECHO_SECS + len(text) / ECHO_BYTES_PER_SEC, self._until, self._expiry())
        mark = echo.mark_of(text)
        while (waiting := echo.shown(mark, before, look := self._look())) is None:
            if time.monotonic() >= until:
                raise _NotTaken(f"the text did not show on the screen within {until - begun:.0f} s")
            self._heed()
            time.sleep(POLL_SECS)
        # What moves after Enter must come of Enter, so a program that still draws is waited for.
        until = time.monotonic() + SETTLE_SECS
        while time.monotonic() < until:
            time.sleep(POLL_SECS)
            last, look = look, self._look()
            waiting = echo.shown(mark, before, look) or waiting
            if last == look:
                break
        return waiting

    def _enter(self, waiting: echo.Waiting, *, again: bool) -> tuple[str, str]:
        """Send Enter, unless an earlier worker did and it had its effect; return what is seen then."""
        if again and self._left(waiting):
            return self._taken("the agent took it")
        crashpoint.reached("typing-before-enter")
        entered = self._hindrance() is None
        if entered:
            self._press("Enter")
        crashpoint.reached("typing-after-enter")
        until = min(time.monotonic() + TAKEN_SECS, max(self._until, time.monotonic() + LAST_LOOK_SECS))
        until = min(until, max(time.monotonic(), self._expiry()) + LAST_LOOK_SECS)
        try:
            while not self._left(waiting):
                last = until if self._stopped is None else min(until, self._stopped + LAST_LOOK_SECS)
                if time.monotonic() >= last:
                    return self._not_taken(entered)
                time.sleep(POLL_SECS)
        except _Gone:
            # A program may end at what it was told, faster than its last screen can be seen.
            if self._stopped is not None or not self._ended_by_itself():
                raise
            return self._taken("the agent took it and ended")
        return self._taken("the agent took it")

    def _taken(self, note: str) -> tuple[str, str]:
        # Only for a worker that comes after this one; what was seen is reported on a full disk too.
        with contextlib.suppress(OSError):
            self._write_journal("taken", note=note)
        return "taken", note

    def _not_taken(self, entered: bool) -> tuple[str, str]:
        note = "Enter was sent and the text still waits"
        if self._stopped is not None or not entered:
            note = self._hindrance() or note
        # Written before the line is cleared, which would look like a text that was taken.
        with contextlib.suppress(OSError):
            self._write_journal("not-taken", note=note)
            self._clear_quietly()
        return "not-taken", note

    # -- looking and pressing ------------------------------------------------------------------------

    @property
    def _owner(self) -> tmux.Owner:
        agent, server = self._order.agent, self._order.server
        assert agent is not None
        return tmux.Owner(agent.pid, server.pid if server else None)

    def _look(self) -> tmux.Look:
        """Return what the agent's pane shows.

        Raises:
            _Gone: the agent's process is not there, or the pane is another process's.
        """
        agent = self._order.agent
        assert agent is not None
        with contextlib.suppress(ProbeFailed):
            if not process_table.alive(agent):
                raise _Gone(f"the agent, pid {agent.pid}, is not running any more")
            if self._order.server is not None and not process_table.alive(self._order.server):
                raise _Gone(f"the agent's tmux server, pid {self._order.server.pid}, is not running any more")
        look = tmux.look(self._order.socket, self._pane)
        if look is None or look.dead or look.pid != agent.pid:
            raise _Gone(self._elsewhere())
        if self._order.server is not None and look.server_pid != self._order.server.pid:
            raise _Gone(f"another tmux server serves {self._order.socket} now, pid {look.server_pid}")
        return look

    def _press(self, *keys: str) -> None:
        if not tmux.press(self._order.socket, self._pane, self._owner, *keys):
            raise _Gone(self._elsewhere())

    def _elsewhere(self) -> str:
        return f"pane {self._pane} does not run the agent, pid {self._owner.pid}"

    def _left(self, waiting: echo.Waiting) -> bool:
        """Say whether the text has left the input line; a screen that is being drawn is looked at twice."""
        if waiting.still(self._look()):
            return False
        time.sleep(POLL_SECS)
        return not waiting.still(self._look())

    def _ended_by_itself(self) -> bool:
        """Say whether the agent's process exited, and was not ended by a signal."""
        until = time.monotonic() + ENDED_SECS
        while time.monotonic() < until:
            look = tmux.look(self._order.socket, self._pane)
            if look is None or look.pid != self._owner.pid:
                return False
            if look.dead and (look.dead_status is not None or look.dead_signal is not None):
                return look.dead_signal is None
            tmux.prod(self._order.socket)
            time.sleep(POLL_SECS)
        return False

    def _clear_quietly(self) -> None:
        """Clear the line where that is possible: what is typed next clears it first in any case."""
        with contextlib.suppress(_Gone, tmux.TmuxError):
            self._clear()

    def _hindrance(self) -> str | None:
        """Return why nothing is to be typed or entered from now on; None: nothing speaks against it."""
        if self._stopped is not None:
            return "the agent is being ended"
        return "its time is over" if time.monotonic() >= self._expiry() else None

    def _expiry(self) -> float:
        """Return the monotonic second from which on nothing is typed or entered."""
        if self._order.expires_at is None:
            return math.inf
        return time.monotonic() + self._order.expires_at - time.time()

    def _heed(self) -> None:
        hindrance = self._hindrance()
        if hindrance is not None:
            raise _NotTaken(hindrance)

    # -- what is written down ------------------------------------------------------------------------

    def _read_journal(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._order.journal.read_bytes())
            return kept if kept["name"] == self._order.name else {}
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return {}

    def _write_journal(self, stage: str, **more: Any) -> None:
        # On disk before this returns. A power cut may lose the new name, and with it ends the agent itself.
        content = {"name": self._order.name, "stage": stage, "entered_at": self._entered, **more}
        private_file.replace(self._order.journal, json.dumps(content))
