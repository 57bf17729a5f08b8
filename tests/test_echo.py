"""What a screen says of a text that was typed, on screens written down here."""

from __future__ import annotations

import pytest

from circus_failover import echo
from circus_failover.tmux import Look


def look(*rows: str, cursor: int | None = None, first: int = 0) -> Look:
    """A screen; the cursor is on its last row when it is not said where."""
    below = len(rows) - 1 if cursor is None else cursor
    return Look(1, False, None, None, 1, first + below, first, rows)


def stands(text: str, before: Look, after: Look) -> echo.Waiting:
    found = echo.shown(echo.mark_of(text), before, after)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("hello world", "helloworld"),
        ("first\nlast one\n\n  \n", "lastone"),
        ("x" * 100, "x" * 40),
        (
            "a very long line " * 10 + "with this at its very end, and no more",
            "inewiththisatitsveryend,andnomore",
        ),
        ("│ a │", "a"),
        ("│\n│", ""),
    ],
)
def test_a_text_is_known_by_what_can_be_seen_at_the_end_of_its_last_line(text: str, mark: str) -> None:
    assert echo.mark_of(text).endswith(mark) and len(echo.mark_of(text)) <= 40
    assert bool(mark) == bool(echo.mark_of(text))


def test_an_accent_is_the_same_however_it_is_written() -> None:
    assert echo.visible("caf\u00e9") == echo.visible("cafe\u0301")
    assert echo.visible("a\u200b\ufe0f \tb") == "ab"


@pytest.mark.parametrize(
    "after",
    [
        look("ready", "> fix the tests"),
        look("ready", "> fix the te", "sts"),
        look("ready", "│ > fix the te │", "│   sts        │", "╰──────────────╯", cursor=3),
        look("ready", "> fix  the\ttests"),
    ],
)
def test_a_text_is_found_folded_framed_and_indented(after: Look) -> None:
    assert echo.shown(echo.mark_of("fix the tests"), look("ready", ">"), after) is not None


def test_what_stood_there_before_is_not_what_was_typed() -> None:
    before = look("> go on", "done: go on", ">")
    assert echo.shown("goon", before, before) is None
    assert echo.shown("goon", before, look("> go on", "done: go on", "working", ">")) is None
    assert echo.shown("goon", before, look("> go on", "done: go on", "> go on")) is not None


def test_it_is_found_when_it_moved_as_many_out_of_sight() -> None:
    before = look("go on", "go on", "> ", first=10)
    assert echo.shown("goon", before, look("go on", "> go", "on", "----", first=11)) is not None
    # A program that redraws its whole screen moves nothing into the history.
    assert echo.shown("goon", before, look("go on", "...", "> go on", first=10)) is not None


@pytest.mark.parametrize("shown", ["[Pasted text #2 +20 lines]", "[Pasted Content 1024 chars]"])
def test_a_new_placeholder_stands_for_the_text(shown: str) -> None:
    before = look("> [Pasted text #1 +3 lines]", ">")
    assert echo.shown("end", before, before) is None
    waiting = echo.shown("end", before, look("> [Pasted text #1 +3 lines]", f"> {shown}"))
    assert waiting is not None and waiting.mark == shown.replace(" ", "")


STILL = [
    (look("ready", "> hello"), look("spinner", "ready", "> hello"), True),
    (look("ready", "> hello"), look("ready", "> hello  (a hint)"), True),
    (look("ready", "> hello"), look("ready", "> hello", ""), False),
    (look("ready", "> hello"), look("ready", "> hello", "hello", ">"), False),
    (look("ready", "> hello"), look("ready", ">"), False),
    (look("ready", "> hello"), look("ready", "hello: done >"), False),
    (look("> hello", "----", "12 s", ""), look("above", "> hello", "----", "13 s", ""), True),
    (look("> hello", "----", "12 s", ""), look("> hello", "on it", "> ", "----", "13 s", ""), False),
    (look("> hello", "----", "idle", ""), look("> hello", "----", "busy", ""), False),
]


@pytest.mark.parametrize(("typed", "later", "still"), STILL)
def test_it_waits_as_long_as_it_stands_there_as_it_did(typed: Look, later: Look, still: bool) -> None:
    waiting = stands("hello", look("ready", ">"), typed)
    assert waiting.still(typed)
    assert waiting.still(later) is still


def test_a_short_text_is_not_confused_with_the_same_letter_below_it() -> None:
    before = look(">", "press y to go on 12s", cursor=1)
    waiting = stands("y", before, look("> y", "press y to go on 13s", cursor=1))
    assert not waiting.still(look("> y", "ok", ">", "press y to go on 14s", cursor=3))
    assert not waiting.still(look("you said", ">", "press y to go on 14s", cursor=2))
    assert waiting.still(look("> y", "press y to go on 14s", cursor=1))
