"""Agents that are alive and do not work: nudged, ended, brought back; and those that are left alone."""

from __future__ import annotations

import time
from typing import Any

from circus_failover.agent_health import Look
from circus_failover.agent_health import told as told_of
from circus_failover.policy.health import Health
from circus_failover.words import Source, State
from tests.live.fleet import STANDIN, Fleet, alive, wait_for
from tests.live.with_plugins import await_said, await_ticks, said

HEART = "circus_failover.plugins.Heartbeat"
PROMISE = {
    "failover__heartbeat": "self",
    "failover__grace_secs": "0.1",
    "failover__nudge_secs": "1.2",
    "failover__stuck_secs": "3",
    "failover__restart": "lazy",
}


def with_heart(fleet: Fleet, **options: str) -> None:
    fleet.plugins["plugin:heart"] = {"use": HEART, "interval": "0.3", **options}


def promising(fleet: Fleet, name: str, **options: str) -> None:
    """Add an agent whose first launch beats only when it is told to; any later one does so by itself."""
    first = f"test -e {name} && exec {STANDIN} --beat 0.2; touch {name}; exec {STANDIN}"
    fleet.agent(name, **{**PROMISE, "failover__command": f"sh -c '{first}'", **options})


def assigned(fleet: Fleet, *names: str) -> None:
    """Give each agent work, and wait until it has taken it."""
    for name in names:
        assert fleet.call("assign", name=name, id=f"w-{name}", task=f"do {name}")["status"] == "ok"
    for name in names:
        await_taken(fleet, f"w-{name}")


def await_beat(fleet: Fleet, name: str) -> None:
    wait_for(f"the heartbeat of {name} shows", lambda: fleet.view(name)["heartbeat_at"])


def await_taken(fleet: Fleet, name: str) -> None:
    def look() -> bool:
        with fleet.store() as store:
            row = store.assignment(name)
        return row is not None and row.state in ("delivered", "working")

    wait_for(f"{name} is taken", look)


def told(fleet: Fleet, view: dict[str, Any]) -> list[str]:
    """Return what the stand-in of a launch was told."""
    return fleet.prompts(view["conversation"])


def waits(fleet: Fleet, name: str, question: str) -> None:
    """Have it said of an agent that it waits for somebody, as the plugin does that looks at clients."""
    view = fleet.view(name)
    with fleet.store() as store:
        row = store.agent(name)
    assert row is not None and row.process is not None
    health = Health(State.WAITING, Source.STATUS_FILE, time.time(), question)
    look = told_of(Look(name, view["generation"], row.process, time.time(), health))
    assert fleet.call("seen", interval=3600, agents=[look])["again"] == []


