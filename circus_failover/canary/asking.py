"""How others speak to the canary: one JSON line each way over a socket in the state directory.

Requests: `{"ask": "look", "server": NAME}` (read the file of that name again, or of all without it) and
`{"ask": "status"}`. Nobody depends on an answer: without a canary the files on the list are all there is.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from circus_failover import process_table
from circus_failover.canary import watched
from circus_failover.process_table import ProcessId

ANSWER_BYTES = 4 * 1024 * 1024
BUSY_SECS = 0.005


def holder(state_dir: str) -> ProcessId | None:
    """Return the canary that runs for a state directory, or None.

    The file's text says who took the lock last, and whether that very process runs. The lock itself is not
    tried: a canary that is just starting would find it taken.
    """
    try:
        with open(os.path.join(state_dir, watched.LOCK), "rb") as file:
            who = json.loads(file.read(4096))
        found = ProcessId(int(who["pid"]), int(who["start"]))
        return found if process_table.alive(found) else None
    except (OSError, ValueError, KeyError, TypeError, process_table.ProbeFailed):
        return None


def poke(state_dir: str, name: str | None = None) -> bool:
    """Tell the canary that the list has changed; never waits. False: it is not there, or too busy to be told.

    Args:
        state_dir: the state directory.
        name: the server whose file has changed; None: look at all of them.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            client.connect(os.path.join(state_dir, watched.SOCKET))
            client.send(json.dumps({"ask": "look", "server": name}).encode() + b"\n")
        return True
    except OSError:
        return False


def ask(state_dir: str, timeout: float = 2.0, **request: Any) -> dict[str, Any] | None:
    """Ask the canary, and return its answer; None when it is not there or does not answer in time.

    Args:
        state_dir: the state directory.
        timeout: seconds to wait for each part of the answer.
        request: `ask`, and what that takes.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            _connect(client, os.path.join(state_dir, watched.SOCKET), timeout)
            client.sendall(json.dumps(request).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES:
                part = client.recv(65536)
                if not part:
                    break
                answer += part
        found = json.loads(answer)
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def _connect(client: socket.socket, path: str, timeout: float) -> None:
    """Connect, also while so many wait to be heard that Linux refuses at once (unix(7), EAGAIN)."""
    until = time.monotonic() + timeout
    while True:
        try:
            client.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(BUSY_SECS)
