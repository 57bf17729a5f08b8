"""Why somebody's word does not reach an agent, in words that say what to do."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from circus.exc import ArgumentError

from circus_failover.agent import Agent
from circus_failover.agent_health import Seen
from circus_failover.policy.health import Health
from circus_failover.process_table import ProcessId
from circus_failover.records import ActionRow, AgentRow, TaskRow
from circus_failover.verbs.tell_verb import Tell, hindrance, impossible
from circus_failover.words import State

ROW = AgentRow("bob", phase="up", generation=3, pid=10, pid_start=5)
TASK = TaskRow(7, "bob", "hello", None, "me", 0.0, kind="tell", generation=3)
PARK = ActionRow(1, "bob", 3, "park", "joe@failoverctl", "park", 0.0, {})


def agent(state: State | None = None, what: str = "", **changes: Any) -> Agent:
    made = Agent(None, "bob", replace(ROW, **changes))
    if state is not None:
        made.seen = Seen(3, ProcessId(10, 5), time.time(), 60.0, Health(state, at=time.time(), what=what))
    return made


@pytest.mark.parametrize("state", [None, State.IDLE, State.WORKING, State.WAITING, State.UNKNOWN])
def test_an_agent_that_is_up_can_be_told_something_sooner_or_later(state: State | None) -> None:
    assert impossible(agent(state), 3) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"phase": "parked", "reason": "park (joe)"}, "it is not up but parked: park (joe)"),
        ({"phase": "starting"}, "it is not up but starting"),
        ({"generation": 4}, "its launch has ended, and another one has begun"),
        ({"phase": "observed"}, "it is observed: watched and shown, never typed into"),
    ],
)
def test_a_launch_that_is_not_there_cannot_be_told_anything(changes: dict[str, Any], why: str) -> None:
    assert impossible(agent(**changes), 3) == why


def test_a_limited_agent_and_one_that_is_being_ended_are_not_waited_for() -> None:
    assert impossible(agent(State.LIMITED, "5-hour limit"), 3) == "it is limited: 5-hour limit"
    ending = agent()
    ending.action = PARK
    assert impossible(ending, 3) == "it is being ended (park, by joe@failoverctl)"


def test_what_keeps_a_word_from_being_typed_is_named() -> None:
    waits = agent(State.WAITING, "permission: Bash(rm -rf build)")
    assert hindrance(waits, TASK, [TASK]) == "it is waiting: permission: Bash(rm -rf build)"
    ahead = replace(TASK, id=5, note="not echoed")
    assert hindrance(agent(), TASK, [ahead, TASK]) == "task 5 is ahead of it (not echoed)"
    assert hindrance(agent(), replace(TASK, note="the text did not show"), [TASK]) == "the text did not show"
    assert hindrance(agent(), TASK, [TASK]) is None
    wedged = agent()
    wedged.wedged = True
    assert hindrance(wedged, TASK, [TASK]) == "its tmux server does not answer"


@pytest.mark.parametrize(
    ("arguments", "file"), [((), None), (("bob",), None), (("bob", "a", "b"), None), (("bob", "a"), "-")]
)
def test_one_agent_and_one_text_are_wanted(arguments: tuple[str, ...], file: str | None) -> None:
    with pytest.raises(ArgumentError, match="one text"):
        Tell().message(*arguments, file=file)


@pytest.mark.parametrize("text", ["", " \n\t ", "a\x1b[201~b", "\x03", "\ud800", "x" * (4 * 1024 * 1024 + 1)])
def test_what_cannot_be_typed_is_a_usage_error(text: str) -> None:
    with pytest.raises(ArgumentError, match="TEXT: the task"):
        Tell().message("bob", text)
