"""Pools inside circusd: as many members as `failover.pool_min` says are always up.

Whom is `policy.pool`; every tick looks anew at what is the case, so a pool needs no memory but of starts that
failed. It starts through `bring_up`, the one gate, and ends nothing; it is also asked who may leave. A member
is an agent whose section says `failover.pool_min`: others of the same pool get its work and are not counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from circus import logger

from circus_failover import launch_ends, limits
from circus_failover.agent import Agent
from circus_failover.agents import RUNTIMES
from circus_failover.policy import pool as policy
from circus_failover.policy.pool import Leaver, Member, Plan
from circus_failover.store import Store
from circus_failover.words import Asked, IntentAction, Phase, Restart

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

_COMES_BACK = frozenset(
    map(
        str,
        (
            *(IntentAction.RESTART, IntentAction.FRESH, IntentAction.STUCK, IntentAction.PARK),
            IntentAction.SWITCH,
        ),
    )
)
"""Ends after which it is started again, by whoever asked or, once it is parked, by its pool."""


class Pools:
    """The pools of one supervisor's fleet."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._starting: set[str] = set()
        """Members that a start was asked for here and that are not settled yet."""
        self._failed: dict[str, float] = {}
        """When the start of a member failed the last time, in monotonic seconds."""

    def tick(self) -> None:
        """Start what is missing of every pool; nothing is waited for."""
        supervisor = self._supervisor
        if supervisor.store is None or supervisor.hindrance is not None:
            return
        if str(supervisor.arbiter._exclusive_running_command).startswith("arbiter_"):
            # Circus starts or reloads the whole fleet: who is missing is seen when it has.
            return
        for name, agents in self._short().items():
            try:
                self._fill(supervisor.store, name, agents)
            except Exception:
                logger.exception("circus-failover: pool %s could not be looked at", name)

    def why_not_leave(self, agent: Agent) -> str:
        """Return why a member may not be removed now without losing work, or an empty text."""
        assignment = self._supervisor.assignments.of(agent)
        runtime = agent.settings.runtime if agent.settings is not None else agent.row.runtime
        return policy.hindrance(
            Leaver(
                phase=agent.phase,
                state=agent.state(),
                tells=runtime is None or RUNTIMES[runtime].tells,
                tasks=len(self._supervisor.deliveries.waiting(agent)),
                assignment=assignment.id if assignment is not None else None,
            )
        )

    def _short(self) -> dict[str, list[Agent]]:
        """Return the members of the pools of which too few are up, at no cost where all are."""
        pools: dict[str, list[Agent]] = {}
        for agent in self._supervisor.roster.agents.values():
            settings = agent.settings
            if settings is not None and settings.pool is not None and settings.pool_min:
                pools.setdefault(settings.pool, []).append(agent)
        return {
            name: agents
            for name, agents in pools.items()
            if sum(agent.phase is Phase.UP for agent in agents) < _wanted(agents)
        }

    def _fill(self, store: Store, name: str, agents: list[Agent]) -> None:
        plan = policy.decide([self._member(store, agent) for agent in agents], _wanted(agents))
        by_name = {agent.identity: agent for agent in agents}
        for identity in plan.starts:
            self._starting.add(identity)
            self._supervisor.spawn(self._start(by_name[identity], name, plan))

    def _member(self, store: Store, agent: Agent) -> Member:
        action = agent.action.intent if agent.action is not None else None
        ended_ago, returns = None, False
        if agent.phase is Phase.DOWN:
            ends = launch_ends.to_follow(store, agent.row, 1)
            if ends:
                ended_ago = time.time() - ends[0].ended_at
                returns = not ends[0].planned and self._guarded(agent)
        failed = self._failed.get(agent.identity)
        return Member(
            identity=agent.identity,
            phase=agent.phase,
            observed=agent.observed,
            stay_stopped=agent.row.stay_stopped,
            usable=agent.problems is None and not limits.blocked(self._supervisor, agent),
            coming=agent.waking or agent.identity in self._starting or action in _COMES_BACK,
            ending=action is not None and action != IntentAction.CLEAR,
            returns=returns,
            ended_ago=ended_ago,
            tried_ago=None if failed is None else time.monotonic() - failed,
        )

    def _guarded(self, agent: Agent) -> bool:
        """Say whether the restart policy brings an agent back that ended by itself."""
        restart = agent.settings.restart if agent.settings is not None else Restart.LAZY
        supervisor = self._supervisor
        work = supervisor.assignments.of(agent) is not None or bool(supervisor.deliveries.waiting(agent))
        return restart is Restart.ALWAYS or (restart is Restart.ON_WORK and work)

    async def _start(self, agent: Agent, pool: str, plan: Plan) -> None:
        evidence = f"pool {pool}: {plan.reason}"
        self._supervisor.supervise(agent, "pool-start", age=None, outcome="starting", evidence=evidence)
        ok, outcome = False, "its start failed"
        try:
            verdict = await self._supervisor.bring_up.start(agent, f"pool {pool}", asked=Asked.WAKE)
            ok, outcome = bool(verdict["ok"]), str(verdict["reason"])
        finally:
            self._starting.discard(agent.identity)
            if ok:
                self._failed.pop(agent.identity, None)
            else:
                self._failed[agent.identity] = time.monotonic()
        if not ok:
            self._supervisor.supervise(
                agent, "pool-start", age=None, outcome="not-started", evidence=f"pool {pool}: {outcome}"
            )


def _wanted(agents: list[Agent]) -> int:
    """Return how many are to be up; `validate` says where the sections of a pool do not agree."""
    return max(agent.settings.pool_min for agent in agents if agent.settings is not None)