def test_an_agent_whose_heart_stops_at_work_is_nudged_once_then_ended_and_brought_back_to_it(
    fleet: Fleet,
) -> None:
    with_heart(fleet)
    fleet.states()
    for name in ("stops", "idles", "asks"):
        promising(fleet, name, failover__stuck_secs="600")
    promising(fleet, "frail", failover__crash_max="1", failover__stuck_secs="600")
    fleet.start()
    views = dict(zip(("stops", "idles", "asks", "frail"), fleet.await_up(*ALL), strict=True))
    for name in ALL:
        fleet.type(name, "/beat 0.2" if name == "asks" else "/beat")
        await_beat(fleet, name)
    assigned(fleet, "stops", "asks", "frail")
    waits(fleet, "asks", "permission: Bash")
    await_said(fleet, "asks", action="waiting")
    fleet.type("asks", "/beat 0")
    await_said(fleet, "stops", action="nudged", outcome="queued", evidence="assignment w-stops")
    first, conversation = views["stops"], views["stops"]["conversation"]
    wait_for("it is told", lambda: any("self done w-stops" in text for text in told(fleet, first)))
    for name in ALL:
        # Only now: how long it takes until it is told is the machine's affair.
        fleet.sections[f"watcher:{name}"]["failover.stuck_secs"] = "3"
    fleet.write()
    assert sorted(fleet.call("reloadconfig")["changed"]) == sorted(ALL)
    back = await_said(
        fleet, "stops", action="stuck", outcome="relaunched", evidence="failover.stuck_secs is 3"
    )
    (second,) = fleet.await_up("stops")
    assert second["generation"] == 2 and not alive(first["pid"]) and second["conversation"] != conversation
    assert float(back["age"]) >= 3
    launch = fleet.launches("stops")[1]
    assert (launch.planned, launch.end_cause) == (False, "stuck")
    (exited,) = [line for line in fleet.exits() if line["identity"] == "stops"]
    assert (exited["cause"], exited["generation"]) == ("stuck", "1")
    wait_for("it has its work again", lambda: any("do stops" in text for text in told(fleet, second)))
    assert len(said(fleet, "stops", action="nudged", generation="1")) == 1
    await_said(fleet, "frail", action="stuck", outcome="held")
    assert fleet.view("frail")["phase"] == "held"
    with fleet.store() as store:
        kinds = {(notice.kind, notice.identity) for notice in store.notices(0)}
    assert {("stuck", "stops"), ("stuck", "frail"), ("recovery-failed", "frail")} <= kinds
    # Without work only the age shows; who waits for somebody is left to them, and that is said.
    assert ("recovery-failed", "stops") not in kinds
    for name in ("idles", "asks"):
        wait_for("its heart is still", lambda name=name: time.time() - fleet.view(name)["heartbeat_at"] > 3)
    await_ticks(fleet, "Heartbeat")
    for name in ("idles", "asks"):
        view = fleet.view(name)
        assert (view["phase"], view["generation"]) == ("up", 1) and alive(views[name]["pid"])
    # circusd looks again itself: who is not stuck is not ended, whoever asks.
    for name, why in (("idles", "not with it"), ("stops", "last seen"), ("frail", "it is held")):
        refused = fleet.call("end-stuck", name=name)
        assert refused["status"] == "error" and why in refused["reason"], refused
    for given, why in (
        ({"generation": 1}, "generation 2 now, not 1"),
        ({"beat": None}, "it has beaten since"),
    ):
        assert why in fleet.call("end-stuck", name="stops", **given)["reason"]
    assert "it is waiting" in fleet.call("nudge", name="asks")["reason"]
    # `explain` says what the plugin makes of each, by what the plugin has told before.
    for name, action, why in (
        ("asks", "leave", "it is waiting"),
        ("idles", "leave", "no assignment"),
        ("stops", "alive", "last seen"),
    ):
        found = fleet.call("explain", name=name)["heartbeat"]
        assert (found["action"], found["contract"], found["heartbeat"]["runs"]) == (action, True, True)
        assert why in found["reason"], found
    assert fleet.call("explain", name="frail")["heartbeat"] is None
    (record,) = said(fleet, "asks")
    assert (record["action"], record["evidence"]) == ("waiting", "permission: Bash")
    assert said(fleet, "idles") == []


ALL = ("stops", "idles", "asks", "frail")


def test_a_circusd_that_dies_at_the_intent_and_one_that_dies_after_the_end_leave_no_agent_behind(
    fleet: Fleet,
) -> None:
    with_heart(fleet)
    promising(fleet, "alpha", failover__nudge_secs="0", failover__stuck_secs="2")
    fleet.start(crash_at="intent-written")
    (first,) = fleet.await_up("alpha")
    assigned(fleet, "alpha")
    fleet.crashed()
    with fleet.store() as store:
        (action,) = store.open_actions()
    assert (action.intent, action.who) == ("stuck", "heartbeat") and alive(first["pid"])
    fleet.start(crash_at="report-taken-in", wait=False)
    fleet.crashed()
    assert not alive(first["pid"])
    (launch,) = fleet.launches("alpha")
    assert (launch.planned, launch.end_cause) == (False, "stuck")
    fleet.start()
    await_said(fleet, "alpha", action="stuck", outcome="relaunched")
    (second,) = fleet.await_up("alpha")
    assert second["generation"] == 2
    wait_for("it has its work again", lambda: any("do alpha" in text for text in told(fleet, second)))
    assert len(said(fleet, "alpha", action="stuck")) == 1 and len(fleet.launches("alpha")) == 2
