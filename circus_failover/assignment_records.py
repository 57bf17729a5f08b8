"""The decisions about assignments, one transaction each, and what they leave: the store, the log, memory.

What is decided comes from others (`assignments`, `dispatching`, `recovering`). Memory follows the store, and
never the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus_failover.agent import Agent
from circus_failover.assignment_book import Book, has_owner
from circus_failover.records import AssignmentRow, TaskRow
from circus_failover.store import Store
from circus_failover.words import AssignmentState, TaskKind, TaskState

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


class AssignmentRecords:
    """The assignments of one supervisor, as they are stored."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._book = Book()
        self._stale: set[str] = set()
        """Ids of those that a transaction of somebody else has changed, or may have."""

    @property
    def book(self) -> Book:
        """Those that are not over, as they are stored now.

        Raises:
            StoreError: the store cannot be read.
        """
        if self._stale:
            self._read_again()
        return self._book

    def load(self) -> None:
        """Read them from the store, when circusd takes it over."""
        store = self._supervisor.store
        self._book, self._stale = Book(store.assignments() if store is not None else ()), set()

    # -- one decision ------------------------------------------------------------------------------------

    def decide(
        self,
        row: AssignmentRow,
        action: str,
        *,
        agent: Agent | None,
        tell: bool = False,
        drop: TaskRow | None = None,
        writes: Callable[[Store], None] | None = None,
        durable: bool = True,
        **fields: Any,
    ) -> AssignmentRow:
        """Store, log and remember one decision about an assignment, in one transaction.

        Args:
            row: the assignment as it is from now on; number 0 for a new one.
            action: what happened.
            agent: the agent it is about, if there is one.
            tell: the agent gets a task with its text.
            drop: a task that is not to be typed any more.
            writes: further writes of the same transaction.
            durable: it must survive a power cut.
            fields: what the log line and the history say further.

        Returns:
            The assignment as it is stored.

        Raises:
            StoreError: it could not be stored; nothing was changed.
        """
        supervisor, stored = self._supervisor, [row]
        told = self._fields(row, action, fields)

        def write(store: Store) -> dict[str, Any]:
            now, kept = time.time(), row
            if drop is not None:
                note = f"assignment {row.id}: {action}"
                store.update_task(drop.id, state=str(TaskState.CANCELLED), done_at=now, note=note)
            if tell and agent is not None:
                task = TaskRow(
                    *(0, agent.identity, row.text, row.topic, row.who, now),
                    kind=str(TaskKind.ASSIGNMENT),
                    assignment=row.id,
                )
                kept = replace(kept, task=store.add_task(task).id)
            if row.number:
                store.put_assignment(kept)
            else:
                kept = store.add_assignment(kept)
            if writes is not None:
                writes(store)
            stored[0] = kept
            return {"task": kept.task} if tell else {}

        if agent is not None:
            supervisor.record(agent, "work", told, durable=durable, must=True, writes=write)
        else:
            store = self.store()
            with store.decision(durable=durable):
                told.update(write(store))
            if supervisor.log is not None:
                supervisor.log.write(time.time(), "work", **told)
        self._book.put(stored[0])
        for identity in {drop.identity if drop else None, agent.identity if agent and tell else None}:
            changed = supervisor.roster.agents.get(identity) if identity is not None else None
            if changed is not None:
                supervisor.deliveries.reload(changed)
        return stored[0]

    def _fields(self, row: AssignmentRow, action: str, more: dict[str, Any]) -> dict[str, Any]:
        return {
            "action": action,
            "assignment": row.id,
            "state": row.state,
            "owner": row.owner,
            "pool": row.pool,
            "wanted": row.wanted,
            "retries": row.retries,
            **more,
        }

    # -- what its typist reports --------------------------------------------------------------------------

    def wanted(self, task: TaskRow) -> bool:
        """Say whether the text of an assignment is still to be typed: its agent has it, and was not told."""
        row = self.book.get(task.assignment) if task.assignment is not None else None
        return row is not None and row.owner == task.identity and row.task == task.id and has_owner(row)

    def delivered(self, store: Store, task: TaskRow, at: float, *, seen: bool) -> None:
        """Within the decision that a task was taken: so was its assignment; see `Assignments.delivered`."""
        if not self.wanted(task):
            return
        row = self.book.get(str(task.assignment))
        assert row is not None
        self._stale.add(row.id)
        new = replace(
            row,
            state=str(AssignmentState.DELIVERED),
            delivered_at=at,
            working_at=None,
            interrupted=None,
            generation=task.generation,
            # In no conversation, where nobody saw it in one: whoever is next is told all of it.
            conversation=self.conversation(task.identity, task.generation) if seen else "",
        )
        store.put_assignment(new)
        fields = self._fields(new, "delivered", {"task": task.id})
        store.add_history(time.time(), task.identity, task.generation, "work", fields)

    def told(self, task: TaskRow) -> None:
        """After that decision: say so in lifecycle.log."""
        if task.assignment is None or task.assignment not in self._stale:
            return
        row = self.book.get(task.assignment)
        if row is not None and self._supervisor.log is not None:
            fields = self._fields(row, "delivered", {"task": task.id})
            self._supervisor.log.write(
                time.time(), "work", identity=task.identity, generation=task.generation, **fields
            )

    # -- facts -------------------------------------------------------------------------------------------

    def owner(self, row: AssignmentRow) -> Agent | None:
        """Return the agent that has an assignment, or that it waits for, if a section names it."""
        return self._supervisor.roster.agents.get(row.owner or row.wanted or "")

    def open_task(self, row: AssignmentRow) -> TaskRow | None:
        """Return the task of an assignment that waits or is being typed."""
        if row.task is None or row.owner is None:
            return None
        agent = self.owner(row)
        if agent is not None:
            waiting = self._supervisor.deliveries.waiting(agent)
            return next((task for task in waiting if task.id == row.task), None)
        task = self.store().task(row.task)
        return task if task is not None and task.state in ("queued", "typing") else None

    def conversation(self, identity: str | None, generation: int | None) -> str | None:
        """Return the conversation of an agent's launch, as far as it is known."""
        agent, store = self._supervisor.roster.agents.get(identity or ""), self._supervisor.store
        if agent is not None and agent.row.generation == generation:
            return agent.row.conversation
        if store is None or identity is None or generation is None:
            return None
        launches = store.ended_launches(identity, generation - 1)
        return next((one.conversation for one in launches if one.generation == generation), None)

    def _read_again(self) -> None:
        """Take in what a transaction of somebody else has stored, or has not."""
        for name in list(self._stale):
            row = self.store().assignment(name)
            if row is not None:
                self._book.put(row)
            else:
                self._book.drop(name)
            self._stale.discard(name)

    def store(self) -> Store:
        """Return the store.

        Raises:
            StoreError: there is none.
        """
        return self._supervisor.known()
