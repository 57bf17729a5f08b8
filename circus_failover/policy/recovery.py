"""What becomes of an assignment whose owner may have died with it: the table, and nothing else.

First match wins.

| assignment | action |
|---|---|
| it is over, or waits for a person | leave |
| an end of its owner is under way, or how its launch ended is being found out | leave |
| not taken: its text is being typed | leave |
| not taken: its owner is no more, or no task of it is left | release |
| not taken, a pool's: its owner is observed, stopped, held or refused | release |
| not taken, a pool's: its owner was parked before anybody had taken it | release |
| not taken, a pool's: its owner is limited or waits for somebody | release |
| not taken otherwise: it is in its owner's queue | leave |
| taken: its owner was idle after working, and `done_on_idle` is set | done |
| its launch lives, and its owner is seen to work for the first time | working |
| its launch lives, its client began nothing with it, fewer than `work_retries` before | recover |
| its launch lives | leave |
| its owner is no more, a pool's | release |
| its owner is no more, given by name | orphan |
| whether its launch lives cannot be told | leave |
| its launch was ended on purpose | go-on |
| its launch died, fewer than `work_retries` deaths before | recover |
| its launch died, a pool's, `on_orphan` is `pool`, orphaned fewer than `work_retries` times | back-to-pool |
| its launch died otherwise | orphan |

Taken is what was delivered or is being worked on; its launch is the one that took it. What is released or
goes on spends no retry; a release keeps those that were spent, so that nothing is recovered without end.
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import AssignmentState, Orphans, Phase, State, TaskState, Word


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
    owner_state: State | None = None
    """What its owner does, if it is up."""
    unheard: bool = False
    """Its client says that it has been idle since before it was told: what was typed did not reach it."""


@dataclass(frozen=True)
class RecoveryVerdict:
    """What is done, and why."""

    action: RecoveryAction
    reason: str


_NO_MORE = "its owner is no more, or its settings cannot be used"
_TAKEN = (AssignmentState.DELIVERED, AssignmentState.WORKING)
_TAKES_NOTHING = (State.LIMITED, State.WAITING)
"""Into such an agent nothing is typed, and nobody knows for how long."""
_OUT_OF_SERVICE = {
    Phase.STOPPED: "was stopped by an operator",
    Phase.HELD: "is held",
    Phase.REFUSED: "is refused a launch",
    Phase.OBSERVED: "is observed only",
}


def decide(owned: Owned) -> RecoveryVerdict:
    """Return what becomes of an assignment that has an owner."""
    if owned.state is AssignmentState.ORPHANED:
        return RecoveryVerdict(RecoveryAction.LEAVE, "orphaned: it waits for a person")
    if owned.state.over:
        return RecoveryVerdict(RecoveryAction.LEAVE, f"it is {owned.state}")
    if owned.owner_ends:
        reason = "its owner's end is under way; what becomes of it is decided when that is over"
        return RecoveryVerdict(RecoveryAction.LEAVE, reason)
    return _taken(owned) if owned.state in _TAKEN else _not_taken(owned)


def _not_taken(owned: Owned) -> RecoveryVerdict:
    """Return what becomes of an assignment that is in its owner's queue."""
    if owned.task is TaskState.TYPING:
        return RecoveryVerdict(RecoveryAction.LEAVE, "its text is being typed")
    if not owned.owner_known:
        return RecoveryVerdict(RecoveryAction.RELEASE, f"{_NO_MORE}, and nobody had taken it")
    if owned.task in (None, TaskState.CANCELLED):
        return RecoveryVerdict(RecoveryAction.RELEASE, "no task that would tell its owner is left")
    out = _out_of_service(owned)
    if out and owned.for_pool:
        return RecoveryVerdict(RecoveryAction.RELEASE, f"nobody had taken it, and its owner {out}")
    if out:
        return RecoveryVerdict(RecoveryAction.LEAVE, f"it waits for its owner, which {out}")
    if owned.for_pool and owned.owner_phase is Phase.PARKED and owned.launch_ended is None:
        return RecoveryVerdict(RecoveryAction.RELEASE, "its owner was parked before anybody had taken it")
    if owned.for_pool and owned.owner_state in _TAKES_NOTHING and owned.launch_ended is None:
        reason = f"its owner is {owned.owner_state}, before anybody had taken it"
        return RecoveryVerdict(RecoveryAction.RELEASE, reason)
    reason = f"it is in the queue of its owner, which is {owned.owner_phase}"
    return RecoveryVerdict(RecoveryAction.LEAVE, reason)


