"""What is stored of what an agent does: the idle reaper takes it for busy, and never for idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus_failover.plugins import IdleReaper
from circus_failover.plugins.idle_reaper import NO_WORK

from circus_failover import agent_health, process_table
from circus_failover.agent_health import Seen
from circus_failover.policy.health import Health
from circus_failover.policy.idle import Probe
from circus_failover.process_table import LINUX, ProcessId
from circus_failover.records import AgentRow, AssignmentRow, PluginRow
from circus_failover.store import Reader, Store, open_reader
from circus_failover.words import AssignmentState, State

pytestmark = pytest.mark.skipif(not LINUX, reason="the terminal's time is read from /proc")

POLICY = json.dumps(
    {
        "mode": "manage",
        "restart": "on-work",
        "idle_secs": 60,
        "max_age_secs": 0,
        "crash_max": 3,
        "crash_window_secs": 300,
        "stable_secs": 300,
    }
)


class Reaper(IdleReaper):
    """The reaper, with what it asks circusd written down instead of sent."""

    def __init__(self) -> None:
        super().__init__("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0)
        self.log_verbose = True
        self.asked: list[dict[str, Any]] = []

    def ask(self, verb: str, **properties: Any) -> dict[str, Any]:
        self.asked.append({"verb": verb, **properties})
        return {"status": "ok"}

    def said(self) -> str:
        return "; ".join(f"{finding['outcome']}: {finding['evidence']}" for finding in self._findings)


@pytest.fixture
def quiet() -> Any:
    """An agent whose terminal has been quiet for an hour: this test's own process stands for it."""
    lead, terminal = os.openpty()
    then = time.time() - 3600
    os.utime(os.ttyname(terminal), (then, then))
    kept = os.dup(0)
    os.dup2(terminal, 0)
    process = process_table.identify(os.getpid())
    assert process is not None
    yield AgentRow(
        "bob",
        phase="up",
        generation=3,
        pid=process.pid,
        pid_start=process.start,
        boot=process_table.boot_id(),
        ready_at=then,
        policy=POLICY,
    )
    os.dup2(kept, 0)
    for handle in (kept, terminal, lead):
        os.close(handle)


def stored(folder: Path, row: AgentRow, looked: float | None) -> Reader:
    with_plugin = Store(folder / "failover.db")
    with with_plugin.decision(durable=False):
        with_plugin.put_agent(row)
        if looked is not None:
            with_plugin.put_plugin(PluginRow("AgentStates", 1, looked, 0.1, 2.0))
    with_plugin.close()
    return open_reader(folder / "failover.db")


def health(row: AgentRow, state: State, **changes: Any) -> str:
    assert row.process is not None
    seen = Seen(row.generation, row.process, time.time() - 1800, 2.0, Health(state))
    return agent_health.text(replace(seen, **changes))


@pytest.mark.parametrize("state", [State.WORKING, State.WAITING, State.LIMITED])
def test_an_agent_that_is_said_to_be_busy_is_not_even_probed(
    tmp_path: Path, quiet: AgentRow, state: State
) -> None:
    reaper = Reaper()
    row = replace(quiet, health=health(quiet, state))
    asyncio.run(reaper.tick(stored(tmp_path, row, looked=time.time())))
    assert reaper.said() == f"busy: its state is {state}"


@pytest.mark.parametrize(
    ("state", "changes", "looked"),
    [
        (State.IDLE, {}, 0.0),
        (State.UNKNOWN, {}, 0.0),
        (State.WORKING, {"generation": 2}, 0.0),
        (State.WORKING, {"process": ProcessId(1, 1)}, 0.0),
        (State.WORKING, {}, None),
        (State.WORKING, {}, 60.0),
    ],
    ids=["idle", "unknown", "another launch", "another process", "nobody looks", "nobody looks any more"],
)
def test_what_does_not_say_that_it_is_busy_now_leaves_it_to_the_probe(
    tmp_path: Path, quiet: AgentRow, state: State, changes: dict[str, Any], looked: float | None
) -> None:
    reaper = Reaper()
    row = replace(quiet, health=health(quiet, state, **changes))
    at = None if looked is None else time.time() - looked
    asyncio.run(reaper.tick(stored(tmp_path, row, at)))
    # Where its session is was not recorded, so the probe fails: and that is no proof either.
    assert reaper.said() == "left-alone: the probe failed: where its session is was not recorded"
    assert reaper.asked == []


WITH_BOB: list[tuple[AssignmentState, str | None, str | None, bool]] = [
    (AssignmentState.QUEUED, "bob", None, True),
    (AssignmentState.QUEUED, None, "bob", True),
    (AssignmentState.DELIVERED, None, "bob", True),
    (AssignmentState.WORKING, None, "bob", True),
    (AssignmentState.DONE, None, "bob", False),
    (AssignmentState.CANCELLED, "bob", None, False),
    (AssignmentState.ORPHANED, "bob", None, False),
    (AssignmentState.WORKING, None, "bobby", False),
    (AssignmentState.QUEUED, None, None, False),
]


@pytest.mark.parametrize(("state", "wanted", "owner", "keeps"), WITH_BOB)
def test_an_assignment_that_it_has_or_that_waits_for_it_keeps_it_up(
    tmp_path: Path,
    quiet: AgentRow,
    state: AssignmentState,
    wanted: str | None,
    owner: str | None,
    keeps: bool,
) -> None:
    reaper, over = Reaper(), time.time() if state.over else None
    given = AssignmentRow(
        *(0, "job-1", "do it", "operator", time.time()), wanted=wanted, owner=owner, state=state, done_at=over
    )
    with contextlib.closing(Store(tmp_path / "failover.db")) as store, store.decision(durable=False):
        store.add_assignment(given)
    asyncio.run(reaper.tick(stored(tmp_path, quiet, looked=time.time())))
    assert ("busy: it has an assignment" in reaper.said()) == keeps
    assert ("the probe failed" in reaper.said()) != keeps


def test_it_counts_as_idle_since_its_client_last_did_something(quiet: AgentRow) -> None:
    reaper, did = Reaper(), time.time() - 100
    reaper._probed(quiet, NO_WORK, Probe(0, 0, state=State.IDLE, last_activity=did), None)
    (asked,) = reaper.asked
    assert (asked["verb"], asked["generation"], asked["idle_since"]) == ("park", 3, did)
    reaper._probed(quiet, NO_WORK, Probe(0, 0, state=State.IDLE, last_activity=time.time() - 10), None)
    reaper._probed(quiet, NO_WORK, Probe(0, 0, state=State.UNKNOWN, seen="no status file"), None)
    assert len(reaper.asked) == 1
    assert "idle for 10" in reaper.said() and "seen to be unknown: no status file" in reaper.said()
