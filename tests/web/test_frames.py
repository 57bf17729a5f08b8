"""Frames of terminals: nothing hostile gets through, and a page that follows has what the pane has."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.tmux import Captured
from circus_failover.web import frames, sgr
from circus_failover.web.frames import Follower, NotEnough, Shown
from circus_failover.web.terminal import one_frame

ALLOWED = re.compile(r"(?:[^\x00-\x1f\x7f-\x9f]|\x1b\[[0-9;:]*m)*")
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                *("\x1b", "\x1b[", "\x1b]", "\x07", "\x9b", "\x9d", "\x90", "\x0e", "\x0f", "\t", "\r", "\b"),
                *("\x1b[31m", "\x1b[38;2;1;2;3m", "\x1b[48:5:9m", "\x1b[1;4:3m", "\x1b[0m", "\x1b[m"),
                *("\x1b]52;c;aGk=\x07", "\x1b]8;;http://x\x1b\\", "\x1bP+q544e\x1b\\", "\x1b[6n", "\x1b[2J"),
                *("[31m", "m", ";", "0", "q", " ", "\x1bc", "\x1b[?1049h", "\x1b[>4;1m", "\x1b^x", "\x1b_G"),
            ]
        ),
    ),
    max_size=12,
).map("".join)


@given(st.lists(TEXTS, max_size=4))
def test_nothing_but_characters_and_colours_ever_leaves(lines: list[str]) -> None:
    made = sgr.rows(lines)
    assert len(made) == len(lines)
    for row in made:
        assert ALLOWED.fullmatch(row), row
        # Each row stands by itself: it begins plain, and ends plain.
        sequences = re.findall("\x1b\\[([^m]*)m", row)
        assert not sequences or sequences[-1] == "0"
        assert sgr.rows([row]) == [row]


@given(TEXTS)
def test_no_escape_sequence_is_in_a_title(text: str) -> None:
    assert not re.search("[\x00-\x1f\x7f-\x9f]", sgr.plain(text))


@pytest.mark.parametrize(
    ("hostile", "left"),
    [
        ("a\x1b]52;c;aGk=\x07b", "ab"),
        ("a\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]0;title\x07b\x1b]2;never ends", "ab"),
        ("a\x1bP$qm\x1b\\b\x1b_Gf=100;AAAA\x1b\\c\x1b^pm\x1b\\d", "abcd"),
        ("a\x1b[6n\x1b[c\x1b[?1049h\x1b[2J\x1b[10;10H\x1b[5iz", "az"),
        ("a\x9b31mb\x9d52;c;x\x9c\x90q", "a31mb52;c;xq"),
        ("a\x1b\x1b[31\x1b[6mb\x08\x00\x7f", "a\x1b[0mb"),
        ("\x1b[" + "1;" * 500 + "mx", "x"),
        ("\x1b(0\x1b#8\x1bc\x1b7x", "x"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_what_is_not_a_colour_is_gone_with_all_it_says(hostile: str, left: str) -> None:
    assert sgr.rows([hostile]) == [left.replace("\x1b[0m", "")]


def test_a_row_says_the_colours_that_it_has_from_the_one_before() -> None:
    assert sgr.rows(["\x1b[31mred", "still \x1b[1mbold", "", "\x1b[0mplain", "plain"]) == [
        "\x1b[0;31mred\x1b[0m",
        "\x1b[0;31mstill \x1b[0;1;31mbold\x1b[0m",
        "",
        "plain",
        "plain",
    ]


@pytest.mark.parametrize(
    ("said", "style"),
    [
        ("38;2;1;2;3", sgr.Style(fg="38;2;1;2;3")),
        ("38:2::1:2:3", sgr.Style(fg="38;2;1;2;3")),
        ("48;5;200", sgr.Style(bg="48;5;200")),
        ("58:5:9;4:3", sgr.Style(("4:3",), under="58;5;9")),
        ("1;31;97;49", sgr.Style(("1",), fg="97")),
        ("5:3", sgr.Style(("53",))),
        ("1;3;22;4;4:2;24;7", sgr.Style(("3", "7"))),
        ("38;2;1;2;300", sgr.PLAIN),
        ("38;5", sgr.PLAIN),
        ("38;9;1;31", sgr.Style(("1", "9"), fg="31")),
        ("31;", sgr.PLAIN),
        ("999;1000000000", sgr.PLAIN),
    ],
)
def test_colours_are_understood_in_all_their_spellings(said: str, style: sgr.Style) -> None:
    assert sgr.styled(sgr.PLAIN, said) == style


def test_lines_are_drawn_and_spaces_with_a_colour_are_kept() -> None:
    assert sgr.rows(["\x0elqk\x0f lqk  ", "a\tb", "\x1b[44m bar  ", "\x1b[0;32mgreen  "]) == [
        "┌─┐ lqk",
        "a       b",
        "\x1b[0;44m bar  \x1b[0m",
        "\x1b[0;32mgreen\x1b[0m",
    ]


# -- following a pane -----------------------------------------------------------------------------


class Pane:
    """A pane as tmux 3.3a keeps it: a full history loses its oldest tenth before the next row."""

    def __init__(self, limit: int, cols: int = 80, rows: int = 4) -> None:
        self.limit, self.cols, self.rows = limit, cols, rows
        self.history: list[str] = []
        self.screen = [""] * rows
        self.number = 0

    def print(self, rows: int) -> None:
        for _ in range(rows):
            self.number += 1
            if len(self.history) >= self.limit:
                del self.history[: max(1, self.limit // 10)]
            self.history.append(self.screen.pop(0))
            self.screen.append(f"row {self.number}")

    def capture(self, history: int) -> Captured:
        above = self.history[max(0, len(self.history) - history) :]
        sizes = (self.cols, self.rows, len(self.history), self.limit, (0, self.rows - 1))
        return Captured(7, False, 5, *sizes, True, False, "title", (*above, *self.screen))


class Page:
    """What a page does with frames."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.screen: list[str] = []

    def show(self, frame: dict[str, Any]) -> None:
        self.history = frame["scrolled"] if frame["reset"] else self.history + frame["scrolled"]
        self.screen = frame["screen"]
        assert len(self.screen) == frame["rows"]


