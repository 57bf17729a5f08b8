"""What a page of the console hears of real circusds: deaths, restarts, hangs, two hosts at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection

from circus_failover.web.link import Unreachable
from circus_failover.web.options import Endpoint
from tests.live.fleet import Fleet, wait_for
from tests.live.terminal import private_folder
from tests.web.test_live import Served, serving

BOUND_SECS = 30.0


class Page:
    """A page, and all that it was told, in order."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._told: list[dict[str, Any]] = []

    @property
    def now(self) -> int:
        """How many messages were taken: a place to look from later, for what comes in no certain order."""
        return len(self._told)

    async def until(self, kind: str, since: int | None = None, **wanted: Any) -> dict[str, Any]:
        """Take messages up to the first of a kind that says what is wanted; what is a callable, judges.

        Args:
            kind: the type of the message.
            since: an earlier `now`: what was taken since then counts, too; None: only what comes.
            wanted: what it says.
        """

        def fits(message: dict[str, Any]) -> bool:
            found = [(message.get(key), value) for key, value in wanted.items()]
            return message["type"] == kind and all(
                value(said) if callable(value) else said == value for said, value in found
            )

        async def wait() -> dict[str, Any]:
            at = begun = self.now if since is None else since
            while True:
                while at == self.now:
                    raw = await self._socket.read_message()
                    seen = [message["type"] for message in self._told[begun:]]
                    assert raw is not None, f"closed while waiting for {kind} {wanted}, after {seen}"
                    self._told.append(json.loads(raw))
                if fits(self._told[at]):
                    return self._told[at]
                at += 1

        return await asyncio.wait_for(wait(), BOUND_SECS)

    async def send(self, **message: Any) -> None:
        await self._socket.write_message(json.dumps(message))

    def close(self) -> None:
        self._socket.close()


def state(name: str, reachable: bool, why: str = "") -> Callable[[dict[str, Any]], bool]:
    """Judge a summary: whether it is of this host, and says this."""
    return lambda host: host["name"] == name and host["reachable"] is reachable and why in (host["why"] or "")


def agent(name: str, phase: str, reason: str = "") -> Callable[[list[dict[str, Any]]], bool]:
    """Judge a list of agents: whether one of them is as wanted."""
    return lambda views: any(
        view["identity"] == name and view["phase"] == phase and reason in (view["reason"] or "")
        for view in views
    )


@pytest.fixture
def other() -> Any:
    """A plain Circus: no section of it names a hook of ours."""
    with private_folder() as folder:
        made = Fleet(folder)
        made.watcher("Plain One", "sleep 1000")
        try:
            yield made
        finally:
            made.close()


def test_a_page_hears_of_two_circusds_whatever_happens_to_them(fleet: Fleet, other: Fleet) -> None:
    fleet.agent("alpha")
    fleet.watcher("plain", "sleep 1000")
    fleet.start()
    fleet.await_up("alpha")

    async def play(folder: Path) -> None:
        ours, theirs = Endpoint("local", fleet.endpoint), Endpoint("other", other.endpoint)
        async with serving(folder, ours, theirs) as served:
            page = Page(await served.open())
            await page.until("fleet", host="local", agents=agent("alpha", "up"))
            await comes_late(page, served)
            # Stopped as by a terminal: it takes as long as its patience, while everything else goes on.
            assert other.circusd is not None
            stopped = page.now
            os.kill(other.circusd.pid, signal.SIGSTOP)
            try:
                await dies(page, served)
                await circusd_dies(page, served)
                await circusd_comes_back(page, served)
                silent = state("other", False, "is there and has not answered")
                await page.until("host", since=stopped, host=silent)
            finally:
                os.kill(other.circusd.pid, signal.SIGCONT)
            await page.until("host", host=state("other", True))
            await page.until("fleet", host="other")
            page.close()

    async def comes_late(page: Page, served: Served) -> None:
        absent = "there is no circusd"
        await asyncio.to_thread(
            wait_for, absent, lambda: absent in (served.hosts.get("other").summary()["why"] or "")
        )
        begun = page.now
        await asyncio.to_thread(other.start)
        other.await_watcher("Plain One", "active")
        told = await page.until("host", since=begun, host=state("other", True))
        assert told["host"]["local"] is False
        assert (await page.until("fleet", since=begun, host="other"))["agents"] == []
        pids = other.call("list", name="Plain One")["pids"]
        plain = {"name": "Plain One", "status": "active", "agent": False, "pids": pids}
        await page.until(
            "watchers",
            since=begun,
            host="other",
            watchers=lambda found: len(found) == 1 and plain.items() <= found[0].items(),
        )
        host = served.hosts.get("local")
        assert (host.local, host.config) == (True, fleet.yaml)
        assert host.state is not None
        assert host.state.path == fleet.state

    async def dies(page: Page, served: Served) -> None:
        pid = served.hosts.get("local").agents["alpha"]["pid"]
        await page.until("usage", trees=lambda trees: {"alpha", "plain"} <= trees.keys())
        killed = page.now
        os.kill(pid, signal.SIGKILL)
        await page.until("event", since=killed, host="local", topic="watcher.alpha.agent")
        told = await page.until("agents", since=killed, agents=agent("alpha", "down", "signal 9"))
        assert [view["identity"] for view in told["agents"]] == ["alpha"]
        await page.until(
            "watchers",
            since=killed,
            watchers=lambda found: (
                {"alpha": "stopped"}.items() <= {w["name"]: w["status"] for w in found}.items()
            ),
        )

    async def circusd_dies(page: Page, served: Served) -> None:
        # It takes nothing in any more, so that the request waits: until the connection ends.
        assert fleet.circusd is not None
        fleet.circusd.send_signal(signal.SIGSTOP)
        waiting = asyncio.ensure_future(served.hosts.get("local").call("fleet", timeout=1000))
        await asyncio.sleep(0)  # it is sent
        fleet.circusd.kill()
        with pytest.raises(Unreachable, match="went away before it answered"):
            await waiting
        told = await page.until("host", host=state("local", False, "went away"))
        assert told["host"]["local"] is True, "what is on this machine can still be looked at"
        await asyncio.to_thread(fleet.circusd.wait, 20)

    async def circusd_comes_back(page: Page, served: Served) -> None:
        begun = page.now
        await asyncio.to_thread(fleet.start)
        await page.until("host", since=begun, host=state("local", True))
        told = await page.until("fleet", since=begun, host="local")
        assert fleet.circusd is not None
        assert told["circusd"]["pid"] == fleet.circusd.pid
        # Of the new circusd's own stream: the old subscription is good again.
        woken = page.now
        await served.hosts.get("local").call("wake", {"names": ["alpha"]}, timeout=BOUND_SECS)
        await page.until("event", since=woken, host="local", topic="watcher.alpha.agent")
        await page.until("agents", since=woken, agents=agent("alpha", "up"))

    with private_folder() as folder:
        asyncio.run(play(folder / "state"))
