"""The web socket of a page, over a real connection; the console here has no circusd to show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, websocket_connect

from circus_failover.state_dir import StateDir
from circus_failover.web import live, sign_in
from circus_failover.web.access import Access
from circus_failover.web.audit import Audit
from circus_failover.web.handler import Console
from circus_failover.web.hosts import Hosts
from circus_failover.web.options import Endpoint, Options
from circus_failover.web.outbox import MOST_MESSAGES
from circus_failover.web.terminal import Terminals
from circus_failover.web.tokens import TokenFolder

BOUND_SECS = 20.0


class Served:
    """A console that serves nothing but the web socket."""

    def __init__(self, folder: Path, *endpoints: Endpoint) -> None:
        self.folder = TokenFolder(StateDir(folder))
        options = Options(port=0, endpoints=endpoints)
        self.access = Access(options)
        self.access.use(self.folder)
        self.hosts = Hosts(endpoints)
        self.terminals = Terminals()
        self.console = Console(options, self.hosts, self.access, Audit(), self.terminals, "1.2.3")
        self._server = HTTPServer(Application([*live.routes(), *sign_in.routes()], console=self.console))
        (listening,) = bind_sockets(0, "127.0.0.1", socket.AF_INET)
        self._server.add_sockets([listening])
        self.address = listening.getsockname()

    async def open(
        self, token: str | None = None, protocols: list[str] | None = None, **headers: str
    ) -> WebSocketClientConnection:
        """Open a web socket; with the operator's token unless another is given."""
        given = {"Authorization": f"Bearer {token or self.folder.read().operator}", **headers}
        url = f"ws://127.0.0.1:{self.address[1]}/api/v1/live"
        asked = HTTPRequest(url, headers={name: text for name, text in given.items() if text})
        return await websocket_connect(asked, subprotocols=protocols)

    async def sign_in(self) -> tuple[dict[str, str], str]:
        """Sign in as a page does: return the headers that the browser sends, and the CSRF token."""
        url = f"http://127.0.0.1:{self.address[1]}"
        body = json.dumps({"token": self.folder.read().operator})
        asked = HTTPRequest(f"{url}/api/v1/session", "POST", {"Content-Type": "application/json"}, body)
        answer = await AsyncHTTPClient().fetch(asked)
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return {"Cookie": cookie, "Origin": url, "Authorization": ""}, json.loads(answer.body)["csrf"]

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()
        await self.terminals.close()
        await self.hosts.close()


@contextlib.asynccontextmanager
async def serving(folder: Path, *endpoints: Endpoint) -> AsyncIterator[Served]:
    """Serve a console, and end all of it."""
    served = Served(folder, *endpoints)
    try:
        await served.hosts.start()
        yield served
    finally:
        await served.close()


def run(play: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 2 * BOUND_SECS))


async def read(page: WebSocketClientConnection) -> dict[str, Any] | None:
    """Return a page's next message; None: it is closed."""
    raw = await asyncio.wait_for(page.read_message(), BOUND_SECS)
    return None if raw is None else dict(json.loads(raw))


async def refused(opening: Awaitable[object]) -> int:
    """Return the status with which a web socket is refused."""
    try:
        await opening
    except HTTPClientError as error:
        return error.code
    raise AssertionError("it was opened")


def test_only_who_is_signed_in_and_calls_the_console_by_its_name_gets_a_web_socket(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path / "state") as served:
            assert await refused(served.open("wrong")) == 401
            assert await refused(served.open(Authorization="")) == 401
            assert await refused(served.open(Host="evil.example:80")) == 421
            assert await refused(served.open(Origin="http://evil.example")) == 403
            page = await served.open(served.folder.read().viewer)
            hello = await read(page)
            assert hello is not None
            assert (hello["type"], hello["role"], hello["version"]) == ("hello", "viewer", "1.2.3")
            assert (hello["who"], hello["hosts"]) == ("web:viewer@127.0.0.1", [])
            page.close()

    run(play)


def test_a_page_offers_its_csrf_token_and_gets_the_subprotocol_and_not_the_token_back(tmp_path: Path) -> None:
    """Browsers fail a socket whose server takes none of the subprotocols that are offered."""

    async def play() -> None:
        async with serving(tmp_path / "state") as served:
            headers, csrf = await served.sign_in()
            for protocols in (None, ["failover"], [csrf], ["failover", "csrf." + csrf[1:] + "0"]):
                assert await refused(served.open(protocols=protocols, **headers)) == 401
            page = await served.open(protocols=["failover", f"csrf.{csrf}"], **headers)
            assert page.selected_subprotocol == "failover"
            assert (await read(page) or {})["who"] == "web:operator@127.0.0.1"
            page.close()
            strange = {**headers, "Origin": "http://127.0.0.1:1"}
            assert await refused(served.open(protocols=["failover", f"csrf.{csrf}"], **strange)) == 403

    run(play)