def _taken(owned: Owned) -> RecoveryVerdict:
    """Return what becomes of an assignment that its owner has taken."""
    if owned.done_on_idle and owned.worked and owned.idle_since_worked:
        reason = "its owner has finished its turn, and failover.done_on_idle is set"
        return RecoveryVerdict(RecoveryAction.DONE, reason)
    if owned.launch_ended is False:
        if owned.state is AssignmentState.DELIVERED and owned.worked:
            return RecoveryVerdict(RecoveryAction.WORKING, "its owner was seen to work on it")
        if owned.state is AssignmentState.DELIVERED and owned.unheard:
            return _unheard(owned)
        return RecoveryVerdict(RecoveryAction.LEAVE, "the launch that took it lives")
    if not owned.owner_known:
        if owned.for_pool:
            return RecoveryVerdict(RecoveryAction.RELEASE, f"{_NO_MORE}: it goes back to its pool")
        return RecoveryVerdict(RecoveryAction.ORPHAN, f"{_NO_MORE}, and it was given to nobody else")
    if owned.launch_ended is None:
        return RecoveryVerdict(RecoveryAction.LEAVE, "whether the launch that took it lives cannot be told")
    cause = owned.launch_cause or "unknown"
    if owned.launch_planned:
        reason = f"the launch that took it was ended on purpose ({cause}): the next one goes on with it"
        return RecoveryVerdict(RecoveryAction.GO_ON, reason)
    return _died(owned, cause)


def _unheard(owned: Owned) -> RecoveryVerdict:
    """Return what becomes of an assignment whose text was lost on the way to its owner's client."""
    lost = "its owner's client has been idle since before it was told"
    if owned.retries < owned.work_retries:
        reason = f"{lost}: it is told again, retry {owned.retries + 1} of {owned.work_retries}"
        return RecoveryVerdict(RecoveryAction.RECOVER, reason)
    spent = f"failover.work_retries ({owned.work_retries}) are spent"
    return RecoveryVerdict(RecoveryAction.LEAVE, f"{lost}, and {spent}: a person has to look at it")


def _died(owned: Owned, cause: str) -> RecoveryVerdict:
    """Return what becomes of an assignment whose owner's launch died with it."""
    death = f"its owner died with it ({cause})"
    if owned.retries < owned.work_retries:
        reason = f"{death}: retry {owned.retries + 1} of {owned.work_retries}"
        return RecoveryVerdict(RecoveryAction.RECOVER, reason)
    spent = f"{death}, and failover.work_retries ({owned.work_retries}) are spent"
    if owned.for_pool and owned.on_orphan is Orphans.POOL:
        if owned.orphanings < owned.work_retries:
            return RecoveryVerdict(RecoveryAction.BACK_TO_POOL, f"{spent}: another agent of its pool may try")
        spent += f"; its pool had it back {owned.orphanings} times"
    return RecoveryVerdict(RecoveryAction.ORPHAN, f"{spent}: a person has to look at it")


def _out_of_service(owned: Owned) -> str:
    """Return why an owner cannot take what waits for it, now or soon; empty when it can."""
    if owned.owner_observed:
        return _OUT_OF_SERVICE[Phase.OBSERVED]
    if owned.owner_stay_stopped:
        return _OUT_OF_SERVICE[Phase.STOPPED]
    return _OUT_OF_SERVICE.get(owned.owner_phase, "")
