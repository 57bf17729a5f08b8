"""What an agent does, as a person reads it in the fleet's table."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from circus_failover import screen
from circus_failover.agent import Agent
from circus_failover.records import AgentRow

NOW = 1764000000.0
FAULT = {"kind": "usage-limit", "window": "5-hour", "resets_at": NOW + 3600, "retrying": False, "text": "no"}


def clock(moment: float, shape: str = "%H:%M") -> str:
    return time.strftime(shape, time.localtime(moment))


@pytest.mark.parametrize(
    ("state", "what", "fault", "shown", "style"),
    [
        (None, None, None, "-", ""),
        ("idle", None, None, "idle", "dim"),
        ("working", "Bash", None, "working", "green"),
        ("waiting", "permission: Bash", None, "waiting: permission: Bash", "yellow"),
        ("waiting", "dialog\x1b[2J", None, "waiting: dialog\\x1b[2J", "yellow"),
        ("waiting", "login", {**FAULT, "kind": "credentials"}, "waiting: login", "red"),
        ("limited", None, FAULT, f"limited until {clock(NOW + 3600)}", "red"),
        (
            "limited",
            None,
            {**FAULT, "resets_at": NOW + 5 * 86400},
            f"limited until {clock(NOW + 5 * 86400, '%b %d %H:%M')}",
            "red",
        ),
        ("limited", None, {**FAULT, "resets_at": None}, "limited", "red"),
        ("idle", None, {**FAULT, "kind": "overload"}, "idle, overload", "red"),
        ("unknown", None, None, "unknown", ""),
    ],
)
def test_a_state_is_shown_with_what_there_is_to_know_of_it(
    state: str | None, what: str | None, fault: dict[str, Any] | None, shown: str, style: str
) -> None:
    text = screen.state({"state": state, "state_what": what, "fault": fault}, NOW)
    assert (text.plain, str(text.style)) == (shown, style)


def test_what_is_waited_for_at_length_does_not_push_the_reasons_off_the_screen() -> None:
    agent = {"state": "waiting", "state_what": "permission: " + "x" * 500, "fault": None}
    assert len(screen.state(agent, NOW, width=40).plain) == 40
    assert len(screen.state(agent, NOW).plain) > 500


def test_of_an_agent_that_is_held_it_is_shown_until_when() -> None:
    shown = screen.state({"state": None, "held_until": NOW + 3600}, NOW)
    assert shown.plain == f"until {clock(NOW + 3600)}"
    assert screen.state({"state": None, "held_until": None}, NOW).plain == "-"


def held(**row: Any) -> dict[str, Any]:
    known = AgentRow("scout", phase="held", generation=3, account="one", **row)
    return Agent(watcher=None, identity="scout", row=known).view(None)


def test_who_is_held_for_a_limit_is_held_until_its_reset_and_for_a_crash_loop_until_that_opens() -> None:
    limited = held(cause="limited", limited_until=NOW + 60, loop="closed")
    assert (limited["held_until"], limited["limited_until"]) == (NOW + 60, NOW + 60)
    loop = held(cause="crash-loop", limited_until=NOW + 60, loop="open", loop_until=NOW + 30)
    assert (loop["held_until"], loop["limited_until"]) == (NOW + 30, None)


def test_the_account_of_a_live_launch_is_the_one_it_runs_on_whatever_its_section_says_since() -> None:
    row = AgentRow("scout", phase="up", generation=3, account="one", launch="x", pid=1, pid_start=1)
    agent = Agent(watcher=None, identity="scout", row=row)
    settings = SimpleNamespace(
        **dict.fromkeys(("runtime", "pool", "mode", "restart", "socket", "session")),
        account=SimpleNamespace(name="two"),
    )
    agent.settings = settings  # type: ignore[assignment]
    assert agent.view(None)["account"] == "one"
    agent.row = replace(row, phase="parked", pid=None, switched_to="two", switched_from="one")
    shown = agent.view(None)
    assert (shown["account"], shown["switched_from"]) == ("two", "one")


def test_an_answer_of_an_older_circusd_is_shown_too() -> None:
    assert screen.state({"state": "unknown"}).plain == "unknown"
