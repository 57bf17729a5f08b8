"""One measured line: what was measured, what beside, the goal and whether it is met; and how it is shown."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

COLUMNS = ("what", "ours", "beside", "ratio", "goal", "met")


@dataclass(frozen=True)
class Figure:
    """A number with its unit, and in words where it comes from."""

    value: float
    unit: str
    note: str = ""

    def __str__(self) -> str:
        text = f"{shown(self.value)} {self.unit}"
        return f"{text} {self.note}" if self.note else text


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    benchmark: str
    what: str
    ours: Figure
    beside: Figure | None = None
    ratio: float | None = None
    """Ours by beside; the median of the pairs where several were measured."""
    goal: float | None = None
    """The largest value that is good enough."""
    goal_of: str = "ours"
    """Whether the goal bounds `ours` or the `ratio`."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further figures, shown in JSON only."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        measured = self.ratio if self.goal_of == "ratio" else self.ours.value
        return measured is not None and measured <= self.goal

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the table's columns."""
        goal = "-"
        if self.goal is not None:
            unit = "x" if self.goal_of == "ratio" else f" {self.ours.unit}"
            goal = f"<= {shown(self.goal)}{unit}"
        return (
            self.what,
            str(self.ours),
            str(self.beside) if self.beside else "-",
            _times(self.ratio) if self.ratio is not None else "-",
            goal,
            {None: "-", True: "yes", False: "NO"}[self.met],
        )

    def as_json(self) -> dict[str, Any]:
        """Return the line as plain data."""
        return {**asdict(self), "met": self.met}


def shown(value: float) -> str:
    """Return a number with three digits that matter."""
    if value == int(value) and abs(value) >= 1:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio >= 0.1 else f"{shown(ratio)}x"


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` (0 to 1) of the values do not exceed, by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-part * len(ordered) // 1) - 1))]


def table(results: Iterable[Result], width: int | None = None) -> str:
    """Return the table as text.

    Args:
        results: its lines, in order.
        width: columns of the screen; None for as wide as needed.
    """
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        grid.add_column(name, justify="right" if name == "ratio" else "left", overflow="fold")
    last = None
    for result in results:
        if last not in (None, result.benchmark):
            grid.add_section()
        last = result.benchmark
        style = "bold red" if result.met is False else None
        grid.add_row(*result.cells(), style=style)
    out = io.StringIO()
    console = Console(file=out, width=width or 200, force_terminal=width is not None, highlight=False)
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def markdown(results: Iterable[Result]) -> str:
    """Return the table as Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(result.cells() for result in results)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
