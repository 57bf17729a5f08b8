"""The plugin that keeps the canary running, on a real fleet: the canary comes, stays, comes back and goes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from circus_failover.plugins.canary import LASTED_SECS, Starts

from circus_failover import process_table
from circus_failover.canary import trees
from circus_failover.process_table import ProcessId
from tests.live.fleet import Fleet, alive, remove, wait_for
from tests.live.with_plugins import (
    CANARY,
    NEVER,
    await_said,
    await_ticks,
    await_watched,
    by_hand,
    canary,
    restarted,
    row,
    said,
    with_canary,
)

PLUGIN = "plugin:canary"


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    """A fleet of two agents that runs, circusd included; each test leaves it so."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    made = Fleet(folder)
    try:
        with_canary(made)
        made.agent("alpha")
        made.agent("bravo")
        made.start()
        made.await_up("alpha", "bravo")
        yield made
    finally:
        made.close()
        remove(folder)


def servers(fleet: Fleet) -> list[int]:
    return [agent["server_pid"] for agent in fleet.call("fleet")["agents"] if agent["server_pid"]]


def the_canary(fleet: Fleet) -> ProcessId:
    return wait_for("a canary runs", lambda: canary(fleet))


def another(fleet: Fleet, canary_: ProcessId) -> ProcessId:
    """Kill a canary, and wait for the next one."""
    process_table.send(canary_, signal.SIGKILL)
    return wait_for("another canary runs", lambda: (now := canary(fleet)) != canary_ and now or None)


def test_with_agents_there_is_a_canary_that_watches_every_server(running: Fleet) -> None:
    said = await_watched(running, *servers(running))
    assert sorted(agent for server in said["servers"] for agent in server["agents"]) == ["alpha", "bravo"]
    assert said["pid"] == the_canary(running).pid


def test_killed_it_is_back_and_watches_every_server_again(running: Fleet) -> None:
    recorded = running.exits()
    after = another(running, the_canary(running))
    assert await_watched(running, *servers(running))["pid"] == after.pid
    assert running.exits() == recorded


def test_the_plugin_ends_and_restarts_without_its_canary(running: Fleet) -> None:
    before = the_canary(running)
    restarted(running, PLUGIN, "Canary")
    await_ticks(running, "Canary", 1)
    assert running.call("stop", name=PLUGIN, waiting=True)["status"] == "ok"
    assert canary(running) == before
    assert running.call("start", name=PLUGIN, waiting=True)["status"] == "ok"
    await_ticks(running, "Canary")
    assert canary(running) == before


def test_a_daemon_that_left_an_agents_tree_stays_known_in_trees_json(running: Fleet) -> None:
    running.agent("shell", failover__command="sh", failover__stop_secs="0.1")
    running.write()
    assert running.call("reloadconfig", waiting=True)["status"] == "ok"
    running.await_up("shell")
    with running.store() as store:
        agent = store.agent("shell")
    assert agent is not None and agent.launch is not None

    def tree() -> dict[ProcessId, str]:
        return trees.read(str(running.state)).get(str(agent.launch), {})

    def names() -> list[str]:
        return sorted(tree().values())

    running.type("shell", "sh -c 'sleep 300 & wait' &")
    wait_for("all that is below it is seen", lambda: names() == ["sh", "sh", "sleep"])
    daemon = process_table.read(next(process.pid for process, name in tree().items() if name == "sleep"))
    assert daemon is not None
    os.kill(daemon.parent, signal.SIGKILL)
    running.type("shell", "")  # a shell waits for its children when it prompts
    wait_for("what was between has gone", lambda: names() == ["sh", "sleep"])
    assert daemon.id in tree()
    process_table.send(daemon.id, signal.SIGKILL)
    wait_for("the daemon is forgotten when it has ended", lambda: names() == ["sh"])
    assert running.ctl("rm", "shell", "--waiting").code == 0
    del running.sections["watcher:shell"]
    running.write()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_outlives_circusd_and_records_a_death_meanwhile(running: Fleet, number: signal.Signals) -> None:
    before = the_canary(running)
    (view,) = running.await_up("bravo")
    await_watched(running, *servers(running))
    running.end(number)
    os.kill(view["server_pid"], signal.SIGKILL)

    def recorded() -> dict[str, str] | None:
        return next((line for line in running.exits() if line["server_pid"] == str(view["server_pid"])), None)

    line = wait_for("it is in exits.log", recorded)
    assert (line["ev"], line["identity"], line["cause"]) == ("server-exit", "bravo", "killed")
    assert (line["detected"], line["signal"]) == ("live", "9")
    assert canary(running) == before
    running.start()
    running.await_phase("bravo", "down")
    assert running.ctl("start", "bravo").code == 0
    await_watched(running, *servers(running))
    assert canary(running) == before


