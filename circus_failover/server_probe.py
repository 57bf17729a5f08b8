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


class ServerProbe:
    """Asks the servers of running agents, one at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asked: dict[Path, float] = {}
        self._running: tuple[Path, subprocess.Popen[bytes], float] | None = None

    def tick(self) -> None:
        """Look at the stopped ones, finish the probe that runs, begin the next one."""
        by_socket: dict[Path, list[Agent]] = {}
        for agent in self._supervisor.roster.agents.values():
            if agent.phase in (Phase.UP, Phase.OBSERVED) and agent.row.process and agent.socket is not None:
                by_socket.setdefault(agent.socket, []).append(agent)
        if self._running is not None:
            self._finish(by_socket)
        if self._running is None and by_socket:
            urgent = [socket for socket, agents in by_socket.items() if self._suspicious(agents[0])]
            socket = min(urgent or by_socket, key=lambda path: self._asked.get(path, 0.0))
            self._begin(socket)
        for socket in self._asked.keys() - by_socket.keys():
            del self._asked[socket]

    def _suspicious(self, agent: Agent) -> bool:
        """Stopped or in disk wait by the process table, or wedged until it answers again."""
        if agent.wedged:
            return True
        server = agent.row.server
        if server is None:
            return False
        try:
            stat = process_table.read(server.pid)
        except ProbeFailed:
            return False
        return stat is not None and stat.id == server and stat.run_state in "TtD"

    def _begin(self, socket: Path) -> None:
        self._asked[socket] = time.monotonic()
        try:
            client = subprocess.Popen(
                tmux.probe_arguments(socket),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=tmux.client_environment(),
            )
        except (OSError, tmux.TmuxError):
            return
        self._running = (socket, client, time.monotonic())
        assert client.stdout is not None
        self._supervisor.loop.add_handler(client.stdout.fileno(), self._answered, self._supervisor.loop.READ)

    def _answered(self, fd: Any, events: int) -> None:
        """The client wrote something or ended: an answer (or an error, which is an answer too)."""
        if self._running is None:
            return
        socket, client, _ = self._running
        self._close(client)
        self._show(socket, wedged=False)

    def _finish(self, by_socket: dict[Path, list[Agent]]) -> None:
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

    def _show(self, socket: Path, *, wedged: bool) -> None:
        for agent in self._supervisor.roster.agents.values():
            if (
                agent.socket != socket
                or agent.wedged == wedged
                or agent.phase not in (Phase.UP, Phase.OBSERVED)
            ):
                continue
            agent.wedged = wedged
            action = "server-wedged" if wedged else "server-answers"
            self._supervisor.record(
                agent,
                "supervise",
                {"action": action, "socket": str(socket)},
                reason=f"the tmux server on {socket} does not answer (nothing was killed)"
                if wedged
                else None,
            )
