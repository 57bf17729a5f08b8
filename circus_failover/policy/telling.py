"""Which notices a target is told of, and when.

A target is told of what its filter lets through, in order. What counts is looked at from the top:

| what waits for a target | what is done |
|---|---|
| the same kind and key as was told of within 600 s | counted; once these are over it is told, as "n times" |
| longer than 24 h | dropped, and said to be |
| the last attempt failed | again after 1 s, then after twice as long each time, at most 600 s |
| less than `min_interval_secs` since the last message | waits; more than one by then are told in one digest |
| no more than `burst` messages in `burst_secs` | each in a message of its own |
| more than there is room for, with room left | all of it in one digest, at once |
| the room is used up | all of it in one digest, `digest_secs` after the first of it came |

Messages go one after another: while one is under way nothing else is begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

SAME_SECS = 600.0
"""Of the same kind and key a target is told once in so many seconds."""
GIVEN_UP_SECS = 86400.0
"""How long a notice is tried to be told."""
FIRST_RETRY_SECS = 1.0
LONGEST_RETRY_SECS = 600.0
MOST_WAITING = 200
"""How many notices wait beside a target; further ones stay in the store until there is room."""
MOST_KNOWN = 2000
"""Of how many things it is remembered that they were told of."""


@dataclass(frozen=True)
class Rules:
    """What a target is told of, and how often."""

    only: frozenset[str] = frozenset()
    """The kinds it is told of; empty: all."""
    excepted: frozenset[str] = frozenset()
    """The kinds it is not told of."""
    agents: tuple[str, ...] = ()
    """Patterns of the agents it is told of; empty: all. What is about no agent is told in any case."""
    min_interval_secs: float = 0.0
    """At least so many seconds from one message to the next."""
    digest_secs: float = 120.0
    """How long after a burst what comes is collected before it is told in one message."""
    burst: int = 6
    """So many messages in `burst_secs` are told one by one."""
    burst_secs: float = 300.0


@dataclass(frozen=True)
class Item:
    """A notice that waits for a target."""

    id: int
    at: float
    """When it happened, in epoch seconds."""
    since: float
    """Since when it waits, in epoch seconds."""
    kind: str
    identity: str | None
    key: str
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict, hash=False)
    count: int = 1
    """How often it happened since it was last told of."""

    @property
    def thing(self) -> str:
        """What nobody is told of twice within a short time."""
        return f"{self.kind} {self.key}"


@dataclass(frozen=True)
class Known:
    """Something that was told of, or waits to be."""

    at: float
    """When it last was, in epoch seconds."""
    more: int = 0
    """How often it has happened since."""
    last: Item | None = None
    """The newest of these."""


@dataclass(frozen=True)
class Progress:
    """How far a target has been told."""

    cursor: int
    """The id of the last notice that was looked at for it."""
    waiting: tuple[Item, ...] = ()
    under_way: tuple[Item, ...] = ()
    """What the message tells that is being sent."""
    sent: tuple[float, ...] = ()
    """When the last messages went out, in epoch seconds."""
    known: Mapping[str, Known] = field(default_factory=dict, hash=False)
    failures: int = 0
    """How many attempts in a row have failed."""
    not_before: float = 0.0
    """Epoch seconds before which nothing is tried again."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done for a target now."""

    message: tuple[Item, ...] = ()
    """What is to be told now, in one message."""
    digest: bool = False
    """It is told shortly, since there is much of it."""
    dropped: tuple[Item, ...] = ()
    """What is given up."""
    at: float | None = None
    """When there is something to do next, in epoch seconds; None: when a notice comes or a message ends."""


def wanted(rules: Rules, item: Item) -> bool:
    """Say whether a target is told of a notice."""
    if (rules.only and item.kind not in rules.only) or item.kind in rules.excepted:
        return False
    about = [item.identity] if item.identity else [str(name) for name in _names(item.detail)]
    if not rules.agents or not about:
        return True
    return any(fnmatchcase(name, pattern) for name in about for pattern in rules.agents)


def _names(detail: Mapping[str, Any]) -> Sequence[Any]:
    names = detail.get("agents")
    return names if isinstance(names, (list, tuple)) else ()


