"""The life of an assignment inside circusd, on a real store: it is never lost, and never told twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from circus.exc import MessageError

from circus_failover import agent_settings, process_table
from circus_failover.accounts import Accounts
from circus_failover.agent import Agent
from circus_failover.agent_health import Look, Seen
from circus_failover.assignments import Assignments, NotPossible
from circus_failover.deliveries import Deliveries
from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.notices import Notices
from circus_failover.policy.health import Fault, Health
from circus_failover.process_table import ProcessId
from circus_failover.recording import Recording
from circus_failover.records import AgentRow, AssignmentRow, LaunchRow, TaskRow
from circus_failover.settings import Settings, Shared
from circus_failover.store import Store, StoreError
from circus_failover.verbs.tasks import Tasks
from circus_failover.words import FaultKind, Phase, Source, State, TaskKind
from tests.live.fleet import parse_logfmt

TEXT = "sum up the ledger\nand say what is left"


class Typist(Deliveries):
    """The queue of tasks, with a typist who says when the test lets him what he saw."""

    def __init__(self, supervisor: Any) -> None:
        super().__init__(supervisor)
        self.told: list[tuple[str, str]] = []
        self._reports = 0

    def _type(self, agent: Agent, task: TaskRow) -> None:
        text = self._supervisor.assignments.text_of(agent, task) if task.kind == "assignment" else task.text
        self.told.append((agent.identity, text))
        self._change(agent, task, state="typing", generation=agent.row.generation, attempts=task.attempts + 1)

    def enters(self, agent: Agent) -> TaskRow:
        """Let the typist come to the moment of Enter."""
        task = next(one for one in self.waiting(agent) if one.state == "typing")
        name = [task.id, agent.identity, task.generation, None, None]
        self._files(task)[2].write_text(json.dumps({"name": name, "stage": "entering"}))
        return task

    def says(self, agent: Agent, outcome: str = "taken", stage: str = "entering") -> None:
        """Let the typist report of what he is typing to an agent."""
        task = self.enters(agent)
        self._reports += 1
        report = {
            "identity": agent.identity,
            "task": task.id,
            "outcome": outcome,
            "stage": stage,
            "generation": task.generation,
        }
        self.typed(f"report-{self._reports}", {**report, "at": time.time()})


class Held(Recording):
    """What of a supervisor assignments need: a real store, a real log, and agents that only stand there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.store = Store(folder / "failover.db")
        self.log = LifecycleLog(folder / "lifecycle.log")
        self.state = SimpleNamespace(task_stem=lambda number: folder / f"task-{number}")
        self.arbiter = SimpleNamespace(_stopping=False)
        self.watches = SimpleNamespace(follow=lambda agent: None)  # type: ignore[assignment]
        self.roster = SimpleNamespace(agents={})  # type: ignore[assignment]
        self.loop = SimpleNamespace(call_later=lambda secs, callback: object())
        self.started: list[str] = []
        self.bring_up = SimpleNamespace(start=lambda agent, who, **asked: self.started.append(agent.identity))
        self.deliveries = Typist(self)
        self.assignments = Assignments(self)  # type: ignore[arg-type]
        self.notices = Notices(self)  # type: ignore[arg-type]
        self.accounts = Accounts(self)  # type: ignore[arg-type]

    def spawn(self, coroutine: object) -> asyncio.Future[None]:
        return asyncio.Future(loop=LOOP)

    def take_in_reports(self) -> None:
        """Nobody reports by the spool here."""

    def last_activity(self, agent: Agent) -> float | None:
        return None

    # -- agents ------------------------------------------------------------------------------------------

    def agent(self, name: str, **options: str) -> Agent:
        """Enrol an agent that is up in its first launch."""
        raw = {"name": name, "cmd": "failover-session", "failover.command": "true", "working_dir": "/"}
        raw.update({f"failover.{key}": value for key, value in options.items()})
        if "runtime" in options:
            del raw["failover.command"]
        settings = Settings(self.folder / "failover.yaml", self.folder, Shared(self.folder), (), {})
        watcher = SimpleNamespace(notify_event=lambda kind, event: None)
        agent = Agent(watcher, name, AgentRow(name), agent_settings.parse(raw, settings, "circus.ini"))
        self.roster.agents[name] = agent
        self.up(agent)
        return agent

    def up(self, agent: Agent, conversation: str | None = None) -> None:
        """Launch an agent: it is up, and idle."""
        assert self.store is not None and agent.settings is not None
        number = agent.row.generation + 1
        process = ProcessId(1000 + number, number)
        talk = conversation or f"{agent.identity}-{number}"
        agent.row = AgentRow(
            agent.identity,
            phase="up",
            generation=number,
            pid=process.pid,
            pid_start=process.start,
            boot=process_table.boot_id(),
            conversation=talk,
            runtime=agent.settings.runtime,
            last_task=agent.row.last_task,
        )
        with self.store.decision(durable=False):
            self.store.put_agent(agent.row)
            launch = LaunchRow(
                agent.identity, number, "first-start", "", None, talk, time.time(), time.time()
            )
            self.store.add_launch(launch)
        self.see(agent, State.IDLE)
        self.tend()

    def ends(
        self, agent: Agent, cause: str = "signaled", *, planned: bool = False, phase: str = "down"
    ) -> None:
        """Let a launch end."""
        assert self.store is not None
        agent.row = replace(agent.row, phase=phase, cause=cause, pid=None, pid_start=None)
        agent.last_cause = cause
        with self.store.decision(durable=False):
            self.store.put_agent(agent.row)
            self.store.end_launch(
                agent.identity, agent.row.generation, at=time.time(), planned=planned, cause=cause
            )
        self.tend()

    def see(self, agent: Agent, state: State, fault: Fault | None = None) -> None:
        """Look at what an agent does."""
        assert agent.row.process is not None
        now = time.time()
        health = Health(state, None, now, fault=fault)
        agent.seen = Seen(agent.row.generation, agent.row.process, now, 2.0, health)

    def tend(self) -> None:
        self.deliveries.tend()
        self.assignments.tend()

    # -- assignments -------------------------------------------------------------------------------------

    def give(self, name: str = "sums", agent: Agent | None = None, pool: str | None = None) -> AssignmentRow:
        """Give work, and have it dispatched."""
        self.assignments.assign(agent=agent, pool=pool, text=TEXT, name=name, topic=None, who="ann@desk")
        self.tend()
        return self.row(name)

    def taken(self, agent: Agent, name: str = "sums") -> AssignmentRow:
        """Give work that its agent takes."""
        if self.assignments.get(name) is None:
            self.give(name, agent)
        self.deliveries.says(agent)
        self.tend()
        assert self.row(name).state == "delivered"
        return self.row(name)

    def row(self, name: str = "sums") -> AssignmentRow:
        """Return what the store says of an assignment; memory must say the same."""
        row = self.assignments.get(name)
        assert row is not None
        kept = self.assignments.records.book.get(name)
        assert kept == (None if row.done_at is not None else row)
        return row

    def actions(self, name: str = "sums") -> list[str]:
        """Return what lifecycle.log says was done about an assignment, in order."""
        assert self.log is not None
        records = [parse_logfmt(line) for line in self.log.path.read_text().splitlines()]
        return [line["action"] for line in records if line["ev"] == "work" and line["assignment"] == name]

    def told(self, agent: Agent) -> list[str]:
        return [text for identity, text in self.deliveries.told if identity == agent.identity]

    def noticed(self) -> list[str]:
        assert self.store is not None
        return [notice.kind for notice in self.store.notices(0)]


