"""Bringing an agent up: what the hooks do inside circusd, and the proof that a launch became ready.

The hooks decide (by `policy.bringup`), record, and write the launch file; Circus then spawns the keeper,
which creates the session; the session's own script reports its pid; and a launch counts as up once
the agent has run for `failover.ready_secs`. Nothing here waits.
"""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import (
    crashpoint,
    launch_file,
    liveness,
    process_table,
    shared_state,
    tmux,
)
from circus_failover.agent import Agent, KeeperPlan, Starting, Ticket
from circus_failover.agent_settings import AgentSettings, Restart
from circus_failover.agents import RUNTIMES
from circus_failover.policy.bringup import (
    BringUp,
    Hindrance,
    Situation,
    Verdict,
    decide,
)
from circus_failover.store import LaunchRow, Store, StoreError
from circus_failover.words import Asked, Cause, Liveness, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

CONFIRM_SECS = 0.05
"""How often circusd looks at launches that are not proven yet; nothing is looked at without one."""
REPORT_LATE_SECS = 3.0
PANE_LOG_BYTES = 5 * 1024 * 1024
PANE_LOG_BACKUPS = 4
_SEPARATOR = "\x1f"
_ESCAPES = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]"
)


class Refused(Exception):
    """A launch is refused; Circus publishes the text as `hook_failure`."""


