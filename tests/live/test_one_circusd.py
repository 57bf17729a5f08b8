"""One circusd a state directory, and what a dead one leaves behind is ended before its successor speaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.state_dir import StateDir, holder
from tests import proc
from tests.live.fleet import BIN, Fleet, alive, wait_for

COMMANDS = {
    "circusd": [str(BIN / "circusd")],
    "python -m circus.circusd": [sys.executable, "-m", "circus.circusd"],
    "a wrapper of another name, with options": [
        *(sys.executable, "-c", "from circus.circusd import main; main()"),
        *("--log-level", "debug"),
    ],
}


def second(fleet: Fleet, command: list[str], ini: Path) -> subprocess.CompletedProcess[str]:
    """Start another circusd and return how it ended; it must end by itself, and soon."""
    return subprocess.run(
        [*command, str(ini)],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        cwd=fleet.folder,
    )


def of_another_endpoint(fleet: Fleet) -> Path:
    """Write an ini like the fleet's own, with endpoints of its own."""
    path = fleet.folder / "other.ini"
    text = fleet.ini.read_text().replace(fleet.endpoint, f"ipc://{fleet.folder}/ctl2")
    path.write_text(text.replace(fleet.pubsub, f"ipc://{fleet.folder}/pub2"))
    return path


def test_a_second_one_exits_before_it_binds_and_says_who_holds_the_lock(fleet: Fleet) -> None:
    """However it is started, with the same endpoint and with one of its own; the agent never notices."""
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    assert fleet.circusd is not None
    for how, command in COMMANDS.items():
        for ini in (fleet.ini, of_another_endpoint(fleet)):
            ended = second(fleet, command, ini)
            assert ended.returncode not in (0, None), (how, ini)
            for part in (f"pid {fleet.circusd.pid}", str(fleet.ini), fleet.endpoint, str(fleet.state)):
                assert part in ended.stderr, (how, ini, ended.stderr)
            assert not (fleet.folder / "ctl2").exists(), (how, ini)
            view = fleet.view("alpha")
            assert (view["pid"], view["generation"]) == (was["pid"], 1), (how, ini)
    assert fleet.ctl("restart", "alpha").code == 0


