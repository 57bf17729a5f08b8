"""What it costs to decide who gets which assignment, when a large fleet has far more than it can take.

The decision alone: pure, so neither circusd nor tmux is needed. Beside it: a dispatcher that looks at every
agent for every assignment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.ground import say
from benchmarks.result import Figure, Result, middle
from circus_failover.policy.dispatch import Give, Job, Member, Plan, decide
from circus_failover.words import Phase, State

GOAL_MS = 10.0
NOW = 1_000_000.0
POOL = "coders"
ACCOUNTS = 10


@dataclass(frozen=True)
class Case:
    """Agents and assignments, and how many are to be given and started."""

    what: str
    jobs: Sequence[Job]
    members: Sequence[Member]
    gives: int
    starts: int


def benchmark(agents: int, waiting: int, rounds: int) -> list[Result]:
    """Measure the decision for fleets that differ in who could take something.

    Args:
        agents: how many.
        waiting: how many assignments have no owner.
        rounds: how often each decision is made.

    Raises:
        RuntimeError: a decision was wrong, so that its time means nothing.
    """
    say(f"dispatch of {waiting} assignments over {agents} agents")
    return [_measured(case, agents, waiting, rounds) for case in _cases(agents, waiting)]


def _cases(agents: int, waiting: int) -> list[Case]:
    jobs = [_job(number) for number in range(waiting)]
    free = [_agent(number) for number in range(agents)]
    busy = [replace(one, busy=True, state=State.WORKING) for one in free]
    tenth = agents // 10
    parked = [replace(one, phase=Phase.PARKED, state=None) for one in free]
    # All but the last are for agents that are busy, and that one has to be found behind them.
    named = [
        replace(_job(number), wanted=f"coder-{1 + number % (agents - 1)}") for number in range(waiting - 1)
    ]
    avoiding = [replace(one, avoid=frozenset({f"coder-{one.number % agents}"})) for one in jobs]
    return [
        Case("a tenth is free", jobs, [*free[:tenth], *busy[tenth:]], tenth, 0),
        Case("all are free", jobs, free, agents, 0),
        Case("all are parked", jobs, parked, 0, agents),
        Case("one is free, all but the last by name", [*named, _job(waiting)], [free[0], *busy[1:]], 1, 0),
        Case("all are free, each taken back from one", avoiding, free, agents, 0),
        Case("all are busy", jobs, busy, 0, 0),
    ]


def _job(number: int) -> Job:
    return Job(number, f"job-{number}", None, POOL)


def _agent(number: int) -> Member:
    return Member(
        identity=f"coder-{number}",
        pool=POOL,
        phase=Phase.UP,
        state=State.IDLE,
        tells=True,
        busy=False,
        account=f"account-{number % ACCOUNTS}",
        account_limited=False,
        observed=False,
        stay_stopped=False,
        ended_by_itself=False,
        launched_at=NOW - 9000.0,
        last_used=NOW - number * 7919 % 1000,
    )


def _measured(case: Case, agents: int, waiting: int, rounds: int) -> Result:
    took = [_timed(lambda: decide(case.jobs, case.members, NOW)) for _ in range(rounds)]
    plan = took[0][1]
    if (len(plan.gives), len(plan.starts)) != (case.gives, case.starts):
        raise RuntimeError(f"{case.what}: {len(plan.gives)} given and {len(plan.starts)} started")
    ours = [secs * 1000 for secs, _ in took]
    beside, naive = _timed(lambda: _one_by_one(case))
    if len(naive.gives) != case.gives:
        raise RuntimeError(f"{case.what}: {len(naive.gives)} given by looking at everybody each time")
    return Result(
        benchmark="dispatch",
        what=f"dispatch decision, {agents} agents, {waiting} wait: {case.what}, CPU",
        ours=Figure(
            middle(ours), "ms", f"at most {max(ours):.1f}; {case.gives} given, {case.starts} started"
        ),
        beside=Figure(beside * 1000, "ms", "a look at every agent for each"),
        ratio=middle(ours) / (beside * 1000),
        goal=GOAL_MS,
        details={"cpu_ms": ours},
    )


def _timed(run: Callable[[], Plan]) -> tuple[float, Plan]:
    """Return the seconds of CPU that a decision took, and what it is."""
    begun = time.thread_time()
    plan = run()
    return time.thread_time() - begun, plan


def _one_by_one(case: Case) -> Plan:
    """Give each assignment to the first agent that is free; a dispatcher as one writes it at first."""
    gives: list[Give] = []
    taken: set[str] = set()
    for job in case.jobs:
        for member in case.members:
            mine = member.identity == job.wanted if job.wanted is not None else member.pool == job.pool
            if not mine or member.identity in taken or member.identity in job.avoid:
                continue
            if member.phase is Phase.UP and member.state is State.IDLE and not member.busy:
                taken.add(member.identity)
                gives.append(Give(job.number, member.identity, "it is free"))
                break
    return Plan(tuple(gives))
