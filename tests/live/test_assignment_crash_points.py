"""circusd dies at every seam in the life of an assignment: the next one goes on with it, once."""

from __future__ import annotations

import os
import signal

from tests.live.fleet import Fleet
from tests.live.test_assignments import answers, assignment, await_state, work_lines


def test_an_assignment_outlives_a_circusd_that_dies_again_and_again(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.guard()
    fleet.start(crash_at="assignment-stored")
    fleet.await_up("bob")
    text = "/job 3 sums"  # it is killed at it
    fleet.call_all(
        {"command": "assign", "name": "bob", "id": "sums", "task": text, "by": "ann@desk"}, timeout=0
    )
    fleet.crashed()
    row = assignment(fleet, "sums")
    assert row is not None and (row.state, row.owner, row.who) == ("queued", None, "ann@desk")

    fleet.start(crash_at="assignment-dispatched", wait=False)
    fleet.crashed()
    row = assignment(fleet, "sums")
    assert row is not None and (row.state, row.owner, row.delivered_at) == ("queued", "bob", None)
    with fleet.store() as store:
        (task,) = store.tasks("bob")
    assert (task.id, task.assignment, task.text, task.state) == (row.task, "sums", text, "queued")

    fleet.start(crash_at="assignment-recovered")
    first = await_state(fleet, "sums", "delivered", "working")
    # The guard may bring it back before circusd has its work recovered, and it dies right behind that.
    (guard,) = fleet.call("list", name="plugin:guard")["pids"]
    os.kill(guard, signal.SIGSTOP)
    os.kill(fleet.view("bob")["pid"], signal.SIGKILL)
    fleet.crashed()
    os.kill(guard, signal.SIGCONT)
    row = assignment(fleet, "sums")
    assert row is not None and (row.state, row.owner, row.retries) == ("queued", "bob", 1)
    assert row.task != first.task and fleet.launches("bob")[0].assignment == "sums"

    fleet.start(crash_at="assignment-done", wait=False)
    fleet.crashed(timeout=30)
    assert len(list((fleet.state / "spool").glob("*-self.json"))) == 1, (
        "its report was not taken in as a whole"
    )

    fleet.start()
    fleet.await_ticks()
    row = assignment(fleet, "sums")
    assert row is not None and (row.state, row.owner, row.retries) == ("done", "bob", 1)
    assert row.generation == 2 and len(fleet.launches("bob")) == 2
    assert answers(fleet, text) == 1
    assert [len(work_lines(fleet, action)) for action in ("queued", "dispatched", "recovered", "done")] == [
        1
    ] * 4
    assert list((fleet.state / "spool").glob("*.json*")) == []
    with fleet.store() as store:
        assert store.tasks() == [] and store.notices(0) == []
