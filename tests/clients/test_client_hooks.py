"""Our hooks in the settings of the real clients: they run, and say what circusd makes of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import client_events, client_hooks, spool
from circus_failover.records import AgentRow
from tests.clients.accounts import ClaudeHome, CodexHome, Home
from tests.clients.client import Start
from tests.clients.faults import Fault
from tests.clients.mock_api import Mock
from tests.clients.waiting import wait_for

REPORTER = Path(__file__).resolve().parents[2] / "bin" / "failover-event"
LAUNCH = str(uuid.uuid4())


class Reports:
    """What the clients of one launch have reported, as circusd keeps it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        (state / "spool").mkdir(parents=True, mode=0o700)
        self.row = AgentRow("bob", "up", generation=1, launch=LAUNCH)
        self.variables = {
            "FAILOVER_STATE_DIR": str(state),
            "FAILOVER_IDENTITY": "bob",
            "FAILOVER_GENERATION": "1",
            "FAILOVER_LAUNCH": LAUNCH,
        }
        self.hooks: list[str] = []
        """Every hook that was taken in, in their order."""

    def install(self, home: Home, runtime: str) -> None:
        """Put our hooks into a home."""
        client_hooks.carry_out(client_hooks.installing(runtime, home.folder, REPORTER))

    def take_in(self) -> dict[str, dict[str, Any]]:
        """Return the newest of each hook."""

        def taken_in(name: str, report: dict[str, Any]) -> None:
            at = (self.state / "spool" / name).stat().st_mtime
            pushed, why_not = client_events.merged(self.row, report, at)
            assert pushed is not None, why_not
            self.hooks.append(report["hook"])
            self.row = AgentRow("bob", "up", generation=1, launch=LAUNCH, pushed=pushed)

        assert spool.take_in(self.state / "spool", taken_in) == []
        return client_events.known(self.row)

    def await_hook(self, hook: str, number: int = 1) -> dict[str, Any]:
        """Wait until a hook has reported so often, and return what it said last."""
        return wait_for(
            f"{hook} is reported {number} times",
            lambda: (kept := self.take_in()) and self.hooks.count(hook) >= number and kept[hook],
        )


@pytest.fixture
def reports(folder: Path) -> Iterator[Reports]:
    """A state directory with nothing in it."""
    return Reports(folder / "state")


def test_claude_reports_how_turns_begin_end_fail_and_wait(
    start: Start, claude_home: Callable[..., ClaudeHome], mock: Mock, reports: Reports, work: Path
) -> None:
    home = claude_home("a")
    mine = (home.folder / "settings.json").read_bytes()
    reports.install(home, "claude")
    conversation = str(uuid.uuid4())
    # It says that it waits for a prompt only after a minute, and for a permission after six seconds.
    home.change(".claude.json", messageIdleNotifThresholdMs=100)
    client = start(home, "--session-id", conversation, directory=None, **reports.variables)
    home.await_status(client.pid, "idle")
    assert reports.await_hook("SessionStart")["source"] == "startup"

    client.prompt("remember PAPAYA")
    stopped = reports.await_hook("Stop")
    assert (stopped["session_id"], stopped["background_tasks"]) == (conversation, 0)
    assert stopped["client"][0] == client.pid, "the client is known, behind the shell that runs the hook"
    # That it waits for a prompt may have been said by now too.
    turn = [hook for hook in reports.hooks if hook != "Notification"]
    assert turn == ["SessionStart", "UserPromptSubmit", "Stop"]
    assert reports.take_in()["UserPromptSubmit"]["at"] < stopped["at"]
    assert "PAPAYA" not in str(reports.row.pushed), "neither what was asked nor what was answered"
    home.await_status(client.pid, "idle")

    assert reports.await_hook("Notification")["notification_type"] == "idle_prompt"
    mock.fail(Fault.LIMIT_WEEK, home.key, resets_in=4 * 24 * 3600)
    client.prompt("again")
    assert reports.await_hook("StopFailure")["error"] == "rate_limit"
    client.await_screen("What do you want to do?")
    home.await_status(client.pid, "waiting")
    client.press("Escape")
    home.await_status(client.pid, "idle")
    client.prompt("/exit")
    assert client.ended() == 0
    assert reports.await_hook("SessionEnd")["reason"] == "prompt_input_exit"
    assert reports.hooks.count("Stop") == 1, "a turn that fails has no Stop"
    client_hooks.carry_out(client_hooks.removing("claude", home.folder))
    assert (home.folder / "settings.json").read_bytes() == mine


def test_codex_asks_whether_to_trust_them_and_then_reports_its_turns(
    start: Start, codex_home: Callable[..., CodexHome], mock: Mock, reports: Reports
) -> None:
    home = codex_home("a")
    reports.install(home, "codex")
    client = start(home, directory=None, **reports.variables)
    client.await_screen("Hooks need review")
    client.answer("› 1. Review hooks", "Down")
    client.await_screen("› 2. Trust all and continue")
    client.answer("Hooks need review", "Enter")
    client.await_screen("gpt-5 default ·")
    client.prompt("remember PAPAYA")
    stopped = reports.await_hook("Stop")
    (conversation,) = home.locked()
    assert stopped["session_id"] == conversation
    assert reports.hooks == ["SessionStart", "UserPromptSubmit", "Stop"], "none before the first prompt"
    # What is typed before its turn is over would be a part of it.
    client.await_title("^work$")
    # A turn that fails begins, and is not said to have ended.
    mock.fail(Fault.OVERLOADED, home.key)
    client.prompt("again")
    reports.await_hook("UserPromptSubmit", 2)
    client.await_match("^■ ")
    assert "Stop" not in reports.hooks[3:] and os.listdir(reports.state / "spool") == []

    mock.heal()
    again = start(home, directory=None, **reports.variables)
    again.await_screen("gpt-5 default ·")
    assert "Hooks need review" not in again.printed()
