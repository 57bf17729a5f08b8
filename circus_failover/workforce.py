"""The workers of circusd: one short-lived process for each end under way, started again when it died.

A worker is told everything in a file (0600), holds its agent's lock, and reports through the spool; see
`worker`. Nothing here waits for one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, private_file, process_table
from circus_failover.agent import Agent
from circus_failover.process_table import ProcessId
from circus_failover.records import ActionRow
from circus_failover.store import StoreError
from circus_failover.words import IntentAction

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

WORKERS = 32
"""How many workers run at once; the rest wait for a tick."""
UNREPORTED_SECS = 3.0
"""How long an end waits for the report of a launch that was asked for just before."""
RETRY_SECS = (1.0, 2.0, 5.0, 10.0, 30.0)


class Workforce:
    """The workers of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._started: dict[int, float] = {}

    def tend(self) -> None:
        """Start a worker again for every end whose worker is gone and has not reported."""
        for agent in list(self._supervisor.roster.agents.values()):
            self.work(agent)

    def work(self, agent: Agent) -> None:
        """Start the worker of the end under way, unless one is at it or it is too soon to try again."""
        state, store, action = self._supervisor.state, self._supervisor.store, agent.action
        if state is None or store is None or action is None or self._supervisor.arbiter._stopping:
            return
        now = time.monotonic()
        last = self._started.get(action.id)
        if last is not None and now - last < RETRY_SECS[min(action.attempts, len(RETRY_SECS) - 1)]:
            return
        awaited = (
            agent.row.generation == action.generation
            and agent.row.pid is None
            and action.intent != IntentAction.CLEAR
        )
        if awaited and time.time() - action.asked_at < UNREPORTED_SECS:
            # Its session is being created right now: `launched` comes back here with its pid.
            return
        if may_run(action) or sum(1 for one in self._working() if one is not agent) >= WORKERS:
            return
        path = state.worker_spec(action.id)
        order = {
            **action.spec,
            # As it is now: a stronger wish may have overtaken the one that the order was made for.
            "intent": action.intent,
            "action": action.id,
            "tree": str(state.worker_tree(action.id)),
            "supervisor": os.getpid(),
        }
        if order["agent"] is None and agent.row.generation == action.generation:
            order.update(whereabouts(agent))
        try:
            private_file.write(path, json.dumps(order))
            worker = start_worker(path)
        except OSError as error:
            logger.error("circus-failover: no worker for %s could be started: %s", agent.identity, error)
            return
        self._started[action.id] = now
        try:
            with store.decision(durable=False):
                store.worker_started(action.id, worker)
            agent.action = store.open_action(agent.identity) or action
        except StoreError as error:
            self._supervisor.store_trouble = str(error)
        crashpoint.reached("worker-started")

    def _working(self) -> list[Agent]:
        return [
            agent
            for agent in self._supervisor.roster.agents.values()
            if agent.action is not None and agent.action.worker is not None and may_run(agent.action)
        ]

    def done(self, action: int) -> None:
        """Forget when the worker of an action was started; the action is over."""
        self._started.pop(action, None)


def start_worker(order: Path) -> ProcessId | None:
    """Start a worker that reads its order from this file; None when it was there too briefly to be seen.

    Raises:
        OSError: it could not be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "circus_failover.worker", str(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    # circusd reaps any child by itself (waitpid of -1); Popen must not wait for it at its end.
    process.returncode = 0
    return process_table.identify(process.pid)


def whereabouts(agent: Agent) -> dict[str, Any]:
    """Return what is known of a launch's process, server and pane, as an order spells it."""
    process, server = agent.row.process, agent.row.server
    return {
        "agent": [process.pid, process.start] if process else None,
        "server": [server.pid, server.start] if server else None,
        "pane": agent.row.pane,
    }


def may_run(action: ActionRow) -> bool:
    """Say whether the worker of an end may be at it still."""
    return action.worker is not None and process_table.may_run(action.worker)
