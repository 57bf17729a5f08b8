"""What circusd looks at before it ends an agent that was found stuck: who changed meanwhile is left alone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circus_failover import agent_settings, heartbeats, process_table
from circus_failover.agent import Agent
from circus_failover.agent_health import Seen
from circus_failover.policy.health import Health
from circus_failover.policy.heartbeat import HeartbeatAction
from circus_failover.process_table import LINUX, ProcessId
from circus_failover.records import AgentRow, AssignmentRow, TaskRow
from circus_failover.settings import Settings, Shared
from circus_failover.stuck_agents import Finding, look_again
from circus_failover.words import State
from tests.live.fleet import wait_for


class Case:
    """An agent that is stuck, a real process, and what was found of it; a test changes one thing."""

    def __init__(self, folder: Path, process: ProcessId) -> None:
        self.beat, now = folder / "beat", time.time()
        self.beat.touch()
        os.utime(self.beat, (now - 2000,) * 2)
        self.section: dict[str, Any] = {
            "name": "bob",
            "cmd": "failover-session",
            "working_dir": str(folder),
            "failover.command": "x",
            "failover.heartbeat": str(self.beat),
        }
        row = AgentRow(
            *("bob", "up"),
            generation=3,
            launch="l3",
            pid=process.pid,
            pid_start=process.start,
            boot=process_table.boot_id(),
            launched_at=now - 9000,
            ready_at=now - 8990,
        )
        self.agent = Agent(None, "bob", row)
        self.work: AssignmentRow | None = AssignmentRow(
            *(1, "w1", "do it", "ann", now - 8100),
            owner="bob",
            state="working",
            generation=3,
            delivered_at=now - 8000,
        )
        self.tasks: list[TaskRow] = []
        self.finding = Finding(3, process, os.stat(self.beat).st_mtime, "w1", None, None)

    def verdict(self) -> str:
        """Return why it is not ended, or that it is."""
        using = Settings(Path("/f.yaml"), Path("/s"), Shared(), (), {})
        self.agent.settings = agent_settings.parse(self.section, using, "circus.ini")
        held: Any = SimpleNamespace(
            check=lambda agent: None,
            deliveries=SimpleNamespace(waiting=lambda agent: self.tasks),
            assignments=SimpleNamespace(of=lambda agent: self.work),
        )
        found = look_again(held, self.agent, self.finding)
        if isinstance(found, str):
            return found
        assert found.action is HeartbeatAction.STUCK
        return "ended"

    def row(self, **changes: Any) -> None:
        self.agent.row = replace(self.agent.row, **changes)

    def has(self, **changes: Any) -> None:
        assert self.work is not None
        self.work = replace(self.work, **changes)

    def sees(self, state: State) -> None:
        """Let it have been seen to do this just now."""
        row = self.agent.row
        assert row.process is not None
        self.agent.seen = Seen(row.generation, row.process, time.time(), 2.0, Health(state))
        self.section["failover.runtime"] = "claude"
        del self.section["failover.command"]


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    told = {**os.environ, heartbeats.VARIABLE: str(tmp_path / "beat")}
    process = subprocess.Popen(["sleep", "600"], env=told)
    try:
        found = process_table.identify(process.pid)
        assert found is not None
        # vfork(2): it goes on here when the other process is about to have its new environment, not after.
        wait_for("it has its environment", lambda: len(process_table.environ(process.pid) or ()) > 1)
        yield Case(tmp_path, found)
    finally:
        process.kill()
        process.wait()


def test_who_is_stuck_is_ended(case: Case) -> None:
    assert case.verdict() == "ended"


def test_what_the_plugin_saw_of_a_client_counts_where_nobody_else_looks(case: Case) -> None:
    case.sees(State.WORKING)
    assert case.verdict() == "ended"
    case.agent.seen = None
    assert case.verdict() == "what it does is unknown"
    case.finding = replace(case.finding, state=State.IDLE)
    assert case.verdict() == "ended"


CHANGES: dict[str, Callable[[Case], object]] = {
    "it is stopping": lambda case: case.row(phase="stopping"),
    "it has generation 4 now": lambda case: case.row(generation=4),
    "it is not the process": lambda case: case.row(pid=1, pid_start=1),
    "it has no heartbeat contract": lambda case: case.section.pop("failover.heartbeat"),
    "started by somebody else|it has no heartbeat contract": lambda case: case.row(launch=None),
    "its launch was not told": lambda case: case.section.update({"failover.heartbeat": "self"}),
    "something is being typed": lambda case: case.tasks.append(
        TaskRow(1, "bob", "x", None, "a", 0.0, "typing")
    ),
    "it has beaten since": lambda case: case.beat.touch(),
    "assignment w1 is not with it": lambda case: setattr(case, "work", None),
    "another|assignment w1 is not with it": lambda case: case.has(id="w2"),
    "taken anew|last seen": lambda case: case.has(delivered_at=time.time()),
    "observed": lambda case: case.section.update({"failover.mode": "observe"}),
    "its tmux server does not answer": lambda case: setattr(case.agent, "wedged", True),
    "it is waiting": lambda case: case.sees(State.WAITING),
    "it is limited": lambda case: case.sees(State.LIMITED),
    "what it does is unknown": lambda case: case.sees(State.UNKNOWN),
    "another boot|its process is not proven": lambda case: case.row(boot="another"),
    "its heartbeat cannot be looked at": lambda case: (case.beat.unlink(), case.beat.symlink_to(case.beat)),
    "never|no heartbeat for": lambda case: case.section.update({"failover.stuck_secs": "0"}),
    "just ready|ready for": lambda case: case.row(ready_at=time.time() - 100),
    "suspended|last seen": lambda case: setattr(
        case, "finding", replace(case.finding, floor=time.time() - 60)
    ),
}


@pytest.mark.parametrize("why", CHANGES)
@pytest.mark.skipif(not LINUX, reason="what a launch was told is read from /proc")
def test_who_changed_meanwhile_or_cannot_be_told_about_is_not_ended(case: Case, why: str) -> None:
    CHANGES[why](case)
    assert case.verdict().startswith(why.partition("|")[2] or why)
