"""What a plugin is given, when it ticks, and what it knows again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from circus.watcher import Watcher
from circus_failover.plugins import CrashLoopGuard, IdleReaper
from circus_failover.plugins.idle_reaper import ClientSeen, clock_of, detail_of

from circus_failover.idle_evidence import latest_movement
from circus_failover.plugin import Refused, Said, until_next
from circus_failover.plugin_input import AgentPolicy, Event, agent_policy, parse_event, parse_options
from circus_failover.policy.idle import Clock, clock_jumped
from circus_failover.process_table import LINUX
from circus_failover.records import AgentRow, AssignmentRow, LaunchRow, TaskRow
from circus_failover.store import Reader, Store, open_reader
from circus_failover.words import Restart

BOOT = "a-boot"


# -- options ------------------------------------------------------------------------------------------


def test_a_plugin_without_options_has_its_own_defaults() -> None:
    options, problems = parse_options(
        {"name": "plugin:idle", "__name__": "plugin:idle", "active": "True"}, 30.0
    )
    assert (options.interval, options.dry_run, options.config, problems) == (30.0, False, None, [])
    assert (IdleReaper.default_interval, CrashLoopGuard.default_interval) == (30.0, 1.0)


def test_options_are_taken_as_circus_passes_them_as_text(tmp_path: Path) -> None:
    config = tmp_path / "failover.yaml"
    config.touch()
    options, problems = parse_options({"interval": "0.5", "dry_run": "Yes", "config": str(config)}, 30.0)
    assert (options.interval, options.dry_run, options.config, problems) == (0.5, True, config, [])


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon", "", "1_0", "1e9", "0.01"])
def test_an_interval_that_makes_no_sense_leaves_the_default_and_is_named(interval: str) -> None:
    options, (problem,) = parse_options({"interval": interval}, 30.0)
    assert options.interval == 30.0
    assert f"interval = {interval!r}: expected seconds from 0.1 to 86400; 30 is used" == problem


def test_every_mistake_is_named_and_none_hides_another() -> None:
    options, problems = parse_options(
        {"dry_run": "perhaps", "config": "/nowhere/failover.yaml", "intervall": "3", "interval": "x"}, 1.0
    )
    assert (options.interval, options.dry_run, options.config) == (1.0, False, None)
    assert [problem.split(" = ")[0] for problem in problems] == ["intervall", "interval", "dry_run", "config"]
    assert "'perhaps': expected true or false" in problems[2]
    assert "/nowhere/failover.yaml is no file" in problems[3]


def test_options_that_circus_reads_for_the_plugins_own_watcher_are_no_mistakes() -> None:
    parameters = inspect.signature(Watcher.__init__).parameters
    given = {name: "1" for name in parameters if name not in ("self", "options")}
    _, problems = parse_options({**given, "stdout_stream.class": "FileStream", "rlimit_nofile": "5"}, 1.0)
    assert problems == []


# -- events -------------------------------------------------------------------------------------------


def test_an_agents_event_says_what_changed() -> None:
    said = {"identity": "coder-1", "generation": 3, "phase": "down", "cause": "exited", "state": None}
    event = parse_event([b"watcher.coder-1.agent", json.dumps(said).encode()])
    assert event == Event("coder-1", "agent", 3, "down", None, "exited", None)


def test_events_of_circus_itself_name_the_watcher() -> None:
    assert parse_event([b"watcher.coder-1.reap", b'{"process_pid": 3, "time": 1}']) == Event(
        "coder-1", "reap"
    )


@pytest.mark.parametrize(
    "frames",
    [
        [b"watcher.coder-1.updated", b"{}"],
        [b"arbiter.coder-1.spawn", b"{}"],
        [b"watcher.coder-1", b"{}"],
        [b"watcher.coder-1.agent", b"{"],
        [b"watcher.coder-1.agent", b"[]"],
        [b"watcher.coder-1.agent", b"\xff"],
        [b"\xff\xfe", b"{}"],
        [b"watcher.coder-1.agent"],
        [],
    ],
)
def test_what_is_no_event_for_a_plugin_is_passed_over(frames: list[bytes]) -> None:
    assert parse_event(frames) is None


# -- an agent's settings ----------------------------------------------------------------------------------


def test_the_settings_that_circusd_stored_are_read_once_for_all_agents_that_share_them() -> None:
    text = json.dumps(
        {
            "mode": "observe",
            "restart": "on-work",
            "idle_secs": 3600,
            "max_age_secs": 0,
            "crash_max": 3,
            "crash_window_secs": 300,
            "stable_secs": 60,
            "resumable": False,
        }
    )
    policy = agent_policy(text)
    assert policy == AgentPolicy(True, Restart.ON_WORK, 3600.0, 0.0, 3, 300.0, 60.0)
    assert agent_policy(text) is policy


@pytest.mark.parametrize("text", ["{}", "[]", "", "{", '{"mode": "manage", "restart": "sometimes"}'])
def test_settings_that_are_missing_or_wrong_are_none_rather_than_guessed(text: str) -> None:
    assert agent_policy(text) is None


# -- ticks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "wait"), [(100.0, 30.0), (101.0, 29.0), (130.0, 0.0), (131.0, 29.0), (195.0, 25.0)]
)
def test_a_tick_that_took_longer_than_the_interval_is_not_made_up_for(ended: float, wait: float) -> None:
    assert until_next(100.0, ended, 30.0) == wait


def test_what_stays_the_same_is_said_once_and_again_when_it_changes() -> None:
    said = Said()
    assert [said.changed("probe", "a", why) for why in ("x", "x", "y", "y", "x")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert said.changed("probe", "b", "x") and said.changed("dry-run", "a", "x")
    said.forget("probe", "a")
    assert said.changed("probe", "a", "x")


def test_what_was_said_of_agents_that_are_gone_is_forgotten() -> None:
    said = Said()
    said.changed("probe", "a", 1)
    said.changed("probe", "b", 1)
    said.keep(["b"])
    assert said.changed("probe", "a", 1) and not said.changed("probe", "b", 1)


# -- after a restart ------------------------------------------------------------------------------------


def through_the_store(detail: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(detail))  # type: ignore[no-any-return]


def test_the_reapers_clock_and_the_clients_it_saw_survive_its_restart() -> None:
    clock, seen = Clock(1764000000.123456, 4321.000001), {"coder-1": ClientSeen(7, 1763999999.5, True)}
    detail = through_the_store(detail_of(clock, 1763990000.25, seen, BOOT))
    assert clock_of(detail, BOOT) == (clock, 1763990000.25, seen)


def test_a_suspend_while_the_reaper_was_not_running_is_noticed_by_what_it_stored() -> None:
    detail = through_the_store(detail_of(Clock(1000.0, 50.0), None, {}, BOOT))
    before, _, _ = clock_of(detail, BOOT)
    assert before is not None
    assert clock_jumped(before, Clock(1000.0 + 3600.0, 50.0 + 10.0))
    assert not clock_jumped(before, Clock(1000.0 + 3600.0, 50.0 + 3600.0))


def test_a_clock_of_another_boot_is_not_compared_with_this_one() -> None:
    detail = through_the_store(
        detail_of(Clock(1000.0, 50.0), 900.0, {"coder-1": ClientSeen(7, 999.0, False)}, BOOT)
    )
    assert clock_of(detail, "another-boot") == (None, None, {})
    assert clock_of({}, BOOT) == (None, None, {})


@pytest.mark.parametrize(
    "detail", [{"boot": BOOT}, {"boot": BOOT, "clock": "soon", "floor": None, "seen": {}}]
)
def test_a_stored_clock_that_makes_no_sense_is_refused(detail: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        clock_of(detail, BOOT)


# -- the terminal ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="only Linux hides the lowest three bits of a terminal's seconds")
def test_a_terminal_may_have_moved_until_the_next_moment_at_which_it_would_show() -> None:
    # 1000 is a multiple of 8: all movements until 1008 leave the time of change at 1000.
    assert latest_movement(1000.0, now=1100.0) == 1007.99
    assert latest_movement(1005.25, now=1100.0) == 1007.99
    assert latest_movement(1008.0, now=1100.0) == 1015.99
    assert latest_movement(1000.0, now=1003.0) == 1003.0
    assert latest_movement(1000.0, now=900.0) == 1000.0  # the clock was set back


# -- what the guard asks for, of a real store ------------------------------------------------------------


class Guard(CrashLoopGuard):
    """The guard, with its requests written down instead of sent."""

    def __init__(self) -> None:
        super().__init__("ipc:///nowhere/ctl", "ipc:///nowhere/pub", 1.0)
        self.requests: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.refuses = False

    def ask(self, verb: str, **properties: object) -> dict[str, object]:
        self.requests.append((verb, str(properties["name"])))
        self.reasons.append(str(properties["reason"]))
        if self.refuses:
            raise Refused("not now")
        return {"status": "ok"}


def fallen(
    folder: Path, *rows: AgentRow, ago: float, restart: str = "always", planned: bool = False
) -> Reader:
    """Return a store in which the first launch of each of these agents ended, so long ago.

    It ended by itself unless it was `planned`.
    """
    policy = json.dumps({**json.loads(ALWAYS), "restart": restart})
    now = time.time()
    with contextlib.closing(Store(folder / "failover.db")) as store, store.decision(durable=False):
        for row in rows:
            store.put_agent(replace(row, generation=1, policy=policy))
            store.add_launch(LaunchRow(row.identity, 1, "first-start", "", None, None, now - 1000, now - 999))
            store.end_launch(
                row.identity, 1, at=now - ago, planned=planned, cause="parked" if planned else "exited"
            )
    return open_reader(folder / "failover.db")


ALWAYS = json.dumps(
    {
        "mode": "manage",
        "restart": "always",
        "idle_secs": 0,
        "max_age_secs": 0,
        "crash_max": 3,
        "crash_window_secs": 300,
        "stable_secs": 300,
    }
)


def test_of_agents_that_died_together_one_tick_brings_back_one(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, *(AgentRow(name) for name in "abcd"), ago=20.0)
    for _ in range(3):
        asyncio.run(guard.tick(store))
    assert guard.requests == [("respawn", "a")]


def test_a_request_is_sent_once_and_again_when_it_was_refused(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), ago=20.0)
    guard.refuses = True
    asyncio.run(guard.tick(store))
    guard.refuses = False
    for _ in range(3):
        asyncio.run(guard.tick(store))
    assert guard.requests == [("respawn", "a")] * 2


def test_an_agent_whose_row_makes_no_sense_does_not_keep_the_others_down(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a", loop="nonsense"), AgentRow("b"), ago=20.0)
    asyncio.run(guard.tick(store))
    assert guard.requests == [("respawn", "b")]
    assert guard._errors == 1 and str(guard._last_error).startswith("a: ")


def test_an_agent_whose_section_has_vanished_is_nobodys_to_bring_back(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a", declared=False), ago=20.0)
    asyncio.run(guard.tick(store))
    assert guard.requests == []


def test_the_time_of_an_agent_that_fell_just_now_is_noted_and_not_asked_for_early(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), ago=-30.0)  # also when this takes long
    asyncio.run(guard.tick(store))
    assert guard.requests == [] and guard._due.keys() == {"a"}


def with_work(folder: Path, *, tasks: int = 0, **assignment: str) -> None:
    """Put tasks for agent `a`, and an assignment, into its store."""
    now = time.time()
    with contextlib.closing(Store(folder / "failover.db")) as store, store.decision(durable=False):
        for _ in range(tasks):
            store.add_task(TaskRow(0, "a", "look at it", None, "operator", now))
        if assignment:
            store.add_assignment(replace(AssignmentRow(0, "job-1", "do it", "operator", now), **assignment))  # type: ignore[arg-type]


@pytest.mark.parametrize("restart", ["lazy", "on-work", "always"])
@pytest.mark.parametrize(
    "assignment", [{"owner": "a", "state": "working"}, {"owner": "a"}, {"wanted": "a"}], ids=str
)
def test_an_agent_that_died_with_an_assignment_comes_back_whatever_its_restart_policy(
    tmp_path: Path, restart: str, assignment: dict[str, str]
) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), AgentRow("b"), ago=20.0, restart=restart)
    with_work(tmp_path, **assignment)
    asyncio.run(guard.tick(store))
    assert guard.requests[0] == ("respawn", "a")
    assert "it has an assignment" in guard.reasons[0] and "job-1" in guard.reasons[0]
    assert ("respawn", "b") not in guard.requests or restart == "always"


@pytest.mark.parametrize(
    "assignment",
    [{}, {"owner": "a", "state": "orphaned"}, {"owner": "b", "state": "working"}, {"pool": "p"}],
    ids=str,
)
def test_a_lazy_agent_without_an_assignment_of_its_own_waits_for_a_wake(
    tmp_path: Path, assignment: dict[str, str]
) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), ago=20.0, restart="lazy")
    with_work(tmp_path, tasks=1, **assignment)
    asyncio.run(guard.tick(store))
    assert guard.requests == []


def test_an_agent_that_was_parked_with_an_assignment_is_not_brought_back_by_the_guard(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), ago=20.0, planned=True)
    with_work(tmp_path, owner="a", state="queued", interrupted="parked")
    asyncio.run(guard.tick(store))
    assert guard.requests == []


def test_a_dry_run_says_which_assignment_would_bring_an_agent_back(tmp_path: Path) -> None:
    guard, store = Guard(), fallen(tmp_path, AgentRow("a"), ago=20.0, restart="lazy")
    with_work(tmp_path, owner="a", state="working")
    guard.options = replace(guard.options, dry_run=True)
    asyncio.run(guard.tick(store))
    asyncio.run(guard.tick(store))
    assert guard.requests == []
    (found,) = guard._findings
    assert (found["identity"], found["action"], found["outcome"]) == ("a", "respawn", "dry-run")
    assert "lazy, and it has an assignment" in found["evidence"] and "job-1" in found["evidence"]
