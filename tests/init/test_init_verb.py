"""`failoverctl init` as a script uses it, in this process: what it prints, refuses and leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus.commands import get_commands

import circus_failover.verbs.local  # noqa: F401  (registers the verbs that run in failoverctl)
from circus_failover import ctl
from circus_failover.failure import Failed
from circus_failover.init import moving, setting_up
from circus_failover.settings import Account
from circus_failover.state_dir import StateDir, claim
from tests.init.ground import home, restored, snapshot, wish, write
from tests.init.test_moving import killed_at
from tests.test_client_processes import process

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(memory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`init` in a made-up HOME, from a folder in it; gives exit code, output and errors."""
    (memory / "app").mkdir()
    monkeypatch.setenv("HOME", str(memory))
    monkeypatch.setenv("TMUX_TMPDIR", str(memory))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "FAILOVER_CRASH_AT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(memory / "app")

    def init(*arguments: str) -> tuple[int, str, str]:
        parsed = ctl.parse_arguments(["init", *arguments], get_commands())
        code = ctl.App(get_commands()).run_with(parsed)
        said = capsys.readouterr()
        return code, said.out, said.err

    return init


def options(base: Path, *names: str) -> list[str]:
    """Name homes as accounts of runtime `command`, which nothing but links is asked of."""
    accounts = [f"--account={name}={base}/{name}:command" for name in names]
    return ["--yes", "--program=true", f"--dir={base}/fleet", *accounts]


