"""Looking at agents: asks an agent's runtime what is seen of it, and has `policy.health` weigh that.

It costs as little as the runtime lets it: a terminal is captured only when the runtime asks for it, and again
only when it has moved. Whatever goes wrong is `unknown` with the reason: never an exception, never `idle`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circus import logger

from circus_failover import process_table, tmux
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Observation, Place, Runtime, Screen, no_screen
from circus_failover.idle_evidence import latest_movement
from circus_failover.policy.health import Health, decide
from circus_failover.process_table import ProcessId
from circus_failover.records import AgentRow
from circus_failover.words import State

SCREEN_SECS = 2.0
SILENT_SECS = 10.0
"""For how long a tmux server that did not answer is not asked again: it may hold a hundred agents."""


@dataclass(frozen=True)
class _Shown:
    """What a terminal showed, and how old that is."""

    moved: float
    """Its time of change just before the look."""
    at: float
    """When it was looked at, in epoch seconds."""
    screen: Screen | None


class Observer:
    """Looks at agents, and remembers what it need not look at again.

    Several threads may use one, each for another agent.
    """

    def __init__(self, runtimes: Mapping[str, Runtime] = RUNTIMES) -> None:
        self._runtimes = runtimes
        self._terminals: dict[ProcessId, str] = {}
        self._begun: dict[ProcessId, float] = {}
        self._shown: dict[ProcessId, _Shown] = {}
        self._silent: dict[str, float] = {}
        self._failures: dict[str, str] = {}

    def tells(self, row: AgentRow) -> bool:
        """Say whether an agent's runtime can tell what it does; if not, `unknown` means nothing."""
        runtime = self._runtimes.get(row.runtime or "")
        return runtime is not None and runtime.tells

    def observe(self, row: AgentRow, now: float, *, screen: bool = True) -> tuple[Health, Observation]:
        """Look at one agent, and return what it does and what was seen of it. Never raises.

        Args:
            row: what is recorded of it.
            now: epoch seconds.
            screen: whether its terminal may be looked at, which may take 2 s where a server does not answer.
        """
        runtime = self._runtimes.get(row.runtime or "")
        missing = _missing(row, runtime)
        if runtime is None or missing:
            return Health(State.UNKNOWN, evidence=missing), Observation()
        try:
            place = self._place(row, screen)
            seen = runtime.look(place)
            health = decide(seen.signs, place.launched_at, now)
        except Exception as error:
            # A runtime reads files of other programs: whatever it trips over costs this look, and no more.
            reason = f"{runtime.name} could not be looked at: {type(error).__name__}: {error}"
            if self._failures.get(row.identity) != reason:
                self._failures[row.identity] = reason
                logger.exception("circus-failover: %s: %s", row.identity, reason)
            return Health(State.UNKNOWN, evidence=reason), Observation()
        self._failures.pop(row.identity, None)
        return health, _of_launch(seen, place.launched_at)

    def keep(self, processes: Collection[ProcessId]) -> None:
        """Forget everything about all processes but these."""
        for known in (self._terminals, self._begun, self._shown):
            for process in known.keys() - processes:
                known.pop(process, None)

    # -- where it is looked at -------------------------------------------------------------------------

    def _place(self, row: AgentRow, screen: bool) -> Place:
        process = row.process
        assert process is not None and row.home is not None and row.working_dir is not None
        return Place(
            process=process,
            home=Path(row.home),
            working_dir=Path(row.working_dir),
            conversation=row.conversation,
            launched_at=self._launched_at(row, process),
            events=_events(row.pushed),
            screen=(lambda: self._screen(row, process)) if screen else no_screen,
        )

    def _launched_at(self, row: AgentRow, process: ProcessId) -> float:
        """Return when the launch began, or the process where somebody else started it; epoch seconds."""
        if row.launched_at is not None and row.launch is not None:
            return row.launched_at
        if process not in self._begun:
            # In whole ticks of 10 ms, and the clock may have been set since: rather a little too early.
            self._begun[process] = math.floor(time.time() - process_table.seconds_since(process.start))
        return self._begun[process]

    # -- the terminal ----------------------------------------------------------------------------------

    def _screen(self, row: AgentRow, process: ProcessId) -> Screen | None:
        """Return what an agent's terminal shows: as captured before, where it cannot have moved since."""
        if row.socket is None or row.pane is None:
            return None
        now, moved, before = time.time(), self._moved(process), self._shown.get(process)
        if before is not None and moved is not None and _still_so(before, moved):
            return before.screen
        if self._silent.get(row.socket, 0.0) > time.monotonic():
            return None
        try:
            found = tmux.screen(Path(row.socket), row.pane, SCREEN_SECS)
        except tmux.TmuxTimeout:
            self._silent[row.socket] = time.monotonic() + SILENT_SECS
            return None
        except tmux.TmuxError:
            return None
        self._silent.pop(row.socket, None)
        screen = found[1] if found is not None and found[0] == process.pid else None
        if moved is not None and screen is not None:
            self._shown[process] = _Shown(moved, now, screen)
        return screen

    def _moved(self, process: ProcessId) -> float | None:
        """Return an agent's terminal's time of change; None when it cannot be told."""
        path = self._terminals.get(process)
        if path is None:
            path = process_table.terminal(process.pid)
            if path is None:
                return None
            self._terminals[process] = path
        try:
            return os.stat(path).st_mtime
        except OSError:
            return None


def _of_launch(seen: Observation, launched_at: float) -> Observation:
    """Return what was seen, without what was said before this launch: that may be another account's."""
    answers = [sign.at for sign in seen.signs if sign.answered and sign.at is not None]
    usage = tuple(one for one in seen.usage if one.at >= launched_at)
    at = max((at for at in answers if at >= launched_at), default=None)
    return replace(seen, answered_at=at, usage=usage)


def _still_so(shown: _Shown, moved: float) -> bool:
    """Say whether a terminal shows what it did: it has not moved, and a movement would have been seen.

    The time of change does not tell two movements within 8 s apart (`latest_movement`), so a look within
    them is no look at the last one.
    """
    return moved == shown.moved and latest_movement(moved, math.inf) < shown.at


def _missing(row: AgentRow, runtime: Runtime | None) -> str:
    """Return why an agent cannot be looked at; empty when it can."""
    if row.runtime is None:
        return "its runtime was not recorded"
    if runtime is None:
        return f"there is no runtime {row.runtime}"
    if not runtime.tells:
        return f"the runtime {runtime.name} cannot tell"
    if row.process is None:
        return "its process was not recorded"
    if row.boot != process_table.boot_id():
        return "the host was rebooted"
    if row.home is None:
        return "its account home was not recorded"
    if row.working_dir is None:
        return "its working directory was not recorded"
    return ""


def _events(pushed: str | None) -> dict[str, dict[str, Any]]:
    """Return what its client's hooks reported, by hook; what makes no sense is left out."""
    if pushed is None:
        return {}
    try:
        said = json.loads(pushed)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    return {
        hook: event
        for hook, event in said.items()
        if isinstance(event, dict)
        and isinstance(event.get("at"), (int, float))
        and not isinstance(event["at"], bool)
    }