LOOP = asyncio.new_event_loop()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    if made.store is not None:
        made.store.close()


def again(held: Held) -> None:
    """Let the next circusd begin with what the store says."""
    held.deliveries.load()
    held.assignments = Assignments(held)  # type: ignore[arg-type]
    held.assignments.load()
    held.tend()


# -- given, taken, done ----------------------------------------------------------------------------------


def test_work_is_told_once_and_is_done_when_its_agent_says_so(held: Held) -> None:
    bob = held.agent("bob")
    row = held.give(agent=bob)
    assert (row.state, row.owner, row.delivered_at) == ("queued", "bob", None)
    row = held.taken(bob)
    assert (row.generation, row.conversation) == (1, "bob-1")
    view = bob.view(None, held.assignments.of(bob))
    assert (view["assignment"], view["assignment_state"]) == ("sums", "delivered")
    assert view["assignment_since"] == row.delivered_at
    assert held.assignments.report(bob, "done", None, "3 euros are left") is None
    row = held.row()
    assert (row.state, row.owner, row.note) == ("done", "bob", "3 euros are left") and row.done_at is not None
    assert held.assignments.of(bob) is None and held.told(bob) == [TEXT]
    assert held.actions() == ["queued", "dispatched", "delivered", "done"]
    assert held.store is not None
    history = [entry["action"] for entry in held.store.history("bob") if entry["ev"] == "work"]
    assert history == ["done", "delivered", "dispatched", "queued"]


