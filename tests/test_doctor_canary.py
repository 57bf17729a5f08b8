"""What doctor makes of the canary: each line from values, with what to do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from circus_failover.doctor_canary import Found, judged
from circus_failover.doctor_checks import Check, Level
from circus_failover.process_table import ProcessId

ALPHA, BETA, CANARY = ProcessId(10, 100), ProcessId(20, 200), ProcessId(30, 300)
ANSWER: dict[str, Any] = {
    "status": "ok",
    "means": "pidfd",
    "learns": "pidfd-info",
    "why": None,
    "servers": [{"pid": 10, "start": 100}, {"pid": 20, "start": 200}],
    "waiting": 0,
    "trouble": None,
}
ALL_WELL = Found(
    servers={ALPHA: "alpha", BETA: "beta"},
    section="plugin:canary",
    dry_run=False,
    read=True,
    circusd=60.0,
    canary=CANARY,
    answer=ANSWER,
)
TWO_LINES = (
    "add two lines, [plugin:canary] and use = circus_failover.plugins.Canary, then failoverctl reloadconfig"
)


def judge(**changes: Any) -> Check:
    (check,) = judged(replace(ALL_WELL, **changes))
    assert check.check == "canary"
    assert bool(check.remedy) == (check.level is not Level.OK)
    return check


def gone(**changes: Any) -> Check:
    return judge(canary=None, answer=None, **changes)


def answering(**changes: Any) -> Check:
    return judge(answer={**ANSWER, **changes})


def test_one_that_watches_everything_says_how_and_what_it_learns() -> None:
    found = judge()
    assert found.level is Level.OK
    assert found.finding == "pid 30 watches 2 tmux servers by pidfd, learns how they end by pidfd-info"
    why = "PIDFD_GET_INFO: not before Linux 6.15"
    assert answering(learns="proc-stat", why=why).finding.endswith(f"by proc-stat: {why}")
    assert answering(learns="proc-stat", why=why).level is Level.OK


def test_one_that_does_not_run_is_missed_only_where_agents_live() -> None:
    assert gone(servers={}).level is Level.OK
    found = gone()
    assert found.level is Level.WARN and "2 tmux servers with agents" in found.finding
    assert found.remedy.endswith("failoverctl restart plugin:canary")
    assert gone(circusd=3.0).level is Level.OK, "it is being started"
    assert "failoverctl up" in gone(circusd=None).remedy


@pytest.mark.parametrize("servers", [{}, {ALPHA: "alpha"}])
@pytest.mark.parametrize("circusd", [None, 3.0, 60.0])
def test_without_its_section_the_remedy_is_the_section(servers: Any, circusd: float | None) -> None:
    found = gone(section=None, servers=servers, circusd=circusd)
    assert (found.level, found.remedy) == (Level.WARN, TWO_LINES)
    assert "circus.ini" in found.finding


def test_a_circus_ini_that_was_not_read_is_not_said_to_lack_the_section() -> None:
    assert gone(section=None, read=False, servers={}).level is Level.OK
    assert "circus.ini" not in gone(section=None, read=False).finding
    assert judge(section=None, read=False).level is Level.OK


def test_one_that_nothing_would_start_again_is_told_while_it_runs() -> None:
    assert judge(section=None).remedy == TWO_LINES
    assert judge(dry_run=True).remedy == "dry_run = False in [plugin:canary]"
    assert "pid 30 runs" in judge(dry_run=True).finding
    assert (
        gone(dry_run=True).remedy
        == gone(dry_run=True, servers={}).remedy
        == "dry_run = False in [plugin:canary]"
    )


@pytest.mark.parametrize("answer", [None, {}, {"status": "error"}])
def test_one_that_does_not_answer_is_told(answer: dict[str, Any] | None) -> None:
    found = judge(answer=answer)
    assert found.level is Level.WARN and "pid 30 does not answer" in found.finding


def test_its_trouble_is_told_with_what_waits_in_memory() -> None:
    found = answering(trouble="exits.log: No space left on device", waiting=3)
    assert found.level is Level.WARN
    assert found.finding == "exits.log: No space left on device (3 deaths wait in its memory alone)"


def test_a_server_that_it_does_not_watch_is_named_by_its_agent() -> None:
    only = {"servers": [{"pid": 10, "start": 100}, {"pid": 20, "start": 999}]}
    found = answering(**only)
    assert found.level is Level.WARN and "beta (pid 20)" in found.finding and "alpha" not in found.finding
    assert judge(answer={**ANSWER, **only}, circusd=3.0).level is Level.OK, "circusd is just starting"
    assert judge(answer={**ANSWER, **only}, circusd=None).remedy.startswith("failoverctl up")


def test_a_host_on_which_exit_statuses_cannot_be_learned_is_told_with_the_reason() -> None:
    found = answering(learns="none", why="only Linux tells how a process that is not a child ended")
    assert found.level is Level.WARN and found.finding.endswith(
        "only Linux tells how a process that is not a child ended"
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = {**ANSWER, "learns": "none", "why": "x", "trouble": "y", "servers": []}
    assert len(judged(replace(ALL_WELL, answer=wrong, section=None))) == 4
