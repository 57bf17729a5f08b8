"""What becomes of an assignment whose owner may have died with it: the table, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import AssignmentState, Orphans, Phase, TaskState, Word


class RecoveryAction(Word):
    """What is done about an assignment that has an owner."""

    LEAVE = "leave"
    WORKING = "working"
    """Its owner was seen to work on it."""
    DONE = "done"
    """Its owner has finished its turn, which counts as done."""
    RECOVER = "recover"
    """A launch died with it: its owner is told again, and one retry is spent."""
    GO_ON = "go-on"
    """Its owner's launch was ended on purpose: its next launch is told again, and nothing is spent."""
    RELEASE = "release"
    """Nobody had taken it and its owner cannot: it goes back to its pool, or waits for its agent."""
    ORPHAN = "orphan"
    """Too many launches died with it, or its owner is no more."""
    BACK_TO_POOL = "back-to-pool"
    """Orphaned, and given back to its pool by setting."""


@dataclass(frozen=True)
class Owned:
    """An assignment with an owner, and everything the decision depends on."""

    state: AssignmentState
    for_pool: bool
    """It was given to a pool, not to an agent by name."""
    retries: int
    orphanings: int
    task: TaskState | None
    """Where the task is that types it; None: there is none that is open."""
    owner_known: bool
    """A section names its owner, and its settings can be used."""
    owner_phase: Phase
    owner_stay_stopped: bool
    owner_observed: bool
    owner_ends: bool
    """An end of its owner is under way, or how its launch ended is still being found out."""
    launch_ended: bool | None
    """Whether the launch that took it has ended; None: nobody took it yet, or that cannot be told."""
    launch_planned: bool
    """Whether somebody ended that launch on purpose."""
    launch_cause: str | None
    worked: bool
    """Its owner was seen to work since it took it."""
    idle_since_worked: bool
    """Its owner was seen to be idle after that, and after its delivery."""
    done_on_idle: bool
    work_retries: int
    on_orphan: Orphans


@dataclass(frozen=True)
class RecoveryVerdict:
    """What is done, and why."""

    action: RecoveryAction
    reason: str


def decide(owned: Owned) -> RecoveryVerdict:
    """Return what becomes of an assignment that has an owner."""
    raise NotImplementedError
