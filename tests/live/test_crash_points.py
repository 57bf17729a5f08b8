"""Whatever dies at whatever moment of an end or a launch, the record and the processes come out right."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.process_table import ProcessId
from circus_failover.records import ActionRow, LaunchRow
from tests.live.fleet import STANDIN, Fleet, alive, wait_for

CIRCUSD_POINTS = ["intent-written", "worker-started", "report-taken-in"]
WORKER_POINTS = ["worker-before-signal", "worker-after-signal", "worker-before-report"]
VERBS = ["stop", "restart", "rm"]
CAUSES = {"stop": "operator-stop", "restart": "operator-restart", "rm": "removed"}
SLOW = f"{STANDIN} --ignore-term"


def each_with_some(points: list[str]) -> list[tuple[str, str]]:
    """Return every point with `stop`, and with one of the verbs that end an agent in the same way."""
    others = ("restart", "rm")
    return [("stop", point) for point in points] + [
        (others[number % 2], point) for number, point in enumerate(points)
    ]


def carrying(fleet: Fleet, name: str) -> list[ProcessId]:
    """Return every process of this fleet that carries an agent's name, of whichever launch."""
    mark = f"FAILOVER_IDENTITY={name}".encode()
    return [p for p in fleet.processes() if mark in (process_table.environ(p.pid) or frozenset())]


def copies(fleet: Fleet) -> list[int]:
    """Return the live stand-ins: more than one for one agent is the worst that can happen."""
    agents = set(fleet.running(b"circus_failover.standin"))
    return [pid for pid in agents if alive(pid)]


def workers(fleet: Fleet) -> list[int]:
    return fleet.running(b"circus_failover.worker")


def launches(fleet: Fleet, name: str = "bob") -> list[LaunchRow]:
    with fleet.store() as store:
        return store.launches(name)


def action(fleet: Fleet, name: str = "bob") -> ActionRow | None:
    with fleet.store() as store:
        found = store.actions(name, 1)
    return found[0] if found else None


def worker(fleet: Fleet) -> ProcessId:
    """Wait for a worker that runs, and return it."""

    def look() -> ProcessId | None:
        found = action(fleet)
        process = found.worker if found else None
        return process if process is not None and process_table.alive(process) else None

    return wait_for("a worker", look)


def relieved(fleet: Fleet, first: ProcessId, pid: int) -> None:
    """Wait for the worker that takes over from `first`, and spare it the grace that the agent has."""
    wait_for("another worker", lambda: (now := worker(fleet)) != first and process_table.alive(now))
    os.kill(pid, signal.SIGKILL)


def prepared(fleet: Fleet, crash_at: str | None = None, stop_secs: str = "0.4") -> tuple[int, int]:
    """Start `bob`, whom only SIGKILL ends, with a daemon; return both pids."""
    fleet.agent("bob", failover__command=SLOW, failover__stop_secs=stop_secs)
    fleet.start(crash_at=crash_at)
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    fleet.type("bob", "/daemon 600")
    shown = wait_for("a daemon", lambda: re.search(r"^daemon (\d+)", fleet.screen("bob"), re.MULTILINE))
    return int(view["pid"]), int(shown[1])


