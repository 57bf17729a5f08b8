"""The plugin that has agents moved, held and woken: whom it asks about, at what pace, what it says once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus_failover.plugins import AccountFailover

from circus_failover import agent_health, doctor_plugins, process_table
from circus_failover.agent_health import Seen
from circus_failover.doctor_checks import Level
from circus_failover.plugin import Refused, Silent
from circus_failover.plugin_input import Event
from circus_failover.policy.health import Fault, Health
from circus_failover.records import AccountRow, AgentRow, AssignmentRow, TaskRow
from circus_failover.store import Reader, Store, open_reader
from circus_failover.words import FaultKind, State

HERE = process_table.identify(os.getpid())
POLICY = {
    "mode": "manage",
    "restart": "on-work",
    "idle_secs": 0,
    "max_age_secs": 0,
    "crash_max": 3,
    "crash_window_secs": 300,
    "stable_secs": 300,
    "account": "one",
    "on_limit": "switch",
}
LIMIT = Fault(FaultKind.USAGE_LIMIT, "You've hit your limit", "5-hour")
LOGIN = Fault(FaultKind.CREDENTIALS, "Please run /login")


class Mover(AccountFailover):
    """The plugin, with what it asks circusd written down instead of sent."""

    def __init__(self, **options: str) -> None:
        super().__init__("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0, **options)
        self.asked: list[list[str]] = []
        self.done: list[tuple[str, str]] = []
        self.verdict: Callable[[str], str] = lambda name: "switch"
        self.fails: dict[str, Exception] = {}

    def ask(self, verb: str, **properties: Any) -> dict[str, Any]:
        assert verb == "on-limit"
        names = properties["names"]
        if "action" in properties:
            if names[0] in self.fails:
                raise self.fails[names[0]]
            self.done.append((properties["action"], names[0]))
            return {"status": "ok"}
        self.asked.append(list(names))
        said = {"generation": 1, "to": "two", "until": None, "reason": "limited"}
        return {"verdicts": [{**said, "identity": name, "action": self.verdict(name)} for name in names]}

    def take(self) -> list[tuple[str, str]]:
        """Return what was asked to be done since the last time."""
        done, self.done = self.done, []
        return done

    def about(self) -> list[str]:
        """Return whom circusd was asked about since the last time."""
        asked, self.asked = self.asked, []
        return sorted(name for names in asked for name in names)

    def found(self) -> list[tuple[str, str, str]]:
        """Return what was found since the last time: agent, action, outcome."""
        findings, self._findings = self._findings, []
        return [(one["identity"], one["action"], one["outcome"]) for one in findings]

    def later(self) -> None:
        """Let the pace permit the next one."""
        self._next = -math.inf


class Ground:
    """A real store that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "failover.db"
        self.policy = POLICY

    def put(self, *rows: AgentRow | AccountRow | TaskRow | AssignmentRow) -> None:
        with contextlib.closing(Store(self.path)) as store, store.decision(durable=False):
            for row in rows:
                if isinstance(row, AgentRow):
                    store.put_agent(row)
                elif isinstance(row, AccountRow):
                    store.put_account(row)
                elif isinstance(row, TaskRow):
                    store.add_task(row)
                else:
                    store.add_assignment(row)

    def up(
        self, name: str, state: State = State.IDLE, fault: Fault | None = None, **policy: object
    ) -> AgentRow:
        """Return an agent that is up on account `one`, and was seen to do this."""
        assert HERE is not None
        seen = Seen(1, HERE, time.time(), 2.0, Health(state, fault=fault))
        row = AgentRow(name, "up", generation=1, pid=HERE.pid, pid_start=HERE.start, account="one")
        return replace(row, health=agent_health.text(seen), policy=json.dumps({**POLICY, **policy}))

    def held(self, name: str, secs: float, **policy: object) -> AgentRow:
        """Return an agent that is held for so many seconds more."""
        row = AgentRow(name, "held", cause="limited", generation=1, limited_until=time.time() + secs)
        return replace(row, policy=json.dumps({**POLICY, **policy}))

    def store(self) -> Reader:
        return open_reader(self.path)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def tick(plugin: Mover, ground: Ground) -> list[tuple[str, str]]:
    """Let it tick once, and return what it asked to be done."""
    with contextlib.closing(ground.store()) as store:
        asyncio.run(plugin.tick(store))
    return plugin.take()


