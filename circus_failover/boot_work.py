"""What a worker does when it watches a boot: it looks until the client is proven ready, or never will be.

What proves it is the runtime's affair (`agents.runtime.Runtime.boot`); where `failover.ready_match` is set,
the screen must have shown that too. A dialog is answered where a setting says how (`boot_dialogs`), and else
fails the boot; no other key is ever pressed, and nothing is ended here. tmux that does not answer is no
evidence: it is asked again, until the time is over or the agent's process is gone.

The pattern is an operator's, and may backtrack for ever: it is searched for here and not in circusd, a search
has a bound, and the alarm that `worker` sets ends the rest. A hundred boots may be watched at once, so the
longer one takes, the less often is looked.

A worker may be killed anywhere and started again with the same order: it looks anew. What cannot be seen on a
screen is whether a key was pressed that the client has yet to read; so that is written down before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import crashpoint, file_lock, private_file, process_table, tmux
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Boot, Place, Screen
from circus_failover.boot_dialogs import Dialogs, Hopeless, Look, Press, telling
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.words import BootStage, Source

POLL_SECS = 0.1
POLL_MAX_SECS = 1.0
POLL_SHARE = 0.05
"""How long to wait between two looks, as a part of what the boot has taken so far."""
SCREEN_SECS = 0.15
SCREEN_MAX_SECS = 2.0
SCREEN_SHARE = 0.2
"""The same for the screen: a call of tmux, 3 ms of CPU time, where files take 0.2."""
SEARCH_SECS = 2.0
"""CPU time that one search may take; a screen for which it is not enough does not match."""
HOPELESS_SECS = 5.0
"""How long to wait after such a search: the next screen may be kinder, or not."""
PATIENCE_SECS = 15.0
"""What a worker may take beyond the time it is given: a call of tmux, and one search."""


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    identity: str
    generation: int
    launch: str | None
    agent: ProcessId | None
    server: ProcessId | None
    socket: Path
    pane: str | None
    runtime: str
    home: Path
    """The account home; of a runtime that knows none, nothing that is there."""
    working_dir: Path
    conversation: str | None
    launched_at: float
    dialogs: Mapping[str, str]
    match: str | None
    """A regular expression, searched for in what the terminal shows, line by line (`re.MULTILINE`)."""
    secs: float
    events: Path | None
    """Where circusd keeps what the client's hooks have reported of this launch."""
    journal: Path | None
    """Where to write down what was answered; None: nothing is."""
    spool: Path
    lock: Path | None
    agent_lock: Path | None
    """Held by whoever types into the agent, or ends it: meanwhile no key is pressed. None: nobody is."""

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Order:
        """Read an order as circusd wrote it."""
        return cls(
            identity=raw["identity"],
            generation=raw["generation"],
            launch=raw.get("launch"),
            agent=ProcessId(*raw["agent"]) if raw["agent"] else None,
            server=ProcessId(*raw["server"]) if raw.get("server") else None,
            socket=Path(raw["socket"]),
            pane=raw["pane"],
            runtime=raw.get("runtime", "command"),
            home=Path(raw.get("home") or os.devnull),
            working_dir=Path(raw.get("working_dir") or "/"),
            conversation=raw.get("conversation"),
            launched_at=float(raw.get("launched_at", 0.0)),
            dialogs=raw.get("dialogs", {}),
            match=raw["match"],
            secs=float(raw["secs"]),
            events=Path(raw["events"]) if raw.get("events") else None,
            journal=Path(raw["journal"]) if raw.get("journal") else None,
            spool=Path(raw["spool"]),
            lock=Path(raw["lock"]) if raw.get("lock") else None,
            agent_lock=Path(raw["agent_lock"]) if raw.get("agent_lock") else None,
        )

    @property
    def alarm_secs(self) -> int:
        """After so many seconds a worker that hangs is killed."""
        return int(self.secs + PATIENCE_SECS) + 1

    def carry_out(self) -> dict[str, Any]:
        """Watch until the client is ready, never will be, is gone, or the time is over; return the report."""
        found = {"outcome": "gone"}
        if self.agent is not None and self.pane is not None:
            found = _Watch(self, self.agent, self.pane).watch()
        return {"kind": "ready", "identity": self.identity, "generation": self.generation, **found}

    @property
    def name(self) -> list[Any]:
        """Say which boot this is; what a journal tells of another one means nothing."""
        return [self.identity, self.generation, self.launch, list(self.agent) if self.agent else None]


