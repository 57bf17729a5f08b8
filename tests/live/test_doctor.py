"""`doctor` on a real fleet: what it finds, and that it finds it again with circusd down."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from circus_failover import doctor_systemd
from circus_failover.store import Store
from tests.live.fleet import Fleet, wait_for
from tests.live.with_plugins import await_watched, canary


def lines(fleet: Fleet, *arguments: str) -> dict[str, list[dict[str, str]]]:
    """Run doctor, and return its lines by check."""
    done = fleet.ctl("--json", "doctor", *arguments)
    checks: list[dict[str, str]] = done.json()["checks"]
    failed = [check for check in checks if check["level"] == "fail"]
    assert done.code == (1 if failed else 0), done
    assert len(done.err.splitlines()) == (1 if failed else 0)
    found: dict[str, list[dict[str, str]]] = {}
    for check in checks:
        found.setdefault(check["check"], []).append(check)
    return found


def level(found: dict[str, list[dict[str, str]]], check: str) -> str:
    (line,) = found[check]
    return line["level"]


def test_a_fleet_in_order_has_no_failure_and_down_says_what_was_not_checked(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.guard()
    fleet.reaper()
    fleet.write()
    before = lines(fleet)
    assert level(before, "circusd") == "warn"
    assert "not checked: supervisor" in before["circusd"][0]["finding"]
    assert fleet.ctl("up").code == 0
    fleet.await_up("alpha")
    found = lines(fleet)
    for check in ("python", "tmux", "circus", "settings", "endpoint", "pubsub_endpoint", "state_dir"):
        assert level(found, check) == "ok", found[check]
    for check in ("lock", "store", "clock", "circusd", "supervisor", "agents", "plugins", "undeclared"):
        assert level(found, check) == "ok", found[check]
    for check in ("tasks", "CrashLoopGuard", "IdleReaper"):
        assert level(found, check) == "ok", found[check]
    plain = fleet.ctl("doctor")
    assert len(plain.out.splitlines()) == sum(map(len, found.values()))
    assert "\x1b" not in plain.out
    assert fleet.ctl("down").code == 0
    after = lines(fleet)
    assert level(after, "circusd") == "warn"
    assert "agent alpha" in after["systemd"][0]["finding"]


def test_what_is_open_to_others_is_named_with_the_chmod(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.folder.chmod(0o755)
    fleet.state.chmod(0o755)
    found = lines(fleet)
    for check in ("endpoint", "pubsub_endpoint"):
        assert level(found, check) == "fail"
        assert found[check][0]["remedy"] == f"chmod 700 {fleet.folder}"
    assert level(found, "state_dir") == "fail"
    assert found["state_dir"][0]["remedy"] == f"chmod 700 {fleet.state}"
    fleet.folder.chmod(0o700)
    fleet.state.chmod(0o700)
    assert fleet.ctl("down").code == 0


def test_tcp_endpoints_are_told_also_offline_and_stats_too(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    text = fleet.ini.read_text().replace(fleet.endpoint, "tcp://127.0.0.1:59871")
    text = text.replace(fleet.pubsub, "tcp://0.0.0.0:59872")
    fleet.ini.write_text(text.replace("[circus]", "[circus]\nstatsd = True\nstats_endpoint = tcp://*:59873"))
    found = lines(fleet)
    assert level(found, "endpoint") == "warn"
    assert level(found, "pubsub_endpoint") == "fail"
    assert level(found, "stats_endpoint") == "fail"


def test_refused_agents_wrong_settings_and_a_long_check_delay_are_told(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__nonsense="1")
    fleet.write()
    fleet.ini.write_text(fleet.ini.read_text().replace("check_delay = 0.5", "check_delay = 60"))
    assert fleet.ctl("up").code == 0
    found = lines(fleet)
    assert "alpha is refused" in found["agent"][0]["finding"]
    assert level(found, "agent") == level(found, "settings") == "fail"
    assert level(found, "check_delay") == "warn"
    assert fleet.ctl("down").code == 0


def test_a_plugin_that_is_stopped_is_told(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.plugins["plugin:flapping"] = {"use": "circus.plugins.flapping.Flapping"}
    fleet.write()
    assert fleet.ctl("up").code == 0
    assert level(lines(fleet), "plugins") == "ok"
    assert fleet.ctl("stop", "plugin:flapping", "--waiting").code == 0
    found = lines(fleet)
    assert level(found, "plugin") == "fail"
    assert "plugin:flapping is stopped" in found["plugin"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_our_plugins_are_missed_and_judged_by_their_ticks(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="60")
    fleet.write()
    offline = lines(fleet)
    assert level(offline, "CrashLoopGuard") == level(offline, "IdleReaper") == "warn"
    assert "alpha" in offline["IdleReaper"][0]["finding"]
    fleet.guard(interval="0.2")
    fleet.reaper(interval="0.2", nonsense="1")
    fleet.write()
    assert fleet.ctl("up").code == 0

    def ticked() -> bool:
        with fleet.store() as store:
            return store.plugins().keys() == {"CrashLoopGuard", "IdleReaper"}

    wait_for("both plugins tick", ticked)
    found = lines(fleet)
    assert found["CrashLoopGuard"][0]["finding"].startswith("ticks every 0.2 s")
    assert level(found, "CrashLoopGuard") == "ok"
    assert level(found, "IdleReaper") == "warn"
    assert "1 errors in " in found["IdleReaper"][0]["finding"]
    assert "nonsense" in found["IdleReaper"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_a_plugin_that_hangs_is_told(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.guard(interval="0.2")
    fleet.write()
    assert fleet.ctl("up").code == 0
    (plugin,) = fleet.call("list", name="plugin:guard")["pids"]

    def tick() -> float | None:
        with fleet.store() as store:
            row = store.plugins().get("CrashLoopGuard")
        return row.at if row is not None and row.pid == plugin else None

    wait_for("the guard ticks", tick)
    os.kill(plugin, signal.SIGSTOP)
    try:
        # Later than circusd's start permits, and than three intervals and 5 s.
        wait_for("its tick is late", lambda: (at := tick()) is not None and time.time() - at > 10.5)
        found = lines(fleet)
    finally:
        os.kill(plugin, signal.SIGCONT)
    assert level(found, "plugins") == "ok"
    assert level(found, "CrashLoopGuard") == "warn"
    assert "plugin:guard ticked 1" in found["CrashLoopGuard"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_a_canary_is_missed_and_judged_by_what_it_says(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    (view,) = fleet.await_up("alpha")
    found = lines(fleet)
    assert level(found, "canary") == "warn"
    assert "does not run, and 1 tmux servers" in found["canary"][0]["finding"]
    assert found["canary"][0]["remedy"].startswith("add two lines, [plugin:canary] and use = circus_failover")
    fleet.canary(interval="0.2")
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    said = await_watched(fleet, view["server_pid"])
    found = lines(fleet)
    assert level(found, "canary") == "ok", found["canary"]
    assert f"pid {said['pid']} watches 1 tmux servers" in found["canary"][0]["finding"]
    os.kill(said["pid"], signal.SIGSTOP)
    try:
        found = lines(fleet)
    finally:
        os.kill(said["pid"], signal.SIGCONT)
    assert level(found, "canary") == "warn"
    assert f"pid {said['pid']} does not answer" in found["canary"][0]["finding"]
    assert fleet.ctl("down").code == 0
    assert level(lines(fleet), "canary") == "ok", "it outlives circusd"
    os.kill(said["pid"], signal.SIGKILL)
    wait_for("it has ended", lambda: canary(fleet) is None)
    found = lines(fleet)
    assert level(found, "canary") == "warn"
    assert found["canary"][0]["remedy"].startswith("failoverctl up")


def test_a_canary_without_agents_is_not_missed(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.canary()
    fleet.write()
    found = lines(fleet)
    assert level(found, "canary") == "ok"
    assert found["canary"][0]["finding"] == "does not run: there is no tmux server to watch"


def test_agents_that_are_held_are_named_in_one_line(fleet: Fleet) -> None:
    for name in ("alpha", "beta"):
        fleet.agent(name, failover__command="sh -c 'exit 3'", failover__crash_max="1")
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.await_phase("alpha", "held")
    fleet.await_phase("beta", "held")
    found = lines(fleet)
    assert level(found, "held") == "warn"
    assert "alpha (until " in found["held"][0]["finding"]
    assert "beta (until " in found["held"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_a_task_that_is_not_taken_by_an_agent_that_is_up_is_told(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.await_up("alpha")
    fleet.await_screen("alpha", "standin ready")
    fleet.type("alpha", "/hang")
    assert fleet.ctl("wake", "alpha", "--task", "TEXT").code == 0
    assert level(lines(fleet), "tasks") == "ok"
    assert fleet.ctl("down").code == 0
    long_ago = time.time() - 720
    store = Store(fleet.state / "failover.db")
    row = store.agent("alpha")
    assert row is not None
    with store.decision(durable=True):
        store.put_agent(replace(row, ready_at=long_ago))
        store.update_task(1, queued_at=long_ago)
    store.close()
    assert "tasks" not in lines(fleet), "nobody types while circusd is down"
    assert fleet.ctl("up").code == 0
    found = lines(fleet)
    assert level(found, "tasks") == "warn"
    assert "task 1 waits for 12 minutes for alpha, which is up" in found["tasks"][0]["finding"]
    assert "TEXT" not in found["tasks"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_a_log_that_cannot_be_written_is_told(fleet: Fleet) -> None:
    fleet.state.mkdir(mode=0o700)
    (fleet.state / "lifecycle.log").mkdir()
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.await_up("alpha")
    found = lines(fleet)
    assert level(found, "lifecycle.log") == "warn"
    assert "could not be written: " in found["lifecycle.log"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_a_wedged_server_is_told_and_left_alone(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    (view,) = fleet.await_up("alpha")
    os.kill(view["server_pid"], signal.SIGSTOP)
    try:
        wait_for("alpha is wedged", lambda: fleet.view("alpha")["wedged"])
        found = lines(fleet)
        assert level(found, "tmux server") == "fail"
        assert str(view["server_pid"]) in found["tmux server"][0]["finding"]
        attach = fleet.ctl("--json", "attach", "alpha")
        assert attach.code == 3
        assert "does not answer" in attach.err
    finally:
        os.kill(view["server_pid"], signal.SIGCONT)
    assert fleet.ctl("down").code == 0


def test_an_agent_that_runs_without_a_section_is_told(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta")
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.await_up("alpha", "beta")
    assert fleet.ctl("down").code == 0
    del fleet.sections["watcher:beta"]
    fleet.write()
    assert fleet.ctl("up").code == 0
    found = lines(fleet)
    assert level(found, "undeclared") == "warn"
    assert "beta" in found["undeclared"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_agents_whose_sections_vanished_are_listed_until_they_are_purged_or_come_back(fleet: Fleet) -> None:
    for name in ("alpha", "beta", "gamma", "never", "gone"):
        fleet.agent(name, **({"autostart": "False"} if name == "never" else {}))
    fleet.write()
    assert fleet.ctl("up").code == 0
    fleet.await_up("alpha", "beta", "gamma", "gone")
    assert fleet.ctl("park", "beta", "--waiting").code == 0
    assert fleet.ctl("stop", "gamma", "--waiting").code == 0
    assert fleet.ctl("rm", "gone", "--waiting").code == 0
    sections = {name: fleet.sections.pop(f"watcher:{name}") for name in ("beta", "gamma", "never", "gone")}
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    found = lines(fleet)
    assert level(found, "undeclared") == "warn"
    assert found["undeclared"][0]["finding"].endswith(": beta (parked), gamma (stopped)")
    fleet.sections["watcher:beta"] = sections["beta"]
    fleet.write()
    assert fleet.ctl("reloadconfig").code == 0
    assert lines(fleet)["undeclared"][0]["finding"].endswith(": gamma (stopped)")
    assert fleet.view("beta")["phase"] == "parked"
    assert fleet.ctl("purge", "gamma").code == 0
    assert level(lines(fleet), "undeclared") == "ok"
    assert fleet.ctl("down").code == 0


def test_a_circusd_that_does_not_answer_and_a_broken_store_are_failures(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    pid = fleet.ctl("--json", "up").json()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = lines(fleet)
        assert level(found, "circusd") == "fail"
        assert f"pid {pid} does not answer" in found["circusd"][0]["finding"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert fleet.ctl("down").code == 0
    for name in ("failover.db", "failover.db-wal", "failover.db-shm"):
        (fleet.state / name).unlink(missing_ok=True)
    (fleet.state / "failover.db").write_bytes(b"this is no database" * 1000)
    found = lines(fleet)
    assert level(found, "store") == "fail"
    assert "recover" in found["store"][0]["remedy"]


def test_without_a_circus_ini_the_running_circusd_tells_which(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    assert fleet.ctl("up").code == 0
    ini = fleet.ini
    fleet.folder, folder = fleet.work, fleet.folder
    try:
        found = lines(fleet)
    finally:
        fleet.folder = folder
    assert level(found, "settings") == "ok"
    assert str(ini) in found["settings"][0]["finding"]
    assert fleet.ctl("down").code == 0


def test_the_place_of_this_very_process_can_be_read() -> None:
    if sys.platform.startswith("linux"):
        assert doctor_systemd.place_of(os.getpid()) is not None
    assert doctor_systemd.place_of(2**22 + 1) is None


def test_systemctl_that_hangs_or_lies_is_unknown(tmp_path: Path, monkeypatch: Any) -> None:
    place = doctor_systemd.Place("circus.service")
    program = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for script in ("exec sleep 60", "echo KillMode=process; exit 1", "echo nonsense", "echo KillMode="):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert doctor_systemd.unit_settings(place, timeout=0.5) is None
    program.write_text('#!/bin/sh\necho "KillMode=control-group"\necho "OOMPolicy=stop"\necho "$@" >&2\n')
    assert doctor_systemd.unit_settings(place) == {"KillMode": "control-group", "OOMPolicy": "stop"}
