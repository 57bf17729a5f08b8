"""An operator with two account homes gets a fleet that runs, and everything back, byte for byte."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

from circus_failover.init import setting_up
from tests.init.ground import home, snapshot
from tests.live.fleet import BIN, STANDIN, Fleet


def operator(fleet: Fleet) -> Path:
    """Make a HOME with two account homes, and let failoverctl run in it."""
    base = fleet.folder / "home"
    home(base, ".claude", "p/1", "q/2")
    home(base, ".claude-two", "p/3")
    os.utime(base, (1_600_000_000, 1_600_000_000))
    fleet.environment.update(HOME=str(base), TMUX_TMPDIR=str(fleet.folder))
    return base


def arguments(fleet: Fleet, base: Path) -> list[str]:
    # Marked as this test's own, since nothing of an agent's environment is told here.
    program = f"env FAILOVER_TEST_FLEET={fleet.folder} {STANDIN}"
    return [
        *("init", "--yes", "--dir", str(fleet.folder), "--move-data", "--program", program),
        *("--account", f"one={base}/.claude:command", "--account", f"two={base}/.claude-two:command"),
        *("--agent", f"scout={fleet.work}", "--agent", f"writer={fleet.work}:two"),
        *("--shared", str(base / "ours")),
    ]


def test_two_homes_become_a_fleet_that_runs_and_an_undo_restores_every_byte(fleet: Fleet) -> None:
    base = operator(fleet)
    before = snapshot(base)
    said = arguments(fleet, base)

    fleet.environment["FAILOVER_CRASH_AT"] = "init-moved"
    assert fleet.ctl(*said).code == -signal.SIGKILL
    del fleet.environment["FAILOVER_CRASH_AT"]
    went_on = fleet.ctl(*said)
    assert went_on.code == 0, went_on
    assert "carried to its end" in went_on.out and "2 can be launched, 0 refused" in went_on.out
    for name in (".claude", ".claude-two"):
        assert {path.name for path in (base / name / "projects/p").iterdir()} == {"1.jsonl", "3.jsonl"}

    fleet.endpoint = f"ipc://{fleet.state}/circusd.sock"
    fleet.environment["CIRCUSCTL_ENDPOINT"] = fleet.endpoint
    up = fleet.ctl("up", "circus.ini")
    assert up.code == 0, up
    for name, account in (("scout", "one"), ("writer", "two")):
        view = fleet.view(name)
        assert (view["phase"], view["account"]) == ("up", account)
        fleet.await_screen(name, "standin ready")
    for name in ("scout", "writer"):
        assert fleet.call("stop", name=name, waiting=True)["status"] == "ok"
    assert fleet.ctl("down", "circus.ini").code == 0

    undone = fleet.ctl("--json", "init", "--undo", "--dir", str(fleet.folder))
    assert undone.code == 0 and undone.json()["left"] == [], undone
    found = snapshot(base)
    for name in (".claude", ".claude-two"):
        del found[f"{name}/sessions"]  # the stand-in's own: no part of what an init has to do with
    assert found == before
    assert not fleet.ini.exists() and not fleet.yaml.exists()


def test_on_a_terminal_it_asks_what_it_has_to_know(fleet: Fleet) -> None:
    base = operator(fleet)
    before = snapshot(base)
    answers = [
        "y", "work", "",  # a second account, its name and home
        "2", "lead=/nowhere", f"lead={fleet.work}", "",  # the agents, one a line, and a slip
        "y", "y",  # the data, and all of it
        "y", "n",  # hooks for the first account, none for the second
    ]  # fmt: skip
    ours, terminal = pty.openpty()
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    options = ["--dir", str(fleet.folder), "--account", f"claude={base}/.claude"]
    try:
        done = subprocess.run(
            [str(BIN / "failoverctl"), "init", *options],
            env=fleet.environment,
            cwd=fleet.work,
            stdin=terminal,
            stderr=terminal,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(terminal)
    assert fleet.ini.exists(), shown + done.stdout
    text = fleet.ini.read_text()
    assert "[watcher:lead]" in text and "[watcher:work]" in text
    assert f"home: {base}/.work" in fleet.yaml.read_text()
    assert (base / ".work/projects/q/2.jsonl").read_text() == ".claude said q/2\n"
    assert f"CLAUDE_CONFIG_DIR={base}/.work claude" in done.stdout
    assert "failover-event Stop" in (base / ".claude/settings.json").read_text()
    assert not (base / ".work/settings.json").exists()
    home = ("--home", f"{base}/.claude", "--runtime", "claude")
    assert fleet.ctl("hooks", "remove", *home, "--yes").code == 0
    assert setting_up.undo(fleet.folder) == []
    after = snapshot(base)
    # Its hooks came and went, and with them the time of its last change.
    restored, was = after.pop(".claude/settings.json"), before.pop(".claude/settings.json")
    assert (restored[0], restored[2]) == (was[0], was[2])
    assert after == before
