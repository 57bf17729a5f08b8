"""The assignments that are not over, in memory: by number, by id, by owner, and those that wait for one.

Only a mirror of the store, for a tick that looks at all of them every second. It decides nothing and
writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from circus_failover.policy.dispatch import Job
from circus_failover.records import AssignmentRow
from circus_failover.words import AssignmentState


def has_owner(row: AssignmentRow) -> bool:
    """Say whether an agent has an assignment now; of one that is over the owner is history."""
    state = AssignmentState(row.state)
    return row.owner is not None and not state.over and state is not AssignmentState.ORPHANED


def job_of(row: AssignmentRow) -> Job:
    """Return an assignment without an owner as the policy of dispatch takes it."""
    avoid = frozenset() if row.last_owner is None else frozenset({row.last_owner})
    return Job(row.number, row.id, row.wanted, row.pool, avoid)


class Book:
    """What of the store's assignments is not over."""

    def __init__(self, rows: Iterable[AssignmentRow] = ()) -> None:
        self._rows: dict[int, AssignmentRow] = {}
        self._numbers: dict[str, int] = {}
        self._owned: dict[str, int] = {}
        self._jobs: dict[int, Job] = {}
        for row in rows:
            self.put(row)

    def put(self, row: AssignmentRow) -> None:
        """Remember what is stored of an assignment now; one that is over is dropped."""
        before = self._rows.get(row.number)
        if before is not None and before.owner is not None and self._owned.get(before.owner) == row.number:
            del self._owned[before.owner]
        state = AssignmentState(row.state)
        if state.over:
            self.drop(row.id)
            return
        self._rows[row.number] = row
        self._numbers[row.id] = row.number
        if has_owner(row):
            assert row.owner is not None
            self._owned[row.owner] = row.number
            self._jobs.pop(row.number, None)
        elif state is AssignmentState.QUEUED:
            last = next(reversed(self._jobs), 0)
            self._jobs[row.number] = job_of(row)
            if row.number < last:
                # It had an owner: it has its old turn again.
                self._jobs = dict(sorted(self._jobs.items()))
        else:
            self._jobs.pop(row.number, None)

    def drop(self, name: str) -> None:
        """Forget an assignment."""
        number = self._numbers.pop(name, None)
        if number is None:
            return
        row = self._rows.pop(number)
        self._jobs.pop(number, None)
        if row.owner is not None and self._owned.get(row.owner) == number:
            del self._owned[row.owner]

    def all(self) -> list[AssignmentRow]:
        """Return every assignment that is not over, in the order of their turn."""
        return [self._rows[number] for number in sorted(self._rows)]

    def get(self, name: str) -> AssignmentRow | None:
        """Return the assignment of an id, while it is not over."""
        number = self._numbers.get(name)
        return None if number is None else self._rows[number]

    def number(self, number: int) -> AssignmentRow | None:
        """Return the assignment of a number, while it is not over."""
        return self._rows.get(number)

    def of(self, identity: str) -> AssignmentRow | None:
        """Return the assignment that an agent has."""
        number = self._owned.get(identity)
        return None if number is None else self._rows[number]

    def owned(self) -> list[AssignmentRow]:
        """Return the assignments that an agent has."""
        return [self._rows[number] for number in self._owned.values()]

    def jobs(self) -> list[Job]:
        """Return those that wait for an owner, in the order of their turn."""
        return list(self._jobs.values())
