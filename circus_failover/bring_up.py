"""Bringing an agent up: what a start means, decided in Circus's hooks, and what became of it.

The hooks decide (by `policy.bringup`), and `launching` records; Circus then spawns the keeper, which
creates the session; `proving` sees it become ready. No hook waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import (
    account_homes,
    agent_variables,
    conversation_lease,
    keeper,
    limits,
    liveness,
    process_table,
    shared_state,
    switch_checks,
    tmux,
)
from circus_failover.agent import BEING_REMOVED, UNPARKED, Agent, KeeperPlan, Ticket
from circus_failover.agent_settings import PREFIX, AgentSettings, no_place_for_socket
from circus_failover.agents import RUNTIMES
from circus_failover.launching import Launching, NotLaunched, adding
from circus_failover.policy.bringup import BringUp, Hindrance, Situation, Verdict, decide
from circus_failover.problems import Problem, printable
from circus_failover.roster import lend_to_keeper
from circus_failover.words import (
    Asked,
    Cause,
    IntentAction,
    Liveness,
    Loop,
    Mode,
    NoticeKind,
    Phase,
    WakeAsked,
    WakeMode,
)

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor


MUTE_SECS = 0.5
"""Between two tries to start an agent whose tmux server did not answer the gate, which hardly waits."""
READOPT_MAX_SECS = 60.0
"""At most so long between two tries to give a live agent its keeper again."""


class Refused(Exception):
    """A launch is refused; Circus publishes the text as `hook_failure`."""


class BringUps:
    """Decides and prepares launches and adoptions for one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._launching = Launching(supervisor)

    # -- hooks -----------------------------------------------------------------------------------

    def before_start(self, agent: Agent) -> bool:
        """Decide what the start of an agent's watcher means.

        Returns:
            True when a keeper is to be spawned, False when the watcher stays as it is.

        Raises:
            Refused: a launch was wanted and is refused; reason and cause are recorded.
        """
        asked, who = self._asked(agent)
        if asked is Asked.RESTORE:
            # A section that reloadconfig brought back: it may have ended while nobody looked.
            self._supervisor.check(agent)
        ticket = agent.ticket or Ticket(asked, who)
        moves = self._moves(agent)
        evidence, verdict = self.judge(agent, asked, moves=moves)
        if moves and _elsewhere(verdict):
            limits.before_launch(self._supervisor, agent)
            # Wherever it is launched now, also where it could not be moved: the gate looks at that home.
            evidence, verdict = self.judge(agent, asked, moves=False)
        agent.ticket = None
        if verdict.action is BringUp.LEAVE:
            if asked is Asked.RESTORE and agent.action is not None:
                self._restore_after(agent)
            if agent.observed and agent.phase is not Phase.OBSERVED:
                self._supervisor.record(agent, "observe", {"action": "absent"}, phase=Phase.OBSERVED)
            return False
        if verdict.action is BringUp.REFUSE:
            self.refuse(agent, verdict, asked)
        if verdict.action is BringUp.CLEAR_FIRST:
            self._supervisor.endings.clear(agent, then="start" if asked is Asked.RESTORE else None)
            return False
        if verdict.action is BringUp.ADOPT:
            self._adopt(agent, evidence, verdict)
            return agent.plan is not None
        plan = self._supervisor.waking.plan(agent, ticket.wake, ticket.topic)
        if plan.mode is WakeMode.REFUSED:
            why = self._nothing_to_resume(agent)
            self._supervisor.switches.given_up(agent)
            raise Refused(why)
        holder = None
        if plan.conversation is not None and plan.mode is WakeMode.RESUME:
            holder = conversation_lease.held_by(self._supervisor, agent, plan.conversation)
        if holder is not None:
            reason = (
                f"conversation {plan.conversation} is in use: {holder}; two writers would fork it. "
                f"End that one, or begin another conversation: wake {agent.identity} --fresh"
            )
            self.refuse(agent, Verdict(BringUp.REFUSE, Cause.CONVERSATION_IN_USE, reason), asked)
        try:
            self._launching.launch(agent, verdict, who, plan)
        except NotLaunched as error:
            self.refuse(agent, Verdict(BringUp.REFUSE, error.cause, str(error)), asked)
        return True

    def _nothing_to_resume(self, agent: Agent) -> str:
        """A resume was asked for by name, and there is none: nothing changes, and it is said."""
        settings, row = agent.settings, agent.row
        reason = "there is no conversation that was ever ready"
        known = (row.parked_conversation if row.parked_by is not None else None) or row.ready_conversation
        if settings is not None and not settings.resumable:
            reason = "failover.resume_command is not set"
        elif settings is not None and known is not None:
            home = RUNTIMES[settings.runtime].home(settings, agent_variables.of_watcher(agent.watcher))
            reason = f"there is no transcript of conversation {known} in {home}"
        agent.not_launched = (
            Cause.RESUME_REQUESTED_NOTHING_TO_RESUME,
            f"nothing to resume: {reason}; wake it without --resume",
        )
        return f"{agent.identity}: {agent.not_launched[1]}"

    def _restore_after(self, agent: Agent) -> None:
        """What is left of its last launch is being cleared: if it would be launched then, note that it is."""
        _, verdict = self.judge(agent, Asked.RESTORE, ending=False)
        if verdict.action in (BringUp.LAUNCH, BringUp.CLEAR_FIRST):
            self._supervisor.endings.then_start(agent, Ticket(Asked.RESTORE, "circusd"))

    def before_spawn(self, agent: Agent) -> bool:
        """Give the next keeper its environment; False when nothing lives that it could hold."""
        watcher = agent.watcher
        plan, agent.plan = agent.plan, None
        if plan is None:
            plan = self._again(agent)
        if plan is None:
            return False
        lend_to_keeper(watcher, plan.environment)
        return True

    def _again(self, agent: Agent) -> KeeperPlan | None:
        """A keeper ended, was killed or is replaced: the agent is adopted again if it lives."""
        if agent.action is not None:
            return None
        found = liveness.recorded(agent.row)
        if found is None or found.liveness in (Liveness.DEAD, Liveness.REMAINS):
            self._supervisor.check(agent)
            return None
        if agent.phase not in (Phase.UP, Phase.STARTING, Phase.OBSERVED):
            return None
        return keeper.plan(self._supervisor, agent)

    # -- deciding --------------------------------------------------------------------------------

    def _asked(self, agent: Agent) -> tuple[Asked, str]:
        """Say who wants this start: a verb's ticket, circusd's own start, or nobody."""
        if agent.ticket is not None:
            return agent.ticket.asked, agent.ticket.who
        command = self._supervisor.arbiter._exclusive_running_command
        if command in ("arbiter_start_watchers", "arbiter_reload_config"):
            return Asked.RESTORE, "circusd"
        return Asked.ADOPT, "circusd"

    def judge(
        self, agent: Agent, asked: Asked, ending: bool | None = None, moves: bool | None = None
    ) -> tuple[liveness.Evidence, Verdict]:
        """Return what is found of an agent, and what a start asked for in this way would do.

        Args:
            agent: whom.
            asked: who wants it.
            ending: whether its end is under way; None for what is the case.
            moves: whether it is moved to another account right before its launch; None for what is the case.
        """
        settings = agent.settings
        try:
            evidence = liveness.probe(
                agent.row,
                settings.socket if settings else agent.socket,
                settings.session if settings else agent.session,
            )
        except tmux.TmuxMissing:
            evidence = liveness.recorded(agent.row) or liveness.Evidence(Liveness.DEAD)
        verdict = decide(
            Situation(
                asked=asked,
                observed=agent.observed,
                phase=agent.phase,
                stay_stopped=agent.row.stay_stopped,
                generation=agent.row.generation,
                liveness=evidence.liveness,
                ours=evidence.ours,
                ending=agent.action is not None if ending is None else ending,
                hindrance=self.hindrance(agent, moves=moves),
                switching=agent.row.switching is not None,
                unknown_reason=evidence.reason,
            )
        )
        return evidence, verdict

    def hindrance(self, agent: Agent, *, moves: bool | None = None) -> Hindrance | None:
        """Return why a launch would be refused now, or None; what the homes look like is noted on the way.

        It never raises: a gate that fails refuses every launch, keeps no live agent from being adopted, and
        whoever asks is told.
        """
        try:
            return self._hindrance(agent, limits.moves(self._supervisor, agent) if moves is None else moves)
        except Exception as error:
            logger.exception("circus-failover: the gate failed for %s", agent.identity)
            agent.divergence = printable(f"the gate itself failed: {type(error).__name__}: {error}")
            return Hindrance(Cause.GATE_FAILED, agent.divergence)

    def _moves(self, agent: Agent) -> bool | None:
        """Say whether it is moved right before its launch; None where that fails: then the gate does too."""
        try:
            return limits.moves(self._supervisor, agent)
        except Exception:
            logger.exception("circus-failover: whether %s is to be moved cannot be told", agent.identity)
            return None

    def _hindrance(self, agent: Agent, moves: bool) -> Hindrance | None:
        settings, found = agent.settings, self._supervisor.hindrance
        if found is None and agent.problems is not None:
            found = Hindrance(Cause.SETTINGS, agent.problems)
        try:
            tmux.program()
        except tmux.TmuxMissing as error:
            found = found or Hindrance(Cause.TMUX_MISSING, str(error))
        agent.divergence = self._no_working_dir(agent)
        if found is None and agent.divergence is not None:
            found = Hindrance(Cause.WORKING_DIR, agent.divergence)
        expected = None if settings is None else no_place_for_socket(settings)
        if found is None and settings is not None and expected is not None:
            wrong = self._problem(agent, f"{PREFIX}socket", str(settings.socket), expected)
            found = Hindrance(Cause.SETTINGS, wrong)
        lost = switch_checks.gone(agent)
        if found is None and lost is not None:
            found = Hindrance(Cause.ACCOUNT, lost)
        loop = self._supervisor.crash_loops.hindrance(agent)
        if found is None and loop is None:
            found = limits.hindrance(self._supervisor, agent)
        # Of an account that it is launched on no more, nothing else matters.
        if settings is not None and not (moves and found is None and loop is None):
            gate = shared_state.check(settings.settings, settings.account)
            agent.judged_accounts = gate.accounts
            if not gate.ok:
                agent.divergence = agent.divergence or gate.reason
                found = found or Hindrance(Cause.SHARED_STATE, gate.reason)
            if found is None:
                found = self._home(agent, settings)
        return found or loop

    def _home(self, agent: Agent, settings: AgentSettings) -> Hindrance | None:
        """Return what would keep a launch in its account's home from working, or None."""
        if settings.mode is Mode.OBSERVE:
            return None
        wrong = account_homes.check(settings, agent_variables.of_watcher(agent.watcher)).refusal
        if wrong is None:
            return None
        agent.divergence = wrong
        return Hindrance(Cause.ACCOUNT, wrong)

    def _no_working_dir(self, agent: Agent) -> str | None:
        """Return what is wrong with the folder an agent would start in, or None."""
        if agent.settings is None or os.path.isdir(agent.settings.working_dir):
            return None
        expected = (
            "an existing folder (Circus expands neither '~' nor '$VAR' here): create it or name another"
        )
        return self._problem(agent, "working_dir", str(agent.settings.working_dir), expected)

    def _problem(self, agent: Agent, key: str, value: str, expected: str) -> str:
        file = str(getattr(self._supervisor.arbiter, "config_file", "circus.ini"))
        return str(Problem(file, key, value, expected, section=f"watcher:{agent.identity}"))

    def refuse(self, agent: Agent, verdict: Verdict, asked: Asked) -> None:
        """Record that a launch is refused, and why.

        Args:
            agent: whose.
            verdict: why.
            asked: who wanted it; an operator's own start has this for an answer, and needs no notice.

        Raises:
            Refused: always, so that Circus starts nothing.
        """
        self._forget_script(agent)
        agent.restoring = asked is Asked.RESTORE
        said = Refused(f"{agent.identity} is refused ({verdict.cause}): {verdict.reason}")
        if agent.row.switching is not None and verdict.cause not in (Cause.CRASH_LOOP, Cause.GIVEN_UP):
            self._supervisor.switches.refused(agent, verdict)
            raise said
        held: dict[str, Any] = {"phase": Phase.REFUSED, "pending": None}
        if verdict.cause in (Cause.CRASH_LOOP, Cause.GIVEN_UP):
            held["phase"] = Phase.HELD
        elif verdict.cause is Cause.LIMITED:
            held = limits.refused(self._supervisor, agent)
        notice = None
        if asked is not Asked.START and held["phase"] is Phase.REFUSED:
            notice = self._supervisor.notices.writing(
                NoticeKind.LAUNCH_REFUSED,
                f"{agent.identity} is refused ({verdict.cause}): {verdict.reason}",
                identity=agent.identity,
                key=f"{agent.identity} {verdict.cause}",
                cause=str(verdict.cause),
                asked=str(asked),
            )
        self._supervisor.record(
            agent,
            "refuse",
            {"cause": verdict.cause, "reason": verdict.reason},
            cause=verdict.cause,
            reason=verdict.reason,
            writes=notice,
            **self._supervisor.switches.void(agent),
            **held,
        )
        raise said

    def _forget_script(self, agent: Agent) -> None:
        """Whatever the last launch was to be: no pane reads its script any more."""
        try:
            self._launching.forget(agent)
        except OSError as error:
            logger.warning("circus-failover: the script of %s stays: %s", agent.identity, error)

    # -- adopting --------------------------------------------------------------------------------

    def _adopt(self, agent: Agent, evidence: liveness.Evidence, verdict: Verdict) -> None:
        changes: dict[str, Any] = {}
        writes = None
        settings = agent.settings
        if evidence.pane is not None:
            process, server = liveness.process_of(evidence.pane)
            changes = {
                "pane": evidence.pane.pane,
                "pid": process.pid if process else None,
                "pid_start": process.start if process else None,
                "server_pid": server.pid if server else None,
                "server_start": server.start if server else None,
                "boot": self._supervisor.boot,
            }
            if settings is not None:
                changes.update(
                    socket=str(settings.socket), session=settings.session, own_server=settings.own_server
                )
                if not evidence.ours:
                    changes.update(self._client(agent, settings))
        if not evidence.ours and not agent.observed:
            self._forget_script(agent)
            self._keep_dead_pane(agent, evidence)
            launch = self._launching.row(agent, agent.row.generation + 1, Cause.ADOPTED_FOREIGN, "operator")
            # Somebody else's session: what was parked is not what runs now, and no end of it resumes that.
            changes.update(
                generation=launch.generation,
                launch=None,
                conversation=None,
                ready_conversation=None,
                ready_at=time.time(),
                ready_ticks=process_table.now(),
                interrupted=None,
                **self._supervisor.switches.void(agent),
                **UNPARKED,
            )
            writes = adding(launch, over=agent.row.generation)
        elif agent.row.ready_at is None and agent.phase is not Phase.STARTING and not agent.observed:
            # It was observed before, or its proof was lost with the store: it counts as ready from here on.
            changes.update(
                ready_at=time.time(),
                ready_ticks=process_table.now(),
                ready_conversation=agent.row.conversation,
                **UNPARKED,
            )
        starting = evidence.ours and agent.phase is Phase.STARTING and not agent.observed
        if starting and agent.starting is None:
            self._supervisor.proving.again(agent)
        if not starting:
            changes["phase"] = Phase.OBSERVED if agent.observed else Phase.UP
        if agent.divergence is None or agent.phase is not Phase.UP:
            changes.update(cause=verdict.cause, reason=None)
        self._supervisor.record(
            agent,
            "adopt",
            {
                "cause": verdict.cause,
                "reason": agent.divergence or verdict.reason,
                "pid": changes.get("pid", agent.row.pid),
            },
            writes=writes,
            **changes,
        )
        self._supervisor.check(agent)
        try:
            agent.plan = keeper.plan(self._supervisor, agent)
        except tmux.TmuxMissing as error:
            # It lives all the same; only its keeper has to wait until tmux is there again.
            logger.warning("circus-failover: no keeper for %s: %s", agent.identity, error)

    def _client(self, agent: Agent, settings: AgentSettings) -> dict[str, Any]:
        """Return the columns that say where the client of somebody else's session can be looked at."""
        home = RUNTIMES[settings.runtime].home(settings, agent_variables.of_watcher(agent.watcher))
        return {
            "runtime": settings.runtime,
            "home": None if home is None else str(home),
            "working_dir": str(settings.working_dir),
            **dict.fromkeys(("launched_at", "health", "pushed")),
        }

    def _keep_dead_pane(self, agent: Agent, evidence: liveness.Evidence) -> None:
        """Somebody else's session: have its pane stay when its program ends, so that it is known how."""
        if evidence.pane is None or agent.settings is None:
            return
        try:
            tmux.keep_dead_pane(agent.settings.socket, evidence.pane.pane, timeout=liveness.HOOK_TIMEOUT_SECS)
        except tmux.TmuxError as error:
            logger.warning("circus-failover: how %s ends may not be known: %s", agent.identity, error)

    def let_go(self, agent: Agent) -> None:
        """It is no agent any more, and lives on: a session that was adopted is as it was before."""
        row = agent.row
        if row.launch is not None or row.pane is None or row.socket is None or agent.phase is not Phase.UP:
            return
        try:
            tmux.keep_dead_pane(Path(row.socket), row.pane, keep=False, timeout=liveness.HOOK_TIMEOUT_SECS)
        except tmux.TmuxError as error:
            logger.warning("circus-failover: %s's pane stays when its program ends: %s", row.identity, error)

    async def readopt(self, agent: Agent) -> None:
        """Give a live agent, whose watcher was stopped, its keeper again."""
        agent.readopting = True
        agent.readopt_after = time.monotonic() + min(2.0**agent.readopt_failures, READOPT_MAX_SECS)
        agent.readopt_failures += 1
        try:
            await self._supervisor.turns.hold("watcher_start", lambda: self._keeper_again(agent))
        finally:
            agent.readopting = False
        if not agent.watcher.is_stopped():
            agent.readopt_failures = 0

    def _still_there(self, agent: Agent) -> bool:
        """Say whether this is still an agent of this circusd, when its turn has come."""
        supervisor = self._supervisor
        return (
            supervisor.roster.agents.get(agent.identity) is agent
            and agent.watcher in supervisor.arbiter.watchers
            and not supervisor.arbiter._stopping
        )

    async def _keeper_again(self, agent: Agent) -> None:
        if not self._still_there(agent) or agent.action is not None:
            return
        if not agent.watcher.is_stopped():
            await agent.watcher._stop()
        await agent.watcher._start()

    async def adopt_unstarted(self) -> None:
        """After circusd's own start: agents that Circus does not start itself, but that are alive.

        `autostart = False` keeps Circus from calling any hook of theirs.
        """
        for agent in list(self._supervisor.roster.agents.values()):
            if agent.watcher.autostart or not agent.watcher.is_stopped():
                continue
            if agent.phase is Phase.STARTING and agent.row.process is None and agent.row.generation:
                await self.start(agent, "circusd")
                continue
            _, verdict = self.judge(agent, Asked.ADOPT)
            if verdict.action is BringUp.ADOPT:
                await self.readopt(agent)

    # -- verbs -----------------------------------------------------------------------------------

    async def start(
        self,
        agent: Agent,
        who: str,
        timeout: float = 600.0,
        asked: Asked = Asked.START,
        wake: WakeAsked = WakeAsked.NOTHING,
        topic: str | None = None,
    ) -> dict[str, Any]:
        """Bring an agent up because somebody asked, and return the verdict.

        Args:
            agent: whom.
            who: who asked, as shown.
            timeout: seconds after which the verdict is what is known by then.
            asked: in whose name; anything but an operator's start leaves `stopped` alone.
            wake: whether it must be fresh, or a resume.
            topic: what it is brought up for.

        Returns:
            `identity`, `phase`, `reason`, `cause`, `generation`, `ok`, and `refused`: nothing was launched.
        """
        until = time.monotonic() + timeout
        before = agent.row.generation
        for again in range(3):
            await self.settled(agent, until)
            self._supervisor.check(agent)
            await self.settled(agent, until)
            if agent.phase is Phase.UP and not agent.watcher.is_stopped():
                return self.verdict(agent, already=agent.row.generation == before)
            if self._clearing(agent) and time.monotonic() >= until:
                # Whoever asked does not wait any longer; it is started all the same.
                self._supervisor.endings.then_start(agent, Ticket(asked, who, wake, topic))
                reason = "what outlived its last launch is being ended; it is started then"
                return {**self.verdict(agent), "ok": True, "reason": reason}
            if again and agent.row.stay_stopped:
                break
            if agent.row.stay_stopped and asked is Asked.START:
                self._supervisor.record(
                    agent,
                    "start",
                    {"who": who},
                    durable=True,
                    stay_stopped=False,
                    phase=Phase.DOWN if agent.phase is Phase.STOPPED else agent.phase,
                )
            if asked is Asked.START and agent.row.loop == str(Loop.GIVEN_UP):
                self._supervisor.crash_loops.forgive(agent, who)
            ticket, agent.not_launched = Ticket(asked, who, wake, topic), None
            self._supervisor.roster.read_settings(agent)
            await self._supervisor.turns.hold("watcher_start", partial(self._fresh_start, agent, ticket))
            # Only what was left of its last launch is a reason to try once more, and a server that may merely
            # be slow on a busy host; a `stop` that came is not.
            if again < 2 and agent.refused_by_silence and time.monotonic() + MUTE_SECS < until:
                await asyncio.sleep(MUTE_SECS)
            elif not self._clearing(agent):
                break
        if agent.not_launched is not None:
            (cause, reason), agent.not_launched = agent.not_launched, None
            return {
                **self.verdict(agent),
                "ok": False,
                "refused": True,
                "cause": str(cause),
                "reason": reason,
            }
        await self.settled(agent, until)
        return self.verdict(agent)

    def _clearing(self, agent: Agent) -> bool:
        """Say whether what is left of an agent's last launch is being ended right now."""
        return agent.action is not None and agent.action.intent == str(IntentAction.CLEAR)

    async def _fresh_start(self, agent: Agent, ticket: Ticket) -> None:
        """Start a watcher in one turn, also when Circus has not noticed that its keeper is gone."""
        if agent.removed:
            agent.not_launched = (Cause.REMOVED, BEING_REMOVED)
            return
        if not self._still_there(agent):
            return
        if agent.action is not None or (agent.phase is Phase.STARTING and agent.starting is not None):
            return
        if agent.row.stay_stopped:
            # An operator's start has cleared it: it was stopped while this one waited for its turn.
            return
        if agent.phase is Phase.UP and not agent.watcher.is_stopped():
            return
        if not agent.watcher.is_stopped():
            await agent.watcher._stop()
        agent.ticket = ticket
        try:
            await agent.watcher._start()
        finally:
            agent.ticket = None

    async def settled(self, agent: Agent, until: float) -> None:
        """Wait until no end and no launch of an agent is under way, or until a monotonic time."""
        while agent.action is not None or agent.phase in (Phase.STARTING, Phase.STOPPING):
            left = until - time.monotonic()
            if (
                left <= 0
                or agent.forgotten
                or (agent.phase is Phase.STARTING and agent.starting is None and agent.action is None)
            ):
                return
            await agent.next_change(min(left, 1.0))

    def verdict(self, agent: Agent, already: bool = False) -> dict[str, Any]:
        """Return what became of a start, for the one who asked."""
        ok = agent.phase in (Phase.UP, Phase.STARTING) or (agent.observed and agent.row.pid is not None)
        return {
            "identity": agent.identity,
            "ok": ok,
            "refused": agent.phase in (Phase.REFUSED, Phase.HELD),
            "already": already,
            "phase": str(agent.phase),
            "cause": agent.row.cause,
            "reason": agent.row.reason,
            "generation": agent.row.generation,
        }


def _elsewhere(verdict: Verdict) -> bool:
    """Say whether a launch is wanted that another account may allow, or do better for."""
    homes = (Cause.LIMITED, Cause.ACCOUNT, Cause.SHARED_STATE)
    return verdict.action is BringUp.LAUNCH or (verdict.action is BringUp.REFUSE and verdict.cause in homes)
