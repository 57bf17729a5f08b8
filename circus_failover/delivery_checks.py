"""Whether a task that waits is still to be typed, and what a typist's report of a death proves.

Only looks: what follows is done by `deliveries`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus_failover.agent import Agent
from circus_failover.records import TaskRow
from circus_failover.words import IntentAction, Phase, TaskKind, TaskState

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


def not_to_be_typed(held: Supervisor, agent: Agent, task: TaskRow) -> str:
    """Return why a task that waits is not to be typed any more; empty when it is."""
    if task.state != str(TaskState.QUEUED):
        return ""
    if task.expires_at is not None and task.expires_at <= time.time():
        return "it was not typed in time" + (f": {task.note}" if task.note else "")
    gone = agent.phase not in (Phase.UP, Phase.STARTING, Phase.STOPPING)
    if _bound(task) and (gone or task.generation != agent.row.generation):
        return f"launch {task.generation}, which it was for, has ended"
    if is_assignment(task) and not held.assignments.records.wanted(task):
        return f"assignment {task.assignment} is over, or is not its any more"
    if task.kind == str(TaskKind.NUDGE) and task.assignment is not None:
        has = held.assignments.of(agent)
        if has is None or has.id != task.assignment:
            return f"assignment {task.assignment} is over, or is not its any more"
    return ""


def died_at_it(held: Supervisor, agent: Agent | None, report: dict[str, Any]) -> bool:
    """Say whether an agent died when Enter was sent: at what it was told, for all that can be known.

    Of an assignment that kills whoever reads it each death has to be spent: it would go round for ever.
    """
    store = held.store
    if agent is None or store is None or (report["outcome"], report.get("stage")) != ("gone", "entering"):
        return False
    if agent.action is not None and agent.action.intent != str(IntentAction.CLEAR):
        return False  # somebody ends it
    ended = store.ended_launches(agent.identity, int(report["generation"]) - 1)
    launch = next((one for one in ended if one.generation == report["generation"]), None)
    return launch is None or not launch.planned


def is_assignment(task: TaskRow) -> bool:
    """Say whether a task is what an agent is told of its assignment."""
    return task.kind == str(TaskKind.ASSIGNMENT)


def _bound(task: TaskRow) -> bool:
    """Say whether a task is for one launch alone."""
    return task.kind in (str(TaskKind.TELL), str(TaskKind.NUDGE)) and task.generation is not None
