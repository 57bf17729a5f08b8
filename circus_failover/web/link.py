"""One circusd as the console reaches it: requests with their answers, its events, and whether it answers.

It knows messages and connections alone: what an answer means is for `hosts`. It never raises for a circusd
that is not there, and never repeats a request: what was asked once is asked once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from circus_failover.web.tunnel import Tunnel
from circus_failover.web.waiting import at_most

RETRY_MS = (100, 1000)
"""How long to wait before connecting again: at first, and at most."""
_JOIN_SECS = 1.0
"""How long to wait for the event stream before the first reading; later it leads to another reading."""
_BATCH = 100
"""Messages until others of the loop have their turn: awaiting what is there already does not yield."""
_HEARTBEAT_MS = 5000
_MONITORED = (
    zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
)
_EVENTS = b"watcher."
"""What every topic of Circus 0.19 begins with."""

logger = logging.getLogger(__name__)


class Unreachable(Exception):
    """circusd does not answer, or went away before it did; the text is a sentence."""


class NoAnswer(Unreachable):
    """circusd took the request and did not answer in time; what it was asked to do may be under way."""


class Refused(Exception):
    """circusd said no; the text is its reason, `answer` all that it said."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(str(answer.get("reason") or "circusd refused without a reason"))
        self.answer = dict(answer)


