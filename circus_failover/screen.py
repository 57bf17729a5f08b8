"""How answers look on a terminal: tables, times and colours; colours only where a terminal is."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 240
STATE_WIDTH = 40
ASSIGNMENT_WIDTH = 24
PHASE_STYLES = {
    "up": "green",
    "starting": "cyan",
    "stopping": "cyan",
    "parked": "blue",
    "observed": "blue",
    "down": "yellow",
    "stopped": "dim",
    "held": "red",
    "refused": "red",
}

ASSIGNMENT_STYLES = {
    "queued": "yellow",
    "delivered": "cyan",
    "working": "green",
    "done": "dim",
    "failed": "red",
    "orphaned": "red",
    "cancelled": "dim",
}

STATE_STYLES = {
    "idle": "dim",
    "working": "green",
    "waiting": "yellow",
    "limited": "red",
    "stuck": "red",
    "wedged": "red",
}


def plain(text: object) -> str:
    """Return text that cannot move a cursor or colour anything: control characters escaped."""
    return "".join(ch if ch.isprintable() else repr(ch)[1:-1] for ch in str(text))


def ago(moment: float | None, now: float | None = None) -> str:
    """Return how long ago a moment (epoch seconds) was, in one or two units; `-` when unknown."""
    if moment is None:
        return "-"
    return duration((time.time() if now is None else now) - moment)


def duration(seconds: float) -> str:
    """Return a duration in one or two units."""
    seconds = max(0, int(seconds))
    for unit, size, small_unit, small in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // small
            return f"{seconds // size}{unit}{rest}{small_unit}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"


def local_time(moment: float | None) -> str:
    """Return an epoch time in this reader's zone."""
    if moment is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))


def state(agent: Mapping[str, Any], now: float | None = None, width: int | None = None) -> Text:
    """Return what an agent does, in its colour: `waiting: permission: Bash`, `limited until 08:11`.

    Args:
        agent: the object that `fleet` gives of it.
        now: epoch seconds; None for this moment.
        width: at most so many characters; None for all there are.
    """
    word, fault = agent["state"], agent.get("fault")
    if word is None:
        return Text("-")
    line = str(word)
    if word == "limited":
        until = fault["resets_at"] if fault is not None else None
        line += f" until {_clock(until, time.time() if now is None else now)}" if until is not None else ""
    elif agent.get("state_what") and word == "waiting":
        line += f": {agent['state_what']}"
    elif fault is not None:
        line += f", {fault['kind']}"
    made = Text(plain(line), style="red" if fault is not None else STATE_STYLES.get(word, ""))
    if width is not None:
        made.truncate(width, overflow="ellipsis")
    return made


def _clock(moment: float, now: float) -> str:
    """Return a time of the reader's zone, with its date where it is not within a day."""
    shape = "%H:%M" if abs(moment - now) < 86400 else "%b %d %H:%M"
    return time.strftime(shape, time.localtime(moment))


def phase(word: str) -> Text:
    """Return a phase in its colour."""
    return Text(word, style=PHASE_STYLES.get(word, ""))


def assignment_state(word: str) -> Text:
    """Return the state of an assignment in its colour."""
    return Text(plain(word), style=ASSIGNMENT_STYLES.get(word, ""))


def assignment(agent: Mapping[str, Any], width: int) -> Text:
    """Return the assignment that an agent has, in the colour of its state; `-` when it has none.

    Args:
        agent: the object that `fleet` gives of it.
        width: at most so many characters.
    """
    if not agent.get("assignment"):
        return Text("-")
    state = agent.get("assignment_state") or ""
    made = shortened(agent["assignment"], width)
    made.stylize(ASSIGNMENT_STYLES.get(state, ""))
    return made


def shortened(text: str, width: int) -> Text:
    """Return a text that is harmless, with its end left out where it is longer than `width` characters."""
    made = Text(plain(text))
    made.truncate(width, overflow="ellipsis")
    return made


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as text, as wide as the terminal, or unwrapped where there is none.

    Args:
        columns: the headings.
        rows: a cell is a rich Text, or anything that is shown by `str`, made harmless.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        made.add_column(column, no_wrap=not last, overflow="fold" if last else "ellipsis")
    cells = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if cells and sum(widths) + 2 * len(widths) <= _width():
        # A row costs rich 0.5 ms; as one cell a column, 500 rows cost 0.09 s in place of 0.24 (rich 15).
        made.add_row(*(Text("\n").join(column) for column in zip(*cells, strict=True)))
    else:
        for row in cells:
            made.add_row(*row)
    return rendered(made)


def _width() -> int:
    """Return how wide a line may be: the terminal's columns, or plenty where there is none."""
    return Console().width if sys.stdout.isatty() else PLAIN_WIDTH


def rendered(item: object) -> str:
    """Return anything rich can print as text for standard output."""
    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=_width(),
        highlight=False,
    )
    console.print(item)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip("\n").split("\n"))
