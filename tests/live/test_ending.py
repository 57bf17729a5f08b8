"""Deliberate ends: intent first, the agent's own processes and nobody else's, and what follows after."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from circus_failover import process_table, tmux
from circus_failover.records import ActionRow
from tests.live.fleet import BIN, STANDIN, Fleet, alive, remove, wait_for

SLOW = f"{STANDIN} --ignore-term"


def latest_action(fleet: Fleet, name: str) -> ActionRow | None:
    with fleet.store() as store:
        found = store.actions(name, 1)
    return found[0] if found else None


def spawned(fleet: Fleet, name: str, kind: str) -> int:
    """Have the stand-in start a child or a daemon, and return its pid."""
    fleet.type(name, f"/{kind} 600")
    shown = wait_for(f"a {kind}", lambda: re.search(rf"^{kind} (\d+)", fleet.screen(name), re.MULTILINE))
    pid = int(shown[1])
    assert alive(pid)
    return pid


def by_hand(fleet: Fleet, socket: Path, session: str) -> None:
    """Make a tmux session as an operator does."""
    subprocess.run(
        ["tmux", "-S", str(socket), "-f", "/dev/null", "new-session", "-d", "-s", session, "sleep 600"],
        env=fleet.environment,
        check=True,
    )


def stubborn(fleet: Fleet, name: str = "bob", **options: str) -> int:
    """Describe, start and await an agent that only SIGKILL ends; return its pid."""
    fleet.agent(name, failover__command=SLOW, **options)
    fleet.start()
    (view,) = fleet.await_up(name)
    fleet.await_screen(name, "standin ready")
    return int(view["pid"])


def halted_worker(fleet: Fleet) -> int:
    """Stop the worker that ends `bob` as soon as it is there: what comes next, it has not done yet."""
    pid = wait_for("a worker", lambda: (a := latest_action(fleet, "bob")) and a.worker_pid)
    os.kill(pid, signal.SIGSTOP)
    return pid


# -- the intent, and what `stopped` means --------------------------------------------------------------


def test_the_intent_is_stored_before_anything_is_signalled(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="60")
    assert fleet.call("stop", name="bob", by="ann@desk")["status"] == "ok"
    # The verb answers at once, and by then the row is there, while the agent still runs.
    action = latest_action(fleet, "bob")
    assert action is not None and action.done_at is None
    assert (action.intent, action.who, action.generation) == ("stop", "ann@desk", 1)
    assert action.spec["agent"][0] == pid
    assert alive(pid)
    assert fleet.view("bob")["phase"] == "stopping"
    os.kill(pid, signal.SIGKILL)  # it need not be waited for how it ends
    view = fleet.await_phase("bob", "stopped")
    assert view["pid"] is None and view["cause"] == "operator-stop"
    action = latest_action(fleet, "bob")
    assert action is not None and action.done_at is not None and action.outcome == "ended"
    with fleet.store() as store:
        (launch,) = store.launches("bob")
    assert (launch.planned, launch.end_cause) == (True, "operator-stop")
    assert [r["who"] for r in fleet.lifecycle() if r["ev"] == "stop"] == ["ann@desk"]


PHASES = {
    "up": "up",
    "starting": "starting",
    "down": "down",
    "refused": "refused",
    "launch-failed": "down",
    "never-started": "down",
}
"""An agent of this name is brought into the phase that is shown of it."""


def in_every_phase(fleet: Fleet) -> dict[str, int]:
    """Start a fleet with an agent for each of PHASES, in it; return the pids of those that have one."""
    (fleet.folder / "home").mkdir()
    fleet.settings.update(
        # Not strict: who has no account has nothing to be refused for.
        shared={"root": str(fleet.folder / "shared"), "links": ["projects"], "strict": False},
        accounts=[{"name": "one", "runtime": "command", "home": str(fleet.folder / "home")}],
    )
    fleet.agent("up")
    fleet.agent("starting", failover__ready_secs="60")
    fleet.agent("down")
    fleet.agent("refused", failover__account="one")
    # Up is what has run for so long: its script may be stopped anywhere before it fails.
    fleet.agent("launch-failed", failover__command="/nonexistent/agent", failover__ready_secs="30")
    fleet.agent("never-started", autostart="False")
    fleet.start()
    pids = {view["identity"]: int(view["pid"]) for view in fleet.await_up("up", "down")}
    os.kill(pids["down"], signal.SIGKILL)
    pids["starting"] = wait_for("a pid", lambda: fleet.view("starting")["pid"])
    wait_for("a cause", lambda: fleet.view("launch-failed")["cause"] == "launch-failed")
    for name, shown in PHASES.items():
        fleet.await_phase(name, shown)
        if shown not in ("up", "starting"):
            fleet.await_watcher(name, "stopped")
    return pids


def test_stop_makes_it_stopped_whatever_its_phase_was_and_start_clears_it(fleet: Fleet) -> None:
    pids = in_every_phase(fleet)
    for name in PHASES:
        assert fleet.ctl("stop", name, "--waiting").code == 0, name
        view = fleet.view(name)
        assert (view["phase"], view["cause"], view["pid"]) == ("stopped", "operator-stop", None), name
        assert fleet.call("status", name=name)["status"] == "stopped", name
        assert name not in pids or not alive(pids[name]), name
    was = {name: (fleet.view(name)["phase"], fleet.view(name)["generation"]) for name in PHASES}

    fleet.end()
    fleet.start()
    assert {fleet.view(name)["phase"] for name in PHASES} == {"stopped"}
    for name in PHASES:
        fleet.call("reload", name=name, waiting=True)
    assert fleet.circusd is not None
    fleet.circusd.send_signal(signal.SIGHUP)
    wait_for("the signal is taken", lambda: "SIG_HUP" in fleet.log.read_text())
    wait_for("circusd answers", lambda: fleet.view("up"))
    assert {name: (fleet.view(name)["phase"], fleet.view(name)["generation"]) for name in PHASES} == was

    for name in ("up", "down", "never-started"):
        done = fleet.ctl("--timeout", "20", "start", name)
        assert done.code == 0, (name, done)
        (now,) = fleet.await_up(name)
        assert now["generation"] == was[name][1] + 1, name
    for name, said in (("refused", "projects"), ("launch-failed", "")):
        done = fleet.ctl("--timeout", "20", "start", name)
        assert done.code == 3 and said in done.err, (name, done)
        assert fleet.view(name)["phase"] == PHASES[name]
    with fleet.store() as store:
        agents = store.agents()
    # Whoever was not started again stays stopped.
    assert {name for name in PHASES if agents[name].stay_stopped} == {"starting"}


def test_a_stop_of_an_agent_whose_keeper_was_just_lost_ends_it(fleet: Fleet) -> None:
    """Circus may have noticed that the keeper is gone, or not, or be about to start another one."""
    fleet.agent("bob", failover__command=SLOW, failover__stop_secs="0.2")
    fleet.start()
    for _ in range(3):
        (view,) = fleet.await_up("bob")
        os.kill(fleet.keeper("bob"), signal.SIGKILL)
        assert fleet.ctl("stop", "bob", "--waiting").code == 0
        assert not alive(view["pid"])
        assert fleet.view("bob")["phase"] == "stopped"
        assert fleet.call("status", name="bob")["status"] == "stopped"
        fleet.await_ticks()
        assert fleet.view("bob")["phase"] == "stopped"
        assert fleet.ctl("start", "bob").code == 0


def test_a_keeper_that_hangs_holds_nobody_up(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.agent("eve")
    fleet.start()
    bob, _ = fleet.await_up("bob", "eve")
    keeper = fleet.keeper("bob")
    os.kill(keeper, signal.SIGSTOP)
    fleet.call("stop", name="bob")
    wait_for("bob is gone", lambda: not alive(bob["pid"]))
    assert fleet.call("stop", name="eve", waiting=True)["status"] == "ok"
    fleet.await_watcher("bob", "stopped")
    wait_for("its keeper is gone", lambda: not alive(keeper))


def test_stopped_stays_stopped_over_restarts_of_circusd_however_it_ends(fleet: Fleet) -> None:
    fleet.agent("bob", failover__restart="always")
    fleet.agent("eve")
    fleet.start()
    fleet.await_up("bob", "eve")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        fleet.end(number)
        fleet.start()
        fleet.await_up("eve")
        view = fleet.view("bob")
        assert (view["phase"], view["generation"]) == ("stopped", 1)
    assert fleet.ctl("reload", program="circusctl").code == 0
    fleet.await_up("eve")
    assert fleet.view("bob")["phase"] == "stopped"
    assert fleet.call("status", name="bob")["status"] == "stopped"


def test_stopping_twice_is_one_end(fleet: Fleet) -> None:
    stubborn(fleet, failover__stop_secs="1")
    fleet.call("stop", name="bob")
    fleet.call("stop", name="bob", waiting=True)
    fleet.call("stop", name="bob", waiting=True)
    with fleet.store() as store:
        assert len([a for a in store.actions("bob") if a.intent == "stop"]) == 1
        (launch,) = store.launches("bob")
    assert launch.planned
    assert fleet.view("bob")["phase"] == "stopped"


# -- stop_secs -----------------------------------------------------------------------------------------


def test_a_polite_agent_ends_by_sigterm_and_its_exit_status_is_kept(fleet: Fleet) -> None:
    fleet.agent("bob", failover__stop_secs="30")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    with fleet.store() as store:
        (launch,) = store.launches("bob")
    assert (launch.exit_status, launch.exit_signal) == (143, None)
    assert launch.last_output is not None and "standin ready" in launch.last_output
    wait_for("its server is gone", lambda: tmux.serves(fleet.socket("bob")) is False)


def test_a_stubborn_agent_is_killed_after_stop_secs_and_waiting_answers_when_it_is_gone(
    fleet: Fleet,
) -> None:
    pid = stubborn(fleet, failover__stop_secs="2.5")
    begun = time.monotonic()
    done = fleet.ctl("stop", "bob", "--waiting")
    took = time.monotonic() - begun
    assert done.code == 0
    assert not alive(pid)
    assert took >= 2.5
    assert "stopped" in done.out
    (stopped,) = [r for r in fleet.lifecycle() if r["ev"] == "stopped"]
    assert stopped["killed"] == "1" and float(stopped["secs"]) >= 2.5
    with fleet.store() as store:
        (launch,) = store.launches("bob")
    assert launch.exit_signal == signal.SIGKILL


def test_a_shell_that_ignores_sigterm_is_hung_up(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command="/bin/bash --norc -i", failover__stop_secs="20")
    fleet.start()
    fleet.await_up("bob")
    wait_for("it prompts, and ignores SIGTERM by then", lambda: fleet.screen("bob").strip())
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    (stopped,) = [r for r in fleet.lifecycle() if r["ev"] == "stopped"]
    assert stopped["killed"] == "0"


def test_what_an_agent_starts_when_it_is_asked_to_end_ends_too(fleet: Fleet) -> None:
    pids = fleet.folder / "late"
    script = fleet.folder / "agent.sh"
    script.write_text(
        f"trap '' HUP; trap 'setsid sleep 600 & echo $! >{pids}; exit 0' TERM\n"
        "echo ready; while :; do sleep 0.1; done\n"
    )
    fleet.agent("bob", failover__command=f"/bin/sh {script}", failover__stop_secs="60")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "ready")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(int(pids.read_text()))


def test_an_end_gets_on_also_when_somebody_has_removed_the_folders_it_needs(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.state.chmod(0o750)
    for folder in ("run", "locks"):
        shutil.rmtree(fleet.state / folder)
    wait_for("the trouble", lambda: "0750" in str(fleet.call("fleet")["circusd"]["trouble"]))
    fleet.state.chmod(0o700)
    wait_for("no trouble", lambda: not fleet.call("fleet")["circusd"]["trouble"])
    assert fleet.ctl("restart", "bob").code == 0
    assert not alive(view["pid"])


def test_stop_secs_zero_kills_at_once(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="0")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(pid)
    (stopped,) = [r for r in fleet.lifecycle() if r["ev"] == "stopped"]
    assert stopped["killed"] == "1"


def test_a_stopped_process_of_an_agent_still_ends(fleet: Fleet) -> None:
    """SIGTERM waits while a process is stopped (SIGSTOP); only the kill reaches it."""
    pid = stubborn(fleet, failover__stop_secs="1")
    os.kill(pid, signal.SIGSTOP)
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(pid)


@pytest.mark.parametrize("program", ["failoverctl", "circusctl"])
def test_other_agents_are_served_while_one_ends(fleet: Fleet, program: str) -> None:
    fleet.agent("eve")
    fleet.agent("zoe", autostart="False")
    fleet.watcher("plain", "sleep 600")
    pid = stubborn(fleet, failover__stop_secs="120")
    fleet.await_up("eve")
    assert fleet.ctl("stop", "bob", program=program).code == 0
    waiting = subprocess.Popen(
        [str(BIN / "failoverctl"), "stop", "bob", "--waiting"],
        env=fleet.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for command, properties in (
            ("status", {"name": "bob"}),
            ("fleet", {}),
            ("explain", {"name": "bob"}),
            ("stop", {"name": "eve", "waiting": True}),
            ("start", {"name": "zoe", "waiting": True}),
            ("restart", {"name": "plain", "waiting": True}),
            ("stop", {"name": "plain", "waiting": True}),
        ):
            answer = fleet.call(command, **properties)
            assert answer["status"] != "error", (command, answer)
        assert alive(pid) and fleet.view("bob")["phase"] == "stopping"
        assert waiting.poll() is None
    finally:
        waiting.kill()
        waiting.wait()


def test_sigterm_to_circusd_is_served_while_an_agent_ends(fleet: Fleet) -> None:
    """The worker survives circusd, ends the agent, and the next circusd takes its report in."""
    pid = stubborn(fleet, failover__stop_secs="5")
    fleet.call("stop", name="bob")
    worker = halted_worker(fleet)
    fleet.end(signal.SIGTERM)
    assert alive(pid)
    os.kill(worker, signal.SIGCONT)
    wait_for("the agent is gone", lambda: not alive(pid))
    wait_for("the report waits", lambda: list((fleet.state / "spool").glob("*-ended.json")))
    fleet.start()
    view = fleet.await_phase("bob", "stopped")
    assert (view["generation"], view["cause"]) == (1, "operator-stop")
    wait_for("the spool is empty", lambda: not list((fleet.state / "spool").glob("*.json")))


def test_quit_is_served_while_an_agent_ends(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="5")
    fleet.call("stop", name="bob")
    worker = halted_worker(fleet)
    assert fleet.ctl("quit", program="circusctl").code == 0
    assert fleet.circusd is not None and fleet.circusd.wait(20) == 0
    assert alive(pid)
    os.kill(worker, signal.SIGCONT)
    wait_for("the agent is gone", lambda: not alive(pid))


def test_a_start_in_between_waits_for_the_end_and_then_launches(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="2")
    fleet.call("stop", name="bob")
    done = fleet.ctl("start", "bob")
    assert done.code == 0, done
    assert not alive(pid)
    view = fleet.view("bob")
    assert (view["phase"], view["generation"]) == ("up", 2) and view["pid"] != pid
    with fleet.store() as store:
        assert not store.agents()["bob"].stay_stopped
        second, first = store.launches("bob")
    assert first.ended_at is not None and first.ended_at <= second.started_at


def test_waiting_answers_also_when_a_start_follows_at_once(fleet: Fleet) -> None:
    stubborn(fleet, failover__stop_secs="4")
    stop = subprocess.Popen(
        [str(BIN / "failoverctl"), "stop", "bob", "--waiting"],
        env=fleet.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("the intent", lambda: latest_action(fleet, "bob"))
        assert fleet.ctl("start", "bob").code == 0
        assert stop.wait(10) == 0
    finally:
        stop.kill()
        stop.wait()
    assert fleet.view("bob")["generation"] == 2


def test_twenty_stops_run_side_by_side(fleet: Fleet) -> None:
    names = [f"agent-{number:02d}" for number in range(20)]
    trap = """sh -c "trap '' TERM HUP; echo ready; while read line; do :; done" """.strip()
    for name in names:
        fleet.agent(name, failover__command=trap, failover__stop_secs="120")
    fleet.start()
    pids = [view["pid"] for view in fleet.await_up(*names)]
    for name in names:
        fleet.await_screen(name, "ready")

    def at_it() -> bool:
        with fleet.store() as store:
            workers = [one.worker for one in store.open_actions()]
        return len(workers) == 20 and all(one is not None and process_table.alive(one) for one in workers)

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(fleet.ctl, "stop", "agent-*", "--waiting")
        # Each has its own worker, and none of them has ended its agent: so nobody waits for another one.
        wait_for("a worker is at each of them", at_it)
        assert all(alive(pid) for pid in pids) and not stopping.done()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        done = stopping.result()
    assert done.code == 0, done
    assert len([r for r in fleet.lifecycle() if r["ev"] == "stopped"]) == 20
    assert {fleet.view(name)["phase"] for name in names} == {"stopped"}


def test_plain_circusctl_stops_and_starts_an_agent(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="0.5")
    # Its client gives up after 5 s unless it is told otherwise.
    assert fleet.ctl("--timeout", "60", "stop", "bob", "--waiting", program="circusctl").code == 0
    assert not alive(pid)
    assert fleet.view("bob")["phase"] == "stopped"
    assert fleet.ctl("status", "bob", program="circusctl").out.strip() == "stopped"
    assert fleet.ctl("start", "bob", program="circusctl").code == 0
    fleet.await_up("bob")


# -- what belongs to an agent, and what does not -------------------------------------------------------


@pytest.fixture
def bystanders(fleet: Fleet) -> Iterator[list[int]]:
    """Processes that look like an agent's but are not: its name, its folder, its command."""
    environment = {**fleet.environment, "FAILOVER_IDENTITY": "bob", "FAILOVER_GENERATION": "7"}
    started = [
        subprocess.Popen(["sleep", "600"], cwd=fleet.work),
        subprocess.Popen(["bob", "600"], executable="/bin/sleep", cwd=fleet.work),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "bob"], cwd=fleet.work),
        subprocess.Popen(["sleep", "600"], env=environment),
        subprocess.Popen(["sleep", "600"], env={**fleet.environment, "FAILOVER_IDENTITY": "bob2"}),
    ]
    yield [process.pid for process in started]
    for process in started:
        process.kill()
        process.wait()


