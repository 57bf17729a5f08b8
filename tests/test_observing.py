"""Looking at agents: what a runtime sees is weighed, and whatever goes wrong is unknown with its reason."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circus_failover import observing, process_table
from circus_failover.agents.command import CommandRuntime
from circus_failover.agents.runtime import Observation, Place
from circus_failover.observing import Observer
from circus_failover.policy.accounts import Usage
from circus_failover.policy.health import Sign
from circus_failover.process_table import LINUX, ProcessId
from circus_failover.records import AgentRow
from circus_failover.words import Source, State
from tests.live.terminal import Open, Terminal, private_folder, terminals

NOW = time.time()
HERE = process_table.identify(os.getpid())


class Telling(CommandRuntime):
    """A runtime that sees what the test wants it to, and remembers where it was asked to look."""

    name = "telling"
    tells = True

    def __init__(self, seen: Observation | Exception = Observation(), *, screen: bool = False) -> None:  # noqa: B008
        self.seen, self.screen = seen, screen
        self.places: list[Place] = []
        self.rows: list[tuple[str, ...] | None] = []

    def look(self, place: Place) -> Observation:
        self.places.append(place)
        if self.screen:
            shown = place.screen()
            self.rows.append(None if shown is None else shown.rows)
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen


def row(**changes: Any) -> AgentRow:
    assert HERE is not None
    return replace(
        AgentRow(
            "bob",
            phase="up",
            generation=3,
            pid=HERE.pid,
            pid_start=HERE.start,
            boot=process_table.boot_id(),
            launch="a-launch",
            conversation="c-1",
            runtime="telling",
            home="/home/one",
            working_dir="/work",
            launched_at=NOW - 60,
        ),
        **changes,
    )


def test_what_a_runtime_sees_is_weighed_and_handed_on() -> None:
    seen = Observation(
        (Sign(Source.STATUS_FILE, NOW - 5, State.WAITING, "permission: Bash"),), "c-2", NOW - 4
    )
    runtime = Telling(seen)
    health, observed = Observer({"telling": runtime}).observe(row(), NOW)
    assert (health.state, health.source, health.at) == (State.WAITING, Source.STATUS_FILE, NOW - 5)
    assert health.what == "permission: Bash"
    assert observed == seen
    (place,) = runtime.places
    assert (place.process, place.home, place.working_dir) == (HERE, Path("/home/one"), Path("/work"))
    assert (place.conversation, place.launched_at, place.events) == ("c-1", NOW - 60, {})
    assert place.screen() is None, "nobody has recorded where its pane is"


def test_what_was_said_before_this_launch_may_be_about_another_account() -> None:
    old, new = Usage("weekly", 0.9, None, NOW - 61), Usage("5-hour", 0.1, None, NOW - 50)
    answers = tuple(Sign(Source.TRANSCRIPT, NOW - ago, answered=True) for ago in (61, 40, 55))
    seen = Observation(answers, usage=(old, new))
    _, observed = Observer({"telling": Telling(seen)}).observe(row(), NOW)
    assert (observed.answered_at, observed.usage) == (NOW - 40, (new,))
    _, observed = Observer({"telling": Telling(replace(seen, signs=answers[:1]))}).observe(row(), NOW)
    assert observed.answered_at is None


def test_what_is_older_than_the_launch_says_nothing_about_it() -> None:
    runtime = Telling(Observation((Sign(Source.TRANSCRIPT, NOW - 61, State.IDLE),)))
    health, _ = Observer({"telling": runtime}).observe(row(), NOW)
    assert health.state is State.UNKNOWN


@pytest.mark.parametrize("changes", [{"launched_at": None}, {"launch": None, "launched_at": 5.0}])
def test_of_a_launch_that_was_adopted_the_start_of_its_process_counts(changes: dict[str, Any]) -> None:
    runtime = Telling()
    Observer({"telling": runtime}).observe(row(**changes), NOW)
    assert HERE is not None
    began = time.time() - process_table.seconds_since(HERE.start)
    assert began - 2 < runtime.places[0].launched_at <= began


def test_a_runtime_that_fails_makes_its_agent_unknown_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = Telling(KeyError("status"))
    observer = Observer({"telling": runtime})
    with caplog.at_level(logging.ERROR, logger="circus"):
        answers = [observer.observe(row(), NOW) for _ in range(3)]
        assert len(caplog.records) == 1
        runtime.seen = Observation((Sign(Source.HOOK, NOW, State.IDLE),))
        assert observer.observe(row(), NOW)[0].state is State.IDLE
        runtime.seen = KeyError("status")
        observer.observe(row(), NOW)
        assert len(caplog.records) == 2
    for health, observed in answers:
        assert health.state is State.UNKNOWN and "KeyError: 'status'" in health.evidence
        assert observed == Observation()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"runtime": None}, "runtime was not recorded"),
        ({"runtime": "gemini"}, "no runtime gemini"),
        ({"pid": None}, "process was not recorded"),
        ({"boot": "yesterday"}, "rebooted"),
        ({"home": None}, "home was not recorded"),
        ({"working_dir": None}, "working directory was not recorded"),
    ],
)
def test_an_agent_of_whom_something_is_not_known_is_unknown_and_not_looked_at(
    changes: dict[str, Any], reason: str
) -> None:
    runtime = Telling(Observation((Sign(Source.HOOK, NOW, State.IDLE),)))
    health, observed = Observer({"telling": runtime}).observe(row(**changes), NOW)
    assert health.state is State.UNKNOWN and reason in health.evidence
    assert observed == Observation() and runtime.places == []


def test_an_agent_whose_runtime_cannot_tell_costs_nothing() -> None:
    runtime = Telling()
    runtime.tells = False
    observer = Observer({"telling": runtime})
    assert not observer.tells(row()) and not observer.tells(row(runtime=None))
    assert observer.observe(row(), NOW)[0].state is State.UNKNOWN and runtime.places == []


@pytest.mark.parametrize(
    "pushed", ["{", "[]", "7", '{"Stop": 5, "SessionEnd": {"at": "now"}, "x": {"at": true}}']
)
def test_what_hooks_are_said_to_have_reported_and_makes_no_sense_is_left_out(pushed: str) -> None:
    runtime = Telling()
    Observer({"telling": runtime}).observe(row(pushed=pushed), NOW)
    assert runtime.places[0].events == {}


def test_what_hooks_have_reported_is_handed_to_the_runtime() -> None:
    events = {"Stop": {"at": NOW - 3, "session_id": "c-1"}}
    runtime = Telling()
    Observer({"telling": runtime}).observe(row(pushed=json.dumps({**events, "bad": 1})), NOW)
    assert runtime.places[0].events == events


# -- terminals: a real tmux -----------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Opens a terminal with a program."""
    with private_folder() as folder, terminals(folder) as opener:
        yield opener


