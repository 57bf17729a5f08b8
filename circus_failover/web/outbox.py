"""What waits to be sent to one page: bounded, and what is newest is never lost.

It knows texts and their order alone; what a page has to know is handed in, and so is the way to send.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Message = dict[str, Any]

MOST_MESSAGES = 1000
MOST_BYTES = 4 << 20
"""How much waits for a page that does not read; more of it, and the page is sent everything anew."""
KEPT = frozenset({"event", "pong", "terminal-gone"})
"""What such a page gets all the same, since it is in no state that could be sent anew."""
MOST_KEPT = 20
"""How many of those: the newest."""


class Encoded:
    """Turns messages into text; one that goes to several pages is turned once."""

    def __init__(self) -> None:
        self._last: tuple[Message | None, str] = (None, "")

    def __call__(self, message: Message) -> str:
        if self._last[0] is not message:
            self._last = (message, json.dumps(message, separators=(",", ":")))
        return self._last[1]


_encoded = Encoded()


class Outbox:
    """What waits to be sent to one page.

    Args:
        send: sends a text, and returns when there is room for the next one.
        everything: gives all that a page has to know, as it is when each message is asked for.
    """

    def __init__(
        self, send: Callable[[str], Awaitable[None]], everything: Callable[[], Iterator[Message]]
    ) -> None:
        self._send = send
        self._everything = everything
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._behind = True
        """What waited was dropped, or nothing was sent yet: everything comes first."""
        self._kept: deque[str] = deque(maxlen=MOST_KEPT)
        self._wake = asyncio.Event()
        self._wake.set()

    def put(self, message: Message) -> None:
        """Have a message sent after those that wait; never blocks."""
        if self._behind:
            # All else is in everything, as it will be then.
            if message["type"] in KEPT:
                self._kept.append(_encoded(message))
            return
        text = _encoded(message)
        self._waiting.append(text)
        self._bytes += len(text)
        if len(self._waiting) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            self._waiting.clear()
            self._bytes = 0
            self._behind = True
        self._wake.set()

    async def run(self) -> None:
        """Send for as long as `send` takes it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._behind or self._waiting:
                if self._behind:
                    self._behind = False
                    # What is published from now on is put behind it, and is newer or the same.
                    self._waiting.extend(self._kept)
                    self._bytes = sum(map(len, self._waiting))
                    self._kept.clear()
                    for message in self._everything():
                        await self._send(json.dumps(message, separators=(",", ":")))
                else:
                    text = self._waiting.popleft()
                    self._bytes = max(0, self._bytes - len(text))
                    await self._send(text)
