"""Which accounts can do something for an agent, and what the gate says of one that can do nothing.

The evidence is collected here; where an agent goes on is decided by `policy.account_choice`. What is done
about agents that are up or held is for `limit_verdicts`: here nothing is ended, and nobody is moved but who
is about to be launched.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.policy import account_choice, failover
from circus_failover.policy.account_choice import Candidate, Choice, Need
from circus_failover.policy.accounts import Known
from circus_failover.policy.bringup import Hindrance
from circus_failover.store import StoreError
from circus_failover.switch_checks import account_now, next_account
from circus_failover.words import AccountState, Cause, IntentAction, Mode, OnLimit, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

_LOOKED_UP = 50
"""How many launches back it is looked where an agent was before."""


@dataclass(frozen=True)
class Census:
    """Who is on which account, and which work waits: looked up once for many agents."""

    places: dict[str, str] = field(default_factory=dict)
    """The account that each agent is up on, or on its way to."""
    counts: Counter[str] = field(default_factory=Counter)
    pools: frozenset[str] = frozenset()
    """Pools in which an assignment waits for an owner."""
    named: frozenset[str] = frozenset()
    """Agents for whom one waits by name."""


def census(held: Supervisor) -> Census:
    """Return who is on which account now, and which work waits."""
    found = {agent.identity: _place(agent) for agent in held.roster.agents.values()}
    places = {identity: account for identity, account in found.items() if account is not None}
    jobs = held.assignments.records.book.jobs()
    return Census(
        places,
        Counter(places.values()),
        frozenset(job.pool for job in jobs if job.wanted is None and job.pool is not None),
        frozenset(job.wanted for job in jobs if job.wanted is not None),
    )


# -- which account ---------------------------------------------------------------------------------------


def choose(
    held: Supervisor,
    agent: Agent,
    *,
    failing: bool = False,
    failing_until: float | None = None,
    headroom: bool = False,
    launch: bool = False,
    seen: Census | None = None,
) -> Choice:
    """Return on which account an agent would go on now, and what is with every other one.

    Args:
        held: the supervisor.
        agent: whom; its settings can be used.
        failing: its own client says that nothing can be done on its account.
        failing_until: when that resets, as it says, in epoch seconds.
        headroom: it moves only for more headroom.
        launch: what counts is where its next launch would be, not where it is up now.
        seen: who is on which account; None: that is looked up.
    """
    settings, current = agent.settings, next_account(agent) if launch else account_now(agent)
    if settings is None:
        return Choice(None, "its settings cannot be used")
    need = Need(settings.runtime, current, failing, failing_until, headroom)
    candidates = {one.name: one for one in _candidates(held, agent, seen or census(held))}
    looked_at: set[str] = set()
    while True:
        choice = account_choice.choose(need, list(candidates.values()), time.time())
        name = choice.account
        if name is None or name == current or name in looked_at:
            return choice
        # The home of an account is looked at only where it would be chosen: that reads files.
        looked_at.add(name)
        candidates[name] = replace(candidates[name], hindrance=_wrong_with(held, agent, name))


def _candidates(held: Supervisor, agent: Agent, seen: Census) -> list[Candidate]:
    assert agent.settings is not None
    left, mine = _left(held, agent), seen.places.get(agent.identity)
    found = []
    for account in agent.settings.settings.accounts:
        times = left.get(account.name, [])
        known = held.accounts.known(account.name)
        if known.runtime not in ("", account.runtime):
            known = Known(account.name, account.runtime)
        found.append(
            Candidate(
                name=account.name,
                runtime=account.runtime,
                state=known.state,
                limit_name=known.limit_name,
                until=known.until,
                since=known.since if known.state is AccountState.UNKNOWN else None,
                agents=seen.counts[account.name] - (mine == account.name),
                max_agents=account.max_agents,
                headroom=held.accounts.headroom(account.name),
                used_at=known.used_at,
                answered_at=known.answered_at,
                left_at=times[0] if times else None,
                left_before=times[1] if len(times) > 1 else None,
            )
        )
    return found


def _wrong_with(held: Supervisor, agent: Agent, name: str) -> str:
    """Return why an agent could not be launched on an account; empty when it could."""
    try:
        return "; ".join(held.switches.check(agent, name, force=True))
    except Exception as error:
        logger.exception("circus-failover: account %s could not be looked at", name)
        return f"it could not be looked at: {type(error).__name__}: {error}"


def _left(held: Supervisor, agent: Agent) -> dict[str, list[float]]:
    """Return when an agent has left each account for another one, the last time first, in epoch seconds."""
    left: dict[str, list[float]] = {}
    then = account_now(agent)
    for launch in held.store.launches(agent.identity, _LOOKED_UP) if held.store is not None else ():
        if launch.account is not None and launch.account != then and launch.ended_at is not None:
            left.setdefault(launch.account, []).append(launch.ended_at)
        then = launch.account
    return left


def _place(agent: Agent) -> str | None:
    """Return the account that an agent is up on, or is on its way to; None: it is on none."""
    action, row = agent.action, agent.row
    if action is not None and action.intent == str(IntentAction.SWITCH):
        return str(action.spec.get("to"))
    if row.switching is not None:
        return next_account(agent)
    return row.account if agent.phase in LIVE_PHASES else None


# -- the gate --------------------------------------------------------------------------------------------


def hindrance(held: Supervisor, agent: Agent) -> Hindrance | None:
    """Return why the gate refuses a launch because of its account, or None.

    One that is moved right before its launch is not refused, nor one that is on its way.
    """
    settings, account = agent.settings, next_account(agent)
    if settings is None or account is None or not _judged(held, agent):
        return None
    found = choose(held, agent, launch=True)
    if settings.on_limit is OnLimit.SWITCH and found.account is not None:
        return None
    reason = found.reason
    if settings.on_limit is OnLimit.WAIT:
        reason = f"account {account} is exhausted, and failover.on_limit is wait: {_own(found, account)}"
    return Hindrance(Cause.LIMITED, held_reason(held, agent, reason, found))


def choice(held: Supervisor, agent: Agent) -> Choice | None:
    """Return where an agent is moved right before its launch, and why; None: it is not moved."""
    settings = agent.settings
    if settings is None or settings.on_limit is not OnLimit.SWITCH or not _judged(held, agent):
        return None
    found = choose(held, agent, launch=True)
    return found if found.account not in (None, next_account(agent)) else None


def moves(held: Supervisor, agent: Agent) -> bool:
    """Say whether an agent is moved to another account right before its launch."""
    return choice(held, agent) is not None


def before_launch(held: Supervisor, agent: Agent) -> bool:
    """Move an agent to another account right before its launch, where its own can do nothing for it.

    Args:
        held: the supervisor.
        agent: whom; it is about to be launched, and nothing of it runs.

    Returns:
        Whether it was moved: its settings are those of the other account now.
    """
    found = choice(held, agent)
    if found is None or found.account is None:
        return False
    try:
        held.switches.before_launch(agent, found.account, found.reason)
    except StoreError as error:
        # Without the store there is no launch either.
        logger.error("circus-failover: %s is not moved: %s", agent.identity, error)
        return False
    return True


def _judged(held: Supervisor, agent: Agent) -> bool:
    """Say whether it matters to an agent's next launch that its account is exhausted, which it is."""
    settings = agent.settings
    if settings is None or settings.mode is Mode.OBSERVE or agent.row.switching is not None:
        return False
    if settings.on_limit in (OnLimit.PARK, OnLimit.NOTIFY):
        return False
    return held.accounts.exhausted(next_account(agent))