def test_the_same_id_again_is_no_second_job_and_another_text_is_refused(held: Held) -> None:
    bob = held.agent("bob")
    given = {"agent": bob, "pool": None, "name": "sums", "topic": None, "who": "ann"}
    assert held.assignments.assign(text=TEXT, **given)[1] is False
    assert held.assignments.assign(text=TEXT, **given) == (held.row(), True)
    with pytest.raises(NotPossible, match="another assignment"):
        held.assignments.assign(text="something else", **given)
    held.tend()
    held.taken(bob)
    held.assignments.report(bob, "done", "sums", None)
    assert held.assignments.assign(text=TEXT, **given) == (held.row(), True), "also when it is done"


def test_what_nobody_can_ever_do_is_refused(held: Held) -> None:
    watched = held.agent("watched", mode="observe")
    for whom in ({"agent": watched, "pool": None}, {"agent": None, "pool": "nobody"}):
        with pytest.raises(NotPossible):
            held.assignments.assign(text=TEXT, name=None, topic=None, who="ann", **whom)
    assert held.assignments.all() == []


def test_an_agent_has_one_at_a_time_and_the_others_keep_their_order(held: Held) -> None:
    bob = held.agent("bob")
    for name in ("one", "two", "three"):
        held.give(name, bob)
    done = []
    for _ in range(3):
        held.deliveries.says(bob)
        row = held.assignments.of(bob)
        assert row is not None and [one.state for one in held.assignments.all()].count("delivered") == 1
        done.append(row.id)
        held.assignments.report(bob, "done", None, None)
        held.tend()
    assert done == ["one", "two", "three"]


def test_an_agent_that_took_a_task_since_it_was_seen_idle_gets_nothing(held: Held) -> None:
    bob = held.agent("bob", runtime="claude", pool="crew")
    held.deliveries.queue(bob, "clean up", None, "ann")
    held.deliveries.says(bob)
    assert held.give(pool="crew").owner is None
    held.see(bob, State.WORKING)
    held.tend()
    assert held.row().owner is None
    held.see(bob, State.IDLE)
    held.tend()
    assert held.row().owner == "bob"


def test_nobody_on_an_account_that_one_of_its_agents_saw_limited_gets_work(held: Held) -> None:
    bob, eve, ann = (held.agent(name, pool="p") for name in ("bob", "eve", "ann"))
    for agent, account in ((bob, "one"), (eve, "one"), (ann, "two")):
        agent.row = replace(agent.row, account=account)
    limit = Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "weekly", time.time() + 600)
    held.see(bob, State.LIMITED, limit)
    look = Look("bob", bob.row.generation, bob.row.process or ProcessId(1, 1), time.time(), bob.health())
    held.accounts.learn(bob, look)
    owners = [held.give(name, pool="p").owner for name in ("one", "two")]
    assert owners == ["ann", None]
    eve.row = replace(eve.row, account="two")
    held.tend()
    assert held.row("two").owner == "eve", "what runs is on another account now"


def test_an_agent_that_is_faster_than_its_typist_is_not_told_again(held: Held) -> None:
    bob = held.agent("bob")
    held.give(agent=bob)
    assert "not been told" in str(held.assignments.report(bob, "done", None, None)), (
        "that was about another one"
    )
    held.deliveries.enters(bob)
    assert held.assignments.report(bob, "done", None, None) is None
    assert (held.row().state, held.row().generation) == ("done", 1) and held.row().delivered_at is not None
    held.deliveries.says(bob, "not-taken")
    held.tend()
    assert held.told(bob) == [TEXT] and held.deliveries.waiting(bob) == []
    assert held.actions() == ["queued", "dispatched", "done"]


def test_a_reminder_of_an_assignment_that_is_over_is_not_typed(held: Held) -> None:
    bob = held.agent("bob")
    held.taken(bob)
    bob.row = replace(bob.row, phase="starting")
    nudge: dict[str, Any] = {"kind": TaskKind.NUDGE, "generation": 1, "assignment": "sums"}
    held.deliveries.queue(bob, "go on", None, "circusd", **nudge)
    assert len(held.deliveries.waiting(bob)) == 1
    held.assignments.report(bob, "done", None, None)
    held.tend()
    assert held.deliveries.waiting(bob) == []


