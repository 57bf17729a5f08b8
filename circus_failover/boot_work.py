"""What a worker does when it watches a boot: it looks at the screen until it shows what it must.

The pattern is an operator's, and may backtrack for ever: it is searched for here and not in circusd, a search
has a bound, and the alarm that `worker` sets ends the rest. Nothing is typed and nothing is ended here. tmux
that does not answer is no evidence: it is asked again, until the time is over or the agent's process is gone.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circus_failover import process_table, tmux
from circus_failover.process_table import ProbeFailed, ProcessId

POLL_SECS = 0.1
SLOW_POLL_SECS = 0.5
SLOW_AFTER_SECS = 10.0
SEARCH_SECS = 2.0
"""CPU time that one search may take; a screen for which it is not enough does not match."""
HOPELESS_POLL_SECS = 5.0
"""How long to wait after such a search: the next screen may be kinder, or not."""
PATIENCE_SECS = 15.0
"""What a worker may take beyond the time it is given: a call of tmux, and one search."""


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    identity: str
    generation: int
    agent: ProcessId | None
    socket: Path
    pane: str | None
    match: str
    """A regular expression, searched for in what the terminal shows, line by line (`re.MULTILINE`)."""
    secs: float
    spool: Path
    lock: Path | None

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Order:
        """Read an order as circusd wrote it."""
        return cls(
            identity=raw["identity"],
            generation=raw["generation"],
            agent=ProcessId(*raw["agent"]) if raw["agent"] else None,
            socket=Path(raw["socket"]),
            pane=raw["pane"],
            match=raw["match"],
            secs=float(raw["secs"]),
            spool=Path(raw["spool"]),
            lock=Path(raw["lock"]) if raw.get("lock") else None,
        )

    @property
    def alarm_secs(self) -> int:
        """After so many seconds a worker that hangs is killed."""
        return int(self.secs + PATIENCE_SECS) + 1

    def carry_out(self) -> dict[str, Any]:
        """Watch until the pattern shows, the agent is gone, or the time is over; return the report."""
        return {
            "kind": "ready",
            "identity": self.identity,
            "generation": self.generation,
            "outcome": _watch(self),
        }


class _TooLong(Exception):
    """The search took more CPU time than it may."""


def _watch(order: Order) -> str:
    pattern = re.compile(order.match, re.MULTILINE)
    begun = time.monotonic()
    while True:
        pause = POLL_SECS if time.monotonic() - begun < SLOW_AFTER_SECS else SLOW_POLL_SECS
        try:
            if _shows(order, pattern):
                return "matched"
        except _TooLong:
            pause = HOPELESS_POLL_SECS
        if _gone(order):
            return "gone"
        left = begun + order.secs - time.monotonic()
        if left <= 0:
            return "timeout"
        time.sleep(min(pause, left))


def _shows(order: Order, pattern: re.Pattern[str]) -> bool:
    # Whose pane it is, is asked before and with it: a screen of somebody else proves nothing.
    if order.agent is None or order.pane is None:
        return False
    try:
        found = tmux.look(order.socket, order.pane)
        if found is None or found.pid != order.agent.pid or found.dead:
            return False
        screen = tmux.capture(order.socket, order.pane)
    except tmux.TmuxError:
        return False
    return _search(pattern, screen)


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


def _gone(order: Order) -> bool:
    if order.agent is None:
        return True
    try:
        return not process_table.alive(order.agent)
    except ProbeFailed:
        return False
