"""What a page is sent that reads slowly, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from circus_failover.web.outbox import MOST_BYTES, MOST_KEPT, MOST_MESSAGES, Outbox


class Page:
    """Takes one text at a time, when the test lets it."""

    def __init__(self) -> None:
        self.state = 0
        """What everything is about."""
        self.box = Outbox(self._send, self._everything)
        self.got: list[dict[str, Any]] = []
        self._offered: asyncio.Queue[tuple[str, asyncio.Event]] = asyncio.Queue()
        self._writing = asyncio.get_running_loop().create_task(self.box.run())

    async def _send(self, text: str) -> None:
        taken = asyncio.Event()
        self._offered.put_nowait((text, taken))
        await taken.wait()

    def _everything(self) -> Iterator[dict[str, Any]]:
        yield {"type": "hello", "state": self.state}
        yield {"type": "fleet", "state": self.state}

    def change(self) -> None:
        """Change something, and have the page told."""
        self.state += 1
        self.box.put({"type": "agents", "state": self.state})

    async def offered(self) -> tuple[str, asyncio.Event]:
        """Wait until something is on its way to the page, which does not take it yet."""
        return await asyncio.wait_for(self._offered.get(), 20)

    async def take(self) -> dict[str, Any]:
        """Have the page take one message."""
        text, taken = await self.offered()
        taken.set()
        self.got.append(json.loads(text))
        return self.got[-1]

    async def take_until(self, state: int) -> list[dict[str, Any]]:
        """Have the page take messages up to one that tells of a state."""
        begin = len(self.got)
        while (await self.take()).get("state") != state:
            pass
        return self.got[begin:]

    def close(self) -> None:
        self._writing.cancel()


def test_a_page_that_reads_gets_everything_and_then_every_change_in_order() -> None:
    async def scene() -> None:
        page = Page()
        assert [(await page.take())["type"], (await page.take())["type"]] == ["hello", "fleet"]
        for _ in range(5):
            page.change()
        assert [one["state"] for one in await page.take_until(5)] == [1, 2, 3, 4, 5]
        page.close()

    asyncio.run(scene())


def test_a_slow_page_loses_only_intermediate_messages() -> None:
    async def scene() -> None:
        page = Page()
        await page.take()
        await page.take()
        page.change()
        _, taken = await page.offered()  # the page stops reading here
        for _ in range(5 * MOST_MESSAGES):
            page.change()
        for number in range(3 * MOST_KEPT):
            page.box.put({"type": "event", "number": number})
        page.change()
        taken.set()
        newest = page.state
        got = await page.take_until(newest)
        assert (got[0]["type"], got[0]["state"]) == ("hello", newest), "all anew, and nothing stale before it"
        await page.take()
        events = [(await page.take())["number"] for _ in range(MOST_KEPT)]
        assert events == [*range(2 * MOST_KEPT, 3 * MOST_KEPT)], "the newest, in order"
        page.change()
        assert (await page.take()) == {"type": "agents", "state": newest + 1}, "and it goes on as before"
        page.close()

    asyncio.run(scene())


def test_a_page_that_never_reads_costs_a_bounded_memory() -> None:
    async def scene() -> None:
        page = Page()
        await page.take()
        await page.take()
        page.change()
        await page.offered()
        for number in range(50):
            page.box.put({"type": "fleet", "text": "x" * (MOST_BYTES // 10), "number": number})
            page.box.put({"type": "event", "number": number})
            waiting = [*page.box._waiting, *page.box._kept]
            assert sum(map(len, waiting)) <= MOST_BYTES + MOST_KEPT * 100
        page.close()

    asyncio.run(scene())


def test_what_changes_while_everything_is_sent_comes_after_it() -> None:
    async def scene() -> None:
        page = Page()
        text, taken = await page.offered()
        assert json.loads(text) == {"type": "hello", "state": 0}
        page.change()
        taken.set()
        assert (await page.take()) == {"type": "fleet", "state": 1}
        assert (await page.take()) == {"type": "agents", "state": 1}
        page.close()

    asyncio.run(scene())
