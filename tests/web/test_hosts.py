"""What the console asks of a circusd, and what it tells pages of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover.state_dir import StateDir, claim
from circus_failover.web.hosts import MOST_NAMES, Host, Hosts, holds
from circus_failover.web.options import Endpoint
from tests.live.terminal import private_folder
from tests.web.peer import Peer

BOUND_SECS = 20.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with private_folder() as made:
        yield made


class Scene:
    """One peer, the console's hosts, and what pages were told."""

    def __init__(self, folder: Path) -> None:
        self.peer = Peer(folder)
        self.phases: dict[str, str] | None = {}
        """What `fleet` answers; None: it is a plain Circus, which knows no such verb."""
        self.circusd: dict[str, Any] = {"pid": 7, "version": "1"}
        self.watchers: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.held: str | None = None
        """What is asked by this verb about all is not answered until `release`."""
        self.waiting: list[tuple[bytes, dict[str, Any]]] = []
        self.told: list[dict[str, Any]] = []
        self.hosts = Hosts([Endpoint("local", self.peer.endpoint)])
        self.hosts.subscribe(self._hear)
        self._heard = asyncio.Event()
        self._answering = asyncio.get_running_loop().create_task(self._answer())

    @property
    def host(self) -> Host:
        return self.hosts.get("local")

    def _hear(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        self._heard.set()

    async def _answer(self) -> None:
        while True:
            who, request = await self.peer.asked.get()
            verb, asked = request["command"], request["properties"]
            self.requests.append((verb, asked))
            answer: dict[str, Any] = {"status": "ok"}
            names = asked.get("names", self.phases or ())
            if verb == "fleet" and self.phases is None:
                answer = {"status": "error", "reason": "unknown command: 'fleet'"}
            elif verb == "fleet" and any(name not in (self.phases or ()) for name in names):
                answer = {"status": "error", "reason": "no agent of that name"}
            elif verb == "fleet":
                views = [{"identity": name, "phase": (self.phases or {})[name]} for name in names]
                answer.update(agents=views, circusd=self.circusd)
            elif verb == "status":
                answer["statuses"] = self.watchers
            elif verb == "list":
                answer["pids"] = [5]
            answer["id"] = request["id"]
            if verb == self.held and "names" not in asked:
                self.waiting.append((who, answer))
                self._heard.set()
            else:
                await self.peer.answer(who, answer)

    async def until_held(self) -> None:
        """Wait until an answer is held back."""

        async def wait() -> None:
            while not self.waiting:
                self._heard.clear()
                await self._heard.wait()

        await asyncio.wait_for(wait(), BOUND_SECS)

    async def release(self) -> None:
        """Send what was held back, as it was when it was asked for."""
        self.held = None
        while self.waiting:
            await self.peer.answer(*self.waiting.pop(0))

    async def until(self, kind: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait for a message of a kind that makes a condition true, and forget those before it."""

        async def wait() -> dict[str, Any]:
            while True:
                self._heard.clear()
                while self.told:
                    message = self.told.pop(0)
                    if message["type"] == kind and condition(message):
                        return message
                await self._heard.wait()

        return await asyncio.wait_for(wait(), BOUND_SECS)

    def fleets(self) -> list[dict[str, Any]]:
        """Return with what `fleet` was asked since the last time."""
        found = [asked for verb, asked in self.requests if verb == "fleet"]
        self.requests.clear()
        return found

    async def close(self) -> None:
        self._answering.cancel()
        await self.hosts.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._answering
        self.peer.vanish()


def run(folder: Path, play: Callable[[Scene], Awaitable[None]]) -> None:
    async def scene() -> None:
        made = Scene(folder)
        try:
            await play(made)
        finally:
            await made.close()

    asyncio.run(asyncio.wait_for(scene(), 2 * BOUND_SECS))


def test_an_event_has_its_agent_read_again_and_many_at_once_have_all_read_in_one(folder: Path) -> None:
    async def play(scene: Scene) -> None:
        names = [f"a{number:03}" for number in range(MOST_NAMES + 1)]
        scene.phases = dict.fromkeys(names, "up")
        await scene.hosts.start()
        first = await scene.until("fleet", lambda _: True)
        assert (len(first["agents"]), first["circusd"]) == (len(names), scene.circusd)
        assert scene.fleets() == [{}]

        scene.phases["a007"] = "down"
        for _ in range(20):
            await scene.peer.publish("watcher.a007.agent", {"time": 12.5, "phase": "down"})
        event = await scene.until("event", lambda _: True)
        assert (event["topic"], event["at"]) == ("watcher.a007.agent", 12.5)
        told = await scene.until("agents", lambda _: True)
        assert (told["agents"], told["removed"]) == ([{"identity": "a007", "phase": "down"}], [])
        assert {str(asked) for asked in scene.fleets()} == {"{'names': ['a007']}"}

        for name in names:
            scene.phases[name] = "parked"
            scene.host._take_event(f"watcher.{name}.agent", {})
        await scene.until("agents", lambda _: all(v["phase"] == "parked" for v in scene.host.agents.values()))
        # What was published last of a007 may have been heard after it was read.
        asked = [one for one in scene.fleets() if one != {"names": ["a007"]}]
        assert asked == [{}], "one reading for many events"

        del scene.phases["a007"]
        await scene.peer.publish("watcher.a007.remove", {})
        told = await scene.until("agents", lambda message: message["removed"])
        assert (told["agents"], told["removed"], told["circusd"]) == ([], ["a007"], scene.circusd)
        assert "a007" not in scene.host.agents

    run(folder, play)


def test_an_event_is_seen_while_all_agents_are_read_and_their_older_answer_does_not_undo_it(
    folder: Path,
) -> None:
    async def play(scene: Scene) -> None:
        scene.phases = {"a": "up", "b": "up"}
        await scene.hosts.start()
        await scene.until("fleet", lambda _: True)

        scene.held = "fleet"
        scene.host._all_due.set()
        await scene.until_held()
        scene.phases = {"a": "down", "b": "up"}
        await scene.peer.publish("watcher.a.agent", {})
        told = await scene.until("agents", lambda message: message["agents"])
        assert told["agents"] == [{"identity": "a", "phase": "down"}]

        # What comes now was true before.
        await scene.release()
        scene.phases = {"a": "down", "b": "parked"}
        await scene.peer.publish("watcher.b.agent", {})
        await scene.until("agents", lambda message: message["agents"])
        assert {name: view["phase"] for name, view in scene.host.agents.items()} == scene.phases

    run(folder, play)


def test_an_event_is_seen_while_the_processes_of_watchers_are_asked_for(folder: Path) -> None:
    async def play(scene: Scene) -> None:
        scene.phases, scene.watchers, scene.held = {"a": "up"}, {"a": "active", "web": "active"}, "list"
        await scene.hosts.start()
        await scene.until_held()
        scene.phases = {"a": "down"}
        await scene.peer.publish("watcher.a.agent", {})
        await scene.until("agents", lambda message: message["agents"] == [{"identity": "a", "phase": "down"}])
        assert scene.waiting, "watchers are still being read"
        await scene.release()
        told = await scene.until("watchers", lambda _: True)
        assert [(each["name"], each["agent"]) for each in told["watchers"]] == [("a", True), ("web", False)]

    run(folder, play)


def test_a_circus_without_agents_is_shown_with_its_watchers(folder: Path) -> None:
    async def play(scene: Scene) -> None:
        scene.phases, scene.watchers = None, {"web": "active"}
        await scene.hosts.start()
        fleet = await scene.until("fleet", lambda _: True)
        assert (fleet["agents"], fleet["circusd"]) == ([], {})
        told = await scene.until("watchers", lambda _: True)
        assert told["watchers"] == [{"name": "web", "status": "active", "agent": False, "pids": [5]}]
        summary = scene.host.summary()
        assert (summary["reachable"], summary["local"], summary["version"]) == (True, False, None)
        assert summary["trouble"] is None
        scene.watchers = {"web": "stopped"}
        await scene.peer.publish("watcher.web.stop", {})
        await scene.until("watchers", lambda message: message["watchers"][0]["status"] == "stopped")

    run(folder, play)


def test_a_page_whose_listener_fails_keeps_nothing_from_the_others(folder: Path) -> None:
    async def play(scene: Scene) -> None:
        def fail(message: dict[str, Any]) -> None:
            raise RuntimeError("this page is broken")

        scene.hosts._listeners.insert(0, fail)
        await scene.hosts.start()
        await scene.until("fleet", lambda _: True)
        unsubscribe = scene.hosts.subscribe(fail)
        unsubscribe()
        unsubscribe()

    run(folder, play)


def test_local_is_only_a_circusd_whose_lock_names_it_on_this_machine(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    assert not holds(os.getpid(), state), "there is no such folder here"
    state.prepare()
    assert not holds(os.getpid(), state), "nobody holds it"
    lock = claim(state, "ipc:///x", "circus.ini")
    try:
        assert holds(os.getpid(), state)
        assert not holds(os.getppid(), state), "another circusd holds it"
        # As the circusd of a container writes it, which has that number only there.
        text = state.lock.read_text()
        state.lock.write_text(text.replace('"start": ', '"start": 1'))
        assert not holds(os.getpid(), state)
    finally:
        os.close(lock)
