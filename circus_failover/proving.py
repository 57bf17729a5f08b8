"""The proof of a launch: its script reports the pid, and it is up once it has run for `failover.ready_secs`.

Where its runtime can tell what its client does, that has to say so too. A worker (`boot_work`) looks for it,
and for what `failover.ready_match` asks for, and answers dialogs.

Everything here is looked at again by a timer, so a report that is lost costs seconds and no wrong answer.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from circus import logger

from circus_failover import agent_health, liveness, private_file, process_table
from circus_failover.agent import UNPARKED, Agent, Starting
from circus_failover.agents import RUNTIMES
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import Runtime
from circus_failover.state_dir import StateDir
from circus_failover.store import Store
from circus_failover.words import Cause, Liveness, Phase
from circus_failover.workforce import start_worker, whereabouts

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

CONFIRM_SECS = 0.05
"""How often circusd looks at launches that are not proven yet; nothing is looked at without one."""
CONFIRM_MAX_SECS = 0.25
REPORT_LATE_SECS = 3.0
WATCH_AGAIN_SECS = 2.0
AGAIN_SECS = 10.0
"""What a boot that an earlier circusd began is given at least."""
LAST_WORD_SECS = 3.0
"""How long a worker whose time is over may take to say how far the boot was."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_DIALOGS = {"login": Cause.CREDENTIALS}
"""What a boot lacked that got no further than a dialog; every runtime calls that one so."""