def test_reports_count_for_ones_own_assignment_alone(held: Held) -> None:
    bob, ann = held.agent("bob"), held.agent("ann")
    assert held.assignments.report(bob, "done", None, None) == "it has no assignment"
    held.taken(bob)
    assert "not its assignment" in str(held.assignments.report(ann, "done", "sums", None))
    assert "no assignment 'other'" in str(held.assignments.report(bob, "done", "other", None))
    early = time.time() - 60
    assert "before sums was given" in str(held.assignments.report(bob, "done", None, None, early))
    assert held.row().state == "delivered"
    assert held.assignments.report(bob, "failed", None, "no such ledger") is None
    assert held.assignments.report(bob, "failed", "sums", None) is None, "said again, it changes nothing"
    assert held.assignments.report(bob, "done", "sums", None) == "sums is failed already"
    assert (held.row().state, held.row().note) == ("failed", "no such ledger")


def test_a_finished_turn_is_done_only_by_setting_and_an_error_never_is(held: Held) -> None:
    bob, ann = held.agent("bob", runtime="claude", done_on_idle="true"), held.agent("ann", runtime="claude")
    for agent, name in ((bob, "his"), (ann, "hers")):
        held.taken(agent, name)
        held.see(agent, State.WORKING)
        held.tend()
        assert held.row(name).state == "working"
        held.see(agent, State.WAITING)
        held.tend()
        held.see(agent, State.IDLE, Fault(FaultKind.OVERLOAD, "529 Overloaded"))
        held.tend()
        assert held.row(name).state == "working"
        held.see(agent, State.IDLE)
        held.tend()
    assert (held.row("his").state, held.row("hers").state) == ("done", "working")


# -- deaths ----------------------------------------------------------------------------------------------


def test_a_death_with_work_spends_a_retry_and_its_resumed_conversation_goes_on(held: Held) -> None:
    bob = held.agent("bob")
    held.taken(bob)
    held.ends(bob)
    row = held.row()
    assert (row.state, row.owner, row.retries, row.delivered_at) == ("queued", "bob", 1, None)
    assert held.store is not None and held.store.launches("bob")[0].assignment == "sums"
    assert held.store.assigned() == {"bob": "sums"} and held.store.waiting() == {"bob": 1}
    held.up(bob, conversation="bob-1")
    assert "Go on with it" in held.told(bob)[-1] and "sums" in held.told(bob)[-1]
    held.taken(bob)
    held.ends(bob)
    held.up(bob)
    assert held.told(bob)[-1] == TEXT, "a fresh one gets the item's full text"
    assert (held.row().retries, len(held.told(bob))) == (2, 3) and held.noticed() == []


def test_after_so_many_deaths_it_waits_for_a_person_who_is_told_once(held: Held) -> None:
    bob = held.agent("bob", work_retries="1")
    for _ in range(2):
        held.taken(bob)
        held.ends(bob)
        held.up(bob)
    row = held.row()
    assert (row.state, row.owner, row.last_owner, row.orphanings) == ("orphaned", None, "bob", 1)
    assert held.noticed() == ["orphaned"] and len(held.told(bob)) == 2
    assert held.store is not None
    assert [launch.assignment for launch in held.store.launches("bob") if launch.ended_at] == ["sums", "sums"]
    again(held)
    assert held.noticed() == ["orphaned"] and held.row().state == "orphaned"
    with pytest.raises(NotPossible, match="reassign"):
        held.assignments.release("sums", "ann")
    held.assignments.reassign("sums", agent=bob, pool=None, who="ann")
    held.tend()
    assert (held.row().owner, held.row().retries, held.told(bob)[-1]) == ("bob", 0, TEXT)


def test_a_text_that_kills_whoever_reads_it_does_not_go_round_for_ever(held: Held) -> None:
    bob = held.agent("bob", work_retries="1")
    held.give(agent=bob)
    for _ in range(2):
        dying = bob.row
        held.deliveries.says(bob, "gone", "pasting")
        held.tend()
        assert held.row().state == "queued" and held.row().generation in (None, dying.generation - 1)
        bob.row = dying
        held.deliveries._tried.clear()
        held.tend()
        held.deliveries.says(bob, "gone")
        held.ends(bob)
        if held.row().state != "orphaned":
            held.up(bob, conversation="bob-1")
            assert held.told(bob)[-1] == TEXT, "nobody saw it in that conversation"
    assert held.noticed() == ["orphaned"]


