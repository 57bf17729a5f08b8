"""What a launch goes on with, on a real store and real transcripts: nothing is lost or told twice."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from circus_failover.agent import Agent
from circus_failover.continuing import Continuing
from circus_failover.policy.continuing import GO_ON
from circus_failover.records import LaunchRow, TaskRow
from circus_failover.waking import WakePlan
from circus_failover.words import TaskState, WakeCause, WakeMode
from tests.test_assignments import Held

CONVERSATION = "01a1ff65-d390-43e2-9772-0123456789ab"
NOW = time.time()
ASKED = "add the ledger up, all of it"
RESUME = WakePlan(
    *(WakeMode.RESUME, WakeCause.RESUME_REQUESTED, CONVERSATION, ("claude",), "switch", None, "resume")
)
FRESH = replace(RESUME, mode=WakeMode.FRESH, conversation="another")


class Yard:
    """One agent that was ended in its first launch, and its transcript."""

    def __init__(self, folder: Path) -> None:
        self.held = Held(folder)
        self.continuing = Continuing(self.held)  # type: ignore[arg-type]
        self.agent: Agent = self.held.agent("bob", runtime="claude")
        self.agent.row = replace(
            self.agent.row,
            phase="parked",
            conversation=CONVERSATION,
            home=str(folder),
            working_dir=str(folder),
            interrupted="switched",
        )
        self.path = folder / "projects" / "x" / f"{CONVERSATION}.jsonl"
        self.path.parent.mkdir(parents=True)
        self.launched(1)

    def launched(self, generation: int) -> None:
        """Record a launch in the conversation, which has ended."""
        assert self.held.store is not None
        launch = LaunchRow("bob", generation, "x", "x", "one", CONVERSATION, NOW - 600)
        with self.held.store.decision(durable=False):
            self.held.store.end_launch("bob", generation - 1, at=NOW - 600, planned=True, cause="x")
            if generation not in [one.generation for one in self.held.store.launches("bob")]:
                self.held.store.add_launch(launch)
            else:
                self.held.store.update_launch("bob", generation, conversation=CONVERSATION)
        self.agent.row = replace(self.agent.row, generation=generation)

    def said(self, text: str, at: float, role: str = "user") -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        record = {"type": role, "timestamp": stamp, "message": {"role": role, "content": text}}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def task(self, text: str, state: str = "delivered", **more: object) -> TaskRow:
        """Store a task that was typed into its launch."""
        assert self.held.store is not None
        row = TaskRow(0, "bob", text, None, "me", NOW - 300, state=state, **more)  # type: ignore[arg-type]
        with self.held.store.decision(durable=False):
            row = self.held.store.add_task(row)
            self.held.store.update_task(
                row.id, generation=self.agent.row.generation, done_at=more.get("done_at")
            )
        self.held.deliveries.reload(self.agent)
        return row

    def taken(self, task: TaskRow, at: float) -> None:
        """Let its launch take a task."""
        assert self.held.store is not None
        values = {"state": "delivered", "generation": self.agent.row.generation, "done_at": at}
        with self.held.store.decision(durable=False):
            self.held.store.update_task(task.id, **values)
        self.held.deliveries.reload(self.agent)

    def launch(self, plan: WakePlan = RESUME) -> list[str]:
        """Begin a launch, and return what it is told, in order."""
        write = self.continuing.at_launch(self.agent, plan)
        if write is not None:
            assert self.held.store is not None
            with self.held.store.decision(durable=False):
                write(self.held.store)
            self.held.deliveries.reload(self.agent)
        self.agent.row = replace(self.agent.row, interrupted=None)
        return [task.text for task in self.held.deliveries.waiting(self.agent)]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_a_turn_that_was_cut_off_is_told_to_go_on_before_all_that_waits_and_once(yard: Yard) -> None:
    yard.said(ASKED, NOW - 200)
    yard.task(ASKED, done_at=NOW - 199)
    yard.task("next", state="queued")
    assert yard.continuing.unfinished(yard.agent)
    assert yard.launch() == [GO_ON, "next"]
    # That launch failed before it was told: the next one is, and it is a resume however it was asked for.
    yard.launched(2)
    assert yard.continuing.unfinished(yard.agent)
    assert yard.launch() == [GO_ON, "next"]
    # Ended once more before it was told: still once.
    yard.agent.row = replace(yard.agent.row, interrupted="limited")
    assert yard.launch() == [GO_ON, "next"]
    # It begins anew after all: what was to go on is told as a whole.
    assert yard.launch(FRESH) == [ASKED, "next"]


def test_what_was_answered_or_was_never_interrupted_is_not_told(yard: Yard) -> None:
    yard.said(ASKED, NOW - 200)
    yard.task(ASKED, done_at=NOW - 199)
    yard.said("it is 42", NOW - 100, role="assistant")
    assert not yard.continuing.unfinished(yard.agent)
    assert yard.launch() == []
    yard.said("something by hand", NOW - 50)
    assert not yard.continuing.unfinished(yard.agent) and yard.launch() == []


def test_a_task_that_its_client_kept_to_itself_comes_again_and_is_never_lost_on_the_way(yard: Yard) -> None:
    yard.said(ASKED, NOW - 200)
    yard.task(ASKED, done_at=NOW - 199)
    yard.task("then send it to Zoe, please", done_at=NOW - 150)
    assert yard.launch() == [GO_ON, "then send it to Zoe, please"]
    yard.launched(2)
    yard.agent.row = replace(yard.agent.row, interrupted="switched")
    assert yard.launch() == [GO_ON, "then send it to Zoe, please"]
    # It takes both; the next end comes right behind that.
    for task in list(yard.held.deliveries.waiting(yard.agent)):
        yard.said(task.text, time.time())
        yard.taken(task, time.time())
    yard.launched(3)
    yard.agent.row = replace(yard.agent.row, interrupted="switched")
    assert yard.launch() == [GO_ON]


def test_a_task_whose_typing_was_cut_off_is_not_typed_again_if_it_was_told(yard: Yard) -> None:
    yard.said(ASKED, NOW - 200)
    told, untold = (
        yard.task(ASKED, state="queued"),
        yard.task("not told yet, and so it waits", state="queued"),
    )
    assert yard.launch() == [GO_ON, untold.text]
    assert yard.held.store is not None
    found = yard.held.store.task(told.id)
    assert found is not None and found.state == str(TaskState.DELIVERED)


def test_an_assignment_that_is_another_s_now_is_not_gone_on_with(yard: Yard) -> None:
    yard.said(ASKED, NOW - 200)
    yard.task(ASKED, done_at=NOW - 199, kind="assignment", assignment="w-1")
    assert yard.launch() == []


def test_a_transcript_that_cannot_be_looked_at_keeps_nobody_from_a_launch(yard: Yard) -> None:
    yard.path.mkdir()
    assert yard.launch() == []
    yard.agent.row = replace(yard.agent.row, interrupted="limited", home=None)
    assert yard.launch() == [GO_ON]
