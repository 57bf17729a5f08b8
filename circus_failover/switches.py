"""Switches: an agent goes on in the same conversation on another account. Its old process is gone first.

All is checked before anything is ended (`switch_checks`); then the intent is written, a worker carries out
the end, and the agent is parked on its way to the other account (`row.switching` is the one it comes from). A
launch that is proven ready ends the switch; any other end of it parks the agent on its old account again.
What is stored says at every step what comes next, so that the circusd after one that died goes on.

| phase | `switching` | who goes on | and when that fails |
|---|---|---|---|
| stopping, intent `switch` | none | the worker of the end, again where it died | it is ended still |
| parked | the old account | `carry_on`; also the next circusd, and every tick | parked on the old account |
| starting | the old account | `proving`; the next circusd does it again | parked on the old account |
| up | none: proven in one decision | nobody: it is over | |
| any, by another end | none, in that decision | whoever asked for that | it is on the old account |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from circus.exc import MessageError

from circus_failover import crashpoint, switch_checks, switch_records
from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.policy.bringup import Verdict
from circus_failover.records import ActionRow
from circus_failover.switch_checks import account_now, next_account, runs, uses
from circus_failover.switch_records import Outcome, on_account, void
from circus_failover.words import (
    Asked,
    Cause,
    IntentAction,
    ParkedBy,
    Phase,
    State,
    WakeAsked,
    WakeMode,
)

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

AGAIN_SECS = 5.0
"""From one try to go on with a switch that was interrupted to the next."""
SLACK_SECS = 60.0
"""What a launch may take beyond its own limits before whoever waits for its switch hears how far it is."""


class Refused(MessageError):  # type: ignore[misc]
    """A switch is refused, and nothing was changed; the text says why."""


class Switches:
    """The switches of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._carrying: set[str] = set()
        self._again_after: dict[str, float] = {}

    # -- what is asked -----------------------------------------------------------------------------------

    def switch(self, agent: Agent, to: str, who: str, why: str, *, force: bool = False) -> dict[str, Any]:
        """Begin to move an agent to another account; returns at once, `outcome` waits for the rest.

        An agent that is not up is only entered for it: its next launch is on that account.

        Args:
            agent: whom.
            to: the name of the account.
            who: who asked.
            why: what was asked, or found.
            force: a person wants it although the account is exhausted or has its number of agents.

        Returns:
            The verdict so far: see `verdict`; `already` when nothing had to be done.

        Raises:
            Refused: something is in the way, and nothing was changed.
            StoreError: the intent could not be stored, and nothing was changed.
        """
        supervisor = self._supervisor
        supervisor.check(agent)
        supervisor.roster.read_settings(agent)
        if self.is_there(agent, to) or self._is_on_its_way(agent, to):
            return self.verdict(agent, to, already=self.is_there(agent, to))
        hindrances = self.check(agent, to, force=force)
        if hindrances:
            self.say(agent, "refused", to=to, who=who, step="check", reason="; ".join(hindrances))
            raise Refused(f"it is not moved, and nothing was ended: {'; '.join(hindrances)}")
        before = account_now(agent)
        if not self._moves_a_launch(agent, to):
            self._enter(agent, to, before, who, why)
            return self.verdict(agent, to)
        detail = {"to": to, "from": before, "limited": agent.state() is State.LIMITED}
        supervisor.endings.end(agent, IntentAction.SWITCH, who, why, ParkedBy.SWITCH, detail)
        return self.verdict(agent, to)

    def check(self, agent: Agent, to: str, *, force: bool = False) -> list[str]:
        """Return in words what is in the way of a switch, also where nobody asked for it; changes nothing.

        Args:
            agent: whom.
            to: the name of the account.
            force: as for `switch`.
        """
        return switch_checks.hindrances(self._supervisor, agent, to, force=force)

    def verdict(self, agent: Agent, to: str, *, already: bool = False) -> dict[str, Any]:
        """Return what has become of a switch by now.

        Returns:
            As for every verdict (`identity`, `ok`, `phase`, `cause`, `reason`, `generation`); `account`,
            which it is on now or will be at its next launch; `to`; `already`: nothing had to be done;
            `under_way`: it is not over.
        """
        under_way = self.under_way(agent)
        account = account_now(agent) if not under_way else agent.row.account
        ok = under_way or account == to
        reason = agent.row.reason
        if ok and not under_way and agent.phase not in (Phase.UP, Phase.STARTING):
            reason = f"it is {agent.phase}; its next launch is on account {to}"
        return {
            "identity": agent.identity,
            "ok": ok,
            "already": already,
            "under_way": under_way,
            "phase": str(agent.phase),
            "cause": agent.row.cause,
            "reason": reason,
            "generation": agent.row.generation,
            "account": account,
            "to": to,
        }

    async def outcome(self, agent: Agent, to: str, timeout: float) -> dict[str, Any]:
        """Wait until an agent's switch is over, and return the verdict.

        Args:
            agent: whom.
            to: where it goes.
            timeout: seconds after which the verdict is what is known by then.
        """
        until = time.monotonic() + timeout
        # Of a launch that has failed it is known how when what is left of it is cleared.
        while (self.under_way(agent) or agent.action is not None) and not agent.forgotten:
            left = until - time.monotonic()
            if left <= 0:
                break
            await agent.next_change(min(0.5, left))
        return self.verdict(agent, to)

    def under_way(self, agent: Agent) -> bool:
        """Say whether an agent is being moved right now."""
        return switch_checks.under_way(agent)

    # -- what follows ------------------------------------------------------------------------------------

    def ended(self, agent: Agent, action: ActionRow) -> dict[str, Any]:
        """Return the columns of an agent whose launch was ended for a switch, beside those of its park."""
        row, store = agent.row, self._supervisor.store
        launch = next(iter(store.launches(agent.identity, 1)), None) if store is not None else None
        kept: dict[str, Any] = {}
        if row.ready_at is None and launch is not None and launch.mode == str(WakeMode.RESUME):
            # It was not ready yet; but what it was about to resume had been, once.
            kept["parked_conversation"] = row.conversation
        return {
            **kept,
            "phase": Phase.PARKED,
            **on_account(agent, str(action.spec["to"])),
            "switching": action.spec["from"],
            "interrupted": str(Cause.LIMITED if action.spec.get("limited") else Cause.SWITCHED),
        }

    def is_ended(self, agent: Agent, action: ActionRow) -> None:
        """After that decision: say so."""
        self.now_on(agent)
        fields = {"action": "ended", "from": action.spec["from"], "to": action.spec["to"], "who": action.who}
        self._log(agent, fields)
        crashpoint.reached("switch-ended")

    def void(self, agent: Agent) -> dict[str, Any]:
        """Return the columns of one whose switch is cut short by another end: it is on its old account."""
        return void(agent)

    def now_on(self, agent: Agent) -> None:
        """After a decision that has moved an agent: its settings say so too."""
        self._supervisor.roster.read_settings(agent)

    async def carry_on(self, agent: Agent, who: str = "circusd") -> None:
        """Launch an agent that is parked on its way, on the account that it goes to; without one, nothing."""
        if not self._waits(agent) or agent.identity in self._carrying:
            return
        self._carrying.add(agent.identity)
        agent.waking = True
        try:
            await self._launch(agent, who)
        finally:
            self._again_after[agent.identity] = time.monotonic() + AGAIN_SECS
            self._let_go(agent)

    async def _launch(self, agent: Agent, who: str) -> None:
        supervisor = self._supervisor
        supervisor.roster.read_settings(agent)
        settings, row = agent.settings, agent.row
        generation = row.generation
        if settings is None or settings.account is None or agent.problems is not None:
            self.failed(agent, "settings", agent.problems or "its settings cannot be used")
            return
        if agent.observed:
            self.failed(agent, "settings", "it is observed by now: watched and shown, never started")
            return
        lost = switch_checks.not_there(agent, settings.account, row.parked_conversation)
        if lost is not None:
            self.failed(agent, "conversation", lost)
            return
        resumes = row.parked_conversation is not None
        if resumes and supervisor.waking.plan(agent, WakeAsked.RESUME).mode is WakeMode.REFUSED:
            resumes = False
        wake = WakeAsked.RESUME if resumes else WakeAsked.FRESH
        allowed = settings.boot_secs + settings.prepare_secs + SLACK_SECS
        verdict = await supervisor.bring_up.start(agent, who, allowed, Asked.SWITCH, wake)
        if supervisor.arbiter._stopping or agent.forgotten or not self._waits(agent):
            return
        if agent.row.generation == generation and verdict.get("refused"):
            self.failed(agent, "launch", str(verdict["reason"]))

    def _let_go(self, agent: Agent) -> None:
        """Its switch is over, one way or the other: whoever wakes it from here on wakes it anew."""
        if agent.identity in self._carrying:
            self._carrying.discard(agent.identity)
            agent.waking = False
            agent.wake_waiters()

    def left_behind(self, agent: Agent) -> bool:
        """Say whether an agent waits on its way, and nobody is about to launch it."""
        return self._waits(agent) and agent.identity not in self._carrying

    def tick(self) -> None:
        """Go on with switches that were interrupted; costs nothing where there is none."""
        for agent in self._supervisor.roster.agents.values():
            if agent.row.switching is None or agent.action is not None:
                continue
            if agent.phase not in (Phase.PARKED, *LIVE_PHASES):
                # The launch that it was entered for never began: whoever wants it asks, and moves it, anew.
                self.given_up(agent, "launch")
            if not self.left_behind(agent):
                continue
            if time.monotonic() >= self._again_after.get(agent.identity, 0.0):
                self._again_after[agent.identity] = time.monotonic() + AGAIN_SECS
                self._supervisor.spawn(self.carry_on(agent))

    def launched(self, agent: Agent) -> None:
        """After a launch is recorded: say so, where it is one on the way to another account."""
        if agent.row.switching is not None:
            self._log(agent, {"action": "launched", "from": agent.row.switching, "to": agent.row.account})

    # -- how it ends -------------------------------------------------------------------------------------

    def failure(self, agent: Agent, step: str, reason: str) -> Outcome | None:
        """Return what is stored when a launch of an agent on its way is refused, or ends before it was ready.

        Args:
            agent: whom.
            step: where it failed: `gate`, `lease`, `launch`, `boot`, ...
            reason: why.
        """
        return (
            None
            if agent.row.switching is None
            else switch_records.failed(self._supervisor, agent, step, reason)
        )

    def failed(self, agent: Agent, step: str, reason: str) -> None:
        """Park an agent on its old account, whose launch on the other one was refused.

        Args:
            agent: whom; it has no launch.
            step: where it failed.
            reason: why.
        """
        failure = self.failure(agent, step, reason)
        if failure is not None:
            self._supervisor.record(
                agent,
                "park",
                {"parked_by": agent.row.parked_by, "cause": Cause.SWITCH_FAILED},
                durable=True,
                writes=failure.writes,
                pending=None,
                **failure.changes,
            )
            self.has_failed(agent, failure)

    def has_failed(self, agent: Agent, failure: Outcome) -> None:
        """After the decision with which a switch has failed: say so."""
        self.now_on(agent)
        self._let_go(agent)
        self._log(agent, failure.fields)
        crashpoint.reached("switch-failed")

    def proven(self, agent: Agent) -> Outcome | None:
        """Return what is stored with the proof of a launch that ends a switch; None: it ends none."""
        return None if agent.row.switching is None else switch_records.proven(self._supervisor, agent)

    def is_proven(self, agent: Agent, proof: Outcome) -> None:
        """After that decision: say so."""
        self._log(agent, proof.fields)
        crashpoint.reached("switch-up")

    def before_launch(self, agent: Agent, to: str, why: str) -> None:
        """Enter an agent for another account, right before a launch for which its own can do nothing.

        Args:
            agent: whom; nothing of it runs.
            to: the account that was chosen.
            why: why it was.

        Raises:
            StoreError: it could not be stored; nothing was changed.
        """
        before = next_account(agent)
        fields = {"action": "asked", "from": before, "to": to, "who": "circusd", "reason": why}
        self._supervisor.record(
            agent, "switch", fields, durable=True, must=True, switching=before, **on_account(agent, to)
        )
        self.now_on(agent)
        crashpoint.reached("switch-entered")

    def given_up(self, agent: Agent, step: str = "conversation") -> None:
        """Nothing was launched, nor is to be: one that was entered for another account stays where it was.

        Args:
            agent: whom.
            step: what it came to nothing at.
        """
        if agent.row.switching is not None and agent.identity not in self._carrying:
            fields = {"action": "refused", "to": next_account(agent), "step": step}
            self._supervisor.record(agent, "switch", fields, durable=True, **void(agent))
            self.now_on(agent)

    def refused(self, agent: Agent, verdict: Verdict) -> None:
        """The launch of an agent on its way is refused: it is parked on its old account.

        Args:
            agent: whom.
            verdict: why.
        """
        step = {Cause.CONVERSATION_IN_USE: "lease", Cause.STATE_DIR: "launch"}.get(
            verdict.cause or Cause.GATE_FAILED, "gate"
        )
        self.failed(agent, step, f"{verdict.cause}: {verdict.reason}")

    def say(self, agent: Agent, action: str, **fields: Any) -> None:
        """Write a line about a switch into the log and the history (`ev=switch`)."""
        self._supervisor.record(agent, "switch", {"action": action, **fields})

    def _log(self, agent: Agent, fields: dict[str, Any]) -> None:
        if self._supervisor.log is not None:
            self._supervisor.log.write(
                time.time(), "switch", identity=agent.identity, generation=agent.row.generation, **fields
            )

    # -- details -----------------------------------------------------------------------------------------

    def _enter(self, agent: Agent, to: str, before: str | None, who: str, why: str) -> None:
        """Nothing runs that would have to be ended: the next launch is on that account."""
        changes = on_account(agent, to)
        if agent.phase is Phase.HELD and agent.row.cause == str(Cause.LIMITED):
            # What it is held for is another account's affair: it may come back at once.
            changes["limited_until"] = time.time()
        self._supervisor.record(
            agent,
            "switch",
            {"action": "done", "from": before, "to": to, "who": who, "reason": why, "step": "next-launch"},
            durable=True,
            must=True,
            **changes,
        )
        self.now_on(agent)

    def _waits(self, agent: Agent) -> bool:
        row = agent.row
        parked = row.switching is not None and agent.phase is Phase.PARKED and agent.action is None
        return parked and not row.stay_stopped and not agent.forgotten

    def _moves_a_launch(self, agent: Agent, to: str) -> bool:
        return runs(agent) and agent.row.account != to

    def is_there(self, agent: Agent, to: str) -> bool:
        """Say whether an agent is on an account already, and no switch of it is under way."""
        if self.under_way(agent) or agent.settings is None:
            return False
        return next_account(agent) == to and not self._moves_a_launch(agent, to)

    def _is_on_its_way(self, agent: Agent, to: str) -> bool:
        return self.under_way(agent) and uses(agent, to)
