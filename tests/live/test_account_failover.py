"""Agents at the limit of their account, on a real fleet: moved, held, woken again, and nobody twice."""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial

from circus_failover.policy.continuing import GO_ON
from circus_failover.records import AgentRow
from tests.live.account_fleet import AccountFleet
from tests.live.fleet import Fleet, alive, wait_for
from tests.live.with_plugins import await_said, restarted

PLUGIN = "AccountFailover"


def with_failover(fleet: Fleet, **options: str) -> None:
    """Give the fleet what looks at its agents, and what moves and holds them."""
    fleet.states(interval="0.3")
    use = f"circus_failover.plugins.{PLUGIN}"
    fleet.plugins["plugin:failover"] = {"use": use, "interval": "0.5", "pace": "0.2", **options}


def row(fleet: Fleet, name: str) -> AgentRow:
    with fleet.store() as store:
        return store.agents()[name]


def test_at_a_limit_each_is_moved_held_parked_or_left_as_it_says_and_comes_back_by_itself(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet)
    accounts.agent("bob")
    for name in ("wait", "park", "notify"):
        accounts.agent(name, failover__on_limit=name)
    with_failover(fleet)
    fleet.guard(interval="0.5")
    fleet.start()
    views = {view["identity"]: view for view in fleet.await_up("bob", "wait", "park", "notify")}
    for name in views:
        fleet.converse(name, f"I am {name}")
    for asked in ({}, {"names": "bob"}, {"names": ["nobody"]}, {"names": ["bob"], "action": "explode"}):
        assert fleet.call("on-limit", **asked)["status"] == "error", asked
    refused = fleet.call("on-limit", names=["bob"], generation=1, action="switch")
    assert refused["reason"] == "bob: switch is not to be done any more: nothing is wrong with its account"
    conversation = views["bob"]["conversation"]

    accounts.limit("one")
    for name in views:
        fleet.type(name, f"go, {name}")
    wait_for("bob goes on", lambda: any("go, bob" in text for text in accounts.answers(conversation)))
    assert accounts.account_of("bob") == "two" and not alive(views["bob"]["pid"])
    held, parked = fleet.await_phase("wait", "held"), fleet.await_phase("park", "parked")
    assert (held["cause"], parked["cause"], parked["parked_by"]) == ("limited", "limited", "limit")
    await_said(fleet, "notify", action="limited", outcome="left")
    assert fleet.view("notify")["phase"] == "up" and alive(views["notify"]["pid"])
    assert row(fleet, "wait").limited_until and row(fleet, "park").limited_until is None

    # Nobody brings it back before its time, and the reason says what can be done.
    for verb in ("start", "wake"):
        answer = fleet.ctl(verb, "wait")
        assert answer.code == 3 and "failover.on_limit is wait: limited (5-hour), resets" in answer.err
        assert "failoverctl switch wait --to two" in answer.err
        assert "failoverctl accounts forget one" in answer.err
    assert fleet.view("wait")["phase"] == "held" and len(fleet.launches("wait")) == 1
    assert fleet.ctl("stop", "wait").code == 0 and fleet.view("wait")["phase"] == "stopped"

    # Both are exhausted now: it is held until the first one resets, and then it goes on where it was.
    accounts.limit("two", 5)
    fleet.type("bob", "and on")
    fleet.await_phase("bob", "held")
    fleet.end(signal.SIGKILL)
    fleet.start()
    wait_for("bob goes on again", lambda: any("and on" in text for text in accounts.answers(conversation)))
    assert accounts.account_of("bob") == "two"
    assert [launch.end_cause for launch in fleet.launches("bob")] == [None, "limited", "switched"]
    assert [launch.mode for launch in fleet.launches("bob")] == ["resume", "resume", "fresh"]
    said = ["I am bob", "go, bob", GO_ON, "and on", GO_ON]
    assert accounts.prompts(conversation) == said, "each turn that was cut off goes on once"
    assert all(sum(text in one for one in accounts.answers(conversation)) == 1 for text in said[1::2])
    assert fleet.view("wait")["phase"] == "stopped" and fleet.view("park")["phase"] == "parked"
    assert (row(fleet, "bob").loop, fleet.exits()) == ("closed", [])


def test_six_that_are_logged_out_at_once_are_all_moved_and_none_twice_also_when_the_plugin_is_killed(
    fleet: Fleet,
) -> None:
    accounts = AccountFleet(fleet, "one", "two", "three", max_agents=7)
    names = [f"a-{number}" for number in range(6)]
    for name in names:
        accounts.agent(name)
    accounts.agent("early", failover__switch_at="80")
    accounts.agent("late", failover__pool="crew", autostart="False")
    with_failover(fleet)
    fleet.start()
    views = {view["identity"]: view for view in fleet.await_up("early", *names)}

    # One that is idle leaves before the wall, the others stay.
    accounts.used("one", 90)
    fleet.converse("early")
    wait_for("it is moved", lambda: _moved(fleet, ["early"]))
    assert accounts.account_of("early") == "three"

    accounts.limit("one", kind="credentials")
    for name in names:
        fleet.await_screen(name, "standin ready")
        fleet.type(name, f"go, {name}")
    wait_for("one is moved", lambda: _moved(fleet, names))
    restarted(fleet, "plugin:failover", PLUGIN)
    wait_for("all are moved", lambda: len(_moved(fleet, names)) == 6)
    for name in names:
        conversation, turn = views[name]["conversation"], f"go, {name}"
        wait_for(f"{name} goes on", partial(_finished, accounts, conversation, turn))
        assert accounts.prompts(conversation) == [turn, GO_ON]
        assert [launch.generation for launch in fleet.launches(name)] == [2, 1]
        assert not alive(views[name]["pid"])
    used = Counter(accounts.account_of(name) for name in ("early", *names))
    assert sorted(used.items()) in ([("three", 3), ("two", 4)], [("three", 4), ("two", 3)]), (
        "the least loaded"
    )

    # Work that waits for one that is down on the exhausted account: its launch is on another one.
    assert fleet.call("assign", id="w1", task="/job 0.1 w1", pool="crew")["status"] == "ok"
    fleet.await_up("late")
    assert accounts.account_of("late") in ("two", "three") and len(fleet.launches("late")) == 1
    wait_for("its work is done", partial(_done, fleet, "w1"))
    assert fleet.exits() == []


def _moved(fleet: Fleet, names: list[str]) -> list[str]:
    return [
        name for name in names if fleet.view(name)["phase"] == "up" and fleet.view(name)["generation"] > 1
    ]


def _finished(accounts: AccountFleet, conversation: str, turn: str) -> bool:
    return any(turn in text for text in accounts.answers(conversation))


def _done(fleet: Fleet, name: str) -> bool:
    with fleet.store() as store:
        found = store.assignment(name)
    return found is not None and found.state == "done"
