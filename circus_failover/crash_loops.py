"""The crash-loop guard inside circusd: counts deaths, holds at the gate, half-opens, forgives.

The decisions are `policy.crash_loop`; the count is read from the launches in the store, so that it survives
circusd. Nothing here launches anything: the plugin asks when a time has come, and the gate refuses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from circus_failover import launch_ends
from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.agent_settings import AgentSettings
from circus_failover.policy import crash_loop
from circus_failover.policy.bringup import Hindrance
from circus_failover.policy.crash_loop import Ended, LoopSettings, LoopState
from circus_failover.records import AgentRow
from circus_failover.store import Store
from circus_failover.words import Cause, Loop, NoticeKind, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

UNTOLD = (str(Cause.ENDED_UNKNOWN), str(Cause.LAUNCH_FAILED))
"""How a launch ended until what is left of it was cleared away."""


def state_of(row: AgentRow) -> LoopState:
    """Return what is stored of an agent's crash loop, as the policy takes it."""
    return LoopState(Loop(row.loop), row.loop_until, row.loop_failures)


def settings_of(settings: AgentSettings | None) -> LoopSettings:
    """Return what an agent's settings say of crash loops; the defaults while they cannot be used."""
    if settings is None:
        return LoopSettings(3, 300.0, 300.0)
    return LoopSettings(settings.crash_max, settings.crash_window_secs, settings.stable_secs)


class CrashLoops:
    """What one supervisor holds back."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def ends(self, agent: Agent) -> list[Ended]:
        """Return the ends that may count, the newest first."""
        store = self._supervisor.store
        return launch_ends.that_count(store, agent.row) if store is not None else []

    def ended(self, agent: Agent) -> None:
        """A launch ended by itself and it is known how: does that hold the agent?"""
        state, now = state_of(agent.row), time.time()
        ends, settings = self.ends(agent), settings_of(agent.settings)
        if not ends:
            return
        new = crash_loop.after_end(settings, state, ends, now)
        if new == state:
            return
        changes: dict[str, Any] = self._columns(new)
        if new.loop in (Loop.OPEN, Loop.GIVEN_UP):
            cause = Cause.GIVEN_UP if new.loop is Loop.GIVEN_UP else Cause.CRASH_LOOP
            reason = crash_loop.reason(settings, new, ends, now, agent.identity)
            changes.update(cause=cause, reason=reason)
            if agent.phase in (Phase.DOWN, Phase.REFUSED):
                changes["phase"] = Phase.HELD
            kind = NoticeKind.GIVEN_UP if new.loop is Loop.GIVEN_UP else NoticeKind.HELD
            notice = self._supervisor.notices.writing(
                kind, f"{agent.identity}: {reason}", identity=agent.identity, generation=agent.row.generation
            )
            self._say(agent, "held", reason, changes, notice=notice)
        else:
            self._say(agent, "cleared", "its launch on trial was up for long enough", changes)

    def remember(self, agent: Agent) -> None:
        """At circusd's start: count a death that an earlier one recorded, but died before it counted."""
        row = agent.row
        if agent.phase is not Phase.DOWN or row.cause == str(Cause.CRASH_LOOP):
            return  # A trial that is half-open and has not begun yet is down for the death before it.
        if row.uncleared == row.generation and agent.last_cause in UNTOLD:
            return  # How it ended is about to be found out, and counts then.
        self.ended(agent)

    def hindrance(self, agent: Agent) -> Hindrance | None:
        """Return why the gate refuses a launch, or None."""
        state, now = state_of(agent.row), time.time()
        if crash_loop.permits(state, now):
            return None
        reason = crash_loop.reason(settings_of(agent.settings), state, self.ends(agent), now, agent.identity)
        return Hindrance(Cause.GIVEN_UP if state.loop is Loop.GIVEN_UP else Cause.CRASH_LOOP, reason)

    def launching(self, agent: Agent) -> dict[str, Any]:
        """Return the columns that a launch changes: a hold whose time has come becomes a trial with it."""
        state = crash_loop.half_open(state_of(agent.row), time.time())
        return self._columns(state) if state is not None else {}

    def half_open(self, agent: Agent) -> str | None:
        """Let a hold half-open, if its time has come; return why not, or None."""
        state = crash_loop.half_open(state_of(agent.row), time.time())
        if state is None or agent.phase is not Phase.HELD:
            return f"{agent.identity} is {agent.phase}, its crash loop is {agent.row.loop}"
        settings, now = settings_of(agent.settings), time.time()
        reason = crash_loop.reason(settings, state, self.ends(agent), now, agent.identity)
        changes = {**self._columns(state), "phase": Phase.DOWN, "reason": reason}
        self._say(agent, "half-open", reason, changes)
        return None

    def forgive(self, agent: Agent, who: str) -> bool:
        """Forget the crash loop and the deaths it counted; False when there was none.

        Raises:
            StoreError: it could not be stored.
        """
        # The death of a launch that lives has yet to come.
        forgiven = agent.row.generation - (1 if agent.phase in LIVE_PHASES else 0)
        there = agent.row.loop != str(Loop.CLOSED) or any(crash_loop.spends(end) for end in self.ends(agent))
        changes: dict[str, Any] = {
            **self._columns(LoopState(Loop.CLOSED, None, 0)),
            "loop_from": max(forgiven, agent.row.loop_from),
        }
        if agent.phase is Phase.HELD and agent.row.cause != str(Cause.LIMITED):
            changes.update(phase=Phase.DOWN, reason=f"its crash loop was reset ({who})")
        if there:
            self._say(agent, "cleared", f"reset by {who}", changes, must=True)
        return there

    def tick(self) -> None:
        """An agent that has been up for `failover.stable_secs` is out of its crash loop."""
        now = time.time()
        for agent in self._supervisor.roster.agents.values():
            row = agent.row
            if row.loop == "closed" or row.ready_at is None or agent.phase is not Phase.UP:
                continue
            new = crash_loop.stable(settings_of(agent.settings), state_of(row), row.ready_at, now)
            if new is not None:
                evidence = f"up for {now - row.ready_at:.0f} s"
                self._say(agent, "cleared", evidence, {**self._columns(new), "loop_from": row.generation - 1})

    def _columns(self, state: LoopState) -> dict[str, Any]:
        return {"loop": str(state.loop), "loop_until": state.until, "loop_failures": state.failures}

    def _say(
        self,
        agent: Agent,
        action: str,
        evidence: str,
        changes: dict[str, Any],
        must: bool = False,
        notice: Callable[[Store], None] | None = None,
    ) -> None:
        age = time.time() - agent.row.ready_at if agent.row.ready_at else None
        self._supervisor.record(
            agent,
            "crash-loop",
            {"action": action, "evidence": evidence},
            durable=True,
            must=must,
            writes=notice,
            **changes,
        )
        outcome = str(agent.row.loop)
        self._supervisor.supervise(agent, action, age=age, outcome=outcome, evidence=evidence)
