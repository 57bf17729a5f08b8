"""Many at once: clients on one agent, ends, starts and deaths side by side, and a store that others hold."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from circus_failover import process_table
from tests.live.fleet import STANDIN, Fleet, alive, wait_for


def named(fleet: Fleet, name: str) -> list[int]:
    """Return the fleet's processes that carry an agent's name."""
    mark = f"FAILOVER_IDENTITY={name}".encode()
    return [p.pid for p in fleet.processes() if mark in (process_table.environ(p.pid) or frozenset())]


class Clients:
    """Verbs sent side by side, each on a connection of its own, and what was answered."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[tuple[str, Exception]] = []
        self._threads: list[threading.Thread] = []

    def send(self, verb: str, **properties: Any) -> None:
        thread = threading.Thread(target=self._send, args=(verb, properties))
        self._threads.append(thread)
        thread.start()

    def _send(self, verb: str, properties: dict[str, Any]) -> None:
        try:
            answer = self.fleet.call(verb, timeout=60.0, **properties)
        except Exception as error:
            self.failures.append((verb, error))
        else:
            self.answers.append((verb, answer))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(70)
        assert self.failures == []
        assert len(self.answers) == len(self._threads)


def consistent(fleet: Fleet, name: str) -> None:
    """What is recorded, what Circus says, and what runs agree."""

    def look() -> bool:
        view = fleet.view(name)
        running = named(fleet, name)
        with fleet.store() as store:
            settled = not store.open_actions()
            row = store.agents()[name]
            open_launches = [launch.generation for launch in store.launches(name, 200) if not launch.ended_at]
        if not settled or row.phase != view["phase"]:
            return False
        if view["phase"] == "up":
            return running == [view["pid"]] and open_launches == [view["generation"]]
        return view["phase"] in ("stopped", "down") and running == [] and open_launches == []

    wait_for(f"record and processes of {name} agree", look)


@pytest.mark.parametrize("seed", range(4))
def test_many_clients_on_one_agent_are_all_answered_and_one_agent_at_most_runs(
    fleet: Fleet, seed: int
) -> None:
    fleet.agent("bob", failover__ready_secs="0")
    fleet.start()
    fleet.await_up("bob")
    order = random.Random(seed)
    clients = Clients(fleet)
    for _ in range(15):
        verb = order.choice(["stop", "start", "restart", "reload", "explain", "status"])
        clients.send(verb, name="bob", waiting=True)
    clients.join()
    consistent(fleet, "bob")
    assert fleet.ctl("start", "bob").code == 0
    consistent(fleet, "bob")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    consistent(fleet, "bob")


def test_one_start_of_many_launches_and_all_are_told_so(fleet: Fleet) -> None:
    fleet.agent("bob", autostart="False")
    fleet.start()
    clients = Clients(fleet)
    for _ in range(10):
        clients.send("start", name="bob", waiting=True)
    clients.join()
    assert {answer["status"] for _, answer in clients.answers} == {"ok"}
    assert {answer["agents"][0]["generation"] for _, answer in clients.answers} == {1}
    consistent(fleet, "bob")