def test_an_agent_that_is_ended_at_the_moment_of_enter_spends_nothing(held: Held) -> None:
    bob = held.agent("bob")
    held.give(agent=bob)
    bob.action = SimpleNamespace(intent="park")  # type: ignore[assignment]
    held.deliveries.says(bob, "gone")
    bob.action = None
    held.ends(bob, "parked", planned=True, phase="parked")
    assert (held.row().state, held.row().retries, held.row().generation) == ("queued", 0, None)


def test_by_setting_it_goes_back_to_its_pool_and_to_another_agent(held: Held) -> None:
    one = held.agent("p-1", pool="crew", work_retries="1", on_orphan="pool")
    held.give(pool="crew")
    for _ in range(2):
        held.taken(one)
        held.ends(one)
        if held.row().owner is not None:
            held.up(one)
    row = held.row()
    assert (row.state, row.owner, row.retries, row.orphanings) == ("queued", None, 0, 1)
    other = held.agent("p-2", pool="crew", work_retries="1", on_orphan="pool")
    held.up(one)
    assert held.row().owner == "p-2" and held.told(other) == [TEXT]


def test_an_end_on_purpose_spends_nothing_and_nobody_is_woken_for_it(held: Held) -> None:
    bob = held.agent("bob", pool="crew")
    held.give(pool="crew")
    held.taken(bob)
    held.ends(bob, "parked", planned=True, phase="parked")
    row = held.row()
    assert (row.state, row.owner, row.retries, row.interrupted) == ("queued", "bob", 0, "parked")
    assert held.actions()[-1] == "interrupted" and held.started == []
    again(held)
    assert held.started == [] and held.row() == row
    held.up(bob, conversation="bob-1")
    assert "Go on with it" in held.told(bob)[-1]
    assert held.taken(bob).interrupted is None
    held.ends(bob)
    held.up(bob)
    held.taken(bob)
    held.ends(bob, "parked", planned=True, phase="parked")
    bob.row = replace(bob.row, phase="held")
    held.tend()
    assert held.row().retries == 1 and held.noticed() == [], "it did not die with it"


def test_nothing_is_decided_while_it_is_found_out_how_a_launch_ended(held: Held) -> None:
    bob = held.agent("bob")
    held.taken(bob)
    bob.action = SimpleNamespace(intent="clear")  # type: ignore[assignment]
    held.ends(bob, "ended-unknown")
    assert held.row().state == "delivered"
    bob.action = None
    held.tend()
    assert held.row().retries == 1


def test_who_cannot_come_back_to_its_work_is_said_once_a_death(held: Held) -> None:
    bob, other = held.agent("p-1", pool="crew"), held.agent("p-2", pool="crew")
    held.give(pool="crew")
    held.taken(bob)
    other.row = replace(other.row, phase="starting")
    held.ends(bob)
    assert held.noticed() == [], "the restart policy brings it back"
    bob.row, bob.action = replace(bob.row, phase="held", reason="3 deaths in 300 s"), SimpleNamespace()  # type: ignore[assignment]
    held.tend()
    assert held.noticed() == [], "why is still being found out"
    bob.action = None
    held.tend()
    assert held.noticed() == ["recovery-failed"] and held.store is not None
    (notice,) = held.store.notices(0)
    assert notice.detail["assignment"] == "sums" and "3 deaths in 300 s" in notice.text
    assert (held.row().owner, held.row().last_owner) == (None, "p-1"), "another one of its pool may have it"
    named = held.agent("ann")
    held.taken(named, "hers")
    held.ends(named, phase="refused")
    again(held)
    again(held)
    assert held.noticed() == ["recovery-failed"] * 2 and held.row("hers").owner == "ann"


def test_what_is_over_raises_no_alarm_when_its_agent_dies(held: Held) -> None:
    bob, ann = held.agent("bob"), held.agent("ann")
    held.taken(bob, "done")
    held.taken(ann, "cancelled")
    held.assignments.report(bob, "done", None, None)
    held.assignments.cancel("cancelled", "ann")
    for agent in (bob, ann):
        held.ends(agent, phase="held")
    assert held.noticed() == [] and held.deliveries.waiting(bob) == held.deliveries.waiting(ann) == []


