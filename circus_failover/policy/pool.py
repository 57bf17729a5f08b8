"""Who of a pool is started so that its `failover.pool_min` agents are always up, and who may leave it.

Nothing else: starting more while work waits is `policy.dispatch`, parking those again is `policy.idle`.

First match wins. Started are as many as are missing, the lowest index first, and at most 5 are starting at
a time.

| member | counts | may be started |
|---|---|---|
| observed | no | no |
| up | yes | no |
| starting; being woken, restarted or parked, so that it is back or may be started in a moment | yes | no |
| stopped by an operator | no | no |
| its end is under way | no | no |
| held, refused, its settings cannot be used, or nothing can be done on its account | no | no |
| it ended by itself and its restart policy brings it back, at most 5 s ago | yes | no |
| it ended by itself and its restart policy brings it back, longer ago | no | no |
| its start was tried less than 30 s ago | no | no |
| otherwise (never launched, parked, ended on purpose) | no | yes |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from circus_failover.policy.dispatch import natural
from circus_failover.words import Phase, State, Word

STARTING_AT_ONCE = 5
RETURN_SECS = 5.0
"""The restart policy's first delay is 1.2 s at most: who is not back after so long is stood in for."""
AGAIN_SECS = 30.0
"""How long a start that failed is not tried again."""


class Standing(Word):
    """What a member is to its pool's minimum."""

    PRESENT = "present"
    """It is up, or on its way."""
    AVAILABLE = "available"
    """It may be started."""
    OUT = "out"


@dataclass(frozen=True)
class Member:
    """An agent of a pool, and everything the decision depends on."""

    identity: str
    phase: Phase
    observed: bool
    stay_stopped: bool
    usable: bool
    """Its settings can be used, and so can an account: a start would not be held for a limit."""
    coming: bool
    """It is being woken, or the end that is under way is none for long (restart, fresh, stuck, park)."""
    ending: bool
    """Any other end of it is under way, but clearing away what is left of a dead launch."""
    returns: bool
    """Its last launch ended by itself, and its restart policy brings it back."""
    ended_ago: float | None
    """Seconds since its last end; None: it has none."""
    tried_ago: float | None
    """Seconds since its pool last tried to start it in vain, or tries; None: it did not."""


@dataclass(frozen=True)
class Plan:
    """Who is started now, how many are there, and the sentence that says so."""

    starts: tuple[str, ...]
    present: int
    reason: str


def standing(member: Member) -> Standing:
    """Return what a member is to its pool's minimum."""
    if member.observed:
        return Standing.OUT
    if member.phase is Phase.UP or member.phase is Phase.STARTING or member.coming:
        return Standing.PRESENT
    if member.stay_stopped or member.phase is Phase.STOPPED:
        return Standing.OUT
    if member.ending or member.phase is Phase.STOPPING:
        return Standing.OUT
    if member.phase in (Phase.HELD, Phase.REFUSED) or not member.usable:
        return Standing.OUT
    if member.returns:
        # An end ahead of now was noted before the clock was set back, by nobody knows how much.
        soon = member.ended_ago is not None and 0 <= member.ended_ago <= RETURN_SECS
        return Standing.PRESENT if soon else Standing.OUT
    if member.tried_ago is not None and member.tried_ago < AGAIN_SECS:
        return Standing.OUT
    return Standing.AVAILABLE


def decide(members: Sequence[Member], wanted: int) -> Plan:
    """Return who of a pool is started now.

    Args:
        members: of one pool.
        wanted: its `failover.pool_min`.
    """
    stands = {member.identity: standing(member) for member in members}
    present = sum(stand is Standing.PRESENT for stand in stands.values())
    available = in_order(name for name, stand in stands.items() if stand is Standing.AVAILABLE)
    starting = sum(
        stands[member.identity] is Standing.PRESENT and member.phase is not Phase.UP for member in members
    )
    missing = max(0, wanted - present)
    starts = available[: max(0, min(missing, STARTING_AT_ONCE - starting))]
    reason = f"{present} of {wanted} are up or starting"
    if missing and not available:
        reason += ", and no other may be started"
    return Plan(tuple(starts), present, reason)


def in_order(identities: Iterable[str]) -> list[str]:
    """Return identities in the order of their index: a-2 before a-10."""
    return sorted(identities, key=natural)


@dataclass(frozen=True)
class Leaver:
    """A member that is to leave its pool for good, and everything that could be lost with it."""

    phase: Phase
    state: State | None
    """What it does; None: it is not up."""
    tells: bool
    """Whether its runtime says what it does: else it is free when it has nothing to do."""
    tasks: int
    assignment: str | None


def hindrance(leaver: Leaver) -> str:
    """Return why a member may not leave now, or an empty text; unknown is not idle."""
    if leaver.assignment is not None:
        return f"it has the assignment {leaver.assignment}"
    if leaver.tasks:
        return f"tasks wait for it: {leaver.tasks}"
    if leaver.phase is Phase.OBSERVED:
        return "it is observed, and never ended"
    if leaver.phase is Phase.STARTING:
        return "it is starting"
    if leaver.phase is not Phase.UP:
        return ""
    free = (State.IDLE,) if leaver.tells else (State.IDLE, State.UNKNOWN)
    return "" if leaver.state in free else f"it is {leaver.state or State.UNKNOWN}"
