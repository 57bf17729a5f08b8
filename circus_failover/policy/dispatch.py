"""Who gets which assignment, and who is started for one: the table, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circus_failover.words import Phase, State


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
class Member:
    """An agent that may get an assignment, and everything the decision depends on."""

    identity: str
    pool: str | None
    phase: Phase
    state: State | None
    """What it does; None: it is not up."""
    tells: bool
    """Whether its runtime says what it does: else it is free when it has nothing to do."""
    busy: bool
    """It has an assignment, tasks wait for it, or an end of it is under way."""
    account: str | None
    account_limited: bool
    """Some agent of its account has reached a limit, or is not logged in."""
    observed: bool
    stay_stopped: bool
    ended_by_itself: bool
    """Its last end was a death: whether and when it comes back is the restart policy's."""
    launched_at: float | None
    """When it was last asked to start, in epoch seconds."""
    last_used: float | None
    """When it last took a task, in epoch seconds."""


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
    raise NotImplementedError


def why_waiting(job: Job, members: Sequence[Member], now: float) -> str:
    """Say in words why an assignment has no owner yet."""
    raise NotImplementedError