@contextlib.contextmanager
def _sole(path: Path | None) -> Iterator[bool]:
    """Hold a lock that another kind of worker holds all its life; False at once when one does."""
    if path is None:
        yield True
        return
    handle = file_lock.take(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


class _TooLong(Exception):
    """The search took more CPU time than it may."""


class _Watch:
    """One worker at its order: what it has seen so far."""

    def __init__(self, order: Order, agent: ProcessId, pane: str) -> None:
        self._order = order
        self._agent = agent
        self._pane = pane
        self._runtime = RUNTIMES[order.runtime]
        self._pattern = re.compile(order.match, re.MULTILINE) if order.match is not None else None
        self._matched = self._pattern is None
        self._match_after = 0.0
        self._begun = self._quickened = time.monotonic()
        """Since when it looks, and since when it looks often: its start, or a change."""
        self._screen: Screen | None = None
        self._screen_after = 0.0
        self._asked = self._stale = False
        """Whether this look has used the screen, and whether that was one of an earlier look."""
        self._before = Boot(BootStage.WAIT)
        self._trouble = ""
        known = {dialog.name: dialog for dialog in self._runtime.dialogs}
        self._dialogs = Dialogs(known, order.dialogs, self._runtime.name)
        self._read_journal()

    def watch(self) -> dict[str, Any]:
        """Look until there is something to report."""
        while True:
            boot = self._look()
            if boot.stage is BootStage.READY and self._stale:
                # Since that screen was seen, a dialog may have opened.
                self._screen_after = 0.0
                boot = self._look()
            if boot.stage is BootStage.READY and self._matches():
                return self._report("ready", evidence=self._evidence(boot), conversation=boot.conversation)
            hopeless = None if self._stale else self._follow(boot)
            if hopeless is not None:
                return self._report("hopeless", reason=hopeless, dialog=boot.dialog)
            if self._gone():
                return self._report("gone")
            left = self._begun + self._order.secs - time.monotonic()
            if left <= 0:
                return self._report("timeout", reason=self._last_words(boot))
            time.sleep(min(self._pause(POLL_SECS, POLL_SHARE, POLL_MAX_SECS), left))

    def _report(self, outcome: str, **more: Any) -> dict[str, Any]:
        return {"outcome": outcome, "answered": self._dialogs.given, **more}

    def _pause(self, least: float, share: float, most: float) -> float:
        return min(max((time.monotonic() - self._quickened) * share, least), most)

    # -- looking -------------------------------------------------------------------------------------

    def _look(self) -> Boot:
        order, self._asked, self._stale = self._order, False, False
        place = Place(
            process=self._agent,
            home=order.home,
            working_dir=order.working_dir,
            conversation=order.conversation,
            launched_at=order.launched_at,
            events=self._events(),
            screen=self._shown,
        )
        try:
            boot = self._runtime.boot(place)
        except Exception as error:
            # A client's files may hold anything. A later look may find them better; else somebody reads this.
            self._trouble = f"{type(error).__name__}: {error}"
            return Boot(BootStage.WAIT)
        self._trouble = ""
        return boot

    def _events(self) -> Mapping[str, Mapping[str, Any]]:
        if self._order.events is None:
            return {}
        try:
            raw = json.loads(self._order.events.read_bytes())
        except (OSError, ValueError):
            return {}
        reported = raw.items() if isinstance(raw, dict) else ()
        return {name: event for name, event in reported if isinstance(event, dict)}

    def _shown(self) -> Screen | None:
        """Return what the terminal shows, or did not long ago."""
        if self._asked:
            return self._screen
        now, self._asked = time.monotonic(), True
        self._stale = now < self._screen_after
        if not self._stale:
            self._screen = self._take()
            self._screen_after = now + self._pause(SCREEN_SECS, SCREEN_SHARE, SCREEN_MAX_SECS)
        return self._screen

    def _take(self) -> Screen | None:
        # Whose pane it is, is asked with it: a screen of somebody else proves nothing.
        try:
            found = tmux.screen(self._order.socket, self._pane)
        except tmux.TmuxError:
            return None
        return found[1] if found is not None and found[0] == self._agent.pid else None

    def _gone(self) -> bool:
        try:
            return not process_table.alive(self._agent)
        except ProbeFailed:
            return False

    # -- ready ---------------------------------------------------------------------------------------

    def _matches(self) -> bool:
        """Say whether the screen shows, or did once, what `failover.ready_match` asks for."""
        if self._matched or self._pattern is None or time.monotonic() < self._match_after:
            return self._matched
        try:
            mine = self._take() is not None
            self._matched = mine and _search(self._pattern, tmux.capture(self._order.socket, self._pane))
        except tmux.TmuxError:
            return False
        except _TooLong:
            self._match_after = time.monotonic() + HOPELESS_SECS
        return self._matched

    def _evidence(self, boot: Boot) -> str:
        shown = f"{Source.SCREEN}: failover.ready_match" if self._pattern is not None else ""
        return "; ".join(part for part in (boot.evidence, shown) if part)

    # -- not ready -----------------------------------------------------------------------------------

    def _follow(self, boot: Boot) -> str | None:
        """Answer a dialog where that is due; return why the boot has failed, or None when it goes on."""
        before, self._before = self._before, boot
        if boot.stage is not before.stage or boot.dialog != before.dialog:
            # What is new is looked at once more before anything follows: a screen may be half drawn.
            self._quicken()
        elif boot.stage is BootStage.FAILED:
            return boot.evidence or f"{self._runtime.name} says that it will not become ready"
        dialog = boot.dialog if boot.stage is BootStage.DIALOG else None
        if dialog is not None and not self._asked:
            self._shown()
            if self._stale:
                return None
        rows = self._screen.rows if self._asked and self._screen is not None else None
        unread = _unread(self._agent.pid) if dialog is not None else None
        look = Look(time.monotonic(), rows, dialog, boot.chosen, unread)
        follows = self._dialogs.look(look)
        if isinstance(follows, Hopeless):
            return follows.reason
        if follows is not None:
            self._press(follows, look)
        return None

    def _quicken(self) -> None:
        self._quickened, self._screen_after = time.monotonic(), 0.0

    def _press(self, press: Press, look: Look) -> None:
        """Press keys, unless another worker is at the agent: it types, or ends it, and this watch is late."""
        with _sole(self._order.agent_lock) as sole:
            if sole:
                self._press_alone(press, look)

    def _press_alone(self, press: Press, look: Look) -> None:
        crashpoint.reached("boot-before-answer")
        self._dialogs.press(press, look)
        self._write_journal()
        server = self._order.server
        owner = tmux.Owner(self._agent.pid, server.pid if server is not None else None)
        # What tmux does not confirm may come late: it counts as pressed, and is not repeated.
        with contextlib.suppress(tmux.TmuxError):
            tmux.press(self._order.socket, self._pane, owner, *press.keys)
        crashpoint.reached("boot-after-answer")
        self._quicken()

    def _last_words(self, boot: Boot) -> str:
        """Return what somebody who reads that the time is over wants to know."""
        screen = self._take()
        shown = telling(screen.rows) if screen is not None else ""
        said = [
            f"{self._dialogs.given} was answered" if self._dialogs.given else "",
            boot.evidence,
            f"its files could not be read: {self._trouble}" if self._trouble else "",
            "failover.ready_match was not on its screen" if not self._matched else "",
            f"its screen: {shown}" if shown else "",
        ]
        return "; ".join(part for part in said if part)

    # -- what is written down --------------------------------------------------------------------------

    def _read_journal(self) -> None:
        if self._order.journal is None:
            return
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            kept = json.loads(self._order.journal.read_bytes())
            if kept["name"] == self._order.name:
                self._dialogs.from_json(kept)

    def _write_journal(self) -> None:
        if self._order.journal is not None:
            content = {"name": self._order.name, **self._dialogs.to_json()}
            private_file.replace(self._order.journal, json.dumps(content))


def _unread(pid: int) -> int | None:
    """Return how many bytes wait in the terminal that a process reads from; None when that cannot be told."""
    path = process_table.terminal(pid)
    if path is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # tty_ioctl(4); nothing is read by it.
        answer = fcntl.ioctl(handle, termios.FIONREAD, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])
    except OSError:
        return None
    finally:
        os.close(handle)


def _search(pattern: re.Pattern[str], screen: str) -> bool:
    """Search with a bound on the CPU time; `re` lets signal handlers run meanwhile (Python 3.10 to 3.13)."""

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_SECS)
    try:
        return pattern.search(screen) is not None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