def settled(fleet: Fleet, verb: str, pid: int, daemon: int) -> None:
    """Everything that must hold in the end, whatever died on the way."""
    wait_for("the launch has ended", lambda: not alive(pid) and not alive(daemon))

    def done() -> bool:
        with fleet.store() as store:
            return not store.open_actions()

    wait_for("the intent is done", done)
    if verb == "restart":
        (view,) = fleet.await_up("bob")
        assert view["generation"] == 2
        # It is up once it has run for a moment: it may be its launch script still.
        wait_for("one copy", lambda: copies(fleet) == [view["pid"]])
    else:
        wait_for("no copy", lambda: not copies(fleet))
    if verb == "stop":
        view = fleet.await_phase("bob", "stopped")
        assert (view["generation"], view["pid"], view["cause"]) == (1, None, "operator-stop")
        fleet.await_watcher("bob", "stopped")
    if verb == "rm":
        shown = {agent["identity"]: agent["phase"] for agent in fleet.call("fleet")["agents"]}
        # Removed, or, since its section is in circus.ini, known to the next circusd and down.
        assert shown in ({}, {"bob": "down"})
    first = launches(fleet)[-1]
    assert (first.generation, first.planned, first.end_cause) == (1, True, CAUSES[verb])
    with fleet.store() as store:
        ends = [entry for entry in store.history("bob") if entry["ev"] == "stopped"]
        assert [a.outcome for a in store.actions("bob")] == ["ended"]
    assert len(ends) == 1
    wait_for("no worker", lambda: not workers(fleet))
    # tmux may report late, on its own, that the pane has died; a tick takes that in.
    wait_for("nothing waits in the spool", lambda: os.listdir(fleet.state / "spool") == ["wake.sock"])
    left = [path.name for path in (fleet.state / "run").iterdir() if path.name.startswith("action-")]
    assert left == []


# -- circusd dies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "point"), each_with_some(CIRCUSD_POINTS))
def test_circusd_dies_at_a_seam_of_an_end_and_the_next_one_finishes_it(
    fleet: Fleet, verb: str, point: str
) -> None:
    pid, daemon = prepared(fleet, crash_at=point)
    fleet.call("numwatchers")
    send(fleet, verb)
    fleet.crashed()
    found = action(fleet)
    assert found is not None and found.intent == verb
    fleet.start()
    settled(fleet, verb, pid, daemon)
    fleet.end()
    fleet.start()
    settled(fleet, verb, pid, daemon)


def send(fleet: Fleet, verb: str) -> None:
    """Send a verb over the endpoint without awaiting its answer, since circusd may die under it."""
    import json

    import zmq

    context = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 5000)
    socket.connect(fleet.endpoint)
    socket.send(json.dumps({"command": verb, "id": "1", "properties": {"name": "bob"}}).encode())
    socket.close()


@pytest.mark.parametrize("verb", VERBS)
def test_circusd_and_the_worker_die_together(fleet: Fleet, verb: str) -> None:
    pid, daemon = prepared(fleet, crash_at="worker-started", stop_secs="60")
    send(fleet, verb)
    fleet.crashed()
    process = worker(fleet)
    process_table.send(process, signal.SIGKILL)
    wait_for("the worker is gone", lambda: not process_table.alive(process))
    assert alive(pid)
    fleet.start()
    relieved(fleet, process, pid)
    settled(fleet, verb, pid, daemon)


@pytest.mark.parametrize("verb", VERBS)
def test_circusd_dies_and_the_worker_finishes_alone(fleet: Fleet, verb: str) -> None:
    pid, daemon = prepared(fleet, crash_at="worker-started", stop_secs="1")
    send(fleet, verb)
    fleet.crashed()
    wait_for("the agent is gone", lambda: not alive(pid) and not alive(daemon))
    wait_for("its report waits", lambda: list((fleet.state / "spool").glob("*-ended.json")))
    wait_for("the worker is gone", lambda: not workers(fleet))
    assert action(fleet).done_at is None  # type: ignore[union-attr]
    fleet.start()
    settled(fleet, verb, pid, daemon)


def test_the_next_circusd_starts_while_the_worker_of_the_dead_one_is_still_at_it(fleet: Fleet) -> None:
    pid, daemon = prepared(fleet, stop_secs="60")
    send(fleet, "stop")
    process = worker(fleet)
    fleet.end(signal.SIGKILL)
    fleet.start()
    assert process_table.alive(process)
    assert fleet.view("bob")["phase"] == "stopping"
    os.kill(pid, signal.SIGKILL)  # it need not be waited for how it ends
    settled(fleet, "stop", pid, daemon)
    assert action(fleet).attempts == 1  # type: ignore[union-attr]


