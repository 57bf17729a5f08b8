"""`up` and `down`: one circusd however many ask for it, and agents that outlive every way it can end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from circus_failover import process_table, state_dir
from circus_failover.process_table import ProcessId
from circus_failover.state_dir import StateDir
from tests.live.fleet import BIN, Fleet, Result, alive, wait_for


def up(fleet: Fleet, *arguments: str) -> int:
    """Run `up`, which must succeed, and return circusd's pid."""
    done = fleet.ctl("--json", "up", *arguments)
    assert done.code == 0, done
    return int(done.json()["circusd"]["pid"])


def circusd(pid: int) -> ProcessId:
    process = process_table.identify(pid)
    assert process is not None
    return process


def kill(process: ProcessId, number: signal.Signals) -> None:
    assert process_table.send(process, number)


def halt(process: ProcessId) -> None:
    """Stop a process, and wait until it is: until then it takes another signal first."""
    kill(process, signal.SIGSTOP)
    wait_for("it is stopped", lambda: (stat := process_table.read(process.pid)) and stat.run_state == "T")


def gone(process: ProcessId) -> None:
    wait_for(f"circusd pid {process.pid} is gone", lambda: not process_table.alive(process))


def test_up_waits_until_every_agent_has_settled_and_shows_the_fleet(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False")
    # Up is what has run for so long: its script may be stopped anywhere before it fails.
    fleet.agent("gamma", failover__command="/nonexistent/program", failover__ready_secs="30")
    fleet.agent("delta", failover__nonsense="1")
    fleet.write()
    done = fleet.ctl("up")
    assert done.code == 0, done
    rows = {line.split()[0]: line.split()[1] for line in done.out.splitlines() if line[:1].islower()}
    assert rows | {"circusd": "runs"} == {
        "circusd": "runs",
        "alpha": "up",
        "beta": "down",
        "gamma": "down",
        "delta": "refused",
    }
    assert "warning: " in done.err and "failover.nonsense" in done.err
    assert fleet.ctl("down").code == 0


def test_a_second_up_says_already_running_and_starts_nothing(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    pid = up(fleet)
    again = fleet.ctl("up", str(fleet.ini))
    assert (again.code, again.out) == (0, f"already running (pid {pid})\n")
    answer = fleet.ctl("--json", "up").json()
    assert (answer["already_running"], answer["pid"]) == (True, pid)
    assert fleet.view("alpha")["generation"] == 1
    assert fleet.ctl("down").code == 0


def test_two_ups_that_race_give_one_circusd(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    racing = [
        subprocess.Popen(
            [str(BIN / "failoverctl"), "up"],
            env=fleet.environment,
            cwd=fleet.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    results = []
    for one in racing:
        out, err = one.communicate(timeout=60)
        results.append(Result(one.returncode, out, err))
    assert [result.code for result in results] == [0, 0, 0, 0], results
    winners = [result for result in results if result.out.startswith("circusd runs (pid ")]
    losers = [result for result in results if result.out.startswith("already running (pid ")]
    assert (len(winners), len(losers)) == (1, 3), results
    pids = {result.out.partition("pid ")[2].partition(")")[0] for result in results}
    assert len(pids) == 1
    assert fleet.await_up("alpha")[0]["generation"] == 1
    assert fleet.ctl("down").code == 0


def test_up_runs_circusd_apart_from_its_terminal_and_from_the_agent_that_called_it(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    fleet.environment.update(TMUX="/tmp/nowhere,1,0", TMUX_PANE="%9", FAILOVER_IDENTITY="eve")
    fleet.environment["FAILOVER_GENERATION"] = "7"
    pid = up(fleet)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    carried = process_table.environ(pid) or frozenset()
    names = {entry.partition(b"=")[0] for entry in carried}
    assert not names & {b"TMUX", b"TMUX_PANE", b"FAILOVER_IDENTITY", b"FAILOVER_GENERATION"}
    log = fleet.state / "circusd.log"
    assert "Starting master" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert fleet.ctl("down").code == 0


def test_down_leaves_every_agent_alive_and_up_adopts_them(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta")
    fleet.write()
    first = up(fleet)
    before = {view["identity"]: view for view in fleet.await_up("alpha", "beta")}
    done = fleet.ctl("down")
    assert (done.code, done.out) == (0, f"circusd (pid {first}) stopped; 2 agents live on\n")
    assert not alive(first)
    assert state_dir.holder(StateDir(fleet.state)) is None
    assert all(alive(view["pid"]) for view in before.values())
    again = fleet.ctl("--json", "down")
    assert again.json() == {
        "status": "ok",
        "stopped": False,
        "pid": None,
        "agents_alive": ["alpha", "beta"],
    }
    second = up(fleet)
    assert second != first
    for view in fleet.await_up("alpha", "beta"):
        was = before[view["identity"]]
        assert (view["pid"], view["generation"]) == (was["pid"], was["generation"])
    assert fleet.ctl("down", str(fleet.ini)).code == 0


def test_up_after_a_sigkill_of_circusd_adopts_the_agents(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    process = circusd(up(fleet))
    (was,) = fleet.await_up("alpha")
    kill(process, signal.SIGKILL)
    gone(process)
    assert alive(was["pid"])
    assert up(fleet) != process.pid
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
    assert fleet.ctl("down").code == 0


def pending(pid: int, number: signal.Signals) -> bool:
    """Say whether a signal waits for a stopped process (proc(5), ShdPnd)."""
    (mask,) = (
        int(line.split()[1], 16)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("ShdPnd")
    )
    return bool(mask & 1 << number - 1)


def test_a_stop_as_systemd_does_it_with_killmode_process_leaves_the_agents(fleet: Fleet) -> None:
    """systemd.kill(5): SIGTERM to the main process alone, and after TimeoutStopSec SIGKILL to it alone."""
    fleet.agent("alpha")
    fleet.write()
    process = circusd(up(fleet))
    (was,) = fleet.await_up("alpha")
    kill(process, signal.SIGTERM)
    gone(process)
    assert alive(was["pid"])

    process = circusd(up(fleet))
    halt(process)  # so that SIGTERM has no effect and the second step is needed
    kill(process, signal.SIGTERM)
    wait_for("SIGTERM is pending", lambda: pending(process.pid, signal.SIGTERM))
    assert process_table.alive(process)
    kill(process, signal.SIGKILL)
    gone(process)
    assert alive(was["pid"])

    up(fleet)
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
    assert fleet.ctl("down").code == 0


def test_a_circusd_that_dies_at_once_is_told_with_the_end_of_its_log(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    fleet.ini.write_text(
        fleet.ini.read_text().replace("[circus]", f"[circus]\npidfile = {fleet.folder}/no/such/folder/pid")
    )
    done = fleet.ctl("up")
    assert done.code == 3
    assert "circusd ended at once" in done.err
    assert "no/such/folder" in done.err
    assert "failoverctl: " in done.err.splitlines()[0]


def test_another_program_on_the_endpoint_is_not_made_deaf(fleet: Fleet) -> None:
    fleet.watcher("plain", "sleep 1000")
    fleet.start()
    fleet.agent("alpha")
    fleet.write()
    done = fleet.ctl("up")
    assert done.code == 3
    assert fleet.endpoint in done.err
    assert fleet.call("numwatchers")["status"] == "ok"


def test_a_state_directory_held_by_another_fleet_is_refused_by_up_and_down(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    pid = up(fleet)
    other = fleet.folder / "other.ini"
    text = fleet.ini.read_text().replace(fleet.endpoint, f"{fleet.endpoint}2")
    other.write_text(text.replace(fleet.pubsub, f"{fleet.pubsub}2"))
    for verb in ("up", "down"):
        done = fleet.ctl(verb, str(other))
        assert done.code == 3, done
        assert f"circusd pid {pid} of {fleet.ini}" in done.err
    assert alive(pid)
    assert fleet.ctl("down").code == 0


def test_a_circusd_that_does_not_answer_is_named_with_what_to_do(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    process = circusd(up(fleet))
    (was,) = fleet.await_up("alpha")
    halt(process)
    try:
        done = fleet.ctl("up", "--timeout-secs", "2")
        assert done.code == 3, done
        assert f"circusd pid {process.pid} holds" in done.err
        assert f"kill -KILL {process.pid}" in done.err
    finally:
        kill(process, signal.SIGCONT)
    assert fleet.ctl("down").code == 0
    assert alive(was["pid"])


def test_down_ends_a_deaf_circusd_by_signal(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    process = circusd(up(fleet))
    (was,) = fleet.await_up("alpha")
    Path(fleet.endpoint.removeprefix("ipc://")).unlink()
    done = fleet.ctl("down")
    assert done.code == 0, done
    assert f"circusd (pid {process.pid}) stopped; 1 agent lives on" in done.out
    assert not process_table.alive(process)
    assert alive(was["pid"])


def test_down_works_by_the_endpoint_alone_and_with_a_broken_failover_yaml(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    first = up(fleet)
    fleet.await_up("alpha")
    done = fleet.ctl("--endpoint", fleet.endpoint, "down")
    assert (done.code, done.out) == (0, f"circusd (pid {first}) stopped; 1 agent lives on\n")
    second = up(fleet)
    fleet.yaml.write_text("state_dir: [")
    done = fleet.ctl("down", str(fleet.ini))
    assert (done.code, done.out) == (0, f"circusd (pid {second}) stopped; 1 agent lives on\n")


def test_up_says_which_agents_take_longer_than_it_waits(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__ready_secs="60")
    fleet.write()
    # circusd has to be there before it is over, too.
    done = fleet.ctl("up", "--timeout-secs", "8")
    assert done.code == 1
    assert "not settled: alpha" in done.err
    assert fleet.view("alpha")["phase"] == "starting"
    assert fleet.ctl("down").code == 0


def test_relative_endpoints_and_log_are_below_the_ini_wherever_up_is_called(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.write()
    text = fleet.ini.read_text().replace(fleet.endpoint, "ipc://ctl").replace(fleet.pubsub, "ipc://pub")
    fleet.ini.write_text(text.replace("[circus]", "[circus]\nlogoutput = own.log"))
    elsewhere = fleet.folder / "elsewhere"
    elsewhere.mkdir()
    for verb in ("up", "down"):
        done = subprocess.run(
            [str(BIN / "failoverctl"), verb, str(fleet.ini)],
            env={**fleet.environment, "CIRCUSCTL_ENDPOINT": "ipc:///nonexistent"},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done
    assert "Starting master" in (fleet.folder / "own.log").read_text()
    assert not list(elsewhere.iterdir())
