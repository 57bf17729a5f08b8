"""Carries out the dispatch of assignments: who may get one, who gets it, who is started for one.

Which is decided by `policy.dispatch`. An agent of which a lookup fails is not offered anything; nothing is
read of agents that no assignment waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, limits
from circus_failover.agent import Agent
from circus_failover.agents import RUNTIMES
from circus_failover.assignment_book import has_owner
from circus_failover.policy import dispatch
from circus_failover.policy.dispatch import Give, Job, Member, Start
from circus_failover.records import AssignmentRow
from circus_failover.words import Asked, Cause, Phase, Restart

if TYPE_CHECKING:
    from circus_failover.assignments import Assignments
    from circus_failover.supervisor import Supervisor

GIVES_AT_ONCE = 32
STARTS_AT_ONCE = 10
"""How many are given, and how many starts are under way, before the loop has a turn: the rest come next."""
MEMBERS_HOLD_SECS = 1.0
"""For how long front ends are told the same about why something waits."""
PLANNED_ENDS = frozenset(
    map(
        str,
        (
            *(Cause.OPERATOR_STOP, Cause.OPERATOR_RESTART, Cause.PARKED, Cause.FRESH, Cause.REMOVED),
            *(Cause.SWITCHED, Cause.LIMITED),
        ),
    )
)
"""How launches end that somebody ended."""


class Dispatching:
    """Dispatches the assignments of one supervisor."""

    def __init__(self, supervisor: Supervisor, assignments: Assignments) -> None:
        self._supervisor = supervisor
        self._assignments = assignments
        self._asked: dict[str, float] = {}
        """When agents were asked to start for an assignment, in epoch seconds."""
        self._starting: dict[str, asyncio.Future[Any]] = {}
        self._shown: tuple[float, list[Member], dict[object, str]] = (-1e9, [], {})

    def run(self) -> bool:
        """Give what can be given, and start whom work waits for; return whether more is to be done at once.

        Raises:
            StoreError: it could not be stored; what was stored before it stands.
        """
        jobs = self._assignments.records.book.jobs()
        if not jobs:
            return False
        gone = {job.wanted for job in jobs if job.wanted is not None} - self._supervisor.roster.agents.keys()
        if gone:
            for job in jobs:
                if job.wanted in gone:
                    self._assignments.nobody_left(job)
            jobs = self._assignments.records.book.jobs()
        now = time.time()
        self._starting = {name: future for name, future in self._starting.items() if not future.done()}
        self._asked = {name: at for name, at in self._asked.items() if 0 <= now - at < 3600.0}
        plan = dispatch.decide(jobs, self._members(jobs), now)
        for give in plan.gives[:GIVES_AT_ONCE]:
            self._give(give, now)
        for start in plan.starts:
            if len(self._starting) < STARTS_AT_ONCE:
                self._start(start, now)
        return len(plan.gives) > GIVES_AT_ONCE

    def has_members(self, pool: str) -> bool:
        """Say whether an agent is in a pool that may ever be given something."""
        agents = self._supervisor.roster.agents.values()
        return any(_pool(agent) == pool and not agent.observed for agent in agents)

    def why(self, job: Job) -> str:
        """Say in words why an assignment has no owner yet; what it is told by may be a second old."""
        now = time.monotonic()
        if now - self._shown[0] > MEMBERS_HOLD_SECS:
            self._shown = (now, self._members(self._assignments.records.book.jobs(), all_of_them=True), {})
        _, members, said = self._shown
        # Thousands may wait for the same; to each of them all agents would be looked at again.
        like = (job.wanted, job.pool, job.avoid)
        if like not in said:
            said[like] = dispatch.why_waiting(job, members, time.time())
        return said[like]

    # -- who there is ------------------------------------------------------------------------------------

    def _members(self, jobs: Collection[Job], *, all_of_them: bool = False) -> list[Member]:
        """Return every agent that one of these may go to; or every agent."""
        pools = {job.pool for job in jobs if job.wanted is None}
        wanted = {job.wanted for job in jobs if job.wanted is not None}
        return [
            self._member(agent, wanted)
            for agent in self._supervisor.roster.agents.values()
            if agent.settings is not None
            and (all_of_them or _pool(agent) in pools or agent.identity in wanted)
        ]

    def _member(self, agent: Agent, wanted: Collection[str]) -> Member:
        supervisor, row, settings = self._supervisor, agent.row, agent.settings
        assert settings is not None
        runtime = RUNTIMES.get(row.runtime or settings.runtime) or RUNTIMES[settings.runtime]
        named = settings.account.name if settings.account is not None else None
        # What runs may still be on another account than its next launch will be.
        account = (row.account if agent.phase is Phase.UP else named) or named or row.account
        has, waiting = self._assignments.of(agent), bool(supervisor.deliveries.waiting(agent))
        phase, asked = agent.phase, self._asked.get(agent.identity)
        if phase is not Phase.UP and agent.identity in self._starting:
            phase = Phase.STARTING
        return Member(
            identity=agent.identity,
            pool=_pool(agent),
            phase=phase,
            state=agent.state(),
            tells=runtime.tells,
            busy=has is not None
            or waiting
            or agent.action is not None
            or _not_seen_yet(agent, runtime.tells),
            assigned=has is not None or agent.action is not None,
            account=account,
            account_limited=limits.out(supervisor, agent, account),
            observed=agent.observed,
            stay_stopped=row.stay_stopped,
            ended_by_itself=_comes_back_by_itself(
                agent, settings.restart, has is not None or agent.identity in wanted, waiting
            ),
            launched_at=_launched_at(agent, asked),
            last_used=row.last_task,
        )

    # -- carrying out ------------------------------------------------------------------------------------

    def _give(self, give: Give, now: float) -> None:
        row = self._assignments.records.book.number(give.number)
        agent = self._supervisor.roster.agents.get(give.identity)
        if row is None or agent is None or has_owner(row) or agent.phase is not Phase.UP:
            return
        if self._assignments.of(agent) is not None or self._supervisor.deliveries.waiting(agent):
            return  # a report that was taken in meanwhile has changed what was planned
        new = replace(row, owner=agent.identity, dispatched_at=now, note=None)
        self._assignments.records.decide(
            new,
            "dispatched",
            agent=agent,
            tell=True,
            durable=False,
            reason=give.reason,
            waited=_age(row, now),
        )
        crashpoint.reached("assignment-dispatched")
        self._supervisor.deliveries.work(agent)

    def _start(self, start: Start, now: float) -> None:
        row = self._assignments.records.book.number(start.number)
        agent = self._supervisor.roster.agents.get(start.identity)
        if row is None or agent is None or agent.identity in self._starting:
            return
        self._asked[agent.identity] = now
        bringing = self._supervisor.bring_up.start(
            agent, f"assignment {row.id}", asked=Asked.WAKE, topic=row.topic
        )
        self._starting[agent.identity] = self._supervisor.spawn(bringing)
        logger.info("circus-failover: %s is started for assignment %s", agent.identity, row.id)


def _pool(agent: Agent) -> str | None:
    return agent.settings.pool if agent.settings is not None else None


def _age(row: AssignmentRow, now: float) -> float:
    return round(max(0.0, now - row.queued_at), 1)


def _launched_at(agent: Agent, asked: float | None) -> float | None:
    """Return when it was last asked to start; of one that came up and was parked since, nothing."""
    ready = agent.row.ready_at
    if agent.phase is Phase.PARKED and ready is not None and (asked is None or asked <= ready):
        return None
    return max((at for at in (agent.row.launched_at, asked) if at is not None), default=None)


def _not_seen_yet(agent: Agent, tells: bool) -> bool:
    """Say whether it took a task since it was looked at: that it was idle before says nothing."""
    if not tells or agent.phase is not Phase.UP or agent.row.last_task is None:
        return False
    seen = agent.last_look()
    return seen is None or seen.at <= agent.row.last_task


def _comes_back_by_itself(agent: Agent, restart: Restart, assigned: bool, tasks: bool) -> bool:
    """Say whether its last end was a death after which the restart policy brings it back."""
    died = agent.phase is Phase.DOWN and agent.last_cause is not None and agent.last_cause not in PLANNED_ENDS
    return died and (restart is Restart.ALWAYS or assigned or (tasks and restart is Restart.ON_WORK))
