"""Assignments inside circusd: given, dispatched to one owner at a time, recovered when its launch dies.

What becomes of one is decided by `policy.dispatch` and `policy.recovery`, carried out by `dispatching` and
`recovering`; every step is one transaction, and is found again by the next tick, or the next circusd, where
it was interrupted. The text of an assignment reaches its owner through the one queue of tasks (`deliveries`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import assignment_text, crashpoint
from circus_failover.agent import Agent
from circus_failover.assignment_book import has_owner, job_of
from circus_failover.assignment_records import AssignmentRecords
from circus_failover.dispatching import Dispatching
from circus_failover.heartbeats import TAKEN
from circus_failover.policy.dispatch import Job
from circus_failover.records import AssignmentRow, TaskRow
from circus_failover.recovering import Recovering
from circus_failover.store import Store, StoreError
from circus_failover.words import AssignmentState, TaskState

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

SOON_SECS = 0.02
"""What happens within so short a time is looked at together."""
REPORTS = {"done": AssignmentState.DONE, "failed": AssignmentState.FAILED}
UNOWNED: dict[str, Any] = dict.fromkeys(
    ("owner", "dispatched_at", "delivered_at", "working_at", "generation", "conversation", "task")
)
"""The columns of an assignment that nobody has, and that nobody is to go on with."""


class NotPossible(Exception):
    """What was asked for cannot be done with this assignment; the text says why and what to do instead."""


class Assignments:
    """The assignments of one supervisor's fleet."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.records = AssignmentRecords(supervisor)
        self._dispatching = Dispatching(supervisor, self)
        self._recovering = Recovering(supervisor, self)
        self._marked: set[str] = set()
        """Agents that are looked at soon."""
        self._timer: object | None = None
        self._took = 0.0
        """Seconds that the last look has taken."""

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
        if name is not None and not assignment_text.ID.fullmatch(name):
            raise NotPossible(f"id {name!r}: expected {assignment_text.ID_EXPECTED}")
        known = None if name is None else self.records.store().assignment(name)
        if known is not None:
            if known.text == text:
                return known, True
            raise NotPossible(f"{name} is another assignment ({known.state}): choose another id")
        self._check(agent, pool)
        row = AssignmentRow(
            number=0,
            id=name or f"w-{uuid.uuid4().hex[:10]}",
            text=text,
            who=who,
            queued_at=time.time(),
            topic=topic,
            wanted=None if agent is None else agent.identity,
            pool=None if agent is not None else pool,
        )
        stored = self.records.decide(row, "queued", agent=agent, who=who, characters=len(text), topic=topic)
        crashpoint.reached("assignment-stored")
        self._soon()
        return stored, False

    def _check(self, agent: Agent | None, pool: str | None) -> None:
        """Refuse work that nobody can ever do."""
        if agent is not None:
            if agent.observed:
                raise NotPossible(f"{agent.identity} is observed: watched and shown, and given nothing")
        elif pool is None or not self._dispatching.has_members(pool):
            raise NotPossible(f"no agent is in a pool {pool!r} (failover.pool); `fleet` lists the agents")

    def all(self, over_since: float | None = None) -> list[AssignmentRow]:
        """Return the assignments that are not over, and those that were over since a time (epoch seconds)."""
        if over_since is not None:
            return self.records.store().assignments(over_since=over_since)
        return self.records.book.all()

    def get(self, name: str) -> AssignmentRow | None:
        """Return an assignment by its id."""
        return self.records.store().assignment(name)

    def of(self, agent: Agent) -> AssignmentRow | None:
        """Return the assignment that an agent has, or None."""
        return self.records.book.of(agent.identity)

    def shown(self, row: AssignmentRow) -> dict[str, Any]:
        """Return what front ends show of an assignment: not its text, which may be large."""
        shown = {name: value for name, value in vars(row).items() if name not in ("text", "conversation")}
        queued = row.state == str(AssignmentState.QUEUED) and row.owner is None
        return {
            **shown,
            "waits_for": self._dispatching.why(job_of(row)) if queued else None,
            "characters": len(row.text),
            "begins": row.text[:60].replace("\n", " "),
        }

    def release(self, name: str, who: str) -> AssignmentRow:
        """Take an assignment from its owner: back to its pool, or to a person where it has none.

        An orphaned one goes back to its pool, and its deaths so far are forgiven.

        Raises:
            NotPossible: there is none of this id, it is over, or nobody has it.
            StoreError: nothing was changed.
        """
        row = self._open(name)
        orphaned = row.state == str(AssignmentState.ORPHANED)
        if orphaned and row.pool is None:
            raise NotPossible(f"{name} is of no pool, and waits for a person: `reassign` or `cancel` it")
        if row.owner is None and not orphaned:
            raise NotPossible(f"nobody has {name}: {self._dispatching.why(job_of(row))}")
        state = AssignmentState.ORPHANED if row.pool is None else AssignmentState.QUEUED
        forgiven = {"retries": 0, "orphanings": 0} if orphaned else {}
        new = replace(
            row, **{**UNOWNED, **forgiven, "interrupted": None}, state=str(state), note=f"released by {who}"
        )
        return self._take_back(row, new, "released", who)

    def reassign(self, name: str, *, agent: Agent | None, pool: str | None, who: str) -> AssignmentRow:
        """Give an assignment to another agent or pool, whoever has it; its deaths so far are forgiven.

        Raises:
            NotPossible: there is none of this id, it is over, or its text is being typed right now.
            StoreError: nothing was changed.
        """
        row = self._open(name)
        self._check(agent, pool)
        new = replace(
            row,
            **UNOWNED,
            state=str(AssignmentState.QUEUED),
            wanted=None if agent is None else agent.identity,
            pool=None if agent is not None else pool,
            retries=0,
            orphanings=0,
            interrupted=None,
            note=f"reassigned by {who}",
        )
        return self._take_back(row, new, "reassigned", who)

    def cancel(self, name: str, who: str) -> AssignmentRow:
        """Take an assignment out of the queue, or from its owner, for good; no process is ended.

        Raises:
            NotPossible: there is none of this id, it is over, or its text is being typed right now.
            StoreError: nothing was changed.
        """
        row = self._open(name)
        state = str(AssignmentState.CANCELLED)
        new = replace(row, state=state, done_at=time.time(), note=f"cancelled by {who}")
        return self._take_back(row, new, "cancelled", who)

    def _take_back(self, row: AssignmentRow, new: AssignmentRow, action: str, who: str) -> AssignmentRow:
        """Carry out what somebody wants of an assignment that may have an owner."""
        task = self.records.open_task(row)
        if task is not None and task.state == str(TaskState.TYPING):
            raise NotPossible(f"{row.id} is being typed into {row.owner} right now: try again in a moment")
        if row.owner is not None:
            new = replace(new, last_owner=row.owner)
        stored = self.records.decide(
            new, action, agent=self.records.owner(row), drop=task, who=who, was=row.owner
        )
        self._soon()
        return stored

    def _open(self, name: str) -> AssignmentRow:
        """Return an assignment that is not over.

        Raises:
            NotPossible: there is none, or it is over.
        """
        row = self.records.store().assignment(name)
        if row is None:
            raise NotPossible(f"there is no assignment {name!r}; `work` lists them")
        if AssignmentState(row.state).over:
            raise NotPossible(f"{name} is {row.state}: nothing is left to be done about it")
        return row

    # -- what agents report ------------------------------------------------------------------------------

    def report(
        self, agent: Agent, what: str, name: str | None, note: str | None, at: float | None = None
    ) -> str | None:
        """Take in an agent's `done` or `failed` about its own assignment; return why not, or None.

        Args:
            agent: whose recorded launch reports.
            what: `done` or `failed`.
            name: the assignment's id; None: the one it has.
            note: what it says of it.
            at: when it said so, in epoch seconds: without an id nothing is meant that it got later.

        Raises:
            StoreError: it could not be stored.
        """
        if what not in REPORTS:
            return f"{what!r}: an agent reports {' or '.join(REPORTS)}"
        row = self.of(agent) if name is None else self.get(name)
        task = None if row is None else self.records.open_task(row)
        if row is None:
            return "it has no assignment" if name is None else f"there is no assignment {name!r}"
        if name is None:
            typing = task is not None and task.state == str(TaskState.TYPING)
            told = typing and task is not None and self._supervisor.deliveries.entered(task)
            if not told and row.state not in TAKEN and row.generation is None:
                return f"it has not been told of {row.id} yet, the only assignment it has"
            if at is not None and row.dispatched_at is not None and row.dispatched_at > at:
                return f"that was said before {row.id} was given to it; say which assignment it is about"
        if AssignmentState(row.state).over and row.owner == agent.identity:
            return None if row.state == str(REPORTS[what]) else f"{row.id} is {row.state} already"
        if not has_owner(row) or row.owner != agent.identity:
            whose = f"{row.owner}'s" if has_owner(row) else row.state
            return f"{row.id} is not its assignment: it is {whose}"
        self.finish(row, REPORTS[what], note)
        return None

    def finish(self, row: AssignmentRow, state: AssignmentState, note: str | None) -> AssignmentRow:
        """An assignment is over: its owner said so, or has finished its turn."""
        task = self.records.open_task(row)
        if task is not None and task.state == str(TaskState.TYPING):
            # It was done before its typist could say that it was told; that report changes nothing any more.
            row, task = replace(row, delivered_at=time.time(), generation=task.generation), None
        new = replace(row, state=str(state), done_at=time.time(), note=note)
        stored = self.records.decide(new, str(state), agent=self.records.owner(row), drop=task, note=note)
        crashpoint.reached("assignment-done")
        self._soon()
        return stored

    # -- what circusd drives -----------------------------------------------------------------------------

    def load(self) -> None:
        """Read the assignments from the store, when circusd takes it over."""
        self.records.load()
        self._recovering.load()

    def text_of(self, agent: Agent, task: TaskRow) -> str:
        """Return what is typed: that it goes on, where this conversation was told the assignment before."""
        row = self.records.book.get(task.assignment) if task.assignment is not None else None
        if row is None or row.generation is None or row.task != task.id:
            return task.text
        told_in = row.conversation
        if told_in is None:
            # Its client may have said only later which it is.
            told_in = self.records.conversation(row.owner, row.generation)
        if told_in is None or told_in != agent.row.conversation:
            return task.text
        return (
            f"Your session ended while you had assignment {row.id}, and was resumed. Go on with it where you "
            "left off. When it is finished run: failoverctl self done (if it cannot be done: "
            "failoverctl self failed --note WHY)"
        )

    def delivered(
        self, store: Store, agent: Agent | None, task: TaskRow, at: float, *, seen: bool = True
    ) -> None:
        """Within the decision that a task was taken: so was its assignment.

        Args:
            store: in its decision.
            agent: whose task it is, if a section names it.
            task: the task.
            at: when Enter was sent, in epoch seconds: what its client did since it did for this.
            seen: whether it was seen to be taken; else its agent died when it was told.
        """
        self.records.delivered(store, task, at, seen=seen)

    def look(self, agent: Agent) -> None:
        """See whether an agent's launch ended with an assignment, or whether it is free for the next one.

        Soon, not now: this is called from the midst of other decisions.
        """
        self._marked.add(agent.identity)
        self._soon()

    def tend(self) -> None:
        """At every tick: recover, dispatch, start whom work waits for; costs nothing where there is none."""
        self._act(lambda: self.records.book.owned())

    def _soon(self) -> None:
        if self._timer is None:
            # Of a large fleet each look at all of it takes 10 ms of the only loop.
            secs = max(SOON_SECS, 5 * self._took)
            self._timer = self._supervisor.loop.call_later(secs, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        if self._supervisor.arbiter._stopping:
            return
        try:
            # An agent may have reported before it died.
            self._supervisor.take_in_reports()
            marked, self._marked = self._marked, set()
            found = (self.records.book.of(identity) for identity in marked)
            self._act(lambda: [row for row in found if row is not None])
        except Exception:
            logger.exception("circus-failover: assignments could not be looked at")

    def _act(self, which: Callable[[], list[AssignmentRow]]) -> None:
        supervisor = self._supervisor
        if supervisor.store is None or supervisor.arbiter._stopping:
            return
        begun = time.monotonic()
        try:
            for row in which():
                self._settle(row)
            if self._dispatching.run():
                self._soon()
        except StoreError as error:
            # Nothing was changed: the next tick finds it again.
            supervisor.store_trouble = str(error)
        except Exception:
            logger.exception("circus-failover: the dispatch of assignments failed")
        self._took = min(time.monotonic() - begun, 0.1)

    def nobody_left(self, job: Job) -> None:
        """Nobody will ever do what was given to an agent that is no more."""
        row = self.records.book.number(job.number)
        if row is not None:
            self._recovering.nobody_left(row)

    def _settle(self, row: AssignmentRow) -> None:
        now = self.records.book.number(row.number)
        if now is None or not has_owner(now):
            return  # a report that was taken in meanwhile has ended it
        try:
            self._recovering.settle(now)
        except StoreError:
            raise
        except Exception:
            # It keeps no other one back.
            logger.exception("circus-failover: assignment %s could not be looked at", row.id)