def follow(follower: Follower, pane: Pane) -> tuple[Shown, dict[str, Any] | None]:
    """Do what the console does."""
    try:
        return follower.step(pane.capture(follower.wants), 1.0)
    except NotEnough:
        return follower.step(pane.capture(frames.MOST_HISTORY), 1.0)


@given(st.integers(0, 2**32), st.sampled_from([0, 10, 55, 200, 1000, 20000]))
def test_a_page_that_follows_has_the_history_that_the_pane_has(seed: int, limit: int) -> None:
    chance, pane, page, follower = random.Random(seed), Pane(limit), Page(), Follower()
    if limit == 0:
        pane.limit = 1
    for _ in range(12):
        what = chance.random()
        if what < 0.7:
            pane.print(chance.choice([0, 1, 3, 30, 90, 300, 2500]))
        elif what < 0.8:
            pane.history = []
        elif what < 0.9:
            pane.history = []
            pane.print(chance.choice([1, 40, 300]))
        else:
            pane.cols += 1
        shown, frame = follow(follower, pane)
        if frame is not None:
            page.show(frame)
        length = min(len(page.history), len(pane.history))
        assert page.history[len(page.history) - length :] == pane.history[len(pane.history) - length :]
        # Nothing is missing that a page which has just come would be given.
        assert len(page.history) >= min(len(pane.history), frames.MOST_HISTORY)
        assert page.screen == pane.screen == shown.screen


def test_little_is_looked_at_where_little_scrolls_and_more_where_more_does() -> None:
    pane, follower = Pane(20000), Follower()
    pane.print(5000)
    assert follow(follower, pane)[1] is not None and follower.wants == frames.LEAST_HISTORY
    pane.print(3)
    with_three = follow(follower, pane)[1]
    assert with_three is not None and with_three["scrolled"] == pane.history[-3:]
    assert not with_three["reset"] and with_three["history"] == 5003
    # Faster than that: the next capture reaches further.
    pane.print(300)
    with pytest.raises(NotEnough):
        follower.step(pane.capture(follower.wants), 1.0)
    fast = follow(follower, pane)[1]
    assert fast is not None and len(fast["scrolled"]) == 300 and follower.wants == 616
    # Faster than anything that is looked at: it begins anew.
    pane.print(4000)
    anew = follow(follower, pane)[1]
    assert anew is not None and anew["reset"] and anew["scrolled"] == pane.history[-frames.MOST_HISTORY :]