def test_its_children_and_daemons_end_with_it_and_look_alikes_live_on(
    fleet: Fleet, bystanders: list[int]
) -> None:
    fleet.agent("bob")
    fleet.agent("bob2")
    fleet.start()
    (second,) = fleet.await_up("bob2")
    fleet.await_screen("bob2", "standin ready")
    other = spawned(fleet, "bob2", "daemon")
    for how in ("restart", "stop", "killed", "rm"):
        (first,) = fleet.await_up("bob")
        fleet.await_screen("bob", "standin ready")
        child, daemon = spawned(fleet, "bob", "child"), spawned(fleet, "bob", "daemon")
        if how == "killed":
            os.kill(first["pid"], signal.SIGKILL)
            fleet.await_phase("bob", "down")
        else:
            assert fleet.ctl(how, "bob", *(["--waiting"] if how != "restart" else [])).code == 0, how
        of_it = (first["pid"], child, daemon)
        wait_for(f"its processes have ended: {how}", lambda of_it=of_it: not any(alive(pid) for pid in of_it))
        assert all(alive(pid) for pid in (second["pid"], other, *bystanders)), how
        assert fleet.view("bob2")["phase"] == "up", how
        if how in ("stop", "killed"):
            assert fleet.ctl("start", "bob").code == 0, how


