"""What `explain` says of an agent's work: the assignment that it has, and what waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from circus_failover.verbs.tasks import shown_task
from circus_failover.verbs.work_messages import shown, whose
from circus_failover.words import AssignmentState

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

SHOWN = 5


def outlook(held: Supervisor, agent: Agent) -> dict[str, Any]:
    """Return the tasks of an agent, the assignment that it has, and the first that wait for it or its pool.

    Args:
        held: the supervisor.
        agent: whose.

    Raises:
        StoreError: the store cannot be read.
    """
    has = held.assignments.of(agent)
    pool = agent.settings.pool if agent.settings is not None else None
    waiting = [
        row
        for row in held.assignments.all()
        if row.state == str(AssignmentState.QUEUED)
        and row.owner is None
        and (
            row.wanted == agent.identity or (row.wanted is None and row.pool is not None and row.pool == pool)
        )
        and (has is None or row.id != has.id)
    ]
    work = {
        "assignment": shown(held, [has])[0] if has is not None else None,
        "work_retries": agent.settings.work_retries if agent.settings is not None else None,
        "waiting": shown(held, waiting[:SHOWN]),
        "waiting_count": len(waiting),
    }
    return {"tasks": [shown_task(task) for task in held.deliveries.waiting(agent)], "work": work}


def facts(work: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of it, as a name and a sentence."""
    from circus_failover import screen

    item = work["assignment"]
    if item is not None:
        since = item["working_at"] or item["delivered_at"] or item["dispatched_at"]
        line = f"{item['id']} ({item['state']}"
        line += f" for {screen.ago(since)}" if since is not None else ""
        line += f", given {screen.ago(item['queued_at'])} ago by {item['who']} to {whose(item)}"
        line += f"; launches that died with it: {item['retries']} of {work['work_retries']} allowed"
        line += f"; interrupted: {item['interrupted']}" if item.get("interrupted") else ""
        line += f"; {item['note']}" if item["note"] else ""
        yield "assignment", f"{line}): {item['begins']}"


def lines(msg: dict[str, Any]) -> Iterator[str]:
    """Yield a line an assignment and a task that waits for an agent, of the first few of each."""
    yield from _assignment_lines(msg["work"])
    yield from _task_lines(msg["tasks"], msg["agent"]["identity"])


def _assignment_lines(work: dict[str, Any]) -> Iterator[str]:
    """Yield a line an assignment that waits for an agent or its pool, of the first few."""
    from circus_failover import screen

    for item in work["waiting"]:
        line = f"assignment {item['id']}: for {whose(item)}"
        line += f", {screen.ago(item['queued_at'])} ago by {item['who']}"
        why = item["note"] or item.get("waits_for")
        yield f"{line}{f' ({why})' if why else ''}: {item['begins']}"
    left = work["waiting_count"] - len(work["waiting"])
    if left:
        yield f"and {left} more assignments: failoverctl work"


def _task_lines(tasks: list[dict[str, Any]], identity: str) -> Iterator[str]:
    """Yield a line a task that waits, of the first few; the next one is the first."""
    from circus_failover import screen

    for task in tasks[:SHOWN]:
        line = f"task {task['id']}: {task['state']}, {screen.ago(task['queued_at'])} ago by {task['who']}"
        if task["topic"]:
            line += f", topic {task['topic']}"
        if task["attempts"]:
            line += f", tries: {task['attempts']}"
        if task["note"]:
            line += f" ({task['note']})"
        yield f"{line}: {task['begins']}"
    if len(tasks) > SHOWN:
        yield f"and {len(tasks) - SHOWN} more: failoverctl tasks {identity}"
