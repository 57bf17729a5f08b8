"""The supervisor inside circusd: it takes the state directory, notices what ended, and ticks.

One per arbiter; the parts that do the work are its attributes. It starts and ends nothing itself: `bring_up`
launches through Circus, `endings` ends, `recording` writes down.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

from circus import logger
from tornado.ioloop import IOLoop, PeriodicCallback

from circus_failover import (
    agent_health,
    claims,
    crashpoint,
    liveness,
    private_file,
    process_table,
    server_watches,
    settings,
    spool,
    stuck_agents,
    tmux,
)
from circus_failover.accounts import Accounts
from circus_failover.aftermath import Aftermath
from circus_failover.agent import COARSE_SECS, LIVE_PHASES, Agent
from circus_failover.agent_health import LOOKER
from circus_failover.assignments import Assignments
from circus_failover.bring_up import BringUps
from circus_failover.client_events import ClientEvents
from circus_failover.continuing import Continuing
from circus_failover.crash_loops import UNTOLD, CrashLoops
from circus_failover.deliveries import Deliveries
from circus_failover.endings import Endings
from circus_failover.exclusive import Turns
from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.notices import Notices
from circus_failover.pid_watch import PidWatch
from circus_failover.policy.bringup import Hindrance
from circus_failover.pools import Pools
from circus_failover.process_table import ProcessId
from circus_failover.proving import Proving
from circus_failover.recording import Recording
from circus_failover.records import AgentRow, ChildRow
from circus_failover.roster import Roster, state_dir_of_fleet
from circus_failover.self_requests import SelfRequests
from circus_failover.server_probe import ServerProbe
from circus_failover.server_watches import ServerWatches
from circus_failover.state_dir import StateDir, StateDirError
from circus_failover.store import Store, StoreError
from circus_failover.switches import Switches
from circus_failover.waking import Waking
from circus_failover.words import Cause, Liveness, Phase, State, WakeMode
from circus_failover.workforce import Workforce

TICK_SECS = 1.0
FULL_CHECK_TICKS = 10
"""Where pidfds report ends at once, an agent's process is looked at only every so many ticks."""
REPORT_MEMORY_SECS = 86400.0
TASK_MEMORY_SECS = 7 * 86400.0
ASSIGNMENT_MEMORY_SECS = 30 * 86400.0
FORGET_TICKS = 3600
"""A multiple of FULL_CHECK_TICKS."""