def living_in(opened: Terminal) -> AgentRow:
    where = {"socket": str(opened.socket), "pane": opened.pane}
    return row(pid=opened.agent.pid, pid_start=opened.agent.start, **where)


@pytest.mark.skipif(not LINUX, reason="the terminal's time is read from /proc")
def test_a_terminal_is_captured_again_only_when_it_may_have_moved(terminal: Open) -> None:
    opened = terminal("sh", "-c", "echo first; exec cat")
    opened.await_screen("first")
    runtime, agent = Telling(screen=True), living_in(opened)
    observer = Observer({"telling": runtime})

    def sees() -> str:
        observer.observe(agent, time.time())
        shown = runtime.rows[-1]
        assert shown is not None
        return "\n".join(shown)

    def moved_at(moment: float) -> None:
        path = process_table.terminal(opened.agent.pid)
        assert path is not None
        os.utime(path, (moment, moment))

    moved_at(time.time() + 100)
    assert "first" in sees()
    opened.tmux("send-keys", "-R", "-t", opened.pane)  # clears it, and the program has printed nothing
    assert "first" not in sees(), "it moved too lately for its time to tell whether it did again since"
    moved_at(long_ago := time.time() - 100)
    assert "first" not in sees()
    opened.press("second", "Enter")
    opened.await_screen("second")
    moved_at(long_ago)
    assert "second" not in sees(), "it has not moved since, so it was not looked at again"
    moved_at(long_ago + 8)
    assert "second" in sees()


def test_a_pane_that_runs_somebody_else_shows_nothing_of_the_agent(terminal: Open) -> None:
    opened = terminal("sh", "-c", "echo first; exec cat")
    opened.await_screen("first")
    runtime = Telling(screen=True)
    observer = Observer({"telling": runtime})
    observer.observe(replace(living_in(opened), pid=HERE.pid if HERE else 0), NOW)
    observer.observe(replace(living_in(opened), pane="%99"), NOW)
    observer.observe(living_in(opened), NOW, screen=False)
    assert runtime.rows == [None, None, None]


def test_a_server_that_does_not_answer_is_not_asked_again_for_each_of_its_agents(
    terminal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = terminal("cat")
    monkeypatch.setattr(observing, "SCREEN_SECS", 0.3)
    runtime = Telling(Observation((Sign(Source.STATUS_FILE, NOW, State.WORKING),)), screen=True)
    observer, agent = Observer({"telling": runtime}), living_in(opened)
    os.kill(opened.server.pid, signal.SIGSTOP)
    health, _ = observer.observe(agent, NOW)
    os.kill(opened.server.pid, signal.SIGCONT)
    assert health.state is State.WORKING, "what its files say, they say all the same"
    observer.observe(agent, NOW)  # it answers again, and is left in peace for a while
    assert runtime.rows == [None, None]
    monkeypatch.setattr(observer, "_silent", {})
    observer.observe(agent, NOW)
    assert runtime.rows[-1] is not None


def test_processes_that_are_gone_are_forgotten() -> None:
    observer = Observer({"telling": Telling()})
    observer.observe(row(launched_at=None), NOW)
    assert HERE is not None and observer._begun.keys() == {HERE}
    observer.keep({ProcessId(1, 1)})
    assert not observer._begun
