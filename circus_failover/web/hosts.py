"""The circusds that the console shows, each under a name: what is known of each, kept as circusd has it.

Events say what to ask about again, and everything is asked again now and then: a lost event costs a delay.
Nothing here changes anything at circusd by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circus_failover import process_table, state_dir
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from circus_failover.web.link import Link, Refused, Unreachable
from circus_failover.web.mirror import AGENT_EVENT, WATCHER_EVENTS, Mirror, View, parse_topic
from circus_failover.web.pace import Pace
from circus_failover.web.usage import UsageBook
from circus_failover.web.waiting import at_most

if TYPE_CHECKING:
    from circus_failover.web.options import Endpoint

Listener = Callable[[dict[str, Any]], None]

EVERYTHING_SECS = 15.0
"""How often everything is asked for again, whatever was heard."""
TOGETHER_SECS = 0.03
"""Events that come within this time are answered by one reading."""
MOST_NAMES = 100
"""Of so many agents at most the views are asked for by name; of more, all."""
PIDS_IN_TURN = 50
"""Of how many watchers the processes are asked for with each full reading, beside those that changed."""
READING_SECS = 15.0
"""How long circusd may take for a reading."""
_REQUEST = 10
"""A request `fleet` costs circusd as much as so many of the views it answers (1.0 ms for one, 38 for 500)."""
_STATUS = 3
"""And `status` as much as so many requests for the processes of a watcher (3.4 ms for 500, and 1.2)."""

logger = logging.getLogger(__name__)


class Host:
    """One circusd, and what it said last.

    Args:
        endpoint: where it is, and what it is called.
        publish: called with each message for pages.
    """

    def __init__(self, endpoint: Endpoint, publish: Callable[[dict[str, Any]], None]) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint.endpoint
        self.link = Link(
            endpoint.endpoint, ssh=endpoint.ssh, on_event=self._take_event, on_state=self._take_state
        )
        self.local = False
        """Its state directory is on this machine and held by this very circusd."""
        self.state: StateDir | None = None
        """Its state directory; None unless `local`."""
        self.config: Path | None = None
        """Its failover.yaml; None unless `local`, and when it has none."""
        self.usage = UsageBook()
        self._may_be_local = endpoint.ssh is None
        self._mirror = Mirror()
        self._publish = publish
        self._told: dict[str, Any] = {}
        self._placed: tuple[object, ...] = ()
        self._heard_of_agents: set[str] = set()
        self._heard_of_watchers: set[str] = set()
        self._anew = True
        """What pages have may be of another circusd: they get all, not what changed."""
        self._agents_due, self._all_due, self._watchers_due = (asyncio.Event() for _ in range(3))
        self._turn_due = False
        """Watchers of which nothing was heard have their turn."""
        self._agents_pace, self._watchers_pace = Pace(), Pace()
        self._last_roots: dict[str, Sequence[ProcessId | int]] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def agents(self) -> dict[str, View]:
        """The views of `fleet`, by identity; never changed in place."""
        return self._mirror.agents

    @property
    def circusd(self) -> dict[str, Any]:
        """What `fleet` says of circusd itself; empty until it answered, and for a plain Circus."""
        return self._mirror.circusd

    @property
    def watchers(self) -> dict[str, View]:
        """{"name", "status", "agent", "pids"} of every watcher, by its name; never changed in place."""
        return self._mirror.watchers

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._tasks = [
            asyncio.get_running_loop().create_task(work)
            for work in (self._follow_agents(), self._follow_all(), self._follow_watchers(), self._sample())
        ]
        await self.link.start()

    async def close(self) -> None:
        """Close the connection, and end what runs for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()

    async def call(
        self, verb: str, properties: Mapping[str, Any] | None = None, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ask this circusd; see `Link.call`."""
        return await self.link.call(verb, properties, timeout)

    def summary(self) -> dict[str, Any]:
        """Return name, endpoint, reachable, since, why, local, version, pid, trouble, agents (how many)."""
        circusd = self.circusd
        return {
            "name": self.name,
            "endpoint": self.endpoint,
            "reachable": self.link.reachable,
            "since": self.link.since,
            "why": self.link.why or None,
            "local": self.local,
            "version": circusd.get("version"),
            "pid": circusd.get("pid"),
            "trouble": circusd.get("trouble"),
            "agents": len(self.agents),
        }

    # -- messages for pages ----------------------------------------------------------------------------

    def fleet_message(self) -> dict[str, Any]:
        """Return all agents, as a message for pages."""
        agents = [*self.agents.values()]
        return {"type": "fleet", "host": self.name, "agents": agents, "circusd": self.circusd}

    def watchers_message(self) -> dict[str, Any]:
        """Return all watchers, as a message for pages."""
        return {"type": "watchers", "host": self.name, "watchers": [*self.watchers.values()]}

    def _tell_summary(self) -> None:
        found = self.summary()
        if found != self._told:
            self._told = found
            self._publish({"type": "host", "host": found})

    # -- what the link says ----------------------------------------------------------------------------

    def _take_state(self) -> None:
        self._tell_summary()
        if self.link.reachable:
            self._anew = True
            self._agents_pace, self._watchers_pace = Pace(), Pace()
            self._all_due.set()

    def _take_event(self, topic: str, message: dict[str, Any]) -> None:
        parsed = parse_topic(topic)
        if parsed is None:
            return
        name, kind = parsed
        told = message.get("time")
        at = told if isinstance(told, (int, float)) else time.time()
        self._publish({"type": "event", "host": self.name, "topic": topic, "at": at, "message": message})
        if kind == AGENT_EVENT or name in self.agents:
            self._heard_of_agents.add(name)
            self._agents_due.set()
        if kind in WATCHER_EVENTS:
            self._heard_of_watchers.add(name)
            self._watchers_due.set()

    # -- reading ---------------------------------------------------------------------------------------

    # Three kinds, each one at a time, and none waits for another: circusd answers what is asked of one agent
    # within milliseconds, also while all are asked for one after another.

    async def _follow_agents(self) -> None:
        """Read the agents that events named."""
        while True:
            await self._agents_due.wait()
            await asyncio.sleep(max(TOGETHER_SECS, self._agents_pace.rest(time.monotonic())))
            self._agents_due.clear()
            names, self._heard_of_agents = self._heard_of_agents, set()
            if len(names) > MOST_NAMES:
                self._all_due.set()
            elif names and self.link.reachable:
                await self._paced(self._agents_pace, self._read_agents(sorted(names)))

    async def _follow_all(self) -> None:
        """Read everything now and then, and when it must be."""
        due = time.monotonic()
        while True:
            asked_for = await at_most(max(0.0, due - time.monotonic()), self._all_due)
            if asked_for:
                await asyncio.sleep(self._agents_pace.rest(time.monotonic()))
            self._all_due.clear()
            due = time.monotonic() + EVERYTHING_SECS
            if not self.link.reachable:
                continue  # it says so when it is
            # What is asked every so often is bounded by that, and puts off nothing.
            await self._paced(self._agents_pace if asked_for else Pace(), self._read_agents(None))
            self._turn_due = True
            self._watchers_due.set()

    async def _follow_watchers(self) -> None:
        """Read the watchers that events named; and some others, after everything else."""
        while True:
            await self._watchers_due.wait()
            await asyncio.sleep(max(TOGETHER_SECS, self._watchers_pace.rest(time.monotonic())))
            self._watchers_due.clear()
            # Until the agents are known, which watchers are theirs is not.
            if self.link.reachable and not self._anew:
                await self._paced(self._watchers_pace, self._read_watchers())
                if self._turn_due:
                    self._turn_due = False
                    await self._paced(Pace(), self._read_in_turn())

    async def _paced(self, pace: Pace, reading: Coroutine[Any, Any, int]) -> None:
        """Have something read, and its cost noted by the size that it returns."""
        begun = time.monotonic()
        try:
            size = await reading
            pace.spent(time.monotonic() - begun, size, time.monotonic())
        except (Unreachable, Refused) as error:
            logger.warning("%s: cannot be read: %s", self.name, error)
        except Exception:
            logger.exception("%s: cannot be read", self.name)

    async def _read_agents(self, names: Sequence[str] | None) -> int:
        question = self._mirror.question()
        try:
            answer = await self.call("fleet", {"names": names} if names else None, READING_SECS)
        except Refused as error:
            if names:
                # One that is gone is refused together with the others.
                self._all_due.set()
                return _REQUEST + len(names)
            # A plain Circus knows no fleet; ours says what hinders it.
            plain = "unknown command" in str(error)
            answer = {} if plain else {"circusd": {"trouble": str(error)}}
        changed = self._mirror.take_fleet(answer, question, names)
        self._settle_place()
        self._tell_summary()
        if names is None and self._anew:
            self._anew = False
            self._publish(self.fleet_message())
        elif changed:
            told = {"agents": changed.agents, "removed": changed.removed, "circusd": self.circusd}
            self._publish({"type": "agents", "host": self.name, **told})
        return _REQUEST + len(self.agents if names is None else names)

    async def _read_watchers(self) -> int:
        heard_of, self._heard_of_watchers = self._heard_of_watchers, set()
        statuses = (await self.call("status", timeout=READING_SECS)).get("statuses")
        changed, stale = self._mirror.take_statuses(statuses if isinstance(statuses, dict) else {})
        due = sorted({*stale, *self._mirror.named(heard_of)})
        for name in due:
            changed = await self._read_pids(name) or changed
        if changed:
            self._publish(self.watchers_message())
        return _STATUS + len(due)

    async def _read_in_turn(self) -> int:
        changed = False
        names = self._mirror.in_turn(PIDS_IN_TURN)
        for name in names:
            if self._heard_of_watchers and not self._watchers_pace.rest(time.monotonic()):
                await self._paced(self._watchers_pace, self._read_watchers())
            changed = await self._read_pids(name) or changed
        if changed:
            self._publish(self.watchers_message())
        return _STATUS + len(names)

    async def _read_pids(self, name: str) -> bool:
        """Read a watcher's processes; says whether they are others than before."""
        try:
            found = (await self.call("list", {"name": name}, READING_SECS)).get("pids")
        except Refused:
            return False  # it was removed meanwhile
        return self._mirror.take_pids({name: found if isinstance(found, list) else []})

    def _settle_place(self) -> None:
        """Find out whether that circusd is on this machine: it holds the lock of its state directory here."""
        pid, path, config = (self.circusd.get(key) for key in ("pid", "state_dir", "config"))
        if self._placed == (pid, path, config, self.link.since):
            return
        self._placed = (pid, path, config, self.link.since)
        state = StateDir(Path(path)) if isinstance(path, str) and self._may_be_local else None
        self.local = state is not None and isinstance(pid, int) and holds(pid, state)
        self.state = state if self.local else None
        self.config = Path(config) if self.local and isinstance(config, str) else None

    # -- usage -----------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.usage.interval, loop.time())
            await asyncio.sleep(due - loop.time())
            if not self.local:
                continue
            now = time.time()
            try:
                trees = await loop.run_in_executor(None, self.usage.sample, self._roots(), now)
            except Exception:
                logger.exception("%s: what its processes use cannot be read", self.name)
                continue
            # Also without any change: a page's lines go on at the height where they are.
            self._publish({"type": "usage", "host": self.name, "at": now, "trees": trees})

    def _roots(self) -> dict[str, Sequence[ProcessId | int]]:
        """Return the heads of all process trees: an agent's own process, and not its keeper."""
        roots: dict[str, Sequence[int]]
        roots = {name: view["pids"] for name, view in self.watchers.items() if not view["agent"]}
        roots.update((name, [pid] if (pid := view.get("pid")) else []) for name, view in self.agents.items())
        if self.link.reachable:
            self._last_roots = None
            return dict(roots)
        if self._last_roots is None:
            # A pid may be another process by and by, and circusd does not say so now.
            self._last_roots = {
                name: [head for pid in pids if (head := process_table.identify(pid)) is not None]
                for name, pids in roots.items()
            }
        return self._last_roots


def holds(pid: int, state: StateDir) -> bool:
    """Say whether a process on this machine is the circusd that holds a state directory.

    A circusd in a container has other pids: its lock file names a process that is none here, or another one.
    """
    if not os.access(state.path, os.R_OK | os.X_OK):
        return False
    holder = state_dir.holder(state)
    return holder is not None and process_table.identify(pid) == holder.process


class Hosts:
    """All of them, in the order of the configuration; the first is the console's own."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._hosts = {endpoint.name: Host(endpoint, self.publish) for endpoint in endpoints}
        self._listeners: list[Listener] = []

    async def start(self) -> None:
        """Connect to each; returns at once, whoever is there."""
        await _each(host.start() for host in self)

    async def close(self) -> None:
        """Close all connections, and end what runs for them."""
        await _each(host.close() for host in self)

    def get(self, name: str) -> Host:
        """Return the host of that name.

        Raises:
            KeyError: there is none.
        """
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have a listener called with each message for pages, on the loop; returns what ends that.

        A message is handed to all listeners alike: nobody may change it.
        """
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, message: dict[str, Any]) -> None:
        """Hand a message to all listeners; one that fails does not keep it from the others."""
        for listener in tuple(self._listeners):
            try:
                listener(message)
            except Exception:
                logger.exception("a page could not be told %r", message.get("type"))


async def _each(work: Iterator[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)
