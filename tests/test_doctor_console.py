"""What doctor makes of the web console: each line from values, with what to do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circus_failover import doctor_console
from circus_failover.doctor_checks import Level
from circus_failover.doctor_console import Found, judged
from circus_failover.state_dir import StateDir
from circus_failover.web.options import Options
from circus_failover.web.tokens import TokenFolder

RUNS = Found("httpd = True", "127.0.0.1", Options(), "http://127.0.0.1:8080", 7, None)


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, Level.OK, "http://127.0.0.1:8080, pid 7"),
        ({"url": None, "pid": None}, Level.WARN, "asks for one, and none runs"),
        ({"url": None, "pid": None, "wanted": None}, Level.OK, "asks for none"),
        ({"trouble": "STATE/web/token has mode 0644"}, Level.FAIL, "mode 0644"),
        ({"listens": "0.0.0.0"}, Level.FAIL, "without TLS, so nothing is served"),
        ({"listens": "0.0.0.0", "options": Options(allow_remote=True)}, Level.WARN, "tokens can be read"),
        (
            {"listens": "0.0.0.0", "options": Options(tls_cert=Path("c"), tls_key=Path("k"))},
            Level.OK,
            "pid 7",
        ),
    ],
)
def test_a_console_that_is_missing_or_open_to_strangers_is_said(
    changes: dict[str, Any], level: Level, says: str
) -> None:
    check = judged(replace(RUNS, **changes))
    assert (check.check, check.level) == ("console", level)
    assert says in check.finding
    assert (check.level is Level.OK) == (check.remedy == "")


def test_a_fleet_that_never_had_a_console_hears_nothing_of_one(tmp_path: Path) -> None:
    assert doctor_console.examine(StateDir(tmp_path), {}, {}) == []


def test_a_token_that_others_may_read_is_a_failure_and_is_not_shown(tmp_path: Path) -> None:
    folder = TokenFolder(StateDir(tmp_path))
    folder.prepare()
    (check,) = doctor_console.examine(StateDir(tmp_path), {}, {})
    assert check.level is Level.OK
    token = folder.path / "token"
    token.chmod(0o644)
    (check,) = doctor_console.examine(StateDir(tmp_path), {}, {})
    assert check.level is Level.FAIL
    assert str(token) in check.finding
    assert token.read_text().strip() not in f"{check.finding} {check.remedy}"
