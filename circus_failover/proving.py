"""The proof of a launch: its script reports the pid, and it is up once it has run for `failover.ready_secs`.

Everything here is looked at again by a timer, so a report that is lost costs seconds and no wrong answer.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import liveness, private_file, process_table
from circus_failover.agent import UNPARKED, Agent, Starting
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
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


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
        agent.starting = Starting(time.time(), error, ready_from=time.time())
        self.soon()

    def matched(self, agent: Agent | None, name: str, report: dict[str, Any]) -> None:
        """Take in what the watch of a boot reports: the screen shows what it must, or never will."""
        store = self._supervisor.store
        if store is not None:
            with store.decision(durable=False):
                store.take_in(name, time.time())
        if agent is None or agent.starting is None or report["generation"] != agent.row.generation:
            return
        agent.starting.watch = None
        agent.starting.matched = report["outcome"] == "matched"
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
            if due or not self._supervisor.pids.watches(agent.identity):
                self._supervisor.check(agent)
            if agent.phase is not Phase.STARTING:
                return
            if due and self._shows(agent, starting):
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

    def _shows(self, agent: Agent, starting: Starting) -> bool:
        """Say whether the screen has shown what `failover.ready_match` asks for; a worker looks for it."""
        settings, state = agent.settings, self._supervisor.state
        if settings is None or settings.ready_match is None or starting.matched or state is None:
            return True
        watched = starting.watch is not None and process_table.may_run(starting.watch)
        if watched or time.monotonic() < starting.watch_after:
            return False
        starting.watch_after = time.monotonic() + WATCH_AGAIN_SECS
        order = state.boot_order(agent.identity, agent.row.generation)
        try:
            private_file.write(
                order,
                json.dumps(
                    {
                        "kind": "boot",
                        "identity": agent.identity,
                        "generation": agent.row.generation,
                        **whereabouts(agent),
                        "socket": agent.row.socket,
                        "match": settings.ready_match,
                        "secs": settings.boot_secs,
                        "spool": str(state.spool),
                        "lock": str(state.boot_lock(agent.identity)),
                    }
                ),
            )
            starting.watch = start_worker(order)
        except OSError as error:
            logger.error("circus-failover: the boot of %s is not watched: %s", agent.identity, error)
        return False

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
        now, generation, conversation = time.time(), agent.row.generation, agent.row.conversation

        def writes(store: Store) -> None:
            store.update_launch(agent.identity, generation, up_at=now)
            launch = store.launches(agent.identity, 1)[0]
            if launch.topic and conversation and not self._supervisor.deliveries.waiting(agent):
                # Woken for a topic without a task: whoever woke it tells it by hand.
                store.add_topic(conversation, launch.topic, agent.identity, now)

        # The park is spent together with this: a launch that never became ready keeps it.
        self._supervisor.record(
            agent,
            "up",
            {},
            phase=Phase.UP,
            reason=None,
            ready_at=now,
            ready_ticks=process_table.now(),
            ready_conversation=conversation,
            pending=None,
            **UNPARKED,
            writes=writes,
        )
        state = self._supervisor.state
        if state is not None:
            state.launch_file(agent.identity, generation).unlink(missing_ok=True)
            state.boot_order(agent.identity, generation).unlink(missing_ok=True)
        self._supervisor.check(agent)
        self._supervisor.deliveries.work(agent)

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
            pending=None,
            uncleared=generation,
        )
        self._supervisor.waking.log_failure(agent, str(Cause.LAUNCH_FAILED), reason)
        if other.liveness is Liveness.LIVE and not other.ours:
            # Somebody was faster: a session of that name lives, and what lives is adopted.
            self._supervisor.spawn(self._supervisor.bring_up.readopt(agent))
        else:
            self._supervisor.endings.clear(agent, then=None, verdict=reason)


def _tail(path: Path, limit: int = 4000) -> str:
    """Return the end of a small text file, without control characters."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return _CONTROLS.sub("", file.read().decode(errors="replace")).strip()
    except OSError:
        return ""
