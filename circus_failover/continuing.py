"""What an agent is told whose launch was ended in the middle of its work, decided when the next one begins.

The decision is `policy.continuing`; this collects what it depends on, from the conversation and the store.
What follows from it is stored with the next launch or not at all, so that it is told once. A lookup that
fails says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import process_table
from circus_failover.agent import Agent
from circus_failover.agents import RUNTIMES
from circus_failover.policy import continuing
from circus_failover.policy.continuing import Continuation, Interrupted, OpenTurn, Taken
from circus_failover.records import TaskRow
from circus_failover.store import Store, StoreError
from circus_failover.waking import WakePlan
from circus_failover.words import AssignmentState, Cause, IntentAction, State, TaskKind, TaskState, WakeMode

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

LAUNCHES = 20
"""How many launches back it is looked for what their conversation was told."""
_WORK = frozenset(map(str, (TaskKind.TASK, TaskKind.CONTINUE)))
"""Tasks that are somebody's work; what else is typed is told anew by whoever tells it, or is past."""
_ENDS = frozenset(map(str, (IntentAction.SWITCH, IntentAction.LIMIT)))


class Continuing:
    """What the next launches of one supervisor's agents go on with."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def unfinished(self, agent: Agent) -> bool:
        """Say whether an agent was ended in the midst of a turn that its conversation can go on with."""
        store = self._supervisor.store
        if store is None or (agent.row.interrupted is None and not self._told(agent)):
            return False
        try:
            return self._decide(agent, store, resumes=True).go_on
        except StoreError:
            return False

    def at_launch(self, agent: Agent, plan: WakePlan) -> Callable[[Store], dict[str, Any]] | None:
        """Return what is written with a launch, so that its agent goes on; None: nothing.

        Args:
            agent: whose launch it is; its row is still that of the launch before.
            plan: how it begins.

        Raises:
            StoreError: the store cannot be read.
        """
        store, row, told = self._supervisor.store, agent.row, self._told(agent)
        resumes = plan.mode is WakeMode.RESUME and plan.conversation == row.conversation
        if store is None or (row.interrupted is None and (not told or resumes)):
            # What the launch before, which never came up, was to be told waits for this one.
            return None
        found = self._decide(agent, store, resumes=resumes)
        texts = [continuing.GO_ON] if found.go_on else []
        texts += [task.text for task in told if task.text != continuing.GO_ON and task.id not in found.had]
        texts += [task.text for number in found.again if (task := store.task(number)) is not None]

        def write(store: Store) -> dict[str, Any]:
            now, kind = time.time(), str(TaskKind.CONTINUE)
            for number in found.had:
                note = "its conversation has it"
                store.update_task(number, state=str(TaskState.DELIVERED), done_at=now, note=note)
            for task in told:
                if task.id not in found.had:
                    note = "its next launch is told anew"
                    store.update_task(task.id, state=str(TaskState.CANCELLED), done_at=now, note=note)
            new = [
                store.add_task(TaskRow(0, agent.identity, text, None, "circusd", now, first=True, kind=kind))
                for text in texts
            ]
            what = "turn" if found.go_on else "task" if new else "nothing"
            numbers = ",".join(str(task.id) for task in new) or None
            return {"continues": what, "continue_task": numbers, "continue_reason": found.reason}

        return write

    # -- evidence ----------------------------------------------------------------------------------------

    def _told(self, agent: Agent) -> list[TaskRow]:
        """Return what an agent is to be told to go on, and has not been; nobody is typing it now."""
        return [
            task
            for task in self._supervisor.deliveries.waiting(agent)
            if task.kind == str(TaskKind.CONTINUE) and not _typed_now(task)
        ]

    def _decide(self, agent: Agent, store: Store, *, resumes: bool) -> Continuation:
        row = agent.row
        launches = store.launches(agent.identity, LAUNCHES)
        same = {one.generation for one in launches if one.conversation == row.conversation}
        done = [task for task in store.delivered(agent.identity) if task.generation in same]
        waiting = [task for task in self._supervisor.deliveries.waiting(agent) if not _typed_now(task)]
        ended = next((one for one in store.actions(agent.identity) if one.intent in _ENDS), None)
        has = self._assignment(agent)
        last = next(
            (task for task in reversed(done) if task.kind in (*_WORK, str(TaskKind.ASSIGNMENT))), None
        )
        return continuing.decide(
            Interrupted(
                resumes=resumes,
                assigned=has is not None,
                past=last is not None and last.assignment is not None and last.assignment != has,
                turn=self._turn(agent),
                limited=row.interrupted == str(Cause.LIMITED),
                busy=_busy(agent),
                ended_at=ended.asked_at if ended is not None else None,
                tasks=tuple(
                    Taken(task.id, task.text, task.done_at, task.queued_at)
                    for task in _once([*done, *waiting])
                    # What was never typed is not in question.
                    if task.done_at is not None or task.generation == row.generation
                ),
            )
        )

    def _assignment(self, agent: Agent) -> str | None:
        """Return the assignment that an agent was told of, and is told by `recovering` to go on; or None."""
        row = self._supervisor.assignments.of(agent)
        if row is None or (row.state == str(AssignmentState.QUEUED) and row.generation is None):
            return None
        return row.id

    def _turn(self, agent: Agent) -> OpenTurn | None:
        row = agent.row
        runtime = RUNTIMES.get(row.runtime or "")
        if runtime is None or row.home is None or row.working_dir is None or row.conversation is None:
            return None
        try:
            return runtime.open_turn(Path(row.home), Path(row.working_dir), row.conversation)
        except Exception:
            # A client's files are undocumented: one that is not understood says nothing.
            logger.exception("circus-failover: the conversation of %s could not be looked at", agent.identity)
            return None


def _once(tasks: list[TaskRow]) -> list[TaskRow]:
    """Return somebody's work among tasks; what was to be told again stands in place of the first time."""
    found: list[TaskRow] = []
    for task in tasks:
        if task.kind not in _WORK or task.text == continuing.GO_ON:
            continue
        if task.kind == str(TaskKind.CONTINUE):
            first = next((one for one in reversed(found) if one.text == task.text), None)
            found = [one for one in found if one is not first]
        found.append(task)
    return found


def _typed_now(task: TaskRow) -> bool:
    """Say whether somebody may be typing a task at this moment."""
    typing = task.state == str(TaskState.TYPING)
    return typing and task.worker is not None and process_table.may_run(task.worker)


def _busy(agent: Agent) -> bool:
    """Say whether an agent has taken a task in its last launch, and was not seen idle since."""
    row, seen = agent.row, agent.last_look()
    if row.last_task is None or row.ready_at is None or row.last_task < row.ready_at:
        return False
    idle = seen is not None and seen.health.state is State.IDLE and seen.health.fault is None
    return not (idle and seen is not None and seen.at > row.last_task)
