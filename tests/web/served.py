"""A console that is served in a thread, without a circusd, and somebody's script or browser that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from circus_failover.policy import sign_in
from circus_failover.state_dir import StateDir
from circus_failover.web.access import Access
from circus_failover.web.audit import Audit
from circus_failover.web.handler import MOST_BODY_BYTES, Console
from circus_failover.web.hosts import Hosts
from circus_failover.web.options import Endpoint, Options
from circus_failover.web.server import application
from circus_failover.web.terminal import Terminals
from circus_failover.web.tokens import TokenFolder
from circus_failover.words import Role
from tests.live.fleet import parse_logfmt

SESSION = "/api/v1/session"
CODE = "/api/v1/session/code"
VERB = "/api/v1/hosts/local/verbs/reset"
READ = "/api/v1/hosts"
LIVE = "/api/v1/live"
EVERYWHERE = (
    "/",
    "/nowhere",
    "/sign-in",
    "/static/app.js",
    "/healthz",
    "/metrics",
    SESSION,
    READ,
    LIVE,
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}
"""What makes a request one for a web socket; it is answered 101 when it is accepted."""


def as_sent(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with `-` for the `_` in their names."""
    return {name.replace("_", "-"): text for name, text in headers.items()}


class Served:
    """A console, and somebody who asks it things."""

    def __init__(self, folder: Path, options: Options, limits: sign_in.Limits | None = None) -> None:
        self.state = StateDir(folder / "state")
        self.folder = TokenFolder(self.state)
        self.access = Access(options, limits)
        self.access.use(self.folder)
        self.tokens = self.folder.read()
        self.audit = Audit()
        self.audit.use(self.state.audit_log)
        self.options = options
        (self.socket,) = bind_sockets(0, "127.0.0.1")
        self.netloc = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.url = f"http://{self.netloc}"

    def ask(self, method: str, path: str, **given: Any) -> requests.Response:
        """Ask as a script does: no cookie is kept, nothing is followed, no proxy is used."""
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, allow_redirects=False, timeout=30, **given)

    def get(self, path: str, **headers: str) -> requests.Response:
        """Get something with these headers, `_` in their names for `-`."""
        return self.ask("GET", path, headers=as_sent(headers))

    def post(self, path: str, body: object = None, /, **headers: str) -> requests.Response:
        """Post JSON with these headers."""
        return self.ask("POST", path, json=body, headers=as_sent(headers))

    def bearer(self, role: Role = Role.OPERATOR) -> str:
        """Return the header of a script of a role."""
        return f"Bearer {self.tokens.operator if role is Role.OPERATOR else self.tokens.viewer}"

    def sign_in(self, role: Role = Role.OPERATOR, **headers: str) -> Page:
        """Sign in as a page does."""
        token = self.tokens.operator if role is Role.OPERATOR else self.tokens.viewer
        answer = self.post(SESSION, {"token": token}, **headers)
        assert answer.status_code == 200, answer.text
        ((name, value),) = answer.cookies.items()
        return Page(self, f"{name}={value}", answer)

    def audited(self) -> list[dict[str, str]]:
        """Return the lines of audit.log."""
        path = self.state.audit_log
        return [parse_logfmt(line) for line in path.read_text().splitlines()] if path.exists() else []


class Page:
    """Somebody's browser with a session."""

    def __init__(self, served: Served, cookie: str, answer: requests.Response) -> None:
        self.served, self.cookie, self.answer = served, cookie, answer
        self.csrf = answer.json()["csrf"]

    def headers(self, **others: str) -> dict[str, str]:
        """Return what the page sends with a request; an empty one is left out."""
        given = {"Cookie": self.cookie, "Origin": self.served.url, "X_CSRF_Token": self.csrf, **others}
        return {name: text for name, text in given.items() if text}

    def get(self, path: str) -> requests.Response:
        """Get something as the page does."""
        return self.served.get(path, **self.headers())


@contextlib.contextmanager
def serve(folder: Path, limits: sign_in.Limits | None = None, **options: Any) -> Iterator[Served]:
    """Serve a console of no circusd."""
    served = Served(
        folder, Options(endpoints=(Endpoint("local", f"ipc://{folder}/none"),), **options), limits
    )
    with in_a_thread(served.access, served.audit, [served.socket]):
        yield served


@contextlib.contextmanager
def in_a_thread(access: Access, audit: Audit, sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Run a console on sockets that listen, and end it."""
    ready, over, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def run() -> None:
        hosts, terminals = Hosts(access.options.endpoints), Terminals()
        console = Console(access.options, hosts, access, audit, terminals, "1.2.3")
        await hosts.start()
        server = HTTPServer(application(console), max_body_size=2 * MOST_BODY_BYTES)
        server.add_sockets(sockets)
        ready.set()
        await over.wait()
        server.stop()
        await server.close_all_connections()
        await terminals.close()
        await hosts.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)
        assert not thread.is_alive(), "the console does not close"
        loop.close()