# -- the worker dies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "point"), each_with_some(WORKER_POINTS))
def test_a_worker_that_always_dies_at_a_seam_leaves_an_end_that_can_be_finished(
    fleet: Fleet, verb: str, point: str
) -> None:
    pid, daemon = prepared(fleet, crash_at=point)
    send(fleet, verb)
    wait_for("a second attempt", lambda: (a := action(fleet)) and a.attempts >= 2)
    assert alive(pid) is (point == "worker-before-signal")
    assert fleet.view("bob")["phase"] == "stopping"
    assert action(fleet).done_at is None  # type: ignore[union-attr]
    fleet.end(signal.SIGKILL)
    fleet.start()
    settled(fleet, verb, pid, daemon)


MOMENTS = ["started", "has remembered the tree", "has sent the first signal", "has killed the agent"]


@pytest.mark.parametrize(("verb", "moment"), each_with_some(MOMENTS))
def test_a_worker_killed_on_the_way_is_replaced_by_the_next_tick(
    fleet: Fleet, verb: str, moment: str
) -> None:
    kills = moment == "has killed the agent"
    pid, daemon = prepared(fleet, stop_secs="1" if kills else "60")
    send(fleet, verb)
    # One that is done by now has killed the agent, too.
    process = wait_for("a worker", lambda: (a := action(fleet)) and a.worker)
    tree = fleet.state / "run" / f"action-{action(fleet).id}.tree"  # type: ignore[union-attr]
    if kills:
        wait_for("the agent is gone", lambda: not alive(pid))
    elif moment != "started":
        wait_for("the tree", tree.exists)
    if moment == "has sent the first signal":
        wait_for("the first signal is sent", lambda: _age(process) > 0.6)
    process_table.send(process, signal.SIGKILL)
    if not kills:
        relieved(fleet, process, pid)
    settled(fleet, verb, pid, daemon)


def _age(process: ProcessId) -> float:
    up = float(Path("/proc/uptime").read_text().split()[0])
    return up - process.start / os.sysconf("SC_CLK_TCK")


def test_an_orphan_that_carries_no_name_is_ended_by_the_worker_that_takes_over(fleet: Fleet) -> None:
    """A child with an empty environment is only known as a child; its parent and the worker die together."""
    pid_file = fleet.work / "child"
    # It starts nothing else, and the child does not ignore what it ignores: a grace is nowhere waited for.
    script = f"env -i setsid sleep 600 & trap '' TERM HUP; echo $! > {pid_file}; while read x; do :; done"
    fleet.agent("bob", failover__command=f'sh -c "{script}"', failover__stop_secs="60")
    fleet.start()
    (view,) = fleet.await_up("bob")
    child = int(wait_for("the child", lambda: pid_file.exists() and pid_file.read_text().strip()))
    orphan = process_table.identify(child)
    assert orphan is not None
    send(fleet, "stop")
    process = worker(fleet)
    tree = fleet.state / "run" / f"action-{action(fleet).id}.tree"  # type: ignore[union-attr]
    wait_for("the tree", tree.exists)
    process_table.send(process, signal.SIGKILL)
    os.kill(view["pid"], signal.SIGKILL)
    try:
        fleet.await_phase("bob", "stopped")
        assert not process_table.alive(orphan)
    finally:
        process_table.send(orphan, signal.SIGKILL)


# -- launches ------------------------------------------------------------------------------------------


def one_agent_in_the_end(fleet: Fleet) -> None:
    (view,) = fleet.await_up("bob")
    wait_for("one copy", lambda: copies(fleet) == [fleet.view("bob")["pid"]])
    assert fleet.keeper("bob")
    ended = {launch.generation: launch.ended_at for launch in launches(fleet)}
    assert ended[view["generation"]] is None
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert copies(fleet) == []
    wait_for("nothing carries its name", lambda: not carrying(fleet, "bob"))


