"""What is known of an account: learned from what clients say, corrected by the next success. The table, only.

A fault has a time, its own or that of the look that first showed it, and so has an answer. What counts is
which came later, whichever agent they were seen at: a screen that still shows an old fault proves nothing. An
answer makes known what it can: newer than what is known, the account is available. Then the first line that
applies to the fault that stands:

| fault | known | becomes |
|---|---|---|
| none | any | that |
| rate limit, network or other: the client tries again, or a person looks at it | any | that |
| any, not newer than a check or `forget` | any | that |
| usage limit, its reset has passed, or said 6 h ago without one | any | that |
| usage limit of one model | any | that, and the model limited |
| any, older than the last answer | any | that |
| usage limit, credit or credentials, and its client works | any | that |
| credentials | any | credentials |
| usage limit or credit | credentials | that |
| usage limit or credit | any other | limited |
| overload or server error, said 120 s ago | any | that |
| overload or server error | limited or credentials | that |
| overload or server error | any other | overloaded |

What time alone changes (`current`): a limit is over at its reset, and where that is unknown 6 h after it was
said; an overload is over after 120 s; then the account is unknown. Bad credentials are not over by
themselves. A time to come is that of a clock that was set back since: it proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from circus_failover.policy.health import Fault
from circus_failover.words import AccountState, FaultKind

UNKNOWN_RESET_SECS = 6 * 3600.0
"""For how long a limit is believed in whose reset nobody knows."""
OVERLOADED_SECS = 120.0
CHECKED = "check"
FORGOTTEN = "forget"
"""`Known.source` where a check, or a person, ended what was known: what was said before does not return."""

_LIMITS = (FaultKind.USAGE_LIMIT, FaultKind.CREDIT)
_OVERLOADS = (FaultKind.OVERLOAD, FaultKind.SERVER_ERROR)
_NOT_THE_ACCOUNTS = (FaultKind.RATE_LIMIT, FaultKind.NETWORK, FaultKind.OTHER)


@dataclass(frozen=True)
class Usage:
    """How much of one window of an account is used, as a client says."""

    window: str
    """`5-hour`, `weekly`, ..., as in `policy.usage_limits`."""
    used: float
    """From 0 to 1; more than 1 is used up too."""
    resets_at: float | None
    """Epoch seconds; None: unknown."""
    at: float
    """When the client said so, in epoch seconds."""


@dataclass(frozen=True)
class ModelLimit:
    """A limit of one model, which is none of the account."""

    name: str
    """`opus`, `sonnet`, `fable`, ..."""
    until: float | None
    seen_at: float


@dataclass(frozen=True)
class Known:
    """What is known of an account; times in epoch seconds."""

    name: str
    runtime: str
    state: AccountState = AccountState.UNKNOWN
    limit_name: str | None = None
    until: float | None = None
    """When the limit resets; None: unknown, or there is none."""
    text: str | None = None
    """The client's own words; or how it came that nothing is known."""
    since: float | None = None
    seen_at: float | None = None
    """The time of the newest evidence for it."""
    seen_by: str | None = None
    source: str | None = None
    answered_at: float | None = None
    used_at: float | None = None
    models: tuple[ModelLimit, ...] = ()
    usage: tuple[Usage, ...] = ()


@dataclass(frozen=True)
class Told:
    """What one look at an agent tells of the account that its launch runs on."""

    by: str
    """The agent."""
    fault: Fault | None = None
    """What its client's last turn failed at, while nothing succeeded since."""
    fault_at: float | None = None
    """When, in epoch seconds; where the client does not say, when that was first seen."""
    source: str | None = None
    """What says so: a word of `Source`."""
    working: bool = False
    """The client works nevertheless."""
    answered_at: float | None = None
    """When the model last answered in this launch, in epoch seconds."""
    usage: tuple[Usage, ...] = ()


# -- learning ----------------------------------------------------------------------------------------------


def learn(known: Known, told: Told, now: float) -> Known:
    """Return what is known of an account after a look at one of its agents.

    Args:
        known: what was known before.
        told: what was seen.
        now: epoch seconds.
    """
    known = _used(_answered(current(known, now), told, now), told.usage, now)
    return known if told.fault is None else _failed(known, told, told.fault, now)


def _answered(known: Known, told: Told, now: float) -> Known:
    """Return what is known after the model has answered: also that the login works, and no limit is left."""
    at = told.answered_at
    if at is None or (at := min(at, now)) <= _before(known.answered_at, now):
        return known
    known = replace(known, answered_at=at)
    return known if at <= _before(known.seen_at, now) else _become(known, AccountState.AVAILABLE, at, told.by)


def _failed(known: Known, told: Told, fault: Fault, now: float) -> Known:
    """Return what is known after a turn has failed: the table, from its second line on."""
    at = now if told.fault_at is None else min(told.fault_at, now)
    if fault.kind in _NOT_THE_ACCOUNTS:
        return known
    if known.source in (CHECKED, FORGOTTEN) and at <= _before(known.seen_at, now):
        return known
    if fault.kind in _LIMITS and not _stands(fault.resets_at, at, now):
        return known
    if fault.model_only and fault.kind in _LIMITS:
        # An answer since then may have been another model's.
        return _with_model(known, ModelLimit(fault.window or "model", fault.resets_at, at))
    if at < _before(known.answered_at, now):
        return known
    if fault.kind in _OVERLOADS:
        over = now - at >= OVERLOADED_SECS
        if over or known.state.exhausted or _not_newer(known, AccountState.OVERLOADED, at):
            return known
        return _become(known, AccountState.OVERLOADED, at, told.by, told.source, fault.text)
    if told.working:
        return known
    if fault.kind is FaultKind.CREDENTIALS:
        if _not_newer(known, AccountState.CREDENTIALS, at):
            return known
        return _become(known, AccountState.CREDENTIALS, at, told.by, told.source, fault.text)
    if known.state is AccountState.CREDENTIALS:
        return known
    return _limited(known, told, fault, at)


