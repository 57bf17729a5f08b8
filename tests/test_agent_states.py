"""The plugin that looks at agents: whom it looks at, and what it tells circusd of them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from circus_failover.plugins import AgentStates

from circus_failover import agent_health, process_table
from circus_failover.agent_health import Look
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import Observation, Place
from circus_failover.observing import Observer
from circus_failover.plugin import Silent
from circus_failover.plugin_input import Event
from circus_failover.policy.health import Health, Sign
from circus_failover.records import AgentRow
from circus_failover.store import Reader, Store, open_reader
from circus_failover.words import Source, State

HERE = process_table.identify(os.getpid())


class Telling(CommandRuntime):
    """A runtime whose agents do what the test says, by their working directories."""

    name = "telling"
    tells = True

    def __init__(self) -> None:
        self.does: dict[str, State] = {}
        self.conversation: str | None = None
        self.hangs: dict[str, threading.Event] = {}
        self.looks: list[str] = []

    def look(self, place: Place) -> Observation:
        name = str(place.working_dir)
        self.looks.append(name)
        if name in self.hangs:
            self.hangs[name].wait(30)
        return Observation(
            (Sign(Source.STATUS_FILE, None, self.does.get(name, State.IDLE)),), self.conversation
        )


class States(AgentStates):
    """The plugin, with what it tells written down instead of sent."""

    def __init__(self, runtime: Telling, **options: str) -> None:
        super().__init__("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0, **options)
        self._observer = Observer({"telling": runtime, "command": CommandRuntime()})
        self.said: list[list[Look]] = []
        self.again: list[str] = []
        self.silent = False

    def ask(self, verb: str, **properties: Any) -> dict[str, Any]:
        if self.silent:
            raise Silent("no answer")
        assert verb == "seen" and properties["interval"] == self.options.interval
        looks = [agent_health.heard(said) for said in properties["agents"]]
        assert all(look is not None for look in looks)
        self.said.append([look for look in looks if look is not None])
        again, self.again = self.again, []
        return {"status": "ok", "again": again}

    def take(self) -> list[tuple[str, str | None]]:
        """Return what was told since the last time: of whom, and which state; None: as before."""
        said, self.said = self.said, []
        return sorted((look.identity, _state(look.health)) for looks in said for look in looks)

    def later(self, secs: float) -> None:
        """Let it be that much longer ago that something was told."""
        self._told = {name: replace(look, at=look.at - secs) for name, look in self._told.items()}


def _state(health: Health | None) -> str | None:
    return None if health is None else str(health.state)


@pytest.fixture
def runtime() -> Iterator[Telling]:
    made = Telling()
    yield made
    for hanging in made.hangs.values():
        hanging.set()


def agent(name: str, **changes: Any) -> AgentRow:
    assert HERE is not None
    made = AgentRow(
        name,
        phase="up",
        generation=1,
        pid=HERE.pid,
        pid_start=HERE.start,
        boot=process_table.boot_id(),
        runtime="telling",
        home="/home",
        working_dir=name,
    )
    return replace(made, **changes)


def stored(folder: Path, *rows: AgentRow) -> Reader:
    store = Store(folder / "failover.db")
    with store.decision(durable=False):
        for row in rows:
            store.put_agent(row)
    store.close()
    return open_reader(folder / "failover.db")


def ticks(states: States, store: Reader, times: int = 1) -> list[tuple[str, str | None]]:
    for _ in range(times):
        asyncio.run(states.tick(store))
    return states.take()


def react(states: States, store: Reader, identities: Sequence[str]) -> list[tuple[str, str | None]]:
    asyncio.run(states.react(store, identities))
    return states.take()


def test_what_agents_do_is_told_once_and_then_what_has_changed(tmp_path: Path, runtime: Telling) -> None:
    states, store = States(runtime), stored(tmp_path, agent("a"), agent("b"), agent("c", phase="observed"))
    assert ticks(states, store) == [("a", "idle"), ("b", "idle"), ("c", "idle")]
    assert ticks(states, store) == []
    runtime.does["b"] = State.WORKING
    assert ticks(states, store) == [("b", "working")]
    runtime.conversation = "c-2"
    assert [name for name, _ in ticks(states, store)] == ["a", "b", "c"]


def test_what_stays_the_same_is_told_after_two_ticks_and_cheaply(tmp_path: Path, runtime: Telling) -> None:
    states, store = States(runtime), stored(tmp_path, agent("a"), agent("b"))
    ticks(states, store)
    states.later(2 * states.options.interval)
    assert ticks(states, store) == [("a", None), ("b", None)]
    assert ticks(states, store) == []


def test_the_same_in_other_words_is_not_told(tmp_path: Path, runtime: Telling) -> None:
    states, store = States(runtime), stored(tmp_path, agent("a"))
    ticks(states, store)
    health = states._told["a"].health
    assert health is not None and health.evidence
    states._told["a"] = replace(states._told["a"], health=replace(health, evidence="status-file: for 3 s"))
    assert ticks(states, store) == []


def test_who_cannot_be_looked_at_is_not_looked_at(tmp_path: Path, runtime: Telling) -> None:
    states = States(runtime)
    others = [
        agent("command", runtime="command"),
        agent("older", runtime=None),
        agent("nobody", pid=None),
        agent("starting", phase="starting"),
        agent("parked", phase="parked"),
    ]
    store = stored(tmp_path, *others)
    assert ticks(states, store) == []
    assert react(states, store, [row.identity for row in others] + ["no-agent"]) == []
    assert runtime.looks == []


def test_what_was_not_heard_is_told_again_and_so_is_what_circusd_asks_for(
    tmp_path: Path, runtime: Telling
) -> None:
    states, store = States(runtime), stored(tmp_path, agent("a"), agent("b"))
    states.silent = True
    with pytest.raises(Silent):
        ticks(states, store)
    states.silent = False
    states.again = ["b"]
    assert ticks(states, store) == [("a", "idle"), ("b", "idle")]
    assert ticks(states, store) == [("b", "idle")]


def test_a_launch_that_follows_is_told_of_though_it_does_the_same(tmp_path: Path, runtime: Telling) -> None:
    states = States(runtime)
    assert ticks(states, stored(tmp_path, agent("a"))) == [("a", "idle")]
    assert ticks(states, stored(tmp_path, agent("a", generation=2))) == [("a", "idle")]
    assert ticks(states, stored(tmp_path, agent("a", generation=2, phase="down"))) == []
    assert not states._found and not states._told


def test_an_agent_whose_server_does_not_answer_costs_the_others_nothing(
    tmp_path: Path, runtime: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a{number}" for number in range(20)]
    states, store = States(runtime), stored(tmp_path, *map(agent, names))
    runtime.hangs["a0"] = threading.Event()
    for state in (State.IDLE, State.WORKING):
        runtime.does = dict.fromkeys(names, state)
        told: set[tuple[str, str | None]] = set()
        for _ in range(20):
            told.update(ticks(states, store))
            if len(told) >= len(names) - 1:
                break
        assert told == {(name, str(state)) for name in names[1:]}
    assert runtime.looks.count("a0") == 1, "it is not looked at twice at the same time"
    runtime.hangs["a0"].set()
    states._pool.shutdown(wait=True)
    monkeypatch.setattr(states, "_looking", set(names))
    assert ticks(states, store) == [("a0", "working")]


def test_an_event_has_that_agent_looked_at_at_once_and_a_storm_of_them_once(
    tmp_path: Path, runtime: Telling
) -> None:
    states, store = States(runtime), stored(tmp_path, agent("a"), agent("b"))
    assert react(states, store, ["b"]) == [("b", "idle")]
    runtime.does["b"] = State.WAITING
    assert react(states, store, ["b"]) == [], "it was looked at just now: it is looked at in a moment"
    assert runtime.looks == ["b"] and states._soon == {"b"}
    states._begun.clear()
    assert react(states, store, ["b"]) == [("b", "waiting")]


@pytest.mark.parametrize(
    ("phase", "wanted"),
    [("up", True), ("observed", True), ("starting", False), ("down", False), (None, False)],
)
def test_events_of_agents_that_are_up_are_reacted_to(
    runtime: Telling, phase: str | None, wanted: bool
) -> None:
    assert States(runtime).concerns(Event("a", "agent", 1, phase)) is wanted


@pytest.mark.parametrize("kind", ["spawn", "reap", "stop"])
def test_circus_s_own_events_are_reacted_to(runtime: Telling, kind: str) -> None:
    assert States(runtime).concerns(Event("a", kind))


def test_a_dry_run_looks_and_tells_and_says_that_it_changes_nothing(tmp_path: Path, runtime: Telling) -> None:
    states, store = States(runtime, dry_run="true"), stored(tmp_path, agent("a"))
    assert ticks(states, store) == [("a", "idle")]
    (finding,) = states._findings
    assert "changes nothing" in finding["evidence"]
