"""What an agent asks about itself: to begin afresh, to be parked, to be stopped.

A request names the very launch that makes it; one of an older launch is refused, so that a child that was
left behind never ends its successor. With circusd down a request waits in the spool.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover.agent import Agent
from circus_failover.words import IntentAction, ParkedBy

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

INTENTS = {"fresh": IntentAction.FRESH, "park": IntentAction.PARK, "stop": IntentAction.STOP}


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
        if generation != agent.row.generation or launch != agent.row.launch:
            return (
                f"the request is of generation {generation}, and generation {agent.row.generation} "
                "is the recorded launch: an older launch decides nothing about a newer one"
            )
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

    def taken_in(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Carry out a request that waited in the spool while circusd was down, once."""
        store = self._supervisor.store
        generation, launch, what = int(report["generation"]), str(report["launch"]), str(report["what"])
        why_not: str | None = "no section names it"
        if agent is not None:
            why_not = self.carry_out(agent, what, generation, launch)
        if why_not is not None:
            logger.warning("circus-failover: self %s of %s: %s", what, report.get("identity"), why_not)
        if store is not None:
            with store.decision(durable=True):
                store.take_in(name, time.time())