def test_work_of_an_agent_that_is_removed_goes_back_to_its_pool_or_to_a_person(held: Held) -> None:
    held.agent("p-1", pool="crew")
    held.give("pooled", pool="crew")
    held.agent("bob")
    held.taken(held.roster.agents["bob"], "named")
    for name in ("p-1", "bob"):
        held.ends(held.roster.agents[name], "removed", planned=True)
        del held.roster.agents[name]
    held.tend()
    assert (held.row("pooled").state, held.row("pooled").owner) == ("queued", None)
    assert (held.row("named").state, held.row("named").owner) == ("orphaned", None)


def test_an_agent_that_no_section_names_keeps_its_work_while_it_lives(held: Held) -> None:
    bob = held.agent("bob", pool="crew")
    held.give(pool="crew")
    held.taken(bob)
    del held.roster.agents["bob"]
    again(held)
    assert (held.row().state, held.row().owner) == ("delivered", "bob")


# -- what operators change -------------------------------------------------------------------------------


def test_what_is_taken_back_is_not_typed_any_more(held: Held) -> None:
    bob, ann = held.agent("bob"), held.agent("ann")
    bob.row = replace(bob.row, phase="starting")
    ann.row = replace(ann.row, phase="starting")
    held.give("one", bob)
    held.give("two", ann)
    assert held.row("one").owner is None
    held.assignments.cancel("one", "ann")
    held.assignments.reassign("two", agent=bob, pool=None, who="ann")
    for agent in (bob, ann):
        agent.row = replace(agent.row, phase="up")
    held.tend()
    assert held.told(ann) == [] and held.told(bob) == [TEXT] and held.row("two").owner == "bob"
    with pytest.raises(NotPossible, match="typed into bob right now"):
        held.assignments.cancel("two", "ann")
    held.deliveries.says(bob, "not-taken")
    held.assignments.release("two", "ann")
    assert (held.row("two").state, held.row("two").last_owner) == ("orphaned", "bob"), "it was given by name"
    held.tend()
    assert held.deliveries.waiting(bob) == []
    for name in ("one", "nothing"):
        with pytest.raises(NotPossible):
            held.assignments.cancel(name, "ann")


def test_what_a_pool_gets_back_goes_to_somebody_else_if_there_is_one(held: Held) -> None:
    one, other = held.agent("p-1", pool="crew"), held.agent("p-2", pool="crew")
    owner = held.roster.agents[str(held.give(pool="crew").owner)]
    held.taken(owner)
    held.assignments.release("sums", "ann")
    held.tend()
    assert held.row().owner == (other if owner is one else one).identity
    assert "not its assignment" in str(held.assignments.report(owner, "done", "sums", None))


def test_the_queue_of_tasks_does_not_cancel_what_tells_an_assignment(held: Held) -> None:
    bob = held.agent("bob")
    held.taken(bob)
    held.ends(bob)
    held.deliveries.queue(bob, "clean up", None, "ann")
    with pytest.raises(MessageError, match="`failoverctl cancel sums` cancels that, and the others were"):
        Tasks()._cancel(held, bob, "all", {})  # type: ignore[arg-type]
    assert [task.assignment for task in held.deliveries.waiting(bob)] == ["sums"]


def test_what_a_pool_gets_back_has_its_old_turn(held: Held) -> None:
    alone = held.agent("p-1", pool="crew")
    held.give("one", pool="crew")
    held.give("two", pool="crew")
    held.deliveries.says(alone, "not-taken")
    assert held.assignments.release("one", "ann").owner is None
    held.tend()
    assert (held.row("one").owner, held.row("two").owner) == ("p-1", None)


def test_a_member_that_is_parked_is_started_once_for_one_that_waits(held: Held) -> None:
    bob = held.agent("bob", pool="crew")
    held.ends(bob, "parked", planned=True, phase="parked")
    held.give(pool="crew")
    held.tend()
    held.tend()
    assert held.started == ["bob"] and held.row().owner is None
    shown = held.assignments.shown(held.row())
    assert shown["waits_for"] and "text" not in shown and shown["begins"] == TEXT.replace("\n", " ")


# -- the store -------------------------------------------------------------------------------------------