def exhausted(state: str = "limited", **more: Any) -> AccountRow:
    now = time.time()
    return AccountRow("one", "claude", **{"state": state, "until": now + 600, "seen_at": now, **more})


def test_circusd_is_asked_about_those_alone_about_whom_something_may_be_to_be_done(ground: Ground) -> None:
    plugin = Mover()
    rows = [
        ground.up("limited", State.LIMITED, LIMIT),
        ground.up("login", State.WAITING, LOGIN),
        ground.up("model", State.LIMITED, replace(LIMIT, model_only=True)),
        ground.up("asks", State.WAITING),
        ground.up("idle"),
        ground.up("has-task"),
        ground.up("in-pool", pool="crew"),
        ground.up("told", on_limit="notify"),
        ground.up("full", switch_at=80),
        ground.up("works", State.WORKING, switch_at=80),
        ground.up("watched", State.LIMITED, LIMIT, mode="observe"),
        replace(ground.up("gone", State.LIMITED, LIMIT), declared=False),
        ground.up("no-account", State.LIMITED, LIMIT, account=None),
        replace(ground.up("older", State.LIMITED, LIMIT), generation=2),
        ground.held("held", 600),
        replace(ground.held("crashed", 600), cause="crash-loop"),
        replace(ground.held("parked", 600), phase="parked"),
    ]
    tasks = [TaskRow(0, name, "x", None, "ann", 1.0) for name in ("has-task", "told")]
    ground.put(*rows, *tasks, AssignmentRow(0, "w1", "x", "ann", 1.0, pool="crew"))
    tick(plugin, ground)
    assert plugin.about() == ["held", "limited", "login"]
    usage = [{"window": "weekly", "used": 0.8, "resets_at": None, "at": time.time()}]
    ground.put(exhausted("available", until=None, usage=json.dumps(usage)))
    tick(plugin, ground)
    assert plugin.about() == ["full", "held", "limited", "login"], "what is known has changed"
    ground.put(exhausted())
    tick(plugin, ground)
    assert [name for name in plugin.about() if name not in ("held", "limited", "login", "full")] == [
        "has-task",
        "in-pool",
    ]


def test_one_after_another_is_relaunched_and_who_is_held_or_parked_is_at_once(ground: Ground) -> None:
    plugin, names = Mover(), [f"a-{number}" for number in range(3)]
    said = {"b": "hold", "c": "park", "d": "leave", "e": "tell"}
    plugin.verdict = lambda name: said.get(name, "switch")
    ground.put(*(ground.up(name, State.LIMITED, LIMIT) for name in (*names, *said)))
    assert tick(plugin, ground) == [("hold", "b"), ("park", "c"), ("switch", "a-0")]
    assert plugin.found() == [("e", "limited", "left")]
    ground.put(replace(ground.up("a-0"), phase="stopping"))
    assert ("switch", "a-1") not in tick(plugin, ground), "the pace does not permit it yet"
    plugin.about()
    plugin.later()
    ground.put(ground.up("a-1"))  # it has gone on by itself
    assert ("switch", "a-2") in tick(plugin, ground)
    assert plugin.about() == ["b", "c", "d"], "who stands in the line is not asked about with every tick"
    assert plugin.found() == []


def test_what_is_refused_is_said_once_and_keeps_nobody_waiting(ground: Ground) -> None:
    plugin = Mover()
    plugin.fails["a-0"] = Refused("a-0 has gone on")
    ground.put(*(ground.up(f"a-{number}", State.LIMITED, LIMIT) for number in range(2)))
    assert tick(plugin, ground) == [("switch", "a-1")]
    assert plugin.found() == [("a-0", "error", "not-switched")]
    plugin.later()
    assert tick(plugin, ground) == [("switch", "a-1")] and plugin.found() == []


