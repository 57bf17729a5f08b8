"""What circusd makes of a look: what it keeps, stores, publishes and logs, and what it passes over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circus_failover import agent_health, process_table
from circus_failover.accounts import Accounts
from circus_failover.agent import Agent
from circus_failover.agent_health import Look
from circus_failover.lifecycle_log import LifecycleLog
from circus_failover.notices import Notices
from circus_failover.policy.health import Fault, Health
from circus_failover.process_table import ProcessId
from circus_failover.recording import Recording
from circus_failover.records import AgentRow, LaunchRow
from circus_failover.state_intake import take_in
from circus_failover.store import Store
from circus_failover.words import FaultKind, NoticeKind, Phase, Source, State
from tests.live.fleet import parse_logfmt

PROCESS = ProcessId(4711, 998877)
IDLE = Health(State.IDLE, Source.STATUS_FILE, 100.0, evidence="status-file: idle")
WORKING = Health(State.WORKING, Source.STATUS_FILE, 200.0, evidence="status-file: busy")
WAITING = Health(
    State.WAITING, Source.STATUS_FILE, 300.0, "permission: Bash", evidence="status-file: waiting"
)
UNKNOWN = Health(State.UNKNOWN, evidence="nothing tells what it does")
FAULT = Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "5-hour", 1764000000.0)
LIMITED = Health(State.LIMITED, Source.TRANSCRIPT, 400.0, fault=FAULT, evidence="transcript: rate_limit")


class Held(Recording):
    """What of a supervisor records: a real store and a real log, and one agent `bob`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.store = Store(folder / "failover.db")
        self.log = LifecycleLog(folder / "lifecycle.log")
        self.log_verbose = False
        self.watches = SimpleNamespace(follow=lambda agent: None)  # type: ignore[assignment]
        self.notices = Notices(self)  # type: ignore[arg-type]
        self.accounts = Accounts(self)  # type: ignore[arg-type]
        self.assignments = SimpleNamespace(look=lambda agent: None)
        self.events: list[dict[str, Any]] = []
        watcher = SimpleNamespace(notify_event=lambda kind, event: self.events.append(event))
        self.bob = Agent(watcher, "bob", BOB)
        self.roster = SimpleNamespace(agents={"bob": self.bob})  # type: ignore[assignment]
        with self.store.decision(durable=False):
            self.store.put_agent(BOB)
            self.store.add_launch(LaunchRow("bob", 3, "first-start", "", None, "c-1", 1.0, 2.0))

    def take(self, *looks: Look, interval: float = 2.0) -> list[str]:
        return take_in(self, looks, interval)  # type: ignore[arg-type]

    def see(self, *healths: Health) -> None:
        for health in healths:
            assert self.take(look(health)) == []

    def lines(self, ev: str = "state") -> list[dict[str, str]]:
        assert self.log is not None
        if not self.log.path.exists():
            return []
        records = [parse_logfmt(line) for line in self.log.path.read_text().splitlines()]
        return [record for record in records if record["ev"] == ev]

    def stored(self) -> AgentRow:
        assert self.store is not None
        self.save_changed()
        row = self.store.agent("bob")
        assert row is not None
        return row


BOB = AgentRow(
    "bob",
    phase="up",
    generation=3,
    pid=PROCESS.pid,
    pid_start=PROCESS.start,
    boot=process_table.boot_id(),
    conversation="c-1",
    ready_conversation="c-1",
    ready_at=2.0,
)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    assert made.store is not None
    made.store.close()


def look(health: Health | None, **changes: Any) -> Look:
    return replace(Look("bob", 3, PROCESS, time.time(), health), **changes)


def test_what_an_agent_does_is_shown_with_its_source_and_what_it_waits_for(held: Held) -> None:
    held.take(look(WAITING, last_activity=time.time()))
    view = held.bob.view(None)
    assert (view["state"], view["state_what"]) == ("waiting", "permission: Bash")
    assert (view["state_source"], view["state_at"]) == ("status-file", 300.0)
    assert view["state_evidence"] == "status-file: waiting" and view["fault"] is None
    assert view["last_activity"] is not None
    held.see(LIMITED)
    fault = held.bob.view(None)["fault"]
    assert fault == {
        "kind": "usage-limit",
        "window": "5-hour",
        "resets_at": 1764000000.0,
        "text": "You've hit your limit",
        "model_only": False,
        "retrying": False,
    }


