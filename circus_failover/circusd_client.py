"""Asks circusd, and notices that it went away: whoever waits for a verdict may wait for an hour.

It knows messages and connections alone; what a verb means, and what a failure is called, is for `ctl`.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import zmq
from circus.client import CircusClient
from circus.exc import CallError

GONE = (
    "circusd went away before it answered; what it was asked to do may be under way: "
    "`failoverctl fleet` tells, when it runs again"
)


class Client(CircusClient):  # type: ignore[misc]
    """Circus's client (0.19), whose `call` also ends when the connection does; ZeroMQ would connect anew."""

    def _init_poller(self) -> None:
        super()._init_poller()
        self._lost = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.poller.register(self._lost, zmq.POLLIN)

    def stop(self) -> None:
        """Close the connection."""
        self.socket.disable_monitor()
        self._lost.close(0)
        super().stop()

    def call(self, cmd: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return its answer; `timeout` is in milliseconds, as in Circus's own client.

        Raises:
            CallError: no answer in time, or circusd went away before it came.
        """
        cmd["id"] = uuid.uuid4().hex
        try:
            self.socket.send(json.dumps(cmd).encode())
        except (ValueError, zmq.ZMQError) as error:
            raise CallError(str(error)) from error
        until = time.monotonic() + self.timeout / 1000
        while True:
            ready = dict(self.poller.poll(max(0.0, until - time.monotonic()) * 1000))
            # An answer may have come just before the end: that is one.
            if self.socket in ready:
                answer = self._answer()
                if answer.get("id") == cmd["id"]:
                    return answer
            elif self._lost in ready:
                self._lost.recv_multipart()
                raise CallError(GONE)
            else:
                raise CallError("Timed out.")

    def _answer(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(self.socket.recv())
        except ValueError as error:
            raise CallError(f"what answers there is no circusd: {error}") from error
        return answer