class Proving:
    """Proves, or fails, the launches of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._confirming: Any = None

    def launched(self, agent: Agent, name: str, report: dict[str, Any]) -> None:
        """Take in a launcher's report: the pane runs, with this pid; the second one says it is the agent."""
        if report["generation"] != agent.row.generation or agent.phase not in (
            Phase.STARTING,
            Phase.STOPPING,
        ):
            return
        pid, start = int(report["pid"]), int(report["start"])
        if start == 0:
            process = process_table.identify(pid)
            start = process.start if process else 0
        server = process_table.identify(int(report["server_pid"]))
        self._supervisor.record(
            agent,
            "launched",
            {"stage": report["stage"], "pid": pid},
            writes=lambda store: store.take_in(name, time.time()),
            pane=str(report["pane"]),
            pid=pid,
            pid_start=start,
            server_pid=int(report["server_pid"]),
            server_start=server.start if server else None,
        )
        if agent.starting is None and agent.phase is Phase.STARTING:
            self.again(agent)
        if agent.starting is not None and report["stage"] == "agent":
            agent.starting.ready_from = time.time()
            self.soon()
        self._supervisor.workforce.work(agent)
        self._supervisor.check(agent)

    def again(self, agent: Agent) -> None:
        """Go on proving a launch that an earlier circusd began."""
        assert self._supervisor.state is not None
        error = self._supervisor.state.launch_error(agent.identity, agent.row.generation)
        now = time.time()
        # What it may take counts from its launch; but it may have become ready while nobody looked.
        begun = max(agent.row.launched_at or now, now - max(_allowed(agent) - AGAIN_SECS, 0.0))
        agent.starting = Starting(begun, error, ready_from=now)
        self.soon()

    def matched(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Take in what the watch of a boot reports: it is ready, never will be, or its time is over."""
        store = self._supervisor.store
        if store is not None:
            with store.decision(durable=False):
                store.take_in(name, time.time())
        if agent is None or agent.starting is None or report["generation"] != agent.row.generation:
            return
        starting, outcome = agent.starting, report["outcome"]
        starting.watch = None
        starting.answered = str(report.get("answered") or "")
        if outcome == "ready":
            starting.proof = str(report.get("evidence") or "")
            starting.conversation = report.get("conversation")
        elif outcome == "hopeless":
            starting.hopeless = agent_health.without_keys(str(report["reason"]))
            starting.dialog = report.get("dialog")
        elif outcome == "timeout":
            starting.last_words = agent_health.without_keys(str(report.get("reason") or ""))
        self.soon()

    def soon(self, secs: float = CONFIRM_SECS) -> None:
        """Look again shortly, and as long as a launch is not proven."""
        if self._confirming is None:
            self._confirming = self._supervisor.loop.call_later(secs, self._confirm_timer)

    def _confirm_timer(self) -> None:
        self._confirming = None
        self._supervisor.take_in_reports()
        self.confirm()
        starting = sum(agent.starting is not None for agent in self._supervisor.roster.agents.values())
        if starting:
            # Many at once share the cost: each look at one of them takes about 0.1 ms of the only loop.
            self.soon(min(max(CONFIRM_SECS, starting * 0.002), CONFIRM_MAX_SECS))

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
            ready_secs = settings.ready_secs if settings else 1.0
            due = starting.ready_from is not None and now - starting.ready_from >= ready_secs
            if due or starting.hopeless is not None or not self._supervisor.pids.watches(agent.identity):
                self._supervisor.check(agent)
            if agent.phase is not Phase.STARTING:
                return
            if starting.hopeless is not None:
                cause = _DIALOGS.get(starting.dialog or "", Cause.LAUNCH_FAILED)
                if cause is Cause.CREDENTIALS:
                    self._supervisor.accounts.asked_for_login(agent, starting.hopeless)
                self._failed(agent, starting.hopeless, told=True, cause=cause)
                return
            if self._proven(agent, starting, due) and due:
                self._up(agent, starting)
                return
        elif starting.error_file.exists():
            self._failed(agent, _tail(starting.error_file) or "tmux could not create the session")
            return
        elif now - starting.begun > REPORT_LATE_SECS:
            self._look_for(agent, starting)
        late = now - starting.begun - _allowed(agent)
        if agent.phase is Phase.STARTING and late > 0 and not (late < LAST_WORD_SECS and _watched(starting)):
            reason = f"not ready within {_allowed(agent):g} s"
            self._failed(agent, f"{reason}; {starting.last_words}" if starting.last_words else reason)

    def _proven(self, agent: Agent, starting: Starting, due: bool) -> bool:
        """Say whether all that has to be looked for was seen; a worker looks for it.

        Args:
            agent: whose launch it is.
            starting: what is known of it.
            due: whether it has run for `failover.ready_secs`.
        """
        settings, state, runtime = agent.settings, self._supervisor.state, _runtime(agent)
        match = settings.ready_match if settings is not None else None
        if starting.proof is not None or state is None or not (runtime.tells or match is not None):
            return True
        # What cannot be told about shows its pattern when it has run for so long, or some other time.
        if starting.ready_from is None or not (due or runtime.tells):
            return False
        self._tell(agent, starting, state)
        left = starting.begun + _allowed(agent) - time.time()
        if left <= 0 or _watched(starting) or time.monotonic() < starting.watch_after:
            return False
        starting.watch_after = time.monotonic() + WATCH_AGAIN_SECS
        files = _files(state, agent.identity, agent.row.generation)
        # What a boot that ended half-way has left.
        _remove(_files(state, agent.identity, agent.row.generation - 1))
        try:
            private_file.write(files.order, json.dumps(self._order(agent, files, state, left)))
            starting.watch = start_worker(files.order)
        except OSError as error:
            logger.error("circus-failover: the boot of %s is not watched: %s", agent.identity, error)
        return False

    def _order(self, agent: Agent, files: _Files, state: StateDir, secs: float) -> dict[str, Any]:
        settings, row = agent.settings, agent.row
        return {
            "kind": "boot",
            "identity": agent.identity,
            "generation": row.generation,
            "launch": row.launch,
            **whereabouts(agent),
            "socket": row.socket,
            "runtime": _runtime(agent).name,
            "home": row.home,
            "working_dir": row.working_dir,
            "conversation": row.conversation,
            "launched_at": row.launched_at or 0.0,
            "dialogs": dict(settings.dialogs) if settings is not None else {},
            "match": settings.ready_match if settings is not None else None,
            "secs": secs,
            "events": str(files.pushed),
            "journal": str(files.answers),
            "spool": str(state.spool),
            "lock": str(state.boot_lock(agent.identity)),
            "agent_lock": str(state.agent_lock(agent.identity)),
        }

    def _tell(self, agent: Agent, starting: Starting, state: StateDir) -> None:
        """Let the worker know what the client's hooks have reported meanwhile."""
        if agent.row.pushed == starting.pushed:
            return
        try:
            path = _files(state, agent.identity, agent.row.generation).pushed
            private_file.write(path, agent.row.pushed or "{}")
            starting.pushed = agent.row.pushed
        except OSError as error:
            logger.error("circus-failover: the boot of %s: %s", agent.identity, error)

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

    def _up(self, agent: Agent, starting: Starting) -> None:
        agent.starting = None
        now, generation = time.time(), agent.row.generation
        conversation = starting.conversation or agent.row.conversation
        switched = self._supervisor.switches.proven(agent)

        def writes(store: Store) -> None:
            if switched is not None:
                switched.writes(store)
            store.update_launch(agent.identity, generation, up_at=now, conversation=conversation)
            launch = store.launches(agent.identity, 1)[0]
            if launch.topic and conversation and not self._supervisor.deliveries.waiting(agent):
                # Woken for a topic without a task: whoever woke it tells it by hand.
                store.add_topic(conversation, launch.topic, agent.identity, now)

        # The park is spent together with this: a launch that never became ready keeps it.
        self._supervisor.record(
            agent,
            "up",
            {
                "evidence": starting.proof or _ran(agent),
                "conversation": conversation,
                **({"answered": starting.answered} if starting.answered else {}),
            },
            phase=Phase.UP,
            reason=None,
            conversation=conversation,
            ready_at=now,
            ready_ticks=process_table.now(),
            ready_conversation=conversation,
            pending=None,
            **UNPARKED,
            **(switched.changes if switched is not None else {}),
            writes=writes,
        )
        if switched is not None:
            self._supervisor.switches.is_proven(agent, switched)
        state = self._supervisor.state
        if state is not None:
            state.launch_file(agent.identity, generation).unlink(missing_ok=True)
            _remove(_files(state, agent.identity, generation))
        self._supervisor.check(agent)
        self._supervisor.deliveries.work(agent)
        self._supervisor.assignments.look(agent)

    def _failed(
        self, agent: Agent, reason: str, *, told: bool = False, cause: Cause = Cause.LAUNCH_FAILED
    ) -> None:
        """A launch failed before its process was known, or never became ready: an end, with its reason."""
        now, generation = time.time(), agent.row.generation
        agent.starting = None
        agent.last_cause = str(Cause.LAUNCH_FAILED)
        other = liveness.probe(agent.row, agent.socket, agent.session)
        failure = self._supervisor.switches.failure(agent, "boot", reason)

        def writes(store: Store) -> None:
            if failure is not None:
                failure.writes(store)
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
            pending=None,
            uncleared=generation,
            **{
                "phase": Phase.STOPPED if agent.row.stay_stopped else Phase.DOWN,
                "cause": Cause.LAUNCH_FAILED,
                "reason": reason,
                **(failure.changes if failure is not None else {}),
            },
        )
        if failure is not None:
            self._supervisor.switches.has_failed(agent, failure)
        if self._supervisor.state is not None:
            _remove(_files(self._supervisor.state, agent.identity, generation))
        self._supervisor.waking.log_failure(agent, str(cause), reason)
        if other.liveness is Liveness.LIVE and not other.ours:
            # Somebody was faster: a session of that name lives, and what lives is adopted.
            self._supervisor.spawn(self._supervisor.bring_up.readopt(agent))
        else:
            self._supervisor.endings.clear(agent, then=None, verdict=reason, told=told, cause=cause)


