"""Who gets which assignment, and who is started for one: the table, and nothing else.

First match wins. What an agent is, free or coming or asleep, is the table of `policy.standing`.

| agents it may go to | what is done |
|---|---|
| one is free | give |
| one is coming, and for no assignment before this one | wait |
| one is asleep | start |
| otherwise | wait |

Assignments have their turn in the order in which they came, and one that nobody can get now keeps no other
back. It may go to the agent that it was given to by name, else to those of its pool; to those that it was
taken back from only while all others are out. Of several that are free, or asleep, the one is taken whose
account has the fewest agents that have work or are coming; of these, to give, the one whose last task is the
longest ago; then by name, numbers by their value (`coder-2` before `coder-10`).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from circus_failover.policy.standing import Member, Standing, standing

__all__ = ["Give", "Job", "Member", "Plan", "Start", "decide", "natural", "why_waiting"]


@dataclass(frozen=True)
class Job:
    """An assignment that waits for an owner."""

    number: int
    """Its turn."""
    id: str
    wanted: str | None
    """The agent it is for; None: any of its pool."""
    pool: str | None
    avoid: frozenset[str] = frozenset()
    """Agents that it was taken back from: they get it only when there is no other."""


@dataclass(frozen=True)
class Give:
    """An assignment gets an owner."""

    number: int
    identity: str
    reason: str


@dataclass(frozen=True)
class Start:
    """An agent is started for an assignment that waits."""

    number: int
    identity: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be done now, in this order."""

    gives: tuple[Give, ...] = ()
    starts: tuple[Start, ...] = ()


def decide(jobs: Sequence[Job], members: Sequence[Member], now: float) -> Plan:
    """Return who gets what, and who is started.

    Args:
        jobs: the assignments without an owner, in the order of their turn.
        members: every agent that one of them may go to.
        now: epoch seconds.
    """
    fleet = _Fleet(members, now)
    gives: list[Give] = []
    starts: list[Start] = []
    for job in jobs:
        if not fleet.left:
            break
        chosen = fleet.by_name(job.wanted) if job.wanted is not None else fleet.of_pool(job.pool, job.avoid)
        if chosen is None:
            continue
        member, given, reason = chosen
        if given:
            gives.append(Give(job.number, member.identity, reason))
        else:
            starts.append(Start(job.number, member.identity, reason))
    return Plan(tuple(gives), tuple(starts))


def why_waiting(job: Job, members: Sequence[Member], now: float) -> str:
    """Say in words why an assignment has no owner yet."""
    if job.wanted is not None:
        member = next((one for one in members if one.identity == job.wanted), None)
        if member is None:
            return f"no agent is named {job.wanted}"
        return f"it is for {job.wanted}, which is {standing(member, now, named=True).words}"
    if job.pool is None:
        return "it is for no agent and no pool"
    places = [(one, standing(one, now)) for one in members if one.pool == job.pool]
    if not places:
        return f"pool {job.pool} has no agents"
    able = [one for one, place in places if place.standing is Standing.FREE and one.identity not in job.avoid]
    counts = Counter(place.words for _, place in places)
    told = ", ".join(f"{count} {words}" for words, count in counts.most_common())
    if able:
        return f"its turn has not come; of {_agents(len(places))} in pool {job.pool}: {told}"
    kept = f"; it was taken back from {', '.join(sorted(job.avoid))}" if job.avoid else ""
    return f"none of {_agents(len(places))} in pool {job.pool} can take it: {told}{kept}"


# -- choosing ------------------------------------------------------------------------------------------

_Chosen = tuple[Member, bool, str]
"""Whom, whether it gets the assignment or is started for it, and why."""


