"""What waits in the queues of agents and pools, and for how long it may: read from the store, for plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from circus_failover.plugin_input import AgentPolicy, agent_policy
from circus_failover.records import AgentRow, AssignmentRow
from circus_failover.store import Reader
from circus_failover.words import AssignmentState, TaskKind

MOST_TASKS = 100_000


@dataclass(frozen=True)
class Waiting:
    """Something that is queued."""

    key: str
    """`task 12`, `assignment ID`."""
    since: float
    """Epoch seconds."""
    identity: str | None
    """Whom it waits for; None: any agent of its pool."""
    pool: str | None

    @property
    def where(self) -> str:
        """Whom it waits for, in words."""
        return self.identity or f"pool {self.pool}"


class Limits:
    """How long something may be queued, by whom it waits for: a pool is as impatient as its least patient."""

    def __init__(self, rows: Iterable[AgentRow]) -> None:
        self._agents: dict[str, float] = {}
        self._pools: dict[str, float] = {}
        for row in rows:
            policy = agent_policy(row.policy)
            if policy is None:
                continue
            limit = self._agents[row.identity] = policy.queue_max_age_secs
            if policy.pool is not None and limit > 0:
                self._pools[policy.pool] = min(limit, self._pools.get(policy.pool, limit))

    def of(self, thing: Waiting) -> float:
        """Return the limit for something that is queued, in seconds; 0: none."""
        default = AgentPolicy.queue_max_age_secs
        if thing.identity is not None:
            return self._agents.get(thing.identity, default)
        return self._pools.get(thing.pool or "", default)


def waiting(store: Reader, assignments: Iterable[AssignmentRow]) -> list[Waiting]:
    """Return the tasks and assignments that nobody has taken yet."""
    found = [
        Waiting(f"assignment {row.id}", row.queued_at, row.owner or row.wanted, row.pool)
        for row in assignments
        if row.state == str(AssignmentState.QUEUED)
    ]
    if store.waiting():
        # What an assignment types is told with it; a nudge and a word are not typed late.
        tasks = (task for task in store.tasks(limit=MOST_TASKS) if task.kind == str(TaskKind.TASK))
        found += [Waiting(f"task {task.id}", task.queued_at, task.identity, None) for task in tasks]
    return found
