"""Work given to a fleet: every item done exactly once, whoever dies with it."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from circus_failover.records import AssignmentRow
from tests.live.fleet import Fleet, wait_for


def assignment(fleet: Fleet, name: str) -> AssignmentRow | None:
    """Return what the store says of an assignment."""
    with fleet.store() as store:
        return store.assignment(name)


def await_state(fleet: Fleet, name: str, *states: str) -> AssignmentRow:
    """Wait until an assignment is in one of these states."""

    def look() -> AssignmentRow | None:
        row = assignment(fleet, name)
        return row if row is not None and row.state in states else None

    return wait_for(f"{name} is {' or '.join(states)}", look)


def answers(fleet: Fleet, job: str) -> int:
    """Return how often stand-ins have finished a job, in all their conversations."""
    found = 0
    for path in fleet.work.glob(".standin/projects/*/*.jsonl"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            found += entry["type"] == "assistant" and f"done: {job}" in json.dumps(entry["message"])
    return found


def work_lines(fleet: Fleet, action: str, name: str | None = None) -> list[dict[str, str]]:
    """Return the `ev=work` records of one action."""
    return [
        line
        for line in fleet.lifecycle()
        if line["ev"] == "work" and line["action"] == action and name in (None, line["assignment"])
    ]


def give(fleet: Fleet, name: str, secs: float, **whom: str) -> dict[str, Any]:
    """Give a job to a stand-in, or a pool of them."""
    return fleet.call("assign", id=name, task=f"/job {secs:g} {name}", **whom)


def test_whoever_dies_with_work_each_item_is_done_exactly_once(fleet: Fleet) -> None:
    names = ["p-0", "p-1", "p-2"]
    for name in names:
        fleet.resumable(name, failover__pool="crew", failover__restart="on-work")
    fleet.resumable("doomed", failover__work_retries="0")
    fleet.guard()
    fleet.start()
    fleet.await_up(*names, "doomed")
    poison = fleet.call("assign", id="poison", task="/kill KILL", name="doomed")
    assert poison["status"] == "ok"

    assert give(fleet, "long", 2.5, pool="crew")["status"] == "ok"
    row = await_state(fleet, "long", "delivered", "working")
    assert row.owner is not None
    view = fleet.view(row.owner)
    assert view["assignment"] == "long" and view["assignment_state"] in ("delivered", "working")
    os.kill(view["pid"], signal.SIGKILL)
    for number in range(3):
        assert give(fleet, f"short-{number}", 0.1, pool="crew")["status"] == "ok"
    again = give(fleet, "short-0", 0.1, pool="crew")
    assert again["status"] == "ok" and again["already"], "the same id again is not a second job"

    jobs = ["long", "short-0", "short-1", "short-2"]
    rows = {name: await_state(fleet, name, "done") for name in jobs}
    assert [answers(fleet, f"/job {2.5 if name == 'long' else 0.1:g} {name}") for name in jobs] == [
        1,
        1,
        1,
        1,
    ]
    assert (rows["long"].owner, rows["long"].retries) == (row.owner, 1)
    (line,) = work_lines(fleet, "recovered")
    assert (line["assignment"], line["owner"], line["cause"]) == ("long", row.owner, "signaled")
    crashed = fleet.launches(row.owner)[-1]
    assert (crashed.assignment, crashed.planned, crashed.end_cause) == ("long", False, "signaled")

    # One that kills its agent at the moment of Enter is a death with work like any other.
    assert await_state(fleet, "poison", "orphaned").last_owner == "doomed"
    assert fleet.launches("doomed")[-1].assignment == "poison"

    # Without work nobody is told to go on, and nobody is alarmed.
    idle = next(name for name in names if name != row.owner)
    os.kill(fleet.view(idle)["pid"], signal.SIGKILL)
    fleet.await_phase(idle, "down")
    fleet.await_ticks()
    assert len(work_lines(fleet, "recovered")) == 1 and fleet.view(idle)["phase"] == "down"
    with fleet.store() as store:
        assert [(notice.kind, notice.key) for notice in store.notices(0)] == [("orphaned", "poison")]
        assert store.tasks() == [] and store.assigned() == {}

    # A member that is parked is woken when the others have their hands full.
    assert fleet.call("park", name=idle, waiting=True)["status"] == "ok"
    late = ({"id": f"late-{number}", "task": f"/job 0.3 late-{number}"} for number in range(3))
    # At once: the first ones are not done before the last one is given.
    given = fleet.call_all(*({"command": "assign", "pool": "crew", **one} for one in late))
    assert [answer["status"] for answer in given] == ["ok"] * 3
    for number in range(3):
        await_state(fleet, f"late-{number}", "done")
    fleet.await_up(idle)
    assert fleet.launches(idle)[0].asked_by == "assignment late-2"
    assert [answers(fleet, f"/job 0.3 late-{number}") for number in range(3)] == [1, 1, 1]
