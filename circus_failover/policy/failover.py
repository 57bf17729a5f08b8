"""What happens to an agent whose account can do nothing for it, and to one whose account is nearly used up.

The table, and nothing else; the first match wins. Hindered is an agent that is limited itself, or not logged
in, and one that is idle, with an assignment or tasks, on an account that is exhausted.

| agent | action |
|---|---|
| observed | leave |
| stopped by an operator, or an end of it is under way | leave |
| held for a limit, and without an account since then | wake |
| held for a limit; an account can be used, and its time has come or nobody waited for that one | wake |
| held for a limit, and its time has not come | leave |
| held for a limit otherwise | hold |
| not up, or without an account | leave |
| in a tmux server that does not answer, stuck, or nobody knows what it does | leave |
| limited, by a limit of one model | leave |
| working, or waiting for a person, but for a login | leave |
| hindered, `notify` | tell |
| hindered, `park` | park |
| hindered, `switch`, and another account can be used | switch |
| hindered itself, and something can be done on its account: others have an answer | tell |
| hindered otherwise | hold |
| idle, its account is exhausted, work waits in its pool, `switch`, another account can be used | switch |
| its account is exhausted | leave |
| idle without work, nobody looks at it, `switch_at` is reached, another account has 10 points more | switch |
| any other | leave |

A hold lasts until the reset of its account, with `switch` until the earliest of all, and 1 to 5 s more, since
clocks differ; 30 min where no reset is known, and then it is looked at again. Agents that are held are woken
one after another: that is the plugin's. Nobody is moved in the middle of a turn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from circus_failover.policy.account_choice import Choice, utc
from circus_failover.words import OnLimit, Phase, State, Word

UNKNOWN_RESET_SECS = 1800.0
"""For how long an agent is held before it is looked at again, where nobody knows of a reset."""
SLACK_SECS = 1.0
"""How far the clocks of two hosts may be apart."""
JITTER_SECS = 4.0


class LimitAction(Word):
    """What is asked of circusd."""

    LEAVE = "leave"
    SWITCH = "switch"
    """It goes on in the same conversation on another account."""
    HOLD = "hold"
    """It is ended and held until a reset; one that is held already is held for longer."""
    PARK = "park"
    WAKE = "wake"
    TELL = "tell"
    """Nothing is done, and it is said."""


@dataclass(frozen=True)
class Situation:
    """An agent, and everything the decision depends on; times in epoch seconds."""

    identity: str
    phase: Phase
    account: str | None
    """The one that its launch runs on; of one that is not up, the one it will be launched on."""
    on_limit: OnLimit
    choice: Choice
    """On which account it would go on now."""
    observed: bool = False
    stay_stopped: bool = False
    ending: bool = False
    """An end of it is under way."""
    held_for_limit: bool = False
    """It is held, and for nothing but a limit."""
    limited_until: float | None = None
    waited_for: bool = False
    """The account it would go on on was reset just now, and nobody knows whether that is so."""
    state: State | None = None
    """What it does; None: it is not up."""
    failing: bool = False
    """Its own client says that it is limited, or not logged in."""
    model_only: bool = False
    """That limit is one model's."""
    exhausted: bool = False
    """Nothing can be done on its account, whoever has found that."""
    until: float | None = None
    """When its account resets; None: unknown, or it need not."""
    work: bool = False
    """It has an assignment, or tasks wait for it."""
    pool_work: bool = False
    """Work waits that it could be given."""
    attached: bool = False
    """Somebody looks at it, or that cannot be told."""
    switch_at: int = 0
    """Per cent; 0: never."""
    used: float | None = None
    """How much of its account's tightest window is used, from 0; None: unknown."""
    better: Choice | None = None
    """Where it would go for more headroom; None: that was not looked for."""


@dataclass(frozen=True)
class LimitVerdict:
    """What is done about an agent, and why."""

    action: LimitAction
    reason: str
    to: str | None = None
    """The account that it goes on on."""
    until: float | None = None
    """Until when it is held, in epoch seconds."""
    choice: Choice | None = field(default=None, compare=False)
    """What was found of each account."""


