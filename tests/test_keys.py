"""Keys: what a name presses, what a pane's program wants to get, and why nothing is pressed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.exc import ArgumentError

from circus_failover import file_lock
from circus_failover.agent import Agent
from circus_failover.records import ActionRow, AgentRow, TaskRow
from circus_failover.verbs import keys_verb
from circus_failover.verbs.keys_verb import Keys, as_the_pane_wants, check, impossible, key_named

ROW = AgentRow("bob", phase="up", generation=3, pid=10, pid_start=5, socket="/s", session="bob")
TASK = TaskRow(7, "bob", "hello", None, "me", 0.0)
PARK = ActionRow(1, "bob", 3, "park", "joe@failoverctl", "park", 0.0, {})


def held(*tasks: TaskRow) -> Any:
    state = SimpleNamespace(agent_lock=lambda identity: Path("/nowhere"))
    return SimpleNamespace(state=state, deliveries=SimpleNamespace(waiting=lambda agent: list(tasks)))


@pytest.mark.parametrize(
    ("name", "sends"),
    [
        *[("Enter", "\r"), ("Escape", "\x1b"), ("Tab", "\t"), ("BTab", "\x1b[Z"), ("BSpace", "\x7f")],
        *[("Up", "\x1b[A"), ("PageUp", "\x1b[5~"), ("F5", "\x1b[15~"), ("C-c", "\x03"), ("^C", "\x03")],
        *[
            ("C-Space", "\x00"),
            ("C-[", "\x1b"),
            ("M-x", "\x1bx"),
            ("M-Enter", "\x1b\r"),
            ("M-C-a", "\x1b\x01"),
        ],
        *[("y", "y"), ("1", "1"), ("é", "é"), ("-", "-"), ("^", "^")],
    ],
)
def test_a_key_is_what_tmux_sends_for_its_name(name: str, sends: str) -> None:
    assert key_named(name) == sends


@pytest.mark.parametrize("name", ["enter", "C-", "C-é", "C-cc", "F13", "hello", "", "M-nothing", "\x1b[A"])
def test_an_unknown_key_is_refused_and_names_what_is_near(name: str) -> None:
    with pytest.raises(ArgumentError, match="no key .*--text"):
        key_named(name)


def test_a_command_line_is_a_text_and_then_keys() -> None:
    message = Keys().message("bob", "C-u", "y", "Enter", text="so be it")
    assert message["properties"] == {"name": "bob", "keys": "so be it\x15y\r"}
    for arguments in ((), ("bob",)):
        with pytest.raises(ArgumentError, match="one agent"):
            Keys().message(*arguments)
    with pytest.raises(ArgumentError, match="expected 1 to 1000"):
        Keys().message("bob", text="x" * 1001)


@pytest.mark.parametrize("keys", [None, 5, "", "x" * 1001, "\ud800", ["Enter"]])
def test_what_is_no_text_or_too_long_is_never_pressed(keys: object) -> None:
    with pytest.raises(ValueError, match="keys: found"):
        check(keys)


def test_cursor_keys_are_those_that_the_program_has_asked_for() -> None:
    assert as_the_pane_wants("a\x1b[A\x1bOBz", False) == "a\x1b[A\x1b[Bz"
    assert as_the_pane_wants("a\x1b[A\x1bOBz", True) == "a\x1bOA\x1bOBz"
    for asked in (False, True):
        # As tmux spells Home and End, whatever a front end does; all others are nobody's business.
        assert as_the_pane_wants("\x1b[H\x1bOF", asked) == "\x1b[1~\x1b[4~"
        others = "\x1b[1;5A\x1bOP\x1b[Z\x1b[3~\x1b[200~\x1b\x03[A"
        assert as_the_pane_wants(others, asked) == others


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"phase": "parked", "reason": "park (joe)"}, "it is not up but parked: park (joe)"),
        ({"phase": "starting"}, "it is not up but starting"),
        ({"phase": "observed"}, "it is observed: watched and shown, never typed into"),
        ({"generation": 4}, "launch 3 has ended, and launch 4 is another one"),
        ({"pid": None}, "where its terminal is is not known"),
    ],
)
def test_keys_are_for_the_launch_that_is_up_and_no_other(changes: dict[str, Any], why: str | None) -> None:
    assert impossible(held(), Agent(None, "bob", replace(ROW, **changes)), 3) == why


def test_nothing_is_pressed_while_somebody_ends_it_types_a_task_or_its_server_hangs() -> None:
    agent = Agent(None, "bob", ROW)
    assert impossible(held(TASK), agent, None) is None
    assert impossible(held(TASK, replace(TASK, id=8, state="typing")), agent, None) == (
        "task 8 is being typed right now"
    )
    agent.wedged = True
    assert impossible(held(), agent, None) == "its tmux server does not answer"
    agent.action = PARK
    assert impossible(held(), agent, None) == "it is being ended (park, by joe@failoverctl)"


def test_nothing_is_pressed_while_another_process_holds_the_lock_of_whoever_types(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = file_lock.take(lock)
    assert first is not None and file_lock.take(lock) is None
    desk = keys_verb._Desk()
    busy = held()
    busy.state.agent_lock = lambda identity: lock
    why = asyncio.run(desk.press(busy, Agent(None, "bob", ROW), None, "y", "joe"))
    assert why == "not pressed: somebody types into it, or ends it, right now"


def test_a_burst_of_keys_is_two_lines_and_says_who_pressed_how_many_but_never_which() -> None:
    agent, lines = Agent(None, "bob", ROW), []
    busy = held()
    busy.log = object()
    busy.record = lambda agent, ev, fields: lines.append((ev, fields))

    async def type_away() -> None:
        desk = keys_verb._Desk()
        for _ in range(30):
            desk._log(busy, agent, "web:operator@127.0.0.1", 2)
        desk._log(busy, agent, "joe@failoverctl", 1)
        assert len(lines) == 2
        desk._log_rest(busy, agent, "web:operator@127.0.0.1")
        desk._log_rest(busy, agent, "joe@failoverctl")
        # Nothing is left to be told, and the next key is told at once.
        desk._log_rest(busy, agent, "web:operator@127.0.0.1")
        desk._log(busy, agent, "web:operator@127.0.0.1", 5)

    asyncio.run(type_away())
    web = [fields["characters"] for _, fields in lines if fields["who"].startswith("web:")]
    assert web == [2, 58, 5] and lines[1] == ("keys", {"who": "joe@failoverctl", "characters": 1})
