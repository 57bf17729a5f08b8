"""What an agent does, as a person reads it in the fleet's table."""

from __future__ import annotations

import time
from typing import Any

import pytest

from circus_failover import screen

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


def test_an_answer_of_an_older_circusd_is_shown_too() -> None:
    assert screen.state({"state": "unknown"}).plain == "unknown"
