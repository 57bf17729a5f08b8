"""How the console reaches one circusd, against an endpoint that answers as each test wants it to."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover.web.link import Link, NoAnswer, Refused, Unreachable, events_endpoint
from circus_failover.web.waiting import at_most
from tests.live.terminal import private_folder
from tests.web.peer import Peer

BOUND_SECS = 20.0
OPEN: list[Link] = []
# What ssh does here, without a second machine: it listens on the near socket and passes on what comes.
FORWARD = f"""#!{sys.executable}
import os, socket, sys, threading
near, _, far = sys.argv[sys.argv.index("-L") + 1].partition(":")
with open(os.path.join(os.path.dirname(__file__), "ssh.log"), "a") as log:
    print(os.getpid(), *sys.argv[1:], file=log)
def forward(one, other):
    while piece := one.recv(65536):
        other.sendall(piece)
    other.shutdown(socket.SHUT_WR)
def serve():
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(near)
        listening.listen()
        while True:
            here, there = listening.accept()[0], socket.socket(socket.AF_UNIX)
            there.connect(far)
            for ends in ((here, there), (there, here)):
                threading.Thread(target=forward, args=ends, daemon=True).start()
if os.path.exists(near):
    os.unlink(near)
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with private_folder() as made:
        yield made


class Watched:
    """A link, and what it told."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.states: list[tuple[bool, str]] = []
        self.link = Link(endpoint, on_event=self._event, on_state=self._state, **options)
        OPEN.append(self.link)
        self._told = asyncio.Event()

    def _event(self, topic: str, message: dict[str, Any]) -> None:
        self.events.append((topic, message))
        self._told.set()

    def _state(self) -> None:
        self.states.append((self.link.reachable, self.link.why))
        self._told.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what it told makes a condition true."""

        async def wait() -> None:
            while not condition():
                self._told.clear()
                await self._told.wait()

        await asyncio.wait_for(wait(), BOUND_SECS)

    async def told_by(self, peer: Peer, topic: str, message: dict[str, Any]) -> None:
        """Have an event heard, among what is none; said again until it is, as a subscription that was made
        takes a moment until the other end knows of it (ZeroMQ's slow joiner)."""
        while (topic, message) not in self.events:
            self._told.clear()
            await peer.publish("something else", message)
            await peer.publish("watcher.a.spawn", ["no mapping"])
            await peer.publish(topic, message)
            await at_most(0.05, self._told)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    """Play a scene, and close what it has opened whatever becomes of it: libzmq waits for that at the end."""

    async def closed() -> None:
        try:
            await asyncio.wait_for(scene(), 2 * BOUND_SECS)
        finally:
            while OPEN:
                await OPEN.pop().close()
            while Peer.running:
                Peer.running[-1].vanish()

    asyncio.run(closed())


def test_answers_find_their_requests_whatever_comes_between(folder: Path) -> None:
    async def scene() -> None:
        peer, watched = Peer(folder), Watched(f"ipc://{folder}/ctl")
        await watched.link.start()
        await watched.until(lambda: watched.link.reachable)
        first = asyncio.ensure_future(watched.link.call("one", {"name": "a"}))
        second = asyncio.ensure_future(watched.link.call("two"))
        (who, one), (_, two) = await peer.asked.get(), await peer.asked.get()
        assert (one["command"], one["properties"], two["properties"]) == ("one", {"name": "a"}, {})
        for junk in (b"\xff not JSON", b"[]", b"1", {"id": "of nobody", "status": "ok"}, {"status": "error"}):
            await peer.answer(who, junk)
        await peer.answer(who, {"id": two["id"], "status": "error", "reason": "not now", "errno": 5})
        await peer.answer(who, {"id": one["id"], "status": "active"})
        assert (await first)["status"] == "active"
        with pytest.raises(Refused, match="^not now$") as refused:
            await second
        assert refused.value.answer["errno"] == 5
        with pytest.raises(NoAnswer, match="'three' within 0.05 s"):
            await watched.link.call("three", timeout=0.05)
        assert watched.link.reachable, "one late answer says nothing of circusd"

    run(scene)


def test_whoever_waits_learns_at_once_that_circusd_went_away_and_events_come_again_from_the_next(
    folder: Path,
) -> None:
    async def scene() -> None:
        watched = Watched(f"ipc://{folder}/ctl")
        await watched.link.start()
        await watched.until(lambda: watched.states)
        assert watched.states == [(False, f"there is no circusd at ipc://{folder}/ctl")]
        with pytest.raises(Unreachable, match="there is no circusd at"):
            await watched.link.call("fleet")
        for launch in range(3):
            peer = Peer(folder)
            await watched.until(lambda: watched.link.reachable)
            assert peer.asked.empty()
            await watched.told_by(peer, "watcher.a.agent", {"launch": launch})
            # No timeout of its own ends it: only that the peer is gone.
            waiting = asyncio.ensure_future(watched.link.call("stop", timeout=1000))
            await peer.asked.get()
            peer.vanish()
            # Asked before it can be known: whoever comes next must not get that.
            stale = asyncio.ensure_future(watched.link.call("start", timeout=1000))
            for asked in (waiting, stale):
                with pytest.raises(Unreachable, match="went away before it answered"):
                    await asked
            assert watched.states[-1] == (False, f"circusd at ipc://{folder}/ctl went away")
        told = [event for event, _ in itertools.groupby(watched.events)]
        assert told == [("watcher.a.agent", {"launch": launch}) for launch in range(3)]

    run(scene)


