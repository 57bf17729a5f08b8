"""Who is a client, and who has a home in use, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from circus_failover import client_processes, process_table


@contextmanager
def process(name: str, code: str = "", **variables: str) -> Iterator[int]:
    """Run Python under another name, until its standard input is closed."""
    child = subprocess.Popen(
        [name, "-c", f"{code}\nprint('here', flush=True)\ninput()"],
        executable=sys.executable,
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == b"here\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def pids(home: Path, runtime: str = "claude") -> list[int]:
    """Return who has a home in use; not other tests' clients that are just begun, which may have any home."""
    found = client_processes.users(home, runtime)
    return [user.pid for user in found if "cannot be told" not in str(user)]


@pytest.mark.parametrize(
    ("name", "argv", "runtime"),
    [
        ("claude", ["claude", "--resume", "x"], "claude"),
        ("2.1.329", ["/home/u/.local/bin/claude"], "claude"),
        ("node", ["node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"], "claude"),
        ("node", ["/usr/bin/node", "/usr/bin/codex", "resume"], "codex"),
        ("MainThread", ["node", "/usr/bin/claude"], "claude"),
        ("codex", ["codex"], "codex"),
        ("vim", ["vim", "claude"], None),
        ("bash", ["bash", "/x/claude-notes.sh"], None),
        ("node", ["node", "/srv/claude/server.js"], None),
        ("claude-wrapper", ["claude-wrapper"], None),
        ("sh", [], None),
    ],
)
def test_a_client_is_known_by_its_program_and_not_by_what_it_was_given(
    name: str, argv: list[str], runtime: str | None
) -> None:
    assert client_processes.runtime_of(name, argv) == runtime


def test_a_home_is_in_use_by_a_client_that_was_told_it_or_has_it_by_default(tmp_path: Path) -> None:
    for name in (".claude", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with process("claude", CLAUDE_CONFIG_DIR=str(tmp_path / "other")) as told:
        with process("claude", HOME=str(tmp_path)) as default, process("sh", HOME=str(tmp_path)):
            assert pids(tmp_path / ".claude") == [default]
            assert pids(tmp_path / "other") == [told] == pids(tmp_path / "link")
        assert pids(tmp_path / ".claude") == []


def test_a_home_is_in_use_by_whoever_has_a_file_of_it_open(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "x.jsonl"
    with process("sh", f"file = open({str(path)!r}, 'w')") as writer:
        (user,) = client_processes.users(tmp_path / "home", "claude")
        assert user.pid == writer and "x.jsonl" in str(user)
        assert pids(tmp_path / "hom") == []


def test_a_status_file_counts_while_its_very_process_runs(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    with process("sh") as pid:
        now = process_table.identify(pid)
        assert now is not None
        path = tmp_path / "sessions" / f"{pid}.json"
        for said, expected in (
            ({"pid": pid, "procStart": str(now.start)}, [pid]),
            ({"pid": pid, "procStart": str(now.start + 1)}, [] if process_table.LINUX else [pid]),
            ({}, [pid]),
            ([], []),
        ):
            path.write_text(json.dumps(said))
            assert pids(tmp_path) == expected, said
    path.write_text(json.dumps({"pid": pid}))
    assert pids(tmp_path) == []
