"""What follows from an end: its report is taken in, once, and a restart, a removal or a fresh launch follows.

An end that was asked for closes its launch as planned, but for that of an agent that was stuck; of one that
came by itself it is known now how it came, and that is counted. Nothing is ended here.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, process_table, stuck_agents
from circus_failover.agent import COARSE_SECS, NOWHERE, UNPARKED, Agent, Ticket
from circus_failover.endings import CAUSES, PARKED_BY, afresh
from circus_failover.records import ActionRow, TaskRow
from circus_failover.spool import Later
from circus_failover.store import Store, StoreError
from circus_failover.words import Asked, Cause, FaultKind, IntentAction, Phase, State, WakeAsked, WakeMode

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

_LACKED = {
    FaultKind.USAGE_LIMIT: Cause.USAGE_LIMIT,
    FaultKind.CREDIT: Cause.USAGE_LIMIT,
    FaultKind.CREDENTIALS: Cause.CREDENTIALS,
}


@dataclass(frozen=True)
class _Death:
    """How a launch ended that nobody ended."""

    cause: Cause
    reason: str
    evidence: str
    new: bool
    """It was not known until now."""
    status: int | None
    number: int | None
    screen: str | None = None
    """What it showed last."""


class Aftermath:
    """Takes in the ends of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def ended(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Take in a worker's report, once, and let follow what the intent says.

        Raises:
            Later: no section names the agent; when one does again, the end is still what somebody asked for.
        """
        store = self._supervisor.store
        if store is None:
            raise StoreError("there is no store")
        if report["outcome"] == "failed":
            logger.error("circus-failover: worker of %s: %s", report["identity"], report.get("reason"))
            return
        if agent is None:
            open_end = store.open_action(report["identity"])
            if open_end is not None and open_end.id == report["action"]:
                raise Later
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
        if intent is IntentAction.REMOVE:
            agent.leave()
        agent.action = None
        self._supervisor.workforce.done(action.id)
        self._supervisor.watches.settle()
        agent.wake_waiters()
        self._supervisor.assignments.look(agent)
        crashpoint.reached("report-taken-in")
        self._tidy(action)
        self._supervisor.spawn(self._follow(agent, action, intent))

    def _finish(
        self, store: Store, action: ActionRow, name: str, report: dict[str, Any], died: _Death | None
    ) -> None:
        store.take_in(name, time.time())
        store.finish_action(action.id, float(report["at"]), str(report["outcome"]))
        status, number = report.get("exit_status"), report.get("exit_signal")
        if status is not None or number is not None:
            # What a second worker does not find any more is known from the first.
            store.update_launch(action.identity, action.generation, exit_status=status, exit_signal=number)
        if report.get("last_output"):
            store.update_launch(action.identity, action.generation, last_output=report["last_output"])
        if died is not None and died.new:
            store.update_launch(action.identity, action.generation, end_cause=str(died.cause))
            if report.get("ended_at") is not None and action.asked_at - report["ended_at"] > COARSE_SECS:
                # While no circusd ran it was not noticed when.
                store.launch_ended_earlier(action.identity, action.generation, float(report["ended_at"]))

    def _ended(
        self, agent: Agent, action: ActionRow, intent: IntentAction, name: str, report: dict[str, Any]
    ) -> None:
        """What somebody asked for is carried out; or it came when the launch had just ended by itself."""
        cause, died = CAUSES[intent], self._judge(agent, action, report)

        def writes(store: Store) -> None:
            self._finish(store, action, name, report, died)
            if died is None:
                at = float(report["at"])
                planned = intent is not IntentAction.STUCK
                store.end_launch(action.identity, action.generation, at=at, planned=planned, cause=str(cause))
            if intent is IntentAction.FRESH:
                self._supervisor.deliveries.begin_afresh(agent, store, action.who)

        phases = {IntentAction.STOP: Phase.STOPPED, IntentAction.PARK: Phase.PARKED}
        # A launch that was on its way to another account goes there no more, whatever has ended it.
        void = self._supervisor.switches.void(agent)
        changes: dict[str, Any] = {"phase": phases.get(intent, Phase.DOWN), "uncleared": None, **void}
        if agent.row.generation == action.generation:
            # Also the next circusd, should this one die here, brings it back: a start was under way.
            if intent is IntentAction.RESTART:
                changes.update(phase=Phase.STARTING, **NOWHERE)
            elif intent is IntentAction.FRESH:
                changes.update(afresh())
            if intent in PARKED_BY and died is None:
                changes.update(self._parked(agent, action, intent, float(report["at"])))
            if intent is IntentAction.SWITCH and died is None:
                changes.update(self._supervisor.switches.ended(agent, action))
            elif intent is IntentAction.LIMIT and died is None:
                changes.update(_limited(action))
        if died is not None and intent in (IntentAction.SWITCH, IntentAction.LIMIT):
            # It was gone before it could be ended: its restart policy says what follows.
            changes.update(cause=died.cause)
        agent.last_cause = str(cause if died is None else died.cause)
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
        if died is not None:
            self._count(agent, died)
        elif intent is IntentAction.STUCK:
            stuck_agents.ended(self._supervisor, agent, action, report)
        elif intent is IntentAction.SWITCH:
            self._supervisor.switches.is_ended(agent, action)
        if void:
            self._supervisor.switches.now_on(agent)
        if intent is IntentAction.FRESH:
            self._supervisor.deliveries.reload(agent)
            age = float(report["at"]) - agent.row.ready_at if agent.row.ready_at is not None else None
            self._supervisor.supervise(
                agent, "eager-fresh", age=age, outcome="fresh-next-wake", evidence=action.who
            )

    def _cleared(self, agent: Agent, action: ActionRow, name: str, report: dict[str, Any]) -> None:
        """A launch had ended by itself; now it is known how."""
        died = self._judge(agent, action, report)
        changes: dict[str, Any] = {"uncleared": None}
        if died is not None and died.new:
            agent.last_cause = str(died.cause)
            if agent.phase in (Phase.DOWN, Phase.STOPPED):
                changes.update(cause=died.cause, reason=died.reason)
            elif agent.row.cause == str(Cause.SWITCH_FAILED):
                changes.update(reason=f"{agent.row.reason}; {died.reason}")
        self._supervisor.record(
            agent,
            "cleared",
            {
                "cause": died.cause if died is not None else None,
                "status": report.get("exit_status"),
                "signal": report.get("exit_signal"),
                "outcome": report["outcome"],
                "killed": len(report.get("killed", ())),
                "note": report.get("reason") or None,
            },
            durable=True,
            must=True,
            writes=lambda store: self._finish(store, action, name, report, died),
            **changes,
        )
        if died is not None:
            self._count(agent, died)

    def _judge(self, agent: Agent, action: ActionRow, report: dict[str, Any]) -> _Death | None:
        """Return how a launch ended by itself; None when it did not, but was ended."""
        store = self._supervisor.store
        known = store.launches(agent.identity, 1) if store is not None else []
        launch = known[0] if known else None
        if (
            launch is None
            or launch.generation != action.generation
            or launch.ended_at is None
            or launch.planned
        ):
            return None
        status, number = report.get("exit_status"), report.get("exit_signal")
        was, failed = launch.end_cause, launch.end_cause == str(Cause.LAUNCH_FAILED)
        if was not in (str(Cause.ENDED_UNKNOWN), str(Cause.LAUNCH_FAILED)):
            return _Death(Cause(str(was)), str(was), "", False, status, number)
        server = agent.row.server
        if (
            status is None
            and number is None
            and agent.row.launch
            and server
            and not process_table.may_run(server)
        ):
            # A server that is killed closes its terminals first: the agent was seen to be gone before it was.
            evidence = "its tmux server is gone"
            return _Death(Cause.SERVER_LOST, evidence, evidence, True, None, None)
        lives_on = bool(report.get("session_lives_on"))
        verdict, evidence = action.spec.get("verdict"), _how_it_ended(status, number, lives_on)
        what = f"the launch failed: {verdict or evidence}" if failed else evidence
        told = bool(action.spec.get("told"))
        screen = str(report.get("last_output") or launch.last_output or "")
        # Of a launch that showed nothing its verdict is what was kept as its last output.
        reason = what if told or screen == verdict else _with_last_line(what, screen)
        if failed and not told and launch.mode == str(WakeMode.RESUME):
            reason += f"; it was a resume: `wake {agent.identity} --fresh` begins a new conversation"
        if failed:
            cause = Cause(action.spec.get("cause") or Cause.LAUNCH_FAILED)
        else:
            cause = _how(status, number, lives_on)
        lacked = _lacked(agent, launch.ended_at) if cause is Cause.EXITED else None
        if lacked is not None:
            cause, seen = lacked
            reason, evidence = f"{reason}; before that {seen}", f"{evidence}; before that {seen}"
        return _Death(cause, reason, evidence, True, status, number, report.get("last_output"))

    def _count(self, agent: Agent, died: _Death) -> None:
        """It is known how a launch ended by itself: that is said, and may hold the agent."""
        if died.new:
            if died.cause is Cause.SERVER_LOST:
                self._supervisor.watches.lost(agent)
                return
            self._supervisor.log_exit(agent, died.cause, died.status, died.number, died.screen)
            self._supervisor.reaped(agent, str(died.cause), died.evidence)
            self._supervisor.crash_loops.ended(agent)

    async def _follow(self, agent: Agent, action: ActionRow, intent: IntentAction) -> None:
        """After an end: the watcher stops, and a restart, a removal or a start follows."""
        supervisor = self._supervisor
        # What was being typed into this launch waits for the next; a tick makes good what fails here.
        with contextlib.suppress(StoreError):
            supervisor.deliveries.work(agent)
        if intent is IntentAction.REMOVE:
            await self.remove(agent)
            return
        if agent.phase is not Phase.UP:

            def stop() -> Any:
                # By this turn circusd's own start may have launched it anew, and that keeper is at work.
                over = agent.watcher.is_stopped() or agent.row.generation != action.generation
                return None if over else agent.watcher.stop()

            await supervisor.turns.run(stop)
            agent.wake_waiters()
        if intent is IntentAction.RESTART:
            await supervisor.bring_up.start(agent, action.who)
        elif intent is IntentAction.FRESH:
            await supervisor.bring_up.start(agent, action.who, asked=Asked.WAKE)
        elif intent is IntentAction.STUCK:
            await stuck_agents.bring_back(supervisor, agent, action)
        elif intent is IntentAction.SWITCH:
            await supervisor.switches.carry_on(agent, action.who)
        elif intent is IntentAction.CLEAR and action.spec.get("then") == "start":
            ticket = _ticket(action)
            await supervisor.bring_up.start(
                agent, ticket.who, asked=ticket.asked, wake=ticket.wake, topic=ticket.topic
            )

    async def remove(self, agent: Agent) -> list[TaskRow]:
        """Take an agent's watcher out of Circus; its history stays, its tasks are cancelled and returned."""
        supervisor, watcher = self._supervisor, agent.watcher
        # At circusd's start its turn to be started may still come: `hooks.enrol` looks at this.
        agent.leave()
        waiting = supervisor.deliveries.waiting(agent)
        cancelled = supervisor.deliveries.cancel(agent, waiting, "its agent was removed", "rm")
        await supervisor.turns.run(
            lambda: (
                supervisor.arbiter.rm_watcher(watcher.name)
                if watcher in supervisor.arbiter.watchers
                else None
            )
        )
        if supervisor.roster.agents.get(agent.identity) is not agent:
            return cancelled
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
            uncleared=None,
            switched_to=None,
            switched_from=None,
            switching=None,
            limited_until=None,
            interrupted=None,
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

    def _parked(self, agent: Agent, action: ActionRow, intent: IntentAction, at: float) -> dict[str, Any]:
        """Return the columns of the park that an end is: what its wake resumes was proven ready."""
        by = action.spec.get("parked_by") or str(PARKED_BY[intent])
        kept = agent.row.parked_conversation if agent.row.parked_by is not None else None
        conversation = agent.row.conversation if agent.row.ready_at is not None else kept
        return {"parked_by": by, "parked_at": at, "parked_conversation": conversation}


def _ticket(action: ActionRow) -> Ticket:
    """Return who wants the start that follows; where nobody said so it is the fleet as it was."""
    given = action.spec.get("ticket")
    if given is None:
        return Ticket(Asked.RESTORE, action.who)
    asked, who, wake, topic = given
    return Ticket(Asked(asked), who, WakeAsked(wake), topic)


def _limited(action: ActionRow) -> dict[str, Any]:
    """Return the columns of an agent that was ended since nothing can be done on its account."""
    until = action.spec.get("limited_until")
    return {
        "phase": Phase.PARKED if until is None else Phase.HELD,
        "limited_until": until,
        "interrupted": str(Cause.LIMITED),
    }


def _lacked(agent: Agent, ended_at: float) -> tuple[Cause, str] | None:
    """Return for want of what an agent did not get on when it exited, and what said so; None: of nothing."""
    seen = agent.last_look()
    if seen is None or not seen.holds(ended_at) or seen.health.state not in (State.LIMITED, State.WAITING):
        return None
    cause = _LACKED.get(seen.health.fault.kind) if seen.health.fault is not None else None
    return None if cause is None else (cause, seen.health.evidence)


def _how(status: int | None, number: int | None, lives_on: bool) -> Cause:
    if number is not None:
        return Cause.SIGNALED
    if status is not None:
        return Cause.EXITED
    return Cause.ENDED_UNKNOWN if lives_on else Cause.SESSION_GONE


def _how_it_ended(status: int | None, number: int | None, lives_on: bool) -> str:
    """Say in words how a launch ended."""
    if number is not None:
        return f"ended by signal {number}"
    if status is not None:
        return f"ended with exit status {status}"
    return "ended, while its session lives on" if lives_on else "ended, and its session was gone"


def _with_last_line(what: str, screen: str) -> str:
    """Add the last line that a launch showed."""
    lines = [line.strip() for line in screen.splitlines() if line.strip()]
    return f"{what}; last output: {lines[-1]}" if lines else what