def test_a_circusd_that_hangs_is_not_reachable_is_asked_once_and_comes_back(folder: Path) -> None:
    async def scene() -> None:
        peer, watched = Peer(folder), Watched(f"ipc://{folder}/ctl", ping=0.02, patience=0.1)
        await watched.link.start()
        await watched.until(lambda: watched.link.reachable)
        peer.silent = True
        await watched.until(lambda: not watched.link.reachable)
        assert watched.link.why.endswith("is there and has not answered for 0.1 s")
        with pytest.raises(Unreachable, match="has not answered"):
            await watched.link.call("fleet")
        who, ping = await peer.asked.get()
        assert ping["command"] == "numwatchers"
        assert peer.asked.empty(), "a circusd that hangs must not find a heap of questions when it goes on"
        peer.silent = False
        told = len(watched.states)
        await peer.answer(who, {"id": ping["id"], "status": "ok"})
        await watched.until(lambda: watched.link.reachable)
        assert watched.states[told] == (True, ""), "so that everything is read again"

    run(scene)


def test_an_answer_that_came_just_before_the_end_is_an_answer(folder: Path) -> None:
    async def scene() -> None:
        for _ in range(3):
            peer, watched = Peer(folder), Watched(f"ipc://{folder}/ctl")
            await watched.link.start()
            await watched.until(lambda: watched.link.reachable)  # noqa: B023
            waiting = asyncio.ensure_future(watched.link.call("quit"))
            who, request = await peer.asked.get()
            await peer.answer(who, {"id": request["id"], "status": "ok"})
            peer.vanish(linger=1000)
            assert (await waiting)["status"] == "ok"
            await watched.link.close()

    run(scene)


def test_what_was_published_while_the_stream_was_away_is_made_up_for(folder: Path) -> None:
    async def scene() -> None:
        peer, watched = Peer(folder), Watched(f"ipc://{folder}/ctl")
        await watched.link.start()
        await watched.until(lambda: watched.link.reachable)
        told = len(watched.states)
        peer.publish_anew()
        await watched.until(lambda: len(watched.states) > told)
        assert watched.states[told] == (True, ""), "so that everything is read again"

    run(scene)


def test_a_task_that_is_cancelled_while_what_it_waits_for_comes_ends() -> None:
    async def scene() -> None:
        for turns in range(4):
            event = asyncio.Event()
            waiting = asyncio.ensure_future(at_most(1000, event))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            event.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait([waiting])
                assert waiting.cancelled(), turns
        assert await at_most(1000, event)
        assert not await at_most(0, asyncio.Event())

    run(scene)


def test_nothing_waits_for_a_circusd_that_is_not_there(folder: Path) -> None:
    async def scene() -> None:
        for endpoint in ("nonsense", "ipc://" + "x" * 200, "tcp://127.0.0.1:notaport"):
            watched = Watched(endpoint)
            await watched.link.start()
            assert "cannot be used" in watched.link.why

    run(scene)


@pytest.mark.parametrize(
    ("published", "asked", "found"),
    [
        ("tcp://0.0.0.0:5556", "tcp://10.0.0.5:5555", "tcp://10.0.0.5:5556"),
        ("tcp://*:5556", "tcp://box:5555", "tcp://box:5556"),
        ("tcp://*:5556", "tcp://[fd00::5]:5555", "tcp://[fd00::5]:5556"),
        ("tcp://127.0.0.1:5556", "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"),
        ("ipc:///run/pub", "ipc:///run/ctl", "ipc:///run/pub"),
    ],
)
def test_events_are_taken_from_the_machine_that_was_asked(published: str, asked: str, found: str) -> None:
    assert events_endpoint(published, asked) == found


def test_a_circusd_on_another_machine_is_reached_through_ssh_which_is_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "ssh"
    program.write_text(FORWARD)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def logged() -> list[list[str]]:
        return [line.split() for line in (folder / "ssh.log").read_text().splitlines()]

    async def scene() -> None:
        peer, watched = Peer(folder), Watched(f"ipc://{folder}/ctl", ssh="-oProxyCommand=bad")
        await watched.link.start()
        for launch in range(2):
            await watched.until(lambda: watched.link.reachable)
            waiting = asyncio.ensure_future(watched.link.call("one"))
            who, request = await peer.asked.get()
            await peer.answer(who, {"id": request["id"], "status": "ok", "launch": launch})
            assert (await waiting)["launch"] == launch
            # It is reachable also when that for events takes long to come.
            while len(started := logged()) < 2 + launch:
                await asyncio.sleep(0.01)
            assert len(started) == 2 + launch, "one for requests, one for events, and one again"
            os.kill([int(pid) for pid, *given in started if f"{folder}/ctl" in str(given)][-1], 9)
            await watched.until(lambda: not watched.link.reachable)
        given = started[0]
        assert given[-3:] == ["--", "-oProxyCommand=bad", "cat"], "a machine's name is never an option"
        assert "BatchMode=yes" in given

    run(scene)
