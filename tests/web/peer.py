"""An endpoint that answers as a test wants it to, where a circusd would never do so on demand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import zmq
import zmq.asyncio


class Peer:
    """Takes requests and publishes events where circusd would."""

    running: ClassVar[list[Peer]] = []

    def __init__(self, folder: Path) -> None:
        self.endpoint, self.pubsub = f"ipc://{folder}/ctl", f"ipc://{folder}/pub"
        self._context = zmq.asyncio.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.endpoint)
        self._streams, self._publisher = self._publish_at(self.pubsub)
        self._listened_to = False
        self.asked: asyncio.Queue[tuple[bytes, dict[str, Any]]] = asyncio.Queue()
        """Requests that it does not answer by itself."""
        self.silent = False
        self.running.append(self)
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            who, raw = await self._router.recv_multipart()
            request = json.loads(raw)
            if self.silent or request["command"] not in ("numwatchers", "globaloptions"):
                self.asked.put_nowait((who, request))
            else:
                options = {"pubsub_endpoint": self.pubsub}
                await self.answer(who, {"id": request["id"], "status": "ok", "options": options})

    async def answer(self, who: bytes, answer: object) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await self._router.send_multipart([who, raw])

    async def publish(self, topic: str, message: object) -> None:
        """Publish an event, as soon as somebody listens: what is published before that reaches nobody."""
        if not self._listened_to:
            await self._publisher.recv()
            self._listened_to = True
        await self._publisher.send_multipart([topic.encode(), json.dumps(message).encode()])

    def publish_anew(self) -> None:
        """Lose whoever listens to events, and take them again."""
        self._streams.destroy(linger=0)
        self._streams, self._publisher = self._publish_at(self.pubsub)
        self._listened_to = False

    @staticmethod
    def _publish_at(endpoint: str) -> tuple[zmq.asyncio.Context, zmq.asyncio.Socket]:
        context = zmq.asyncio.Context()
        publisher = context.socket(zmq.XPUB)  # a PUB that hears who subscribes
        publisher.bind(endpoint)
        return context, publisher

    def vanish(self, linger: int = 0) -> None:
        """Be gone at once, as a process that is killed; `linger` ms are for what is on its way."""
        self.running.remove(self)
        self._serving.cancel()
        self._context.destroy(linger=linger)
        self._streams.destroy(linger=linger)
