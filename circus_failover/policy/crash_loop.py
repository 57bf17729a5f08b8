"""When deaths hold an agent back, for how long, and what ends that: the tables, and nothing else.

In each table the first match wins. Which end spends the budget:

| end | spends |
|---|---|
| planned | no |
| exited with status 0 | no |
| exited, signaled, server-lost, session-gone, launch-failed, ended-unknown, stuck | yes |
| anything else: server-ended, usage-limit, credentials, a host reboot, an interrupted start | no |

An end counts when it spends and is no older than `crash_window_secs`, and no launch after it was up for
`stable_secs`. What an end does to what the agent is held to:

| held to | the end | becomes |
|---|---|---|
| open, given-up | any | stays |
| half-open | of a launch that was up for `stable_secs` | closed, then as below |
| any | spends nothing | stays |
| half-open | spends, and is the 5th failed trial | given-up |
| half-open | spends | open, for 30 s doubled by each failed trial, at most 600 s |
| closed | spends, and is the `crash_max`th that counts | open, for 30 s |
| closed | spends | stays |

Open becomes half-open when its time has come: one launch is on trial. Anything but closed becomes closed
when a launch is up for `stable_secs`. Given-up permits no launch, open only when its time has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from circus_failover.words import Cause, Loop

FIRST_HOLD_SECS = 30.0
LONGEST_HOLD_SECS = 600.0
TRIALS = 5
"""After so many failed trials it is given up."""

_SPENDING = (
    *(Cause.EXITED, Cause.SIGNALED, Cause.SERVER_LOST, Cause.SESSION_GONE),
    *(Cause.LAUNCH_FAILED, Cause.ENDED_UNKNOWN, Cause.STUCK),
)


@dataclass(frozen=True)
class LoopSettings:
    """The settings this depends on."""

    crash_max: int
    crash_window_secs: float
    stable_secs: float


@dataclass(frozen=True)
class LoopState:
    """What an agent is held to.

    `until` is in epoch seconds and belongs to `open` alone; `failures` are the trials that failed in a row.
    """

    loop: Loop
    until: float | None
    failures: int


@dataclass(frozen=True)
class Ended:
    """How one launch ended; times in epoch seconds. `up_at` is None when it never became ready."""

    generation: int
    up_at: float | None
    ended_at: float
    planned: bool
    cause: str
    exit_status: int | None


_CLOSED = LoopState(Loop.CLOSED, None, 0)


def spends(ended: Ended) -> bool:
    """Say whether an end spends the budget."""
    if ended.planned or ended.cause not in _SPENDING:
        return False
    return ended.cause != Cause.EXITED or ended.exit_status != 0


def was_stable(ended: Ended, stable_secs: float) -> bool:
    """Say whether a launch had been up for `stable_secs` when it ended."""
    return ended.up_at is not None and ended.ended_at - ended.up_at >= stable_secs


def counted(settings: LoopSettings, ended: Sequence[Ended], now: float) -> list[Ended]:
    """Return the ends that count against the budget, the newest first.

    Args:
        settings: the agent's.
        ended: its ends, the newest first.
        now: epoch seconds. An end that lies ahead, since the clock was set back, counts: it is no older.
    """
    found = []
    for end in ended:
        if spends(end) and now - end.ended_at <= settings.crash_window_secs:
            found.append(end)
        if was_stable(end, settings.stable_secs):
            break
    return found


def after_end(settings: LoopSettings, state: LoopState, ended: Sequence[Ended], now: float) -> LoopState:
    """Return what an agent is held to after its newest end, which is `ended[0]`.

    Args:
        settings: the agent's.
        state: what it was held to.
        ended: its ends, the newest first.
        now: epoch seconds; a hold begins now.
    """
    if not ended or state.loop in (Loop.OPEN, Loop.GIVEN_UP):
        return state
    if state.loop is Loop.HALF_OPEN and was_stable(ended[0], settings.stable_secs):
        # A tick would have cleared it long ago; none came.
        state = _CLOSED
    if not spends(ended[0]):
        return state
    if state.loop is Loop.HALF_OPEN:
        failures = state.failures + 1
        if failures >= TRIALS:
            return LoopState(Loop.GIVEN_UP, None, failures)
        hold = min(FIRST_HOLD_SECS * 2**failures, LONGEST_HOLD_SECS)
        return LoopState(Loop.OPEN, now + hold, failures)
    if len(counted(settings, ended, now)) >= settings.crash_max:
        return LoopState(Loop.OPEN, now + FIRST_HOLD_SECS, 0)
    return state


def due_at(state: LoopState, now: float) -> float | None:
    """Return from when on a hold permits a launch, in epoch seconds; None for what is not open."""
    if state.loop is not Loop.OPEN:
        return None
    # No hold is longer than the longest, so one that seems to be was begun before the clock was set back,
    # by nobody knows how much. It is over rather than hours too long: one launch is all that it permits.
    if state.until is None or state.until - now > LONGEST_HOLD_SECS:
        return now
    return state.until


def half_open(state: LoopState, now: float) -> LoopState | None:
    """Return what an open hold becomes when its time has come; None when it has not, or none is open."""
    due = due_at(state, now)
    if due is None or now < due:
        return None
    return replace(state, loop=Loop.HALF_OPEN, until=None)


def permits(state: LoopState, now: float) -> bool:
    """Say whether a launch may happen now.

    That it stays one launch is up to the caller, who stores the half-open state together with the launch.
    """
    return state.loop in (Loop.CLOSED, Loop.HALF_OPEN) or half_open(state, now) is not None


def stable(settings: LoopSettings, state: LoopState, up_at: float | None, now: float) -> LoopState | None:
    """Return the cleared state when an agent has been up for long enough; None when nothing changes.

    Args:
        settings: the agent's.
        state: what it is held to.
        up_at: when its launch became ready, in epoch seconds; None when it did not.
        now: epoch seconds.
    """
    if state.loop is Loop.CLOSED or up_at is None or now - up_at < settings.stable_secs:
        return None
    return _CLOSED


def reason(
    settings: LoopSettings, state: LoopState, ended: Sequence[Ended], now: float, identity: str
) -> str:
    """Return the sentence that every front end shows of an agent's crash loop.

    Args:
        settings: the agent's.
        state: what it is held to.
        ended: its ends, the newest first.
        now: epoch seconds. The sentence is stored, so the times in it are absolute, in UTC.
        identity: whose crash loop it is.
    """
    reset = f"failoverctl reset {identity}"
    if state.loop is Loop.CLOSED:
        count = len(counted(settings, ended, now))
        return (
            f"no crash loop: {count} of {settings.crash_max} deaths in {_secs(settings.crash_window_secs)} s"
        )
    died = _died(settings, state, ended)
    if state.loop is Loop.GIVEN_UP:
        return f"{died}; given up: {reset}, or failoverctl start {identity}"
    if state.loop is Loop.HALF_OPEN:
        clears = f"up for {_secs(settings.stable_secs)} s it clears the crash loop, as does {reset}"
        return f"{died}; one launch is on trial: {clears}"
    due = due_at(state, now)
    if due is None or due <= now:
        return f"{died}; one launch may be tried now, or {reset}"
    return f"{died}; held until {_clock(due)}, or {reset}"


def _died(settings: LoopSettings, state: LoopState, ended: Sequence[Ended]) -> str:
    """Return how often an agent died, and how the last time."""
    last = next((index for index, end in enumerate(ended) if spends(end)), None)
    if last is None:
        return "it died too often"
    newest = ended[last]
    if state.failures:
        what = f"{_number(state.failures, 'launch', 'launches')} on trial died"
    else:
        # As of the last death: while the agent is held, those before it leave the window.
        count = len(counted(settings, ended[last:], newest.ended_at))
        what = f"{_number(count, 'death', 'deaths')} in {_secs(settings.crash_window_secs)} s"
    status = "" if newest.exit_status is None else f" with status {newest.exit_status}"
    return f"{what}, the last at {_clock(newest.ended_at)} ({newest.cause}{status})"


def _clock(at: float) -> str:
    """Return a time of day, which is enough: no hold is longer than 10 minutes."""
    return f"{datetime.fromtimestamp(at, timezone.utc):%H:%M:%S} UTC"


def _number(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _secs(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}".removesuffix(".0")
