"""What is stored with the end of a switch: the columns of its agent, its line in the history, the notice.

It is written together with the decision that ends the switch, or not at all. Nothing is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus_failover.agent import Agent
from circus_failover.store import Store
from circus_failover.switch_checks import next_account
from circus_failover.words import Cause, NoticeKind, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


@dataclass(frozen=True)
class Outcome:
    """What is stored with the decision that ends a switch."""

    changes: dict[str, Any]
    """Columns of the agent's row."""
    writes: Callable[[Store], None]
    fields: dict[str, Any]
    """What lifecycle.log says."""


def on_account(agent: Agent, name: str) -> dict[str, Any]:
    """Return the columns of an agent whose next launch is on an account."""
    named = agent.settings.configured_account if agent.settings is not None else None
    if named is None or named.name == name:
        return {"switched_to": None, "switched_from": None}
    return {"switched_to": name, "switched_from": named.name}


def void(agent: Agent) -> dict[str, Any]:
    """Return the columns of an agent whose switch, if there is one, is cut short: its old account's."""
    row = agent.row
    return {} if row.switching is None else {**on_account(agent, row.switching), "switching": None}


def failed(supervisor: Supervisor, agent: Agent, step: str, reason: str) -> Outcome:
    """Return the end of a switch that has failed: its agent is parked on its old account.

    Args:
        supervisor: whose agent it is.
        agent: whom; it is on its way.
        step: where it failed.
        reason: why.
    """
    row, to = agent.row, next_account(agent)
    if to == row.switching:
        # The account it was to go to is not there any more.
        to = row.switched_to
    text = f"its switch from {row.switching} to {to} failed ({step}): {reason}"
    fields = {"action": "failed", "from": row.switching, "to": to, "step": step, "reason": reason}
    changes = {
        **void(agent),
        "phase": Phase.STOPPED if row.stay_stopped else Phase.PARKED,
        "cause": Cause.SWITCH_FAILED,
        "reason": text,
        "limited_until": None,
    }
    said = f"{agent.identity}: {text}; it is parked on {row.switching}"
    return Outcome(changes, _writes(supervisor, agent, NoticeKind.SWITCH_FAILED, said, fields), fields)


def proven(supervisor: Supervisor, agent: Agent) -> Outcome:
    """Return the end of a switch whose launch is proven ready.

    Args:
        supervisor: whose agent it is.
        agent: whom; it is on its way.
    """
    row = agent.row
    fields = {"action": "done", "from": row.switching, "to": row.account}
    said = f"{agent.identity} goes on on account {row.account}; it was on {row.switching}"
    return Outcome({"switching": None}, _writes(supervisor, agent, NoticeKind.SWITCHED, said, fields), fields)


def _writes(
    supervisor: Supervisor, agent: Agent, kind: NoticeKind, text: str, fields: dict[str, Any]
) -> Callable[[Store], None]:
    facts = {name: fields[name] for name in ("from", "to", "step") if name in fields}
    row = agent.row
    notice = supervisor.notices.writing(kind, text, identity=row.identity, generation=row.generation, **facts)

    def write(store: Store) -> None:
        notice(store)
        store.add_history(time.time(), row.identity, row.generation, "switch", fields)

    return write
