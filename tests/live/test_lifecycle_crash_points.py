"""circusd dies at a seam of a park, a fresh launch or a wake with a task: the next one finishes it, once."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from circus_failover import process_table, spool
from circus_failover.records import LaunchRow
from tests import proc
from tests.live.fleet import STANDIN, Fleet, alive, wait_for

END_POINTS = ["intent-written", "worker-started", "report-taken-in"]
PROMPT = "read your notes"
ASKED: dict[str, dict[str, str]] = {
    "nothing": {},
    "resume": {"mode": "resume"},
    "fresh": {"mode": "fresh"},
    "new topic": {"topic": "new"},
}


def copies(fleet: Fleet) -> list[int]:
    """Return the stand-ins that run: more than one for one agent is the worst that can happen."""
    found = []
    for process in fleet.processes():
        if b"circus_failover.standin" in proc.command_line(process.pid):
            found.append(process.pid)
    return [pid for pid in found if alive(pid) and carries(pid)]


def carries(pid: int) -> bool:
    """Say whether it is the agent itself; its tmux server has the same command line, and no launch's name."""
    entries = process_table.environ(pid) or frozenset()
    return any(entry.startswith(b"FAILOVER_LAUNCH=") for entry in entries)


def prepared(
    fleet: Fleet, crash_at: str | None, *, parked: bool = False, prompt: str | None = None, **options: str
) -> LaunchRow:
    """Bring up `bob`, who has talked, under a circusd that dies at a place; return its launch."""
    if prompt is not None:
        options["failover__initial_prompt"] = prompt
    fleet.resumable("bob", **options)
    # A circusd that is to die at the next launch must not be the one that launches it now.
    fleet.start(crash_at=None if crash_at == "launch-recorded" else crash_at)
    first = fleet.begun("bob")
    fleet.converse("bob")
    if parked:
        assert fleet.call("park", name="bob", waiting=True)["status"] == "ok"
    if crash_at == "launch-recorded":
        fleet.end()
        fleet.start(crash_at=crash_at)
        if not parked:
            fleet.await_up("bob")
    return first


def send(fleet: Fleet, command: str, **properties: Any) -> None:
    """Send a verb, wait until circusd died under it, and start the next one."""
    fleet.call_all({"command": command, "name": "bob", **properties}, timeout=0)
    fleet.crashed()


def nothing_is_left(fleet: Fleet) -> None:
    """No intent is open, no report waits, no order lies about: what is late is taken in, too."""

    def done() -> bool:
        with fleet.store() as store:
            return not store.open_actions()

    def tidy() -> bool:
        left = [path.name for path in (fleet.state / "run").iterdir()]
        spool = [path.name for path in (fleet.state / "spool").iterdir()]
        return spool == ["wake.sock"] and not any(name.startswith(("action-", "task-")) for name in left)

    wait_for("the intents are done", done)
    wait_for("nothing lies about", tidy)


def twice(fleet: Fleet) -> None:
    """Start the next circusd, and the one after it: what was carried out is not carried out again."""
    before = len(fleet.launches("bob"))
    fleet.end(signal.SIGKILL)
    fleet.start()
    fleet.await_ticks(1)
    assert len(fleet.launches("bob")) == before


@pytest.mark.parametrize("point", END_POINTS)
def test_a_park_is_finished_once_and_what_it_parked_is_resumed(fleet: Fleet, point: str) -> None:
    first = prepared(fleet, point)
    pid = fleet.view("bob")["pid"]
    send(fleet, "park", by="ann@desk")
    with fleet.store() as store:
        (action,) = store.actions("bob")
        assert store.agents()["bob"].phase == ("parked" if point == "report-taken-in" else "stopping")
    assert (action.intent, action.who) == ("park", "ann@desk")
    fleet.start()
    parked = fleet.await_phase("bob", "parked")
    assert (parked["generation"], parked["parked_by"], parked["pid"]) == (1, "park", None)
    assert not alive(pid) and copies(fleet) == []
    fleet.await_watcher("bob", "stopped")
    nothing_is_left(fleet)
    (launch,) = fleet.launches("bob")
    assert (launch.planned, launch.end_cause) == (True, "parked")
    assert [line["ev"] for line in fleet.lifecycle() if line["ev"] in ("park", "stopped", "exit")] == [
        *("park", "stopped")
    ]
    twice(fleet)
    assert fleet.view("bob")["phase"] == "parked"
    assert fleet.call("wake", name="bob", waiting=True)["status"] == "ok"
    launch = fleet.begun("bob")
    assert (launch.wake_cause, launch.conversation) == ("idle-reaped-resume", first.conversation)


