"""What circusd tells the canary, and what follows from what the canary tells circusd.

The list of watched servers is kept here, one file each (`canary.watched`); the report of a server's death is
taken in here, and each agent that lived in it gets its death from it. Without the Canary plugin circusd
records the deaths that it finds itself: how a server ended is not known then. Nothing is started or ended
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus import logger

from circus_failover import crashpoint, process_table
from circus_failover.agent import LIVE_PHASES, Agent
from circus_failover.canary import asking, starting, watched
from circus_failover.canary.death import EV, Death
from circus_failover.canary.watched import Watched, WatchedAgent
from circus_failover.plugin_input import parse_options
from circus_failover.policy import server_exit
from circus_failover.process_table import ProcessId
from circus_failover.records import LaunchRow, ServerExitRow
from circus_failover.store import Store
from circus_failover.words import Cause, Detected, NoticeKind, Phase, ServerCause

if TYPE_CHECKING:
    from circus_failover.supervisor import Supervisor

PLUGINS = frozenset({"circus_failover.plugins.Canary", "circus_failover.plugins.canary.Canary"})
WORD_SECS = 2.0
"""How long the count of a death waits for the canary to say how the server ended; it takes milliseconds."""
LATE_SECS = 3.0
"""circusd says at each tick that servers live: an end after a longer silence came while none ran."""
BEGIN_SECS = 2.0
"""How long a canary that was started may take until it answers; it takes a tenth of a second."""
TOGETHER_SECS = 10.0
"""An agent that ended by itself so shortly before or after its server went with it."""
AT_ONCE = 10
"""How many deaths of one report are followed before the loop has its turn."""
NAMED = 5
"""How many agents of one server's end are named; how many there were more is said."""
_UNSAID = (str(Cause.SERVER_LOST), str(Cause.ENDED_UNKNOWN), str(Cause.LAUNCH_FAILED))