def test_only_waiting_limits_the_unknown_and_faults_are_logged_and_kept_in_the_history(held: Held) -> None:
    failed = replace(IDLE, fault=Fault(FaultKind.OVERLOAD, "529"))
    asks = replace(WAITING, what="dialog: trust")
    held.see(IDLE, WORKING, IDLE, WAITING, asks, WORKING, LIMITED, IDLE, UNKNOWN, IDLE, failed, WORKING, IDLE)
    told = [(line["was"], line["state"], line["what"], line["fault"]) for line in held.lines()]
    assert told == [
        ("idle", "waiting", "permission: Bash", ""),
        ("waiting", "waiting", "dialog: trust", ""),
        ("waiting", "working", "", ""),
        ("working", "limited", "", "usage-limit"),
        ("limited", "idle", "", ""),
        ("idle", "unknown", "", ""),
        ("unknown", "idle", "", ""),
        ("idle", "idle", "", "overload"),
        ("idle", "working", "", ""),
    ]
    (limited,) = [line for line in held.lines() if line["state"] == "limited"]
    assert limited["identity"] == "bob" and limited["generation"] == "3"
    assert (limited["source"], limited["window"]) == ("transcript", "5-hour")
    assert limited["resets"] == "2025-11-24T16:00:00.000Z"
    assert limited["evidence"] == "transcript: rate_limit"
    assert held.store is not None
    assert len([entry for entry in held.store.history("bob") if entry["ev"] == "state"]) == len(told)


def test_with_log_verbose_every_change_is_logged(held: Held) -> None:
    held.log_verbose = True
    held.see(IDLE, WORKING, WORKING, IDLE)
    assert [line["state"] for line in held.lines()] == ["idle", "working", "idle"]


def test_a_client_that_counts_its_tries_is_told_of_once(held: Held) -> None:
    tries = [
        replace(WORKING, fault=Fault(FaultKind.OVERLOAD, f"retrying, attempt {number}/10", retrying=True))
        for number in range(1, 5)
    ]
    held.see(WORKING, *tries, replace(LIMITED, fault=FAULT))
    held.see(replace(LIMITED, fault=replace(FAULT, resets_at=1764000000.0 + 42)))
    assert [(line["state"], line["fault"]) for line in held.lines()] == [
        ("working", "overload"),
        ("limited", "usage-limit"),
    ]
    seen = agent_health.read(held.stored().health)
    assert seen is not None and seen.health.fault is not None and seen.health.fault.resets_at == 1764000042.0
    held.see(replace(LIMITED, fault=replace(FAULT, window="weekly")))
    assert [line["window"] for line in held.lines()] == ["", "5-hour", "weekly"]


def test_every_change_of_state_is_published_and_what_stays_the_same_is_not(held: Held) -> None:
    again = replace(WORKING, at=250.0, evidence="status-file: busy for longer")
    held.see(IDLE, IDLE, WORKING, again, replace(WORKING, what="Bash"), WAITING, WAITING)
    assert [event["state"] for event in held.events] == ["idle", "working", "waiting"]


def test_what_changed_is_stored_and_read_back_after_a_restart(held: Held) -> None:
    held.see(IDLE)
    assert agent_health.read(held.stored().health) == held.bob.seen
    held.see(LIMITED)
    seen = agent_health.read(held.stored().health)
    assert seen == held.bob.seen and seen is not None and seen.health == LIMITED
    held.take(look(None))
    assert agent_health.read(held.stored().health) == seen, "a heartbeat is no reason to write"
    assert held.bob.seen is not None and held.bob.seen.at > seen.at


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 2},
        {"generation": 4},
        {"process": ProcessId(4711, 1)},
        {"process": ProcessId(1, PROCESS.start)},
        {"identity": "nobody"},
    ],
)
def test_a_look_at_another_launch_or_process_changes_nothing(held: Held, changes: dict[str, Any]) -> None:
    assert held.take(look(LIMITED, conversation="c-2", **changes)) == []
    assert held.bob.seen is None and held.bob.row == BOB and held.events == []


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.UP, Phase.OBSERVED)])
def test_a_look_at_an_agent_that_is_not_up_any_more_changes_nothing(held: Held, phase: Phase) -> None:
    held.bob.row = replace(BOB, phase=str(phase))
    assert held.take(look(WORKING, conversation="c-2")) == []
    assert held.bob.seen is None and held.bob.row.conversation == "c-1"


def test_of_whom_circusd_knows_nothing_it_asks_again(held: Held) -> None:
    assert held.take(look(None)) == ["bob"]
    held.see(WORKING)
    assert held.take(look(None)) == []
    assert held.bob.state() is State.WORKING
    held.bob.row = replace(BOB, generation=4)
    assert held.bob.state() is State.UNKNOWN, "that was another launch"
    assert held.take(look(None, generation=4)) == ["bob"]


