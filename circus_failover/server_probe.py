"""Find tmux servers that are alive and do not answer, without ever blocking circusd's loop.

A server in a stopped state is seen in the process table for nothing; other hangs are found by asking one
server at a time, in turn, with a client that is given 2 s. One that is silent twice in a row is wedged: that
is said once, and once more when it answers again. Nothing is killed; an agent that was refused a launch
since its server did not answer is merely down once that answers, or is gone, and its restart policy goes on;
one that circusd's own start wanted is started then.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from circus_failover import process_table, tmux
from circus_failover.agent import Agent
from circus_failover.process_table import ProbeFailed, ProcessId
from circus_failover.store import StoreError
from circus_failover.words import Asked, Cause, Phase

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

ANSWER_SECS = 2.0
SILENCES = 2
"""After so many probes in a row without an answer a server is wedged: one may meet a moment of heavy load."""
ROUND_SECS = 10.0
"""How often one that gives no cause is asked, so that a healthy fleet costs next to nothing."""
LOOK_AT = 100
"""How many servers' processes are looked at in one tick."""
_RUNNING = (str(Phase.UP), str(Phase.OBSERVED))


class Server(NamedTuple):
    """A server as its agents know it."""

    socket: str
    process: ProcessId | None


@dataclass
class Silence:
    """A server that did not answer the last time it was asked."""

    since: float
    """When it was first asked in vain, in monotonic seconds."""
    probes: int = 0
    agents: set[str] = field(default_factory=set)
    """Who is shown as wedged with it."""