class ServerWatches:
    """The tmux servers of one supervisor's agents."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._entries: dict[str, tuple[ProcessId, WatchedAgent]] = {}
        self._left: set[ProcessId] = set()
        """Servers that an agent has left: seen to when its end is over."""
        self._gone: set[ProcessId] = set()
        """Servers that circusd has found gone, and of which nobody has recorded how they ended."""
        self._untold = False
        """The canary could not be told of a change: it is told at the next tick to look at everything."""
        self._begin_after = 0.0
        """Monotonic seconds before which no canary is started again."""
        self._awaiting: dict[str, tuple[int, float]] = {}
        """Agents whose death is counted when the canary has spoken: the generation, and until when."""

    @property
    def expected(self) -> bool:
        """Whether the Canary plugin is configured, so that deaths are the canary's to record."""
        return any(_runs_canary(str(watcher.cmd)) for watcher in self._supervisor.arbiter.watchers)

    # -- the list --------------------------------------------------------------------------------------

    def open(self) -> None:
        """At circusd's start: put the servers of all agents on the list, and settle what is left on it."""
        if self._supervisor.state is None:
            return
        state_dir = str(self._supervisor.state.path)
        if self._supervisor.roster.agents:
            # Before the first launch, so that it is there when that is ready.
            self._begin(state_dir)
        for agent in self._supervisor.roster.agents.values():
            self.follow(agent)
        for agent in self._supervisor.roster.agents.values():
            # Taken in by a circusd that died before it had followed it.
            row = self.exit_of(agent)
            if row is not None:
                self._follow_one(agent, agent.row.generation, row)
        wanted = {watched.server_name(server) for server, _ in self._entries.values()}
        for name in list(watched.names(state_dir)):
            if name in wanted:
                continue
            found = watched.read(state_dir, name)
            if found is None or found.boot != self._supervisor.boot:
                watched.remove(state_dir, name)
            elif not found.drill:
                self._left.add(found.server)
        self._left.update(watched.intents(state_dir))

    def follow(self, agent: Agent) -> None:
        """Keep the server an agent lives in on the list; called after every change of its row."""
        state = self._supervisor.state
        if state is None:
            return
        new = self._entry(agent)
        old = self._entries.get(agent.identity)
        if new == old:
            return
        if old is not None and (new is None or new[0] != old[0]):
            self._left.add(old[0])
        if new is None:
            self._entries.pop(agent.identity, None)
            return
        self._entries[agent.identity] = new
        self._put(str(state.path), new[0], str(agent.row.socket), agent.row.ready_at)

    def _entry(self, agent: Agent) -> tuple[ProcessId, WatchedAgent] | None:
        """Return the server that an agent lives in and what the canary is told of the agent."""
        row = agent.row
        lives = agent.phase in LIVE_PHASES | {Phase.OBSERVED} and row.pid is not None
        if not lives or row.server is None or row.boot != self._supervisor.boot:
            return None
        entry = WatchedAgent(
            identity=agent.identity,
            generation=row.generation,
            launch=row.launch,
            session=row.session,
            pane=row.pane,
            process=row.process,
        )
        return row.server, entry

    def _put(self, state_dir: str, server: ProcessId, socket: str, alive_at: float | None) -> None:
        """Write a server's file as its agents are now, and tell the canary."""
        before = watched.read(state_dir, watched.server_name(server))
        asked_at = before.asked_at if before is not None else time.time()
        if before is None and not process_table.may_run(server):
            if self._ending(server):
                # Its end was meant, and is over: the canary took it off the list.
                return
            asked_at = alive_at or asked_at
        agents = tuple(
            entry
            for at, entry in sorted(self._entries.values(), key=lambda pair: pair[1].identity)
            if at == server
        )
        try:
            watched.write(state_dir, Watched(socket, server, self._supervisor.boot, asked_at, False, agents))
        except OSError as error:
            # Nobody is stopped for it: the next change of one of its agents writes it anew.
            logger.error("circus-failover: the server on %s is not watched: %s", socket, error)
            return
        self._tell(state_dir, server)

    def _ending(self, server: ProcessId) -> bool:
        """Say whether every agent that lives in a server is being ended."""
        agents = self._supervisor.roster.agents
        inside = [name for name, (at, _) in self._entries.items() if at == server]
        return all(name in agents and agents[name].action is not None for name in inside)

    def _tell(self, state_dir: str, server: ProcessId) -> None:
        """Tell the canary of a change; one that is not there yet is started, before the plugin would."""
        if asking.poke(state_dir, watched.server_name(server)):
            return
        self._untold = True
        self._begin(state_dir)

    def _begin(self, state_dir: str) -> None:
        """Start the canary, if one is wanted and none runs; what it reports is seen to by its plugin."""
        now = time.monotonic()
        if now < self._begin_after or not self.expected or asking.holder(state_dir) is not None:
            return
        self._begin_after = now + BEGIN_SECS
        try:
            starting.begin(state_dir)
        except OSError as error:
            logger.error("circus-failover: the canary could not be started: %s", error)

    def forget(self, identity: str) -> None:
        """Let go of an agent that is none any more: it lives on, and is nobody's concern here."""
        entry = self._entries.pop(identity, None)
        if entry is not None:
            self._left.add(entry[0])

    def meant(self, agent: Agent) -> None:
        """An agent is being ended, and the server that it has for itself with it; its worker says so, too."""
        state, server = self._supervisor.state, agent.row.server
        if state is None or server is None or not agent.row.own_server or not process_table.may_run(server):
            return
        try:
            watched.intend(str(state.path), server, watched.ANY)
        except OSError as error:
            logger.warning(
                "circus-failover: the end of %s's server may be recorded: %s", agent.identity, error
            )

    def settle(self) -> None:
        """Take servers that agents have left off the list, or leave them to the canary that records them."""
        state = self._supervisor.state
        if state is None or not self._left:
            return
        ending = {
            agent.row.server for agent in self._supervisor.roster.agents.values() if agent.action is not None
        }
        for server in self._left - ending:
            self._left.discard(server)
            self._release(str(state.path), server)

    def _release(self, state_dir: str, server: ProcessId) -> None:
        name = watched.server_name(server)
        found = watched.read(state_dir, name)
        stays = any(at == server for at, _ in self._entries.values())
        if found is None:
            if not process_table.may_run(server):
                watched.withdraw(state_dir, server)
            return
        if process_table.may_run(server):
            if stays:
                self._put(state_dir, server, found.socket, None)
                return
        elif server_exit.recorded(watched.intent(state_dir, server), None, None):
            if not self.expected:
                self._record_here(found)
            return
        watched.remove(state_dir, name)
        self._tell(state_dir, server)

    # -- ticking ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say that every server that is watched was not seen to end until now; settle what waits."""
        state = self._supervisor.state
        if state is None:
            return
        # Whoever records a death takes its file off the list; one that was meant is off it, too.
        self._gone = {
            server
            for server in self._gone
            if os.path.exists(watched.path(str(state.path), watched.server_name(server)))
        }
        if not self._gone:
            _touch(state.path / watched.SEEN)
        self.settle()
        if self._untold:
            self._untold = not asking.poke(str(state.path))
        now = time.monotonic()
        for identity, (generation, until) in list(self._awaiting.items()):
            if now < until:
                continue
            del self._awaiting[identity]
            agent = self._supervisor.roster.agents.get(identity)
            if agent is not None and agent.row.generation == generation:
                self._count(agent)

    # -- deaths ----------------------------------------------------------------------------------------

    def exit_of(self, agent: Agent) -> ServerExitRow | None:
        """Return how the server that an agent's launch was in ended, if that was recorded."""
        server, store = agent.row.server, self._supervisor.store
        return store.server_exit(agent.row.boot or "", server) if server is not None and store else None

    def lost(self, agent: Agent) -> None:
        """An agent was found to be gone with its server: it is counted once it is known how that ended."""
        state, server = self._supervisor.state, agent.row.server
        if state is not None and server is not None and self.exit_of(agent) is None:
            self._gone.add(server)
            if self.expected:
                # Also where no canary runs just now: another is there within a moment.
                self._awaiting[agent.identity] = (agent.row.generation, time.monotonic() + WORD_SECS)
                return
            found = watched.read(str(state.path), watched.server_name(server))
            if found is not None:
                self._record_here(found)
        row = self.exit_of(agent)
        if row is not None:
            self._say(agent, row)
        self._count(agent)

    def _count(self, agent: Agent) -> None:
        supervisor, cause = self._supervisor, str(agent.last_cause)
        supervisor.reaped(agent, cause, agent.row.reason or "its tmux server is gone")
        supervisor.crash_loops.ended(agent)

    def _record_here(self, found: Watched) -> None:
        """No canary is configured: what circusd found is all that there is to record."""
        state, supervisor = self._supervisor.state, self._supervisor
        if state is None:
            return
        now, up = time.time(), process_table.seconds_since(found.server.start)
        seen = max(found.asked_at, watched.last_seen(str(state.path)) or 0.0)
        late = now - seen > LATE_SECS
        death = Death(
            watched=found,
            at=now,
            up=max(0.0, up - (now - seen)) if late else up,
            number=None,
            status=None,
            how="none",
            cause=str(ServerCause.UNKNOWN),
            detected=str(Detected.POST_FACTUM if late else Detected.LIVE),
            seen=seen if late else None,
            evidence="no canary watched it",
            forensics=None,
        )
        if supervisor.exits is not None:
            supervisor.exits.write(now, EV, **death.fields())
        watched.remove(str(state.path), found.name)
        self._gone.discard(found.server)
        if supervisor.store is not None:
            row = _row(death.report())
            with supervisor.store.decision(durable=True):
                if supervisor.store.add_server_exit(row):
                    self._notice(row)(supervisor.store)

    def taken_in(self, name: str, report: dict[str, Any]) -> None:
        """Take in what the canary recorded: the rows at once, then the death of each agent in its turn.

        Raises:
            StoreError: they could not be stored; the report waits.
        """
        store = self._supervisor.store
        rows = [_row(raw) for raw in report["deaths"]]
        if store is None:
            return
        with store.decision(durable=True):
            store.take_in(name, time.time())
            new = [row for row in rows if store.add_server_exit(row)]
            for row in new:
                self._notice(row)(store)
        self._gone -= {ProcessId(row.pid, row.start) for row in rows}
        crashpoint.reached("server-exits-taken-in")
        self._supervisor.spawn(self._follow_all(new))

    def _notice(self, row: ServerExitRow) -> Callable[[Store], None]:
        """Return what writes down that somebody may want to be told of a server's end."""
        names = sorted({str(agent["identity"]) for agent in row.agents})
        who = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        return self._supervisor.notices.writing(
            NoticeKind.SERVER_DEATH,
            f"{who or 'no agent'}: {reason_of(row)}",
            identity=names[0] if len(names) == 1 else None,
            key=row.socket,
            cause=row.cause,
            agents=names,
            pid=row.pid,
        )

    async def _follow_all(self, rows: list[ServerExitRow]) -> None:
        followed = 0
        for row in rows:
            for raw in row.agents:
                agent = self._supervisor.roster.agents.get(str(raw["identity"]))
                if agent is not None:
                    self._follow_one(agent, int(raw["generation"]), row)
                followed += 1
                if followed % AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _follow_one(self, agent: Agent, generation: int, row: ServerExitRow) -> None:
        """Give one agent its death, or say now how it died that was already found to be gone."""
        supervisor, store = self._supervisor, self._supervisor.store
        if agent.row.generation != generation or store is None:
            return
        supervisor.check(agent)
        launches = store.launches(agent.identity, 1)
        launch = launches[0] if launches else None
        if launch is None or launch.generation != generation or not _went_with(launch, row):
            return
        awaited = self._awaiting.pop(agent.identity, None) is not None
        counts = awaited or launch.end_cause != str(cause_of(row))
        if counts or agent.phase in (Phase.DOWN, Phase.STOPPED):
            self._say(agent, row, launch)
        if counts:
            self._count(agent)

    def _say(self, agent: Agent, row: ServerExitRow, launch: LaunchRow | None = None) -> None:
        """Say of an agent that is gone how its server ended, if that was not said so far."""
        cause, reason = cause_of(row), reason_of(row)
        if (agent.last_cause, agent.row.reason) == (str(cause), reason):
            return

        def writes(store: Store) -> None:
            store.update_launch(agent.identity, agent.row.generation, end_cause=str(cause))
            if launch is not None and launch.ended_at is not None:
                # Found gone later: the earlier of both is nearer to when it was.
                at = min(row.at, launch.ended_at)
                store.update_launch(agent.identity, agent.row.generation, ended_at=at)

        changes: dict[str, Any] = {}
        if agent.phase in (Phase.DOWN, Phase.STOPPED):
            changes = {"cause": cause, "reason": reason}
        agent.last_cause = str(cause)
        self._supervisor.record(
            agent,
            "server-exit",
            {"cause": cause, "reason": reason, "how": row.how},
            durable=True,
            writes=writes,
            **changes,
        )


