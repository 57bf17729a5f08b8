"""A stand-in for the HTTP interfaces of Claude Code and Codex, on loopback, inside the test's own process.

It answers every prompt (`turns.py` says how), and fails for one account, or for all, when a test says so
(`faults.py`). It takes every credential and reaches nothing. A test calls `Mock`; another process may ask for
`/control?fault=limit-5h&key=KEY&resets_in=3600`, `/control?fault=none`, `/control?release=1`, or
`/control` for what is set.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from tests.clients import anthropic_api, openai_api
from tests.clients.faults import Failing, Fault, Refusal
from tests.clients.turns import Turn

PING_SECS = 1.0
"""How often a held answer shows that it is still there: clients give up on a silent one."""


class Interface(Protocol):
    """What differs by vendor."""

    IDLE: dict[str, str]

    def is_conversation(self, body: dict[str, Any]) -> bool: ...
    def turn(self, body: dict[str, Any]) -> Turn: ...
    def refusal(self, failing: Failing) -> Refusal | None: ...
    def quota(self, failing: Failing | None) -> tuple[tuple[str, str], ...]: ...
    def message(self, body: dict[str, Any], answer: Turn, number: int) -> dict[str, Any]: ...
    def opening(self, body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]: ...
    def pieces(self, answer: Turn, number: int) -> list[dict[str, Any]]: ...
    def closing(self, body: dict[str, Any], answer: Turn, number: int) -> list[dict[str, Any]]: ...


INTERFACES: dict[str, Interface] = {anthropic_api.PATH: anthropic_api, openai_api.PATH: openai_api}


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    key: str
    """The credential it bore: which account asked."""
    model: str = ""
    conversation: bool = False
    """Whether it belongs to a conversation; clients ask for titles and the like too."""
    prompts: tuple[str, ...] = ()
    """What the person has typed in that conversation, the newest last."""
    fault: Fault | None = None
    """The fault that was set for it."""


class Mock:
    """The stand-in: takes over a listening socket and answers there until it is closed."""

    def __init__(self, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._condition = threading.Condition()
        self._everybody: Failing | None = None
        self._by_key: dict[str, Failing | None] = {}
        self._asked: list[Asked] = []
        self._held = 0
        self._releases = 0
        self.numbers = itertools.count(1)
        self._server = _Server(self, listener)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    # -- what a test says -------------------------------------------------------------------------

    def fail(self, fault: Fault, key: str | None = None, *, resets_in: int = 3600) -> Failing:
        """Let an account fail from now on, or every account; returns what was set.

        Args:
            fault: how.
            key: the credential of that account; None for every account.
            resets_in: seconds until a limit resets.
        """
        failing = Failing(fault, int(time.time()) + resets_in)
        self._set(failing, key)
        return failing

    def heal(self, key: str | None = None) -> None:
        """Let an account answer again, also where every account fails; without a key, all of them."""
        self._set(None, key)

    def _set(self, failing: Failing | None, key: str | None) -> None:
        with self._condition:
            if key is None:
                self._everybody = failing
                self._by_key.clear()
            else:
                self._by_key[key] = failing
            self._condition.notify_all()

    def release(self) -> None:
        """End every answer that is held at this moment."""
        with self._condition:
            self._releases += 1
            self._condition.notify_all()

    def reset(self) -> None:
        """Forget faults and requests, and end what is held."""
        self.heal()
        self.release()
        with self._condition:
            self._asked.clear()

    def close(self) -> None:
        """Stop answering."""
        self.reset()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    # -- what a test asks -------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many answers are held now."""
        with self._condition:
            return self._held

    def asked(self, key: str | None = None) -> list[Asked]:
        """Return the requests of conversations so far, of one account or all."""
        return [one for one in self.requests() if one.conversation and key in (None, one.key)]

    def requests(self) -> list[Asked]:
        """Return all requests so far."""
        with self._condition:
            return list(self._asked)

    # -- for the handler --------------------------------------------------------------------------

    def failing(self, key: str, model: str) -> Failing | None:
        """Return what is wrong with an account for a model now."""
        with self._condition:
            found = self._by_key.get(key, self._everybody)
        return found if found is not None and found.concerns(model) else None

    def note(self, asked: Asked) -> None:
        """Remember a request."""
        with self._condition:
            self._asked.append(asked)

    def hang(self, key: str, model: str) -> None:
        """Return when that account no longer hangs."""

        def healed() -> bool:
            found = self._by_key.get(key, self._everybody)
            return found is None or found.fault is not Fault.HANG or not found.concerns(model)

        with self._condition:
            self._condition.wait_for(healed)

    @contextlib.contextmanager
    def holding(self) -> Any:
        """Count an answer as held; gives a function that says whether it is, after `PING_SECS` at most."""
        with self._condition:
            begun = self._releases
            self._held += 1

        def still() -> bool:
            with self._condition:
                return not self._condition.wait_for(lambda: self._releases > begun, PING_SECS)

        try:
            yield still
        finally:
            with self._condition:
                self._held -= 1

    def control(self, query: dict[str, str]) -> dict[str, object]:
        """Do what another process asks for; returns what is set afterwards."""
        fault, key = query.get("fault"), query.get("key")
        if fault == "none":
            self.heal(key)
        elif fault is not None:
            self.fail(Fault(fault), key, resets_in=int(query.get("resets_in", 3600)))
        if "release" in query:
            self.release()
        with self._condition:
            by_key = {key: found and found.fault.value for key, found in self._by_key.items()}
            everybody = self._everybody and self._everybody.fault.value
            return {"everybody": everybody, "by_key": by_key, "held": self._held, "asked": len(self._asked)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mock: Mock, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.mock = mock

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that was ended in the middle of an answer is no error of ours.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: tests look at `Mock.requests`."""

    def do_HEAD(self) -> None:
        """Answer that the address is served."""
        self._note("HEAD")
        self._json(200, {})

    def do_GET(self) -> None:
        """Carry out what `/control` is asked for; there is nothing else."""
        url = urlsplit(self.path)
        if url.path != "/control":
            self._note("GET")
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": "Not found"}})
            return
        try:
            self._json(200, self.server.mock.control({k: v[-1] for k, v in parse_qs(url.query).items()}))
        except ValueError as error:
            self._json(400, {"error": str(error)})

    def do_POST(self) -> None:
        """Answer a prompt, or refuse as the account's fault says."""
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urlsplit(self.path).path
        interface = INTERFACES.get(path)
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if interface is None or not isinstance(body, dict):
            self._note("POST")
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": "Not found"}})
            return
        model = str(body.get("model"))
        failing = self.server.mock.failing(self._key(), model)
        conversation = interface.is_conversation(body)
        answer = interface.turn(body) if conversation else Turn((), None, 0.0, False, False)
        fault = failing.fault if failing else None
        asked = Asked("POST", self.path, self._key(), model, conversation, answer.prompts, fault)
        self.server.mock.note(asked)
        if fault is Fault.CUT:
            self._cut()
            return
        if fault is Fault.HANG:
            self.server.mock.hang(self._key(), model)
        elif failing is not None and (refusal := interface.refusal(failing)) is not None:
            self._json(refusal.status, refusal.body, refusal.headers)
            return
        self._answer(interface, body, answer, interface.quota(failing))

    def _answer(
        self, interface: Interface, body: dict[str, Any], answer: Turn, headers: tuple[tuple[str, str], ...]
    ) -> None:
        number = next(self.server.mock.numbers)
        if not body.get("stream"):
            self._json(200, interface.message(body, answer, number), headers)
            return
        self._head(200, "text/event-stream", (*headers, ("connection", "close")))
        self.close_connection = True
        self._events(interface.opening(body, answer, number))
        pieces = interface.pieces(answer, number)
        if (answer.hold or answer.cut) and not answer.step:
            self._events(pieces[:1])
            pieces = pieces[1:]
        if answer.cut and not answer.step:
            self._cut()
            return
        if answer.hold and not answer.step:
            with self.server.mock.holding() as still:
                while still():
                    self._events([interface.IDLE])
        for piece in pieces:
            self._events([piece])
            if answer.secs and not answer.step:
                time.sleep(answer.secs / len(pieces))
        self._events(interface.closing(body, answer, number))

    # -- plumbing ---------------------------------------------------------------------------------

    def _key(self) -> str:
        return anthropic_api.account_key({name.lower(): value for name, value in self.headers.items()})

    def _note(self, method: str) -> None:
        self.server.mock.note(Asked(method, self.path, self._key()))

    def _head(self, status: int, kind: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("request-id", f"req_{next(self.server.mock.numbers):06d}")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _json(self, status: int, body: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> None:
        data = json.dumps(body).encode()
        self._head(status, "application/json", (*headers, ("content-length", str(len(data)))))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _events(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def _cut(self) -> None:
        # A linger of 0 s makes close(2) send a reset (socket(7)).
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        os.close(self.connection.detach())
