"""What holds for every plugin, on a real fleet: restarts, silence, a cut event stream, wrong options."""

from __future__ import annotations

import json
import os
import signal
import sqlite3

import zmq

from tests.live.fleet import Fleet
from tests.live.with_plugins import (
    GUARD,
    REAPER,
    await_generation,
    await_said,
    await_ticks,
    by_hand,
    restarted,
    row,
    said,
    with_guard,
    with_reaper,
)


def test_a_plugin_that_is_killed_is_started_again_and_goes_on(fleet: Fleet) -> None:
    with_reaper(fleet)
    with_guard(fleet)
    fleet.agent("alpha", failover__idle_secs="4")
    fleet.agent("bravo", failover__idle_secs="0", failover__restart="always")
    fleet.start()
    _, bravo = fleet.await_up("alpha", "bravo")
    restarted(fleet, "plugin:idle", "IdleReaper")
    restarted(fleet, "plugin:guard", "CrashLoopGuard")
    os.kill(bravo["pid"], signal.SIGKILL)
    fleet.await_phase("alpha", "parked")
    await_generation(fleet, "bravo", 2)


def test_what_a_plugin_did_is_in_the_store_for_doctor(fleet: Fleet) -> None:
    with_reaper(fleet)
    with_guard(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    for name, watcher in (("IdleReaper", "plugin:idle"), ("CrashLoopGuard", "plugin:guard")):
        await_ticks(fleet, name)
        found = row(fleet, name)
        assert [found.pid] == fleet.call("list", name=watcher)["pids"]
        assert (found.interval, found.errors, found.last_error) == (0.5, 0, None)
        assert found.ticks > 1 and found.secs > 0


def test_a_healthy_agent_is_logged_only_where_that_is_wanted_and_a_jump_of_the_clock_always(
    fleet: Fleet,
) -> None:
    fleet.agent("alpha")
    fleet.start()
    report = {"name": "Test", "pid": 1, "at": 1.0, "secs": 0.0, "interval": 1.0}
    findings = [
        {"identity": identity, "action": "alive", "outcome": outcome, "evidence": "x"}
        for identity, outcome in (("alpha", "young"), ("", "counted-anew"))
    ]
    assert fleet.call("ticked", **report, findings=findings)["log_verbose"] is False
    logged = [line for line in fleet.lifecycle() if line.get("action") == "alive"]
    assert [line["outcome"] for line in logged] == ["counted-anew"]


def test_with_the_event_stream_cut_the_ticks_come_to_the_same_result(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="2")
    fleet.agent("bravo", failover__idle_secs="0", failover__restart="always")
    fleet.start()
    _, bravo = fleet.await_up("alpha", "bravo")
    nobody = f"ipc://{fleet.folder}/nobody"
    plugins = [by_hand(fleet, use, nobody, interval="0.5", name="by-hand") for use in (REAPER, GUARD)]
    try:
        os.kill(bravo["pid"], signal.SIGKILL)
        fleet.await_phase("alpha", "parked")
        await_generation(fleet, "bravo", 2)
    finally:
        for plugin in plugins:
            plugin.kill()
            plugin.wait()


def test_a_plugin_that_circusd_does_not_answer_asks_again_and_goes_on_when_it_does(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="2")
    broken = fleet.folder / "broken.yaml"
    broken.write_text("state_dir: [")
    context = zmq.Context()
    deaf = context.socket(zmq.ROUTER)
    deaf.bind(fleet.endpoint)
    reaper = by_hand(fleet, REAPER, fleet.pubsub, interval="0.5", config=str(broken))
    try:
        asked = []
        for _ in range(2):
            assert deaf.poll(20000), "it asks"
            asked.append(json.loads(deaf.recv_multipart()[-1])["command"])
        assert asked == ["ticked", "ticked"]
        deaf.close(0)
        fleet.start()
        fleet.await_phase("alpha", "parked", 40)
        assert reaper.poll() is None
        assert "did not answer 'ticked' within 5 s" in str(row(fleet, "IdleReaper").last_error)
        # What it could not say for so long it has said now, and no more than once.
        assert len(said(fleet, "", action="error", evidence="broken.yaml cannot be used")) == 1
    finally:
        reaper.kill()
        reaper.wait()
        context.destroy(0)


def test_a_circusd_that_does_not_answer_is_asked_once_a_tick_and_gets_nothing_stale(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__idle_secs="1")
    fleet.agent("bravo", failover__idle_secs="1")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    context = zmq.Context()
    relay, circusd = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    between = f"ipc://{fleet.folder}/between"
    relay.bind(between)
    circusd.connect(fleet.endpoint)
    reaper = by_hand(fleet, REAPER, fleet.pubsub, between, interval="0.5")
    try:
        asked: list[tuple[bytes, str]] = []
        while len(asked) < 3:
            assert relay.poll(30000), "it asks"
            sender, *_, message = relay.recv_multipart()
            verb = json.loads(message)["command"]
            if asked or verb == "park":
                asked.append((sender, verb))  # from the first park on, nothing is answered
            else:
                circusd.send(message)
                relay.send_multipart([sender, circusd.recv()])
        # Two agents are idle: one request is all that a tick makes, and it is from a connection of its own,
        # since what waits in a connection reaches a circusd that comes back much later.
        assert [verb for _, verb in asked] == ["park"] * 3
        assert len({sender for sender, _ in asked}) == 3
    finally:
        reaper.kill()
        reaper.wait()
        context.destroy(0)


def test_an_option_that_makes_no_sense_is_named_and_the_plugin_runs_with_its_default(fleet: Fleet) -> None:
    fleet.plugins["plugin:guard"] = {"use": GUARD, "interval": "often", "colour": "red"}
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    for mistake in ("interval = 'often': expected seconds", "colour = 'red': expected one of the options"):
        await_said(fleet, "", action="error", outcome="default-used", evidence=f"[plugin:guard] {mistake}")
    assert row(fleet, "CrashLoopGuard").interval == 1.0
    os.kill(view["pid"], signal.SIGKILL)
    await_generation(fleet, "alpha", 2)


def test_a_failover_yaml_of_another_fleet_is_said_and_circusds_own_store_is_read(fleet: Fleet) -> None:
    other = fleet.folder / "other.yaml"
    other.write_text(json.dumps({"state_dir": "other-state"}))
    with_guard(fleet, config=str(other))
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    await_said(fleet, "", action="error", evidence="other-state is not circusd's")
    os.kill(view["pid"], signal.SIGKILL)
    await_generation(fleet, "alpha", 2)


def test_a_store_that_was_replaced_is_opened_anew(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    guard = by_hand(fleet, GUARD, fleet.pubsub, interval="0.5")
    try:
        await_ticks(fleet, "CrashLoopGuard")
        fleet.end()
        path = fleet.state / "failover.db"
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        copy.rename(path)
        fleet.start()
        fleet.await_up("alpha")
        os.kill(view["pid"], signal.SIGKILL)
        await_generation(fleet, "alpha", 2)
        assert guard.poll() is None
    finally:
        guard.kill()
        guard.wait()
