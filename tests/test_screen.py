"""Tables on a terminal: whatever does not fit, a row says what is its own, and nothing of it is lost."""

from __future__ import annotations

import pytest
from rich.text import Text

from circus_failover import screen

COLUMNS = ("AGENT", "PHASE", "LAST END", "REASON")
ROWS = (
    ("builder", Text("up", style="green"), "operator-restart", ""),
    ("a-name-of-some-length", Text("refused"), "-", "no account 'nope', expected one of: work, personal"),
    ("scout", Text("held"), "exited", "3 deaths in 300 s: 日本語"),
)


@pytest.fixture(params=[None, *range(20, 130, 3)])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The table on a terminal of so many columns, or on none."""
    monkeypatch.setattr(screen, "_width", lambda: request.param)
    return screen.table(COLUMNS, ROWS)


def test_each_row_has_its_own_cells_and_nothing_is_lost_however_narrow_a_terminal_is(shown: str) -> None:
    lines = shown.split("\n")
    begins = [next(n for n, line in enumerate(lines) if line.startswith(str(row[0]))) for row in ROWS]
    for row, begin, end in zip(ROWS, begins, [*begins[1:], len(lines)], strict=True):
        assert lines[begin].split()[:3] == [str(cell) for cell in row[:3]]
        rest = " ".join(lines[begin:end]).split()
        # A word that is longer than the line is folded.
        assert "".join(rest[3:]) == str(row[3]).replace(" ", "")


def test_where_there_is_no_terminal_a_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_width", lambda: None)
    assert len(screen.table(COLUMNS, [(*ROWS[0][:3], "word " * 500)]).split("\n")) == 3
    assert len(screen.table(COLUMNS, []).split("\n")) == 2