class ServerProbe:
    """Asks the servers of running agents, one at a time."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._asked: dict[Server, float] = {}
        self._silent: dict[Server, Silence] = {}
        self._running: tuple[Server, subprocess.Popen[bytes], float] | None = None
        self._timer: Any = None
        self._round = 0.0
        self._part = 0

    def tick(self) -> None:
        """See to a probe that is overdue, look for stopped servers, begin the next probe when one is due."""
        if self._running is not None and time.monotonic() - self._running[2] >= ANSWER_SECS:
            self._unanswered()
        agents = self._by_server()
        for server in (self._asked.keys() | self._silent.keys()) - agents.keys():
            self._forget(server)
        for agent in self._supervisor.roster.agents.values():
            agent.wedged = agent.wedged and _runs(agent)
        for server, silence in self._silent.items():
            # Also an agent that was adopted, or got up, since it was found out.
            self._show(server, silence, agents[server])
        if self._running is not None or not agents:
            return
        urgent = [server for server in self._slice(sorted(agents, key=str)) if _suspicious(server)]
        urgent += self._silent
        urgent += [server for server, there in agents.items() if any(map(_refused, there))]
        among: Iterable[Server] = urgent
        if time.monotonic() - self._round >= ROUND_SECS:
            # Also beside one that stays wedged, the others have their turn.
            self._round, among = time.monotonic(), agents
        if among:
            self._begin(min(among, key=lambda server: self._asked.get(server, 0.0)))

    def _by_server(self) -> dict[Server, list[Agent]]:
        """Return the agents of each server that run, or are refused for it."""
        found: dict[Server, list[Agent]] = {}
        known = self._supervisor.roster.agents.values()
        for agent in filter(_runs, known):
            found.setdefault(Server(str(agent.row.socket), agent.row.server), []).append(agent)
        for agent in filter(_refused, known):
            at = Server(str(agent.row.socket or agent.socket), agent.row.server)
            if at.process is None:
                # It has never lived there: the server is that of those who do.
                at = next((server for server in found if server.socket == at.socket), at)
            found.setdefault(at, []).append(agent)
        return found

    def _slice(self, servers: list[Server]) -> list[Server]:
        """Return the servers whose process is looked at in this tick: a part of a large fleet."""
        parts = -(-len(servers) // LOOK_AT)
        self._part = (self._part + 1) % parts
        return servers[self._part :: parts]

    # -- one probe -------------------------------------------------------------------------------------

    def _begin(self, server: Server) -> None:
        self._asked[server] = begun = time.monotonic()
        try:
            client = subprocess.Popen(
                tmux.probe_arguments(Path(server.socket)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=tmux.client_environment(),
            )
        except (OSError, tmux.TmuxError):
            return
        self._running = (server, client, begun)
        assert client.stdout is not None
        loop = self._supervisor.loop
        loop.add_handler(client.stdout.fileno(), self._answered, loop.READ)
        self._timer = loop.call_later(ANSWER_SECS, self._unanswered)

    def _answered(self, fd: Any, events: int) -> None:
        """The client wrote something, or it ended without: then the server has, or cannot be reached."""
        if self._running is None:
            return
        server, client, _ = self._running
        assert client.stdout is not None
        said = client.stdout.read1(64).strip()  # type: ignore[attr-defined]
        self._close(client)
        if said and (server.process is None or said == b"%d" % server.process.pid):
            self._speaks(server)
        elif not _may_live(server):
            self._forget(server)
        elif server in self._silent and self._silent[server].probes < SILENCES:
            # It cannot be reached, which is no silence.
            del self._silent[server]

    def _unanswered(self) -> None:
        """The client had all the time it is given."""
        if self._running is None:
            return
        server, client, begun = self._running
        client.kill()
        self._close(client)
        if not _may_live(server):
            self._forget(server)
            return
        silence = self._silent.setdefault(server, Silence(begun))
        silence.probes += 1
        if silence.probes < SILENCES:
            self._begin(server)
        elif silence.probes == SILENCES:
            agents = self._by_server().get(server, [])
            self._show(server, silence, agents)
            self._say(server, silence, agents, wedged=True)

    def _close(self, client: subprocess.Popen[bytes]) -> None:
        assert client.stdout is not None
        if self._timer is not None:
            self._supervisor.loop.remove_timeout(self._timer)
            self._timer = None
        self._supervisor.loop.remove_handler(client.stdout.fileno())
        client.stdout.close()
        # circusd's own reaping (waitpid of any child) collects it when this poll comes too early.
        client.poll()
        self._running = None

    # -- what came of it -------------------------------------------------------------------------------

    def _speaks(self, server: Server) -> None:
        self._permit(server, "answers")
        silence = self._silent.pop(server, None)
        if silence is None or silence.probes < SILENCES:
            return
        agents = self._by_server().get(server, [])
        for agent in agents:
            if agent.identity in silence.agents:
                agent.wedged = False
                self._tell(agent, "server-answers", server, None)
        self._say(server, silence, agents, wedged=False)

    def _show(self, server: Server, silence: Silence, agents: list[Agent]) -> None:
        """Show the agents of a wedged server as what they are, each once."""
        if silence.probes < SILENCES:
            return
        for agent in filter(_runs, agents):
            agent.wedged = True
            if agent.identity not in silence.agents:
                silence.agents.add(agent.identity)
                reason = f"the tmux server on {server.socket} does not answer (nothing was killed)"
                self._tell(agent, "server-wedged", server, reason)

    def _forget(self, server: Server) -> None:
        """No agent lives in it any more, or it has ended: its silence says nothing."""
        self._asked.pop(server, None)
        if not _may_live(server):
            self._permit(server, "is gone")
        if self._silent.pop(server, None) is not None:
            for agent in self._by_server().get(server, []):
                agent.wedged = False

    def _permit(self, server: Server, what: str) -> None:
        """Nothing is in the way any more of agents that were refused since their server did not answer."""
        for agent in filter(_refused, self._by_server().get(server, [])):
            if agent.restoring and not agent.row.stay_stopped:
                agent.restoring = False
                start = self._supervisor.bring_up.start(agent, "circusd", asked=Asked.RESTORE)
                self._supervisor.spawn(start)
                continue
            reason = f"its tmux server {what}: a launch is not refused any more"
            rests = Phase.PARKED if agent.row.parked_by is not None else Phase.DOWN
            self._supervisor.record(
                agent,
                "server-answers",
                {"socket": server.socket, "reason": reason},
                phase=Phase.STOPPED if agent.row.stay_stopped else rests,
                cause=agent.last_cause or Cause.ENDED_UNKNOWN,
                reason=reason,
            )

    def _say(self, server: Server, silence: Silence, agents: list[Agent], *, wedged: bool) -> None:
        """Write one line about a server, however many agents live in it."""
        event = "server-wedged" if wedged else "server-answers"
        if self._supervisor.log is not None:
            self._supervisor.log.write(
                time.time(),
                event,
                socket=server.socket,
                server_pid=server.process.pid if server.process is not None else None,
                agents=",".join(sorted(agent.identity for agent in agents)),
                secs=round(time.monotonic() - silence.since, 1),
            )

    def _tell(self, agent: Agent, ev: str, server: Server, reason: str | None) -> None:
        """Store and publish what is the matter with one agent; the line in lifecycle.log is its server's."""
        supervisor = self._supervisor
        agent.row = replace(agent.row, reason=reason)
        try:
            if supervisor.store is not None:
                detail = {"phase": agent.row.phase, "socket": server.socket}
                with supervisor.store.decision(durable=False):
                    supervisor.store.put_agent(agent.row)
                    supervisor.store.add_history(
                        time.time(), agent.identity, agent.row.generation, ev, detail
                    )
        except StoreError as error:
            supervisor.store_trouble = str(error)
            supervisor.changed_rows.add(agent.identity)
        supervisor.publish(agent)
        agent.wake_waiters()


def _runs(agent: Agent) -> bool:
    row = agent.row
    return row.socket is not None and row.pid is not None and row.phase in _RUNNING


def _refused(agent: Agent) -> bool:
    return agent.refused_by_silence and (agent.row.socket or agent.socket) is not None


def _suspicious(server: Server) -> bool:
    """Say whether the process table shows a server stopped or in disk wait."""
    if server.process is None:
        return False
    try:
        stat = process_table.read(server.process.pid)
    except ProbeFailed:
        return False
    return stat is not None and stat.id == server.process and stat.run_state in "TtD"


def _may_live(server: Server) -> bool:
    return server.process is None or process_table.may_run(server.process)
