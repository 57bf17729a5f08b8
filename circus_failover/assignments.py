"""Assignments inside circusd: given, dispatched to one owner at a time, recovered when its launch dies.

What becomes of one is decided by `policy.dispatch` and `policy.recovery`; every step is one transaction, and
is found again by the next tick, or the next circusd, where it was interrupted. The text of an assignment
reaches its owner through the one queue of tasks (`deliveries`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circus_failover.agent import Agent
from circus_failover.records import AssignmentRow, TaskRow
from circus_failover.store import Store

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


class NotPossible(Exception):
    """What was asked for cannot be done with this assignment; the text says why and what to do instead."""


class Assignments:
    """The assignments of one supervisor's fleet."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    # -- what verbs ask ----------------------------------------------------------------------------------

    def assign(
        self,
        *,
        agent: Agent | None,
        pool: str | None,
        text: str,
        name: str | None,
        topic: str | None,
        who: str,
    ) -> tuple[AssignmentRow, bool]:
        """Store an assignment and have it dispatched; returns at once.

        Args:
            agent: whom it is for; None: whoever of the pool is free.
            pool: the pool it is for; None: `agent` is given.
            text: what the agent is told.
            name: its id; None: a new one is made.
            topic: its topic, as for a task.
            who: who gives it.

        Returns:
            The assignment, and whether it was there already (the same id and the same text).

        Raises:
            NotPossible: the id is another assignment's, or nobody can ever do it.
            StoreError: it could not be stored, so it was not given.
        """
        raise NotImplementedError

    def all(self, over_since: float | None = None) -> list[AssignmentRow]:
        """Return the assignments that are not over, and those that were over since a time (epoch seconds)."""
        raise NotImplementedError

    def get(self, name: str) -> AssignmentRow | None:
        """Return an assignment by its id."""
        raise NotImplementedError

    def of(self, agent: Agent) -> AssignmentRow | None:
        """Return the assignment that an agent has, or None."""
        return None

    def shown(self, row: AssignmentRow) -> dict[str, Any]:
        """Return what front ends show of an assignment: not its text, which may be large."""
        raise NotImplementedError

    def release(self, name: str, who: str) -> AssignmentRow:
        """Take an assignment from its owner: back to its pool, or to a person where it has none.

        Raises:
            NotPossible: there is none of this id, it is over, or nobody has it.
            StoreError: nothing was changed.
        """
        raise NotImplementedError

    def reassign(self, name: str, *, agent: Agent | None, pool: str | None, who: str) -> AssignmentRow:
        """Give an assignment to another agent or pool, whoever has it; its deaths so far are forgiven.

        Raises:
            NotPossible: there is none of this id, it is over, or its text is being typed right now.
            StoreError: nothing was changed.
        """
        raise NotImplementedError

    def cancel(self, name: str, who: str) -> AssignmentRow:
        """Take an assignment out of the queue, or from its owner, for good; no process is ended.

        Raises:
            NotPossible: there is none of this id, it is over, or its text is being typed right now.
            StoreError: nothing was changed.
        """
        raise NotImplementedError

    # -- what agents report ------------------------------------------------------------------------------

    def report(self, agent: Agent, what: str, name: str | None, note: str | None) -> str | None:
        """Take in an agent's `done` or `failed` about its own assignment; return why not, or None.

        Args:
            agent: whose recorded launch reports.
            what: `done` or `failed`.
            name: the assignment's id; None: the one it has.
            note: what it says of it.

        Raises:
            StoreError: it could not be stored.
        """
        raise NotImplementedError

    # -- what circusd drives -----------------------------------------------------------------------------

    def load(self) -> None:
        """Read the assignments from the store, when circusd takes it over."""

    def text_of(self, agent: Agent, task: TaskRow) -> str:
        """Return what is typed: that it goes on, where this conversation was told the assignment before."""
        return task.text

    def delivered(self, store: Store, agent: Agent | None, task: TaskRow, at: float) -> None:
        """Within the decision that a task was taken: so was its assignment."""

    def look(self, agent: Agent) -> None:
        """See whether an agent's launch ended with an assignment, or whether it is free for the next one."""

    def tend(self) -> None:
        """At every tick: recover, dispatch, start whom work waits for; costs nothing where there is none."""
