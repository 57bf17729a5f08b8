"""Which notices follow from what an agent does: it waits for a person, or reached a limit without an account.

Called with what circusd has just taken in; it only writes notices down. A limit of an account is told by
`accounts`, once for all of its agents.
"""

from __future__ import annotations

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
    if fault is None or fault.kind not in LIMITS or agent.row.account is not None:
        return
    if was_fault is not None and was_fault.kind is fault.kind:
        return
    held.notices.say(
        NoticeKind.LIMITED,
        f"{agent.identity} has reached {_limit(fault)}",
        identity=agent.identity,
        key=agent.identity,
        account=None,
        fault=str(fault.kind),
        window=fault.window,
        resets_at=fault.resets_at,
    )


def _limit(fault: Fault) -> str:
    what = "the end of its credit" if fault.kind is FaultKind.CREDIT else "its usage limit"
    window = f" ({fault.window})" if fault.window else ""
    model = " for one model" if fault.model_only else ""
    resets = f", which resets at {timestamp(fault.resets_at)}" if fault.resets_at is not None else ""
    return f"{what}{window}{model}{resets}"