def test_what_cannot_be_stored_has_not_happened(held: Held) -> None:
    bob = held.agent("bob")
    held.taken(bob)
    before, held.store = held.store, None
    with pytest.raises(StoreError):
        held.assignments.report(bob, "done", None, None)
    with pytest.raises(StoreError):
        held.assignments.assign(agent=bob, pool=None, text=TEXT, name="more", topic=None, who="ann")
    held.tend()
    held.store = before
    assert held.row().state == "delivered" and [row.id for row in held.assignments.all()] == ["sums"]


def test_a_task_that_was_taken_corrects_an_assignment_that_does_not_know_it(held: Held) -> None:
    bob = held.agent("bob")
    held.give(agent=bob)
    (task,) = held.deliveries.waiting(bob)
    assert held.store is not None
    with held.store.decision(durable=False):
        held.store.update_task(task.id, state="delivered", done_at=time.time(), generation=1)
    again(held)
    assert (held.row().state, held.row().generation) == ("delivered", 1)
    assert held.actions()[-1] == "corrected" and held.told(bob) == [TEXT]


def test_a_task_of_an_assignment_that_is_another_s_is_cancelled(held: Held) -> None:
    bob, ann = held.agent("bob"), held.agent("ann")
    held.taken(ann)
    assert held.store is not None
    with held.store.decision(durable=False):
        stray = TaskRow(0, "bob", TEXT, None, "ann", 1.0, kind="assignment", assignment="sums")
        held.store.add_task(stray)
    again(held)
    assert held.told(bob) == [] and held.deliveries.waiting(bob) == []
    assert (held.row().owner, held.row().state) == ("ann", "delivered")


def test_a_word_to_a_launch_is_never_typed_into_the_next_one_nor_too_late(held: Held) -> None:
    bob = held.agent("bob")
    bob.row = replace(bob.row, phase="starting")
    tell: dict[str, Any] = {"kind": TaskKind.TELL, "generation": 1}
    late = held.deliveries.queue(bob, "hurry", None, "ann", expires_at=time.time() - 1, **tell)
    held.deliveries.queue(bob, "and you?", None, "ann", expires_at=time.time() + 60, **tell)
    plain = held.deliveries.queue(bob, "clean up", None, "ann")
    held.ends(bob)
    held.up(bob)
    assert held.told(bob) == ["clean up"] and [task.id for task in held.deliveries.waiting(bob)] == [plain.id]
    assert held.store is not None
    stored = held.store.task(late.id)
    assert stored is not None and (stored.state, stored.note) == ("cancelled", "it was not typed in time")
    assert bob.phase is Phase.UP


# -- told, and not heard ---------------------------------------------------------------------------------


def idle_all_along(
    held: Held,
    since: float,
    source: Source = Source.STATUS_FILE,
    looked: float = 11.0,
    did: float | None = -5.0,
) -> None:
    """Look at bob: its client says that it has been idle since 5 s before `since`."""
    bob = held.roster.agents["bob"]
    assert bob.row.process is not None
    health = Health(State.IDLE, source, since - 5.0)
    activity = None if did is None else since + did
    bob.seen = Seen(bob.row.generation, bob.row.process, since + looked, 2.0, health, activity)
    held.tend()


def test_a_client_that_has_been_idle_since_before_it_was_told_is_told_all_of_it_again(held: Held) -> None:
    bob = held.agent("bob", runtime="claude", work_retries="2")
    for retries in (1, 2):
        idle_all_along(held, held.taken(bob).delivered_at or 0.0)
        row = held.row()
        assert (row.state, row.owner, row.retries) == ("queued", "bob", retries)
        assert held.actions()[-1] == "recovered" and "idle since before it was told" in (row.note or "")
        held.see(bob, State.IDLE)
    idle_all_along(held, held.taken(bob).delivered_at or 0.0)
    assert held.row().state == "delivered", "no more than so often"
    assert held.told(bob) == [TEXT] * 3


@pytest.mark.parametrize(
    "seen",
    [
        {"source": Source.TRANSCRIPT},
        {"looked": 5.0},
        {"did": None},
        {"did": 1.0},
    ],
)
def test_what_does_not_prove_that_a_client_has_not_heard_leaves_it_alone(
    held: Held, seen: dict[str, Any]
) -> None:
    bob = held.agent("bob", runtime="claude")
    idle_all_along(held, held.taken(bob).delivered_at or 0.0, **seen)
    assert held.row().state == "delivered"
