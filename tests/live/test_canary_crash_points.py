"""Whatever dies at any moment of a server's death or of a stop: one record of the death, none of the stop.

One fleet serves all tests of this module; each starts agents of its own in it, and leaves circusd and the
canary running, without a crash point.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from circus_failover import process_table
from circus_failover.canary import starting, watched
from circus_failover.process_table import ProcessId
from circus_failover.server_watches import cause_of
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.test_server_deaths import (
    all_watched,
    await_dead,
    canary_of,
    exits_of,
    lasting_fleet,
    no_plugin_lives,
    once_each,
    server_exits,
)
from tests.live.with_plugins import NEVER, with_canary

CIRCUSD_POINTS = [
    *("intent-written", "worker-started", "report-taken-in"),
    *("death-recorded", "server-exits-taken-in"),
]
WORKER_POINTS = ["worker-before-signal", "worker-before-close", "worker-before-report"]
CANARY_POINTS = ["canary-before-line", "canary-after-line", "canary-after-report"]
MOMENTS_MS = [0, 8, 30]
CRASHES = 8
"""More than there are steps that one point can interrupt."""


@dataclass(frozen=True)
class Cast:
    """The agents of one test; the last two share a server."""

    name: str

    @property
    def stops(self) -> str:
        return f"{self.name}-stops"

    @property
    def dies(self) -> str:
        return f"{self.name}-dies"

    @property
    def closes(self) -> str:
        return f"{self.name}-closes"

    @property
    def ends(self) -> str:
        return f"{self.name}-ends"

    @property
    def leaves(self) -> str:
        return f"{self.name}-leaves"

    @property
    def stays(self) -> str:
        return f"{self.name}-stays"

    @property
    def all(self) -> list[str]:
        return [self.stops, self.leaves, self.dies, self.closes, self.ends, self.stays]


CASTS = {point: Cast(point) for point in (*CIRCUSD_POINTS, *WORKER_POINTS, *CANARY_POINTS)}


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with lasting_fleet(request) as made:
        with_canary(made, interval=NEVER)
        options = {"failover__command": "sleep 600", "failover__stop_secs": "0.3", "autostart": "False"}
        for cast in CASTS.values():
            shared = str(made.folder / f"{cast.name}.sock")
            for name in cast.all:
                together = name in (cast.leaves, cast.stays)
                made.agent(name, failover__socket=shared if together else "", **options)
        for moment in MOMENTS_MS:
            made.agent(f"moment-{moment}", **options)
            made.agent(f"closed-{moment}", **options)
        made.agent("anchor", failover__command="sleep 600")
        made.start()
        yield made
        once_each(made)


def up(fleet: Fleet, *names: str) -> None:
    """Start agents at once, and wait until the canary watches them all."""
    fleet.call_all(*({"command": "start", "name": name, "waiting": True} for name in names))
    fleet.await_up(*names)
    all_watched(fleet)


def stop(fleet: Fleet, cast: Cast) -> None:
    """Ask for the two stops; nobody waits for an answer, since circusd may die of it."""
    fleet.call_all(*({"command": "stop", "name": name} for name in (cast.stops, cast.leaves)), timeout=0)


def act(fleet: Fleet, cast: Cast) -> None:
    """Kill a server, close another, kill an agent, and ask for two stops: all at once."""
    dies, closes = (fleet.view(name)["server_pid"] for name in (cast.dies, cast.closes))
    ends = fleet.view(cast.ends)["pid"]
    stop(fleet, cast)
    os.kill(dies, signal.SIGKILL)
    os.kill(closes, signal.SIGTERM)
    os.kill(ends, signal.SIGKILL)


def causes(fleet: Fleet, cast: Cast) -> dict[str, str]:
    """Return why each agent is to be down whose server died, by what is stored of that."""
    with fleet.store() as store:
        rows = store.server_exits()
    found = {str(one["identity"]): str(cause_of(row)) for row in rows for one in row.agents}
    return {name: found[name] for name in (cast.dies, cast.closes) if name in found}


def over(fleet: Fleet, cast: Cast) -> bool:
    """Whether nothing of all that is under way any more, as the store has it."""
    with fleet.store() as store:
        agents, open_ = store.agents(), store.open_actions()
    wanted = {
        **dict.fromkeys((cast.stops, cast.leaves), ("stopped", "operator-stop")),
        **{name: ("down", cause) for name, cause in causes(fleet, cast).items()},
        cast.ends: ("down", "signaled"),
    }
    return not open_ and {name: (agents[name].phase, agents[name].cause) for name in cast.all[:5]} == wanted


def comes_out_right(fleet: Fleet, cast: Cast) -> None:
    """Everything that must hold in the end, whatever died on the way."""
    wait_for("all is over", lambda: over(fleet, cast))
    (view,) = fleet.await_up(cast.stays)
    all_watched(fleet)
    assert exits_of(fleet, cast.stops) == exits_of(fleet, cast.leaves) == []
    for name, cause in causes(fleet, cast).items():
        (line,) = exits_of(fleet, name)
        # SIGKILL, or closed in an orderly way; unknown where nobody lived to see it.
        told = line.get("signal", line.get("status"))
        assert (line["ev"], told in ("unknown", "9" if name == cast.dies else "0")) == ("server-exit", True)
        assert fleet.call("explain", name=name)["crash_loop"]["deaths"] == (cause == "server-lost")
    (line,) = exits_of(fleet, cast.ends)
    assert (line["ev"], line["dead_signal"]) == ("session-exit", "9")
    planned = {name: fleet.launches(name)[0].planned for name in cast.all[:5]}
    assert planned == {name: name in (cast.stops, cast.leaves) for name in planned}
    # No intent is left behind: what somebody closes now is nobody's of ours.
    wait_for("no intent is left", lambda: not list((fleet.state / watched.SERVERS).glob("*.intent")))
    fleet.tmux(Path(view["socket"]), "kill-server")
    await_dead(fleet, cast.stays, "server-ended")
    (line,) = exits_of(fleet, cast.stays)
    assert (line["cause"], line["agents"]) == ("orderly-unintended", cast.stays)
    all_watched(fleet)


def answers(fleet: Fleet) -> bool:
    return bool(fleet.call("numwatchers", timeout=1.0)["status"] == "ok")


@pytest.mark.parametrize("point", CIRCUSD_POINTS)
def test_circusd_dies_at_the_same_seam_again_and_again(fleet: Fleet, point: str) -> None:
    cast = CASTS[point]
    up(fleet, *cast.all)
    fleet.end(signal.SIGKILL)
    fleet.start(crash_at=point)
    act(fleet, cast)
    fleet.crashed()
    for _ in range(CRASHES):
        fleet.start(crash_at=point, wait=False)
        assert fleet.circusd is not None
        circusd = fleet.circusd
        wait_for("it dies, or answers", lambda c=circusd: c.poll() is not None or answers(fleet))
        stop(fleet, cast)
        wait_for("it dies, or all is over", lambda c=circusd: c.poll() is not None or over(fleet, cast))
        if circusd.poll() is None:
            break
        fleet.crashed()
    assert fleet.circusd is not None, f"it died {CRASHES} times and nothing came of it"
    fleet.end(signal.SIGKILL)
    fleet.start()
    comes_out_right(fleet, cast)


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_every_worker_dies_at_a_seam_and_another_circusd_finishes(fleet: Fleet, point: str) -> None:
    cast = CASTS[point]
    up(fleet, *cast.all)
    fleet.end(signal.SIGKILL)
    fleet.start(crash_at=point)
    act(fleet, cast)

    def died() -> bool:
        with fleet.store() as store:
            found = {one.identity: one.worker for one in store.open_actions() if one.worker is not None}
        gone = {name for name, worker in found.items() if not process_table.may_run(worker)}
        return gone >= {cast.stops, cast.leaves, cast.ends}

    wait_for("the worker of each end has died", died)
    assert exits_of(fleet, cast.stops) == exits_of(fleet, cast.leaves) == exits_of(fleet, cast.ends) == []
    fleet.end(signal.SIGKILL)
    fleet.start()
    comes_out_right(fleet, cast)


def next_canary(state: str, point: str, before: ProcessId) -> ProcessId:
    """See to it that a canary runs that dies at a point, and return it, also when it has by then.

    Args:
        before: the last one; it has ended, or is about to.
    """

    def who() -> ProcessId:
        said = json.loads(Path(state, watched.LOCK).read_text())
        return ProcessId(said["pid"], said["start"])

    def another() -> ProcessId | None:
        starting.start(state)
        now = who()
        return now if now != before else None

    wait_for("the last one has ended", lambda: not process_table.may_run(before))
    canary = wait_for("the next one", another)
    environment = process_table.environ(canary.pid)
    assert environment is None or f"FAILOVER_CRASH_AT={point}".encode() in environment
    return canary


@pytest.mark.parametrize("point", CANARY_POINTS)
def test_every_canary_dies_at_a_seam_until_one_does_not(
    fleet: Fleet, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast, state = CASTS[point], str(fleet.state)
    fleet.end(signal.SIGKILL)
    wait_for("nobody is left who starts one that does not die", lambda: no_plugin_lives(fleet))
    monkeypatch.setenv("FAILOVER_CRASH_AT", point)
    fleet.start(crash_at=point)
    # Whoever starts one from here on, circusd, its plugin or this test, it dies at this point.
    first = canary_of(fleet)
    process_table.send(first, signal.SIGKILL)
    canary = next_canary(state, point, first)
    up(fleet, *cast.all)
    act(fleet, cast)
    for _ in range(3):
        wait_for("it died", lambda one=canary: not process_table.may_run(one))
        canary = next_canary(state, point, canary)
    fleet.end(signal.SIGKILL)
    monkeypatch.delenv("FAILOVER_CRASH_AT")
    fleet.start()
    process_table.send(canary_of(fleet), signal.SIGKILL)
    comes_out_right(fleet, cast)


@pytest.mark.parametrize("moment", MOMENTS_MS)
def test_circusd_is_killed_at_any_moment_of_a_server_s_death(fleet: Fleet, moment: int) -> None:
    killed, closed = f"moment-{moment}", f"closed-{moment}"
    up(fleet, killed, closed)
    server, closes = fleet.view(killed)["server_pid"], fleet.view(closed)["server_pid"]
    os.kill(closes, signal.SIGTERM)
    os.kill(server, signal.SIGKILL)
    until = time.monotonic() + moment / 1000
    while time.monotonic() < until:  # any moment, on purpose
        pass
    fleet.end(signal.SIGKILL)
    fleet.start()
    told = await_dead(fleet, killed, "server-lost")
    assert "was killed (SIGKILL)" in told["agent"]["reason"] and told["crash_loop"]["deaths"] == 1
    told = await_dead(fleet, closed, "server-ended")
    assert "was closed by somebody" in told["agent"]["reason"] and told["crash_loop"]["deaths"] == 0
    for name, pid in ((killed, server), (closed, closes)):
        assert [line["ev"] for line in exits_of(fleet, name)] == ["server-exit"]
        (found,) = server_exits(fleet, pid)
        (launch,) = fleet.launches(name)
        assert launch.ended_at is not None and launch.ended_at <= found.at
        assert not launch.planned and not alive(pid)