@pytest.fixture
def other_fleet() -> Iterator[Fleet]:
    """A second circusd of the same user, with a state directory of its own."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    made = Fleet(folder)
    yield made
    made.close()
    remove(folder)


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_an_agent_of_another_fleet_with_the_same_name_and_generation_lives_on(
    fleet: Fleet, other_fleet: Fleet, verb: str
) -> None:
    fleet.agent("bob")
    other_fleet.agent("bob")
    fleet.start()
    other_fleet.start()
    fleet.await_up("bob")
    (theirs,) = other_fleet.await_up("bob")
    other_fleet.await_screen("bob", "standin ready")
    daemon = spawned(other_fleet, "bob", "daemon")
    done = fleet.ctl(verb, "bob", *(["--waiting"] if verb == "stop" else []))
    assert done.code == 0, done
    assert alive(theirs["pid"]) and alive(daemon)
    assert other_fleet.view("bob")["phase"] == "up"


def test_an_agent_touches_neither_its_neighbours_nor_strangers_in_a_shared_server(fleet: Fleet) -> None:
    socket = fleet.folder / "shared.sock"
    fleet.agent("bob", failover__socket=str(socket))
    fleet.agent("bob2", failover__socket=str(socket))
    for name in ("bo", "bob-notes"):
        by_hand(fleet, socket, name)
    foreign = [pane.pid for name in ("bo", "bob-notes") for pane in tmux.panes(socket, name)]
    fleet.start()
    first, second = fleet.await_up("bob", "bob2")
    server = tmux.server_pid(socket)
    assert first["server_pid"] == second["server_pid"] == server
    for verb in ("restart bob", "stop bob --waiting", "start bob", "rm bob --waiting"):
        done = fleet.ctl(*verb.split())
        assert done.code == 0, done
        assert fleet.view("bob2")["pid"] == second["pid"] and alive(second["pid"])
        assert all(alive(pid) for pid in foreign)
        assert tmux.server_pid(socket) == server
    assert sorted(tmux.sessions(socket)) == ["bo", "bob-notes", "bob2"]


def test_the_first_agent_of_a_shared_server_started_that_server_and_ends_without_it(fleet: Fleet) -> None:
    """The server inherits the first agent's variables, and is nobody's process."""
    socket = fleet.folder / "shared.sock"
    fleet.agent("bob", failover__socket=str(socket))
    fleet.agent("bob2", failover__socket=str(socket), autostart="False")
    fleet.start()
    fleet.await_up("bob")
    assert fleet.ctl("start", "bob2").code == 0
    (second,) = fleet.await_up("bob2")
    server = tmux.server_pid(socket)
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    assert tmux.server_pid(socket) == server
    assert alive(second["pid"])
    assert tmux.sessions(socket) == ["bob2"]


# -- restart and rm ------------------------------------------------------------------------------------


def test_restart_brings_it_back_as_a_new_launch(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (was,) = fleet.await_up("bob")
    done = fleet.ctl("restart", "bob")
    assert done.code == 0 and "up" in done.out
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2 and now["pid"] != was["pid"]
    assert not alive(was["pid"])
    with fleet.store() as store:
        second, first = store.launches("bob")
    assert (first.planned, first.end_cause) == (True, "operator-restart")
    assert second.ended_at is None


def test_restart_of_a_stopped_agent_starts_it(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.ctl("stop", "bob", "--waiting")
    assert fleet.ctl("restart", "bob").code == 0
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2
    with fleet.store() as store:
        assert not store.agents()["bob"].stay_stopped


@pytest.mark.parametrize("program", ["failoverctl", "circusctl"])
def test_a_stop_overtakes_a_restart_under_way(fleet: Fleet, program: str) -> None:
    pid = stubborn(fleet, failover__stop_secs="60")
    restart = subprocess.Popen(
        [str(BIN / "failoverctl"), "restart", "bob"],
        env=fleet.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("the intent", lambda: (a := latest_action(fleet, "bob")) and a.intent == "restart")
        assert fleet.ctl("stop", "bob", program=program).code == 0
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)  # it need not be waited for how it ends
        fleet.await_phase("bob", "stopped")
        assert restart.wait(20) != 0
        view = fleet.view("bob")
        assert (view["phase"], view["generation"]) == ("stopped", 1)
    finally:
        restart.kill()
        restart.wait()


def test_rm_ends_the_agent_and_removes_its_watcher_and_its_history_stays(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="0.5")
    fleet.agent("eve")
    done = fleet.ctl("rm", "bob", "--waiting")
    assert done.code == 0, done
    assert not alive(pid)
    assert "bob" not in fleet.call("list")["watchers"]
    assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == []
    with fleet.store() as store:
        row = store.agents()["bob"]
        (launch,) = store.launches("bob")
        assert [entry["ev"] for entry in store.history("bob")][0] == "removed"
    assert row.declared is False
    assert (launch.planned, launch.end_cause) == (True, "removed")
    wait_for("its server is gone", lambda: tmux.serves(fleet.socket("bob")) is False)


@pytest.mark.parametrize("phase", ["stopped", "never started"])
def test_rm_of_an_agent_that_does_not_run(fleet: Fleet, phase: str) -> None:
    fleet.agent("bob", autostart="False" if phase == "never started" else "True")
    fleet.agent("eve")
    fleet.start()
    fleet.await_up("eve")
    if phase == "stopped":
        fleet.await_up("bob")
        fleet.ctl("stop", "bob", "--waiting")
    done = fleet.ctl("rm", "bob", "--waiting")
    assert done.code == 0, done
    assert fleet.call("list")["watchers"] == ["eve"]


def test_rm_nostop_leaves_the_agent_alive(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.agent("eve")
    fleet.start()
    bob, _ = fleet.await_up("bob", "eve")
    done = fleet.ctl("rm", "bob", "--nostop")
    assert done.code == 0, done
    wait_for("the watcher is gone", lambda: fleet.call("list")["watchers"] == ["eve"])
    assert alive(bob["pid"])
    assert tmux.sessions(fleet.socket("bob")) == ["bob"]
    with fleet.store() as store:
        (launch,) = store.launches("bob")
    assert launch.ended_at is None
    # The section is still in circus.ini: the next circusd adopts it as it is.
    fleet.end()
    fleet.start()
    (again,) = fleet.await_up("bob")
    assert (again["pid"], again["generation"]) == (bob["pid"], 1)


# -- deaths --------------------------------------------------------------------------------------------


def _explained(fleet: Fleet, cause: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = fleet.call("explain", name="bob")
        return found if found["agent"]["cause"] == cause else None

    return wait_for(f"explain says {cause}", look)


def _generations_stay(fleet: Fleet, name: str, generation: int, checks: int = 4) -> None:
    """Nothing brings it back over several of circusd's check_delays (0.5 s each) and ticks (1 s each)."""
    ticks = set[float]()

    def ticked() -> bool:
        answer = fleet.call("fleet")
        ticks.add(answer["circusd"]["last_tick"])
        (view,) = [agent for agent in answer["agents"] if agent["identity"] == name]
        assert (view["generation"], view["phase"]) == (generation, "down")
        return len(ticks) > checks

    wait_for("several ticks", ticked)