def _limited(known: Known, told: Told, fault: Fault, at: float) -> Known:
    """Return what is known after a limit of the whole account; of two, the one that holds for longer."""
    name = str(fault.kind) if fault.kind is FaultKind.CREDIT else fault.window
    new = _become(known, AccountState.LIMITED, at, told.by, told.source, fault.text)
    new = replace(new, limit_name=name, until=fault.resets_at)
    if known.state is not AccountState.LIMITED:
        return new
    newer = at > (known.seen_at or 0.0)
    if name == known.limit_name:
        if newer:
            return new if new.until is not None else replace(new, until=known.until)
        return replace(known, until=fault.resets_at) if known.until is None and at == known.seen_at else known
    longer = (new.until or 0.0) > (known.until or 0.0)
    if longer:
        return new if newer else replace(new, seen_at=known.seen_at)
    return replace(known, seen_at=at) if newer else known


def _become(
    known: Known, state: AccountState, at: float, by: str, source: str | None = None, text: str = ""
) -> Known:
    """Return what is known, with another state or newer evidence for the same one, seen at a time."""
    return replace(
        known,
        state=state,
        limit_name=None,
        until=None,
        text=text or None,
        since=known.since if known.state is state and known.since is not None else at,
        seen_at=at,
        seen_by=by,
        source=source,
    )


def _not_newer(known: Known, state: AccountState, at: float) -> bool:
    return known.state is state and at <= (known.seen_at or 0.0)


def _with_model(known: Known, limit: ModelLimit) -> Known:
    before = next((one for one in known.models if one.name == limit.name), None)
    if (
        before is not None
        and limit.seen_at <= before.seen_at
        and (before.until is not None or limit.until is None)
    ):
        return known
    if before is not None and limit.until is None:
        limit = replace(limit, until=before.until)
    others = [one for one in known.models if one.name != limit.name]
    return replace(known, models=tuple(sorted([*others, limit], key=lambda one: one.name)))


def _used(known: Known, said: Iterable[Usage], now: float) -> Known:
    """Return what is known with the newest word about each window."""
    windows = {one.window: one for one in known.usage}
    for usage in said:
        new = usage if usage.at <= now else replace(usage, at=now)
        before = windows.get(new.window)
        if _counts(new, now) and (before is None or new.at > before.at):
            windows[new.window] = new
    found = tuple(windows[name] for name in sorted(windows))
    return known if found == known.usage else replace(known, usage=found)


# -- what ends what is known -------------------------------------------------------------------------------


def current(known: Known, now: float) -> Known:
    """Return what is known without what time has ended: limits that were reset, windows that began anew.

    Args:
        known: what was known.
        now: epoch seconds.
    """
    models = tuple(one for one in known.models if _stands(one.until, one.seen_at, now))
    usage = tuple(one for one in known.usage if _counts(one, now))
    if (models, usage) != (known.models, known.usage):
        known = replace(known, models=models, usage=usage)
    at = known.seen_at or 0.0
    if known.state is AccountState.LIMITED and not _stands(known.until, at, now):
        what = f"the limit{f' ({known.limit_name})' if known.limit_name else ''}"
        if known.until is not None:
            return _over(known, f"{what} was to reset at {_utc(known.until)}", known.until)
        hours = f"{UNKNOWN_RESET_SECS / 3600:g} h"
        return _over(known, f"{what}, of which no reset is known, was said more than {hours} ago", now)
    if known.state is AccountState.OVERLOADED and not 0.0 <= now - at < OVERLOADED_SECS:
        return _over(known, f"it was overloaded at {_utc(at)}", at + OVERLOADED_SECS)
    return known


def _over(known: Known, why: str, since: float) -> Known:
    return replace(known, state=AccountState.UNKNOWN, limit_name=None, until=None, text=why, since=since)


def cleared(known: Known, source: str, why: str, who: str | None, now: float) -> Known:
    """Return what is known once a check, or a person, says that what was known does not hold any more.

    Args:
        known: what was known.
        source: `CHECKED` or `FORGOTTEN`; limits of models and usage are forgotten by the latter only.
        why: what says so.
        who: who asked for it.
        now: epoch seconds; what clients have said before does not come back.
    """
    cleared = replace(_over(known, why, now), seen_at=now, seen_by=who, source=source)
    return replace(cleared, models=(), usage=()) if source == FORGOTTEN else cleared


def _stands(until: float | None, seen_at: float, now: float) -> bool:
    if until is not None:
        return until > now
    return 0.0 <= now - seen_at < UNKNOWN_RESET_SECS


def _counts(usage: Usage, now: float) -> bool:
    return _stands(usage.resets_at, usage.at, now)


def _before(at: float | None, now: float) -> float:
    """Return a time to compare with; what never was, or is to come, comes before everything."""
    return at if at is not None and at <= now else -math.inf


# -- what follows from it ----------------------------------------------------------------------------------


def exhausted(known: Known, now: float) -> bool:
    """Say whether nothing can be done on an account, at a time in epoch seconds."""
    return current(known, now).state.exhausted


def headroom(known: Known, now: float) -> float | None:
    """Return which part of an account's tightest window is left, from 0 to 1; None: that is unknown.

    Args:
        known: what is known of it.
        now: epoch seconds.
    """
    known = current(known, now)
    if known.state is AccountState.LIMITED:
        return 0.0
    if not known.usage:
        return None
    return min(1.0, max(0.0, 1.0 - max(one.used for one in known.usage)))


def _utc(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"