def test_one_restart_of_many_at_once_is_one_new_launch(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    clients = Clients(fleet)
    for _ in range(6):
        clients.send("restart", name="bob", waiting=True)
    clients.join()
    assert {answer["status"] for _, answer in clients.answers} == {"ok"}
    # Those that came while it ended joined that end.
    assert 2 <= fleet.view("bob")["generation"] <= 7
    consistent(fleet, "bob")


def test_an_agent_that_dies_while_it_is_stopped_or_restarted_is_recorded_once(fleet: Fleet) -> None:
    for verb in ("stop", "restart"):
        fleet.agent(f"bob-{verb}", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="60")
    fleet.start()
    for view in fleet.await_up("bob-stop", "bob-restart"):
        name, verb = view["identity"], view["identity"].split("-")[1]
        fleet.await_screen(name, "standin ready")
        fleet.call(verb, name=name) if verb == "stop" else Clients(fleet).send(verb, name=name)
        fleet.await_phase(name, "stopping")
        os.kill(view["pid"], signal.SIGKILL)
        if verb == "stop":
            fleet.await_phase(name, "stopped")
        else:
            fleet.await_up(name)
        with fleet.store() as store:
            first = store.launches(name)[-1]
            assert (first.planned, first.end_cause) == (True, f"operator-{verb}")
        consistent(fleet, name)
    assert fleet.exits() == []


def test_a_stop_right_after_a_death_makes_it_stopped(fleet: Fleet) -> None:
    """The death was first, so it stays an unplanned end; the operator's wish holds all the same."""
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    os.kill(view["pid"], signal.SIGKILL)
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert fleet.view("bob")["phase"] == "stopped"
    consistent(fleet, "bob")
    with fleet.store() as store:
        assert store.agents()["bob"].stay_stopped


@pytest.mark.parametrize("warmup_secs", ["0", "1"])
def test_a_stop_right_after_a_start_ends_what_was_just_begun(fleet: Fleet, warmup_secs: str) -> None:
    """Also while Circus is still at its own start of the watcher, which `warmup_delay` makes long."""
    fleet.agent("bob", autostart="False", failover__ready_secs="1", warmup_delay=warmup_secs)
    fleet.start()
    for _ in range(3):
        clients = Clients(fleet)
        clients.send("start", name="bob", waiting=True)
        wait_for("a launch", lambda: fleet.view("bob")["phase"] in ("starting", "up"))
        clients.send("stop", name="bob", waiting=True)
        clients.join()
        fleet.await_phase("bob", "stopped")
        consistent(fleet, "bob")


def test_ends_deaths_and_starts_of_a_fleet_side_by_side(fleet: Fleet) -> None:
    names = [f"agent-{number:02d}" for number in range(12)]
    for name in names:
        fleet.agent(name)
    fleet.start()
    views = {view["identity"]: view for view in fleet.await_up(*names)}
    clients = Clients(fleet)
    for place, name in enumerate(names):
        if place % 3 == 0:
            os.kill(views[name]["pid"], signal.SIGKILL)
        else:
            clients.send("stop" if place % 3 == 1 else "restart", name=name, waiting=True)
    clients.join()
    for place, name in enumerate(names):
        wanted = ("down", "stopped", "up")[place % 3]
        fleet.await_phase(name, wanted)
        consistent(fleet, name)


def test_circusd_killed_amid_many_ends_and_the_next_one_settles_them_all(fleet: Fleet) -> None:
    names = [f"agent-{number:02d}" for number in range(9)]
    for name in names:
        fleet.agent(name, failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="1.5")
    fleet.start()
    fleet.await_up(*names)
    for name in names:
        fleet.await_screen(name, "standin ready")
    verbs = {name: ("", "stop", "restart")[place % 3] for place, name in enumerate(names) if place % 3}
    fleet.call_all(*({"command": verb, "name": name} for name, verb in verbs.items()), timeout=0)

    def intents() -> bool:
        with fleet.store() as store:
            return all(store.actions(name) for name in verbs)

    wait_for("six intents", intents)
    fleet.end(signal.SIGKILL)
    fleet.start()
    for place, name in enumerate(names):
        fleet.await_phase(name, ("up", "stopped", "up")[place % 3], 40)
        assert fleet.view(name)["generation"] == (2 if place % 3 == 2 else 1)
        consistent(fleet, name)


# -- the store -----------------------------------------------------------------------------------------


@contextmanager
def held(fleet: Fleet) -> Iterator[None]:
    """Hold the store as a careless tool does, so that circusd cannot write."""
    other = sqlite3.connect(fleet.state / "failover.db", isolation_level=None, timeout=10)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_while_the_store_is_held_circusd_runs_agents_live_and_launches_are_refused(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.agent("eve", autostart="False")
    fleet.start()
    (bob,) = fleet.await_up("bob")
    with held(fleet):
        answer = fleet.call("start", name="eve", waiting=True)
        assert answer["status"] == "error" and "locked" in answer["reason"]
        answer = fleet.call("stop", name="bob", waiting=True)
        assert answer["status"] == "error" and "locked" in answer["reason"]
        assert "nothing was ended" in answer["reason"]
        assert alive(bob["pid"])
        assert fleet.call("numwatchers")["status"] == "ok"
        assert "locked" in (fleet.call("fleet")["circusd"]["trouble"] or "")
    assert fleet.ctl("start", "eve").code == 0
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    consistent(fleet, "bob")
    wait_for("no trouble", lambda: fleet.call("fleet")["circusd"]["trouble"] is None)


def test_a_death_while_the_store_is_held_is_stored_later(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    (view,) = fleet.await_up("bob")
    with held(fleet):
        os.kill(view["pid"], signal.SIGKILL)
        wait_for("the trouble is seen", lambda: "locked" in (fleet.call("fleet")["circusd"]["trouble"] or ""))
    fleet.await_phase("bob", "down")
    consistent(fleet, "bob")
    with fleet.store() as store:
        row = store.agents()["bob"]
        (launch,) = store.launches("bob")
    assert row.phase == "down"
    assert (launch.planned, launch.end_cause, launch.exit_signal) == (False, "signaled", signal.SIGKILL)
    wait_for("its line in exits.log", lambda: [line["dead_signal"] for line in fleet.exits()] == ["9"])
    assert fleet.ctl("start", "bob").code == 0
    (now,) = fleet.await_up("bob")
    assert now["generation"] == 2


def being_stopped(fleet: Fleet) -> dict[str, Any]:
    """Have a worker at an end that will not be over before its agent is killed; return that agent's view."""
    fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="60")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    fleet.call("stop", name="bob")

    def working() -> bool:
        with fleet.store() as store:
            return bool(store.actions("bob")[0].worker_pid)

    wait_for("a worker", working)
    return view


def test_a_worker_s_report_waits_while_the_store_is_held(fleet: Fleet) -> None:
    view = being_stopped(fleet)
    with held(fleet):
        os.kill(view["pid"], signal.SIGKILL)
        wait_for("the report waits", lambda: list((fleet.state / "spool").glob("*-ended.json")))
        wait_for("the trouble is seen", lambda: "locked" in (fleet.call("fleet")["circusd"]["trouble"] or ""))
        assert list((fleet.state / "spool").glob("*-ended.json"))
    fleet.await_phase("bob", "stopped")
    consistent(fleet, "bob")
    wait_for("it is taken in", lambda: not list((fleet.state / "spool").glob("*.json")))


def test_a_report_that_came_while_the_store_was_held_survives_circusd_too(fleet: Fleet) -> None:
    """circusd dies before it could store the end; an agent that was started since is not touched by it."""
    view = being_stopped(fleet)
    with held(fleet):
        os.kill(view["pid"], signal.SIGKILL)
        wait_for("the trouble is seen", lambda: "locked" in (fleet.call("fleet")["circusd"]["trouble"] or ""))
        fleet.end(signal.SIGKILL)
    fleet.start()
    fleet.await_phase("bob", "stopped")
    consistent(fleet, "bob")
    assert fleet.ctl("start", "bob").code == 0
    (now,) = fleet.await_up("bob")
    fleet.end(signal.SIGKILL)
    fleet.start()
    (again,) = fleet.await_up("bob")
    assert (again["pid"], again["generation"]) == (now["pid"], 2)
    consistent(fleet, "bob")


def garbage(fleet: Fleet) -> None:
    for path in fleet.state.glob("failover.db-*"):
        path.unlink()
    (fleet.state / "failover.db").write_bytes(b"no database" * 1000)


def a_folder(fleet: Fleet) -> None:
    for path in fleet.state.glob("failover.db*"):
        path.unlink()
    (fleet.state / "failover.db").mkdir()


def spoilt_page(fleet: Fleet) -> None:
    other = sqlite3.connect(fleet.state / "failover.db")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (root,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'agents'").fetchone()
    other.close()
    with (fleet.state / "failover.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("spoil", [garbage, a_folder, spoilt_page])
def test_with_a_spoilt_store_circusd_runs_live_agents_live_on_and_launches_are_refused(
    fleet: Fleet, spoil: Any
) -> None:
    fleet.agent("bob")
    fleet.agent("eve", autostart="False")
    fleet.start()
    (bob,) = fleet.await_up("bob")
    fleet.end()
    spoil(fleet)
    fleet.start()
    wait_for("its trouble is shown", lambda: fleet.call("fleet")["circusd"]["trouble"])
    assert "failover.db" in fleet.call("fleet")["circusd"]["trouble"]
    assert alive(bob["pid"])
    (view,) = fleet.await_up("bob")
    assert view["pid"] == bob["pid"]
    done = fleet.ctl("start", "eve")
    assert done.code == 3 and "failover.db" in done.err
    assert named(fleet, "eve") == []
    done = fleet.ctl("stop", "bob", "--waiting")
    assert done.code == 3 and "nothing was ended" in done.err
    assert alive(bob["pid"])
    # Moved away, as the message says: the agents live on.
    fleet.end()
    for path in fleet.state.glob("failover.db*"):
        path.rename(fleet.folder / path.name)
    fleet.start()
    (view,) = fleet.await_up("bob")
    assert view["pid"] == bob["pid"]
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    assert not alive(bob["pid"])
