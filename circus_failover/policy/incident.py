"""Mass deaths: whether many agents died together, and at what pace they come back. The tables, only.

An incident: within 30 s at least 3 agents died without an intent, and they are at least half of those
that were alive when the first of them died; they are its members. It goes on while its members are being
relaunched, and is over 600 s after the last that happened; what happens before that belongs to it, a
second wave of deaths too. While it is stopped it is not over: only a launch by somebody else ends a stop.

What a launch does to the row of failures, in the order in which they began; first match wins:

| a member's launch | the row |
|---|---|
| restart policy: ended by itself before it was ready | one more |
| restart policy: ended by itself within 30 s after it was ready | one more |
| restart policy: ready for 30 s | none left |
| restart policy: otherwise | as it was |
| adopted or observed: no launch | as it was |
| another cause: came up after the last failure, and did not fail likewise | none left |
| another cause: otherwise | as it was |

When an agent may be relaunched, first match wins:

| agent | at | alert |
|---|---|---|
| no member | now | no |
| 3 failures in a row | not yet | yes |
| the newest relaunch is neither ready nor ended | not yet | no |
| none was relaunched yet | now | no |
| otherwise | 5 s ± 20% after the newest | no |
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circus_failover.words import Cause

WINDOW_SECS = 30.0
LEAST_DEATHS = 3
LOOK_BACK_SECS = 600.0
APART_SECS = 5.0
JITTER = 0.2
READY_SECS = 30.0
"""A relaunch that has been ready for so long succeeded."""
FAILURES = 3
"""After so many failures in a row the relaunches stop."""

_NO_LAUNCH = (Cause.ADOPTED, Cause.ADOPTED_FOREIGN, Cause.OBSERVED)


@dataclass(frozen=True)
class Life:
    """One launch of one agent; times in epoch seconds.

    `cause` says why it was launched, `end_cause` how it ended.
    """

    identity: str
    generation: int
    started_at: float
    up_at: float | None
    ended_at: float | None
    planned: bool | None
    cause: str
    end_cause: str | None


@dataclass(frozen=True)
class Incident:
    """Many agents that died together, and how their return goes; times in epoch seconds."""

    began: float
    last: float
    """When the last of them died."""
    identities: frozenset[str]
    relaunched: int
    """How many launches the restart policy has made of them since."""
    failures_in_a_row: int
    last_relaunch: float | None
    """When the newest of these began."""
    under_way: bool = False
    """The newest of these is neither ready nor ended."""
    over_at: float | None = None
    """When it is over, if nothing else happens; None while it is stopped."""


@dataclass(frozen=True)
class Pace:
    """From when on an agent may be relaunched (None: not yet), what the operator must hear, and why."""

    at: float | None
    alert: str | None
    reason: str = ""


@dataclass(frozen=True)
class _Wave:
    began: float
    last: float
    identities: frozenset[str]


def find(lives: Sequence[Life], now: float) -> Incident | None:
    """Return the newest incident that is not over.

    Args:
        lives: every launch that is live now, however old, since they are what half is counted of; and
            those that ended since. A stop is remembered for as far back as they go.
        now: epoch seconds.
    """
    # What lies ahead was recorded before the clock was set back, and cannot be placed beside what came
    # after; an incident among it would last, or a stop could not be ended, until the clock is there again.
    ahead = now + WINDOW_SECS
    ordered = sorted(
        (life for life in lives if max(life.started_at, life.ended_at or life.started_at) <= ahead),
        key=lambda life: (life.started_at, life.identity, life.generation),
    )
    found: Incident | None = None
    for wave in _waves(ordered):
        if found is not None and (found.over_at is None or wave.began <= found.over_at):
            last, identities = max(found.last, wave.last), found.identities | wave.identities
            wave = _Wave(found.began, last, identities)
        found = _followed(wave, ordered, now)
    if found is None or (found.over_at is not None and now > found.over_at):
        return None
    return found


def pace(incident: Incident, identity: str, now: float) -> Pace:
    """Return when an agent may be relaunched.

    Of several agents whose time has come one is relaunched; then the incident is to be found anew.

    Args:
        incident: the one that is not over.
        identity: the agent.
        now: epoch seconds.
    """
    if identity not in incident.identities:
        return Pace(now, None, "it is no member of the incident")
    dead = f"{len(incident.identities)} agents died together {max(0.0, now - incident.began):.0f} s ago"
    if incident.failures_in_a_row >= FAILURES:
        alert = (
            f"{dead}, and {incident.failures_in_a_row} relaunches in a row failed: no further one is made. "
            f"First look at the host (memory, disk, its log), then failoverctl wake {identity}, "
            f"or failoverctl reset {identity} where it is held; once one is up, the others follow"
        )
        return Pace(None, alert, alert)
    if incident.under_way:
        return Pace(None, None, f"{dead}: one after another, and a relaunch is under way")
    if incident.last_relaunch is None:
        return Pace(now, None, f"{dead}: it is the first to come back")
    # The same at every tick and in every process: a string seeds by SHA-512, not by hash() (CPython 3.2+).
    # One for each step and not for each agent: of many agents one would always be due after hardly 4 s.
    jitter = random.Random(f"{incident.began}:{incident.relaunched}").uniform(-JITTER, JITTER)
    wait = APART_SECS * (1 + jitter)
    return Pace(incident.last_relaunch + wait, None, f"{dead}: {wait:.1f} s after the one before it")


def _waves(lives: Sequence[Life]) -> Iterator[_Wave]:
    """Yield the times at which many died together, in order; those that overlap are one.

    A window begins with a death: one that began earlier would hold no more of them.
    """
    deaths = sorted(
        (life.ended_at, life.identity, life.started_at)
        for life in lives
        if life.ended_at is not None and not life.planned
    )
    starts = sorted(life.started_at for life in lives)
    ends = sorted(life.ended_at for life in lives if life.ended_at is not None)
    started = ended = 0
    wave: _Wave | None = None
    for first, (began, _, _) in enumerate(deaths):
        while started < len(starts) and starts[started] <= began:
            started += 1
        while ended < len(ends) and ends[ended] < began:
            ended += 1
        found = _window(deaths, first)
        if len(found.identities) < LEAST_DEATHS or 2 * len(found.identities) < started - ended:
            continue
        if wave is not None and began <= wave.last:
            wave = _Wave(wave.began, max(wave.last, found.last), wave.identities | found.identities)
            continue
        if wave is not None:
            yield wave
        wave = found
    if wave is not None:
        yield wave


def _window(deaths: Sequence[tuple[float, str, float]], first: int) -> _Wave:
    """Return who died from one death on within the window, of those that were alive when it began."""
    began = last = deaths[first][0]
    identities = set()
    for index in range(first, len(deaths)):
        died, identity, born = deaths[index]
        if died > began + WINDOW_SECS:
            break
        if born <= began:
            identities.add(identity)
            last = died
    return _Wave(began, last, frozenset(identities))


def _followed(wave: _Wave, lives: Sequence[Life], now: float) -> Incident:
    """Return the incident that a wave of deaths began: what has happened to its members since, in order."""
    row = relaunched = 0
    last_relaunch: float | None = None
    under_way = False
    failed_at, heard = wave.began, wave.last
    for life in lives:
        if life.identity not in wave.identities or life.started_at <= wave.began or life.cause in _NO_LAUNCH:
            continue
        if row < FAILURES and life.started_at - heard > LOOK_BACK_SECS:
            break
        if life.cause == Cause.RESTART_POLICY:
            relaunched += 1
            last_relaunch = life.started_at
            came = life.up_at if life.up_at is not None else life.ended_at
            under_way = came is None
            heard = max(heard, now if came is None else came)
            if life.ended_at is not None and _failed(life):
                row += 1
                failed_at = life.ended_at
                heard = max(heard, failed_at)
            elif _succeeded(life, now):
                row = 0
        elif life.up_at is not None and not _failed(life) and life.started_at > failed_at and row:
            row = 0
            heard = max(heard, life.up_at)
    return Incident(
        began=wave.began,
        last=wave.last,
        identities=wave.identities,
        relaunched=relaunched,
        failures_in_a_row=row,
        last_relaunch=last_relaunch,
        under_way=under_way,
        over_at=None if row >= FAILURES else heard + LOOK_BACK_SECS,
    )


def _failed(life: Life) -> bool:
    """Say whether a launch ended by itself before it had been ready for long enough."""
    if life.ended_at is None or life.planned:
        return False
    return life.up_at is None or life.ended_at - life.up_at < READY_SECS


def _succeeded(life: Life, now: float) -> bool:
    """Say whether a launch was ready for long enough."""
    until = now if life.ended_at is None else life.ended_at
    return life.up_at is not None and until - life.up_at >= READY_SECS
