"""Which notices follow from a change of what an agent does: it waits for a person, its account is limited.

Called with what circusd has just taken in; it only writes notices down. What else follows from a limit is not
decided here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from circus_failover.agent_health import Seen
from circus_failover.logfmt import timestamp
from circus_failover.policy.health import Fault
from circus_failover.words import FaultKind, NoticeKind, State

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

LIMITS = (FaultKind.USAGE_LIMIT, FaultKind.CREDIT)


def follow(held: Supervisor, agent: Agent, seen: Seen, before: Seen | None) -> None:
    """Write down what somebody may want to be told of.

    Args:
        held: the supervisor.
        agent: whom.
        seen: what it does now; what is told of it has changed.
        before: what it did before; None: nothing is known of that.
    """
    health, was = seen.health, before.health if before is not None else None
    if health.state is State.WAITING and (
        was is None or (was.state, was.what) != (health.state, health.what)
    ):
        text = f"{agent.identity} waits for a person: {health.what or 'it does not say for what'}"
        held.notices.say(NoticeKind.WAITING, text, identity=agent.identity, what=health.what or None)
    fault, was_fault = health.fault, was.fault if was is not None else None
    limited = fault is not None and fault.kind in LIMITS
    if fault is None or not limited or (was_fault is not None and was_fault.kind is fault.kind):
        return
    account = _account(agent)
    what = f"account {account} has reached" if account else f"{agent.identity} has reached"
    held.notices.say(
        NoticeKind.LIMITED,
        f"{what} {_limit(fault)}; seen at {agent.identity}",
        identity=agent.identity,
        key=f"account {account}" if account else agent.identity,
        account=account,
        fault=str(fault.kind),
        window=fault.window,
        resets_at=fault.resets_at,
    )
    _all_limited(held, agent)


def _limit(fault: Fault) -> str:
    what = "the end of its credit" if fault.kind is FaultKind.CREDIT else "its usage limit"
    window = f" ({fault.window})" if fault.window else ""
    model = " for one model" if fault.model_only else ""
    resets = f", which resets at {timestamp(fault.resets_at)}" if fault.resets_at is not None else ""
    return f"{what}{window}{model}{resets}"


def _all_limited(held: Supervisor, agent: Agent) -> None:
    """Say so when the account of an agent was the last of its runtime that had no limit."""
    settings = agent.settings
    if settings is None or settings.account is None:
        return
    runtime = settings.account.runtime
    accounts = {account.name for account in settings.settings.accounts if account.runtime == runtime}
    now, limited = time.time(), set()
    for other in held.roster.agents.values():
        look = other.last_look()
        if look is not None and _holds(look.health.fault, now):
            limited.add(_account(other))
    if accounts and accounts <= limited:
        names = ", ".join(sorted(accounts))
        held.notices.say(
            NoticeKind.ALL_LIMITED,
            f"every account of the runtime {runtime} has reached a limit: {names}",
            key=f"runtime {runtime}",
            runtime=runtime,
            accounts=sorted(accounts),
        )


def _holds(fault: Fault | None, now: float) -> bool:
    """Say whether a fault is a limit of a whole account that has not been reset by now."""
    if fault is None or fault.kind not in LIMITS or fault.model_only:
        return False
    return fault.resets_at is None or fault.resets_at > now


def _account(agent: Agent) -> str | None:
    settings = agent.settings
    return (settings.account.name if settings is not None and settings.account else None) or agent.row.account
