"""What an agent that is up does, decided from signs: statements of its client, each with a source and a time.

Pure: a runtime collects the signs (`agents.runtime.Runtime.look`), this weighs them. Two questions come
first.

What do the signs say of its state? The most trusted source that says anything does. A less trusted one does
where it contradicts and is newer, both times known, but never against a status file. Of one source the newest
sign counts. A sign older than the launch says nothing of it; a state without a time is that of now.

Which fault stands? The newest with a time, completed by what other sources say of the same event; else what
the screen shows: only there a fault without a time counts. Then the first line that applies:

| fault | its state otherwise | state | fault shown |
|---|---|---|---|
| none | cannot be told | unknown | no |
| none | any | that | no |
| any, answered since | any | that | no |
| any, a newer turn works | working | working | no |
| usage limit or credit, its reset has passed | any | that | no |
| any, the client works | working | working | yes |
| usage limit or credit | any other | limited | yes |
| credentials | any other | waiting | yes |
| any other, retrying | cannot be told, or an older or less trusted one | working | yes |
| any other | cannot be told | idle | yes |
| any other | any other | that | yes |

A fault that is not being retried ends a turn: a state `working` that is older is not told any more, except by
a status file. `idle` says that nothing goes on, not that all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from circus_failover.words import FaultKind, Source, State

SAME_EVENT_SECS = 60.0
"""How far apart the times may be that two sources give for one fault."""

_STATES = (State.WORKING, State.WAITING, State.IDLE)
"""What a sign may say; of two at the same time the first counts."""
_LIMITS = (FaultKind.USAGE_LIMIT, FaultKind.CREDIT)


@dataclass(frozen=True)
class Fault:
    """What kept a client from an answer."""

    kind: FaultKind
    text: str = ""
    """The client's own words, on one line."""
    window: str | None = None
    """Of a limit: `5-hour`, `weekly`, `opus`, ...; None: it does not say."""
    resets_at: float | None = None
    """Epoch seconds; None: unknown, which is not now."""
    model_only: bool = False
    """The limit is one model's, not the account's."""
    retrying: bool = False
    """The client tries again by itself."""


@dataclass(frozen=True)
class Sign:
    """One statement about what an agent does."""

    source: Source
    at: float | None
    """Epoch seconds since when it says so; None: that cannot be told."""
    state: State | None = None
    """`idle`, `working` or `waiting`; None: it tells only how the last turn went."""
    what: str = ""
    """What is worked at or waited for."""
    fault: Fault | None = None
    """How the last turn failed."""
    answered: bool = False
    """The model has answered at this time, so a fault before it is over."""


@dataclass(frozen=True)
class Health:
    """What an agent does, and what says so."""

    state: State
    source: Source | None = None
    at: float | None = None
    """Epoch seconds since when the evidence says so; None: that cannot be told."""
    what: str = ""
    """What it works at or waits for."""
    fault: Fault | None = None
    """What its last turn failed at, while nothing succeeded since."""
    evidence: str = ""


@dataclass(frozen=True)
class _Failed:
    """A fault that stands, and who says so since when."""

    fault: Fault
    source: Source
    at: float | None


def decide(signs: Sequence[Sign], launched_at: float, now: float) -> Health:
    """Return what an agent does.

    Args:
        signs: what was seen, in any order.
        launched_at: epoch seconds; a sign that is older says nothing about this launch.
        now: epoch seconds.
    """
    fresh = [sign for sign in signs if sign.at is None or sign.at >= launched_at]
    told = _told(fresh, now)
    failed = _standing(fresh, told, now)
    if failed is None:
        return _as_told(told, now)
    if _passed(failed.fault, now):
        health = _as_told(told, now)
        return replace(health, evidence=f"{health.evidence}; {_fault_words(failed, now)}")
    fault = failed.fault
    if told is not None and _ended_by(failed, told):
        told = None
    shown = replace(_as_told(told, now), fault=fault)
    evidence = "; ".join(words for words in (_state_words(told, now), _fault_words(failed, now)) if words)
    instead = Health(State.UNKNOWN, failed.source, failed.at, fault=fault, evidence=evidence)
    if told is not None and told.state is State.WORKING:
        return replace(shown, evidence=evidence)
    if fault.kind in _LIMITS:
        return replace(instead, state=State.LIMITED, what="" if told is None else told.what)
    if fault.kind is FaultKind.CREDENTIALS:
        return replace(instead, state=State.WAITING, what="login")
    if fault.retrying and (told is None or _outweighs(failed, told)):
        return replace(instead, state=State.WORKING)
    if told is None:
        return replace(instead, state=State.IDLE)
    return replace(shown, evidence=evidence)