def test_when_circusd_is_silent_it_is_asked_again_with_the_next_tick(ground: Ground) -> None:
    plugin = Mover(pace="0")
    plugin.verdict = lambda name: "wake"
    ground.put(ground.held("a", 600))
    plugin.fails["a"] = Silent("it did not answer")
    with pytest.raises(Silent):
        tick(plugin, ground)
    del plugin.fails["a"]
    assert tick(plugin, ground) == [("wake", "a")]


def test_a_dry_run_says_once_what_it_would_do(ground: Ground) -> None:
    plugin = Mover(dry_run="true")
    plugin.verdict = lambda name: {"a": "switch", "b": "hold", "c": "wake"}[name]
    ground.put(ground.up("a", State.LIMITED, LIMIT), ground.up("b", State.LIMITED, LIMIT))
    ground.put(ground.held("c", -1))
    assert tick(plugin, ground) == tick(plugin, ground) == []
    assert plugin.found() == [
        ("b", "held", "dry-run"),
        ("a", "switched", "dry-run"),
        ("c", "woken", "dry-run"),
    ]


def test_who_is_held_is_asked_about_when_its_time_has_come_or_something_has_changed(ground: Ground) -> None:
    plugin = Mover()
    plugin.verdict = lambda name: "leave"
    ground.put(exhausted(), ground.held("a", 600))
    tick(plugin, ground)
    assert plugin.about() == ["a"]
    tick(plugin, ground)
    assert plugin.about() == []
    ground.put(exhausted("unknown", until=None))
    tick(plugin, ground)
    assert plugin.about() == ["a"]
    ground.put(ground.held("a", 600, on_limit="wait"))
    tick(plugin, ground)
    assert plugin.about() == ["a"], "its settings are others"
    ground.put(ground.held("a", 600, account=None))
    tick(plugin, ground)
    assert plugin.about() == ["a"], "no account limits it any more"
    ground.put(ground.held("a", -1))
    tick(plugin, ground)
    tick(plugin, ground)
    assert plugin.about() == ["a", "a"]
    plugin.verdict = lambda name: "wake"
    assert tick(plugin, ground) == [("wake", "a")]


def test_a_limit_is_reacted_to_without_a_tick(ground: Ground) -> None:
    plugin = Mover()
    ground.put(ground.up("a", State.LIMITED, LIMIT))
    limited = Event("a", "agent", 1, "up", "limited")
    assert plugin.concerns(limited) and plugin.concerns(replace(limited, phase="held", state=None))
    assert not plugin.concerns(replace(limited, state="idle"))
    assert not plugin.concerns(replace(limited, phase="parked", state=None))
    with contextlib.closing(ground.store()) as store:
        asyncio.run(plugin.react(store, ["a", "nobody"]))
    assert plugin.take() == [("switch", "a")]


@pytest.mark.parametrize("pace", ["soon", "-1", "nan", "1_0", "1e9"])
def test_a_pace_that_makes_no_sense_is_said_and_the_default_is_used(pace: str, ground: Ground) -> None:
    plugin = Mover(pace=pace)
    assert [outcome for _, _, outcome in plugin.found()] == ["default-used"]
    ground.put(*(ground.up(f"a-{number}", State.LIMITED, LIMIT) for number in range(2)))
    assert tick(plugin, ground) == [("switch", "a-0")]
    assert Mover(pace="0.5").found() == [] and Mover.default_interval == 5.0


def test_doctor_misses_it_where_agents_could_be_moved() -> None:
    there = ["CrashLoopGuard", "IdleReaper"]
    assert doctor_plugins.judged(there, {}, []) == []
    (missing,) = doctor_plugins.judged(there, {}, [], movable=["bob"])
    assert (missing.level, missing.check) == (Level.WARN, "AccountFailover") and "bob" in missing.finding
    assert "use = circus_failover.plugins.AccountFailover" in missing.remedy
    assert doctor_plugins.judged([*there, "AccountFailover"], {}, [], movable=["bob"]) == []
    dry = {"AccountFailover": "plugin:failover"}
    (said,) = doctor_plugins.judged([*there, "AccountFailover"], dry, [], movable=["bob"])
    assert said.level is Level.OK and "dry_run" in said.finding
