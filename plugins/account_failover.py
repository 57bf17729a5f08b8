"""Moves, holds and wakes agents whose account can do nothing for them: asks circusd, and keeps the pace.

Whom it concerns is read from the store; what is to be done is decided by `policy.failover` inside circusd,
which knows every account and its home, and decides again when it is asked to do it. Those who are to move or
to come back stand in a line, and are relaunched one after another. Nothing is started, ended or moved here.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circus_failover import account_rows, agent_health
from circus_failover.plugin import FailoverPlugin, Refused, Said
from circus_failover.plugin_input import AgentPolicy, Event, agent_policy
from circus_failover.policy import accounts
from circus_failover.policy.accounts import Known
from circus_failover.policy.failover import LimitAction
from circus_failover.records import AgentRow
from circus_failover.store import Reader
from circus_failover.words import AssignmentState, Cause, FaultKind, OnLimit, Phase, State

PACE_SECS = 5.0
"""From one relaunch to the next, by default."""
PACE_JITTER = 0.2
LONGEST_PACE_SECS = 3600.0
LOOKED_AT = 20
"""How many agents circusd is asked about at once; it takes a little more than a millisecond for each."""
AGAIN_SECS = 60.0
"""How long it holds what was said about an agent in the line, held or left, if nothing changes."""
_SOON = (str(State.LIMITED), str(State.WAITING))
_LASTS = (LimitAction.SWITCH, LimitAction.WAKE, LimitAction.TELL)
_DONE = {"switch": "switched", "hold": "held", "park": "parked", "wake": "woken"}


@dataclass(frozen=True)
class Due:
    """What is to be done about an agent, as circusd has said."""

    identity: str
    generation: int
    action: LimitAction
    to: str | None
    reason: str


@dataclass(frozen=True)
class _Scene:
    """What the store says that concerns more than one agent."""

    known: Mapping[str, Known]
    busy: frozenset[str]
    """Agents with an assignment, or tasks."""
    pools: frozenset[str]
    """Pools in which work waits."""
    now: float

    def exhausted(self, account: str | None) -> bool:
        found = self.known.get(account or "")
        return found is not None and accounts.exhausted(found, self.now)

    def used(self, account: str | None) -> float | None:
        found = self.known.get(account or "")
        room = None if found is None else accounts.headroom(found, self.now)
        return None if room is None else 1.0 - room

    @property
    def states(self) -> tuple[object, ...]:
        """What is known of all accounts, as far as it matters to who is held."""
        return tuple((one.name, one.state, one.until, one.source) for one in self.known.values())


class AccountFailover(FailoverPlugin):
    """Carries out `failover.on_limit` and `failover.switch_at`, and wakes who is held for a limit."""

    name = "account-failover"
    default_interval = 5.0

    def __init__(self, *arguments: Any, **config: Any) -> None:
        text = str(config.pop("pace", PACE_SECS)).strip()
        super().__init__(*arguments, **config)
        self._pace = pace_of(text)
        if self._pace is None:
            expected = f"seconds from 0 to {LONGEST_PACE_SECS:.0f}"
            self._mistake(f"pace = {text!r}: expected {expected}; {PACE_SECS:g} is used")
            self._pace = PACE_SECS
        self._line: dict[str, Due] = {}
        """Who is to be relaunched, the next one first."""
        self._next = -math.inf
        """Monotonic seconds before which nobody is."""
        self._held: dict[str, float | None] = {}
        """Until when each is held who is held, in epoch seconds."""
        self._asked: dict[str, tuple[object, float]] = {}
        """What was known when it was asked about an agent, and when that was, in monotonic seconds."""
        self._timer: object | None = None
        self._reported = Said()

    # -- as the base class drives it -------------------------------------------------------------------

    async def tick(self, store: Reader) -> None:
        """Look at every agent that is up or held."""
        rows = list(store.agents(Phase.UP, Phase.HELD).values())
        there = {row.identity for row in rows}
        self._line = {name: due for name, due in self._line.items() if name in there}
        self._held = {name: until for name, until in self._held.items() if name in there}
        self._asked = {name: asked for name, asked in self._asked.items() if name in there}
        self._reported.keep(there)
        self._look(store, rows)

    async def react(self, store: Reader, identities: Sequence[str]) -> None:
        """Look at these agents alone."""
        rows = [row for row in (store.agent(name) for name in identities) if row is not None]
        self._look(store, rows)

    def concerns(self, event: Event) -> bool:
        """An agent that is limited, waits for a login, or is held."""
        return event.phase == Phase.HELD or (event.phase == Phase.UP and event.state in _SOON)

    # -- looking ---------------------------------------------------------------------------------------

    def _look(self, store: Reader, rows: Sequence[AgentRow]) -> None:
        scene = _scene(store)
        concerned = {row.identity: row for row in rows if self._concerns(row, scene)}
        for row in rows:
            self._held.pop(row.identity, None)
            if row.identity not in concerned:
                self._line.pop(row.identity, None)
                self._asked.pop(row.identity, None)
                self._reported.forget("said", row.identity)
            elif row.phase == Phase.HELD:
                self._held[row.identity] = row.limited_until
        wanted = [name for name, row in concerned.items() if self._may_have_changed(row, scene)]
        for start in range(0, len(wanted), LOOKED_AT):
            answer = self.ask("on-limit", names=wanted[start : start + LOOKED_AT], by=self.name)
            for due in map(_due, answer["verdicts"]):
                row = concerned[due.identity]
                if due.action in _LASTS or row.phase == Phase.HELD:
                    self._asked[due.identity] = (_essence(row, scene), time.monotonic())
                self._settle(due)
        self._go_on()

    def _concerns(self, row: AgentRow, scene: _Scene) -> bool:
        """Say whether something may have to be done about an agent, as far as the store tells."""
        policy = agent_policy(row.policy)
        if policy is None or policy.observed or not row.declared:
            return False
        if row.phase == Phase.HELD:
            return row.cause == str(Cause.LIMITED)
        if policy.account is None:
            return False
        return row.phase == Phase.UP and (_hindered(row, policy, scene) or _nearly_full(row, policy, scene))

    def _may_have_changed(self, row: AgentRow, scene: _Scene) -> bool:
        """Say whether something else may have to be done about an agent than was said the last time."""
        asked, known = self._asked.get(row.identity), _essence(row, scene)
        due = row.phase == Phase.HELD and (row.limited_until is None or row.limited_until <= scene.now)
        in_line = row.identity in self._line
        if asked is None or asked[0] != known or (due and not in_line):
            return True
        return time.monotonic() - asked[1] >= AGAIN_SECS

    # -- doing -----------------------------------------------------------------------------------------

    def _settle(self, due: Due) -> None:
        """Have done at once what relaunches nobody; put everybody else into the line."""
        if due.action in (LimitAction.SWITCH, LimitAction.WAKE):
            self._line[due.identity] = due
            return
        self._line.pop(due.identity, None)
        if due.action in (LimitAction.HOLD, LimitAction.PARK):
            self._ask_for(due)
        elif due.action is LimitAction.TELL and self._new(due):
            self.find(due.identity, "limited", outcome="left", evidence=due.reason)

    def _go_on(self) -> None:
        """Relaunch the next one when its time has come, and be here again for the one after it."""
        while self._line and time.monotonic() >= self._next:
            due = self._line.pop(next(iter(self._line)))
            if self._ask_for(due) and self._pace:
                self._next = time.monotonic() + self._pace * random.uniform(1 - PACE_JITTER, 1 + PACE_JITTER)
        self._set_timer()

    def _ask_for(self, due: Due) -> bool:
        """Ask circusd to do what it has said; say whether it does."""
        action = str(due.action)
        if self.options.dry_run:
            if self._new(due):
                self.find(due.identity, _DONE[action], outcome="dry-run", evidence=due.reason)
            return False
        # Whatever comes of it, it is asked about again with the next tick.
        self._asked.pop(due.identity, None)
        try:
            self.ask("on-limit", names=[due.identity], generation=due.generation, action=action, by=self.name)
        except Refused as refusal:
            if self._reported.changed("refused", due.identity, (due.generation, action, str(refusal))):
                self.find(due.identity, "error", outcome=f"not-{_DONE[action]}", evidence=str(refusal))
            return False
        return True

    def _new(self, due: Due) -> bool:
        return self._reported.changed("said", due.identity, (due.generation, due.action, due.to))

    # -- in time ---------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Look again when the pace permits the next one, or when the first one's time has come."""
        if self._timer is not None:
            self.loop.remove_timeout(self._timer)
            self._timer = None
        waits = [self._next - time.monotonic()] if self._line and not self.options.dry_run else []
        waits += [until - time.time() for until in self._held.values() if until is not None]
        coming = [wait for wait in waits if 0 < wait < self.options.interval]
        if coming:
            self._timer = self.loop.call_later(min(coming) + 0.01, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer, now = None, time.time()
        due = [name for name, until in self._held.items() if until is not None and until <= now]
        try:
            self._go_on()
        except Exception as error:
            self._failed(error)
        if due:
            self.look_at(due)


def pace_of(text: str) -> float | None:
    """Return the seconds between two relaunches that a section asks for; None: it makes no sense."""
    try:
        secs = float(text) if "_" not in text else math.nan
    except ValueError:
        secs = math.nan
    return secs if 0 <= secs <= LONGEST_PACE_SECS else None  # None also for nan


def _scene(store: Reader) -> _Scene:
    known = {name: account_rows.known(row) for name, row in store.accounts().items()}
    now = time.time()
    busy: set[str] = set()
    pools: set[str] = set()
    if any(accounts.exhausted(one, now) for one in known.values()):
        # Most of the time none is, and thousands of assignments may wait.
        busy = {*store.waiting(), *store.assigned()}
        waiting = (row for row in store.assignments() if row.owner is None)
        pools = {row.pool for row in waiting if row.pool and row.state == str(AssignmentState.QUEUED)}
    return _Scene(known, frozenset(busy), frozenset(pools), now)


def _hindered(row: AgentRow, policy: AgentPolicy, scene: _Scene) -> bool:
    """Say whether an agent may be unable to go on on its account."""
    seen = agent_health.read(row.health)
    if seen is not None and seen.of(row.generation, row.process) and seen.health.fault is not None:
        fault, state = seen.health.fault, seen.health.state
        waits = state is State.WAITING and fault.kind is FaultKind.CREDENTIALS
        if (state is State.LIMITED and not fault.model_only) or waits:
            return True
    if policy.on_limit is OnLimit.NOTIFY or not scene.exhausted(row.account):
        return False
    return row.identity in scene.busy or policy.pool in scene.pools


def _nearly_full(row: AgentRow, policy: AgentPolicy, scene: _Scene) -> bool:
    """Say whether an agent is idle on an account of which so much is used that it may be moved."""
    used = scene.used(row.account) if policy.switch_at > 0 else None
    if used is None or used * 100 < policy.switch_at - 1e-9:
        return False
    seen = agent_health.read(row.health)
    return seen is not None and seen.health.state is State.IDLE


def _essence(row: AgentRow, scene: _Scene) -> tuple[object, ...]:
    """Return what a change of which may change what is to be done."""
    return scene.states, row.generation, row.phase, row.policy, row.limited_until


def _due(said: Mapping[str, Any]) -> Due:
    return Due(
        str(said["identity"]),
        int(said["generation"]),
        LimitAction(said["action"]),
        said.get("to"),
        str(said["reason"]),
    )