class BringUps:
    """Decides and prepares launches and adoptions for one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._confirming: Any = None

    # -- hooks -----------------------------------------------------------------------------------

    def before_start(self, agent: Agent) -> bool:
        """Decide what the start of an agent's watcher means.

        Returns:
            True when a keeper is to be spawned, False when the watcher stays as it is.

        Raises:
            Refused: a launch was wanted and is refused; reason and cause are recorded.
        """
        asked, who = self._asked(agent)
        evidence, verdict = self.judge(agent, asked)
        agent.ticket = None
        if verdict.action is BringUp.LEAVE:
            if agent.observed and agent.phase is not Phase.OBSERVED:
                self._supervisor.record(agent, "observe", {"action": "absent"}, phase=Phase.OBSERVED)
            return False
        if verdict.action is BringUp.REFUSE:
            self._refuse(agent, verdict)
        if verdict.action is BringUp.CLEAR_FIRST:
            self._supervisor.endings.clear(agent, then="start" if asked is Asked.RESTORE else None)
            return False
        if verdict.action is BringUp.ADOPT:
            self._adopt(agent, evidence, verdict)
        else:
            self._launch(agent, verdict, who)
        return True

    def before_spawn(self, agent: Agent) -> bool:
        """Give the next keeper its environment; False when nothing lives that it could hold."""
        watcher = agent.watcher
        if watcher.numprocesses != 1:
            logger.warning(
                "circus-failover: %s has one process, not %s", agent.identity, watcher.numprocesses
            )
            watcher.numprocesses = 1
        plan, agent.plan = agent.plan, None
        if plan is None:
            plan = self._again(agent)
        if plan is None:
            return False
        watcher.env = plan.environment
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
        return self._keeper(agent)

    # -- deciding --------------------------------------------------------------------------------

    def _asked(self, agent: Agent) -> tuple[Asked, str]:
        """Say who wants this start: a verb's ticket, circusd's own start, or nobody."""
        if agent.ticket is not None:
            return agent.ticket.asked, agent.ticket.who
        command = self._supervisor.arbiter._exclusive_running_command
        if command in ("arbiter_start_watchers", "arbiter_reload_config"):
            return Asked.RESTORE, "circusd"
        return Asked.ADOPT, "circusd"

    def judge(self, agent: Agent, asked: Asked) -> tuple[liveness.Evidence, Verdict]:
        """Return what is found of an agent, and what a start asked for in this way would do."""
        settings = agent.settings
        hindrance = self._supervisor.hindrance
        if hindrance is None and agent.problems is not None:
            hindrance = Hindrance(Cause.SETTINGS, agent.problems)
        try:
            evidence = liveness.probe(
                agent.row,
                settings.socket if settings else agent.socket,
                settings.session if settings else agent.session,
            )
            tmux.program()
        except tmux.TmuxMissing as error:
            evidence = liveness.recorded(agent.row) or liveness.Evidence(Liveness.DEAD)
            hindrance = hindrance or Hindrance(Cause.TMUX_MISSING, str(error))
        agent.divergence = None
        if settings is not None:
            gate = shared_state.check(settings.settings, settings.account)
            if not gate.ok:
                agent.divergence = gate.reason
                hindrance = hindrance or Hindrance(Cause.SHARED_STATE, gate.reason)
        verdict = decide(
            Situation(
                asked=asked,
                observed=agent.observed,
                phase=agent.phase,
                stay_stopped=agent.row.stay_stopped,
                generation=agent.row.generation,
                revive=settings is not None and settings.restart is Restart.ALWAYS,
                liveness=evidence.liveness,
                ours=evidence.ours,
                ending=agent.action is not None,
                hindrance=hindrance,
                unknown_reason=evidence.reason,
            )
        )
        return evidence, verdict

    def _refuse(self, agent: Agent, verdict: Verdict) -> None:
        self._supervisor.record(
            agent,
            "refuse",
            {"cause": verdict.cause, "reason": verdict.reason},
            phase=Phase.REFUSED,
            cause=verdict.cause,
            reason=verdict.reason,
        )
        raise Refused(f"{agent.identity} is refused ({verdict.cause}): {verdict.reason}")

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
        if not evidence.ours and not agent.observed:
            launch = self._launch_row(
                agent, agent.row.generation + 1, Cause.ADOPTED_FOREIGN, "operator", None
            )
            changes["generation"] = launch.generation
            writes = _adding(launch)
        starting = evidence.ours and agent.phase is Phase.STARTING and agent.starting is not None
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
        agent.plan = self._keeper(agent)

    async def readopt(self, agent: Agent) -> None:
        """Give a live agent, whose watcher was stopped, its keeper again."""
        agent.readopting = True
        try:
            await self._supervisor.turns.hold("watcher_start", lambda: self._keeper_again(agent))
        finally:
            agent.readopting = False

    async def _keeper_again(self, agent: Agent) -> None:
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

    # -- launching -------------------------------------------------------------------------------

    def _launch_row(
        self, agent: Agent, generation: int, cause: Cause | None, who: str, conversation: str | None
    ) -> LaunchRow:
        account = agent.settings.account if agent.settings else None
        return LaunchRow(
            identity=agent.identity,
            generation=generation,
            cause=str(cause),
            asked_by=who,
            account=account.name if account else None,
            conversation=conversation,
            started_at=time.time(),
        )

    def _launch(self, agent: Agent, verdict: Verdict, who: str) -> None:
        settings, state = agent.settings, self._supervisor.state
        assert settings is not None and state is not None
        generation, conversation = agent.row.generation + 1, str(uuid.uuid4())
        launch = self._launch_row(agent, generation, verdict.cause, who, conversation)
        stem = f"{time.time_ns():020d}-launch-{agent.identity}-{generation}"
        try:
            text = launch_file.render(
                identity=agent.identity,
                generation=generation,
                environment=self._agent_environment(agent, settings, generation, conversation),
                working_dir=settings.working_dir,
                command=settings.command,
                prepare=settings.prepare,
                prepare_secs=settings.prepare_secs,
                spool=state.spool,
                report_stem=stem,
            )
            launch_file.write(state.launch_file(agent.identity, generation), text)
            state.launch_error(agent.identity, generation).unlink(missing_ok=True)
            self._supervisor.record(
                agent,
                "launch",
                {"cause": verdict.cause, "who": who, "account": launch.account, "conversation": conversation},
                must=True,
                writes=_adding(launch),
                phase=Phase.STARTING,
                cause=verdict.cause,
                reason=None,
                stay_stopped=False,
                generation=generation,
                conversation=conversation,
                account=launch.account,
                socket=str(settings.socket),
                session=settings.session,
                own_server=settings.own_server,
                boot=self._supervisor.boot,
                pane=None,
                pid=None,
                pid_start=None,
                server_pid=None,
                server_start=None,
            )
        except (OSError, StoreError) as error:
            self._refuse(agent, Verdict(BringUp.REFUSE, Cause.STATE_DIR, str(error)))
        crashpoint.reached("launch-recorded")
        self._gate_log(settings)
        agent.starting = Starting(time.time(), state.launch_error(agent.identity, generation), stem)
        agent.plan = self._keeper(agent, launch=True)
        self._confirm_soon()

    def _gate_log(self, settings: AgentSettings) -> None:
        if self._supervisor.log is not None:
            checked = settings.settings.accounts
            self._supervisor.log.write(
                time.time(), "gate", action="ok", identity=settings.identity, accounts=len(checked)
            )

    def _agent_environment(
        self, agent: Agent, settings: AgentSettings, generation: int, conversation: str
    ) -> dict[str, str]:
        from circus_failover.roster import own_environment

        ours = {
            "FAILOVER_IDENTITY": agent.identity,
            "FAILOVER_GENERATION": str(generation),
            "FAILOVER_CONVERSATION": conversation,
        }
        if settings.account is not None:
            ours[RUNTIMES[settings.runtime].home_variable] = str(settings.account.home)
        return launch_file.agent_environment(os.environ, own_environment(agent.watcher), ours)

    def _keeper(self, agent: Agent, launch: bool = False) -> KeeperPlan:
        """Return the environment of the next keeper: the client to become and, first, what to launch."""
        socket, session, state = agent.socket, agent.session, self._supervisor.state
        assert socket is not None and session is not None
        # A console script is found on the keeper's own PATH, which Popen takes from its environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = launch_file.agent_environment(os.environ, {}, {})
        environment["PATH"] = path
        channel = f"failover-{agent.identity}-{agent.row.generation}"
        environment["FAILOVER_KEEPER_IFS"] = _SEPARATOR
        environment["FAILOVER_KEEPER_WAIT"] = _SEPARATOR.join(tmux.wait_arguments(socket, channel))
        if launch:
            assert state is not None and agent.settings is not None
            arguments = tmux.launch_arguments(
                path=socket,
                own_server_config=state.tmux_config if agent.settings.own_server else None,
                session=session,
                working_dir=agent.settings.working_dir,
                environment={
                    "FAILOVER_IDENTITY": agent.identity,
                    "FAILOVER_GENERATION": str(agent.row.generation),
                },
                command=["/bin/sh", str(state.launch_file(agent.identity, agent.row.generation))],
                log_command=tmux.pane_log_command(
                    state.pane_log(agent.identity), PANE_LOG_BYTES, PANE_LOG_BACKUPS
                ),
            )
            environment["FAILOVER_KEEPER_LAUNCH"] = _SEPARATOR.join(arguments)
            environment["FAILOVER_KEEPER_ERROR"] = str(
                state.launch_error(agent.identity, agent.row.generation)
            )
        return KeeperPlan(environment)

    # -- proving ---------------------------------------------------------------------------------

    def launched(self, agent: Agent, name: str, report: dict[str, Any]) -> None:
        """Take in a launcher's report: the pane runs, with this pid; the second one says it is the agent."""
        store = self._supervisor.store
        if (
            store is None
            or report["generation"] != agent.row.generation
            or agent.row.phase
            not in (
                Phase.STARTING,
                Phase.STOPPING,
            )
        ):
            return
        pid, start = int(report["pid"]), int(report["start"])
        if start == 0:
            process = process_table.identify(pid)
            start = process.start if process else 0
        server = process_table.identify(int(report["server_pid"]))
        fresh = False

        def mark(open_store: Store) -> None:
            nonlocal fresh
            fresh = open_store.first_time(name, time.time())

        self._supervisor.record(
            agent,
            "launched",
            {"stage": report["stage"], "pid": pid},
            writes=mark,
            pane=str(report["pane"]),
            pid=pid,
            pid_start=start,
            server_pid=int(report["server_pid"]),
            server_start=server.start if server else None,
        )
        if agent.starting is None and agent.phase is Phase.STARTING:
            agent.starting = self._starting_again(agent)
        if agent.starting is not None and report["stage"] == "agent":
            agent.starting.ready_from = time.time()
            self._confirm_soon()
        self._supervisor.endings.work_now(agent)
        self._supervisor.check(agent)

    def _starting_again(self, agent: Agent) -> Starting:
        """A launch that an earlier circusd began."""
        assert self._supervisor.state is not None
        error = self._supervisor.state.launch_error(agent.identity, agent.row.generation)
        return Starting(time.time(), error, "")

    def _confirm_soon(self) -> None:
        if self._confirming is None:
            self._confirming = self._supervisor.loop.call_later(CONFIRM_SECS, self._confirm_timer)

    def _confirm_timer(self) -> None:
        self._confirming = None
        self._supervisor.take_in_reports()
        self.confirm()
        if any(agent.starting is not None for agent in self._supervisor.roster.agents.values()):
            self._confirm_soon()

    def confirm(self) -> None:
        """Look at every launch that is not proven: up, failed, or wait on."""
        for agent in list(self._supervisor.roster.agents.values()):
            starting = agent.starting
            if starting is None:
                continue
            if agent.phase is not Phase.STARTING:
                agent.starting = None
                continue
            self._confirm(agent, starting)

    def _confirm(self, agent: Agent, starting: Starting) -> None:
        now, settings = time.time(), agent.settings
        if agent.row.process is not None:
            self._supervisor.check(agent)
            if agent.phase is not Phase.STARTING:
                return
            ready_secs = settings.ready_secs if settings else 1.0
            if starting.ready_from is not None and now - starting.ready_from >= ready_secs:
                self._up(agent)
                return
        elif starting.error_file.exists():
            self._failed(agent, _tail(starting.error_file) or "tmux could not create the session")
            return
        elif now - starting.begun > REPORT_LATE_SECS:
            self._look_for(agent, starting)
        allowed = (settings.boot_secs if settings else 240.0) + (
            settings.prepare_secs if settings and settings.prepare else 0.0
        )
        if agent.phase is Phase.STARTING and now - starting.begun > allowed:
            self._failed(agent, f"not ready within {allowed:g} s")

    def _look_for(self, agent: Agent, starting: Starting) -> None:
        """No report in time (a full disk loses it): ask tmux itself, once every few seconds."""
        starting.begun += REPORT_LATE_SECS
        found = liveness.probe(agent.row, agent.socket, agent.session)
        if found.pane is not None and found.ours:
            process, server = liveness.process_of(found.pane)
            if process is not None:
                self._supervisor.record(
                    agent,
                    "launched",
                    {"stage": "found", "pid": process.pid},
                    pane=found.pane.pane,
                    pid=process.pid,
                    pid_start=process.start,
                    server_pid=server.pid if server else None,
                    server_start=server.start if server else None,
                )
                starting.ready_from = time.time()
        elif found.liveness in (Liveness.DEAD, Liveness.REMAINS):
            self._failed(agent, "its keeper ended before the session was there")

    def _up(self, agent: Agent) -> None:
        agent.starting = None
        generation = agent.row.generation
        self._supervisor.record(
            agent,
            "up",
            {},
            phase=Phase.UP,
            reason=None,
            writes=lambda store: store.update_launch(agent.identity, generation, up_at=time.time()),
        )
        if self._supervisor.state is not None:
            self._supervisor.state.launch_file(agent.identity, generation).unlink(missing_ok=True)
        self._supervisor.check(agent)

    def _failed(self, agent: Agent, reason: str) -> None:
        """A launch failed before its process was known, or never became ready: an end, with its reason."""
        now, generation = time.time(), agent.row.generation
        agent.starting = None
        agent.last_cause = str(Cause.LAUNCH_FAILED)
        other = liveness.probe(agent.row, agent.socket, agent.session)

        def writes(store: Store) -> None:
            store.end_launch(
                agent.identity, generation, at=now, planned=False, cause=str(Cause.LAUNCH_FAILED)
            )
            store.update_launch(agent.identity, generation, last_output=reason)

        self._supervisor.record(
            agent,
            "exit",
            {"cause": Cause.LAUNCH_FAILED, "reason": reason, "while": "starting"},
            durable=True,
            writes=writes,
            phase=Phase.STOPPED if agent.row.stay_stopped else Phase.DOWN,
            cause=Cause.LAUNCH_FAILED,
            reason=reason,
        )
        if other.liveness is Liveness.LIVE and not other.ours:
            # Somebody was faster: a session of that name lives, and what lives is adopted.
            self._supervisor.spawn(self.readopt(agent))
        else:
            self._supervisor.endings.clear(agent, then=None)

    # -- verbs -----------------------------------------------------------------------------------

    async def start(self, agent: Agent, who: str, timeout: float = 600.0) -> dict[str, Any]:
        """Bring an agent up because somebody asked, and return the verdict.

        Args:
            agent: whom.
            who: who asked, as shown.
            timeout: seconds after which the verdict is what is known by then.

        Returns:
            `identity`, `phase`, `reason`, `cause`, `generation` and `ok`.
        """
        until = time.monotonic() + timeout
        before = agent.row.generation
        for _ in range(3):
            await self._settled(agent, until)
            self._supervisor.check(agent)
            await self._settled(agent, until)
            if agent.phase is Phase.UP and not agent.watcher.is_stopped():
                return self.verdict(agent, already=agent.row.generation == before)
            if agent.row.stay_stopped:
                self._supervisor.record(
                    agent,
                    "start",
                    {"who": who},
                    durable=True,
                    stay_stopped=False,
                    phase=Phase.DOWN if agent.phase is Phase.STOPPED else agent.phase,
                )
            agent.ticket = Ticket(Asked.START, who)
            self._supervisor.roster.read_settings(agent)
            try:
                await self._supervisor.turns.hold("watcher_start", lambda: self._fresh_start(agent))
            finally:
                agent.ticket = None
            if agent.action is None:
                break
        await self._settled(agent, until)
        return self.verdict(agent)

    async def _fresh_start(self, agent: Agent) -> None:
        """Start a watcher in one turn, also when Circus has not noticed that its keeper is gone."""
        if agent.action is not None or (agent.phase is Phase.STARTING and agent.starting is not None):
            return
        if agent.phase is Phase.UP and not agent.watcher.is_stopped():
            return
        if not agent.watcher.is_stopped():
            await agent.watcher._stop()
        await agent.watcher._start()

    async def _settled(self, agent: Agent, until: float) -> None:
        while agent.action is not None or agent.phase in (Phase.STARTING, Phase.STOPPING):
            left = until - time.monotonic()
            if left <= 0 or (
                agent.phase is Phase.STARTING and agent.starting is None and agent.action is None
            ):
                return
            await agent.next_change(min(left, 1.0))

    def verdict(self, agent: Agent, already: bool = False) -> dict[str, Any]:
        """Return what became of a start, for the one who asked."""
        ok = agent.phase in (Phase.UP, Phase.STARTING) or (agent.observed and agent.row.pid is not None)
        return {
            "identity": agent.identity,
            "ok": ok,
            "already": already,
            "phase": str(agent.phase),
            "cause": agent.row.cause,
            "reason": agent.row.reason,
            "generation": agent.row.generation,
        }


def _adding(launch: LaunchRow) -> Any:
    return lambda store: store.add_launch(launch)


def _tail(path: Path, limit: int = 4000) -> str:
    """Return the end of a small text file, without escape sequences."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return _ESCAPES.sub("", file.read().decode(errors="replace")).strip()
    except OSError:
        return ""