def _told(fresh: Iterable[Sign], now: float) -> Sign | None:
    """Return the sign that says what the state is, or None when none does."""
    newest: dict[Source, Sign] = {}
    for sign in fresh:
        if sign.state in _STATES:
            other = newest.get(sign.source)
            if other is None or _newness(sign, now) > _newness(other, now):
                newest[sign.source] = sign
    best: Sign | None = None
    for sign in (newest[source] for source in Source if source in newest):
        if best is None or (
            best.source is not Source.STATUS_FILE
            and sign.state is not best.state
            and _later(sign.at, best.at)
        ):
            best = sign
    return best


def _newness(sign: Sign, now: float) -> tuple[float, int, bool, str]:
    """Return what sorts the signs of a source from the oldest to the newest, the same in any order."""
    likely = -_STATES.index(sign.state) if sign.state in _STATES else 0
    return now if sign.at is None else sign.at, likely, sign.at is None, sign.what


def _later(one: float | None, other: float | None) -> bool:
    """Say whether one time is known to be after another."""
    return one is not None and other is not None and one > other


def _standing(fresh: Sequence[Sign], told: Sign | None, now: float) -> _Failed | None:
    """Return the fault that nothing has ended, also one whose reset has passed."""
    answers = [sign.at for sign in fresh if sign.answered]
    faults = [_Failed(sign.fault, sign.source, sign.at) for sign in fresh if sign.fault is not None]
    timed = [
        each for each in faults if each.at is not None and not any(_later(at, each.at) for at in answers)
    ]
    timed.sort(key=_weight, reverse=True)
    seen = sorted((each for each in faults if each.at is None and each.source is Source.SCREEN), key=_weight)
    if timed and not _new_turn(timed[0], told):
        whole = _completed(timed, seen)
        # Words about a limit that is over are left on the screen; of anything else they are news.
        news = [each for each in seen if each.fault.kind is not whole.fault.kind]
        return news[-1] if news and _passed(whole.fault, now) else whole
    return seen[-1] if seen else None


def _weight(failed: _Failed) -> tuple[float, int, str]:
    return failed.at or 0.0, -failed.source.rank, repr(failed.fault)


def _new_turn(failed: _Failed, told: Sign | None) -> bool:
    """Say whether a turn is under way that began after a fault."""
    return told is not None and told.state is State.WORKING and _later(told.at, failed.at)


def _completed(timed: Sequence[_Failed], seen: Sequence[_Failed]) -> _Failed:
    """Return the newest fault, with what it does not say itself from others of the same event."""
    whole = timed[0]
    assert whole.at is not None
    fault = whole.fault
    for other in (*timed[1:], *reversed(seen)):
        same = other.fault.kind is fault.kind
        if not same or (other.at is not None and whole.at - other.at > SAME_EVENT_SECS):
            continue
        if fault.window not in (None, other.fault.window) and other.fault.window is not None:
            continue
        fault = replace(
            fault,
            text=fault.text or other.fault.text,
            window=fault.window or other.fault.window,
            resets_at=other.fault.resets_at if fault.resets_at is None else fault.resets_at,
            model_only=fault.model_only or other.fault.model_only,
        )
    return replace(whole, fault=fault)


def _passed(fault: Fault, now: float) -> bool:
    return fault.kind in _LIMITS and fault.resets_at is not None and fault.resets_at <= now


def _ended_by(failed: _Failed, told: Sign) -> bool:
    """Say whether a fault ended the turn that a sign says is under way."""
    works = told.state is State.WORKING and told.source is not Source.STATUS_FILE
    return works and not failed.fault.retrying and _later(failed.at, told.at)


def _outweighs(failed: _Failed, told: Sign) -> bool:
    """Say whether a fault that is being retried says more than a sign that nothing goes on."""
    if told.source is Source.STATUS_FILE:
        return False
    return failed.source.rank < told.source.rank or _later(failed.at, told.at)


def _as_told(told: Sign | None, now: float) -> Health:
    if told is None or told.state is None:
        return Health(State.UNKNOWN, evidence="nothing tells what it does")
    return Health(told.state, told.source, told.at, told.what, evidence=_state_words(told, now))


def _state_words(told: Sign | None, now: float) -> str:
    if told is None:
        return ""
    what = f" ({told.what})" if told.what else ""
    since = "" if told.at is None else f" for {max(0.0, now - told.at):.0f} s"
    return f"{told.source}: {told.state}{what}{since}"


def _fault_words(failed: _Failed, now: float) -> str:
    fault = failed.fault
    words = f"{failed.source}: {fault.kind}" + (f" ({fault.window})" if fault.window else "")
    if fault.resets_at is not None:
        words += f", {'was to reset' if _passed(fault, now) else 'resets'} {_utc(fault.resets_at)}"
    elif fault.kind is FaultKind.USAGE_LIMIT:
        words += ", reset unknown"
    return words + (", retrying" if fault.retrying else "")


def _utc(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"