def test_a_second_one_exits_also_when_failover_yaml_broke_meanwhile(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    fleet.yaml.write_text("state_dir: [")
    ended = second(fleet, COMMANDS["circusd"], fleet.ini)
    assert ended.returncode != 0
    assert fleet.call("fleet", timeout=5)["status"] == "ok"
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0


def test_a_second_one_in_the_background_ends_as_well(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    known = set(fleet.running(b"circusd"))
    assert second(fleet, [*COMMANDS["circusd"], "--daemon"], fleet.ini).returncode == 0
    wait_for("the second circusd has ended", lambda: known >= set(fleet.running(b"circusd")))
    assert fleet.call("fleet")["status"] == "ok"


@pytest.fixture
def background(fleet: Fleet) -> Iterator[int]:
    """Start circusd with --daemon, give its pid, and end it."""
    fleet.agent("alpha")
    fleet.write()
    pidfile = fleet.folder / "circusd.pid"
    log = fleet.folder / "daemon.log"
    started = second(
        fleet,
        [*COMMANDS["circusd"], "--daemon", "--pidfile", str(pidfile), "--log-output", str(log)],
        fleet.ini,
    )
    assert started.returncode == 0
    pid = wait_for("the pid file", lambda: int(pidfile.read_text()))
    try:
        yield pid
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            wait_for("circusd has ended", lambda: not alive(pid))


def test_one_in_the_background_holds_the_lock(fleet: Fleet, background: int) -> None:
    fleet.await_up("alpha")
    found = holder(StateDir(fleet.state))
    assert found is not None
    assert found.process.pid == background
    ended = second(fleet, COMMANDS["circusd"], fleet.ini)
    assert ended.returncode != 0
    assert f"pid {background}" in ended.stderr
    assert fleet.call("fleet")["circusd"]["pid"] == background


def test_a_restart_inside_circusd_keeps_the_lock_the_agents_and_the_verbs(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("manual", autostart="False")
    fleet.agent("stopped")
    fleet.start()
    fleet.await_up("alpha", "stopped")
    assert fleet.ctl("start", "manual").code == 0
    assert fleet.ctl("stop", "stopped", "--waiting").code == 0
    before = fleet.await_up("alpha", "manual")
    assert fleet.circusd is not None
    lock = (fleet.state / "arbiter.lock").stat()
    keeper = fleet.keeper("alpha")
    for program in ("circusctl", "failoverctl"):
        fleet.ctl("restart", program=program)
        wait_for(
            "another keeper",
            lambda keeper=keeper: (
                fleet.call("list", timeout=1.0, name="alpha").get("pids") not in (None, [], [keeper])
            ),
        )
        keeper = fleet.keeper("alpha")
        after = fleet.await_up("alpha", "manual")
        assert [(now["pid"], now["generation"]) for now in after] == [
            (was["pid"], was["generation"]) for was in before
        ]
        assert fleet.view("stopped")["phase"] == "stopped"
        assert fleet.call("fleet")["circusd"]["pid"] == fleet.circusd.pid
        assert fleet.circusd.poll() is None
        assert (fleet.state / "arbiter.lock").stat().st_ino == lock.st_ino
        assert second(fleet, COMMANDS["circusd"], fleet.ini).returncode != 0
        # The new arbiter ticks and ends agents like the first one.
        fleet.await_ticks()
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert not alive(before[0]["pid"])
    assert fleet.view("alpha")["phase"] == "stopped"


def test_after_a_sigkill_the_next_one_starts(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    for _ in range(3):
        fleet.end(signal.SIGKILL)
        assert holder(StateDir(fleet.state)) is None
        fleet.start()
        (now,) = fleet.await_up("alpha")
        assert (now["pid"], now["generation"]) == (was["pid"], 1)


def test_no_agent_or_keeper_holds_the_lock(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    lock = str(fleet.state / "arbiter.lock")
    assert fleet.circusd is not None
    for process in fleet.processes():
        if process.pid == fleet.circusd.pid:
            continue
        assert lock not in proc.open_files(process.pid), process


def test_two_fleets_with_the_same_identities_leave_each_other_alone(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (mine,) = fleet.await_up("alpha")

    other = Fleet(_folder(fleet, "other"))
    try:
        other.agent("alpha")
        other.start()
        (theirs,) = other.await_up("alpha")
        assert (mine["generation"], theirs["generation"]) == (1, 1)
        assert fleet.ctl("stop", "alpha", "--waiting").code == 0
        assert not alive(mine["pid"])
        other.await_ticks()
        assert alive(theirs["pid"])
        assert other.view("alpha")["phase"] == "up"
    finally:
        other.close()


def _folder(fleet: Fleet, name: str) -> Path:
    path = fleet.folder / name
    path.mkdir(mode=0o700)
    return path


def plugin(fleet: Fleet) -> None:
    """Add one of Circus's own plugins, which needs no settings."""
    fleet.plugins["plugin:flapping"] = {"use": "circus.plugins.flapping.Flapping", "window": "5"}


def plugin_pid(fleet: Fleet) -> int:
    """Return the pid of the plugin's process, once it runs."""
    return int(
        wait_for("the plugin runs", lambda: fleet.call("list", name="plugin:flapping").get("pids") or None)[0]
    )


def test_the_plugins_of_a_dead_circusd_end_before_its_successor_answers(fleet: Fleet) -> None:
    plugin(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    old = plugin_pid(fleet)
    fleet.end(signal.SIGKILL)
    assert alive(old)
    fleet.start()
    assert not alive(old)
    new = plugin_pid(fleet)
    assert new != old
    assert alive(new)
    fleet.await_up("alpha")


def test_a_plugin_that_was_restarted_is_known_as_well(fleet: Fleet) -> None:
    plugin(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    first = plugin_pid(fleet)
    os.kill(first, signal.SIGKILL)
    old = wait_for(
        "another plugin process",
        lambda: [pid for pid in fleet.call("list", name="plugin:flapping").get("pids") or () if pid != first],
    )[0]
    fleet.end(signal.SIGKILL)
    assert alive(old)
    fleet.start()
    assert not alive(old)


def test_a_plugin_is_known_after_a_restart_inside_circusd_and_a_reloadconfig(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    plugin(fleet)
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    first = plugin_pid(fleet)
    with fleet.store() as store:
        assert first in {child.process.pid for child in store.children() if child.kind == "plugin"}
    fleet.ctl("restart")
    old = wait_for(
        "another plugin process",
        lambda: [
            pid
            for pid in fleet.call("list", timeout=1.0, name="plugin:flapping").get("pids") or ()
            if pid != first
        ],
    )[0]
    fleet.await_up("alpha")
    fleet.end(signal.SIGKILL)
    assert alive(old)
    fleet.start()
    assert not alive(old)
    fleet.await_up("alpha")


def test_a_stubborn_leftover_is_killed(fleet: Fleet) -> None:
    """A plugin that ignores SIGTERM must not speak to the next circusd either."""
    plugin(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    old = plugin_pid(fleet)
    fleet.end(signal.SIGKILL)
    os.kill(old, signal.SIGSTOP)  # a stopped process takes no SIGTERM
    fleet.start()
    assert not alive(old)


def test_a_pid_that_was_given_away_is_left_alone(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    fleet.end(signal.SIGKILL)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        from circus_failover.store import ChildRow, Store

        store = Store(fleet.state / "failover.db")
        before = process_table.ProcessId(stranger.pid, 1)
        with store.decision(durable=False):
            store.add_child(ChildRow(before, process_table.boot_id(), "keeper", "alpha"))
        store.close()
        fleet.start()
        fleet.await_up("alpha")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_lock_names_its_holder_in_a_file_of_its_own_mode(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    lock = fleet.state / "arbiter.lock"
    assert lock.stat().st_mode & 0o777 == 0o600
    content = json.loads(lock.read_text())
    assert fleet.circusd is not None
    assert (content["pid"], content["endpoint"], content["ini"]) == (
        fleet.circusd.pid,
        fleet.endpoint,
        str(fleet.ini),
    )
