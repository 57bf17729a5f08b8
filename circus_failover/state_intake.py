"""What circusd makes of the looks that a plugin tells it of: kept, stored, published, logged.

A look is about one launch and one process by number; one that comes late, of another, changes nothing. What
follows from a state is not decided here, and nothing follows from `unknown`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus_failover import agent_health, health_notices
from circus_failover.agent_health import Look, Seen
from circus_failover.logfmt import timestamp
from circus_failover.policy.health import Fault, Health
from circus_failover.store import Store
from circus_failover.words import Phase, State

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

_TOLD = frozenset({State.WAITING, State.LIMITED, State.UNKNOWN})
"""A change to or from one of these is told; that it works or not is told only with `log_verbose`."""


def take_in(held: Supervisor, looks: Sequence[Look], interval: float) -> list[str]:
    """Take in what a plugin saw, and return the agents of whom it has to say again what they do.

    Args:
        held: the supervisor.
        looks: what it saw.
        interval: seconds from one of its looks to the next.
    """
    again: list[str] = []
    for look in looks:
        agent = held.roster.agents.get(look.identity)
        if agent is None or agent.phase not in (Phase.UP, Phase.OBSERVED):
            continue
        if (agent.row.generation, agent.row.process) != (look.generation, look.process):
            continue
        before, health = agent.last_look(), look.health
        if health is None:
            if before is None:
                again.append(look.identity)
                continue
            health = before.health
        # A time to come, as after the clock was set back, would hold for good.
        at = min(look.at, time.time())
        # First, so that whoever hears of the change finds what it means for the account.
        held.accounts.learn(agent, replace(look, health=health, at=at))
        agent.seen = Seen(look.generation, look.process, at, interval, health, look.last_activity)
        changed = before is None or _essence(before.health) != _essence(health)
        if changed and _is_told(before, health):
            _tell(held, agent, agent.seen, before)
            health_notices.follow(held, agent, agent.seen, before)
        elif changed:
            _note(held, agent, agent.seen, before)
        if changed:
            held.assignments.look(agent)
        if agent.state() is not agent.said_state:
            held.publish(agent)
        if look.conversation is not None and look.conversation != agent.row.conversation:
            _moved_on(held, agent, look.conversation)
    return again


def _essence(health: Health) -> tuple[object, ...]:
    """Return what a change of which is a change; the evidence for the same thing comes and goes."""
    return health.state, health.what, health.fault


def _is_told(before: Seen | None, health: Health) -> bool:
    if before is None:
        return health.state in _TOLD or health.fault is not None
    was = before.health
    changed = was.state is not health.state and bool({was.state, health.state} & _TOLD)
    waits = was.state is State.WAITING and health.state is State.WAITING and was.what != health.what
    return changed or waits or not _same(was.fault, health.fault)


def _same(one: Fault | None, other: Fault | None) -> bool:
    """Say whether two faults are one, though a client counts its tries in its words, or cuts the seconds."""
    if one is None or other is None:
        return one is other
    if (one.kind, one.window, one.model_only) != (other.kind, other.window, other.model_only):
        return False
    if one.resets_at is None or other.resets_at is None:
        return one.resets_at is other.resets_at
    return abs(one.resets_at - other.resets_at) < 60.0


def _tell(held: Supervisor, agent: Agent, seen: Seen, before: Seen | None) -> None:
    """Store, log and publish a change, in the history too."""
    health, fault = seen.health, seen.health.fault
    held.record(
        agent,
        "state",
        {
            "state": str(health.state),
            "was": str(before.health.state) if before is not None else None,
            "source": None if health.source is None else str(health.source),
            "what": health.what or None,
            "fault": None if fault is None else str(fault.kind),
            "window": None if fault is None else fault.window,
            "resets": None if fault is None or fault.resets_at is None else timestamp(fault.resets_at),
            "evidence": health.evidence or None,
        },
        health=agent_health.text(seen),
    )


def _note(held: Supervisor, agent: Agent, seen: Seen, before: Seen | None) -> None:
    """Have a change stored with the next tick, together with those of all others: it happens all the time."""
    agent.row = replace(agent.row, health=agent_health.text(seen))
    held.changed_rows.add(agent.identity)
    if held.log is not None and held.log_verbose:
        held.log.write(
            seen.at,
            "state",
            identity=agent.identity,
            generation=seen.generation,
            state=seen.health.state,
            was=before.health.state if before is not None else None,
            source=seen.health.source,
            what=seen.health.what,
            evidence=seen.health.evidence,
        )


def _moved_on(held: Supervisor, agent: Agent, conversation: str) -> None:
    """Its client is in another conversation (`/clear`, `/resume`): a park resumes what its user sees."""
    identity, generation = agent.identity, agent.row.generation
    changes: dict[str, Any] = {"conversation": conversation}
    if agent.row.ready_at is not None:
        changes["ready_conversation"] = conversation

    def writes(store: Store) -> None:
        store.update_launch(identity, generation, conversation=conversation)

    held.record(
        agent,
        "conversation",
        {"conversation": conversation, "was": agent.row.conversation},
        writes=writes,
        **changes,
    )