def test_an_agent_killed_by_a_signal_is_down_at_once_with_that_signal(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    os.kill(view["pid"], signal.SIGKILL)
    fleet.await_phase("bob", "down")
    told = _explained(fleet, "signaled")
    launch = told["launches"][0]
    assert (launch["end_cause"], launch["exit_signal"], launch["planned"]) == ("signaled", 9, False)
    assert "signal 9" in told["agent"]["reason"]
    (exit_line,) = fleet.exits()
    assert (exit_line["cause"], exit_line["dead_signal"], exit_line["identity"]) == ("signaled", "9", "bob")
    assert exit_line["ev"] == "session-exit"
    assert "signaled" in fleet.ctl("history", "bob").out
    fleet.await_watcher("bob", "stopped")
    _generations_stay(fleet, "bob", 1)
    wait_for("its server is gone", lambda: tmux.serves(fleet.socket("bob")) is False)


@pytest.mark.parametrize("code", [0, 7])
def test_an_agent_that_exits_is_down_with_its_exit_status(fleet: Fleet, code: int) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    fleet.type("bob", f"/crash {code}" if code else "/exit")
    told = _explained(fleet, "exited")
    assert told["agent"]["phase"] == "down"
    launch = told["launches"][0]
    assert (launch["exit_status"], launch["exit_signal"], launch["planned"]) == (code, None, False)
    if code:
        assert "crashed on request" in launch["last_output"]
    assert [line["dead_status"] for line in fleet.exits()] == [str(code)]
    fleet.await_watcher("bob", "stopped")
    _generations_stay(fleet, "bob", 1)


def test_a_killed_server_is_a_lost_server_and_nothing_comes_back(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    os.kill(view["server_pid"], signal.SIGKILL)
    told = _explained(fleet, "server-lost")
    assert told["agent"]["phase"] == "down"
    # Without the canary nobody knows how it ended.
    (line,) = fleet.exits()
    assert (line["ev"], line["cause"], line["status"]) == ("server-exit", "unknown", "unknown")
    assert (line["identity"], line["server_pid"]) == ("bob", str(view["server_pid"]))
    _generations_stay(fleet, "bob", 1)
    fleet.await_watcher("bob", "stopped")
    assert fleet.ctl("start", "bob").code == 0
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2
    assert not alive(view["pid"])


def test_what_outlives_its_lost_server_is_ended_before_the_next_launch(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="0.5")
    os.kill(fleet.view("bob")["server_pid"], signal.SIGKILL)
    # That it is gone may be seen before it is known that its server was gone first.
    assert _explained(fleet, "server-lost")["agent"]["phase"] == "down"
    assert fleet.ctl("start", "bob").code == 0
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2
    assert not alive(pid)


def test_a_survivor_of_a_lost_server_is_ended_by_stop(fleet: Fleet) -> None:
    pid = stubborn(fleet, failover__stop_secs="0.5")
    os.kill(fleet.view("bob")["server_pid"], signal.SIGKILL)
    fleet.await_phase("bob", "down")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    assert not alive(pid)


@pytest.mark.parametrize("command", ["kill-session", "kill-server"])
def test_a_session_closed_by_hand_is_an_unplanned_end(fleet: Fleet, command: str) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    arguments = [command, *(["-t", "=bob"] if command == "kill-session" else [])]
    tmux.run(fleet.socket("bob"), arguments)
    view = fleet.await_phase("bob", "down")
    told = wait_for(
        "a settled cause",
        lambda: (e := fleet.call("explain", name="bob"))["agent"]["cause"] != "ended-unknown" and e,
    )
    assert told["agent"]["cause"] in ("session-gone", "exited", "signaled", "server-lost")
    assert told["launches"][0]["planned"] is False
    assert view["generation"] == 1
    wait_for("one line in exits.log", lambda: len(fleet.exits()) == 1)
    _generations_stay(fleet, "bob", 1)


@pytest.mark.parametrize("how", ["agent", "server"])
def test_a_death_while_circusd_is_down_is_recorded_at_its_next_start(fleet: Fleet, how: str) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.end(signal.SIGKILL)
    os.kill(view["pid" if how == "agent" else "server_pid"], signal.SIGKILL)
    wait_for("the agent is gone", lambda: not alive(view["pid"]))
    fleet.start()
    told = _explained(fleet, "signaled" if how == "agent" else "server-lost")
    assert (told["agent"]["phase"], told["agent"]["generation"]) == ("down", 1)
    assert told["launches"][0]["planned"] is False
    assert len(fleet.exits()) == 1
    _generations_stay(fleet, "bob", 1)


def test_an_agent_that_always_comes_back_does_so_at_circusd_s_next_start(fleet: Fleet) -> None:
    fleet.agent("bob", failover__restart="always")
    fleet.guard()
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.end(signal.SIGKILL)
    os.kill(view["pid"], signal.SIGKILL)
    wait_for("the agent is gone", lambda: not alive(view["pid"]))
    fleet.start()
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2
    with fleet.store() as store:
        second, first = store.launches("bob")
    assert (first.planned, first.end_cause) == (False, "signaled")
    assert second.cause == "restart-policy"
