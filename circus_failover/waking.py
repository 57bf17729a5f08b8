"""Waking: whether a launch resumes or begins fresh, and the refusals of a wake, in their order.

The decision is `policy.wake`; this module collects what it depends on and says every outcome in
lifecycle.log (`ev=wake`). It launches nothing itself: `bring_up.start` does.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circus_failover import agent_variables
from circus_failover.agent import BEING_REMOVED, Agent
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import takes_id
from circus_failover.policy import wake
from circus_failover.store import StoreError
from circus_failover.words import Asked, Cause, IntentAction, Phase, WakeAsked, WakeCause, WakeMode

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

_LOST = (str(Cause.SERVER_LOST), str(Cause.SERVER_ENDED), str(Cause.HOST_REBOOT))


@dataclass(frozen=True)
class WakePlan:
    """How the next launch begins."""

    mode: WakeMode
    cause: WakeCause
    conversation: str | None
    """Kept by a resume, new for a fresh launch; None: the client chooses it."""
    command: tuple[str, ...]
    parked_by: str | None
    topic: str | None
    asked: str | None
    """What was asked for by name, `fresh` or `resume`; None when the last end decided."""


class Waking:
    """Decides and reports the wakes of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    # -- resume or fresh ---------------------------------------------------------------------------

    def plan(self, agent: Agent, asked: WakeAsked = WakeAsked.NOTHING, topic: str | None = None) -> WakePlan:
        """Return how a launch would begin now.

        Args:
            agent: whose; its settings can be used.
            asked: what the wake asks for; an end that is to be followed by a fresh launch says so itself.
            topic: what it is woken for; None for the topic of the task whose turn is next.
        """
        row = agent.row
        undecided = asked is WakeAsked.NOTHING and row.pending is None
        if undecided and self._supervisor.continuing.unfinished(agent):
            # A turn that was cut off goes on where it was, whatever waits behind it.
            found = self._plan(agent, WakeAsked.RESUME, topic)
            if found.mode is WakeMode.RESUME:
                return found
        if row.pending is not None:
            found = self._plan(agent, WakeAsked(row.pending), topic)
            # What was to be resumed may not be resumable any more: then the last end decides.
            return found if found.mode is not WakeMode.REFUSED else self._plan(agent, asked, topic)
        return self._plan(agent, asked, topic)

    def _plan(self, agent: Agent, asked: WakeAsked, topic: str | None) -> WakePlan:
        settings, row, store = agent.settings, agent.row, self._supervisor.store
        assert settings is not None
        by_name = None if asked is WakeAsked.NOTHING else str(asked)
        if agent.phase is Phase.STARTING and topic is None and store is not None:
            # A launch that circusd's death interrupted is done again for what it was to be for.
            topic = next(
                (launch.topic for launch in store.launches(agent.identity, 1) if not launch.ended_at), None
            )
        topic = topic or self._supervisor.deliveries.next_topic(agent)
        lost = agent.last_cause in _LOST and settings.resume_lost
        resumes = self._resumes(agent, asked, lost)
        runtime = RUNTIMES[settings.runtime]
        command = None
        if resumes is not None:
            home = runtime.home(settings, agent_variables.of_watcher(agent.watcher))
            command = runtime.resume(settings, resumes, home)
        last = None
        if row.generation > row.born:
            last = wake.LastLaunch(lost=lost, parked_at=row.parked_at if row.parked_by else None)
        verdict = wake.decide(
            wake.WakeSettings(settings.kind, settings.resume_lost, settings.resume_max_age_secs),
            asked,
            last,
            command is not None,
            topic,
            bool(resumes and topic and store is not None and store.knows_topic(resumes, topic)),
            time.time(),
        )
        if verdict.mode is WakeMode.RESUME and command is not None and resumes is not None:
            return WakePlan(verdict.mode, verdict.cause, resumes, command, row.parked_by, topic, by_name)
        new = str(uuid.uuid4())
        begin = runtime.fresh(settings, new)
        fresh = new if takes_id(runtime, settings) else None
        return WakePlan(verdict.mode, verdict.cause, fresh, begin, row.parked_by, topic, by_name)

    def _resumes(self, agent: Agent, asked: WakeAsked, lost: bool) -> str | None:
        """Return the conversation that a resume would continue: always one that was proven ready."""
        row = agent.row
        if lost and row.ready_at is not None:
            return row.conversation
        parked = row.parked_conversation if row.parked_by is not None else None
        return parked or row.ready_conversation if asked is WakeAsked.RESUME else parked

    # -- the verb ----------------------------------------------------------------------------------

    async def wake(
        self,
        agent: Agent,
        who: str,
        asked: WakeAsked,
        topic: str | None,
        task: str | None,
        timeout: float,
        waiting: bool = False,
    ) -> dict[str, Any]:
        """Wake an agent, and return the verdict.

        Args:
            agent: whom.
            who: who asked.
            asked: what for: fresh, a resume, or as its last end says.
            topic: what it is woken for, trimmed.
            task: a text that it is to be given when it is ready; it is queued before anything else happens.
            timeout: seconds after which the verdict is what is known by then.
            waiting: also wait until the task was taken.
        """
        until = time.monotonic() + timeout
        supervisor, deliveries = self._supervisor, self._supervisor.deliveries
        supervisor.roster.read_settings(agent)
        supervisor.check(agent)
        if agent.observed:
            return self._refused(
                agent, Cause.OBSERVED, "it is observed: watched and shown, never started", task
            )
        if agent.removed or (agent.action is not None and agent.action.intent == str(IntentAction.REMOVE)):
            return self._refused(agent, Cause.REMOVED, BEING_REMOVED, task)
        if agent.row.stay_stopped:
            reason = f"it was stopped: {agent.row.reason}; `start {agent.identity}` brings it back"
            return self._refused(agent, Cause.STOPPED, reason, task)
        try:
            queued = deliveries.queue(agent, task, topic, who) if task is not None else None
        except StoreError as error:
            reason = f"the task could not be stored, so it is not queued and nothing was woken: {error}"
            return self._refused(agent, Cause.STATE_DIR, reason)
        if agent.waking or agent.starting is not None:
            await self._other_wake(agent, until)
            verdict = self._already(agent, asked, under_way=True)
        elif agent.phase is Phase.UP and agent.action is None:
            verdict = self._already(agent, asked, under_way=False)
        else:
            agent.waking = True
            try:
                verdict = await self._launch(agent, who, asked, topic, until)
            finally:
                agent.waking = False
                agent.wake_waiters()
        if queued is None:
            return verdict
        if waiting and verdict["ok"]:
            return {**verdict, **await deliveries.delivered(agent, queued, until)}
        return {**verdict, **deliveries.promise(queued, bool(verdict["ok"]))}

    async def _launch(
        self, agent: Agent, who: str, asked: WakeAsked, topic: str | None, until: float
    ) -> dict[str, Any]:
        before = agent.row.generation
        verdict = await self._supervisor.bring_up.start(
            agent, who, max(0.0, until - time.monotonic()), Asked.WAKE, asked, topic
        )
        if verdict["already"]:
            return self._already(agent, asked, under_way=True)
        if not verdict["ok"] and agent.row.stay_stopped:
            return self._refused(agent, Cause.STOPPED_MID_WAKE, f"stopped meanwhile: {agent.row.reason}")
        if verdict["refused"] and agent.row.generation == before:
            self.log_refusal(agent, str(verdict["cause"]), str(verdict["reason"]))
        return verdict

    async def _other_wake(self, agent: Agent, until: float) -> None:
        """Wait until the wake that somebody else asked for has come to its end."""
        while agent.waking and time.monotonic() < until:
            await agent.next_change(min(until - time.monotonic(), 0.5))
        await self._supervisor.bring_up.settled(agent, until)

    def _already(self, agent: Agent, asked: WakeAsked, under_way: bool) -> dict[str, Any]:
        """Return the verdict for one who came while it was up, or while somebody else woke it."""
        if agent.row.stay_stopped:
            return self._refused(agent, Cause.STOPPED_MID_WAKE, f"stopped meanwhile: {agent.row.reason}")
        if agent.removed:
            return self._refused(agent, Cause.REMOVED, BEING_REMOVED)
        if agent.phase is Phase.STARTING:
            # Whoever asked does not wait any longer, and hears how far it is.
            return self._supervisor.bring_up.verdict(agent)
        if agent.phase is not Phase.UP:
            reason = f"another wake was under way, and it did not come up: {agent.row.reason}"
            return self._refused(agent, Cause(agent.row.cause or str(Cause.LAUNCH_FAILED)), reason)
        self.log_refusal(agent, str(Cause.ALREADY_LIVE), "it is up")
        verdict = self._supervisor.bring_up.verdict(agent, already=True)
        if asked is not WakeAsked.NOTHING and not under_way:
            remedy = (
                f"`fresh {agent.identity}` ends it and begins anew"
                if asked is WakeAsked.FRESH
                else "park it first"
            )
            return {**verdict, "ok": False, "cause": str(Cause.ALREADY_LIVE), "reason": f"it is up: {remedy}"}
        return verdict

    def _refused(self, agent: Agent, cause: Cause, reason: str, task: str | None = None) -> dict[str, Any]:
        if task is not None:
            reason += "; the task was not queued"
        self.log_refusal(agent, str(cause), reason)
        return {
            **self._supervisor.bring_up.verdict(agent),
            "ok": False,
            "cause": str(cause),
            "reason": reason,
        }

    # -- the log -----------------------------------------------------------------------------------

    def log_refusal(self, agent: Agent, cause: str, reason: str) -> None:
        """Say in log and history that a wake was refused, and why."""
        self._supervisor.record(agent, "wake", self.fields(agent, WakeMode.REFUSED, cause, reason))

    def log_failure(self, agent: Agent, cause: str, reason: str) -> None:
        """Say in log and history that a launch ended before it was ready."""
        self._supervisor.record(agent, "wake", self.fields(agent, WakeMode.FAILED, cause, reason))

    def unknown(self, name: str, reason: str) -> None:
        """Say in the log that somebody wanted to wake what is no agent."""
        if self._supervisor.log is not None:
            self._supervisor.log.write(
                time.time(),
                "wake",
                identity=name,
                runtime=None,
                mode=WakeMode.REFUSED,
                cause=Cause.UNKNOWN_AGENT,
                conversation=None,
                reason=reason,
            )

    def fields(
        self, agent: Agent, mode: WakeMode, cause: str, reason: str | None, conversation: str | None = None
    ) -> dict[str, Any]:
        """Return what an `ev=wake` line says beyond identity and generation."""
        return {
            "runtime": agent.settings.runtime if agent.settings else None,
            "mode": str(mode),
            "cause": cause,
            "conversation": conversation,
            "reason": reason,
        }
