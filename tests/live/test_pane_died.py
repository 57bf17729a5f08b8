"""tmux itself says that an agent's program has ended, and how; nothing is hooked in anybody else's server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circus_failover import keeper, tmux
from tests.live.fleet import Fleet, alive, last_words, wait_for
from tests.live.launched import ENVIRONMENT, Host, Launch, private_host, runs

HOSTILE = [
    "plain",
    "two words",
    "it's",
    'say "it"',
    "100%Y%%",
    "a#b",
    "x#[y",
    "#{pid}##[#(id)",
    "$HOME`id`;",
    "é{}",
]


@pytest.fixture
def host() -> Iterator[Host]:
    with private_host() as made:
        yield made


def died(launch: Launch) -> dict[str, Any]:
    """Wait for the one report of a pane."""

    def look() -> list[dict[str, Any]]:
        # As a worker does: tmux 3.3a now and then learns of an end only when it is prodded.
        tmux.prod(launch.socket)
        return launch.host.reports("pane-died")

    (found,) = wait_for("the report", look)
    return found


def await_end(socket: Path, session: str = "bob") -> None:
    """Wait until tmux knows that a pane's program has ended, and has begun what it does then."""
    wait_for("its end", lambda: tmux.prod(socket) or any(one.dead for one in tmux.panes(socket, session)))
    tmux.prod(socket)


