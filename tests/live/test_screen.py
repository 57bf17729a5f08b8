"""What a pane shows, taken with one call: rows and title as they are, and whose they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from circus_failover import tmux
from circus_failover.agents.runtime import Screen
from tests.live.fleet import alive, wait_for
from tests.live.terminal import Open, Terminal, shell

HOSTILE = (
    "#{pid} #[fg=red] #(touch owned) %H:%M ##{pane_pid} $HOME `id`",
    "1 1 dead",
    "”’ ⏵⏵ ❯\u00a0x ✳ ⠐ |",
    "Pane is dead (status 0, now)",
)
"""Texts that a program may choose; a reader of lines, formats or times would trip over each."""


def seen(opened: Terminal) -> Screen:
    found = tmux.screen(opened.socket, opened.pane)
    assert found is not None
    assert found[0] == opened.agent.pid
    return found[1]


def _once(row: str, screen: Screen) -> Screen | None:
    return screen if row in screen.rows else None


def test_rows_and_title_are_as_the_program_wrote_them_whatever_they_say(terminal: Open, folder: Path) -> None:
    output = folder / "output"
    output.touch()
    opened = terminal("tail", "-f", str(output), width=80, height=8)
    for number, text in enumerate(HOSTILE):
        with output.open("a", encoding="utf-8") as file:
            # A control character in a title is dropped by tmux: the tab would end a field.
            file.write(f"\033[H\033[2J\033]2;{text}\t\007{text}\r\n\r\n{'w' * 81}\r\nlast {number}")
        screen = wait_for(text, lambda: _once(f"last {number}", seen(opened)))  # noqa: B023
        assert screen.title == text
        assert screen.rows == (text, "", "w" * 80, "w", f"last {number}", "", "", "")
    assert not (folder / "owned").exists()


def test_what_has_scrolled_away_is_not_shown(terminal: Open) -> None:
    opened = terminal(*shell("seq 100; exec sleep 600"), height=5)
    wait_for("the last rows", lambda: seen(opened).rows == ("97", "98", "99", "100", ""))


def test_the_screen_is_the_programs_own_while_a_person_scrolls_in_it(terminal: Open) -> None:
    opened = terminal(*shell("seq 100; exec sleep 600"), height=5)
    wait_for("the last rows", lambda: seen(opened).rows == ("97", "98", "99", "100", ""))
    opened.tmux("copy-mode", "-t", opened.pane)
    opened.tmux("send-keys", "-t", opened.pane, "-X", "history-top")
    assert seen(opened).rows == ("97", "98", "99", "100", "")


def test_a_pane_whose_program_has_ended_shows_nothing(terminal: Open) -> None:
    opened = terminal(*shell("echo bye; read x"))
    opened.await_screen("bye")
    opened.press("Enter")
    wait_for("its end", lambda: not alive(opened.agent.pid))
    wait_for(
        "tmux knows", lambda: tmux.prod(opened.socket) or tmux.screen(opened.socket, opened.pane) is None
    )


def test_a_pane_or_a_server_that_is_not_there_shows_nothing(terminal: Open, folder: Path) -> None:
    opened = terminal(*shell("exec sleep 600"))
    assert tmux.screen(opened.socket, "%99") is None
    assert tmux.screen(folder / "nobody", opened.pane) is None


def test_a_server_that_does_not_answer_is_not_taken_for_gone(terminal: Open) -> None:
    opened = terminal(*shell("exec sleep 600"))
    os.kill(opened.server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(tmux.TmuxTimeout):
            tmux.screen(opened.socket, opened.pane, 0.2)
    finally:
        os.kill(opened.server.pid, signal.SIGCONT)