@pytest.mark.parametrize("point", [*END_POINTS, "launch-recorded", "task-typing"])
def test_a_fresh_launch_is_carried_out_exactly_once(fleet: Fleet, point: str) -> None:
    first = prepared(fleet, point, prompt=PROMPT)
    pid = fleet.view("bob")["pid"]
    send(fleet, "fresh", by="ann@desk")
    fleet.start()
    fleet.await_screen("bob", f"done: {PROMPT}")
    launch = fleet.begun("bob")
    assert (launch.mode, launch.conversation != first.conversation) == ("fresh", True)
    # A launch that was recorded and never begun is the one that counts one more.
    assert launch.generation == (3 if point == "launch-recorded" else 2)
    if point != "launch-recorded":
        assert launch.wake_cause == "fresh-requested"
    ended = fleet.launches("bob")[-1]
    assert (ended.planned, ended.end_cause) == (True, "fresh")
    assert not alive(pid) and copies(fleet) == [fleet.view("bob")["pid"]]
    nothing_is_left(fleet)
    twice(fleet)
    assert fleet.prompts(launch.conversation) == [PROMPT]
    assert fleet.call("tasks")["tasks"] == []
    with fleet.store() as store:
        assert [action.intent for action in store.actions("bob")] == ["fresh"]
        assert store.agents()["bob"].pending is None


def test_a_circusd_that_dies_again_and_again_still_carries_it_out_once(fleet: Fleet) -> None:
    prepared(fleet, "intent-written", prompt=PROMPT)
    send(fleet, "fresh")
    for point in ("worker-started", "report-taken-in", "launch-recorded", "task-typing"):
        fleet.start(crash_at=point, wait=False)
        fleet.crashed()
    fleet.start()
    fleet.await_screen("bob", f"done: {PROMPT}")
    launch = fleet.begun("bob")
    assert (launch.mode, launch.generation) == ("fresh", 3)
    nothing_is_left(fleet)
    twice(fleet)
    assert fleet.prompts(launch.conversation) == [PROMPT]


def test_what_an_agent_asked_while_circusd_was_down_is_carried_out_once(fleet: Fleet) -> None:
    """The intent is stored, and circusd dies before it has noted that the request was taken in."""
    prepared(fleet, None, prompt=PROMPT)
    launch = (process_table.environ(fleet.view("bob")["pid"]) or frozenset()).copy()
    name = next(entry for entry in launch if entry.startswith(b"FAILOVER_LAUNCH=")).decode().split("=")[1]
    fleet.end()
    request = {"kind": "self", "what": "fresh", "identity": "bob", "generation": 1, "launch": name}
    spool.send(fleet.state / "spool", request)
    fleet.start(crash_at="intent-written", wait=False)
    fleet.crashed()
    fleet.start()
    fleet.await_screen("bob", f"done: {PROMPT}")
    begun = fleet.begun("bob")
    assert (begun.generation, begun.wake_cause) == (2, "fresh-requested")
    nothing_is_left(fleet)
    twice(fleet)
    assert fleet.prompts(begun.conversation) == [PROMPT]