@pytest.mark.parametrize(
    ("script", "status", "number"), [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", None, 9)]
)
def test_a_program_that_ends_is_reported_with_how_and_when(
    host: Host, script: str, status: int | None, number: int | None
) -> None:
    begun = int(time.time())
    bob = host.launch(f"sleep 0.2; {script}", generation=4)
    report = died(bob)
    assert begun <= report.pop("at") <= time.time()
    assert report == {
        "kind": "pane-died",
        "identity": "bob",
        "generation": 4,
        "pane": bob.pane,
        "status": status,
        "signal": number,
    }
    (file,) = host.state.spool.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    # It sorts with the reports of its second, which are named by nanoseconds.
    assert len(file.name.split("-")[0]) == 20


def test_a_program_that_ends_at_once_is_reported_too(host: Host) -> None:
    assert died(host.launch("exit 3"))["status"] == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_reported_and_logged_whatever_the_path_of_the_state_directory(host: Host, name: str) -> None:
    folder = host.folder / name
    folder.mkdir()
    (folder / "spool").mkdir()
    log = folder / "bob.log"
    arguments = tmux.launch_arguments(
        path=host.folder / "s",
        own_server_config=Path("/dev/null"),
        session="bob",
        working_dir=host.folder,
        environment={"FAILOVER_STATE_DIR": str(folder), "FAILOVER_LAUNCH": "x"},
        command=["sh", "-c", "echo hello; read x; exit 5"],
        log_command=tmux.pane_log_command(log, 1000, 2),
        died_command=keeper.died_command("bob", 1),
    )
    subprocess.run(arguments, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=True, timeout=20)
    (pane,) = tmux.panes(host.folder / "s", "bob")
    try:
        wait_for("its log", lambda: log.exists() and "hello" in log.read_text())
        tmux.run(host.folder / "s", ["send-keys", "-t", pane.pane, "Enter"])
        await_end(host.folder / "s")
        (path,) = wait_for("the report", lambda: list((folder / "spool").glob("*.json")))
        assert json.loads(path.read_bytes())["status"] == 5
    finally:
        os.kill(pane.server_pid, signal.SIGKILL)


def test_what_reports_it_is_no_part_of_the_launch(host: Host) -> None:
    """Else a worker would end it with the launch, half-way."""
    bob = host.launch("exit 0")
    died(bob)
    said = tmux.run(bob.socket, ["show-environment", "-t", "=bob"]).splitlines()
    assert "FAILOVER_IDENTITY=bob" in said
    assert not [line for line in said if line.startswith("FAILOVER_LAUNCH")]


def test_another_pane_that_ends_says_nothing(host: Host) -> None:
    bob = host.launch("sleep 600")
    tmux.run(bob.socket, ["split-window", "-t", bob.pane, "exit 1"])
    await_end(bob.socket)
    # A job that was begun later has ended: so has the hook's, were there one.
    tmux.run(bob.socket, ["run-shell", "sleep 0.2"])
    assert host.reports("pane-died") == []


def test_a_state_directory_that_is_gone_leaves_the_pane_as_it_is(host: Host) -> None:
    bob = host.launch("echo bye; read x; exit 1")
    host.state.path.rename(host.folder / "moved")
    socket = host.folder / "moved" / "tmux" / "bob.sock"
    tmux.run(socket, ["send-keys", "-t", bob.pane, "Enter"])
    await_end(socket)
    tmux.run(socket, ["run-shell", "sleep 0.2"])
    assert tmux.run(socket, ["display-message", "-p", "-t", bob.pane, "#{pane_in_mode}"]).strip() == "0"
    assert "bye" in tmux.capture(socket, bob.pane)
    (host.folder / "moved").rename(host.state.path)


def test_the_report_of_an_end_says_when_it_came(host: Host) -> None:
    bob = host.launch("exit 7")
    at = died(bob)["at"]
    wait_for("the second is over", lambda: time.time() >= at + 1)
    assert host.end(bob, intent="clear") == 0
    assert host.report()["ended_at"] == at


@pytest.mark.parametrize("own", [True, False], ids=["own server", "shared server"])
def test_how_an_agent_ended_is_known_also_when_the_worker_that_saw_it_has_died(host: Host, own: bool) -> None:
    """It closes the session, and with it all that could be asked, before it reports."""
    bob = host.launch(last_words("last words", 7), own=own)
    await_end(bob.socket)
    at = wait_for("its time", lambda: tmux.panes(bob.socket, "bob")[0].dead_time)
    assert host.end(bob, crash_at="worker-before-report", intent="clear") == -signal.SIGKILL
    wait_for("its server has ended", lambda: not runs(bob.server))
    assert host.reports() == []
    assert host.end(bob, intent="clear") == 0
    report = host.report()
    assert (report["exit_status"], report["exit_signal"], report["ended_at"]) == (7, None, at)
    assert "last words" in report["last_output"]
    assert report["reason"] == ""


def test_an_end_that_tmux_did_not_see_has_no_time(host: Host) -> None:
    bob = host.launch("exec sleep 600")
    bob.lose_server()
    assert host.end(bob, intent="clear") == 0
    assert host.report()["ended_at"] is None


def test_a_pane_that_is_kept_shows_how_its_program_ended_and_no_other_is_kept(host: Host) -> None:
    """An adopted session: its owner's windows go on as they were."""
    socket = host.shared
    begin = ["new-session", "-d", "-s", "mine", "read x; exit 4"]
    arguments = ["tmux", "-S", str(socket), "-f", "/dev/null", *begin]
    subprocess.run(arguments, env=ENVIRONMENT, check=True, timeout=20)
    try:
        (pane,) = tmux.panes(socket, "mine")
        tmux.run(socket, ["split-window", "-t", pane.pane, "sleep 600"])
        other = next(one for one in tmux.panes(socket, "mine") if one.pane != pane.pane)
        tmux.keep_dead_pane(socket, pane.pane)
        os.kill(other.pid, signal.SIGKILL)
        wait_for("the other is gone", lambda: tmux.prod(socket) or len(tmux.panes(socket, "mine")) == 1)
        assert not tmux.panes(socket, "mine")[0].dead
        tmux.run(socket, ["send-keys", "-t", pane.pane, "Enter"])
        await_end(socket, "mine")
        (now,) = wait_for("its status", lambda: [o for o in tmux.panes(socket, "mine") if o.dead_time])
        assert (now.pane, now.dead_status) == (pane.pane, 4)
        with pytest.raises(tmux.TmuxError):
            tmux.keep_dead_pane(socket, "%77")
    finally:
        server = tmux.server_pid(socket)
        assert server is not None
        os.kill(server, signal.SIGKILL)


# -- in a fleet ----------------------------------------------------------------------------------------


def hooks(socket: Path) -> str:
    """Return all hooks of a server with one session."""
    return "".join(
        tmux.run(socket, ["show-hooks", *flags])
        for flags in (["-g"], ["-t", "=bob:"], ["-w", "-t", "=bob:"], ["-p", "-t", "=bob:"])
    )


def test_nothing_is_hooked_in_a_shared_server(fleet: Fleet) -> None:
    socket = fleet.folder / "shared.sock"
    fleet.agent("bob", failover__socket=str(socket))
    fleet.agent("own")
    fleet.start()
    fleet.await_up("bob", "own")
    assert "run-shell" not in hooks(socket)
    assert "pane-died" in tmux.run(fleet.socket("own"), ["show-hooks", "-p", "-t", "=own:"])


def test_an_end_while_circusd_is_down_is_reported_all_the_same(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.end(signal.SIGKILL)
    os.kill(view["pid"], signal.SIGKILL)
    await_end(fleet.socket("bob"))
    (path,) = wait_for("the report", lambda: list((fleet.state / "spool").glob("*-pane-died.json")))
    report = json.loads(path.read_bytes())
    assert (report["identity"], report["generation"], report["signal"]) == ("bob", 1, 9)
    assert not alive(view["pid"])
    fleet.start()
    wait_for("it is taken in", lambda: not path.exists())
    fleet.await_phase("bob", "down")
