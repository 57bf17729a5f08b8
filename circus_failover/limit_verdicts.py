"""What circusd does about agents whose account can do nothing for them, or hardly anything any more.

What is done is decided by `policy.failover`, when by a plugin, and where an agent goes on by `limits`. All is
looked at anew right before an intent is written, since a client may have gone on by itself. Agents are ended
by `endings` and moved by `switches`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circus_failover import idle_evidence, limits, tmux
from circus_failover.agent import Agent
from circus_failover.limits import Census
from circus_failover.liveness import HOOK_TIMEOUT_SECS
from circus_failover.policy import failover
from circus_failover.policy.account_choice import Choice
from circus_failover.policy.accounts import CHECKED, FORGOTTEN, Known
from circus_failover.policy.failover import LimitAction, LimitVerdict, Situation
from circus_failover.switch_checks import account_now
from circus_failover.words import (
    AccountState,
    Asked,
    Cause,
    FaultKind,
    IntentAction,
    OnLimit,
    ParkedBy,
    Phase,
    State,
    WakeAsked,
    WakeMode,
)

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

WAKE_SECS = 600.0
"""How long whoever wakes a held agent follows its launch; it goes on without."""
_UNTIL = "limited_until"
"""What the order of an end says: until when the agent is held; None: it is parked."""
_BY_LIMIT = (str(ParkedBy.LIMIT), str(ParkedBy.SWITCH))


def verdict(held: Supervisor, agent: Agent, seen: Census | None = None, *, look: bool = True) -> LimitVerdict:
    """Return what is to happen to an agent because of its account, as things are now.

    Args:
        held: the supervisor.
        agent: whom.
        seen: who is on which account; None: that is looked up.
        look: whether it is asked who is attached, where that matters: a tmux call of 0.25 s at most.
    """
    seen, now = seen or limits.census(held), time.time()
    situation = _situation(held, agent, seen, now)
    found = failover.decide(situation, now)
    free = not situation.failing and not situation.exhausted
    if look and found.action is LimitAction.SWITCH and free and _attached(agent):
        return failover.decide(replace(situation, attached=True), now)
    return found


def _situation(held: Supervisor, agent: Agent, seen: Census, now: float) -> Situation:
    settings, row, account = agent.settings, agent.row, account_now(agent)
    # Which account a session uses that somebody else has started is not known.
    foreign = agent.phase is Phase.UP and row.launch is None
    ending = agent.action is not None or row.switching is not None or agent.waking
    if settings is None or account is None or foreign:
        nothing = Choice(None, "no account of it is known")
        # Settings that cannot be used just now say nothing about its account.
        held_before = settings is not None and agent.problems is None and held_for_limit(agent)
        return Situation(
            *(agent.identity, agent.phase, None, OnLimit.NOTIFY, nothing),
            observed=agent.observed,
            stay_stopped=row.stay_stopped,
            ending=ending,
            held_for_limit=held_before,
        )
    known, state, health = held.accounts.known(account), agent.state(), agent.health()
    fault = health.fault if state is not None else None
    failing = fault is not None and (
        state is State.LIMITED or (state is State.WAITING and fault.kind is FaultKind.CREDENTIALS)
    )
    exhausted, for_limit = held.accounts.exhausted(account), held_for_limit(agent)
    room = held.accounts.headroom(account)
    used = None if room is None else 1.0 - room
    work = held.assignments.of(agent) is not None or bool(held.deliveries.waiting(agent))
    chosen = Choice(account, f"it is on {account}")
    if failing or exhausted or for_limit:
        own_until = fault.resets_at if fault is not None and failing else None
        chosen = limits.choose(held, agent, failing=failing, failing_until=own_until, seen=seen)
    full = settings.switch_at > 0 and used is not None and used * 100 >= settings.switch_at - 1e-9
    idle = state is State.IDLE and not work and not exhausted and not failing
    return Situation(
        identity=agent.identity,
        phase=agent.phase,
        account=account,
        on_limit=settings.on_limit,
        choice=chosen,
        observed=agent.observed,
        stay_stopped=row.stay_stopped,
        ending=ending,
        held_for_limit=for_limit,
        limited_until=row.limited_until,
        waited_for=_just_reset(held.accounts.known(chosen.account or account), now),
        state=state,
        failing=failing,
        model_only=fault is not None and fault.model_only,
        exhausted=exhausted,
        until=known.until,
        work=work,
        pool_work=agent.identity in seen.named or settings.pool in seen.pools,
        switch_at=settings.switch_at,
        used=used,
        better=limits.choose(held, agent, headroom=True, seen=seen) if full and idle else None,
    )


def held_for_limit(agent: Agent) -> bool:
    """Say whether an agent is held because nothing could be done on an account."""
    return agent.phase is Phase.HELD and agent.row.cause == str(Cause.LIMITED)


def _just_reset(known: Known, now: float) -> bool:
    """Say whether a limit was to be reset a moment ago, and nothing has proven that it was."""
    reset = known.state is AccountState.UNKNOWN and known.source not in (CHECKED, FORGOTTEN, None)
    soon = failover.SLACK_SECS + failover.JITTER_SECS
    return reset and known.since is not None and 0 <= now - known.since < soon


def _attached(agent: Agent) -> bool:
    """Say whether somebody may look at an agent: also where tmux does not tell, since nothing urges it."""
    row = agent.row
    if row.socket is None or row.session is None or agent.wedged:
        return True
    try:
        return idle_evidence.clients(Path(row.socket), row.session, HOOK_TIMEOUT_SECS).attached > 0
    except tmux.TmuxError:
        return True


def carry_out(held: Supervisor, agent: Agent, what: LimitVerdict, who: str) -> None:
    """Do what was found to be done about an agent; returns at once.

    Args:
        held: the supervisor.
        agent: whom.
        what: the verdict of this very moment.
        who: who asked.

    Raises:
        switches.Refused: it cannot be moved, and nothing was changed.
        StoreError: the intent could not be stored, and nothing was changed.
    """
    action, outcome, before = what.action, str(what.action), account_now(agent)
    if action is LimitAction.SWITCH and what.to is not None:
        held.switches.switch(agent, what.to, who, what.reason)
        outcome = f"{before} to {what.to}"
    elif action is LimitAction.HOLD and held_for_limit(agent):
        held.record(
            agent,
            "hold",
            {"until": what.until, "reason": what.reason},
            limited_until=what.until,
            reason=limits.held_reason(held, agent, what.reason, what.choice),
        )
    elif action is LimitAction.HOLD:
        reason = limits.held_reason(held, agent, what.reason, what.choice)
        held.endings.end(agent, IntentAction.LIMIT, who, reason, ParkedBy.LIMIT, {_UNTIL: what.until})
    elif action is LimitAction.PARK:
        held.endings.end(agent, IntentAction.LIMIT, who, what.reason, ParkedBy.LIMIT, {_UNTIL: None})
    elif action is LimitAction.WAKE:
        held.spawn(_wake(held, agent, who))
    said = {LimitAction.SWITCH: "switched", LimitAction.WAKE: "woken", LimitAction.HOLD: "held"}
    said[LimitAction.PARK] = "parked"
    held.supervise(agent, said.get(action, str(action)), age=None, outcome=outcome, evidence=what.reason)


async def _wake(held: Supervisor, agent: Agent, who: str) -> None:
    """Bring an agent back that was held: what was interrupted goes on, however long ago that was."""
    if agent.waking:
        return
    agent.waking = True
    try:
        asked = WakeAsked.NOTHING
        if agent.row.parked_by in _BY_LIMIT and agent.settings is not None and agent.row.pending is None:
            resumes = held.waking.plan(agent, WakeAsked.RESUME).mode is WakeMode.RESUME
            asked = WakeAsked.RESUME if resumes else WakeAsked.NOTHING
        verdict = await held.bring_up.start(agent, who, WAKE_SECS, Asked.WAKE, asked)
        if verdict.get("cause") == str(Cause.RESUME_REQUESTED_NOTHING_TO_RESUME):
            await held.bring_up.start(agent, who, WAKE_SECS, Asked.WAKE)
    finally:
        agent.waking = False
        agent.wake_waiters()
