"""What `explain` says of an agent that has work: what the Heartbeat plugin would make of it now.

The same policy with what circusd knows, and what the plugin has stored of what it told and did. It runs in
circusd's only loop: it changes nothing, and looks at two files at most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus_failover import heartbeats, liveness, process_table
from circus_failover.agents import RUNTIMES
from circus_failover.idle_evidence import Terminals
from circus_failover.policy import heartbeat
from circus_failover.policy.heartbeat import Beat, Evidence, HeartbeatAction, Told
from circus_failover.words import Liveness, Phase

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor


def outlook(
    held: Supervisor, agent: Agent, plugin: dict[str, Any], detail: dict[str, Any]
) -> dict[str, Any] | None:
    """Return what Heartbeat would make of an agent; None where it is not up, or has no settings.

    Args:
        held: the supervisor.
        agent: whom.
        plugin: whether the plugin runs, when it last ticked, and whether it is a dry run.
        detail: what the plugin has stored.
    """
    settings, row = agent.settings, agent.row
    if settings is None or agent.phase is not Phase.UP:
        return None
    contract = settings.heartbeat is not None and row.launch is not None
    beat = heartbeats.read(settings.heartbeat) if contract and settings.heartbeat else Beat()
    here = row.process if row.boot == process_table.boot_id() else None
    now, seen, proven = time.time(), agent.last_look(), liveness.recorded(row)
    holds = seen is not None and seen.holds(now)
    evidence = Evidence(
        phase=agent.phase,
        observed=agent.observed,
        wedged=agent.wedged,
        tells=RUNTIMES[settings.runtime].tells,
        state=seen.health.state if seen is not None and holds else None,
        question=(seen.health.what or seen.health.evidence) if seen is not None and holds else "",
        looked=True,
        work=heartbeats.work_of(held.assignments.of(agent), row.generation),
        proven=proven is not None and proven.liveness is Liveness.LIVE,
        launched_at=row.launched_at if row.launch is not None else row.ready_at,
        ready_at=row.ready_at,
        beat=beat,
        activity=seen.last_activity if seen is not None and holds else None,
        terminal=Terminals().last_activity(here, now) if here is not None else None,
        typed_at=row.last_task,
    )
    stored = detail if detail.get("boot") == process_table.boot_id() else {}
    verdict = heartbeat.decide(
        heartbeats.thresholds(settings, contract), evidence, _told(stored, agent), _floor(stored), now
    )
    return {
        "action": str(verdict.action),
        "reason": verdict.reason,
        "age": verdict.age,
        "nudge": verdict.nudge,
        "contract": contract,
        "heartbeat": plugin,
    }


def _told(detail: dict[str, Any], agent: Agent) -> Told:
    """Return what the plugin has told and done about this very launch; nothing where that makes no sense."""
    try:
        generation, values = detail["told"][agent.identity]
        return Told(*values) if generation == agent.row.generation else Told()
    except (KeyError, TypeError, ValueError):
        return Told()


def _floor(detail: dict[str, Any]) -> float | None:
    found = detail.get("floor")
    return float(found) if isinstance(found, (int, float)) else None


def line(found: dict[str, Any]) -> str:
    """Return what it would do, for people; empty for an agent without work, of which nothing is asked."""
    action, plugin, reason = found["action"], found["heartbeat"], found["reason"]
    if action == HeartbeatAction.LEAVE and "no assignment" in reason:
        return ""
    does = {
        HeartbeatAction.STUCK: "ends it as stuck, and brings it back",
        HeartbeatAction.NUDGE: "nudges it",
        HeartbeatAction.NO_PROGRESS: "tells that it makes no progress",
        HeartbeatAction.SILENT: "tells that it is silent",
        HeartbeatAction.WAITING: "tells that it waits",
    }.get(HeartbeatAction(action))
    if does is None:
        return f"leaves it alone: {reason}"
    does += " and nudges it" if found["nudge"] and action != HeartbeatAction.NUDGE else ""
    if not plugin["runs"]:
        return f"does not run, else it {does}: {reason}"
    return f"{does} next{', but for dry_run' if plugin['dry_run'] else ''}: {reason}"
