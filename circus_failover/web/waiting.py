"""Waits for something for a bounded time, and ends at once when it is cancelled.

In place of `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the
end of what it waits for (cpython #86296): a task that was to end would then go on for ever.
"""

from __future__ import annotations

import asyncio


async def at_most(secs: float, event: asyncio.Event) -> bool:
    """Wait for an event, `secs` seconds at most; says whether it is set."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=secs)
    finally:
        waiting.cancel()
    return event.is_set()
