"""`explain` looks ahead: what it says a wake, the plugins and the queue would do is what then happens."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from dataclasses import replace
from typing import Any

import pytest

from circus_failover.policy.bringup import Hindrance, Situation, decide
from circus_failover.store import Store
from circus_failover.verbs import explanation
from circus_failover.words import Asked, Cause, Liveness, Loop, Phase
from tests.live.fleet import STANDIN, Fleet, wait_for

CRASHES = "sh -c 'exit 3'"


def explain(fleet: Fleet, name: str = "bob") -> dict[str, Any]:
    return fleet.call("explain", name=name)


def lines(fleet: Fleet, name: str = "bob") -> dict[str, str]:
    """Return what `explain` prints for people, by the name each line begins with."""
    done = fleet.ctl("explain", name)
    assert done.code == 0, done
    found = re.findall(r"^  (\S.{11}) (.*)$", done.out, re.MULTILINE)
    return {label.strip(): text for label, text in found}


def newest(fleet: Fleet, name: str = "bob") -> dict[str, Any]:
    launch: dict[str, Any] = explain(fleet, name)["launches"][0]
    return launch


def as_told(told: dict[str, Any], launch: dict[str, Any]) -> bool:
    """Say whether a launch began as it was told before."""
    same = (told["mode"], told["cause"], told["parked_by"]) == (
        *(launch["mode"], launch["wake_cause"]),
        launch["parked_by"],
    )
    return same and told["conversation"] in (None, launch["conversation"])


# -- coming up ---------------------------------------------------------------------------------------


def test_a_parked_agent_would_be_resumed_and_then_is(fleet: Fleet) -> None:
    fleet.agent("bob", failover__resume_command=STANDIN)
    fleet.start()
    (view,) = fleet.await_up("bob")
    up = explain(fleet)
    assert (up["wake"]["mode"], up["wake"]["cause"]) == ("refused", "already-live")
    assert "wake would" not in lines(fleet)
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    told = explain(fleet)
    assert told["wake"]["mode"] == "resume"
    assert told["wake"]["cause"] == "idle-reaped-resume"
    assert told["wake"]["conversation"] == view["conversation"]
    assert told["wake"]["parked_by"] == "park"
    assert told["start_would"]["action"] == "launch"
    text = lines(fleet)["wake would"]
    assert text == f"resume {view['conversation']} (idle-reaped-resume, parked by park)"
    assert fleet.ctl("wake", "bob").code == 0
    assert as_told(told["wake"], newest(fleet))
    assert (
        "launch 2: resume (idle-reaped-resume, parked by park), operator-wake by"
        in fleet.ctl("explain", "bob").out
    )


def test_a_crashed_agent_would_begin_fresh_and_then_does(fleet: Fleet) -> None:
    fleet.agent("bob", failover__resume_command=STANDIN)
    fleet.start()
    fleet.await_up("bob")
    fleet.type("bob", "/crash 7")
    fleet.await_phase("bob", "down")
    told = wait_for("the end is known", lambda: (e := explain(fleet))["agent"]["cause"] == "exited" and e)
    assert (told["wake"]["mode"], told["wake"]["cause"]) == ("fresh", "crash-or-self-close")
    assert told["wake"]["conversation"] is None
    loop = told["crash_loop"]
    assert (loop["state"], loop["deaths"], loop["crash_max"], loop["window_secs"]) == ("closed", 1, 3, 300.0)
    assert (loop["until"], loop["failures"], loop["given_up"]) == (None, 0, False)
    assert (told["restart"]["policy"], told["restart"]["action"]) == ("on-work", "leave")
    text = lines(fleet)
    assert text["crash loop"] == "1 of 3 deaths in 5m"
    assert text["restart"] == "stays down: on-work, and it has neither an assignment nor tasks"
    assert fleet.ctl("wake", "bob").code == 0
    assert as_told(told["wake"], newest(fleet))


def test_a_stopped_agent_refuses_a_wake_and_says_how_start_would_begin(fleet: Fleet) -> None:
    fleet.agent("bob", failover__resume_command=STANDIN)
    fleet.start()
    fleet.await_up("bob")
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    told = explain(fleet)
    assert (told["wake"]["mode"], told["wake"]["cause"]) == ("refused", "stopped")
    text = lines(fleet)
    assert text["wake would"].startswith("be refused (stopped)")
    assert "start bob" in text["wake would"]
    assert text["start would"].startswith("launch: resume ")
    assert fleet.ctl("start", "bob").code == 0
    assert as_told(told["start_would"]["launch"], newest(fleet))


def test_an_observed_and_a_refused_agent_say_why_a_wake_would_launch_nothing(fleet: Fleet) -> None:
    fleet.agent("seen", failover__mode="observe", failover__command="")
    fleet.agent("bob", failover__nonsense="1")
    fleet.start()
    seen, refused = explain(fleet, "seen"), explain(fleet)
    assert (seen["wake"]["mode"], seen["wake"]["cause"]) == ("refused", "observed")
    assert (refused["wake"]["mode"], refused["wake"]["cause"]) == ("refused", "settings")
    assert "failover.nonsense" in refused["wake"]["reason"]
    told = lines(fleet)
    assert told["wake would"] == "be refused (settings)"
    assert "session" not in told, "nobody knows where it would be"
    assert refused["restart"]["action"] == refused["idle"]["action"] == "leave"


def test_while_an_end_is_under_way_a_wake_would_wait(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command=f"{STANDIN} --ignore-term", failover__stop_secs="60")
    fleet.start()
    (view,) = fleet.await_up("bob")
    fleet.await_screen("bob", "standin ready")
    assert fleet.ctl("park", "bob").code == 0
    told = explain(fleet)
    assert (told["wake"]["mode"], told["wake"]["cause"]) == (None, None)
    assert "its end is under way (park)" in lines(fleet)["wake would"]
    os.kill(view["pid"], signal.SIGKILL)
    fleet.await_phase("bob", "parked")


SITUATIONS = list(
    itertools.product(
        (False, True),
        (Phase.DOWN, Phase.HELD, Phase.STOPPED, Phase.PARKED, Phase.UP),
        (False, True),
        (0, 3),
        Liveness,
        (False, True),
        (False, True),
        (None, Hindrance(Cause.GIVEN_UP, "x")),
    )
)


def test_the_gate_says_the_same_of_a_start_and_of_a_wake() -> None:
    for observed, phase, stay, generation, liveness, ours, ending, hindrance in SITUATIONS:
        asked = Situation(
            Asked.START, observed, phase, stay, generation, liveness, ours, ending, hindrance, "unknown"
        )
        start, wake = decide(asked), decide(replace(asked, asked=Asked.WAKE))
        assert (start.action, start.reason) == (wake.action, wake.reason)
        assert start.cause == wake.cause or wake.cause is Cause.OPERATOR_WAKE


# -- crash loops and restarts ------------------------------------------------------------------------


def test_a_held_agent_says_until_when_and_what_the_guard_does_then(fleet: Fleet) -> None:
    fleet.guard()
    fleet.agent("bob", failover__command=CRASHES, failover__ready_secs="0", failover__crash_max="1")
    fleet.start()
    view = fleet.await_phase("bob", "held")
    told = wait_for("the guard ticks", lambda: (e := explain(fleet))["restart"]["guard"]["runs"] and e)
    loop = told["crash_loop"]
    assert (loop["state"], loop["deaths"], loop["crash_max"], loop["given_up"]) == ("open", 1, 1, False)
    assert loop["until"] == view["held_until"]
    assert (told["wake"]["mode"], told["wake"]["cause"]) == ("refused", "crash-loop")
    assert (told["restart"]["action"], told["restart"]["at"]) == ("half-open", loop["until"])
    text = lines(fleet)
    at = time.strftime("%H:%M:%S", time.localtime(loop["until"]))
    assert re.match(rf"held until \S+ {at} \S+; 1 of 1 deaths in 5m", text["crash loop"])
    assert re.match(rf"half-open at \S+ {at} ", text["restart"])
    assert text["wake would"] == "be refused (crash-loop)"
    assert fleet.ctl("reset", "bob").code == 0
    cleared = explain(fleet)
    assert (cleared["crash_loop"]["state"], cleared["crash_loop"]["deaths"]) == ("closed", 0)
    assert cleared["wake"]["mode"] == "fresh"
    assert "crash loop" not in lines(fleet)


def test_a_hold_whose_time_has_come_is_not_said_to_last_until_then() -> None:
    loop = {"state": "open", "deaths": 1, "crash_max": 3, "window_secs": 300.0, "failures": 0, "trials": 5}
    for until, said in (
        (time.time() - 1, "held, and its time has come; "),
        (time.time() + 60, "held until "),
    ):
        assert explanation._loop_line({**loop, "until": until}, "bob").startswith(said)


def test_a_given_up_agent_refuses_a_wake_and_start_would_clear_that_and_does(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    fleet.end()
    store = Store(fleet.state / "failover.db")
    row = store.agent("bob")
    assert row is not None
    with store.decision(durable=True):
        store.put_agent(
            replace(row, phase="held", cause="given-up", loop=str(Loop.GIVEN_UP), loop_failures=5)
        )
    store.close()
    fleet.start()
    told = explain(fleet)
    assert told["crash_loop"]["given_up"] is True
    assert (told["wake"]["mode"], told["wake"]["cause"]) == ("refused", "given-up")
    assert told["start_would"]["action"] == "launch"
    text = lines(fleet)
    assert text["crash loop"] == "given up; failed trials: 5 of 5: `reset bob` or `start bob`"
    assert text["start would"].startswith("launch (clears the crash loop that was given up)")
    assert text["restart"].startswith("stays held")
    assert fleet.ctl("start", "bob").code == 0
    assert explain(fleet)["crash_loop"]["state"] == "closed"


def test_without_a_guard_it_says_that_nobody_carries_the_restart_out(fleet: Fleet) -> None:
    fleet.agent("bob", failover__restart="always")
    fleet.start()
    fleet.await_up("bob")
    fleet.type("bob", "/exit")
    fleet.await_phase("bob", "down")
    told = explain(fleet)
    ended = told["launches"][0]["ended_at"]
    assert told["restart"]["action"] == "launch"
    assert ended + 1.0 <= told["restart"]["at"] <= ended + 1.2
    guard = told["restart"]["guard"]
    assert (guard["runs"], guard["last_tick"], guard["alert"], guard["incident"]) == (False, None, None, None)
    assert lines(fleet)["restart"].endswith("if there were a CrashLoopGuard: none runs, so it stays down")


def test_a_guard_in_dry_run_is_said_to_do_nothing(fleet: Fleet) -> None:
    fleet.guard(dry_run="true")
    fleet.agent("bob", failover__restart="always")
    fleet.start()
    fleet.await_up("bob")
    fleet.type("bob", "/exit")
    fleet.await_phase("bob", "down")
    told = wait_for("the guard ticks", lambda: (e := explain(fleet))["restart"]["guard"]["runs"] and e)
    assert told["restart"]["guard"]["dry_run"] is True
    assert lines(fleet)["restart"].endswith("dry run: nothing is done")


# -- idle --------------------------------------------------------------------------------------------


def test_what_the_reaper_makes_of_an_agent_is_said_with_its_evidence(fleet: Fleet) -> None:
    fleet.reaper(interval="0.5", dry_run="true")
    fleet.agent("bob", failover__idle_secs="0.1")
    fleet.agent("never", failover__idle_secs="0")
    fleet.agent("busy")
    fleet.start()
    (view, *_) = fleet.await_up("bob", "never", "busy")
    young = wait_for(
        "the reaper ticks", lambda: (e := explain(fleet, "busy"))["idle"]["reaper"]["runs"] and e
    )
    assert (young["idle"]["action"], young["idle"]["idle_secs"]) == ("young", 3600.0)
    assert young["idle"]["evidence"]["attached"] is None
    assert lines(fleet, "busy")["idle reaper"].startswith("leaves it alone: idle for ")
    assert lines(fleet, "never")["idle reaper"].startswith("never parks it: ")

    idle = wait_for("bob is idle", lambda: (e := explain(fleet)["idle"])["action"] == "park" and e)
    assert idle["idle"] > 0.1
    assert idle["evidence"]["attached"] == idle["evidence"]["tool_children"] == 0
    assert idle["evidence"]["last_activity"] is not None
    assert idle["reaper"]["dry_run"] is True
    assert lines(fleet)["idle reaper"].startswith("would park it, but for dry_run: idle for ")

    os.kill(view["server_pid"], signal.SIGSTOP)
    try:
        stuck = explain(fleet)["idle"]
        text = lines(fleet)["idle reaper"]
    finally:
        os.kill(view["server_pid"], signal.SIGCONT)
    assert stuck["action"] == "unknown"
    assert stuck["evidence"]["attached"] is None
    assert text.startswith("unknown, so it leaves it alone: the probe failed: ")

    fleet.type("bob", "/child 60")
    fleet.await_screen("bob", "child")
    tool = wait_for("a tool is seen", lambda: (e := explain(fleet)["idle"])["action"] == "busy" and e)
    assert tool["evidence"]["tool_children"] == 1
    assert tool["reason"] == "running processes of tools: 1"


def test_without_a_reaper_it_says_that_nobody_is_parked(fleet: Fleet) -> None:
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    told = explain(fleet)["idle"]
    assert told["reaper"] == {"runs": False, "last_tick": None, "dry_run": False}
    assert lines(fleet)["idle reaper"] == "does not run: no agent is parked for being idle"


@pytest.mark.parametrize("detail", ["[1", "[]", '{"attached": 3, "floor": "x"}'])
def test_what_a_plugin_stored_may_be_anything(fleet: Fleet, detail: str) -> None:
    from circus_failover.records import PluginRow

    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    fleet.end()
    store = Store(fleet.state / "failover.db")
    with store.decision(durable=True):
        for name in ("IdleReaper", "CrashLoopGuard"):
            store.put_plugin(PluginRow(name, 1, time.time(), 0.1, 30.0, detail=detail))
    store.close()
    fleet.start()
    fleet.await_up("bob")
    told = explain(fleet)
    assert told["status"] == "ok"
    assert told["idle"]["reaper"]["runs"] is False, "no section declares it any more"


# -- tasks -------------------------------------------------------------------------------------------


def test_waiting_tasks_are_listed_by_how_they_begin_also_of_a_stopped_agent(fleet: Fleet) -> None:
    fleet.agent("bob", failover__command=CRASHES, failover__ready_secs="0", failover__crash_max="1")
    fleet.agent("eve")
    fleet.start()
    fleet.await_phase("bob", "held")
    nothing_waits = fleet.ctl("fleet").out
    assert "REASON" in nothing_waits
    assert "TASKS" not in nothing_waits
    assert fleet.ctl("wake", "bob", "--task", "first\n" + "x" * 5000 + "SECRET", "--topic", "t").code == 3
    for number in range(6):
        assert fleet.ctl("wake", "bob", "--task", f"task number {number}").code == 3
    assert fleet.ctl("stop", "bob", "--waiting").code == 0
    told = explain(fleet)
    assert told["wake"]["cause"] == "stopped"
    assert [task["state"] for task in told["tasks"]] == ["queued"] * 7
    first = told["tasks"][0]
    assert {"id", "state", "begins", "attempts", "note", "topic"} <= first.keys()
    assert first["begins"].startswith("first xxx")
    assert "SECRET" not in str(told["tasks"])
    text = fleet.ctl("explain", "bob").out
    assert re.search(r"^  task 1: queued, \S+ ago by \S+@failoverctl, topic t: first xxx", text, re.MULTILINE)
    assert "and 2 more: failoverctl tasks bob" in text
    assert "SECRET" not in text
    heading, *rows = fleet.ctl("fleet").out.splitlines()
    column = heading.index("TASKS")
    shown = {row.split()[0]: row[column:].split()[0] for row in rows if row.startswith(("bob", "eve"))}
    assert shown == {"bob": "7", "eve": "-"}


def test_what_cannot_be_logged_shows_in_fleet(fleet: Fleet) -> None:
    fleet.state.mkdir(mode=0o700)
    (fleet.state / "lifecycle.log").mkdir()
    fleet.agent("bob")
    fleet.start()
    fleet.await_up("bob")
    answer = fleet.call("fleet")["circusd"]
    assert answer["log_lines_lost"] > 0
    assert "lifecycle.log" in answer["log_trouble"]
    out = fleet.ctl("fleet").out
    assert re.search(r"trouble: \d+ lines of lifecycle.log or exits.log could not be written: ", out)
