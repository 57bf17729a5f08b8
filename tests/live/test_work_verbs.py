"""Work from the command line: given, listed, taken back, reported by agents, waited for across a restart."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.live.fleet import BIN, Fleet, wait_for
from tests.live.test_fresh import ask, environment_of, granted, refused

NOWHERE: list[tuple[dict[str, Any], str]] = [
    ({"name": "bbo", "task": "x"}, "did you mean 'bob'"),
    ({"pool": "crw", "task": "x"}, "did you mean 'crew'"),
    ({"pool": ["crew"], "task": "x"}, "expected a text"),
    ({"name": "bob", "pool": "crew", "task": "x"}, "not both"),
    ({"task": "x"}, "the name of one agent, or a pool"),
    ({"name": "bob"}, "expected what the agent is told"),
    ({"name": "bob", "task": "\x1b[2J"}, "nothing was assigned"),
    ({"name": "bob", "task": "x", "id": "../x"}, "1 to 100"),
    ({"name": "bob", "task": "x", "topic": 1}, "expected a text"),
]


def item(fleet: Fleet, name: str) -> dict[str, Any]:
    """Return what `work` says of an assignment."""
    answer = fleet.call("work", ids=[name])
    assert answer["status"] == "ok", answer
    found: dict[str, Any] = answer["assignments"][0]
    return found


def await_taken(fleet: Fleet, name: str) -> str:
    """Wait until an agent was told an assignment, and return which one."""
    owner = wait_for(
        f"{name} is taken",
        lambda: (found := item(fleet, name))["state"] in ("delivered", "working") and found["owner"],
    )
    assert isinstance(owner, str)
    return owner


def test_work_is_given_shown_taken_back_and_reported(fleet: Fleet) -> None:
    for name in ("bob", "eve"):
        fleet.agent(name, failover__pool="crew")
    fleet.start()
    fleet.await_up("bob", "eve")
    bob, eve = environment_of(fleet, "bob"), environment_of(fleet, "eve")

    given = fleet.ctl("--json", "assign", "bob", "--id", "j:1", "--task", "first\nof all")
    assert (given.code, given.json()["assignment"]["id"], given.json()["already"]) == (0, "j:1", False)
    again = fleet.call("assign", name="bob", id="j:1", task="first\nof all")
    assert (again["status"], again["already"]) == ("ok", True)
    assert "another assignment" in fleet.call("assign", name="bob", id="j:1", task="other")["reason"]
    for properties, words in NOWHERE:
        answer = fleet.call("assign", **properties)
        assert answer["status"] == "error" and words in answer["reason"], (properties, answer)
    assert await_taken(fleet, "j:1") == "bob"

    listed = fleet.ctl("work")
    assert listed.code == 0 and listed.out.splitlines()[-1] == "delivered 1", listed
    assert "first of all" in listed.out
    assert (
        fleet.ctl("work", "j:2").err == "error: no assignment j:2; did you mean 'j:1'?; `work` lists them\n"
    )
    assert [one["id"] for one in fleet.call("work", agent="bob", state="delivered")["assignments"]] == ["j:1"]
    assert fleet.call("work", agent="eve", pool="crew")["assignments"] == []
    assert "did you mean 'crew'" in fleet.call("work", pool="crow")["reason"]
    assert "j:1" in fleet.ctl("fleet").out
    explained = fleet.ctl("explain", "bob").out
    assert "assignment   j:1 (delivered" in explained and "0 of 3 allowed" in explained
    history = fleet.ctl("history", "bob").out
    assert all(f"action={step} assignment=j:1" in history for step in ("queued", "dispatched", "delivered"))

    refused(ask(eve, "done"), 3, "it has no assignment")
    refused(ask(eve, "done", "j:1"), 3, "bob's")
    granted(ask(bob, "done", "--note", "all\nright"), "j:1 is done")
    granted(ask(bob, "done"), "j:1 is done already")
    refused(ask(bob, "failed", "j:1"), 3, "done already")
    assert (item(fleet, "j:1")["note"], item(fleet, "j:1")["owner"]) == ("all right", "bob")
    assert fleet.call("work")["assignments"] == []
    assert [one["id"] for one in fleet.call("work", all=True)["assignments"]] == ["j:1"]

    assert fleet.call("assign", pool="crew", id="j:2", task="second")["status"] == "ok"
    first = await_taken(fleet, "j:2")
    released = fleet.ctl("release", "j:2", "nope")
    assert (
        released.code == 3 and "no assignment nope" in released.err and "but changed was j:2" in released.err
    )
    second = await_taken(fleet, "j:2")
    assert second != first, "an agent that it was taken from gets it only when there is no other"
    moved = fleet.ctl("reassign", "j:2", first)
    assert moved.code == 0 and f"`fresh {second}` begins it anew, `park {second}` ends it" in moved.out, moved
    assert await_taken(fleet, "j:2") == first
    cancelled = fleet.call("cancel", ids=["j:2"])
    assert cancelled["assignments"][0]["state"] == "cancelled"
    assert f"{first} was told j:2" in cancelled["assignments"][0]["advice"]
    assert "nothing is left to be done" in fleet.call("release", ids=["j:2"])["reason"]

    # Waited for, while circusd goes and comes back; what an agent reports meanwhile is taken in once.
    command = [str(BIN / "failoverctl"), "assign", "eve", "--id", "j:3", "--task", "third", "--wait"]
    with subprocess.Popen(command, env=fleet.environment, stdout=subprocess.PIPE, text=True) as waiting:
        wait_for("it is given", lambda: fleet.call("work", ids=["j:3"])["status"] == "ok")
        assert await_taken(fleet, "j:3") == "eve"
        fleet.end()
        for _ in range(2):
            granted(ask(eve, "done", "--note", "at last"), "done is stored: circusd is down")
        fleet.start()
        out, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, out
    assert out.splitlines()[-1] == "j:3: done by eve: at last"
    assert not list((fleet.state / "spool").glob("*-self.json*"))
    done = [line for line in fleet.lifecycle() if line["ev"] == "work" and line["action"] == "done"]
    assert [line["assignment"] for line in done] == ["j:1", "j:3"]
