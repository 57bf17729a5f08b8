"""Several agents are moved one after another, at a pace; a broken account does not cost the whole fleet."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from circus_failover import mass_switch
from circus_failover.failure import Failed
from circus_failover.mass_switch import Wishes, chosen, line, progress, summary, verdicts
from circus_failover.verbs import switching

Agent = dict[str, Any]


def view(identity: str, account: str = "one", phase: str = "up", pool: str | None = None) -> Agent:
    known = {"identity": identity, "account": account, "phase": phase, "pool": pool, "state": "idle"}
    return {**known, "cause": "wake", "generation": 3}


class Circusd:
    """Answers as circusd does, and keeps what it was asked."""

    def __init__(self, **answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self.pauses: list[tuple[str, float]] = []

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert message["command"] == "switch"
        said = message["properties"]
        self.asked.append(said)
        over = {"identity": said["name"], "ok": True, "under_way": False, "already": False, "generation": 4}
        over.update(
            {"phase": "up", "cause": "switched", "reason": None}, **self.answers.get(said["name"], {})
        )
        if over.pop("at once", False):
            del over["under_way"]
        if over["ok"]:
            return {"status": "ok", "agents": [over]}
        return {"status": "error", "reason": f"{said['name']}: no", "agents": [over]}

    def run(self, agents: list[Agent], **wishes: Any) -> list[dict[str, Any]]:
        given: dict[str, Any] = {"to": "two", "by": "me", **wishes}
        return list(
            verdicts(
                agents, Wishes(**given), self.ask, lambda agent, secs: self._pause(agent["identity"], secs)
            )
        )

    def _pause(self, name: str, secs: float) -> None:
        self.pauses.append((name, secs))


REFUSED = {"ok": False, "reason": "its end is under way", "at once": True}
FAILED = {"ok": False, "phase": "parked", "cause": "switch-failed", "reason": "its boot failed"}


def test_agents_are_chosen_by_name_glob_pool_or_account() -> None:
    fleet = [view("b1"), view("a2", "two", pool="p"), view("a1", pool="p")]
    assert [one["identity"] for one in chosen(fleet, ["A*"])] == ["a1", "a2"]
    assert [one["identity"] for one in chosen(fleet, ["b1", "b*"])] == ["b1"]
    assert [one["identity"] for one in chosen(fleet, [], pool="p")] == ["a1", "a2"]
    assert [one["identity"] for one in chosen(fleet, [], account="one")] == ["a1", "b1"]


def test_an_account_that_all_have_left_is_no_mistake_so_that_the_same_command_may_be_run_again() -> None:
    assert chosen([view("a1", "two")], [], account="one", accounts=lambda: ["one", "two"]) == []


@pytest.mark.parametrize(
    "names, more, said",
    [
        (["alpa", "bravo"], {}, "no agent 'alpa'.*alpha.*nothing was switched"),
        ([], {"pool": "q"}, "no agent with pool 'q'"),
        ([], {"account": "ones"}, "no agent with account 'ones'.*one"),
    ],
)
def test_a_name_that_is_nobodys_switches_nothing(names: list[str], more: dict[str, str], said: str) -> None:
    with pytest.raises(Failed, match=said):
        chosen([view("bravo"), view("alpha", pool="p")], names, **more)


def test_each_is_asked_for_alone_and_who_asked_is_told() -> None:
    circusd = Circusd()
    done = circusd.run([view("a1"), view("a2", "two")], force=True)
    same = {"by": "me", "to": "two", "force": True, "dry_run": False, "waiting": True}
    assert circusd.asked == [{"name": "a1", **same}, {"name": "a2", **same}]
    assert [(one["identity"], one["from"], one["to"]) for one in done] == [
        ("a1", "one", "two"),
        ("a2", "two", "two"),
    ]


def test_one_relaunch_is_a_pace_away_from_the_next() -> None:
    circusd = Circusd(a3={"phase": "down"}, a4=REFUSED)
    agents = [view("a1"), view("a2"), view("a3", phase="down"), view("a4"), view("a5")]
    done = circusd.run(agents, pace=100.0)
    assert [one["how"] for one in done] == ["switched", "switched", "next-launch", "refused", "switched"]
    # Nobody is ended where none runs, and who is refused begins no new pause.
    assert [name for name, _ in circusd.pauses] == ["a2", "a4", "a5"]
    assert all(79 < secs <= 120 for _, secs in circusd.pauses)


def test_nobody_waits_for_who_is_there_already_or_for_a_dry_run() -> None:
    circusd = Circusd(a2={"already": True})
    done = circusd.run([view("a1"), view("a2", "two")], pace=100.0)
    assert [one["how"] for one in done] == ["switched", "already"] and not circusd.pauses
    assert [one["how"] for one in circusd.run([view("a1"), view("a3")], pace=100.0, dry_run=True)] == [
        "switched",
        "switched",
    ]
    assert not circusd.pauses and all(said["dry_run"] for said in circusd.asked[2:])


def test_after_three_in_a_row_that_failed_no_other_one_is_ended() -> None:
    names = [f"a{number}" for number in range(1, 8)]
    circusd = Circusd(**dict.fromkeys(("a1", "a2", "a4", "a5", "a6"), FAILED))
    done = circusd.run([view(name) for name in names], pace=0.0)
    assert [said["name"] for said in circusd.asked] == names[:6]
    assert [one["how"] for one in done] == [*("failed",) * 2, "switched", *("failed",) * 3, "refused"]
    assert not done[-1]["ok"] and "not touched" in done[-1]["reason"]


def test_a_refusal_ends_nothing_so_the_others_go_on() -> None:
    agents = [view(f"a{number}") for number in range(1, 6)]
    circusd = Circusd(**dict.fromkeys(("a1", "a2", "a3", "a4"), REFUSED))
    assert [one["how"] for one in circusd.run(agents)] == [*("refused",) * 4, "switched"]
    assert not circusd.pauses


def test_a_message_that_circusd_refuses_is_the_verdict_of_its_agent() -> None:
    wishes = Wishes("nowhere", "me")
    answer = {"status": "error", "reason": "there is no account nowhere"}
    (verdict,) = verdicts([view("a1")], wishes, lambda message: answer, lambda agent, secs: None)
    assert (verdict["ok"], verdict["how"], verdict["reason"]) == (False, "refused", answer["reason"])
    assert verdict["from"] == "one" and line(verdict) == "a1: refused, up on one: there is no account nowhere"


def test_what_came_of_each_is_said_in_a_line_and_of_all_in_another() -> None:
    circusd = Circusd(
        a2={"phase": "down", "reason": "it is down; its next launch is on account two"},
        a3=FAILED,
        a4={"already": True},
        a5={"under_way": True, "phase": "stopping"},
    )
    done = circusd.run([view(f"a{number}") for number in range(1, 6)], pace=0.0)
    assert [line(one) for one in done] == [
        "a1: up on two (generation 4)",
        "a2: down; its next launch is on two",
        "a3: failed, parked on one: its boot failed",
        "a4: already on two (up)",
        "a5: stopping, on its way to two",
    ]
    assert summary(done[:4], 6) == "6 agents: 1 switched, 1 next-launch, 1 failed, 1 already, 2 not begun"
    assert progress(1, 3, "a2", "in 4 s").endswith("] 1 of 3; a2: in 4 s")
    assert progress(1, 3, "a2", "").count("━") == 10


def test_a_reader_that_goes_away_leaves_agents_behind_and_that_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circusd = Circusd()
    client = SimpleNamespace(endpoint="ipc:///nobody", call=circusd.ask)
    agents: list[mass_switch.View] = [view("a1"), view("a2"), view("a3")]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(Failed, match="3 agents: 1 switched, 2 not begun; .*goes on") as ended:
            switching._carried_out({"json": False}, agents, Wishes("two", "me", pace=0.0), client)
    assert ended.value.code == 3 and [said["name"] for said in circusd.asked] == ["a1"]


def test_the_pace_has_its_share_of_chance() -> None:
    circusd = Circusd()
    circusd.run([view(f"a{number}") for number in range(40)], pace=100.0)
    waits = [secs for _, secs in circusd.pauses]
    assert min(waits) < 95 and max(waits) > 105 and mass_switch.JITTER == 0.2
