"""The canary's socket: one JSON line each way, and nobody who is slow, silent or gone holds anything up."""

from __future__ import annotations

import _socket
import contextlib
import json
import os

from circus_failover.canary import watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from circus_failover.canary.polling import Poller

REQUEST_BYTES = 65536
CONNECTIONS = 64
"""How many may be open: with one more, the oldest is closed."""


class _Connection:
    __slots__ = ("socket", "heard", "left")

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.heard = b""
        self.left = b""


class Control:
    """The listening socket and its connections."""

    def __init__(
        self, state_dir: str, poller: Poller, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Args:
        state_dir: the state directory.
        poller: what waits.
        answer: carries a request out and returns its answer; never waits.
        """
        self._path = os.path.join(state_dir, watched.SOCKET)
        self._poller = poller
        self._answer = answer
        self._listener: Any = None
        self._connections: dict[int, _Connection] = {}
        self.trouble: str | None = None

    def open(self) -> None:
        """Listen; what cannot be is said in `trouble`. Never raises OSError."""
        self.close()
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
            listener.listen(128)
            self._poller.add(listener.fileno())
        except OSError as error:
            listener.close()
            self.trouble = f"{self._path}: {error.strerror or error}"
            return
        self._listener, self.trouble = listener, None

    def close(self) -> None:
        """Listen no more; whoever connects now is refused."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if self._listener is not None:
            self._poller.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None

    @property
    def missing(self) -> bool:
        """Whether somebody has removed the socket."""
        return not os.path.exists(self._path)

    def ready(self, key: int) -> None:
        """Go on with what is ready: the listener or a connection."""
        if self._listener is not None and key == self._listener.fileno():
            self._accept()
            return
        connection = self._connections.get(key)
        if connection is None:
            return
        try:
            if connection.left:
                self._send(key, connection)
            else:
                self._hear(key, connection)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(key)

    def _accept(self) -> None:
        while True:
            try:
                handle, _ = self._listener._accept()
            except OSError:
                return
            socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, handle)
            socket.setblocking(False)
            if len(self._connections) >= CONNECTIONS:
                self._drop(next(iter(self._connections)))
                # Whoever it was may have had something to tell of the list, and thinks that it was heard.
                self._answer({"ask": "look", "server": None})
            self._connections[handle] = _Connection(socket)
            self._poller.add(handle)
            # At once: what was said while this process was busy is here already, and makes room for the next.
            self.ready(handle)

    def _hear(self, key: int, connection: _Connection) -> None:
        part = connection.socket.recv(REQUEST_BYTES)
        connection.heard += part
        line, end, _ = connection.heard.partition(b"\n")
        if not end:
            if not part or len(connection.heard) > REQUEST_BYTES:
                self._drop(key)
            return
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a request is a mapping")
        except ValueError as error:
            answer: dict[str, Any] = {"status": "error", "reason": f"no request: {error}"}
        else:
            answer = self._answer(request)
        connection.left = json.dumps(answer).encode() + b"\n"
        self._poller.writing(key, True)
        self._send(key, connection)

    def _send(self, key: int, connection: _Connection) -> None:
        sent = connection.socket.send(connection.left)
        connection.left = connection.left[sent:]
        if not connection.left:
            self._drop(key)

    def _drop(self, key: int) -> None:
        connection = self._connections.pop(key)
        self._poller.remove(key)
        connection.socket.close()