def test_a_page_keeps_what_it_has_when_a_full_history_loses_its_oldest_rows() -> None:
    pane, follower, page = Pane(1000), Follower(), Page()
    pane.print(990)
    resets = []
    for _ in range(40):
        pane.print(37)
        frame = follow(follower, pane)[1]
        assert frame is not None
        page.show(frame)
        resets.append(frame["reset"])
    assert resets == [True] + [False] * 39
    assert page.history[-len(pane.history) :] == pane.history
    # All that was ever printed since it looks, and before that what the pane still had.
    assert page.history[-39 * 37 - 900 :] == [f"row {number}" for number in range(67, 2467)][-39 * 37 - 900 :]


def test_rows_that_are_all_the_same_are_not_taken_for_those_before() -> None:
    pane, follower = Pane(1000), Follower()
    pane.print(200)
    pane.history = ["same"] * 150
    follow(follower, pane)
    # Cleared, and printed anew: there are fewer than before, and nothing was dropped, for it was never full.
    pane.history = ["same"] * 120
    frame = follow(follower, pane)[1]
    assert frame is not None and frame["reset"] and len(frame["scrolled"]) == 120


def test_a_frame_has_a_bounded_size_whatever_a_program_prints() -> None:
    pane, follower = Pane(20000), Follower()
    pane.print(60)
    follow(follower, pane)
    colours = "".join(f"\x1b[38;2;{number % 256};1;2m#" for number in range(40_000))
    pane.history += [f"{colours}{number}" for number in range(5)]
    frame = follow(follower, pane)[1]
    # Of five rows, none of which fits twice, the newest is left.
    assert frame is not None and frame["reset"] and len(frame["scrolled"]) == 1
    assert frame["scrolled"][0].endswith("4\x1b[0m") and len(frame["scrolled"][0]) > 500_000


def test_nothing_is_sent_when_nothing_changed_and_a_cursor_that_moved_is_a_change() -> None:
    pane, follower = Pane(100), Follower()
    pane.print(30)
    assert follow(follower, pane)[1] is not None
    assert follow(follower, pane)[1] is None
    moved = follower.step(replace(pane.capture(50), cursor=(5, 0), cursor_visible=False), 2.0)[1]
    assert moved is not None and moved["cursor"] == {"x": 5, "y": 0, "visible": False}
    assert moved["scrolled"] == [] and not moved["reset"]


@pytest.mark.parametrize("change", ["size", "process", "cleared"])
def test_another_size_another_process_and_a_cleared_history_begin_anew(change: str) -> None:
    pane, follower = Pane(100), Follower()
    pane.print(30)
    follow(follower, pane)
    if change == "size":
        pane.cols = 40
    elif change == "cleared":
        pane.history = []
        pane.print(40)
    captured = pane.capture(100)
    if change == "process":
        captured = replace(captured, pid=8)
    frame = follower.step(captured, 1.0)[1]
    assert frame is not None and frame["reset"] and frame["scrolled"] == pane.history


@pytest.mark.parametrize(
    ("local", "view", "why"),
    [
        (
            False,
            {"phase": "up"},
            "terminals of build are shown only by a console on its own machine",
        ),
        (True, {"phase": "parked", "reason": "park (joe)"}, "it is parked: park (joe)"),
        (
            True,
            {"phase": "up", "socket": "/s", "session": None},
            "it is up, and where its terminal is is not known",
        ),
        (True, {"phase": "up", "socket": "/nowhere/s", "session": "x"}, "no pane of session x runs it"),
    ],
)
def test_it_is_said_why_no_terminal_is_seen(local: bool, view: dict[str, Any], why: str) -> None:
    host: Any = SimpleNamespace(name="build", local=local)
    with pytest.raises(LookupError) as said:
        asyncio.run(one_frame(host, {"identity": "bob", "reason": None, **view}))
    assert str(said.value) == why