class _Files(NamedTuple):
    """The files of the watch of one boot."""

    order: Path
    answers: Path
    """What it has answered, for one that takes over."""
    pushed: Path
    """What the client's hooks have reported."""


def _files(state: StateDir, identity: str, generation: int) -> _Files:
    order = state.boot_order(identity, generation)
    return _Files(order, order.with_suffix(".answers"), order.with_suffix(".pushed"))


def _remove(files: _Files) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _runtime(agent: Agent) -> Runtime:
    return RUNTIMES.get(agent.row.runtime or CommandRuntime.name) or RUNTIMES[CommandRuntime.name]


def _allowed(agent: Agent) -> float:
    """Return how many seconds a launch may take until it is up."""
    settings = agent.settings
    if settings is None:
        return 240.0
    return settings.boot_secs + (settings.prepare_secs if settings.prepare else 0.0)


def _watched(starting: Starting) -> bool:
    return starting.watch is not None and process_table.may_run(starting.watch)


def _ran(agent: Agent) -> str:
    return f"it has run for {agent.settings.ready_secs if agent.settings else 1.0:g} s"


def _tail(path: Path, limit: int = 4000) -> str:
    """Return the end of a small text file, without control characters."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return _CONTROLS.sub("", file.read().decode(errors="replace")).strip()
    except OSError:
        return ""
