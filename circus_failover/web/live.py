"""The web socket of a page: sends it what changes, as it changes, and hears what it wants to see.

It shows and never acts: what a page asks of circusd goes through the API. However slow a page is, it costs a
bounded memory and delays nobody: it loses what lies between, and gets what is newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from circus_failover.web.handler import ConsoleHandler
from circus_failover.web.outbox import Message, Outbox
from circus_failover.web.waiting import at_most

PROTOCOL = "failover"
"""The subprotocol that pages offer and get: browsers fail a socket that offers some and gets none."""
MOST_TERMINALS = 8
"""Terminals that one page can look at."""
MOST_PAGES = 100
"""Pages at once; who comes later is told to try again."""
PING_SECS = 20.0
"""How often a page is asked whether it is there; one that does not say so before the next time is closed."""
SIGN_IN_SECS = 5.0
"""How often it is looked up whether a page is still signed in, beside when a session ends before its time."""
_LONGEST_REQUEST = 4096
_GOING_AWAY = 1001  # RFC 6455, 7.4.1
_TRY_AGAIN_LATER = 1013  # IANA's registry of web socket close codes
_POLICY = 1008  # RFC 6455, 7.4.1, like the next
_FAILED = 1011

logger = logging.getLogger(__name__)


class LiveHandler(ConsoleHandler, WebSocketHandler):
    """`/api/v1/live`, for everybody who is signed in; its checks are those of every request."""

    _pages: ClassVar[set[LiveHandler]] = set()

    def initialize(self) -> None:
        """Begin without anything."""
        self._outbox = Outbox(self._send, self._everything)
        self._sessions = asyncio.Event()
        """Sessions may have ended."""
        self._subscribed: list[Callable[[], None]] = []
        self._terminals: dict[tuple[str, str], Callable[[], None]] = {}
        self._usage = True
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ping_interval(self) -> float | None:
        """Seconds from one question whether the page is there to the next."""
        return PING_SECS

    @property
    def max_message_size(self) -> int:
        """Bytes of the longest request of a page."""
        return _LONGEST_REQUEST

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Take the one that is spoken here, if a page offers it; what else it offers is its CSRF token."""
        return PROTOCOL if PROTOCOL in subprotocols else None

    def check_origin(self, origin: str) -> bool:
        """Leave it to the checks of every request, which know what the console is called."""
        return True

    # -- the connection --------------------------------------------------------------------------------

    def open(self, *args: str, **kwargs: str) -> None:
        """Send a page all there is, and then what changes."""
        if len(self._pages) >= MOST_PAGES:
            self.close(_TRY_AGAIN_LATER, "too many pages")
            return
        self._pages.add(self)
        self._subscribed = [
            self.console.hosts.subscribe(self._publish),
            self.console.access.subscribe(self._sessions.set),
        ]
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._write_for_ever()), loop.create_task(self._stay_signed_in())]

    def on_close(self) -> None:
        """Forget the page."""
        self._pages.discard(self)
        for stop in (*self._subscribed, *self._terminals.values()):
            stop()
        self._terminals.clear()
        for task in self._tasks:
            task.cancel()

    async def _write_for_ever(self) -> None:
        try:
            await self._outbox.run()
        except Exception:
            logger.exception("a page cannot be told what changes")
            self.close(_FAILED, "the console failed at this; its log says how")

    async def _stay_signed_in(self) -> None:
        """Close the page when its session ends: by time, because it signed out, or by new tokens."""
        while self.still_signed_in():
            await at_most(SIGN_IN_SECS, self._sessions)
            self._sessions.clear()
        with contextlib.suppress(WebSocketClosedError):
            # Past what waits: it is not for this page any more.
            await self.write_message({"type": "signed-out"})
        self.close(_POLICY, "signed out")

    async def _send(self, text: str) -> None:
        try:
            await self.write_message(text)
        except WebSocketClosedError:
            # on_close comes, and cancels what runs here.
            await asyncio.get_running_loop().create_future()

    # -- to the page -----------------------------------------------------------------------------------

    def _publish(self, message: Message) -> None:
        if self._usage or message["type"] != "usage":
            self._outbox.put(message)

    def _everything(self) -> Iterator[Message]:
        hosts = self.console.hosts
        yield {
            "type": "hello",
            "role": str(self.role),
            "who": self.who,
            "version": self.console.version,
            "now": time.time(),
            "hosts": [host.summary() for host in hosts],
        }
        for host in hosts:
            yield host.fleet_message()
            yield host.watchers_message()
        for host_name, name in [*self._terminals]:
            # What a frame adds to the one before means nothing without that: from a whole one anew.
            self._look_away(host_name, name)
            self._look_at(host_name, name)

    # -- from the page ---------------------------------------------------------------------------------

    def on_message(self, message: str | bytes) -> None:
        """Take in what a page wants to see."""
        try:
            asked = json.loads(message)
            do = asked["do"]
            if do == "ping":
                self._outbox.put({"type": "pong", "now": time.time()})
            elif do == "usage":
                self._usage = bool(asked["on"])
            elif do == "terminal":
                host, name = str(asked["host"]), str(asked["name"])
                self._look_away(host, name)
                if asked["on"]:
                    self._look_at(host, name)
            else:
                raise ValueError(do)
        except (ValueError, KeyError, TypeError):
            self.close(_POLICY, "a request that makes no sense")

    def _look_at(self, host_name: str, name: str) -> None:
        def gone(reason: str) -> None:
            self._outbox.put({"type": "terminal-gone", "host": host_name, "name": name, "reason": reason})

        try:
            host = self.console.hosts.get(host_name)
        except KeyError:
            gone(f"there is no host {host_name!r}")
            return
        if len(self._terminals) >= MOST_TERMINALS:
            gone(f"a page shows {MOST_TERMINALS} terminals at most")
            return
        self._terminals[host_name, name] = self.console.terminals.watch(host, name, self._outbox.put)

    def _look_away(self, host_name: str, name: str) -> None:
        stop = self._terminals.pop((host_name, name), None)
        if stop is not None:
            stop()


def routes() -> list[tuple[str, Any]]:
    """Return the routes of this module: `/api/v1/live`."""
    return [(r"/api/v1/live", LiveHandler)]


def close_pages() -> None:
    """Close every web socket: the console ends, and pages connect to the next one by themselves."""
    for page in [*LiveHandler._pages]:
        page.close(_GOING_AWAY, "the console ends")