class _Fleet:
    """The agents while they are given out: nobody twice, and nobody is looked at once a job."""

    def __init__(self, members: Sequence[Member], now: float) -> None:
        self._now = now
        self._members = {member.identity: member for member in members}
        self._load: Counter[str | None] = Counter()
        self._taken: set[str] = set()
        self._not_now: set[str] = set()
        """Who was asked for by name and can take nothing."""
        self._prospects: dict[str, list[str]] = {}
        """Who is not out, by pool."""
        self._spent: set[tuple[str | None, frozenset[str]]] = set()
        """For which pools, and avoiding whom, nobody is left."""
        self.left = 0
        """How many could be given something, or started for it."""
        coming: dict[str, list[str]] = {}
        free: dict[str, list[Member]] = {}
        asleep: dict[str, list[Member]] = {}
        for member in members:
            what = standing(member, now).standing
            if member.busy or what in (Standing.BUSY, Standing.COMING):
                self._load[member.account] += 1
            by_name = what is Standing.BUSY and standing(member, now, named=True).standing is Standing.ASLEEP
            self.left += by_name or what in (Standing.FREE, Standing.ASLEEP)
            if member.pool is None or what is Standing.OUT:
                continue
            self._prospects.setdefault(member.pool, []).append(member.identity)
            if what is Standing.COMING:
                coming.setdefault(member.pool, []).append(member.identity)
            elif what is Standing.FREE:
                free.setdefault(member.pool, []).append(member)
            elif what is Standing.ASLEEP:
                asleep.setdefault(member.pool, []).append(member)
        self._coming = {pool: dict.fromkeys(sorted(found, key=natural)) for pool, found in coming.items()}
        """Who is coming and not spoken for, by pool."""
        self._free = {pool: _Line(found, _longest_unused, self) for pool, found in free.items()}
        self._asleep = {pool: _Line(found, _first_by_name, self) for pool, found in asleep.items()}

    def is_taken(self, identity: str) -> bool:
        """Say whether an agent got an assignment, or is started for one, in this plan."""
        return identity in self._taken

    def load(self, account: str | None) -> int:
        """Return how many agents of an account have work or are coming, those of this plan included."""
        return self._load[account]

    def by_name(self, identity: str) -> _Chosen | None:
        """Return what becomes of an assignment that was given to an agent by name; None: it waits."""
        member = self._members.get(identity)
        if member is None or identity in self._taken or identity in self._not_now:
            return None
        place = standing(member, self._now, named=True)
        if place.standing is Standing.COMING and member.pool is not None:
            self._coming.get(member.pool, {}).pop(identity, None)
        if place.standing not in (Standing.FREE, Standing.ASLEEP):
            self._not_now.add(identity)
            return None
        self._take(member)
        return member, place.standing is Standing.FREE, f"it was given to it by name, and it is {place.words}"

    def of_pool(self, pool: str | None, avoid: frozenset[str]) -> _Chosen | None:
        """Return what becomes of an assignment that was given to a pool; None: it waits."""
        key = (pool, avoid)
        if pool is None or key in self._spent:
            return None
        if avoid and all(identity in avoid for identity in self._prospects.get(pool, ())):
            avoid = frozenset()
        member = self._next(self._free, pool, avoid)
        if member is not None:
            reason = f"it is free; {self._at_work(member)}"
            self._take(member)
            return member, True, reason
        coming = self._coming.get(pool, {})
        expected = next((identity for identity in coming if identity not in avoid), None)
        if expected is not None:
            del coming[expected]
            return None
        member = self._next(self._asleep, pool, avoid)
        if member is not None:
            reason = f"nobody else of pool {pool} is free, and it is {member.phase}; {self._at_work(member)}"
            self._take(member)
            return member, False, reason
        self._spent.add(key)
        return None

    def _next(self, lines: dict[str, _Line], pool: str, avoid: frozenset[str]) -> Member | None:
        line = lines.get(pool)
        return None if line is None else line.first(avoid)

    def _take(self, member: Member) -> None:
        self._taken.add(member.identity)
        self._load[member.account] += 1
        self.left -= 1

    def _at_work(self, member: Member) -> str:
        of = "without an account" if member.account is None else f"of account {member.account}"
        return f"{_agents(self._load[member.account])} {of} at work"


class _Line:
    """Agents of one pool that could be taken, in the order in which they are."""

    def __init__(
        self, members: Iterable[Member], rank: Callable[[Member], tuple[Any, ...]], fleet: _Fleet
    ) -> None:
        self._fleet = fleet
        self._accounts: dict[str | None, deque[tuple[tuple[Any, ...], Member]]] = {}
        for ranked in sorted(((rank(member), member) for member in members), key=lambda found: found[0]):
            self._accounts.setdefault(ranked[1].account, deque()).append(ranked)
        self._heap = [(0, waiting[0][0], account) for account, waiting in self._accounts.items()]
        heapq.heapify(self._heap)

    def first(self, avoid: frozenset[str]) -> Member | None:
        """Return who is next, or None when nobody is left."""
        if avoid:
            return self._first_but(avoid)
        while self._heap:
            _, _, account = self._heap[0]
            waiting = self._untaken(account)
            if not waiting:
                heapq.heappop(self._heap)
                continue
            # An entry is as old as its last look: who was taken since, and the load, which only grows.
            current = (self._fleet.load(account), waiting[0][0], account)
            if current == self._heap[0]:
                return waiting[0][1]
            heapq.heapreplace(self._heap, current)
        return None

    def _first_but(self, avoid: frozenset[str]) -> Member | None:
        """Return who is next of those that are not to be avoided; few assignments avoid anybody."""
        best: tuple[int, tuple[Any, ...], Member] | None = None
        for account in self._accounts:
            for rank, member in self._untaken(account):
                if member.identity in avoid or self._fleet.is_taken(member.identity):
                    continue
                if best is None or (self._fleet.load(account), rank) < best[:2]:
                    best = (self._fleet.load(account), rank, member)
                break
        return None if best is None else best[2]

    def _untaken(self, account: str | None) -> deque[tuple[tuple[Any, ...], Member]]:
        """Return those of an account, whose first is not taken; others may be, by name."""
        waiting = self._accounts[account]
        while waiting and self._fleet.is_taken(waiting[0][1].identity):
            waiting.popleft()
        return waiting


def _longest_unused(member: Member) -> tuple[Any, ...]:
    return (float("-inf") if member.last_used is None else member.last_used, natural(member.identity))


def _first_by_name(member: Member) -> tuple[Any, ...]:
    return (natural(member.identity),)


@lru_cache(maxsize=4096)
def natural(identity: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return what sorts names as people do: numbers in them by their value."""
    parts = re.findall(r"[0-9]+|[^0-9]+", identity)
    return tuple((0, int(part), "") if part[0] in _DIGITS else (1, 0, part) for part in parts), identity


_DIGITS = frozenset("0123456789")


def _agents(count: int) -> str:
    return f"{count} agent{'' if count == 1 else 's'}"