def _went_with(launch: LaunchRow, row: ServerExitRow) -> bool:
    """Say whether a launch that ended by itself ended with that server, as far as it is known."""
    if launch.ended_at is None or launch.planned or launch.end_cause not in _UNSAID:
        return False
    return launch.end_cause == str(Cause.SERVER_LOST) or abs(launch.ended_at - row.at) <= TOGETHER_SECS


def _touch(seen: Path) -> None:
    with contextlib.suppress(OSError):
        try:
            os.utime(seen)
        except FileNotFoundError:
            os.close(os.open(seen, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _runs_canary(command: str) -> bool:
    """Say whether a watcher's command is the Canary plugin's, and not in a dry run."""
    if PLUGINS.isdisjoint(command.split()):
        return False
    # As Circus 0.19 passes options to a plugin (circus.plugins._cfg2str).
    given = re.search(r"--config (\S+)", command)
    pairs = (pair.partition(":") for pair in given[1].split(":::")) if given else ()
    options, _ = parse_options({key: value for key, _, value in pairs}, 1.0)
    return not options.dry_run


def _row(raw: dict[str, Any]) -> ServerExitRow:
    """Return the row of a death as it was reported."""
    return ServerExitRow(
        boot=str(raw["boot"]),
        pid=int(raw["pid"]),
        start=int(raw["start"]),
        socket=str(raw["socket"]),
        at=float(raw["at"]),
        up=raw["up"],
        signal=raw["signal"],
        status=raw["status"],
        how=str(raw["how"]),
        cause=str(ServerCause(raw["cause"])),
        detected=str(Detected(raw["detected"])),
        seen=raw["seen"],
        evidence=str(raw["evidence"]),
        forensics=raw["forensics"],
        agents=[
            {"identity": str(agent["identity"]), "generation": int(agent["generation"])}
            for agent in raw["agents"]
        ],
    )


def cause_of(row: ServerExitRow) -> Cause:
    """Return how the launch of an agent ended that lived in a server which ended so."""
    return Cause.SERVER_ENDED if row.cause == ServerCause.ORDERLY_UNINTENDED else Cause.SERVER_LOST


def reason_of(row: ServerExitRow) -> str:
    """Say in words how a server ended."""
    what = {
        ServerCause.KILLED: "was killed",
        ServerCause.CRASHED: "crashed",
        ServerCause.OOM_LIKELY: "was probably killed for memory",
        ServerCause.ORDERLY_UNINTENDED: "was closed by somebody",
        ServerCause.UNKNOWN: "is gone, nobody knows how",
    }[ServerCause(row.cause)]
    how = ""
    if row.signal is not None:
        with contextlib.suppress(ValueError):
            how = f" ({signal.Signals(row.signal).name})"
    elif row.status:
        how = f" (status {row.status})"
    with_others = f", with {len(row.agents)} agents" if len(row.agents) > 1 else ""
    return f"its tmux server {what}{how}{with_others}: pid {row.pid} on {row.socket}"
