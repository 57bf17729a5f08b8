"""Ending an agent: the intent first, then a worker, then what follows from it.

Only the verbs of an operator end an agent, a broken heartbeat contract, and a switch or a limit of its
account; and what is left of a launch that ended by itself is cleared in the same way. The intent is one
durable row; the worker that carries it out is started again by the next tick when it died half-way; its
report is taken in once. No Circus lock is held meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, liveness
from circus_failover.agent import NOWHERE, Agent, Ticket
from circus_failover.records import ActionRow
from circus_failover.store import Store, StoreError
from circus_failover.words import Asked, Cause, IntentAction, Liveness, ParkedBy, Phase, WakeAsked
from circus_failover.workforce import whereabouts

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

CAUSES = {
    IntentAction.STOP: Cause.OPERATOR_STOP,
    IntentAction.PARK: Cause.PARKED,
    IntentAction.FRESH: Cause.FRESH,
    IntentAction.RESTART: Cause.OPERATOR_RESTART,
    IntentAction.REMOVE: Cause.REMOVED,
    IntentAction.STUCK: Cause.STUCK,
    IntentAction.SWITCH: Cause.SWITCHED,
    IntentAction.LIMIT: Cause.LIMITED,
}
_RANK = {
    intent: rank
    for rank, intent in enumerate(
        (
            *(IntentAction.CLEAR, IntentAction.STUCK, IntentAction.LIMIT, IntentAction.SWITCH),
            *(IntentAction.PARK, IntentAction.RESTART, IntentAction.FRESH, IntentAction.STOP),
            IntentAction.REMOVE,
        )
    )
}
PARKED_BY = {
    IntentAction.STOP: ParkedBy.OPERATOR_STOP,
    IntentAction.RESTART: ParkedBy.OPERATOR_RESTART,
    IntentAction.PARK: ParkedBy.PARK,
    IntentAction.SWITCH: ParkedBy.SWITCH,
    IntentAction.LIMIT: ParkedBy.LIMIT,
}


class Endings:
    """The deliberate ends of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    # -- intents ---------------------------------------------------------------------------------

    def end(
        self,
        agent: Agent,
        intent: IntentAction,
        who: str,
        why: str,
        parked_by: ParkedBy | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the intent to end an agent, and have a worker carry it out; returns at once.

        An agent that does not run gets the intent alone: a `stop` makes it `stopped` whatever its
        phase was.

        Args:
            agent: whom.
            intent: what for.
            who: who asked.
            why: what was asked, or found.
            parked_by: whose park it is, where the intent alone does not say.
            detail: what whoever follows up the end is to know, as JSON takes it.

        Raises:
            StoreError: the intent could not be written, so nothing is ended.
        """
        self._supervisor.check(agent)
        if agent.action is not None:
            self._overtake(agent, intent, who, why, parked_by, detail or {})
            return
        if not self._runs(agent):
            self._ended_already(agent, intent, who, why)
            return
        action = self._action(agent, intent, who, why, then=None)
        action.spec.update(detail or {}, parked_by=str(parked_by) if parked_by else None)
        stored: list[ActionRow] = []
        self._supervisor.record(
            agent,
            str(intent),
            {
                **_told(intent, detail or {}),
                "who": who,
                "why": why,
                "cause": CAUSES[intent],
                "parked_by": parked_by and str(parked_by),
            },
            durable=True,
            must=True,
            writes=lambda store: stored.append(store.add_action(action)),
            phase=Phase.STOPPING,
            cause=CAUSES[intent],
            reason=f"{why} ({who})",
            stay_stopped=intent is IntentAction.STOP or agent.row.stay_stopped,
        )
        crashpoint.reached("intent-written")
        self._supervisor.watches.meant(agent)
        self._supervisor.deliveries.interrupt(agent)
        agent.starting = None
        agent.action = stored[0]
        self._supervisor.workforce.work(agent)

    def clear(
        self,
        agent: Agent,
        then: str | None,
        verdict: str | None = None,
        *,
        told: bool = False,
        cause: Cause | None = None,
    ) -> None:
        """Have what is left of a dead launch cleared away, and learn how it ended.

        Args:
            agent: whose launch it was; its phase does not change.
            then: `start` when the agent is to be started afterwards, also by a later circusd.
            verdict: why the launch failed, when that was our own judgement of something that still ran;
                then how it ends now says nothing about it.
            told: the verdict says all there is to say: what the screen showed last would mislead.
            cause: how the launch ended, where the verdict knows that better than its end.
        """
        if agent.action is not None:
            return
        action = self._action(
            agent, IntentAction.CLEAR, "circusd", "what is left of a launch that ended", then
        )
        action.spec.update(verdict=verdict, told=told, cause=cause and str(cause))
        stored: list[ActionRow] = []
        try:
            self._supervisor.record(
                agent,
                "clear",
                {},
                durable=True,
                must=True,
                writes=lambda store: stored.append(store.add_action(action)),
            )
        except StoreError as error:
            logger.error("circus-failover: %s", error)
            return
        agent.action = stored[0]
        self._supervisor.workforce.work(agent)

    def then_start(self, agent: Agent, ticket: Ticket) -> None:
        """Let the agent be started once what is left of its last launch is cleared, also by a successor.

        Args:
            agent: whom.
            ticket: who asked, in whose name, and what for.
        """
        action = agent.action
        if action is None or action.intent != IntentAction.CLEAR or self._supervisor.store is None:
            return
        asked = [str(ticket.asked), ticket.who, str(ticket.wake), ticket.topic]
        agent.action = replace(action, spec={**action.spec, "then": "start", "ticket": asked})
        with self._supervisor.store.decision(durable=True):
            self._supervisor.store.change_spec(action.id, agent.action.spec)

    def _runs(self, agent: Agent) -> bool:
        """Say whether there is, or may be, anything to end."""
        if agent.phase in (Phase.UP, Phase.STARTING, Phase.STOPPING):
            return agent.row.generation > 0
        found = liveness.recorded(agent.row)
        return found is not None and found.liveness is not Liveness.DEAD

    def _overtake(
        self,
        agent: Agent,
        intent: IntentAction,
        who: str,
        why: str,
        parked_by: ParkedBy | None,
        detail: Mapping[str, Any],
    ) -> None:
        """Let the end that is under way serve a stronger wish; a weaker or equal one joins it."""
        action = agent.action
        assert action is not None
        if _RANK[intent] <= _RANK[IntentAction(action.intent)]:
            return
        spec = {**action.spec, **detail, "parked_by": str(parked_by) if parked_by else None}

        def writes(store: Store) -> None:
            store.change_intent(action.id, str(intent), who, why)
            store.change_spec(action.id, spec)

        self._supervisor.record(
            agent,
            str(intent),
            {**_told(intent, detail), "who": who, "why": why, "instead_of": action.intent},
            durable=True,
            must=True,
            writes=writes,
            phase=Phase.STOPPING,
            cause=CAUSES[intent],
            reason=f"{why} ({who})",
            stay_stopped=intent is IntentAction.STOP or agent.row.stay_stopped,
        )
        self._supervisor.watches.meant(agent)
        agent.action = self._store().open_action(agent.identity) or action

    def _ended_already(self, agent: Agent, intent: IntentAction, who: str, why: str) -> None:
        # Nothing of it runs: one that is on its way to another account goes there no more.
        void = self._supervisor.switches.void(agent)
        if intent is IntentAction.STOP:
            self._supervisor.record(
                agent,
                "stop",
                {"who": who, "why": why, "cause": Cause.OPERATOR_STOP},
                durable=True,
                must=True,
                phase=Phase.STOPPED,
                cause=Cause.OPERATOR_STOP,
                reason=f"{why} ({who})",
                stay_stopped=True,
                **void,
            )
        elif intent is IntentAction.PARK:
            # No launch is ended, so nothing is there to resume; but no policy brings it back any more.
            rests = agent.phase in (Phase.STOPPED, Phase.PARKED)
            changes: dict[str, Any] = (
                {} if rests else {"phase": Phase.PARKED, "cause": Cause.PARKED, "reason": f"{why} ({who})"}
            )
            self._supervisor.record(
                agent, "park", {"who": who, "why": why}, durable=True, must=True, **{**void, **changes}
            )
        elif intent is IntentAction.FRESH:
            self._supervisor.record(
                agent,
                "fresh",
                {"who": who, "why": why},
                durable=True,
                must=True,
                writes=lambda store: self._supervisor.deliveries.begin_afresh(agent, store, who),
                **void,
                **afresh(),
            )
            self._supervisor.deliveries.reload(agent)
            self._supervisor.switches.now_on(agent)
            self._supervisor.spawn(self._supervisor.bring_up.start(agent, who, asked=Asked.WAKE))
            return
        else:
            fields = {"who": who, "why": why}
            self._supervisor.record(agent, str(intent), fields, durable=True, must=True, **void)
            if intent is IntentAction.REMOVE:
                agent.leave()
        if void:
            self._supervisor.switches.now_on(agent)
        if not agent.watcher.is_stopped():
            self._supervisor.stop_watcher(agent)

    def _action(self, agent: Agent, intent: IntentAction, who: str, why: str, then: str | None) -> ActionRow:
        """Return the action row: the intent, and all that a worker needs, also after circusd died."""
        row, state, settings = agent.row, self._supervisor.state, agent.settings
        if state is None:
            raise StoreError(self._supervisor.hindrance.reason if self._supervisor.hindrance else "no store")
        spec: dict[str, Any] = {
            "identity": agent.identity,
            "generation": row.generation,
            "launch": row.launch,
            **whereabouts(agent),
            "socket": row.socket or str(agent.socket),
            "session": row.session or agent.session or agent.identity,
            "stop_secs": settings.stop_secs if settings else 10.0,
            "spool": str(state.spool),
            "lock": str(state.agent_lock(agent.identity)),
            "own_server": row.own_server,
            "runtime": row.runtime,
            "home": row.home,
            "state_dir": str(state.path),
            "intent": str(intent),
            "then": then,
        }
        return ActionRow(
            id=0,
            identity=agent.identity,
            generation=row.generation,
            intent=str(intent),
            who=who,
            why=why,
            asked_at=time.time(),
            spec=spec,
        )

    def _store(self) -> Store:
        store = self._supervisor.store
        if store is None:
            raise StoreError("there is no store")
        return store


def _told(intent: IntentAction, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the line of an intent says further."""
    if intent is IntentAction.SWITCH:
        return {"action": "asked", "from": detail.get("from"), "to": detail.get("to")}
    return {"until": detail.get("limited_until")} if intent is IntentAction.LIMIT else {}


def afresh() -> dict[str, Any]:
    """Return the columns of an agent whose fresh launch is under way, also for the next circusd."""
    return {
        "phase": Phase.STARTING,
        "cause": Cause.FRESH,
        "pending": str(WakeAsked.FRESH),
        "interrupted": None,
        "limited_until": None,
        **NOWHERE,
    }
