"""Whether and when the restart policy brings an agent back: the table, and nothing else.

First match wins.

| agent | action | at |
|---|---|---|
| observed | leave | |
| an operator stopped it | leave | |
| held, its crash loop is open | half-open | when its time has come |
| held, its crash loop is given up | leave | |
| held otherwise: because of its account, and AccountFailover wakes it | leave | |
| not down (up, parked, refused, ...) | leave | |
| never launched | leave | |
| its last end was asked for | leave | |
| `lazy`, without an assignment: it waits for a wake | leave | |
| `on-work`, without an assignment and without tasks | leave | |
| its crash loop permits no launch | leave | |
| otherwise | launch | its end, and the delay |

The delay is 1 s, doubled by each end before the last, in a row, that nobody asked for and that came before
its launch had been up for `stable_secs`; at most 60 s; and up to a fifth more, so that agents that died
together come back one after another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from circus_failover.policy.crash_loop import Ended, LoopState, due_at, permits, was_stable
from circus_failover.words import Loop, Phase, Restart, Word

FIRST_DELAY_SECS = 1.0
LONGEST_DELAY_SECS = 60.0
JITTER = 0.2


class RespawnAction(Word):
    """What is asked of circusd."""

    LEAVE = "leave"
    HALF_OPEN = "half-open"
    LAUNCH = "launch"


@dataclass(frozen=True)
class Fallen:
    """An agent that may be down, and everything the decision depends on."""

    identity: str
    generation: int
    phase: Phase
    stay_stopped: bool
    observed: bool
    restart: Restart
    loop: LoopState
    work: int
    """How many tasks wait for it."""
    ended: Sequence[Ended]
    """Its ends, the newest first."""
    stable_secs: float
    assigned: bool = False
    """It has an assignment, or one waits for it by name: work that brings back whoever it is given to."""


@dataclass(frozen=True)
class Respawn:
    """What is asked of circusd, from when on in epoch seconds (None: not at all), and why."""

    action: RespawnAction
    at: float | None
    reason: str


def decide(fallen: Fallen, now: float) -> Respawn:
    """Return whether an agent is brought back, and when.

    Args:
        fallen: the agent.
        now: epoch seconds; the time in the verdict is the same at every tick, and may have passed.
    """
    hindrance = _hindrance(fallen)
    if hindrance:
        return Respawn(RespawnAction.LEAVE, None, hindrance)
    if fallen.phase is Phase.HELD:
        due = due_at(fallen.loop, now)
        if fallen.loop.loop is Loop.GIVEN_UP:
            return Respawn(RespawnAction.LEAVE, None, f"held, and its crash loop is {fallen.loop.loop}")
        if due is None:
            return Respawn(RespawnAction.LEAVE, None, "held because of its account: AccountFailover wakes it")
        return Respawn(RespawnAction.HALF_OPEN, due, "its crash loop half-opens when its time has come")
    unwanted = _unwanted(fallen)
    if unwanted:
        return Respawn(RespawnAction.LEAVE, None, unwanted)
    if not permits(fallen.loop, now):
        return Respawn(RespawnAction.LEAVE, None, f"its crash loop is {fallen.loop.loop}")
    quick = _quick_ends(fallen)
    delay = _delay(fallen, quick)
    at = fallen.ended[0].ended_at + delay
    if at - now > LONGEST_DELAY_SECS * (1 + JITTER):
        # No delay is that long: the clock was set back since the end, by nobody knows how much.
        at = now
    reason = f"{_wanted(fallen)}: {delay:.1f} s after its end, quick ends in a row: {quick}"
    return Respawn(RespawnAction.LAUNCH, at, reason)


def _hindrance(fallen: Fallen) -> str:
    """Return why nothing at all is asked for an agent; empty when something may be."""
    if fallen.observed:
        return "observed: watched and shown only"
    if fallen.stay_stopped or fallen.phase is Phase.STOPPED:
        return "an operator stopped it"
    if fallen.phase not in (Phase.DOWN, Phase.HELD):
        return f"it is {fallen.phase}"
    return ""


def _unwanted(fallen: Fallen) -> str:
    """Return why the restart policy does not want an agent back that is down; empty when it does."""
    if not fallen.ended:
        return "it was never launched"
    if fallen.ended[0].planned:
        return f"its last end was asked for: {fallen.ended[0].cause}"
    if fallen.restart is Restart.LAZY and not fallen.assigned:
        return "lazy, and it has no assignment: it waits for a wake"
    if fallen.restart is Restart.ON_WORK and not fallen.assigned and not fallen.work:
        return "on-work, and it has neither an assignment nor tasks"
    return ""


def _wanted(fallen: Fallen) -> str:
    """Return why the restart policy wants an agent back."""
    if fallen.assigned:
        return f"{fallen.restart}, and it has an assignment"
    if fallen.restart is Restart.ON_WORK:
        return f"{fallen.restart}, and tasks wait for it: {fallen.work}"
    return str(fallen.restart)


def _quick_ends(fallen: Fallen) -> int:
    """Return how many launches ended in a row by themselves before they were stable, the last included."""
    count = 0
    for end in fallen.ended:
        if end.planned or was_stable(end, fallen.stable_secs):
            break
        count += 1
    return count


def _delay(fallen: Fallen, quick: int) -> float:
    """Return the seconds between the last end and the next launch."""
    # Bounded, since an agent may well fall two thousand times, and no float is as large as 2 ** 2000.
    doublings: int = min(max(quick - 1, 0), 16)
    # The same at every tick and in every process: a string seeds by SHA-512, not by hash() (CPython 3.2+).
    jitter = random.Random(f"{fallen.identity}:{fallen.generation}").random() * JITTER
    return min(FIRST_DELAY_SECS * 2.0**doublings, LONGEST_DELAY_SECS) * (1 + jitter)