def test_what_was_seen_too_long_ago_is_unknown_and_says_since_when(held: Held) -> None:
    held.take(look(IDLE, at=time.time() - 30))
    view = held.bob.view(None)
    assert view["state"] == "unknown" and view["state_evidence"].startswith("not looked at since 2")
    assert view["state_source"] is None and view["fault"] is None
    held.take(look(None))
    assert held.bob.state() is State.IDLE
    assert [event["state"] for event in held.events] == ["unknown", "idle"]


def test_a_time_that_has_not_come_yet_does_not_hold_for_good(held: Held) -> None:
    held.take(look(IDLE, at=time.time() + 86400))
    assert held.bob.seen is not None and held.bob.seen.at <= time.time()


def test_a_server_that_does_not_answer_says_more_than_its_agent(held: Held) -> None:
    held.see(LIMITED)
    held.bob.wedged = True
    view = held.bob.view(None)
    assert (view["state"], view["state_source"], view["fault"]) == ("wedged", None, None)


def test_a_conversation_that_a_user_went_over_to_is_what_is_resumed(held: Held) -> None:
    held.take(look(IDLE, conversation="c-1"))
    held.take(look(IDLE, conversation=None))
    assert held.lines("conversation") == []
    held.take(look(IDLE, conversation="c-2"))
    row = held.stored()
    assert (row.conversation, row.ready_conversation) == ("c-2", "c-2")
    assert held.store is not None
    assert held.store.launches("bob")[0].conversation == "c-2"
    (line,) = held.lines("conversation")
    assert (line["conversation"], line["was"]) == ("c-2", "c-1")


def test_a_conversation_that_was_never_ready_is_recorded_and_not_resumed(held: Held) -> None:
    held.bob.row = replace(BOB, ready_at=None, ready_conversation="c-0")
    held.take(look(IDLE, conversation="c-2"))
    assert (held.stored().conversation, held.stored().ready_conversation) == ("c-2", "c-0")


# -- notices ------------------------------------------------------------------------------------------


def noticed(held: Held) -> list[tuple[str, str, str]]:
    """Return what somebody may want to be told of: kind, key and text."""
    assert held.store is not None
    return [(row.kind, row.key, row.text) for row in held.store.notices(0)]


def test_an_agent_that_waits_for_a_person_is_a_notice_with_its_question(held: Held) -> None:
    held.see(WORKING, WAITING, WAITING, replace(WAITING, what="dialog: trust"), IDLE)
    assert noticed(held) == [
        ("waiting", "bob", "bob waits for a person: permission: Bash"),
        ("waiting", "bob", "bob waits for a person: dialog: trust"),
    ]


def test_a_limit_of_an_agent_without_an_account_is_a_notice_about_the_agent_and_said_once(held: Held) -> None:
    held.see(WORKING, LIMITED, replace(LIMITED, fault=replace(FAULT, resets_at=1764000042.0)), IDLE)
    held.see(replace(IDLE, fault=Fault(FaultKind.OVERLOAD, "529")))
    ((kind, key, text),) = noticed(held)
    assert (kind, key) == ("limited", "bob")
    assert text == "bob has reached its usage limit (5-hour), which resets at 2025-11-24T16:00:00.000Z"


def test_a_limit_of_an_account_is_known_of_the_account_and_is_a_notice_about_that(held: Held) -> None:
    held.bob.row = replace(held.bob.row, account="main")
    soon = replace(LIMITED, fault=replace(FAULT, resets_at=time.time() + 1000))
    held.see(WORKING, soon, replace(soon, evidence="in other words"), IDLE)
    assert held.accounts.exhausted("main") and not held.accounts.exhausted("other")
    ((kind, key, _),) = noticed(held)
    assert (kind, key) == ("limited", "account main")
    held.take(look(None, answered_at=time.time()))
    assert not held.accounts.exhausted("main"), "what it does has not changed, but the model has answered"


def test_a_notice_is_clean_and_bounded_and_old_ones_are_forgotten(held: Held) -> None:
    assert held.store is not None
    with held.store.decision(durable=False):
        held.store.add_notice(time.time() - 8 * 86400, "held", "old", "old", "long ago", {})
    held.notices.say(NoticeKind.HELD, "\x1b[1mheld\n" + "x" * 1_000_000, identity="bob", evil="y" * 99999)
    (row,) = held.store.notices(0)
    assert row.id == 2 and row.text.startswith("[1mheld xxx") and len(row.text) == 600
    assert len(row.detail["evil"]) == 300
