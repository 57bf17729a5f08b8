"""The crash-loop guard on a real fleet: who comes back, who is held, and at what pace."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace

from circus_failover.agent_health import Look
from circus_failover.agent_health import told as told_of
from circus_failover.policy.health import Fault, Health
from circus_failover.store import Store
from circus_failover.words import FaultKind, Source, State
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.with_plugins import (
    CRASHES,
    NEVER,
    await_generation,
    await_said,
    await_ticks,
    causes,
    restarted,
    row,
    said,
    with_guard,
)


def test_an_agent_that_was_killed_comes_back_if_it_is_always_to_run_and_else_does_not(fleet: Fleet) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__restart="lazy")
    fleet.agent("bravo", failover__restart="on-work")
    fleet.agent("charlie", failover__restart="always")
    fleet.start()
    views = fleet.await_up("alpha", "bravo", "charlie")
    for view in views[:2]:
        os.kill(view["pid"], signal.SIGKILL)
        fleet.await_phase(view["identity"], "down")
    os.kill(views[2]["pid"], signal.SIGKILL)
    await_generation(fleet, "charlie", 2)
    assert causes(fleet, "charlie") == ["first-start", "restart-policy"]
    with fleet.store() as store:
        assert store.launches("charlie")[0].asked_by == "crash-loop-guard"
    await_ticks(fleet, "CrashLoopGuard")
    for name in ("alpha", "bravo"):
        assert fleet.view(name)["phase"] == "down" and causes(fleet, name) == ["first-start"]


def test_a_death_is_reacted_to_without_a_tick(fleet: Fleet) -> None:
    with_guard(fleet, interval=NEVER)
    fleet.agent("alpha", failover__restart="always")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    row(fleet, "CrashLoopGuard")  # its first tick, and its only one
    os.kill(view["pid"], signal.SIGKILL)
    await_generation(fleet, "alpha", 2)
    assert row(fleet, "CrashLoopGuard").ticks <= 2


def test_an_agent_that_was_parked_or_stopped_stays_down_whatever_its_restart_policy(fleet: Fleet) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__restart="always")
    fleet.agent("bravo", failover__restart="always")
    fleet.start()
    fleet.await_up("alpha", "bravo")
    assert fleet.ctl("park", "alpha").code == 0
    assert fleet.ctl("stop", "bravo").code == 0
    fleet.await_phase("alpha", "parked")
    fleet.await_phase("bravo", "stopped")
    await_ticks(fleet, "CrashLoopGuard")
    assert causes(fleet, "alpha") == causes(fleet, "bravo") == ["first-start"]
    assert fleet.view("alpha")["phase"] == "parked" and fleet.view("bravo")["phase"] == "stopped"


def test_an_agent_that_crashes_again_and_again_is_held_and_tried_once_when_its_time_has_come(
    fleet: Fleet,
) -> None:
    with_guard(fleet)
    fleet.agent("alpha", failover__command=CRASHES, failover__restart="always", failover__crash_max="3")
    fleet.start()
    fleet.await_phase("alpha", "held", 30)
    assert causes(fleet, "alpha") == ["first-start", "restart-policy", "restart-policy"]
    await_ticks(fleet, "CrashLoopGuard")
    assert len(causes(fleet, "alpha")) == 3

    # It is held for 30 s; they pass while circusd is down.
    fleet.end()
    store = Store(fleet.state / "failover.db")
    agent = store.agent("alpha")
    assert agent is not None and agent.loop == "open" and agent.loop_until is not None
    with store.decision(durable=True):
        store.put_agent(replace(agent, loop_until=time.time() - 1))
    store.close()
    fleet.start()
    await_said(fleet, "alpha", action="half-open")
    wait_for("the trial has failed", lambda: len(said(fleet, "alpha", action="held")) == 2)
    fleet.await_phase("alpha", "held")
    assert len(causes(fleet, "alpha")) == 4
    with fleet.store() as reader:
        agent = reader.agent("alpha")
    assert agent is not None and (agent.loop, agent.loop_failures) == ("open", 1)


def test_a_client_that_exits_for_a_limit_or_a_login_is_not_held_and_one_that_merely_failed_is(
    fleet: Fleet,
) -> None:
    faults = {
        "limited": (State.LIMITED, FaultKind.USAGE_LIMIT, "usage-limit", "down"),
        "spent": (State.LIMITED, FaultKind.CREDIT, "usage-limit", "down"),
        "out": (State.WAITING, FaultKind.CREDENTIALS, "credentials", "down"),
        "network": (State.IDLE, FaultKind.NETWORK, "exited", "held"),
        "at-work": (State.WORKING, FaultKind.USAGE_LIMIT, "exited", "held"),
    }
    for name in faults:
        fleet.agent(name, failover__crash_max="1", failover__restart="lazy")
    fleet.start()
    fleet.await_up(*faults)
    for name in faults:
        fleet.await_screen(name, "standin ready")
    with fleet.store() as store:
        rows = store.agents()
    looks = []
    for name, (state, kind, _, _) in faults.items():
        process = rows[name].process
        assert process is not None
        health = Health(state, Source.SCREEN, fault=Fault(kind, "no more"), evidence=f"screen: {kind}")
        looks.append(told_of(Look(name, rows[name].generation, process, time.time(), health)))
    assert fleet.call("seen", interval=600, agents=looks)["again"] == []
    for name in faults:
        fleet.type(name, "/crash 3")
    for name, (_, kind, cause, phase) in faults.items():
        wait_for(
            f"how {name} ended",
            lambda name=name, cause=cause: fleet.view(name)["cause"] in (cause, "crash-loop"),
        )  # type: ignore[misc]
        view, launch = fleet.await_phase(name, phase), fleet.launches(name)[0]
        assert (launch.end_cause, launch.exit_status, launch.planned) == (cause, 3, False), name
        assert (f"before that screen: {kind}" in view["reason"]) is (phase == "down")


def test_a_failed_trial_that_circusd_died_before_it_counted_is_counted_by_the_next(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__restart="lazy", failover__crash_max="1")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    os.kill(view["pid"], signal.SIGKILL)
    fleet.await_phase("alpha", "held")
    fleet.end()
    store = Store(fleet.state / "failover.db")
    with store.decision(durable=True):
        store.put_agent(replace(store.agents()["alpha"], loop_until=time.time() - 1))
    store.close()
    fleet.start(crash_at="death-recorded")
    assert fleet.ctl("wake", "alpha").code == 0
    os.kill(fleet.view("alpha")["server_pid"], signal.SIGKILL)
    fleet.crashed()
    fleet.start()
    assert "1 launch on trial died" in fleet.await_phase("alpha", "held")["reason"]


def test_an_exit_with_0_while_no_circusd_ran_holds_nobody(fleet: Fleet) -> None:
    fleet.agent("alpha", failover__restart="lazy", failover__crash_max="1")
    fleet.start()
    (view,) = fleet.await_up("alpha")
    fleet.await_screen("alpha", "standin ready")
    fleet.end()
    fleet.type("alpha", "/exit")
    wait_for("it has ended", lambda: not alive(view["pid"]))
    fleet.start()
    wait_for("how it ended is known", lambda: fleet.view("alpha")["cause"] == "exited")
    assert fleet.view("alpha")["phase"] == "down" and said(fleet, "alpha", action="held") == []


def test_after_a_mass_death_relaunches_go_one_by_one_and_stop_with_one_alert(fleet: Fleet) -> None:
    with_guard(fleet)
    names = ("alpha", "bravo", "charlie")
    options = {"failover__restart": "always", "failover__crash_max": "50", "autostart": "False"}
    for name in names:
        fleet.agent(name, failover__command=CRASHES, **options)
    fleet.start()
    # All of them are due at once when the guard comes.
    assert fleet.call("stop", name="plugin:guard", waiting=True)["status"] == "ok"
    fleet.ctl("start", *names)
    for name in names:
        fleet.await_phase(name, "down")
    assert fleet.call("start", name="plugin:guard")["status"] == "ok"
    await_said(fleet, "", action="error", outcome="relaunches-stopped")
    await_ticks(fleet, "CrashLoopGuard")
    again = [cause for name in names for cause in causes(fleet, name)[1:]]
    assert again == ["restart-policy"] * 3
    assert "relaunches in a row failed" in json.loads(row(fleet, "CrashLoopGuard").detail)["alert"]

    with fleet.store() as store:
        lives = [launch for name in names for launch in store.launches(name)]
    ordered = sorted(
        (life for life in lives if life.cause == "restart-policy"), key=lambda life: life.started_at
    )
    for before, after in zip(ordered, ordered[1:], strict=False):
        assert before.ended_at is not None and before.ended_at < after.started_at

    restarted(fleet, "plugin:guard", "CrashLoopGuard")
    await_ticks(fleet, "CrashLoopGuard")
    assert len(said(fleet, "", outcome="relaunches-stopped")) == 1


def test_a_trial_that_lasts_clears_everything_and_a_given_up_one_waits_for_a_person(fleet: Fleet) -> None:
    with_guard(fleet)
    options = {"failover__restart": "always", "failover__crash_max": "1", "failover__stable_secs": "1"}
    fleet.agent("lasts", **options)
    fleet.agent("lost", **options)
    fleet.start()
    for view in fleet.await_up("lasts", "lost"):
        os.kill(view["pid"], signal.SIGKILL)
    fleet.await_phase("lasts", "held")
    fleet.await_phase("lost", "held")
    fleet.end()
    store = Store(fleet.state / "failover.db")
    with store.decision(durable=True):
        rows = store.agents()
        store.put_agent(replace(rows["lasts"], loop_until=time.time() - 1, loop_failures=4))
        store.put_agent(replace(rows["lost"], loop="given-up", loop_until=None, loop_failures=5))
    store.close()
    fleet.start()
    await_said(fleet, "lasts", action="half-open")
    await_said(fleet, "lasts", action="cleared")
    with fleet.store() as reader:
        agent = reader.agent("lasts")
    assert agent is not None and (agent.loop, agent.loop_failures, agent.phase) == ("closed", 0, "up")

    await_ticks(fleet, "CrashLoopGuard")
    assert fleet.view("lost")["phase"] == "held"
    refused = fleet.ctl("wake", "lost")
    assert refused.code == 3 and "reset lost" in refused.err
    assert fleet.view("lost")["cause"] == "given-up"
    assert fleet.ctl("start", "lost").code == 0
    with fleet.store() as reader:
        agent = reader.agent("lost")
    assert agent is not None and (agent.loop, agent.phase) == ("closed", "up")
