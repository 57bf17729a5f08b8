"""Ending an agent: the intent first, then a worker, then what follows from it.

Only `stop`, `restart` and `rm` end an agent; and what is left of a launch that ended by itself is
cleared in the same way. The intent is one durable row; the worker that carries it out is started again
by the next tick when it died half-way; its report is taken in once. No Circus lock is held meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, liveness
from circus_failover.agent import NOWHERE, UNPARKED, Agent
from circus_failover.records import ActionRow, TaskRow
from circus_failover.store import Store, StoreError
from circus_failover.words import Asked, Cause, IntentAction, Liveness, ParkedBy, Phase, WakeMode
from circus_failover.workforce import whereabouts

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

_CAUSES = {
    IntentAction.STOP: Cause.OPERATOR_STOP,
    IntentAction.PARK: Cause.PARKED,
    IntentAction.FRESH: Cause.FRESH,
    IntentAction.RESTART: Cause.OPERATOR_RESTART,
    IntentAction.REMOVE: Cause.REMOVED,
}
_RANK = {
    intent: rank
    for rank, intent in enumerate(
        (
            *(IntentAction.CLEAR, IntentAction.PARK, IntentAction.RESTART),
            *(IntentAction.FRESH, IntentAction.STOP, IntentAction.REMOVE),
        )
    )
}
_PARKED_BY = {
    IntentAction.STOP: ParkedBy.OPERATOR_STOP,
    IntentAction.RESTART: ParkedBy.OPERATOR_RESTART,
    IntentAction.PARK: ParkedBy.PARK,
}


class Endings:
    """The deliberate ends of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    # -- intents ---------------------------------------------------------------------------------

    def end(
        self, agent: Agent, intent: IntentAction, who: str, why: str, parked_by: ParkedBy | None = None
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

        Raises:
            StoreError: the intent could not be written, so nothing is ended.
        """
        self._supervisor.check(agent)
        if agent.action is not None:
            self._overtake(agent, intent, who, why)
            return
        if not self._runs(agent):
            self._ended_already(agent, intent, who, why)
            return
        action = self._action(agent, intent, who, why, then=None)
        action.spec["parked_by"] = str(parked_by) if parked_by else None
        stored: list[ActionRow] = []
        self._supervisor.record(
            agent,
            str(intent),
            {"who": who, "why": why, "cause": _CAUSES[intent], "parked_by": parked_by and str(parked_by)},
            durable=True,
            must=True,
            writes=lambda store: stored.append(store.add_action(action)),
            phase=Phase.STOPPING,
            cause=_CAUSES[intent],
            reason=f"{why} ({who})",
            stay_stopped=intent is IntentAction.STOP or agent.row.stay_stopped,
        )
        crashpoint.reached("intent-written")
        self._supervisor.deliveries.interrupt(agent)
        agent.starting = None
        agent.action = stored[0]
        self._supervisor.workforce.work(agent)

    def clear(self, agent: Agent, then: str | None, verdict: str | None = None) -> None:
        """Have what is left of a dead launch cleared away, and learn how it ended.

        Args:
            agent: whose launch it was; its phase does not change.
            then: `start` when the agent is to be started afterwards, also by a later circusd.
            verdict: why the launch failed, when that was our own judgement of something that still ran;
                then how it ends now says nothing about it.
        """
        if agent.action is not None:
            return
        action = self._action(
            agent, IntentAction.CLEAR, "circusd", "what is left of a launch that ended", then
        )
        action.spec["verdict"] = verdict
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

    def then_start(self, agent: Agent) -> None:
        """Let the agent be started once what is left of its last launch is cleared, also by a successor."""
        action = agent.action
        if action is None or action.intent != IntentAction.CLEAR or self._supervisor.store is None:
            return
        agent.action = replace(action, spec={**action.spec, "then": "start"})
        with self._supervisor.store.decision(durable=True):
            self._supervisor.store.change_spec(action.id, agent.action.spec)

    def _runs(self, agent: Agent) -> bool:
        """Say whether there is, or may be, anything to end."""
        if agent.phase in (Phase.UP, Phase.STARTING, Phase.STOPPING):
            return agent.row.generation > 0
        found = liveness.recorded(agent.row)
        return found is not None and found.liveness is not Liveness.DEAD

    def _overtake(self, agent: Agent, intent: IntentAction, who: str, why: str) -> None:
        """Let the end that is under way serve a stronger wish; a weaker or equal one joins it."""
        action = agent.action
        assert action is not None
        if _RANK[intent] <= _RANK[IntentAction(action.intent)]:
            return
        self._supervisor.record(
            agent,
            str(intent),
            {"who": who, "why": why, "instead_of": action.intent},
            durable=True,
            must=True,
            writes=lambda store: store.change_intent(action.id, str(intent), who, why),
            phase=Phase.STOPPING,
            cause=_CAUSES[intent],
            reason=f"{why} ({who})",
            stay_stopped=intent is IntentAction.STOP or agent.row.stay_stopped,
        )
        agent.action = self._store().open_action(agent.identity) or action

    def _ended_already(self, agent: Agent, intent: IntentAction, who: str, why: str) -> None:
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
            )
        elif intent is IntentAction.PARK:
            # No launch is ended, so nothing is there to resume; but no policy brings it back any more.
            rests = agent.phase in (Phase.STOPPED, Phase.PARKED)
            changes: dict[str, Any] = (
                {} if rests else {"phase": Phase.PARKED, "cause": Cause.PARKED, "reason": f"{why} ({who})"}
            )
            self._supervisor.record(
                agent, "park", {"who": who, "why": why}, durable=True, must=True, **changes
            )
        elif intent is IntentAction.FRESH:
            self._supervisor.record(
                agent,
                "fresh",
                {"who": who, "why": why},
                durable=True,
                must=True,
                writes=lambda store: self._begin_afresh(agent, store, who),
                **self._afresh(agent),
            )
            self._supervisor.deliveries.reload(agent)
            self._supervisor.spawn(self._supervisor.bring_up.start(agent, who, asked=Asked.WAKE))
            return
        else:
            self._supervisor.record(agent, str(intent), {"who": who, "why": why}, durable=True, must=True)
        if not agent.watcher.is_stopped():
            self._supervisor.stop_watcher(agent)

    def _afresh(self, agent: Agent) -> dict[str, Any]:
        """Return the columns of an agent whose fresh launch is under way, also for the next circusd."""
        return {
            "phase": Phase.STARTING,
            "cause": Cause.FRESH,
            "pending": str(WakeMode.FRESH),
            **NOWHERE,
            **UNPARKED,
        }

    def _begin_afresh(self, agent: Agent, store: Store, who: str) -> None:
        if agent.settings is not None and agent.settings.initial_prompt is not None:
            self._supervisor.deliveries.begin_with(agent, store, agent.settings.initial_prompt, who)

    def _parked(self, agent: Agent, action: ActionRow, intent: IntentAction, at: float) -> dict[str, Any]:
        """Return the columns of the park that an end is: what its wake resumes was proven ready."""
        by = action.spec.get("parked_by") or str(_PARKED_BY[intent])
        kept = agent.row.parked_conversation if agent.row.parked_by is not None else None
        conversation = agent.row.conversation if agent.row.ready_at is not None else kept
        return {"parked_by": by, "parked_at": at, "parked_conversation": conversation}

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

    # -- reports ---------------------------------------------------------------------------------

    def ended(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Take in a worker's report, once, and let follow what the intent says."""
        store = self._supervisor.store
        if store is None:
            raise StoreError("there is no store")
        if report["outcome"] == "failed":
            logger.error("circus-failover: worker of %s: %s", report["identity"], report.get("reason"))
            return
        if agent is None or agent.action is None or agent.action.id != report["action"]:
            with store.decision(durable=True):
                store.take_in(name, time.time())
                store.finish_action(int(report["action"]), float(report["at"]), str(report["outcome"]))
            if self._supervisor.state is not None:
                self._supervisor.state.worker_spec(int(report["action"])).unlink(missing_ok=True)
                self._supervisor.state.worker_tree(int(report["action"])).unlink(missing_ok=True)
            return
        action = agent.action
        intent = IntentAction(action.intent)
        # A StoreError leaves the report in the spool and the action open: the next tick takes it in.
        if intent is IntentAction.CLEAR:
            self._cleared(agent, action, name, report)
        else:
            self._ended(agent, action, intent, name, report)
        agent.action = None
        self._supervisor.workforce.done(action.id)
        agent.wake_waiters()
        crashpoint.reached("report-taken-in")
        self._tidy(action)
        self._supervisor.spawn(self._follow(agent, action, intent))

    def _finish(self, store: Store, action: ActionRow, name: str, report: dict[str, Any]) -> None:
        store.take_in(name, time.time())
        store.finish_action(action.id, float(report["at"]), str(report["outcome"]))
        store.update_launch(
            action.identity,
            action.generation,
            exit_status=report.get("exit_status"),
            exit_signal=report.get("exit_signal"),
        )
        if report.get("last_output"):
            store.update_launch(action.identity, action.generation, last_output=report["last_output"])

    def _ended(
        self, agent: Agent, action: ActionRow, intent: IntentAction, name: str, report: dict[str, Any]
    ) -> None:
        cause = _CAUSES[intent]

        def writes(store: Store) -> None:
            self._finish(store, action, name, report)
            store.end_launch(
                action.identity, action.generation, at=float(report["at"]), planned=True, cause=str(cause)
            )
            if intent is IntentAction.FRESH:
                self._begin_afresh(agent, store, action.who)

        phases = {IntentAction.STOP: Phase.STOPPED, IntentAction.PARK: Phase.PARKED}
        changes: dict[str, Any] = {"phase": phases.get(intent, Phase.DOWN)}
        if agent.row.generation == action.generation:
            # Also the next circusd, should this one die here, brings it back: a start was under way.
            if intent is IntentAction.RESTART:
                changes.update(phase=Phase.STARTING, **NOWHERE)
            elif intent is IntentAction.FRESH:
                changes.update(self._afresh(agent))
            if intent in _PARKED_BY:
                changes.update(self._parked(agent, action, intent, float(report["at"])))
        agent.last_cause = str(cause)
        self._supervisor.pids.forget(agent.identity)
        self._supervisor.record(
            agent,
            "stopped",
            {
                "intent": str(intent),
                "outcome": report["outcome"],
                "killed": len(report.get("killed", ())),
                "secs": report.get("secs"),
                "note": report.get("reason") or None,
                "parked_by": changes.get("parked_by"),
            },
            durable=True,
            must=True,
            writes=writes,
            reason=report.get("reason") or f"{action.why} ({action.who})",
            **{"cause": cause, **changes},
        )
        if intent is IntentAction.FRESH:
            self._supervisor.deliveries.reload(agent)
            self._supervisor.supervise(
                agent,
                "eager-fresh",
                age=self._age(agent, report),
                outcome="fresh-next-wake",
                evidence=action.who,
            )

    def _age(self, agent: Agent, report: dict[str, Any]) -> float | None:
        """Return for how long the launch that ended had been ready."""
        return float(report["at"]) - agent.row.ready_at if agent.row.ready_at is not None else None

    def _cleared(self, agent: Agent, action: ActionRow, name: str, report: dict[str, Any]) -> None:
        """A launch had ended by itself; now it is known how."""
        status, number = report.get("exit_status"), report.get("exit_signal")
        known = self._supervisor.store.launches(agent.identity, 1) if self._supervisor.store else []
        was = known[0].end_cause if known else None
        failed = was == str(Cause.LAUNCH_FAILED)
        cause = Cause.LAUNCH_FAILED if failed else _how(status, number)
        screen = str(report.get("last_output") or (known[0].last_output if known else "") or "")
        verdict = action.spec.get("verdict")
        what = f"the launch failed: {verdict}" if verdict else _how_it_ended(failed, status, number)
        reason = _with_last_line(what, screen)

        def writes(store: Store) -> None:
            self._finish(store, action, name, report)
            if was in (str(Cause.ENDED_UNKNOWN), str(Cause.LAUNCH_FAILED)):
                store.update_launch(action.identity, action.generation, end_cause=str(cause))

        changes: dict[str, Any] = {}
        if was in (str(Cause.ENDED_UNKNOWN), str(Cause.LAUNCH_FAILED)) and agent.phase in (
            Phase.DOWN,
            Phase.STOPPED,
        ):
            changes = {"cause": cause, "reason": reason}
            agent.last_cause = str(cause)
            self._supervisor.log_exit(agent, cause, status, number)
        unplanned = bool(known and known[0].generation == action.generation and not known[0].planned)
        self._supervisor.record(
            agent,
            "cleared",
            {"cause": cause, "status": status, "signal": number, "outcome": report["outcome"]},
            durable=True,
            must=True,
            writes=writes,
            **changes,
        )
        if unplanned:
            self._supervisor.reaped(agent, str(cause), _how_it_ended(False, status, number))
            self._supervisor.crash_loops.ended(agent)

    async def _follow(self, agent: Agent, action: ActionRow, intent: IntentAction) -> None:
        """After an end: the watcher stops, and a restart, a removal or a start follows."""
        supervisor = self._supervisor
        if intent is IntentAction.REMOVE:
            await self.remove(agent)
            return
        if agent.phase is not Phase.UP:
            await supervisor.turns.run(lambda: None if agent.watcher.is_stopped() else agent.watcher.stop())
            agent.wake_waiters()
        if intent is IntentAction.RESTART:
            await supervisor.bring_up.start(agent, action.who)
        elif intent is IntentAction.FRESH:
            await supervisor.bring_up.start(agent, action.who, asked=Asked.WAKE)
        elif intent is IntentAction.CLEAR and action.spec.get("then") == "start":
            await supervisor.bring_up.start(agent, action.who, asked=Asked.RESTORE)

    async def remove(self, agent: Agent) -> list[TaskRow]:
        """Take an agent's watcher out of Circus; its history stays, its tasks are cancelled and returned."""
        name = agent.watcher.name
        deliveries = self._supervisor.deliveries
        cancelled = deliveries.cancel(agent, deliveries.waiting(agent), "its agent was removed", "rm")
        await self._supervisor.turns.run(lambda: self._supervisor.arbiter.rm_watcher(name))
        # What it was is history: an agent of the same name that comes later begins with nothing of it.
        self._supervisor.record(
            agent,
            "removed",
            {},
            durable=True,
            phase=Phase.DOWN,
            cause=Cause.REMOVED,
            reason=None,
            declared=False,
            stay_stopped=False,
            born=agent.row.generation,
            conversation=None,
            ready_conversation=None,
            ready_at=None,
            pending=None,
            loop="closed",
            loop_until=None,
            loop_failures=0,
            loop_from=agent.row.generation,
            last_task=None,
            **NOWHERE,
            **UNPARKED,
        )
        self._supervisor.roster.forget(agent.identity)
        return cancelled

    def _tidy(self, action: ActionRow) -> None:
        state = self._supervisor.state
        if state is not None:
            state.worker_spec(action.id).unlink(missing_ok=True)
            state.worker_tree(action.id).unlink(missing_ok=True)
            state.launch_file(action.identity, action.generation).unlink(missing_ok=True)
            error = state.launch_error(action.identity, action.generation)
            error.unlink(missing_ok=True)


def _how(status: int | None, number: int | None) -> Cause:
    if number is not None:
        return Cause.SIGNALED
    return Cause.EXITED if status is not None else Cause.SESSION_GONE


def _how_it_ended(failed: bool, status: int | None, number: int | None) -> str:
    """Say in words how a launch ended."""
    what = "the launch failed: " if failed else ""
    if number is not None:
        return f"{what}ended by signal {number}"
    if status is not None:
        return f"{what}ended with exit status {status}"
    return f"{what}ended, and its session was gone"


def _with_last_line(what: str, screen: str) -> str:
    """Add the last line that a launch showed."""
    lines = [line.strip() for line in screen.splitlines() if line.strip()]
    return f"{what}; last output: {lines[-1]}" if lines else what
