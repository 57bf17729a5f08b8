"""What an agent asks about itself: to begin afresh, to be parked, to be stopped; and what it reports.

A request names the very launch that makes it; one of an older launch is refused, so that a child that was
left behind never ends its successor. With circusd down a request waits in the spool. What becomes of an
assignment that is reported done or failed is for `assignments`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import assignment_text
from circus_failover.problems import describe
from circus_failover.records import AssignmentRow
from circus_failover.words import AssignmentState, IntentAction, ParkedBy

if TYPE_CHECKING:
    from circus_failover.agent import Agent
    from circus_failover.supervisor import Supervisor

INTENTS = {"fresh": IntentAction.FRESH, "park": IntentAction.PARK, "stop": IntentAction.STOP}
REPORTS = (str(AssignmentState.DONE), str(AssignmentState.FAILED))


@dataclass(frozen=True)
class Reported:
    """What a report about an assignment has come to."""

    row: AssignmentRow | None
    """The assignment it is about, as it is now."""
    already: bool = False
    """It had been reported before, and nothing has changed."""
    why_not: str | None = None
    """Why it was not taken in."""


class SelfRequests:
    """Carries out what the agents of one supervisor ask about themselves."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def carry_out(self, agent: Agent, what: str, generation: int, launch: str) -> str | None:
        """Write the intent, unless the request is not this launch's; return why not, or None.

        Raises:
            StoreError: the intent could not be written, so nothing is ended.
        """
        if what not in INTENTS:
            return f"{what!r}: an agent can ask for {', '.join(INTENTS)}"
        if agent.observed:
            return "it is observed: watched and shown, never ended"
        older = _older(agent, generation, launch)
        if older is not None:
            return older
        if agent.row.stay_stopped and what != "stop":
            return f"it was stopped ({agent.row.reason}), and stays so until somebody starts it"
        if what == "fresh":
            self._supervisor.roster.read_settings(agent)
            hindrance = self._supervisor.bring_up.hindrance(agent)
            if hindrance is not None:
                return f"it could not be brought back, and nothing was ended: {hindrance.reason}"
        if agent.action is not None and agent.action.intent == str(INTENTS[what]):
            return None
        parked_by = ParkedBy.OPERATOR_STOP if what == "stop" else ParkedBy.SELF
        self._supervisor.endings.end(agent, INTENTS[what], "the agent itself", f"self {what}", parked_by)
        return None

    def report(
        self, agent: Agent, what: str, generation: int, launch: str, said: Mapping[str, Any]
    ) -> Reported:
        """Take in what an agent says of its assignment.

        Args:
            agent: who says it.
            what: one of `REPORTS`.
            generation: the launch that says it.
            launch: that launch's own name.
            said: `assignment`, the id, or None for the one it has; `note`; `at`, when it was said, in epoch
                seconds.

        Raises:
            ValueError: what was said makes no sense.
            StoreError: it could not be stored.
        """
        name, note, at = said.get("assignment"), assignment_text.note_of(said.get("note")), said.get("at")
        if name is not None and not (isinstance(name, str) and assignment_text.ID.fullmatch(name)):
            raise ValueError(f"the id {describe(name)}: expected {assignment_text.ID_EXPECTED}")
        if at is not None and (isinstance(at, bool) or not isinstance(at, (int, float))):
            raise ValueError(f"at {describe(at)}: expected epoch seconds")
        older = _older(agent, generation, launch)
        if older is not None:
            return Reported(None, why_not=older)
        if name is None:
            return self._about_its_own(agent, what, note, at)
        assignments = self._supervisor.assignments
        row = assignments.get(name)
        if row is None:
            return Reported(None, why_not=f"there is no assignment {name}")
        if row.owner == agent.identity and row.state == what:
            return Reported(row, already=True)
        why_not = assignments.report(agent, what, name, note, at)
        return Reported(assignments.get(name), why_not=why_not)

    def _about_its_own(self, agent: Agent, what: str, note: str | None, at: float | None) -> Reported:
        """Take in a report without an id.

        Where it cannot be about what the agent has now, it has said again what became of the one before.
        """
        assignments, store = self._supervisor.assignments, self._supervisor.store
        row, why_not = assignments.of(agent), "it has no assignment"
        if row is not None and (at is None or row.dispatched_at is None or at >= row.dispatched_at):
            refused = assignments.report(agent, what, None, note, at)
            if refused is None:
                return Reported(assignments.get(row.id))
            why_not = refused
        since = agent.row.launched_at or 0.0
        over = [
            one
            for one in (store.assignments(over_since=since, owner=agent.identity) if store else ())
            if one.done_at is not None and one.generation == agent.row.generation
        ]
        last = max(over, key=lambda one: one.done_at or 0.0, default=None)
        if last is not None and last.state == what:
            return Reported(last, already=True)
        return Reported(None, why_not=why_not)

    def taken_in(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Carry out a request that waited in the spool while circusd was down, once."""
        store = self._supervisor.store
        generation, launch, what = int(report["generation"]), str(report["launch"]), str(report["what"])
        why_not: str | None = "no section names it"
        if agent is not None and what in REPORTS:
            why_not = self.report(agent, what, generation, launch, report).why_not
        elif agent is not None:
            why_not = self.carry_out(agent, what, generation, launch)
        if why_not is not None:
            logger.warning("circus-failover: self %s of %s: %s", what, report.get("identity"), why_not)
        if store is not None:
            # After a power cut a report is found again, and changes nothing; what it said is on disk.
            with store.decision(durable=what not in REPORTS):
                store.take_in(name, time.time())


def _older(agent: Agent, generation: int, launch: str) -> str | None:
    """Return why a launch may ask nothing, which is not the recorded one; None when it is."""
    if generation == agent.row.generation and launch == agent.row.launch:
        return None
    which = f"generation {generation}"
    if generation == agent.row.generation:
        # A number comes again where an agent was purged and its name given to another.
        which = f"another launch that was generation {generation}"
    return (
        f"the request is of {which}, and generation {agent.row.generation} "
        "is the recorded launch: an older launch decides nothing about a newer one"
    )
