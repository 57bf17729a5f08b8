"""Find tmux servers that are alive and do not answer, without ever blocking circusd's loop.

A server in a stopped state is seen in the process table for nothing; other hangs are found by asking
one server a second, in turn, with a client that is given 2 s. A wedged server is shown and logged;
nothing is killed, and nothing else follows from it.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover import process_table, tmux
from circus_failover.agent import Agent
from circus_failover.process_table import ProbeFailed
from circus_failover.words import Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

ANSWER_SECS = 2.0
ROUND_SECS = 10.0
"""How often a server that gives no cause is asked, so that a healthy fleet costs next to nothing."""
LOOK_AT = 100
"""How many servers' processes are looked at in one tick."""
_RUNNING = (str(Phase.UP), str(Phase.OBSERVED))


class ServerProbe:
    """Asks the servers of running agents, one at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asked: dict[str, float] = {}
        self._running: tuple[str, subprocess.Popen[bytes], float] | None = None
        self._begun = 0.0
        self._part = 0

    def tick(self) -> None:
        """Finish the probe that runs, look for stopped servers, begin the next probe when one is due."""
        if self._running is not None:
            self._finish()
        by_socket: dict[str, list[Agent]] = {}
        for agent in self._supervisor.roster.agents.values():
            row = agent.row
            if row.socket is not None and row.pid is not None and row.phase in _RUNNING:
                by_socket.setdefault(row.socket, []).append(agent)
        if self._running is not None or not by_socket:
            return
        for name in self._asked.keys() - by_socket.keys():
            del self._asked[name]
        now = time.monotonic()
        urgent = [name for name in self._slice(sorted(by_socket)) if self._suspicious(by_socket[name][0])]
        urgent += [name for name, agents in by_socket.items() if agents[0].wedged]
        if urgent or now - self._begun >= ROUND_SECS:
            self._begin(min(urgent or by_socket, key=lambda name: self._asked.get(name, 0.0)), now)

    def _slice(self, names: list[str]) -> list[str]:
        """Return the servers whose process is looked at in this tick: a part of a large fleet."""
        parts = -(-len(names) // LOOK_AT)
        self._part = (self._part + 1) % parts
        return names[self._part :: parts]

    def _suspicious(self, agent: Agent) -> bool:
        """Say whether the process table shows its server stopped or in disk wait."""
        server = agent.row.server
        if server is None:
            return False
        try:
            stat = process_table.read(server.pid)
        except ProbeFailed:
            return False
        return stat is not None and stat.id == server and stat.run_state in "TtD"

    def _begin(self, name: str, now: float) -> None:
        self._asked[name] = self._begun = now
        try:
            client = subprocess.Popen(
                tmux.probe_arguments(Path(name)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=tmux.client_environment(),
            )
        except (OSError, tmux.TmuxError):
            return
        self._running = (name, client, now)
        assert client.stdout is not None
        self._supervisor.loop.add_handler(client.stdout.fileno(), self._answered, self._supervisor.loop.READ)

    def _answered(self, fd: Any, events: int) -> None:
        """The client wrote something or ended: an answer (or an error, which is an answer too)."""
        if self._running is None:
            return
        socket, client, _ = self._running
        self._close(client)
        self._show(socket, wedged=False)

    def _finish(self) -> None:
        assert self._running is not None
        socket, client, begun = self._running
        if time.monotonic() - begun < ANSWER_SECS:
            return
        client.kill()
        self._close(client)
        self._show(socket, wedged=True)

    def _close(self, client: subprocess.Popen[bytes]) -> None:
        assert client.stdout is not None
        self._supervisor.loop.remove_handler(client.stdout.fileno())
        client.stdout.close()
        # circusd's own reaping (waitpid of any child) collects it when this poll comes too early.
        client.poll()
        self._running = None

    def _show(self, socket: str, *, wedged: bool) -> None:
        for agent in self._supervisor.roster.agents.values():
            if (
                agent.row.socket != socket
                or agent.wedged == wedged
                or agent.phase not in (Phase.UP, Phase.OBSERVED)
            ):
                continue
            agent.wedged = wedged
            action = "server-wedged" if wedged else "server-answers"
            self._supervisor.record(
                agent,
                "supervise",
                {"action": action, "socket": socket},
                reason=f"the tmux server on {socket} does not answer (nothing was killed)"
                if wedged
                else None,
            )
