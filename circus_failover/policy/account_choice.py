"""On which account an agent goes on: the tables, and nothing else.

What an account is to one agent; the first match wins:

| account | it is |
|---|---|
| of another runtime | out |
| not logged in | out |
| limited | out until its reset |
| kept from working by its home, its `env_file` or the gate | out |
| the current one, and it is limited there itself | out until its reset |
| the current one | current |
| `max_agents` are up on it | out |
| it left it less than 300 s ago, and nothing has said since that it can be used | out until then |
| more headroom is looked for, and it has less than 10 points more than the current one | out |
| any other | free |

What is chosen; the first match wins:

| accounts | chosen |
|---|---|
| one is current, and no more headroom is looked for | that |
| one is free | the best of them |
| one is current | that |
| otherwise | none |

The best has the most headroom (unknown counts as a half), then the fewest agents up on it, then it was used
the longest ago, then by name. So an agent stays where nothing is wrong, and does not go back and forth: it
leaves an account that can be used only for 10 points more, and does not return to one within 300 s. That it
can be used says its reset, a check, a person's `forget`, or an answer that another agent got there; an answer
not a second time within 600 s: what this agent meets there may be a limit of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from circus_failover.words import AccountState, Word

MARGIN = 0.10
"""How much more headroom is worth a move that nothing else asks for."""
LEFT_SECS = 300.0
"""For how long an agent does not return to an account that it has left."""
TWICE_SECS = 600.0
"""Within so long it returns but once because others have an answer there."""
UNKNOWN_HEADROOM = 0.5


class Place(Word):
    """What an account is to an agent."""

    CURRENT = "current"
    """It is on it, and nothing is wrong with it."""
    FREE = "free"
    OUT = "out"


@dataclass(frozen=True)
class Candidate:
    """An account, and everything the choice depends on; times in epoch seconds."""

    name: str
    runtime: str
    state: AccountState = AccountState.UNKNOWN
    limit_name: str | None = None
    until: float | None = None
    """When its limit resets; None: unknown, or there is none."""
    since: float | None = None
    """Since when it is no longer known to be exhausted: its reset, a check, or that a person said so."""
    hindrance: str = ""
    """Why a launch there would be refused, in a sentence; empty when it would not."""
    agents: int = 0
    """How many agents are up on it, or on their way there; the one that is judged is none of them."""
    max_agents: int | None = None
    headroom: float | None = None
    """Which part of its tightest window is left, from 0 to 1; None: unknown."""
    used_at: float | None = None
    """When an agent was last launched on it."""
    answered_at: float | None = None
    """When the model last answered on it."""
    left_at: float | None = None
    """When this agent left it for another one; None: it never did."""
    left_before: float | None = None
    """When it left it the time before that."""


@dataclass(frozen=True)
class Need:
    """Whose account is looked for, and what for."""

    runtime: str
    current: str | None
    """The account that it is on; None: none of these."""
    failing: bool = False
    """Its own client says that it is limited, or not logged in, whatever is known of its account."""
    failing_until: float | None = None
    """When that resets, as its client says; None: unknown."""
    headroom: bool = False
    """Nothing is wrong: it moves only for more headroom."""


@dataclass(frozen=True)
class Considered:
    """What was found of one account."""

    name: str
    place: Place
    why: str
    """In words that follow `NAME: `."""
    until: float | None = None
    """When it may be looked at again, in epoch seconds, where that is known."""


@dataclass(frozen=True)
class Choice:
    """The account that an agent goes on on, and why."""

    account: str | None
    reason: str
    considered: tuple[Considered, ...] = ()
    """Every account of its runtime."""
    earliest: float | None = None
    """When the first one that is out may be used again, in epoch seconds; None: nobody knows."""

    def others(self, current: str | None) -> str:
        """Return in words what is with every account but the current one; empty when there is none."""
        return "; ".join(f"{one.name}: {one.why}" for one in self.considered if one.name != current)


def choose(need: Need, candidates: Sequence[Candidate], now: float) -> Choice:
    """Return on which account an agent goes on.

    Args:
        need: whose, and what for.
        candidates: the accounts there are, in any order.
        now: epoch seconds.
    """
    here = next((one for one in candidates if one.name == need.current), None)
    found = [(one, _consider(need, one, here, now)) for one in sorted(candidates, key=lambda one: one.name)]
    considered = tuple(what for one, what in found if one.runtime == need.runtime)
    current = next((what for what in considered if what.place is Place.CURRENT), None)
    if current is not None and not need.headroom:
        return Choice(current.name, f"it is on {current.name}, and nothing is wrong with it", considered)
    free = [one for one, what in found if what.place is Place.FREE]
    if free:
        best = min(free, key=_rank)
        return Choice(best.name, f"{best.name}: {_better(best, free)}", considered)
    if current is not None:
        reason = f"it is on {current.name}, and no other has {MARGIN * 100:.0f} points more headroom"
        return Choice(current.name, reason, considered)
    times = [what.until for what in considered if what.until is not None]
    told = "; ".join(f"{what.name}: {what.why}" for what in considered)
    reason = f"no account of the runtime {need.runtime} can be used: {told or 'there is none'}"
    return Choice(None, reason, considered, min(times, default=None))


def _consider(need: Need, one: Candidate, here: Candidate | None, now: float) -> Considered:
    """Return what an account is to an agent: the first table."""
    if one.runtime != need.runtime:
        return Considered(one.name, Place.OUT, f"its runtime is {one.runtime}")
    if one.state is AccountState.CREDENTIALS:
        return Considered(one.name, Place.OUT, "not logged in")
    if one.state is AccountState.LIMITED:
        which = f" ({one.limit_name})" if one.limit_name else ""
        return Considered(one.name, Place.OUT, f"limited{which}, {_resets(one.until)}", one.until)
    if one.hindrance:
        return Considered(one.name, Place.OUT, one.hindrance)
    if one.name == need.current:
        if need.failing:
            why = f"its own client cannot go on there, {_resets(need.failing_until)}"
            return Considered(one.name, Place.OUT, why, need.failing_until)
        return Considered(one.name, Place.CURRENT, f"it is on it; {_facts(one)}")
    if one.max_agents is not None and one.agents >= one.max_agents:
        return Considered(one.name, Place.OUT, f"full: {one.agents} of {one.max_agents} agents are up on it")
    back_at = _back_at(one, now)
    if back_at is not None:
        why = (
            f"it left it {now - (one.left_at or now):.0f} s ago, and does not return within {LEFT_SECS:.0f} s"
        )
        return Considered(one.name, Place.OUT, why, back_at)
    if need.headroom and here is not None and _headroom(one) - _headroom(here) < MARGIN - 1e-9:
        return Considered(one.name, Place.OUT, f"not {MARGIN * 100:.0f} points better; {_facts(one)}")
    return Considered(one.name, Place.FREE, _facts(one))


def _back_at(one: Candidate, now: float) -> float | None:
    """Return when an agent may return to an account that it left just now; None when it may."""
    left, before = one.left_at, one.left_before
    # A time to come is that of a clock that was set back since: it says nothing.
    if left is None or not 0 <= now - left < LEFT_SECS:
        return None
    if one.since is not None and one.since > left:
        return None
    answered = one.answered_at is not None and one.answered_at > left
    twice = before is not None and 0 <= now - before < TWICE_SECS
    return None if answered and not twice else left + LEFT_SECS


def _rank(one: Candidate) -> tuple[float, int, float, str]:
    used = one.used_at if one.used_at is not None else float("-inf")
    return -_headroom(one), one.agents, used, one.name


def _headroom(one: Candidate) -> float:
    return UNKNOWN_HEADROOM if one.headroom is None else one.headroom


def _better(best: Candidate, free: Iterable[Candidate]) -> str:
    """Say in words what the best account has before the next one."""
    others = sorted((one for one in free if one is not best), key=_rank)
    if not others:
        return f"the only one that can be used; {_facts(best)}"
    second, mine = _rank(others[0]), _rank(best)
    words = ("the most headroom", "the fewest agents", "used the longest ago", "the first by name")
    first = next(word for word, one, other in zip(words, mine, second, strict=True) if one != other)
    return f"{first} of {len(others) + 1}; {_facts(best)}"


def _facts(one: Candidate) -> str:
    known = "unknown" if one.headroom is None else f"{one.headroom * 100:.0f} %"
    cap = "" if one.max_agents is None else f" of {one.max_agents}"
    return f"{one.state}, headroom {known}, agents up on it: {one.agents}{cap}"


def _resets(until: float | None) -> str:
    return "reset unknown" if until is None else f"resets {utc(until)}"


def utc(at: float) -> str:
    """Return a moment in epoch seconds as text, in UTC."""
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"
