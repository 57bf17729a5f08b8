"""What a page needs to show a terminal: frames, made of what a pane shows now and what it showed before.

Pure. A frame has all visible rows, and the rows that went into the pane's history since the frame before; a
frame that says `reset` begins anew, and has the end of the history instead.
"""

from __future__ import annotations

from typing import Any

from circus_failover.tmux import Captured
from circus_failover.web import sgr

MOST_HISTORY = 2000
"""How many rows of the history a frame that begins anew has at most."""
LEAST_HISTORY = 64
"""How many rows above the visible ones are looked at, where little scrolls."""
MOST_CHARACTERS = 1_000_000
"""How much text of the history a frame has at most: a pane may be full of colours, at 25 characters each."""
OVERLAP = 16
"""So many rows of the history before must be found again, or the frame begins anew."""


class NotEnough(Exception):
    """More of the history has to be looked at (`MOST_HISTORY`)."""


class Shown:
    """What one capture shows, harmless: rows of the history, and the visible ones."""

    def __init__(self, captured: Captured) -> None:
        made = sgr.rows(captured.lines)
        above = max(0, len(made) - captured.rows)
        self.captured = captured
        self.history = made[:above]
        screen = made[above:]
        self.screen = screen + [""] * (captured.rows - len(screen))

    def frame(self, at: float, scrolled: list[str], reset: bool) -> dict[str, Any]:
        """Return what a page is sent.

        Args:
            at: when the pane was looked at, in epoch seconds.
            scrolled: rows that went into the history.
            reset: they are the end of the history, and replace what the page has of it.
        """
        of = self.captured
        return {
            "cols": of.cols,
            "rows": of.rows,
            "history": of.history,
            "reset": reset,
            "scrolled": scrolled,
            "screen": self.screen,
            "cursor": {"x": of.cursor[0], "y": of.cursor[1], "visible": of.cursor_visible},
            "title": sgr.plain(of.title),
            "alternate": of.alternate,
            "dead": of.dead,
            "at": at,
        }

    def complete(self, at: float) -> dict[str, Any]:
        """Return the frame that needs none before it.

        Raises:
            NotEnough: too little of the history was captured for it.
        """
        if len(self.history) < min(self.captured.history, MOST_HISTORY):
            raise NotEnough
        rows = self.history[-MOST_HISTORY:]
        size, first = 0, len(rows)
        while first and size + len(rows[first - 1]) <= MOST_CHARACTERS:
            first -= 1
            size += len(rows[first])
        return self.frame(at, rows[first:], True)


class Follower:
    """What pages have of one pane, so that they can be sent what is new."""

    def __init__(self) -> None:
        self._last: Shown | None = None
        self.wants = MOST_HISTORY
        """How many rows above the visible ones the next capture should have."""

    def step(self, captured: Captured, at: float) -> tuple[Shown, dict[str, Any] | None]:
        """Return what a capture shows, and the frame for whoever has all frames before; None: nothing is new.

        Args:
            captured: what the pane shows now.
            at: when that was, in epoch seconds.

        Raises:
            NotEnough: it scrolled further than this capture reaches; take one with `MOST_HISTORY`.
        """
        last = self._last
        if last is not None and last.captured == captured:
            return last, None
        now = Shown(captured)
        number = self._scrolled(now)
        scrolled = now.history[len(now.history) - (number or 0) :]
        if number is None or sum(map(len, scrolled)) > MOST_CHARACTERS:
            frame = now.complete(at)
            number = 0
        else:
            frame = now.frame(at, scrolled, False)
        self._last = now
        self.wants = min(MOST_HISTORY, max(LEAST_HISTORY, 2 * number + OVERLAP))
        same = last is not None and not frame["reset"] and frame == last.frame(at, [], False)
        return now, None if same else frame

    def _scrolled(self, now: Shown) -> int | None:
        """Return how many rows went into the history since the last frame; None: that cannot be told.

        tmux says how many rows the history has, and drops a tenth of what it may have, the oldest, when it is
        full (grid_collect_history(), tmux 3.3a). So the number is known but for a multiple of that tenth, and
        rows of both captures must be the same.
        """
        if self._last is None:
            return None
        before, after = self._last.captured, now.captured
        # Another width or height makes other rows of the same text.
        if (before.pid, before.cols, before.rows) != (after.pid, after.cols, after.rows):
            return None
        known = self._last.history[-OVERLAP:]
        dropped = max(1, after.history_limit // 10)
        number = after.history - before.history
        while number + len(known) <= len(now.history):
            full = number <= after.history - before.history or before.history + number >= after.history_limit
            end = len(now.history) - number
            if number >= 0 and full and now.history[end - len(known) : end] == known:
                return number
            number += dropped
        if len(now.history) < min(after.history, MOST_HISTORY):
            raise NotEnough
        return None
