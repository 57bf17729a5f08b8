"""Waits for what a client does: with a bound, and rarely enough to leave the computing to the clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from circus_failover import tmux

T = TypeVar("T")
LONGEST_SECS = 90.0
"""Starting a client takes a second of computing; on a machine with much else to do, many times that."""
PAUSE_SECS = 0.1


def wait_for(what: str, probe: Callable[[], T | None], timeout: float = LONGEST_SECS) -> T:
    """Return the first true answer of `probe`; fail, saying what was awaited, after `timeout` seconds.

    A probe that finds a file missing or half written, or no answer from tmux, has no answer yet.
    """
    until = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = found = probe()
        except (OSError, ValueError, tmux.TmuxError) as error:
            last = error
        else:
            if found:
                return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout:g} s: {what} (last: {last!r})")
        time.sleep(PAUSE_SECS)