def test_a_page_hears_what_is_published_and_is_answered_and_one_that_talks_nonsense_is_closed(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with serving(tmp_path / "state") as served:
            page, other = await served.open(), await served.open()
            assert [(await read(each) or {})["type"] for each in (page, other)] == ["hello", "hello"]
            await page.write_message(json.dumps({"do": "usage", "on": False}))
            await page.write_message(json.dumps({"do": "ping"}))
            assert (await read(page) or {})["type"] == "pong"
            served.hosts.publish({"type": "usage", "host": "local", "trees": {}})
            served.hosts.publish({"type": "event", "host": "local", "message": {"reason": "</script>\udcff"}})
            assert (await read(page) or {})["message"]["reason"] == "</script>\udcff", "and no usage"
            assert [(await read(other) or {})["type"] for _ in range(2)] == ["usage", "event"]
            await page.write_message(json.dumps({"do": "terminal", "host": "x", "name": "a", "on": True}))
            assert (await read(page) or {})["type"] == "terminal-gone"
            for nonsense in ("no JSON", "[]", "{}", '{"do":"stop"}', '{"do":"terminal"}'):
                page = await served.open()
                await read(page)
                await page.write_message(nonsense)
                assert await read(page) is None
                assert page.close_code == 1008
            served.hosts.publish({"type": "event", "host": "local", "message": {}})
            assert (await read(other) or {})["type"] == "event", "nobody else is disturbed"
            other.close()

    run(play)


def test_a_page_is_told_and_closed_when_its_sign_in_ends(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path / "state") as served:
            page = await served.open()
            await read(page)
            served.folder.renew()
            served.access.look()
            assert await read(page) == {"type": "signed-out"}
            assert await read(page) is None
            # The console forgets it when it hears that the page has closed, too.
            until = time.monotonic() + BOUND_SECS
            while served.hosts._listeners and time.monotonic() < until:
                await asyncio.sleep(0.01)
            assert not served.hosts._listeners, "nothing is kept of it"

    run(play)


def test_a_page_that_stops_reading_delays_nobody_and_gets_what_is_newest(tmp_path: Path) -> None:
    async def play() -> None:
        async with serving(tmp_path / "state") as served:
            quick = await served.open()
            await read(quick)
            with socket.socket() as slow:
                # As small as the kernel makes it, so that it is full soon.
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(slow, served.address)
                key, token = "x" * 22 + "==", served.folder.read().operator
                asked = (
                    "GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n"
                )
                await loop.sock_sendall(slow, asked.encode())
                got = bytearray(await loop.sock_recv(slow, 4096))
                assert b"101 Switching" in got
                number = 0
                for _ in range(20):  # 40 MB: more than any buffer on the way
                    for _ in range(MOST_MESSAGES // 2):
                        number += 1
                        message = {"type": "agents", "number": number, "text": "x" * 4000}
                        served.hosts.publish(message)
                    while ((await read(quick)) or {}).get("number") != number:
                        pass
                served.hosts.publish({"type": "event", "number": "the last"})
                while not got.endswith(b'"number":"the last"}'):
                    got += await asyncio.wait_for(loop.sock_recv(slow, 1 << 20), BOUND_SECS)
                before, anew, after = bytes(got).rpartition(b'"type":"hello"')
                numbers = [int(found) for found in re.findall(rb'"number":([0-9]+)', before)]
                assert anew, "everything comes anew"
                assert b'"type":"hello"' in before, "as at first"
                assert numbers == [*range(1, len(numbers) + 1)], "nothing is lost before it fell behind"
                assert len(numbers) < number - MOST_MESSAGES, "and what lies between is"
                assert not re.search(rb'"number":[0-9]', after), "nothing stale comes after that"
            quick.close()

    run(play)


def test_a_message_for_many_pages_is_turned_into_text_once() -> None:
    from circus_failover.web.outbox import Encoded

    encoded = Encoded()
    message = {"type": "fleet", "pid": os.getpid()}
    assert encoded(message) is encoded(message)
    assert encoded({"type": "other"}) != encoded(message)