def test_circusd_dies_when_a_launch_is_recorded_and_the_next_one_launches_once(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start(crash_at="launch-recorded", wait=False)
    fleet.crashed()
    assert copies(fleet) == []
    (launch,) = launches(fleet)
    assert (launch.generation, launch.ended_at) == (1, None)
    fleet.start()
    (view,) = fleet.await_up("bob")
    assert view["generation"] == 2
    second, first = launches(fleet)
    assert second.cause == "interrupted-start"
    one_agent_in_the_end(fleet)


def test_a_launch_that_never_happened_is_not_left_open_in_the_history(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start(crash_at="launch-recorded", wait=False)
    fleet.crashed()
    fleet.start()
    fleet.await_up("bob")
    _, first = launches(fleet)
    assert first.ended_at is not None


def test_circusd_dies_when_a_start_of_an_operator_is_recorded(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False")
    fleet.start(crash_at="launch-recorded")
    send(fleet, "start")
    fleet.crashed()
    fleet.start()
    one_agent_in_the_end(fleet)


@pytest.mark.parametrize("delay_ms", [0, 8, 30, 60, 250])
def test_circusd_dies_around_the_spawn_of_a_launch_and_one_agent_comes_of_it(
    fleet: Fleet, delay_ms: int
) -> None:
    fleet.agent("bob")
    fleet.start(wait=False)
    log = fleet.state / "lifecycle.log"
    wait_for("the launch is recorded", lambda: log.exists() and "ev=launch " in log.read_text())
    until = time.monotonic() + delay_ms / 1000
    while time.monotonic() < until:  # any moment of the launch, on purpose
        pass
    fleet.end(signal.SIGKILL)
    fleet.start()
    one_agent_in_the_end(fleet)


def test_the_same_report_twice_has_one_effect(fleet: Fleet) -> None:
    """circusd dies after the effect is stored and before the file is removed."""
    pid, daemon = prepared(fleet, crash_at="report-taken-in")
    send(fleet, "stop")
    fleet.crashed()
    (report,) = (fleet.state / "spool").glob("*-ended.json")
    content = report.read_bytes()
    fleet.start()
    settled(fleet, "stop", pid, daemon)
    assert fleet.ctl("start", "bob").code == 0
    (view,) = fleet.await_up("bob")
    # It comes once more, as from a backup: nothing of the new launch changes.
    whole = report.with_name(f".{report.name}.tmp")
    whole.write_bytes(content)
    whole.rename(report)
    wait_for("it is taken in", lambda: not report.exists())
    (now,) = fleet.await_up("bob")
    assert (now["pid"], now["generation"]) == (view["pid"], 2)
    second, first = launches(fleet)
    assert second.ended_at is None and first.planned


NONSENSE = [
    "{",
    "[]",
    '{"kind": "ended"}',
    '{"kind": "ended", "identity": "bob", "outcome": "ended", "action": "x", "at": 1}',
    '{"kind": "launched", "identity": "bob"}',
    '{"kind": "launched", "identity": "bob", "generation": 1, "pid": "?", "start": null}',
    '{"kind": "nonsense"}',
]


def test_reports_that_make_no_sense_stop_neither_circusd_nor_the_reports_after_them(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    bad = [fleet.state / "spool" / f"{number:020d}-1-bad.json" for number in range(1, len(NONSENSE) + 1)]
    for path, content in zip(bad, NONSENSE, strict=True):
        path.write_text(content)
    assert fleet.ctl("--timeout", "15", "stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    wait_for("they are out of the way", lambda: not any(path.exists() for path in bad))
    # They were there at the start of the next one, too.
    fleet.end()
    for path, content in zip(bad, NONSENSE, strict=True):
        path.write_text(content)
    fleet.start()
    assert fleet.ctl("start", "bob").code == 0
    fleet.await_up("bob")
    wait_for("they are out of the way", lambda: not any(path.exists() for path in bad))
    fleet.await_ticks()