def decide(one: Situation, now: float) -> LimitVerdict:
    """Return what happens to an agent.

    Args:
        one: the agent.
        now: epoch seconds.
    """
    if one.observed or one.phase is Phase.OBSERVED:
        return _leave("observed: watched and shown only")
    if one.stay_stopped or one.phase is Phase.STOPPED:
        return _leave("an operator stopped it")
    if one.ending or one.phase is Phase.STOPPING:
        return _leave("an end of it is under way")
    if one.held_for_limit:
        return _held(one, now)
    if one.phase is not Phase.UP:
        return _leave(f"it is {one.phase}")
    if one.account is None:
        return _leave("no account of it is known")
    if one.state in (None, State.WEDGED, State.UNKNOWN, State.STUCK):
        return _leave(f"it is {one.state or State.UNKNOWN}")
    if one.failing and one.model_only:
        return _leave("the limit is one model's, and not its account's")
    if one.state is State.WORKING or (one.state is State.WAITING and not one.failing):
        return _leave(f"it is {one.state}")
    if one.failing or (one.exhausted and one.work):
        return _hindered(one, now)
    if one.exhausted:
        return _idle_on_exhausted(one)
    return _before_the_wall(one)


def held_until(identity: str, reset: float | None, now: float) -> float:
    """Return until when an agent is held that is held now, in epoch seconds.

    Args:
        identity: whom.
        reset: when the first account resets that it may go on on; None: nobody knows.
        now: epoch seconds.
    """
    if reset is None:
        return now + UNKNOWN_RESET_SECS
    # The same in every process: a string seeds by SHA-512, not by hash() (CPython 3.2+).
    jitter = random.Random(f"{identity}:{reset:.0f}").random() * JITTER_SECS
    return max(reset, now) + SLACK_SECS + jitter


def _held(one: Situation, now: float) -> LimitVerdict:
    if one.account is None:
        return LimitVerdict(LimitAction.WAKE, "its section names no account any more: nothing limits it")
    due = one.limited_until is None or one.limited_until <= now
    switches = one.on_limit is OnLimit.SWITCH
    usable = one.choice.account if switches else None if one.exhausted else one.account
    if usable is not None and (due or not one.waited_for):
        why = one.choice.reason if switches else f"account {usable} can be used again"
        return LimitVerdict(LimitAction.WAKE, why, to=usable, choice=one.choice)
    if not due:
        return _leave(f"held until {utc(one.limited_until or now)}", one.choice)
    return _hold(one, now)


def _hindered(one: Situation, now: float) -> LimitVerdict:
    what = f"account {one.account} is exhausted"
    if one.failing:
        what = f"its client can do nothing on account {one.account}"
    if one.on_limit is OnLimit.NOTIFY:
        return LimitVerdict(LimitAction.TELL, f"{what}; failover.on_limit is notify")
    if one.on_limit is OnLimit.PARK:
        return LimitVerdict(LimitAction.PARK, what)
    if one.on_limit is OnLimit.SWITCH and _elsewhere(one):
        return _switch(one, what, one.choice)
    if not one.exhausted:
        return LimitVerdict(LimitAction.TELL, f"{what}, and others can; nobody moves it", choice=one.choice)
    return _hold(one, now)


def _hold(one: Situation, now: float) -> LimitVerdict:
    reason, reset = f"account {one.account} is exhausted", one.until
    if one.on_limit is OnLimit.SWITCH:
        reason, reset = one.choice.reason, one.choice.earliest
    until = held_until(one.identity, reset, now)
    return LimitVerdict(LimitAction.HOLD, reason, until=until, choice=one.choice)


def _idle_on_exhausted(one: Situation) -> LimitVerdict:
    what = f"account {one.account} is exhausted, and it has no work"
    if one.pool_work and one.on_limit is OnLimit.SWITCH and _elsewhere(one):
        return _switch(one, f"account {one.account} is exhausted, and work waits", one.choice)
    return _leave(what, one.choice)


def _before_the_wall(one: Situation) -> LimitVerdict:
    if one.switch_at <= 0:
        return _leave("nothing is wrong with its account")
    used = "unknown" if one.used is None else f"{one.used * 100:.0f} %"
    what = f"{used} of account {one.account} used, failover.switch_at is {one.switch_at} %"
    if one.used is None or one.used * 100 < one.switch_at - 1e-9:
        return _leave(what)
    if one.work:
        return _leave(f"{what}; it has work")
    if one.attached:
        return _leave(f"{what}; somebody looks at it, or that cannot be told")
    if one.better is None or one.better.account in (None, one.account):
        return _leave(f"{what}; {one.better.reason if one.better is not None else 'no other was looked for'}")
    return _switch(one, what, one.better)


def _elsewhere(one: Situation) -> bool:
    return one.choice.account not in (None, one.account)


def _switch(one: Situation, what: str, choice: Choice) -> LimitVerdict:
    return LimitVerdict(LimitAction.SWITCH, f"{what}; {choice.reason}", to=choice.account, choice=choice)


def _leave(reason: str, choice: Choice | None = None) -> LimitVerdict:
    return LimitVerdict(LimitAction.LEAVE, reason, choice=choice)