def test_with_nothing_left_to_watch_it_ends_and_is_back_for_the_next_start(running: Fleet) -> None:
    before = the_canary(running)
    ended = len(running.exits())
    assert running.ctl("stop", "alpha", "bravo", "--waiting").code == 0
    wait_for("the canary has ended", lambda: not alive(before.pid) and canary(running) is None)
    await_ticks(running, "Canary")
    assert canary(running) is None
    assert running.ctl("start", "alpha").code == 0
    await_watched(running, *servers(running))
    assert len(running.exits()) == ended
    assert running.ctl("start", "bravo").code == 0
    running.await_up("alpha", "bravo")


@contextlib.contextmanager
def one_tick(fleet: Fleet) -> Iterator[None]:
    """Run a plugin that ticks no more; circusd, which starts canaries too, knows nothing of it."""
    plugin = by_hand(fleet, CANARY, fleet.pubsub, interval=NEVER)
    try:
        # It reports twice: when it meets circusd, and at the end of its tick.
        wait_for("its only tick is over", lambda: row(fleet, "Canary").ticks == 2)
        yield
        assert row(fleet, "Canary").ticks == 2
    finally:
        plugin.kill()
        plugin.wait()


def test_without_a_tick_it_is_there_for_a_start_and_back_when_it_is_killed(fleet: Fleet) -> None:
    fleet.agent("alpha", autostart="False")
    fleet.start()
    with one_tick(fleet):
        assert canary(fleet) is None
        assert fleet.ctl("start", "alpha").code == 0
        await_watched(fleet, *servers(fleet))
        another(fleet, another(fleet, the_canary(fleet)))
        await_watched(fleet, *servers(fleet))


def test_one_that_could_not_be_started_is_tried_again_without_a_tick(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    in_the_way = fleet.state / "locks" / "canary.lock"
    in_the_way.mkdir()
    with one_tick(fleet):
        assert json.loads(row(fleet, "Canary").detail)["alert"]
        in_the_way.rmdir()
        await_watched(fleet, view["server_pid"])


def test_a_dry_run_only_says_that_it_would_start_one(fleet: Fleet) -> None:
    with_canary(fleet, dry_run="true")
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    found = await_said(fleet, "", action="canary-started")
    assert found["outcome"] == "dry-run"
    await_ticks(fleet, "Canary")
    assert len(said(fleet, "", action="canary-started")) == 1
    assert canary(fleet) is None and trees.read(str(fleet.state)) == {}


def test_one_that_cannot_be_started_is_one_alert_however_often_it_is_tried(
    fleet: Fleet,
) -> None:
    (fleet.state / "locks" / "canary.lock").mkdir(parents=True)
    fleet.state.chmod(0o700)
    with_canary(fleet)
    fleet.agent("alpha")
    fleet.start()
    fleet.await_up("alpha")
    found = await_said(fleet, "", action="error", outcome="canary-not-started")
    assert "the canary cannot be started: " in found["evidence"] and "canary/process.py" in found["evidence"]
    wait_for("it is tried again", lambda: json.loads(row(fleet, "Canary").detail)["failures"] > 1)
    assert "the canary cannot be started" in json.loads(row(fleet, "Canary").detail)["alert"]
    restarted(fleet, PLUGIN, "Canary")
    await_ticks(fleet, "Canary", 1)
    assert len(said(fleet, "", action="error", outcome="canary-not-started")) == 1


def pauses(starts: Starts, number: int, lives: float, *, early: bool) -> list[float]:
    """Return the seconds between starts when each canary lives for so long and the next comes when it may."""
    found, now = [], 100.0
    for _ in range(number):
        starts = replace(starts, last=now).ended(now + lives, early=early)
        found.append(max(starts.due(), now + lives) - now)
        now += found[-1]
    return found


def test_starts_are_a_second_apart_and_ever_rarer_when_they_fail() -> None:
    assert Starts().due() < 0
    assert pauses(Starts(), 8, 0.1, early=True) == [1, 2, 4, 8, 16, 30, 30, 30]
    failed = replace(Starts(), last=100.0).failed()
    assert (failed.due(), failed.failed().due()) == (101.0, 102.0)


def test_one_that_had_lasted_or_had_nothing_left_to_watch_is_followed_at_once() -> None:
    assert pauses(Starts(), 3, LASTED_SECS, early=True) == [LASTED_SECS] * 3
    assert pauses(Starts(), 3, 5.0, early=False) == [5.0] * 3
    assert Starts(100.0, 5).ended(100.0 + LASTED_SECS, early=True).due() < 100.0 + LASTED_SECS
