"""What an answer of circusd changes of what is known of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from circus_failover.web.mirror import Changed, Mirror, parse_topic


def fleet(**phases: str) -> dict[str, Any]:
    agents = [{"identity": name, "phase": phase, "pid": 1} for name, phase in phases.items()]
    return {"agents": agents, "circusd": {"pid": 7, "last_tick": 1.0}}


def take(mirror: Mirror, answer: dict[str, Any], asked: list[str] | None = None) -> Changed:
    """Take in an answer before the next question."""
    return mirror.take_fleet(answer, mirror.question(), asked)


def test_only_what_changed_is_said_and_what_did_not_stays_the_same_object() -> None:
    mirror = Mirror()
    first = take(mirror, fleet(a="up", b="up"))
    assert ([view["identity"] for view in first.agents], first.removed) == (["a", "b"], [])
    before = dict(mirror.agents)
    second = take(mirror, {**fleet(a="up", b="parked"), "circusd": {"pid": 7, "last_tick": 2.0}})
    assert [view["phase"] for view in second.agents] == ["parked"]
    assert mirror.agents["a"] is before["a"]
    assert before["b"]["phase"] == "up", "whoever was handed a view may keep it"
    assert mirror.circusd["last_tick"] == 2.0
    assert not take(mirror, copy.deepcopy(fleet(a="up", b="parked"))), "circusd's clock is no change"
    worse = {**fleet(a="up", b="parked"), "circusd": {"pid": 7, "last_tick": 3.0, "trouble": "no store"}}
    assert take(mirror, worse).circusd


def test_an_agent_is_gone_when_an_answer_about_all_does_not_have_it() -> None:
    mirror = Mirror()
    take(mirror, fleet(a="up", b="up"))
    assert not take(mirror, fleet(b="up"), ["b"]), "an answer about some says nothing about others"
    assert take(mirror, fleet(b="up", c="down")).removed == ["a"]
    assert [*mirror.agents] == ["b", "c"]
    assert take(mirror, {}).removed == ["b", "c"], "a circusd without agents"


def test_what_a_later_question_found_is_not_undone_by_the_answer_to_an_earlier_one() -> None:
    mirror = Mirror()
    take(mirror, fleet(a="up", b="up"))
    all_of_them, one, another = (mirror.question() for _ in range(3))
    later = {**fleet(a="down"), "circusd": {"pid": 7, "trouble": "no store"}}
    assert mirror.take_fleet(later, one, ["a"])
    assert mirror.take_fleet(fleet(new="starting"), another, ["new"])
    changed = mirror.take_fleet(fleet(a="up", b="parked"), all_of_them)
    assert ([view["identity"] for view in changed.agents], changed.removed) == (["b"], [])
    assert {name: view["phase"] for name, view in mirror.agents.items()} == {
        "a": "down",
        "b": "parked",
        "new": "starting",
    }
    # Its own clock and health are the newest that was heard of, too.
    take(mirror, {**fleet(a="down"), "circusd": {"pid": 7, "trouble": "no store"}}, ["a"])
    old = mirror.question()
    mirror.take_fleet({**fleet(b="up"), "circusd": {"pid": 8}}, mirror.question(), ["b"])
    mirror.take_fleet(fleet(b="parked"), old, ["b"])
    assert (mirror.agents["b"]["phase"], mirror.circusd["pid"]) == ("up", 8)
    assert take(mirror, fleet(a="up", b="up")).removed == ["new"], "one that was asked after all of them"


@pytest.mark.parametrize(
    "answer",
    [{"agents": None}, {"agents": [None, {}, {"identity": 5}]}, {"agents": "x", "circusd": "y"}, {}],
)
def test_an_answer_that_makes_no_sense_has_no_agents(answer: dict[str, Any]) -> None:
    mirror = Mirror()
    take(mirror, answer)
    assert (mirror.agents, mirror.circusd) == ({}, {})


def test_processes_are_asked_for_again_where_a_status_is_new() -> None:
    mirror = Mirror()
    take(mirror, fleet(a="up"))
    assert mirror.take_statuses({"a": "active", "Web App": "active"}) == (True, ["Web App", "a"])
    assert mirror.take_pids({"a": [5], "Web App": [6, 7], "gone": [8]})
    assert [*mirror.watchers.values()] == [
        {"name": "Web App", "status": "active", "agent": False, "pids": [6, 7]},
        {"name": "a", "status": "active", "agent": True, "pids": [5]},
    ]
    assert mirror.take_statuses({"a": "active", "Web App": "active"}) == (False, [])
    assert not mirror.take_pids({"a": [5]})
    assert mirror.take_statuses({"a": "stopped", "Web App": "active"}) == (True, ["a"])
    assert mirror.take_statuses({"a": "stopped"}) == (True, [])


def test_events_name_watchers_as_circus_writes_them_in_topics() -> None:
    mirror = Mirror()
    mirror.take_statuses({"Web App": "active", "a.b": "active"})
    assert mirror.named({"web_app", "a.b", "other"}) == ["Web App", "a.b"]
    assert parse_topic("watcher.a.b.spawn") == ("a.b", "spawn")
    assert parse_topic("watcher.web_app.agent") == ("web_app", "agent")
    for nonsense in ("", "watcher", "watcher.", "watcher.a", "plugin.a.spawn"):
        assert parse_topic(nonsense) is None


def test_every_watcher_has_its_turn_however_many_there_are() -> None:
    mirror = Mirror()
    names = [f"w{number:02}" for number in range(7)]
    mirror.take_statuses(dict.fromkeys(names, "active"))
    assert mirror.in_turn(7) == names
    turns = [mirror.in_turn(3) for _ in range(7)]
    assert all(len(turn) == 3 for turn in turns)
    assert sorted(name for turn in turns for name in turn) == sorted(3 * names)