@pytest.mark.parametrize("point", ["launch-recorded", "task-typing"])
@pytest.mark.parametrize("parked", [True, False], ids=["parked", "never launched"])
def test_the_task_of_a_wake_is_delivered_exactly_once(fleet: Fleet, parked: bool, point: str) -> None:
    if parked:
        first = prepared(fleet, point, parked=True)
    else:
        fleet.resumable("bob", autostart="False")
        fleet.start(crash_at=point)
    send(fleet, "wake", task="add it up", topic="ledger", by="ann@desk")
    with fleet.store() as store:
        (task,) = store.tasks("bob")
    assert (task.text, task.topic, task.who) == ("add it up", "ledger", "ann@desk")
    assert task.state == ("typing" if point == "task-typing" else "queued")
    fleet.start()
    wait_for("it is delivered", lambda: not fleet.call("tasks")["tasks"])
    launch = fleet.begun("bob")
    assert launch.wake_cause in ("idle-reaped-new-topic", "first-wake", "crash-or-self-close")
    assert launch.mode == "fresh" and (not parked or launch.conversation != first.conversation)
    fleet.await_screen("bob", "done: add it up")
    nothing_is_left(fleet)
    twice(fleet)
    assert fleet.prompts(launch.conversation) == ["add it up"]
    assert copies(fleet) == [fleet.view("bob")["pid"]]
    # The topic is known in this conversation now.
    assert fleet.call("park", name="bob", waiting=True)["status"] == "ok"
    assert fleet.call("wake", name="bob", topic="ledger", waiting=True)["status"] == "ok"
    again = fleet.begun("bob")
    assert (again.wake_cause, again.conversation) == ("idle-reaped-resume", launch.conversation)


@pytest.mark.parametrize("what", ASKED)
def test_a_launch_that_circusd_s_death_interrupted_begins_as_it_was_to(fleet: Fleet, what: str) -> None:
    """How it begins was recorded and logged; that circusd died before it was there changes nothing of it."""
    mode = "fresh" if what in ("fresh", "new topic") else "resume"
    first = prepared(fleet, "launch-recorded", parked=True)
    send(fleet, "wake", **ASKED[what])
    recorded = fleet.launches("bob")[0]
    assert (recorded.generation, recorded.mode, recorded.up_at) == (2, mode, None)
    fleet.start()
    launch = fleet.begun("bob")
    assert (launch.generation, launch.mode) == (3, mode)
    assert (launch.conversation == first.conversation) is (mode == "resume")
    assert copies(fleet) == [fleet.view("bob")["pid"]]
    interrupted = fleet.launches("bob")[1]
    assert interrupted.ended_at is not None and interrupted.end_cause == "interrupted-start"
    assert fleet.exits() == [], "nothing that ran has ended"


def test_a_restart_that_circusd_s_death_interrupted_resumes(fleet: Fleet) -> None:
    first = prepared(fleet, "launch-recorded")
    send(fleet, "restart")
    fleet.start()
    launch = fleet.begun("bob")
    assert (launch.wake_cause, launch.parked_by) == ("idle-reaped-resume", "operator-restart")
    assert launch.conversation == first.conversation
    assert copies(fleet) == [fleet.view("bob")["pid"]]


def test_whatever_it_was_at_when_it_was_killed_there_is_one_agent_in_the_end(fleet: Fleet) -> None:
    fleet.agent(
        "bob", failover__ready_secs="0.05", failover__crash_max="100", failover__initial_prompt=PROMPT
    )
    # What it resumes is of no matter here, and it may never have been told anything.
    fleet.sections["watcher:bob"]["failover.resume_command"] = STANDIN
    fleet.start()
    fleet.await_up("bob")
    chance = random.Random(1)
    for _ in range(4):
        burst = [chance.choice(("wake", "start", "park", "restart", "fresh")) for _ in range(3)]
        fleet.call_all(*({"command": verb, "name": "bob"} for verb in burst), timeout=0)
        until = time.monotonic() + chance.uniform(0, 0.6)
        while time.monotonic() < until:  # any moment of it, on purpose
            pass
        fleet.end(signal.SIGKILL)
        fleet.start()
        assert len(copies(fleet)) <= 1, burst

    def settled() -> bool:
        with fleet.store() as store:
            return not store.open_actions() and fleet.view("bob")["phase"] in ("up", "parked", "down")

    wait_for("it has come to rest", settled)
    assert fleet.call("start", name="bob", waiting=True)["status"] == "ok"
    (view,) = fleet.await_up("bob")
    wait_for("one copy", lambda: copies(fleet) == [view["pid"]])
    wait_for("every task is delivered", lambda: not fleet.call("tasks")["tasks"])
    told = fleet.prompts(fleet.launches("bob")[0].conversation)
    assert told in ([], [PROMPT])
    assert fleet.call("stop", name="bob", waiting=True)["status"] == "ok"
    assert copies(fleet) == []
    nothing_is_left(fleet)
    assert all(launch.ended_at is not None for launch in fleet.launches("bob"))