def take_in(rules: Rules, progress: Progress, items: Iterable[Item], now: float) -> Progress:
    """Return the progress with further notices, as far as there is room for them.

    Args:
        rules: the target's.
        progress: how far it is.
        items: the notices after the cursor, the oldest first.
        now: epoch seconds.
    """
    waiting, known, cursor = list(progress.waiting), dict(progress.known), progress.cursor
    for item in items:
        if len(waiting) >= MOST_WAITING:
            break
        cursor = item.id
        if not wanted(rules, item):
            continue
        before = known.get(item.thing)
        place = next((index for index, one in enumerate(waiting) if one.thing == item.thing), None)
        if place is not None:
            waiting[place] = replace(item, since=waiting[place].since, count=waiting[place].count + 1)
        elif before is not None and abs(item.at - before.at) < SAME_SECS:
            known[item.thing] = Known(before.at, before.more + 1, item)
        else:
            count = 1 + (before.more if before is not None else 0)
            waiting.append(replace(item, since=now, count=count))
            known[item.thing] = Known(item.at)
    # Somebody who waits for an answer again has to be told, also when nothing more happens.
    there = {item.thing for item in waiting}
    for thing, one in known.items():
        if one.last is None or abs(now - one.at) < SAME_SECS or thing in there:
            continue
        if len(waiting) < MOST_WAITING:
            waiting.append(replace(one.last, since=now, count=one.more))
            known[thing] = Known(now)
    return replace(progress, waiting=tuple(waiting), known=_remembered(known, now), cursor=cursor)


def _remembered(known: Mapping[str, Known], now: float) -> dict[str, Known]:
    """Leave out what says nothing any more."""
    kept = {thing: one for thing, one in known.items() if one.more or abs(now - one.at) < SAME_SECS}
    newest = sorted(kept, key=lambda thing: (kept[thing].more > 0, kept[thing].at))[-MOST_KNOWN:]
    return {thing: kept[thing] for thing in newest}


def decide(rules: Rules, progress: Progress, now: float) -> Verdict:
    """Return what is to be done for a target now.

    Args:
        rules: the target's.
        progress: how far it is.
        now: epoch seconds.
    """
    if progress.under_way:
        return Verdict()
    old = tuple(item for item in progress.waiting if now - item.since >= GIVEN_UP_SECS)
    if old:
        return Verdict(dropped=old, at=now)
    waiting = progress.waiting
    if not waiting:
        return Verdict()
    given_up = min(item.since for item in waiting) + GIVEN_UP_SECS
    # What lies in the future says that the clock was set back: nobody waits for that.
    if now < progress.not_before <= now + LONGEST_RETRY_SECS:
        return Verdict(at=min(progress.not_before, given_up))
    sent = sorted(at for at in progress.sent if at <= now)
    if sent and now < sent[-1] + rules.min_interval_secs:
        return Verdict(at=min(sent[-1] + rules.min_interval_secs, given_up))
    if rules.min_interval_secs and len(waiting) > 1:
        return Verdict(waiting, digest=True)
    lately = [at for at in sent if now - at < rules.burst_secs]
    room = rules.burst - len(lately)
    if room >= len(waiting):
        return Verdict(waiting[:1])
    if room > 0:
        return Verdict(waiting, digest=True)
    first = min(item.since for item in waiting)
    if not first <= now < first + rules.digest_secs:
        return Verdict(waiting, digest=len(waiting) > 1)
    return Verdict(at=min(first + rules.digest_secs, lately[-rules.burst] + rules.burst_secs, given_up))


def begun(progress: Progress, message: Sequence[Item]) -> Progress:
    """Return the progress once a message is under way."""
    ids = {item.id for item in message}
    left = tuple(item for item in progress.waiting if item.id not in ids)
    return replace(progress, waiting=left, under_way=tuple(message))


def delivered(progress: Progress, now: float) -> Progress:
    """Return the progress once the message that was under way has been taken."""
    known = dict(progress.known)
    for item in progress.under_way:
        known[item.thing] = replace(known.get(item.thing, Known(now)), at=now)
    sent = (*progress.sent, now)[-100:]
    return replace(progress, under_way=(), sent=sent, known=known, failures=0, not_before=0.0)


def failed(progress: Progress, now: float) -> Progress:
    """Return the progress once the message that was under way has not been taken: it waits again, first."""
    wait = min(FIRST_RETRY_SECS * 2.0 ** min(progress.failures, 30), LONGEST_RETRY_SECS)
    return replace(
        progress,
        waiting=(*progress.under_way, *progress.waiting),
        under_way=(),
        failures=progress.failures + 1,
        not_before=now + wait,
    )


def dropped(progress: Progress, items: Iterable[Item]) -> Progress:
    """Return the progress without what was given up."""
    ids = {item.id for item in items}
    return replace(progress, waiting=tuple(item for item in progress.waiting if item.id not in ids))