class Link:
    """The connection to one endpoint, on the running loop; it comes back by itself.

    Args:
        endpoint: where that circusd takes requests, as in its circus.ini.
        ssh: the machine to reach it through, as ssh takes it; None: directly.
        on_event: called with topic and message of each event.
        on_state: called when `reachable` or `why` changed, and when events may have been lost.
        ping: after how many seconds without a word circusd is asked whether it is there.
        patience: how many seconds it may take to answer that before it counts as not reachable.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        ssh: str | None = None,
        on_event: Callable[[str, dict[str, Any]], None],
        on_state: Callable[[], None],
        ping: float = 3.0,
        patience: float = 5.0,
    ) -> None:
        self.endpoint = endpoint
        self.reachable = False
        self.since = time.time()
        """When `reachable` changed last, in epoch seconds."""
        self.why = f"{endpoint} has not been asked yet"
        """A sentence; empty while it is reachable."""
        self._gone = f"circusd at {endpoint} went away"
        self._hangs = f"circusd at {endpoint} is there and has not answered for {patience:g} s"
        self._ping = ping
        self._patience = patience
        self._on_event = on_event
        self._on_state = on_state
        self._tunnel = Tunnel(ssh, self._tunnel_failed) if ssh else None
        self._context: zmq.asyncio.Context | None = None
        self._requests: zmq.asyncio.Socket | None = None
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._heard = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: asyncio.Task[None]
        self._attending: asyncio.Task[None] | None = None
        self._events: list[asyncio.Task[None]] = []
        self._stream: tuple[str, zmq.asyncio.Socket] | None = None
        self._joined = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect; returns at once, whether there is a circusd or not."""
        self._context = zmq.asyncio.Context()
        self._connect()

    async def close(self) -> None:
        """Close the connection; requests that wait end with `Unreachable`."""
        self._drop_waiting("the console is closing its connections")
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_requests()
        if self._stream is not None:
            _close(self._stream[1])
            self._stream = None
        if self._context is not None:
            self._context.term()
        if self._tunnel is not None:
            await self._tunnel.close()

    async def call(
        self, verb: str, properties: Mapping[str, Any] | None = None, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ask circusd, and return its answer.

        Args:
            verb: the name of a command of circusd.
            properties: what goes with it.
            timeout: seconds to wait for the answer.

        Raises:
            Refused: it said no.
            NoAnswer: it did not answer within `timeout` seconds.
            Unreachable: it is not there, or went away before it answered.
        """
        if not self.reachable:
            raise Unreachable(self.why)
        name = uuid.uuid4().hex
        future = self._ask(name, verb, properties)
        try:
            done, _ = await asyncio.wait([future], timeout=timeout)
        finally:
            self._waiting.pop(name, None)
        if not done:
            raise NoAnswer(
                f"circusd did not answer {verb!r} within {timeout:g} s; what it was asked may be under way"
            )
        answer = future.result()
        # Not `!= "ok"`: what the verb `status` says of one watcher takes the place of that (Circus 0.19).
        if answer.get("status") == "error":
            raise Refused(answer)
        return answer

    # -- the connection --------------------------------------------------------------------------------

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        assert self._context is not None
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, RETRY_MS[0])
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RETRY_MS[1])
        if not self.endpoint.startswith("ipc:"):
            # Where no kernel of ours tells that the other end is gone, as when that machine lost its power.
            socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * _HEARTBEAT_MS)
        return socket

    def _connect(self) -> None:
        self._requests = self._socket(zmq.DEALER)
        monitor = self._requests.get_monitor_socket(_MONITORED)
        self._answers = self._go(self._take_answers(self._requests))
        self._go(self._watch(monitor))
        try:
            self._requests.connect(self._way(self.endpoint))
        except (zmq.ZMQError, ValueError) as error:
            self._settle(False, f"the endpoint {self.endpoint} cannot be used: {error}")

    def _way(self, endpoint: str) -> str:
        """Return what to connect to in order to reach an endpoint of circusd.

        Raises:
            ValueError: it cannot be reached that way.
        """
        return self._tunnel.way(endpoint) if self._tunnel is not None else endpoint

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Notice that circusd came or went: ZeroMQ itself would only connect anew, and say nothing."""
        greeted = False
        while True:
            event = parse_monitor_message(await monitor.recv_multipart())["event"]
            if event in (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
                self._stop_attending()
                greet = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                self._attending = self._go(self._attend() if greet else self._doubt())
                greeted = greeted or greet
            elif event == zmq.EVENT_DISCONNECTED:
                await self._lost()
                if greeted:
                    break
            elif self.why != self._gone and self._tunnel is None:  # what ssh said says more
                self._settle(False, f"there is no circusd at {self.endpoint}")
        # What still waits to be sent would reach the next circusd, long stale: it goes with its socket. (With
        # ZMQ_IMMEDIATE it would go too, and with it an answer that came just before the end: libzmq 4.3.5.)
        self._close_requests()
        await asyncio.sleep(RETRY_MS[0] / 1000)
        self._connect()

    def _close_requests(self) -> None:
        if self._requests is not None:
            self._answers.cancel()
            _close(self._requests)
            self._requests = None

    async def _lost(self) -> None:
        self._stop_attending()
        # An answer may have come just before the end: that is one.
        with contextlib.suppress(zmq.Again):
            while self._requests is not None:
                self._take_answer(await self._requests.recv_multipart(zmq.DONTWAIT))
        self._settle(False, self._gone)
        self._drop_waiting(f"{self._gone} before it answered; what it was asked may be under way")

    async def _doubt(self) -> None:
        """The kernel takes connections for a circusd that is stopped, which then says nothing at all."""
        await asyncio.sleep(self._patience)
        self._settle(False, self._hangs)

    async def _attend(self) -> None:
        """Greet a circusd that has just come, and ask it now and then whether it is there."""
        options = (await self._surely("globaloptions")).get("options")
        await self._follow(options if isinstance(options, dict) else {})
        self._settle(True, "")
        while True:
            silent = time.monotonic() - self._heard
            if silent < self._ping:
                await asyncio.sleep(self._ping - silent)
            else:
                await self._surely("numwatchers")
                self._settle(True, "")

    async def _surely(self, verb: str) -> dict[str, Any]:
        """Ask once and wait as long as it takes: a second request would only wait behind the first."""
        name = uuid.uuid4().hex
        answer = self._ask(name, verb)
        try:
            done, _ = await asyncio.wait([answer], timeout=self._patience)
            if not done:
                self._settle(False, self._hangs)
            return await answer
        finally:
            self._waiting.pop(name, None)

    def _stop_attending(self) -> None:
        if self._attending is not None:
            self._attending.cancel()
            self._attending = None

    def _settle(self, reachable: bool, why: str) -> None:
        if (reachable, why) == (self.reachable, self.why):
            return
        if reachable != self.reachable:
            self.since = time.time()
        self.reachable, self.why = reachable, why
        self._tell_state()

    def _tell_state(self) -> None:
        try:
            self._on_state()
        except Exception:
            logger.exception("%s: what follows from its state failed", self.endpoint)

    def _tunnel_failed(self, why: str) -> None:
        if not self.reachable:
            self._settle(False, why)

    # -- requests --------------------------------------------------------------------------------------

    def _ask(
        self, name: str, verb: str, properties: Mapping[str, Any] | None = None
    ) -> asyncio.Future[dict[str, Any]]:
        asked = {"id": name, "command": verb, "properties": dict(properties or {})}
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self._requests is None:
            raise Unreachable(self.why)
        # Without waiting: it was sent or has failed when this returns.
        sent = asyncio.ensure_future(self._requests.send(json.dumps(asked).encode(), zmq.DONTWAIT))
        if sent.exception() is not None:
            raise Unreachable(f"circusd at {self.endpoint} takes no more requests: {sent.exception()}")
        self._waiting[name] = future
        return future

    async def _take_answers(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            for _ in range(_BATCH):
                self._take_answer(await socket.recv_multipart())
            await asyncio.sleep(0)

    def _take_answer(self, frames: list[bytes]) -> None:
        try:
            answer = json.loads(frames[-1])
            future = self._waiting.get(str(answer.get("id")))
        except (ValueError, AttributeError):
            return  # what answers there is no circusd: that shows by the missing answer
        self._heard = time.monotonic()
        # None: the answer to a request that nobody waits for any more.
        if future is not None and not future.done():
            future.set_result(answer)

    def _drop_waiting(self, why: str) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unreachable(why))
                future.exception()  # taken note of: nobody may wait for it any more

    # -- events ----------------------------------------------------------------------------------------

    async def _follow(self, options: Mapping[str, Any]) -> None:
        """Subscribe to the event stream, wherever it is now."""
        try:
            published = events_endpoint(str(options["pubsub_endpoint"]), self.endpoint)
            way = self._way(published)
        except (KeyError, ValueError) as error:
            logger.warning("%s: no events, since it does not say where: %s", self.endpoint, error)
            return
        if self._stream is None or self._stream[0] != way:
            self._unfollow()
            socket = self._socket(zmq.SUB)
            socket.subscribe(_EVENTS)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            self._stream = (way, socket)
            self._events = [self._go(self._watch_stream(monitor)), self._go(self._take_events(socket))]
            try:
                socket.connect(way)
            except zmq.ZMQError as error:
                logger.warning("%s: no events from %s: %s", self.endpoint, published, error)
                return
        await at_most(_JOIN_SECS, self._joined)

    def _unfollow(self) -> None:
        for task in self._events:
            task.cancel()
        self._joined.clear()
        if self._stream is not None:
            _close(self._stream[1])
            self._stream = None

    async def _watch_stream(self, monitor: zmq.asyncio.Socket) -> None:
        while True:
            event = parse_monitor_message(await monitor.recv_multipart())["event"]
            if event == zmq.EVENT_DISCONNECTED:
                self._joined.clear()
                continue
            self._joined.set()
            if self.reachable:
                self._tell_state()  # what was published while the stream was away is lost

    async def _take_events(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            for _ in range(_BATCH):
                self._take_event(await socket.recv_multipart())
            await asyncio.sleep(0)

    def _take_event(self, frames: list[bytes]) -> None:
        try:
            topic, message = frames[0].decode(), json.loads(frames[1])
        except (ValueError, IndexError):
            return
        if not isinstance(message, dict):
            return
        self._heard = time.monotonic()
        try:
            self._on_event(topic, message)
        except Exception:
            logger.exception("%s: the event %r could not be taken in", self.endpoint, topic)

    # -- tasks -----------------------------------------------------------------------------------------

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            if not isinstance(error, Unreachable):
                logger.error("%s: %s", self.endpoint, error, exc_info=error)


def events_endpoint(published: str, asked: str) -> str:
    """Return where the events of a circusd are to be had from here.

    Args:
        published: what circusd calls its `pubsub_endpoint`, perhaps every address of its machine.
        asked: the endpoint it was asked at.
    """
    theirs, ours = urlsplit(published), urlsplit(asked)
    everywhere = theirs.scheme == "tcp" and theirs.hostname in ("0.0.0.0", "*", "::")
    if not everywhere or ours.scheme != "tcp" or not ours.hostname:
        return published
    host = f"[{ours.hostname}]" if ":" in ours.hostname else ours.hostname
    return f"tcp://{host}:{theirs.port}"


def _close(socket: zmq.asyncio.Socket) -> None:
    monitor = socket.get_monitor_socket()
    socket.disable_monitor()
    monitor.close(0)
    socket.close(0)
