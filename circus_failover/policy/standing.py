"""What an agent is to the assignments that wait: the table, and nothing else.

First match wins.

| agent | it is |
|---|---|
| observed | out |
| an operator stopped it | out |
| held or refused | out |
| an end of it is under way | out |
| starting | coming |
| its account has reached a limit, or is not logged in | out |
| up, and waiting, limited, stuck or wedged | out |
| up, with an assignment | busy |
| up, nothing to do: idle, or its runtime cannot tell | free |
| up, launched less than 60 s ago | coming |
| up, with something else to do, or working | busy |
| up otherwise: what it does cannot be told | out |
| down or parked, with an assignment | busy |
| down by itself, and its restart policy brings it back | returning |
| down or parked, tasks wait for it, and the assignment is a pool's | busy |
| down or parked, launched less than 30 s ago | tried |
| down or parked otherwise | asleep |

Whoever is free gets one, who is coming is waited for, and who is asleep is started when there is nobody else.
From who is out nothing is expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from circus_failover.words import Phase, State, Word

AGAIN_SECS = 30.0
"""A start that came to nothing is not tried again before."""
SETTLE_SECS = 60.0
"""How long one that was launched is waited for: it has yet to be looked at, or to do its first prompt."""


class Standing(Word):
    """What an agent is to the assignments that wait."""

    FREE = "free"
    COMING = "coming"
    """It is starting, or was started just now: it will take one."""
    ASLEEP = "asleep"
    """It can be started."""
    BUSY = "busy"
    RETURNING = "returning"
    """The restart policy brings it back."""
    TRIED = "tried"
    """It was started a moment ago, and is down."""
    OUT = "out"
    """Nothing is given to it, and nothing says that this will change."""


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
    """Its last end was a death after which its restart policy brings it back, when its time has come."""
    launched_at: float | None
    """When it was last asked to start, in epoch seconds."""
    last_used: float | None
    """When it last took a task, in epoch seconds."""
    assigned: bool = True
    """If it is `busy`: with an assignment, or with what takes as long; not just until it was looked at."""


@dataclass(frozen=True)
class Place:
    """What an agent is to the assignments that wait, and why, in words that follow `it is`."""

    standing: Standing
    words: str


def standing(member: Member, now: float, named: bool = False) -> Place:
    """Return what an agent is to the assignments that wait.

    Args:
        member: the agent.
        now: epoch seconds.
        named: to one that was given to it by name.
    """
    if member.observed or member.phase is Phase.OBSERVED:
        return Place(Standing.OUT, "observed only")
    if member.stay_stopped or member.phase is Phase.STOPPED:
        return Place(Standing.OUT, "stopped by an operator")
    if member.phase in (Phase.HELD, Phase.REFUSED):
        return Place(Standing.OUT, str(member.phase))
    if member.phase is Phase.STOPPING:
        return Place(Standing.OUT, "being ended")
    if member.phase is Phase.STARTING:
        return Place(Standing.COMING, "starting")
    if member.account_limited:
        return Place(Standing.OUT, "on an account that has reached a limit or is not logged in")
    return _up(member, now) if member.phase is Phase.UP else _down(member, now, named)


def _up(member: Member, now: float) -> Place:
    if member.state in _HINDERED:
        return Place(Standing.OUT, _HINDERED[member.state])
    if member.busy and member.assigned:
        return Place(Standing.BUSY, "busy")
    silent = not member.tells and member.state in (None, State.UNKNOWN)
    if not member.busy and (member.state is State.IDLE or silent):
        return Place(Standing.FREE, "free")
    if _since(member.launched_at, now) < SETTLE_SECS:
        return Place(Standing.COMING, "starting")
    if member.busy or member.state is State.WORKING:
        return Place(Standing.BUSY, "busy")
    return Place(Standing.OUT, "unknown in what it does")


def _down(member: Member, now: float, named: bool) -> Place:
    if member.busy and member.assigned:
        return Place(Standing.BUSY, "down with an assignment")
    if member.ended_by_itself:
        return Place(Standing.RETURNING, "brought back by its restart policy")
    if member.busy and not named:
        return Place(Standing.BUSY, "down, and has tasks of its own")
    if _since(member.launched_at, now) < AGAIN_SECS:
        return Place(Standing.TRIED, "down, and was started a moment ago")
    return Place(Standing.ASLEEP, str(member.phase))


_HINDERED = {
    State.WAITING: "waiting for a person",
    State.LIMITED: "limited",
    State.STUCK: "stuck",
    State.WEDGED: "in a tmux server that does not answer",
}


def _since(at: float | None, now: float) -> float:
    """Return the seconds since a time; infinite when there was none, or when the clock was set back since."""
    return now - at if at is not None and at <= now else float("inf")