def test_it_makes_a_fleet_that_validate_accepts_and_undo_leaves_no_trace(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    home(memory, "b", "p/2")
    before = snapshot(memory)
    second = f"--second-account=c={memory}/c"
    code, out, err = run(*options(memory, "a", "b"), "--move-data", second, f"--agent=scout={memory}/app:b")
    assert (code, err) == (0, ""), err
    assert "agents   1 can be launched, 0 refused" in out
    assert f"next     failoverctl up {memory}/fleet/circus.ini" in out
    for name in ("a", "b", "c"):
        assert {path.name for path in (memory / name / "projects/p").iterdir()} == {"1.jsonl", "2.jsonl"}
    assert not (memory / "c/.credentials.json").exists()
    code, out, err = run("--undo", f"--dir={memory}/fleet")
    assert (code, err) == (0, "")
    assert restored(memory, before)


def test_a_dry_run_shows_the_plan_and_the_files_and_changes_nothing(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    before = snapshot(memory)
    code, out, err = run(*options(memory, "a"), "--dry-run", "--move-data")
    assert (code, err) == (0, "")
    assert f"{memory}/a/projects -> " in out and "1 file" in out and "[watcher:app]" in out
    assert "accounts:" in out
    code, out, err = run("--dry-run", f"--account=a={memory}/a")
    assert code == 3 and "--move-data" in err
    assert snapshot(memory) == before


def test_data_stays_where_it_is_until_it_is_told_to_move(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    before = snapshot(memory)
    code, out, err = run(*options(memory, "a"))
    assert code == 3 and "--move-data" in err and "--no-shared" in err and "nothing was changed" in err
    assert "secret" not in out + err
    assert snapshot(memory) == before
    code, _, err = run(*options(memory, "a"), "--no-shared")
    assert (code, err) == (0, "")
    assert not (memory / "a/projects").is_symlink()


def test_what_is_there_is_replaced_only_by_force_and_comes_back(run: Run, memory: Path) -> None:
    home(memory, "a")
    write(memory / "fleet/circus.ini", "mine")
    before = snapshot(memory)
    code, _, err = run(*options(memory, "a"))
    assert code == 3 and "--force" in err and snapshot(memory) == before
    assert run(*options(memory, "a"), "--force")[0] == 0
    assert (memory / "fleet/circus.ini.backup-1").read_text() == "mine"
    again = run(*options(memory, "a"), "--force")
    assert again[0] == 0
    for _ in range(2):
        assert run("--undo", f"--dir={memory}/fleet")[0] == 0
    assert restored(memory, before)


def test_nothing_is_moved_or_moved_back_while_a_client_runs_on_the_home(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    before = snapshot(memory)
    with process("claude", CLAUDE_CONFIG_DIR=str(memory / "a")) as pid:
        code, _, err = run(*options(memory, "a"), "--move-data")
        assert code == 3 and f"pid {pid} (claude)" in err
        assert snapshot(memory) == before
    assert run(*options(memory, "a"), "--move-data")[0] == 0
    with process("claude", CLAUDE_CONFIG_DIR=str(memory / "a")) as pid:
        code, _, err = run("--undo", f"--dir={memory}/fleet")
        assert code == 3 and f"pid {pid} (claude)" in err and (memory / "a/projects").is_symlink()


def test_a_client_that_starts_after_the_plan_was_made_stops_it(memory: Path) -> None:
    wanted = replace(wish(memory, Account("a", "claude", home(memory, "a", "p/1"))), program="true")
    prepared = setting_up.prepare(wanted)
    assert prepared.plan.refusals == () and prepared.busy == ()
    before = snapshot(memory)
    with (
        process("claude", CLAUDE_CONFIG_DIR=str(memory / "a")),
        pytest.raises(Failed, match="is in use"),
    ):
        setting_up.apply(prepared, 0.0)
    assert restored(memory, before) and not wanted.folder.exists()
    write(memory / "a/projects/p/late.jsonl")
    with pytest.raises(Failed, match="has changed since"):
        setting_up.apply(prepared, 0.0)


def test_one_init_at_a_time_is_at_a_home(memory: Path) -> None:
    prepared = setting_up.prepare(wish(memory, Account("a", "claude", home(memory, "a", "p/1"))))
    with (
        setting_up.locked(memory, [("claude", str(memory / "a"))]),
        pytest.raises(Failed, match="another failoverctl init"),
    ):
        setting_up.apply(prepared, 0.0)


def test_nothing_is_undone_while_circusd_holds_the_state_directory(run: Run, memory: Path) -> None:
    home(memory, "a")
    assert run(*options(memory, "a"))[0] == 0
    state = StateDir(memory / "fleet/state")
    state.prepare()
    handle = claim(state, "ipc:///x", "/x/circus.ini")
    try:
        code, _, err = run("--undo", f"--dir={memory}/fleet")
        assert code == 3 and "failoverctl down /x/circus.ini" in err
    finally:
        os.close(handle)
    assert run("--undo", f"--dir={memory}/fleet")[0] == 0


def test_the_run_after_an_interruption_goes_on_with_its_plan(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    os.environ["FAILOVER_CRASH_AT"] = "init-planned"
    try:
        assert killed_at(10**6, lambda place: run(*options(memory, "a"), "--move-data"))
    finally:
        del os.environ["FAILOVER_CRASH_AT"]
    assert not (memory / "a/projects").is_symlink()
    code, out, _ = run("--yes", f"--dir={memory}/fleet", "--dry-run")
    assert code == 0 and "would    rename" in out and not (memory / "a/projects").is_symlink()
    code, out, err = run("--yes", f"--dir={memory}/fleet")
    assert (code, err) == (0, "") and "carried to its end" in out and "1 can be launched" in out
    assert (memory / "a/projects").is_symlink()
    os.environ["FAILOVER_CRASH_AT"] = "init-undoing"
    try:
        assert killed_at(10**6, lambda place: run("--undo", f"--dir={memory}/fleet"))
    finally:
        del os.environ["FAILOVER_CRASH_AT"]
    code, _, err = run("--yes", f"--dir={memory}/fleet")
    assert code == 3 and "init --undo" in err
    assert run("--undo", f"--dir={memory}/fleet")[0] == 0
    assert (memory / "a/projects/p/1.jsonl").exists() and not (memory / "a/projects").is_symlink()


def test_json_says_all_of_it_and_the_exit_code_is_the_same(run: Run, memory: Path) -> None:
    home(memory, "a", "p/1")
    refused = run(*options(memory, "a"), "--json")
    answer: dict[str, Any] = json.loads(refused[1])
    assert refused[0] == 3 and answer["status"] == "error" and "--move-data" in answer["reason"]
    assert [move["files"] for move in answer["plan"]["moves"]] == [1, 1]
    code, out, _ = run(*options(memory, "a"), "--json", "--move-data")
    answer = json.loads(out)
    assert code == 0 and answer["validate"]["ok"] and answer["next"]
    assert set(answer["plan"]["files"]) == {
        f"{memory}/fleet/{name}" for name in ("circus.ini", "failover.yaml")
    }
    code, out, _ = run("--undo", f"--dir={memory}/fleet", "--json")
    assert code == 0 and json.loads(out)["left"] == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["x"], ["--yes", "--no-shared", "--move-data"], ["--yes", "--account=x"], ["--yes", "--agent=A=/x"]],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Run, memory: Path, arguments: list[str]) -> None:
    home(memory, ".claude")
    before = snapshot(memory)
    assert run(*arguments)[0] == 2
    assert snapshot(memory) == before


def test_there_is_nothing_to_undo_where_nothing_was_done(run: Run, memory: Path) -> None:
    code, _, err = run("--undo")
    assert code == 3 and "nothing to undo" in err
    assert moving.journals(memory / "nowhere") == [] and wish(memory).accounts == ()
