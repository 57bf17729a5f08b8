"""The watch of a boot: it says when the screen shows what it must, and ends whatever the pattern is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table
from tests.live.fleet import alive, wait_for
from tests.live.terminal import STANDIN, Open, Terminal, private_folder, shell, terminals


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Opens a terminal with a program."""
    with private_folder() as folder, terminals(folder) as opener:
        yield opener


def boot(opened: Terminal, match: str, **changes: Any) -> Path:
    wanted: dict[str, Any] = {"kind": "boot", "match": match, "secs": 30.0, "lock": None}
    return opened.order("boot.json", **{**wanted, **changes})


def outcome(opened: Terminal, order: Path) -> str:
    report = opened.report(order)
    assert isinstance(report.pop("at"), float)
    found: str = report.pop("outcome")
    assert report == {"kind": "ready", "identity": "bob", "generation": 3}
    return found


def test_a_boot_is_ready_when_the_screen_shows_the_pattern_and_not_before(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "1")
    order = boot(opened, r"^standin ready .* [0-9a-f-]{36}$")
    worker = opened.start(order)
    while not (found := list(opened.spool.glob("*.json"))):
        assert worker.poll() is None or list(opened.spool.glob("*.json"))
    assert "standin ready" in opened.screen()
    assert json.loads(found[0].read_bytes())["outcome"] == "matched"
    assert worker.wait(10) == 0


def test_a_pattern_is_searched_for_line_by_line(terminal: Open) -> None:
    opened = terminal(*shell("echo one; echo two; echo three; exec sleep 600"))
    assert outcome(opened, boot(opened, "^two$")) == "matched"
    assert outcome(opened, boot(opened, "^wo$", secs=0.3)) == "timeout"


def test_a_screen_that_never_shows_it_is_watched_until_the_time_is_over(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    assert outcome(opened, boot(opened, "never", secs=0.3)) == "timeout"


def test_an_agent_that_ends_meanwhile_is_gone(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "600")
    worker = opened.start(boot(opened, "ready", lock=str(opened.lock)))
    wait_for("the watch", opened.lock.exists)
    os.kill(opened.agent.pid, signal.SIGKILL)
    assert worker.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["gone"]


def test_the_last_screen_of_an_agent_that_is_gone_proves_nothing(terminal: Open) -> None:
    opened = terminal(*shell("echo ready; read x; exit 1"))
    opened.await_screen("ready")
    opened.press("Enter")
    wait_for("its end", lambda: not alive(opened.agent.pid))
    assert outcome(opened, boot(opened, "ready")) == "gone"


def test_another_process_in_the_pane_proves_nothing(terminal: Open) -> None:
    opened = terminal(*shell("echo ready; exec sleep 600"))
    opened.await_screen("ready")
    me = process_table.identify(os.getpid())
    assert me is not None
    assert outcome(opened, boot(opened, "ready", agent=[me.pid, me.start], secs=0.3)) == "timeout"


def test_a_pattern_that_backtracks_for_ever_ends_with_its_time(terminal: Open) -> None:
    opened = terminal(*shell("echo " + "a" * 60 + "b; exec sleep 600"))
    opened.await_screen("aab")
    assert outcome(opened, boot(opened, "(a+)+$", secs=1.0)) == "timeout"


def test_a_pattern_that_backtracks_on_an_early_screen_still_matches_a_later_one(terminal: Open) -> None:
    script = f"echo {'a' * 60}b; read x; printf '\\033[H\\033[2J\\033[3Jready\\n'; exec sleep 600"
    opened = terminal(*shell(script))
    opened.await_screen("aab")
    worker = opened.start(boot(opened, "ready|(a+)+$", lock=str(opened.lock)))
    wait_for("the watch", opened.lock.exists)
    opened.press("Enter")
    assert worker.wait(40) == 0
    assert [report["outcome"] for report in opened.reports()] == ["matched"]


def test_a_server_that_does_not_answer_proves_nothing(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    opened.await_screen("standin ready")
    os.kill(opened.server.pid, signal.SIGSTOP)
    try:
        assert outcome(opened, boot(opened, "standin ready", secs=0.3)) == "timeout"
        worker = opened.start(boot(opened, "standin ready", lock=str(opened.lock)))
        wait_for("the watch", opened.lock.exists)
    finally:
        os.kill(opened.server.pid, signal.SIGCONT)
    assert worker.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["matched"]


def test_one_boot_is_watched_by_one_worker_and_not_kept_from_it_by_the_agents_lock(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "600")
    order = boot(opened, "ready", lock=str(opened.folder / "boot.bob"), secs=2.0)
    first = opened.start(order)
    wait_for("the watch", (opened.folder / "boot.bob").exists)
    wait_for("a second is turned away", lambda: opened.run(order) == 75)
    assert not opened.lock.exists()
    assert first.wait(20) == 0
    assert [report["outcome"] for report in opened.reports()] == ["timeout"]


def test_a_watch_that_dies_is_started_again(terminal: Open) -> None:
    opened = terminal(*STANDIN, "--boot", "0.5")
    order = boot(opened, "ready")
    assert opened.run(order, crash_at="worker-before-report") == -signal.SIGKILL
    assert opened.reports() == []
    assert outcome(opened, order) == "matched"


def test_watching_types_nothing(terminal: Open) -> None:
    opened = terminal(*STANDIN)
    opened.await_screen("standin ready")
    before = opened.screen()
    assert outcome(opened, boot(opened, "never", secs=0.5)) == "timeout"
    assert opened.screen() == before and opened.prompts() == []