class Supervisor(Recording):
    """What circusd knows and does about its agents."""

    def __init__(self, arbiter: Any) -> None:
        super().__init__()
        self.arbiter = arbiter
        self.loop: IOLoop = arbiter.loop
        self.turns = Turns(arbiter)
        self.boot = process_table.boot_id()
        self.state: StateDir | None = None
        self.bring_up = BringUps(self)
        self.proving = Proving(self)
        self.endings = Endings(self)
        self.aftermath = Aftermath(self)
        self.workforce = Workforce(self)
        self.waking = Waking(self)
        self.deliveries = Deliveries(self)
        self.assignments = Assignments(self)
        self.accounts = Accounts(self)
        self.notices = Notices(self)
        self.crash_loops = CrashLoops(self)
        self.switches = Switches(self)
        self.continuing = Continuing(self)
        self.pools = Pools(self)
        self.requests = SelfRequests(self)
        self.events = ClientEvents(self)
        self.roster = Roster(self)
        self.pids = PidWatch(self.loop, self._ended)
        self.servers = ServerProbe(self)
        self.watches = ServerWatches(self)
        self._unstored_ends: set[str] = set()
        self._terminals: dict[ProcessId, str | None] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._ticks = 0
        self._timer = PeriodicCallback(self._tick_safely, TICK_SECS * 1000)
        self._wake: Any = None
        self.last_tick: float | None = None

    # -- coming up -------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the state directory, remember the fleet, and begin to tick."""
        self.open_state()
        self.roster.enrol_all(self._known_agents())
        self._remember_states()
        self.deliveries.load()
        self.assignments.load()
        self.accounts.load()
        self.watches.open()
        self.take_in_reports()
        self.save_changed()
        self._tidy_run_folder()
        self.events.sweep()
        for agent in self.roster.agents.values():
            self.check(agent)
            self.crash_loops.remember(agent)
            if (
                agent.action is None
                and agent.row.cause == Cause.REMOVED
                and agent.row.born < agent.row.generation
            ):
                # The circusd that ended it died before it was taken out.
                self.spawn(self.aftermath.remove(agent))
            elif agent.action is None and stuck_agents.left_behind(agent):
                self.spawn(stuck_agents.bring_back(self, agent, None))
            elif self.switches.left_behind(agent):
                self.spawn(self.switches.carry_on(agent))
            elif (
                agent.action is None
                and agent.row.uncleared == agent.row.generation
                and agent.last_cause in UNTOLD
            ):
                # The circusd that noticed its end died before it could have found out how it came.
                self.endings.clear(agent, then=None)
        self._timer.start()
        self.spawn(self.bring_up.adopt_unstarted())

    def open_state(self, enrolling: Any = None) -> None:
        """Take the state directory that the agents name, once one does.

        Args:
            enrolling: a watcher that Circus starts before it counts it among its own (reloadconfig, 0.19).
        """
        if self.state is not None:
            return
        if self.hindrance is not None and self.hindrance.cause is not Cause.SETTINGS:
            return
        late, self.hindrance = self.hindrance is not None, None
        try:
            path = state_dir_of_fleet(self.arbiter, enrolling)
        except settings.SettingsError as error:
            self.hindrance = Hindrance(Cause.SETTINGS, str(error))
            return
        if path is None:
            return
        state = StateDir(path)
        try:
            state.prepare()
            claims.hold(state, self.arbiter.endpoint, str(getattr(self.arbiter, "config_file", "")))
            private_file.keep(state.tmux_config, tmux.OWN_SERVER_CONFIG)
            self.store = Store(state.store)
        except (OSError, StateDirError, StoreError) as error:
            self.hindrance = Hindrance(
                Cause.STATE_DIR, f"{error}. Then restart circusd (circusctl restart): agents live on"
            )
            logger.error("circus-failover: %s", error)
            return
        self.state = state
        self.log = LifecycleLog(state.lifecycle_log)
        self.exits = LifecycleLog(state.exits_log)
        self._wake = spool.listen(state.spool)
        if self._wake is not None:
            self.loop.add_handler(self._wake, self._woken, self.loop.READ)
        if late:
            self._remember_late()

    def _remember_late(self) -> None:
        """failover.yaml could not be read at circusd's start and was mended since: the fleet is known now."""
        known = self._known_agents()
        for agent in self.roster.agents.values():
            self.roster.read_settings(agent)
            if agent.row.generation == 0 and agent.identity in known:
                self.roster.remember(agent, known[agent.identity])
                self.check(agent)
        self._remember_states()
        self.deliveries.load()
        self.assignments.load()
        self.accounts.load()
        self.watches.open()
        self.take_in_reports()
        self.spawn(self.bring_up.adopt_unstarted())

    def _remember_states(self) -> None:
        """Show what agents were last seen to do, for as long as it holds since the plugin's last tick."""
        looked = self.store.plugins().get(LOOKER) if self.store is not None else None
        for agent in self.roster.agents.values():
            seen = agent_health.read(agent.row.health)
            if seen is not None:
                # What stayed the same was not stored again.
                agent.seen = replace(seen, at=max(seen.at, looked.at if looked is not None else 0.0))

    def _known_agents(self) -> dict[str, AgentRow]:
        """Return what the store remembers; one that cannot be read refuses every launch, and nothing else."""
        if self.store is None:
            return {}
        try:
            self.store.open_actions()
            self.store.last_causes()
            self.store.waiting()
            self.store.plugins()
            return self.store.agents()
        except StoreError as error:
            logger.error("circus-failover: %s", error)
            self.hindrance = Hindrance(Cause.STATE_DIR, f"{self.store.path}: {error}")
            self.store.close()
            self.store = None
            return {}

    def _tidy_run_folder(self) -> None:
        """Remove what a circusd that died left in run/: orders that are done, scripts of past launches."""
        if self.state is None or self.store is None:
            return
        wanted = {self.state.worker_spec(action.id).stem for action in self.store.open_actions()}
        for agent in self.roster.agents.values():
            wanted.update(self.state.task_stem(task.id).name for task in self.deliveries.waiting(agent))
            if agent.phase in (Phase.STARTING, Phase.STOPPING):
                wanted.add(f"{agent.identity}.{agent.row.generation}")
        for path in (self.state.path / "run").iterdir():
            if path.is_file() and not any(path.name.startswith(f"{name}.") for name in wanted):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop ticking and let go of everything but the lock; agents are not touched."""
        self._timer.stop()
        self.pids.close()
        if self._wake is not None:
            self.loop.remove_handler(self._wake)
            self._wake.close()
            self._wake = None
        if self.store is not None:
            self.store.close()
            self.store = None

    # -- showing ---------------------------------------------------------------------------------

    def view(self, agent: Agent) -> dict[str, Any]:
        """Return the object that every front end shows of an agent."""
        seen = agent.view(self._terminal(agent), self.assignments.of(agent))
        return {**seen, "tasks": len(self.deliveries.waiting(agent))}

    def _terminal(self, agent: Agent) -> str | None:
        process = agent.row.process if agent.phase in LIVE_PHASES | {Phase.OBSERVED} else None
        if process is None:
            return None
        if process not in self._terminals:
            if len(self._terminals) > 4096:
                self._terminals.clear()
            self._terminals[process] = process_table.terminal(process.pid)
        return self._terminals[process]

    def last_activity(self, agent: Agent) -> float | None:
        """Return when an agent's terminal last moved, in epoch seconds (8 s granularity), or None."""
        return agent.last_activity(self._terminal(agent))

    @property
    def log_verbose(self) -> bool:
        """Whether failover.yaml asks for a line about every agent that is as it should be."""
        return any(
            agent.settings.settings.log_verbose
            for agent in self.roster.agents.values()
            if agent.settings is not None
        )

    def spawn(self, coroutine: Any) -> asyncio.Future[Any]:
        """Run a coroutine on circusd's loop; its failure is logged and never lost."""
        # The arbiter is initialised before its loop runs, so the loop is named, not looked up.
        task: asyncio.Future[Any] = self.loop.asyncio_loop.create_task(coroutine)  # type: ignore[attr-defined]
        self._tasks.add(task)

        def done(finished: asyncio.Future[Any]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and finished.exception() is not None:
                logger.error("circus-failover: a task failed", exc_info=finished.exception())

        task.add_done_callback(done)
        return task

    # -- noticing --------------------------------------------------------------------------------

    def check(self, agent: Agent) -> None:
        """Compare what is stored with what runs, and record an end that nobody announced."""
        if agent.action is not None or agent.phase not in LIVE_PHASES | {Phase.OBSERVED}:
            return
        found = liveness.recorded(agent.row)
        if found is None:
            return
        if found.liveness is Liveness.LIVE:
            if agent.row.process is not None:
                self.pids.watch(agent.identity, agent.row.process)
        elif found.liveness is not Liveness.UNKNOWN:
            self._died(agent, found)

    def _ended(self, identity: str) -> None:
        agent = self.roster.agents.get(identity)
        if agent is not None:
            self.check(agent)

    def _died(self, agent: Agent, found: liveness.Evidence) -> None:
        """Record an unplanned end, then have what is left of the launch cleared away."""
        now, told = time.time(), agent.died_at
        if told is not None and now - told > COARSE_SECS:
            now = told
        server = self.watches.exit_of(agent) if found.server_lost else None
        if agent.observed:
            self.record(
                agent,
                "observe",
                {"action": "gone"},
                phase=Phase.OBSERVED,
                cause=Cause.SESSION_GONE,
                reason="its process has ended",
                pid=None,
                pid_start=None,
            )
            self.stop_watcher(agent)
            return
        if agent.row.boot != self.boot:
            cause = Cause.HOST_REBOOT
        elif found.server_lost:
            cause = server_watches.cause_of(server) if server is not None else Cause.SERVER_LOST
        elif agent.phase is Phase.STARTING:
            cause = Cause.LAUNCH_FAILED
        else:
            cause = Cause.ENDED_UNKNOWN
        reason = found.reason or "its process has ended"
        if server is not None:
            now, reason = server.at, server_watches.reason_of(server)
        generation, starting = agent.row.generation, agent.phase is Phase.STARTING
        failure = self.switches.failure(agent, "boot", reason) if starting else None

        def ended(store: Store) -> None:
            store.end_launch(agent.identity, generation, at=now, planned=False, cause=str(cause))
            if failure is not None:
                failure.writes(store)

        try:
            self.record(
                agent,
                "exit",
                {"cause": cause, "reason": reason, "while": "starting" if starting else "up"},
                durable=True,
                must=self.store is not None,
                writes=ended,
                pending=None,
                uncleared=generation,
                **{
                    "phase": Phase.STOPPED if agent.row.stay_stopped else Phase.DOWN,
                    "cause": cause,
                    "reason": reason,
                    **(failure.changes if failure is not None else {}),
                },
            )
        except StoreError as error:
            # An end is stored whole or not at all; the next tick finds it again.
            self.store_trouble = str(error)
            self._unstored_ends.add(agent.identity)
            return
        self._unstored_ends.discard(agent.identity)
        crashpoint.reached("death-recorded")
        agent.starting = None
        agent.last_cause = str(cause)
        self.pids.forget(agent.identity)
        if failure is not None:
            self.switches.has_failed(agent, failure)
        if starting:
            self.waking.log_failure(agent, str(cause), reason)
        if cause is Cause.HOST_REBOOT:
            self.log_exit(agent, cause, None, None, None)
            self.reaped(agent, str(cause), reason)
            self.crash_loops.ended(agent)
            self.stop_watcher(agent)
        elif found.server_lost:
            # What may have outlived it is looked for before the next launch: 500 may have died at once.
            self.watches.lost(agent)
            self.stop_watcher(agent)
        else:
            self.endings.clear(agent, then=None)
        self.assignments.look(agent)

    def reaped(self, agent: Agent, cause: str, evidence: str) -> None:
        """Say in lifecycle.log that an agent was found gone, and how its next wake will begin."""
        outcome = "unknown"
        if agent.settings is not None:
            resumes = self.waking.plan(agent).mode is WakeMode.RESUME
            outcome = "resume-eligible" if resumes else "fresh-next-wake"
        age = time.time() - agent.row.ready_at if agent.row.ready_at else None
        self.supervise(agent, "reaped-gone", age=age, outcome=outcome, evidence=f"{cause}: {evidence}")

    def stop_watcher(self, agent: Agent) -> None:
        """Let Circus's watcher follow: its agent is gone, so its keeper has nothing to hold."""
        self.spawn(self.turns.run(lambda: agent.watcher.stop()))

    # -- ticking ---------------------------------------------------------------------------------

    def _woken(self, fd: Any, events: int) -> None:
        spool.drain(self._wake)
        self.take_in_reports()

    def take_in_reports(self) -> None:
        """Take in what workers and launchers have reported."""
        if self.state is None:
            return
        try:
            for name in spool.take_in(self.state.spool, self._report):
                logger.error("circus-failover: report %s makes no sense; it was set aside as .bad", name)
        except (OSError, StoreError) as error:
            self.store_trouble = str(error)

    def _report(self, name: str, report: dict[str, Any]) -> None:
        if self.store is not None and self.store.seen(name):
            return
        agent = self.roster.agents.get(str(report.get("identity")))
        if report["kind"] == "launched":
            if agent is not None:
                self.proving.launched(agent, name, report)
        elif report["kind"] == "ended":
            self.aftermath.ended(agent, name, report)
        elif report["kind"] == "server-exits":
            self.watches.taken_in(name, report)
        elif report["kind"] == "pane-died":
            self._pane_died(agent, name, report)
        elif report["kind"] == "typed":
            self.deliveries.typed(name, report)
        elif report["kind"] == "ready":
            self.proving.matched(agent, name, report)
        elif report["kind"] == "self":
            self.requests.taken_in(agent, name, report)
        elif report["kind"] == "client-event":
            self.events.taken_in(agent, name, report)

    def _pane_died(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """tmux says that an agent's process has ended, and when: that may have been before this circusd."""
        if self.store is None:
            return
        with self.store.decision(durable=False):
            self.store.take_in(name, time.time())
        if agent is None or report["generation"] != agent.row.generation:
            return
        agent.died_at = float(report["at"])
        self.check(agent)
        agent.died_at = None

    def _tick_safely(self) -> None:
        try:
            self.tick()
        except Exception:
            logger.exception("circus-failover: a tick failed")

    def _keep_folders(self) -> None:
        """Make folders of the state directory anew that somebody has removed: without them no end gets on."""
        if self.state is None:
            return
        try:
            self.state.prepare()
        except StateDirError as error:
            self.alerts["state_dir"] = str(error)
        else:
            self.alerts.pop("state_dir", None)

    def tick(self) -> None:
        """Re-read the store's and the processes' truth; every lost event is made good here."""
        if self.arbiter._stopping:
            return
        self._ticks += 1
        self._keep_folders()
        self.take_in_reports()
        self.proving.confirm()
        part, pidfds = self._ticks % FULL_CHECK_TICKS, hasattr(os, "pidfd_open")
        for index, agent in enumerate(list(self.roster.agents.values())):
            # A part of them each time: all at once would hold the loop for 35 ms with 500 agents.
            full = index % FULL_CHECK_TICKS == part or not pidfds
            try:
                if full or agent.identity in self._unstored_ends:
                    self.check(agent)
                if agent.said_state not in (None, State.UNKNOWN, agent.state()):
                    # Nobody looks at it any more, and what was seen is too old by now.
                    self.publish(agent)
                self._reconcile(agent, full)
            except Exception:
                logger.exception("circus-failover: the tick failed for %s", agent.identity)
        self.workforce.tend()
        self.deliveries.tend()
        self.assignments.tend()
        self.accounts.tick()
        self.crash_loops.tick()
        self.switches.tick()
        self.pools.tick()
        self.servers.tick()
        self.watches.tick()
        self.save_unsaved()
        self.save_changed()
        if part == 0:
            self.open_state()
            self._forget()
            self.events.sweep()
        self.last_tick = time.time()

    def _reconcile(self, agent: Agent, full: bool) -> None:
        """A live agent whose watcher Circus stopped (a detach) gets its keeper again."""
        if self.arbiter._exclusive_running_command is not None or not agent.watcher.is_stopped():
            # While a command runs, a reload may be removing this very watcher: the tick after it decides.
            return
        if agent.observed and full and agent.row.process is None:
            if liveness.probe(agent.row, agent.socket, agent.session).liveness is Liveness.LIVE:
                self.spawn(self.bring_up.readopt(agent))
        elif (
            agent.phase is Phase.UP
            # Without tmux there can be no keeper, and taking the agent in again would change nothing.
            and tmux.installed()
            and agent.action is None
            and not agent.readopting
            and time.monotonic() >= agent.readopt_after
            and not agent.observed
        ):
            self.spawn(self.bring_up.readopt(agent))

    # -- processes of this circusd ----------------------------------------------------------------

    def remember_child(self, pid: int, kind: str, name: str) -> None:
        """Remember a plugin or keeper, so that the next circusd can end it if this one dies."""
        process = process_table.identify(pid)
        if process is None or self.store is None:
            return
        try:
            with self.store.decision(durable=False):
                self.store.add_child(ChildRow(process, self.boot, kind, name))
        except StoreError as error:
            self.store_trouble = str(error)

    def _forget(self) -> None:
        """Let go of processes that have ended and, now and then, of what nobody asks for any more."""
        if self.store is None:
            return
        gone = [child.process for child in self.store.children() if not process_table.may_run(child.process)]
        if gone or self._ticks % FORGET_TICKS == 0:
            with self.store.decision(durable=False):
                for process in gone:
                    self.store.remove_child(process)
                self.store.forget_reports(time.time() - REPORT_MEMORY_SECS)
                self.store.forget_tasks(time.time() - TASK_MEMORY_SECS)
                self.store.forget_assignments(time.time() - ASSIGNMENT_MEMORY_SECS)