def refused(held: Supervisor, agent: Agent) -> dict[str, Any]:
    """Return the columns of an agent that the gate has refused because of its account: it is held."""
    account, settings, now = next_account(agent), agent.settings, time.time()
    reset = held.accounts.known(account).until if account is not None else None
    if settings is not None and settings.on_limit is OnLimit.SWITCH:
        reset = choose(held, agent, launch=True).earliest
    return {
        "phase": Phase.HELD,
        "limited_until": failover.held_until(agent.identity, reset, now),
        # What the launch was to be is kept for when it comes.
        "pending": agent.row.pending,
    }


def _own(choice: Choice, account: str) -> str:
    return next((one.why for one in choice.considered if one.name == account), "it cannot be used")


def held_reason(held: Supervisor, agent: Agent, reason: str, found: Choice | None = None) -> str:
    """Return why an agent is held, with what a person can do about it.

    Args:
        held: the supervisor.
        agent: whom.
        reason: why, in words.
        found: where it would go on, if that was looked for.
    """
    account = next_account(agent) if agent.phase not in LIVE_PHASES else account_now(agent)
    settings = agent.settings
    if account is None or settings is None:
        return reason
    remedies = []
    if found is not None and found.account not in (None, account):
        remedies.append(f"`failoverctl switch {agent.identity} --to {found.account}` moves it")
    if held.accounts.known(account).state is AccountState.CREDENTIALS:
        remedies.append(f"log in there, then `failoverctl accounts check {account}`")
    else:
        remedies.append(f"`failoverctl accounts forget {account}` forgets a limit that is none")
    return f"{reason}; it goes on by itself when one can be used. {'; '.join(remedies)}"


# -- what others may expect ------------------------------------------------------------------------------


def elsewhere(held: Supervisor, agent: Agent) -> bool:
    """Say whether an agent that is launched would go to another account; its home is not looked at here."""
    settings, account = agent.settings, next_account(agent)
    if settings is None or account is None or settings.on_limit is not OnLimit.SWITCH:
        return False
    return any(
        one.runtime == settings.runtime and one.name != account and not held.accounts.exhausted(one.name)
        for one in settings.settings.accounts
    )


def blocked(held: Supervisor, agent: Agent) -> bool:
    """Say whether it is of no use to start an agent: it would be held, or parked at once, for its account.

    Its home and those of other accounts are not looked at here.
    """
    settings, account = agent.settings, next_account(agent)
    if settings is None or settings.on_limit is OnLimit.NOTIFY:
        return False
    return held.accounts.exhausted(account) and not elsewhere(held, agent)


def out(held: Supervisor, agent: Agent, account: str | None) -> bool:
    """Say whether no work is given to an agent because of its account.

    One that is not up and that a launch would move may be started for work.

    Args:
        held: the supervisor.
        agent: whom.
        account: the one that it is on.
    """
    if not held.accounts.exhausted(account):
        return False
    return agent.phase in LIVE_PHASES or not elsewhere(held, agent)
